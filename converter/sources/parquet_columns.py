"""Finds out what the columns of a Parquet file hold: images, classes, and values of other kinds.

The library `datasets` of Hugging Face writes an image as a structure of its bytes and the name of
its file, and describes columns as JSON under the key `huggingface` of the schema: which are images,
and the names of the classes that whole numbers stand for.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from converter.errors import UsageError
from converter.images.openers import begins_like_image
from converter.names import from_bytes
from converter.options import ConvertOptions
from converter.sources.parquet_files import ParquetError, read_batches, read_metadata
from converter.sources.parquet_images import BATCH_BYTES, find_leaf, take_values
from converter.storage.location import Location

IMAGE_NAMES: Final = (
    "image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "image_bytes", "image_data",
    "bytes",
)  # fmt: skip

_PATH_NAMES: Final = ("path", "file_name")
_LISTS: Final = ("Sequence", "List", "LargeList")
_SHOWN: Final = 20  # columns that a message names
_MAX_LISTS: Final = 9  # of lists in lists


class Columns(NamedTuple):
    """The columns of a file: their types in Arrow, and their features in `datasets`."""

    file: Location
    types: Mapping[str, Any]
    features: Mapping[str, Any]

    def list_images(self) -> list[str]:
        """The columns that hold images, the likeliest first, by their types and names alone."""
        declared = [name for name in self.types if self._find_type(name) == "Image"]
        others = [
            name
            for name in self.types
            if name not in declared and self._find_type(name) == "" and self.can_hold_images(name)
        ]
        return sorted(declared, key=_rank) + sorted(others, key=_rank)

    def is_image(self, name: str) -> bool:
        """Whether a column says that it holds images."""
        return self._find_type(name) == "Image" and self.can_hold_images(name)

    def can_hold_images(self, name: str) -> bool:
        """Whether a column is one of bytes, or of structures with bytes."""
        kind = self.types[name]
        return _is_binary(kind) or _is_binary(_find_field(kind, "bytes"))

    def holds_names(self, name: str) -> bool:
        """Whether a column of images has names for them."""
        return _find_field(self.types[name], "path") is not None

    def list_cells(self, name: str) -> list[str]:
        """The names of classes in a column, also in one that is nested: `objects.category`."""
        feature = _unwrap(self._find_feature(name))
        names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
        return [str(each) for each in names] if isinstance(names, list) else []

    def is_single_class(self, name: str) -> bool:
        """Whether each row has one class in a column."""
        return self._find_type(name) == "ClassLabel"

    def is_list(self, name: str) -> bool:
        """Whether a column holds lists."""
        return _find_inner(self.types[name]) is not self.types[name]

    def is_text(self, name: str) -> bool:
        """Whether a column holds text."""
        return str(self.types[name]) in ("string", "large_string")

    def find_top(self, name: str) -> str:
        """The column of that name, or in which it is nested."""
        return name if name in self.types else name.partition(".")[0]

    def has_cells(self, name: str) -> bool:
        """Whether there is a column of that name, maybe nested: `objects.bbox`."""
        top = self.find_top(name)
        kind = self.types.get(top)
        for part in name[len(top) :].split(".")[1:]:
            kind = kind and _find_field(_find_inner(kind), part)
        return kind is not None

    def describe(self) -> str:
        """Names and types of the columns, for a message."""
        shown = [f"{name!r:.40} ({kind!s:.40})" for name, kind in [*self.types.items()][:_SHOWN]]
        more = len(self.types) - len(shown)
        return ", ".join(shown) + (f" and {more:,} more" if more else "") or "none"

    def _find_type(self, name: str) -> str:
        feature = self._find_feature(name)
        kind = feature.get("_type") if isinstance(feature, dict) else ""
        return kind if isinstance(kind, str) else ""

    def _find_feature(self, name: str) -> Any:
        if name in self.features:
            return self.features[name]
        feature: Any = self.features
        for part in name.split("."):
            feature = _unwrap(feature).get(part, {})
        return feature


def read_columns(file: Location) -> Columns:
    """Reads what the footer of a file says about its columns; raises UsageError."""
    metadata = read_metadata(file)
    schema = metadata.schema.to_arrow_schema()
    if len(set(schema.names)) != len(schema.names):
        double = next(name for name in schema.names if schema.names.count(name) > 1)
        raise UsageError(f"{file}: there are two columns {double!r}")
    types = {field.name: field.type for field in schema}
    described = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(from_bytes(described))["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        features = {}
    return Columns(file, types, features if isinstance(features, dict) else {})


def find_images(columns: Columns, asked: str | None) -> str:
    """The column that holds the images; raises UsageError if there is none, or more than one."""
    if asked is not None:
        if asked not in columns.types or not columns.can_hold_images(asked):
            raise UsageError(
                f"{columns.file}: {asked!r} is no column of images, of bytes or of structures with "
                f"bytes: there are {columns.describe()}"
            )
        return asked
    found = list(_choose_images(columns))
    if not found:
        raise UsageError(
            f"{columns.file} has no column of images: looked for the type Image of datasets, and "
            f"for bytes, such as in a column {IMAGE_NAMES[0]!r}, that begin like an image; there "
            f"are {columns.describe()}: name it with --image-column"
        )
    if len(found) > 1 and not _is_known(found[0]):
        raise UsageError(
            f"{columns.file} has several columns of images, {', '.join(map(repr, found[:5]))}: "
            "name one with --image-column"
        )
    return found[0]


def recognize_images(columns: Columns) -> bool:
    """Whether a file holds images; one that names them, as tables do, may hold other bytes, too."""
    names_images = any(name in columns.types for name in _PATH_NAMES)
    found = next(_choose_images(columns), None)
    return found is not None and (columns.is_image(found) or not names_images)


def list_label_columns(options: ConvertOptions) -> list[str]:
    """The columns that hold classes."""
    names = (options.label_column, options.labels_column, options.box_labels_column)
    return [name for name in names if name]


def list_classes(columns: Sequence[Columns], options: ConvertOptions) -> tuple[str, ...]:
    """The classes that several files have names for, in their order, also without an image."""
    names = (found.list_cells(name) for name in list_label_columns(options) for found in columns)
    return tuple(dict.fromkeys(itertools.chain.from_iterable(names)))


def _choose_images(columns: Columns) -> Iterator[str]:
    """The columns of images, the likeliest first; of bytes of no known name, only a single one."""
    likely = columns.list_images()
    named = [name for name in likely if columns.is_image(name) or _is_known(name)]
    if not named and len(likely) > 1:
        return
    for name in named or likely:
        says_so = columns.is_image(name) or (columns.holds_names(name) and _is_known(name))
        if says_so or _has_image(columns.file, name):
            yield name


def _has_image(file: Location, column: str) -> bool:
    """Whether the first bytes in a column begin like an image."""
    metadata = read_metadata(file)
    groups = range(min(1, metadata.num_row_groups))
    batches = read_batches(file, [find_leaf(metadata, column)], groups, BATCH_BYTES)
    try:
        values = take_values(next(batches), column)
    except (ParquetError, StopIteration):
        return False
    first = next((value for value in values if value.is_valid), None)
    return first is not None and begins_like_image(first.as_py())


def _is_known(name: str) -> bool:
    return name.lower() in IMAGE_NAMES


def _rank(name: str) -> int:
    """How likely a column of that name holds the images: the lowest is likeliest."""
    lower = name.lower()
    return IMAGE_NAMES.index(lower) if lower in IMAGE_NAMES else len(IMAGE_NAMES)


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    tests = (pa.types.is_binary, pa.types.is_large_binary)
    return kind is not None and any(test(kind) for test in tests)


def _find_inner(kind: Any) -> Any:
    """What a list, or a list of lists, is of; any other type itself."""
    import pyarrow as pa  # noqa: PLC0415

    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return kind


def _find_field(kind: Any, name: str) -> Any:
    """The type of a part of a structure; None without it."""
    import pyarrow as pa  # noqa: PLC0415

    if not pa.types.is_struct(kind) or (place := kind.get_field_index(name)) < 0:
        return None
    return kind.field(place).type


def _unwrap(feature: Any) -> Mapping[str, Any]:
    """What a list, or a list of lists, is of."""
    for _ in range(_MAX_LISTS):
        if isinstance(feature, list) and feature:
            feature = feature[0]
        elif isinstance(feature, dict) and feature.get("_type") in _LISTS:
            feature = feature.get("feature")
    return feature if isinstance(feature, dict) else {}
