"""The columns of a table that records hold besides their image, each of one kind.

The manifest lists them, and `reader` reads them by that list.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from converter.errors import UsageError
from converter.names import from_bytes, to_bytes

KINDS: Final = {
    "int": int, "float": float, "text": str,
    "ints": int, "floats": float, "texts": str,
    "labels": int,  # class numbers
    "boxes": float,  # (top, left, bottom, right) one after another, in fractions of the image
    "mask": bytes,  # a PNG of class numbers, with one channel and the size of the image
}  # fmt: skip
"""The type of the values of each kind of column: any number of them, but for `SCALARS`."""

SCALARS: Final = ("int", "float", "text", "mask")

LABELS: Final = "image/class/labels"
TARGET: Final = "image/target"
CAPTION: Final = "image/caption"
BOXES: Final = "image/object/bbox"
BOX_LABELS: Final = "image/object/class/label"
MASK: Final = "image/segmentation/class/encoded"
ORIGINAL_ROWS: Final = "image/original_rows"
DECODED_ROWS: Final = "image/decoded_rows"

# The option of a conversion that names the column for each feature with a meaning of its own.
FILLED_BY: Final = {
    LABELS: "labels_column", TARGET: "target_column", CAPTION: "caption_column",
    BOXES: "boxes_column", BOX_LABELS: "box_labels_column", MASK: "mask_column",
}  # fmt: skip

# The columns whose values come from the image's files, not from a table.
FROM_FILES: Final = (MASK, ORIGINAL_ROWS, DECODED_ROWS)

OBJECTS: Final = "image/object/"
"""How the columns begin that hold a value for each box, but for `BOXES` themselves."""

# 0 or 1 for each box; the names are those of the TensorFlow Models.
_FLAGS: Final = tuple(f"{OBJECTS}{name}" for name in ("is_crowd", "difficult", "truncated"))

# The kind of each feature with a fixed meaning. Other columns may have any kind but `mask`.
_RESERVED: Final = {
    LABELS: "labels", TARGET: "float", CAPTION: "text",
    BOXES: "boxes", BOX_LABELS: "labels", MASK: "mask",
    ORIGINAL_ROWS: "int", DECODED_ROWS: "int",
    **dict.fromkeys(_FLAGS, "ints"),
}  # fmt: skip

_OF_BOXES: Final = ("ints", "floats", "texts")

MAX_COLUMNS: Final = 32

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One feature that every record has; its kind is one of `KINDS`."""

    name: str
    kind: str

    @property
    def is_scalar(self) -> bool:
        return self.kind in SCALARS

    @property
    def type(self) -> type:
        """The type of its values in a record: text is stored as bytes."""
        kind: type = KINDS[self.kind]
        return bytes if kind is str else kind

    def read(self, values: Sequence[Any]) -> Any:
        """Checks and returns a record's values: one, a list, or a list of boxes of four numbers."""
        self.check(values)
        is_text = KINDS[self.kind] is str
        shown = [from_bytes(value) if is_text else value for value in values]
        if self.is_scalar:
            (single,) = shown
            return single
        if self.kind == "boxes":
            return [tuple(shown[at : at + 4]) for at in range(0, len(shown), 4)]
        return shown

    def check(self, values: Sequence[Any]) -> None:
        """Raises a `ValueError` unless a record's values are of this kind."""
        single = not self.is_scalar or len(values) == 1
        if not single or not all(isinstance(value, self.type) for value in values):
            raise ValueError(f"{self.name} does not hold {self.kind}")
        if self.kind == "boxes" and len(values) % 4:
            raise ValueError(f"{self.name} holds {len(values)} numbers: no boxes of four each")


def check_columns(columns: Sequence[Column]) -> None:
    """Raises a `ValueError` if a name or a kind is unknown, or there are too many."""
    if len(columns) > MAX_COLUMNS:
        raise ValueError(f"{len(columns)} columns, at most {MAX_COLUMNS}")
    if len({column.name for column in columns}) != len(columns):
        raise ValueError("a column is listed twice")
    for column in columns:
        expected = _RESERVED.get(column.name)
        kinds = _OF_BOXES if is_of_boxes(column.name) else KINDS.keys() - {"mask"}
        known = column.kind == expected if expected else column.kind in kinds
        if not known:
            raise ValueError(f"column {column.name!r} is of the unknown kind {column.kind!r}")
        if not expected and not _NAME.fullmatch(column.name.removeprefix(OBJECTS)):
            raise ValueError(f"column {column.name!r} has no name that a feature can have")


def is_of_boxes(name: str) -> bool:
    """Whether a column has a value for each box, which goes where its box goes."""
    return name.startswith(OBJECTS) and name != BOXES


def check_lengths(values: Mapping[str, Any]) -> None:
    """Raises a `ValueError` unless each column of boxes has one value for each box."""
    for name in filter(is_of_boxes, values):
        boxes, count = len(values[BOXES]), len(values[name])
        if boxes != count:
            what = "labels" if name == BOX_LABELS else f"values of {name}"
            raise ValueError(f"{boxes} boxes with {count} {what}")


def make_box_column(name: str, kind: str) -> Column:
    """The column of a table's column with a value for each box; a `UsageError` if it has no name.

    `kind` is that of its cells, and is used if the name has no fixed meaning.
    """
    feature = f"{OBJECTS}{check_column_name(name.removeprefix(OBJECTS))}"
    if feature == BOXES:
        raise UsageError(f"box column {name!r} would be stored as {feature}: rename it")
    return Column(feature, _RESERVED.get(feature, kind))


def make_features(columns: Sequence[Column], values: Iterable[Any]) -> dict[str, list[Any]]:
    """The features of a record, from the values that `converter.sources.tables` reads."""
    features = {}
    for column, value in zip(columns, values, strict=True):
        kind = KINDS[column.kind]
        convert: Callable[[Any], Any] = to_bytes if kind is str else kind
        features[column.name] = [*map(convert, [value] if column.is_scalar else value)]
    return features


def check_values(
    columns: Iterable[Column], features: Mapping[str, Sequence[Any]], classes: int
) -> None:
    """Raises a `ValueError` unless a record has what its columns say, with labels of `classes`."""
    for column in columns:
        values = features.get(column.name, ())
        column.check(values)
        if column.kind == "labels" and not all(0 <= value < classes for value in values):
            raise ValueError(
                f"{column.name} {values[:8]} is out of range: there are {classes} classes"
            )


def find_column(columns: Sequence[Column], name: str) -> Column | None:
    """The column of that name, or None."""
    return next((column for column in columns if column.name == name), None)


def check_column_name(name: str) -> str:
    """Returns the name of a column if a feature can have it; else raises a `UsageError`."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"column {name!r} cannot be the name of a feature: up to 100 letters, digits, "
            "_, . and -; rename it"
        )
    return name
