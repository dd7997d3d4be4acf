"""The rows of Parquet files that hold images: each with its image, or why it has none."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from converter.errors import ImageError, UsageError
from converter.inventory import NO_LABEL, Entry, reject
from converter.names import from_bytes
from converter.options import ConvertOptions
from converter.sources.column_notes import list_used
from converter.sources.data_files import DataFile
from converter.sources.folders import clean_name
from converter.sources.originals import Lookup, make_lookup
from converter.sources.parquet_columns import Columns, list_label_columns
from converter.sources.parquet_files import ParquetError, read_batches, read_metadata
from converter.sources.parquet_images import MEASURED, NO_IMAGE, Measures
from converter.sources.row_labels import find_class
from converter.sources.row_sources import IMAGE, normalize_path
from converter.sources.rows import Row, find_cell
from converter.storage.location import Location

_MAX_LOST: Final = 10_000_000  # rows without an image, each of which takes memory
_MAX_NAME: Final = 200  # characters that the name of an image may have


class ParquetRows(NamedTuple):
    """The rows of all files, in the order of their names."""

    images: Location
    root: Location
    files: tuple[DataFile, ...]
    columns: tuple[Columns, ...]
    options: ConvertOptions

    def read(self) -> Iterator[tuple[str, Row]]:
        """The rows, with the images that they hold; raises UsageError if none holds any."""
        self._check_any()
        look_up = functools.cache(functools.partial(make_lookup, self.root))
        for file, columns in zip(self.files, self.columns, strict=True):
            entries = _Entries(self, file, columns, look_up)
            yield from entries.read_rows()

    def measure(self, path: str, column: str) -> Measures:
        hashed = self.options.dedupe != "off"
        return MEASURED.measure(self.root.child(path), column, hashed=hashed)

    def _check_any(self) -> None:
        MEASURED.forget_others([self.root.child(file.path) for file in self.files])
        column = self.options.image_column or ""
        total = lost = named = 0
        for file, columns in zip(self.files, self.columns, strict=True):
            sizes = self.measure(file.path, column).sizes
            total, lost = total + len(sizes), lost + int((sizes < 0).sum())
            if columns.holds_names(column) and (sizes < 0).any():
                named += _count_names(columns, column)
        if total == lost and not named:
            raise UsageError(
                f"{self.images} has no image in column {column!r}: all {total:,} are null or "
                "damaged"
            )
        if lost - named > _MAX_LOST:
            raise UsageError(
                f"{self.images} has no image in {lost - named:,} rows, which would be rejected one "
                f"by one: at most {_MAX_LOST:,}"
            )


def _count_names(columns: Columns, column: str) -> int:
    """How many images have a name, which may lead to a file."""
    count = 0
    groups = range(read_metadata(columns.file).num_row_groups)
    try:
        for batch in read_batches(columns.file, [f"{column}.path"], groups):
            names = batch.column(0).flatten()[0]
            count += len(names) - names.null_count
    except ParquetError:  # to be rejected later
        pass
    return count


class _Entries:
    """The rows of one file."""

    def __init__(
        self, rows: ParquetRows, file: DataFile, columns: Columns, look_up: Callable[[], Lookup]
    ) -> None:
        options = rows.options
        self._make_lookup = look_up
        self._file, self._columns = file, columns
        self._image, self._mask = options.image_column or "", options.mask_column
        self._shown = options.path_column  # by which rejects are named
        self._used = [name for name in list_used(options) if name != self._mask]
        self._classes = {name: columns.list_cells(name) for name in list_label_columns(options)}
        self._named = columns.holds_names(self._image)
        self._sizes = rows.measure(file.path, self._image).sizes
        self._mask_sizes = rows.measure(file.path, self._mask).sizes if self._mask else None
        names = (*columns.types, *list_used(options))
        self._blank: Row = dict.fromkeys(name for name in names if name != self._image)
        self._seen: set[str] = set()

    def read_rows(self) -> Iterator[tuple[str, Row]]:
        tops = {self._columns.find_top(name) for name in self._used}
        wanted = sorted(tops) + ([f"{self._image}.path"] if self._named else [])
        metadata = read_metadata(self._columns.file)
        begin = 0
        for group in range(metadata.num_row_groups):
            end = begin + metadata.row_group(group).num_rows
            lost = reject("unreadable", "damaged: the row group has fewer rows than it states")
            try:
                for row in itertools.islice(self._read_group(wanted, group, begin), end - begin):
                    yield f"{self._file.path} row {begin + 1}", row
                    begin += 1
            except ParquetError as error:
                lost = reject("unreadable", f"damaged: {error}")
            for number in range(begin, end):
                row = self._blank | {IMAGE: lost, self._shown: self._name(None, number)}
                yield f"{self._file.path} row {number + 1}", row
            begin = end

    def _read_group(self, wanted: Sequence[str], group: int, begin: int) -> Iterator[Row]:
        if not wanted:
            count = read_metadata(self._columns.file).row_group(group).num_rows
            yield from (self._make_row({}, None, number) for number in range(begin, begin + count))
            return
        for batch in read_batches(self._columns.file, wanted, [group]):
            names: Sequence[Any] = [None] * len(batch)
            cells = dict(zip(batch.schema.names, batch.columns, strict=True))
            if self._named:
                # Read alone, a structure of images has nothing but the names.
                names = cells.pop(self._image).flatten()[0].to_pylist()
            lists = {name: column.to_pylist() for name, column in cells.items()}
            for place, name in enumerate(names):
                found = {column: values[place] for column, values in lists.items()}
                yield self._make_row(found, name, begin + place)
            begin += len(batch)

    def _make_row(self, cells: Row, name: Any, number: int) -> Row:
        row = self._blank | {used: _decode(find_cell(cells, used)) for used in self._used}
        path = self._name(name, number)
        try:
            for column, classes in self._classes.items():
                if classes:
                    row[column] = _name_classes(row[column], classes)
            row[IMAGE] = self._find_image(path, name, number)
        except ImageError as error:
            row[IMAGE] = error
            row[self._shown] = path
        return row

    def _name(self, name: Any, number: int) -> str:
        """The path of the image in a row, which no earlier row has."""
        found, is_outside = clean_name(name) if isinstance(name, str) else ("", False)
        if is_outside or ":/" in found or len(found) > _MAX_NAME:
            found = found.rpartition("/")[2]
        if not found or len(found) > _MAX_NAME or not found.isprintable() or ".." in found:
            found = str(number)
        while found in self._seen:
            found = f"{number}-{found}"
        if self._named:
            self._seen.add(found)
        return f"{self._file.name}/{found}"

    def _find_image(self, path: str, name: Any, number: int) -> Entry:
        size = int(self._sizes[number])
        if size == NO_IMAGE and name:
            return self._look_up(name)
        if size < 0:
            null = size == NO_IMAGE
            raise reject("missing", "no image") if null else reject("unreadable", "damaged")
        entry = Entry(path, NO_LABEL, size, self._file.split, place=number)
        mask = None
        if self._mask_sizes is not None:
            if (mask_size := int(self._mask_sizes[number])) < 0:
                raise reject("mask_missing")
            mask = Entry(path, NO_LABEL, mask_size, place=number)
            mask = mask._replace(file=self._file.path, part=self._mask or "")
        return entry._replace(mask=mask, file=self._file.path, part=self._image)

    def _look_up(self, name: str) -> Entry:
        """The image in a file of its own, whose path is relative to the Parquet file."""
        if self._mask:
            raise reject("mask_missing", "an image in a file of its own has no mask")
        folder = self._file.path.rpartition("/")[0]
        path = normalize_path(name)
        found: Entry = self._make_lookup()(f"{folder}/{path}" if folder else path)
        return found._replace(split=self._file.split)


def _decode(cell: Any) -> Any:
    # Some writers store text as binary columns.
    return from_bytes(cell) if isinstance(cell, bytes) else cell


def _name_classes(cell: Any, classes: Sequence[str]) -> Any:
    """The names of classes for their numbers; of no number at all, nothing."""
    if isinstance(cell, list):
        return [_name_classes(each, classes) for each in cell]
    if cell is None or isinstance(cell, str):
        return cell
    try:
        return find_class(cell, classes)
    except ValueError as error:
        raise reject("bad_row", str(error)) from error
