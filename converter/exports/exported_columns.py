"""The columns of an exported table: what they are called, and what an image has in them.

Columns that were carried along keep their names. Ours have those below, or the same with `_` behind
them where a column is called like that already.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from converter.format import schema
from converter.format.schema import Column, is_of_boxes

FILE: Final = "file_name"
IMAGE: Final = "image"
MASK_FILE: Final = "mask_file_name"
LABEL: Final = "label"
SPLIT: Final = "split"

_NAMES: Final = {
    schema.LABELS: "labels",
    schema.TARGET: "target",
    schema.CAPTION: "caption",
    schema.BOXES: "boxes",
    schema.BOX_LABELS: "box_labels",
    schema.MASK: MASK_FILE,
    schema.ORIGINAL_ROWS: "original_rows",
    schema.DECODED_ROWS: "decoded_rows",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ColumnNames:
    """What the columns of a data set are called in an exported table.

    Attributes:
        file: of the path of an image.
        label: of the name of its class.
        split: of its split.
        columns: of all others, by the name of the feature.
    """

    file: str
    label: str
    split: str
    columns: Mapping[str, str]

    @classmethod
    def choose(cls, columns: Sequence[Column], **usual: str) -> "ColumnNames":
        """Chooses them for a data set; `usual` replaces some of our own names."""
        features = [column.name for column in columns]
        kept = {name: name for name in features if name not in _NAMES and not is_of_boxes(name)}
        ours = {name: _shorten(name) for name in features if name not in kept}
        taken = {*kept.values()}

        def find(name: str) -> str:
            name = usual.get(name, name)
            while name in taken:
                name += "_"
            taken.add(name)
            return name

        file, label, split = map(find, (FILE, LABEL, SPLIT))
        names = kept | {name: find(shown) for name, shown in ours.items()}
        return cls(
            file=file,
            label=label,
            split=split,
            columns={name: names[name] for name in features},
        )

    def make_row(
        self, file: str, label: str | None, split: str, values: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What is known about an image, by column; `values` are by feature."""
        labels = {} if label is None else {self.label: label}
        shown = {self.columns[name]: value for name, value in values.items()}
        return {self.file: file, **labels, self.split: split, **shown}

    def list_flags(self, kind: str, *, labelled: bool) -> list[str]:
        """The options of a command that converts what has these columns, of a kind of export."""
        flags = []
        if kind == "folders":
            flags = ["--split-column", self.split]
            if self.file != FILE or "path" in self.columns.values():
                flags += ["--path-column", self.file]
        elif kind == "parquet" and (self.file != IMAGE or schema.MASK in self.columns):
            flags = ["--image-column", self.file]
        # The part .cls of a sample is but a number.
        if labelled and (self.label != LABEL or kind == "webdataset"):
            flags += ["--label-column", self.label]
        for name, shown in self.columns.items():
            usual = "--box-column" if is_of_boxes(name) else "--keep-column"
            option = schema.FILLED_BY.get(name)
            flags += [f"--{option.replace('_', '-')}" if option else usual, shown]
        if schema.BOXES in self.columns:
            flags += ["--box-format", "yxyx"]
        return flags


def _shorten(feature: str) -> str:
    return _NAMES.get(feature) or feature.removeprefix(schema.OBJECTS)


def read_values(
    columns: Sequence[Column], features: Mapping[str, Sequence[Any]], classes: Sequence[str]
) -> dict[str, Any]:
    """The values of a record as JSON can hold them, by the name of the feature; no mask.

    Labels are the names of their classes, and a missing number is None.
    """
    return {
        column.name: _convert(column, features[column.name], classes)
        for column in columns
        if column.name != schema.MASK
    }


def _convert(column: Column, values: Sequence[Any], classes: Sequence[str]) -> Any:
    if column.kind == "labels":
        return [classes[value] for value in values]
    value = column.read(values)
    if column.kind == "boxes":
        return [*map(list, value)]
    if isinstance(value, list):
        return [*map(_drop_nan, value)]
    return _drop_nan(value)


def _drop_nan(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
