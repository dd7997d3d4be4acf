"""Rows from records of `tf.train.Example` that others wrote, as an `ExampleLayout` describes them.

They are read once, into a spool: only then is known which features are lists, whether the names of
files tell images apart, and which number stands for which class.
"""

import dataclasses
import hashlib
import itertools
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from converter.errors import DatasetError, ImageError, UsageError
from converter.format.features import Features
from converter.format.indexing import refuse_compressed
from converter.inventory import NO_LABEL, Entry, Skipped
from converter.names import from_bytes
from converter.options import ConvertOptions
from converter.sources.column_notes import list_used
from converter.sources.example_files import Found, read_bounds, scan_file
from converter.sources.row_labels import find_class
from converter.sources.row_sources import IMAGE, RowSource, normalize_path
from converter.sources.rows import Row
from converter.sources.spool import Spool
from converter.storage.files import name_index
from converter.storage.location import Location

_NAME: Final = "\0name"  # the key in a row of the spool of what the record calls its image
_SIDES: Final = ("ymin", "xmin", "ymax", "xmax")
_ONE: Final = (
    "label_column", "caption_column", "target_column", "split_column", "group_column",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordFile:
    """A file of records."""

    path: str  # relative to the root
    split: str = ""
    records: int | None = None  # if something states it


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExampleLayout:
    """What the features of records mean."""

    files: tuple[RecordFile, ...]
    image: str
    names: Mapping[str, tuple[str, ...]]  # class names of features of numbers
    path: str | None = None  # the feature with the name of the image's file
    text: str | None = None  # the feature with the name of the class whose number is the label


class ExampleRows:
    """The rows of files of records; reads all of them when it is made."""

    def __init__(self, root: Location, layout: ExampleLayout, options: ConvertOptions) -> None:
        self._root, self._layout, self._options = root, layout, options
        self._held = [name for name in (layout.image, options.mask_column) if name]
        self._used = [name for name in list_used(options) if name not in self._held]
        self._lists: set[str] = set()  # of the columns in use
        self._texts: dict[int, set[str | None]] = {}  # the names that stand beside each number
        self._hashes = array("Q")
        self._named = layout.path is not None
        self._seen: set[str] = set()  # names of features
        self._spool = Spool(self._read_files())
        self._check_seen()
        hashes = np.asarray(self._hashes)
        self._named &= len(np.unique(hashes)) == len(hashes)
        self.classes = self._number_classes()

    def make_source(
        self, images: Location, *, skipped: Sequence[Skipped], recognized: str
    ) -> RowSource:
        """The source that these rows are, with the files that are no part of it."""
        return RowSource(
            images=images,
            root=self._root,
            options=self._options,
            read_rows=self.read_rows,
            classes=self.classes,
            skipped=skipped,
            recognized=recognized,
        )

    def read_rows(self) -> Iterator[tuple[str, Row]]:
        """The rows, with what is known only after all of them."""
        for place, row in self._spool():
            name = row.pop(_NAME, None)
            image = row[IMAGE]
            if isinstance(image, Entry) and self._named:
                path = normalize_path(name)
                mask = image.mask and image.mask._replace(path=path)
                row[IMAGE] = image._replace(path=path, mask=mask)
            for column in self._used:
                row[column] = self._finish_cell(column, row.get(column))
            yield place, row

    def _check_seen(self) -> None:
        for name in (*self._held, *self._used):
            if name not in self._seen and f"{name}/{_SIDES[0]}" not in self._seen:
                there = ", ".join(sorted(self._seen)) or "none"
                raise UsageError(f"{self._root} has no feature {name!r}: there are {there}")

    def _finish_cell(self, column: str, cell: Any) -> Any:
        if isinstance(cell, list) and column not in self._lists:
            cell = cell[0] if cell else None
        if column == self._options.label_column and self.classes and cell in self._texts:
            (cell,) = self._texts[cell]
        return cell

    def _number_classes(self) -> tuple[str, ...]:
        """The classes in the order of their numbers, if each number has a name of its own."""
        options = self._options
        columns = options.label_column, options.labels_column, options.box_labels_column
        known = [self._layout.names.get(column or "", ()) for column in columns]
        if any(known):
            return tuple(dict.fromkeys(itertools.chain(*known)))
        found = [name for _, names in sorted(self._texts.items()) for name in names]
        named = [name for name in found if name]
        if len({*named}) == len(found) == len(self._texts):
            return tuple(named)
        self._texts.clear()
        return ()

    def _read_files(self) -> Iterator[tuple[str, Row]]:
        for file in self._layout.files:
            place, records = self._root.child(file.path), 0
            index = place.with_name(name_index(place.name))
            bounds = read_bounds(place, index) if index.is_file() else None
            for found in scan_file(place, self._held, bounds):
                if not (found.number or found.span):
                    with place.open_read() as stream:
                        refuse_compressed(stream, place)
                records += 1
                yield self._read_record(file, found)
            if file.records not in (None, records):
                raise DatasetError(
                    f"{place} has {records:,} records, stated are {file.records:,}: it is damaged "
                    "or cut off, copy it again"
                )

    def _read_record(self, file: RecordFile, found: Found) -> tuple[str, Row]:
        path = f"{file.path}/{found.number:08}"
        place = f"{file.path} record {found.number}"
        try:
            if isinstance(found.features, ImageError):
                raise found.features
            # Of all features, because a column that is missing is named with those that are there.
            row: Row = dict.fromkeys(found.features.names)
            self._seen |= row.keys()
            row |= {name: self._read_cell(found.features, name) for name in self._used}
            row[IMAGE] = self._describe_image(path, file, found, found.features)
            self._note_names(found.features, row)
        except (ImageError, ValueError) as error:
            is_known = isinstance(error, ImageError)
            damage = error if is_known else ImageError("bad_row", str(error))
            return place, {self._options.path_column: path, IMAGE: damage}
        return place, row

    def _describe_image(
        self, path: str, file: RecordFile, found: Found, features: Features
    ) -> Entry:
        lies = Entry(
            path, NO_LABEL, _measure(features, self._layout.image), split=file.split,
            place=found.place, file=file.path, part=self._layout.image, span=found.span,
        )  # fmt: skip
        if (mask := self._options.mask_column) is None:
            return lies
        of_mask = lies._replace(size_bytes=_measure(features, mask), part=mask, split="")
        return lies._replace(mask=of_mask)

    def _read_cell(self, features: Features, name: str) -> Any:
        if f"{name}/{_SIDES[0]}" in features.message and name == self._options.boxes_column:
            sides = (features.read(f"{name}/{side}") for side in _SIDES)
            return [[*box] for box in zip(*sides, strict=True)]
        values: list[Any] = [
            from_bytes(value) if isinstance(value, bytes) else value
            for value in features.read(name)
        ]
        if name in self._layout.names:
            values = [find_class(value, self._layout.names[name]) for value in values]
        if name == self._options.boxes_column:
            if len(values) % 4:
                raise ValueError(f"{name} has {len(values)} numbers: no boxes of four each")
            values = [values[at : at + 4] for at in range(0, len(values), 4)]
        if len(values) > 1 or name in self._list_plural():
            if name in [getattr(self._options, one) for one in _ONE]:
                raise ValueError(f"{name} has {len(values)} values, and one is asked for")
            self._lists.add(name)
        return values

    def _list_plural(self) -> tuple[str | None, ...]:
        options = self._options
        return options.labels_column, options.boxes_column, options.box_labels_column

    def _note_names(self, features: Features, row: Row) -> None:
        """Notes what the record calls its image and its class."""
        layout, label = self._layout, self._options.label_column
        if self._named and layout.path:
            row[_NAME] = name = _read_text(features, layout.path)
            try:
                name = normalize_path(name)
            except (ImageError, ValueError):
                self._named = False
            self._hashes.append(_hash(name or ""))
        if layout.text and label and row[label]:
            self._texts.setdefault(row[label][0], set()).add(_read_text(features, layout.text))


def _read_text(features: Features, name: str) -> str | None:
    values: Sequence[Any] = features.read(name)
    is_text = len(values) == 1 and isinstance(values[0], bytes)
    return from_bytes(values[0]) if is_text else None


def _measure(features: Features, name: str) -> int:
    try:
        _, size = features.locate(name)
    except ValueError as error:
        raise ValueError(f"{error}; found: {features.describe()}") from error
    return size


def _hash(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
