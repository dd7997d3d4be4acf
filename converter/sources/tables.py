"""A table of images: each row names one, and says what is known of it.

A row that no image can be made of is rejected, with its number: a path that leads out of the folder
is never opened. The order of the rows does not matter.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, Final

from converter.errors import UsageError
from converter.format import schema
from converter.format.schema import Column, check_column_name
from converter.images.boxes import parse_boxes
from converter.inventory import NO_LABEL, SKIP_RULES, Entry, Inventory, Skipped
from converter.names import find_file, to_bytes
from converter.options import COLUMN_OPTIONS, ConvertOptions
from converter.reasons import REJECT_CODES
from converter.sources.cells import (
    UNKNOWN,
    convert_cell,
    find_kind,
    is_blank,
    join_kinds,
    read_list,
    read_name,
    read_number,
    read_text,
)
from converter.sources.labelling import SPLIT_FOLDERS, order_classes
from converter.sources.path_lookup import Locate
from converter.sources.rows import Row, RowError, read_rows
from converter.storage.location import Location

PATH_COLUMNS: Final = ("path", "file_name")
LABEL_COLUMN: Final = "label"

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How the rows of a table are read.

    Attributes:
        options: which column is what.
        classes: numbers of the classes by their names.
        columns: what goes into records.
    """

    options: ConvertOptions
    classes: dict[str, int]
    columns: tuple[Column, ...]

    def read(self, row: Row, path: str, found: tuple[int, int], mask: Entry | None) -> Entry:
        """Makes an entry of a row.

        Raises:
            RowError: a value is missing or makes no sense.
            LookupError: its class is not one of those that are asked for.
        """
        options = self.options
        if find_file(path, options.frames) != path:
            raise RowError("bad_row", f"{path!r:.60} is what a frame would be called: rename it")
        try:
            label = NO_LABEL
            if options.label_column:
                label = self.classes[read_name(row.get(options.label_column))]
            values = [self._read_value(column, row) for column in self.columns]
            self._check_boxes(values)
            size, place = found
            return Entry(
                path,
                label,
                size,
                split=_read_split(row.get(options.split_column or "")),
                group=_read_group(row.get(options.group_column or "")),
                values=_ENCODER.encode(values) if self.columns else "",
                place=place,
                mask=mask,
            )
        except ValueError as error:
            raise RowError("bad_row", str(error)) from error

    def _read_value(self, column: Column, row: Row) -> Any:
        options = self.options
        match column.name:
            case schema.LABELS:
                return sorted(set(self._read_labels(row.get(options.labels_column or ""))))
            case schema.BOX_LABELS:
                return self._read_labels(row.get(options.box_labels_column or ""))
            case schema.TARGET:
                return read_number(row.get(options.target_column or ""))
            case schema.CAPTION:
                return convert_cell(row.get(options.caption_column or ""), "text")
            case schema.BOXES:
                boxes = read_list(row.get(options.boxes_column or ""))
                return parse_boxes(boxes, options.box_format)
        return convert_cell(row.get(column.name), column.kind)

    def _read_labels(self, cell: Any) -> list[int]:
        return [self.classes[read_name(name)] for name in read_list(cell)]

    def _check_boxes(self, values: list[Any]) -> None:
        names = [column.name for column in self.columns]
        if schema.BOX_LABELS in names:
            boxes, labels = (
                len(values[names.index(name)]) for name in (schema.BOXES, schema.BOX_LABELS)
            )
            if boxes != labels:
                raise ValueError(f"{boxes} boxes with {labels} labels")


def scan_table(table: Location, options: ConvertOptions, locate: Locate) -> Inventory:
    """Lists the images of a table. Its rows are read twice: for what they hold, and then for good.

    Args:
        table: its path.
        options: which column is what.
        locate: finds images; raises RowError.

    Raises:
        UsageError: it cannot be read, or has no such columns, or not one image.
    """
    reading = look_over(table, options)
    entries: list[Entry] = []
    rejected: list[Skipped] = []
    skipped: list[Skipped] = []
    for number, row in read_rows(table):
        shown = str(row.get(reading.options.path_column) or f"row {number}")
        try:
            path = normalize_path(row.get(reading.options.path_column))
            mask = None
            if reading.options.mask_column:
                mask = locate_mask(row.get(reading.options.mask_column), locate)
            entries.append(reading.read(row, path, locate(path), mask))
        except RowError as error:
            rejected.append(Skipped(shown, error.code, f"row {number}: {error.detail}"))
        except LookupError:
            skipped.append(Skipped(shown, "skipped_no_label", SKIP_RULES["skipped_no_label"]))
    if not entries:
        raise UsageError(_tell_nothing(table, rejected))
    kept = tuple(_leave_out_repeated(entries, rejected))
    return Inventory(
        classes=order_classes(set(reading.classes), reading.options, key=_sort_name),
        entries=kept,
        skipped=tuple(sorted(skipped, key=lambda skip: to_bytes(skip.path))),
        rejected=tuple(rejected),
        columns=reading.columns,
        labelled=reading.options.label_column is not None,
    )


def look_over(table: Location, options: ConvertOptions) -> Reading:
    """Finds out which columns a table has, of which kind they are, and which classes there are.

    Raises:
        UsageError: a column that is asked for is missing, or holds what no record can hold.
    """
    names: set[str] = set()
    kinds = dict.fromkeys(options.keep_columns, UNKNOWN)
    known: set[str] = set()
    first = True
    for number, row in read_rows(table):
        names |= row.keys()
        if first:
            options, first = _settle(options, row), False
        for name in kinds:
            where = f"{table}: column {name!r}, row {number}"
            kinds[name] = _widen(kinds[name], row.get(name), where)
        known.update(_list_names(row, options))
    _check_names(table, names, options)
    _check_label(table, names, options)
    classes = order_classes(known, options, key=_sort_name)
    return Reading(
        options=options,
        classes={name: label for label, name in enumerate(classes)},
        columns=(*_list_columns(options), *(_name_column(*item) for item in kinds.items())),
    )


def _widen(kind: str, cell: Any, where: str) -> str:
    try:
        return join_kinds(kind, find_kind(cell))
    except ValueError as error:
        raise UsageError(f"{where} cannot be carried into records: {error}") from error


def normalize_path(cell: Any) -> str:
    """A path of a row, without what means nothing in it.

    Raises:
        RowError: it is none, or leads out of the folder.
    """
    if is_blank(cell) or not isinstance(cell, str):
        raise RowError("bad_row", f"{cell!r:.60} is not a path")
    try:
        read_text(cell)
    except ValueError as error:
        raise RowError("bad_row", str(error)) from error
    parts = [part for part in cell.split("/") if part not in ("", ".")]
    if cell.startswith("/") or ".." in parts or "://" in cell or "\0" in cell or not parts:
        raise RowError("outside")
    return "/".join(parts)


def locate_mask(cell: Any, locate: Locate) -> Entry:
    """Finds the mask that a row names.

    Raises:
        RowError: there is none.
    """
    if is_blank(cell):
        raise RowError("mask_missing")
    try:
        path = normalize_path(cell)
        size, place = locate(path)
    except RowError as error:
        raise RowError("mask_missing", f"{cell!r:.200}: {error.detail}") from error
    return Entry(path, NO_LABEL, size, place=place)


def _settle(options: ConvertOptions, row: Row) -> ConvertOptions:
    """Takes the usual names for columns that nobody named."""
    path, label = options.path_column, options.label_column
    if path not in row and path == PATH_COLUMNS[0]:
        path = next((name for name in PATH_COLUMNS if name in row), path)
    if label is None and options.labels_column is None and LABEL_COLUMN in row:
        label = LABEL_COLUMN if LABEL_COLUMN not in _list_used(options) else None
    return dataclasses.replace(options, path_column=path, label_column=label)


def _list_used(options: ConvertOptions) -> list[str]:
    """The columns that are asked for."""
    named = [getattr(options, name) for name in COLUMN_OPTIONS]
    return [options.path_column, *(name for name in named if name), *options.keep_columns]


def _check_names(table: Location, names: set[str], options: ConvertOptions) -> None:
    for name in _list_used(options):
        if name not in names:
            raise UsageError(
                f"{table} has no column {name!r}: there are {', '.join(sorted(names)) or 'no rows'}"
            )


def _check_label(table: Location, names: set[str], options: ConvertOptions) -> None:
    """Refuses to leave out labels because of how their column is written, or where it begins."""
    alike = {name for name in names if name.strip().lower() == LABEL_COLUMN}
    unused = sorted(alike - {*_list_used(options)})
    if unused and options.label_column is None and options.labels_column is None:
        raise UsageError(
            f"{table}: column {unused[0]!r} is not taken for labels, as the first row has no "
            f"{LABEL_COLUMN!r}: name it with --label-column, or carry it along with --keep-column"
        )


def _list_names(row: Row, options: ConvertOptions) -> Iterator[str]:
    """The names of classes in a row; what makes no sense is said when the row is read."""
    try:
        if options.label_column:
            yield read_name(row.get(options.label_column))
        for column in (options.labels_column, options.box_labels_column):
            for name in read_list(row.get(column)) if column else ():
                yield read_name(name)
    except ValueError:
        return


def _list_columns(options: ConvertOptions) -> Iterator[Column]:
    for name, kind, asked in (
        (schema.LABELS, "labels", options.labels_column),
        (schema.TARGET, "float", options.target_column),
        (schema.CAPTION, "text", options.caption_column),
        (schema.BOXES, "boxes", options.boxes_column),
        (schema.BOX_LABELS, "labels", options.box_labels_column),
    ):
        if asked:
            yield Column(name, kind)


def _name_column(name: str, kind: str) -> Column:
    known = {UNKNOWN: "text", "blank": "text", "list": "texts"}
    return Column(check_column_name(name), known.get(kind, kind))


def _sort_name(name: str) -> tuple[bool, int, bytes, bytes]:
    """Whole numbers come first, in their order, and then all others in that of their bytes."""
    is_number = name.isascii() and name.isdecimal()
    digits = to_bytes(name.lstrip("0")) if is_number else b""
    return not is_number, len(digits), digits, to_bytes(name)


def _read_split(cell: Any) -> str:
    if is_blank(cell):
        return ""
    split = SPLIT_FOLDERS.get(str(cell).strip().lower())
    if split is None:
        raise ValueError(f"{cell!r:.60} is not a split: {', '.join(sorted(SPLIT_FOLDERS))}")
    return split


def _read_group(cell: Any) -> str:
    return "" if is_blank(cell) else read_name(cell)


def _leave_out_repeated(entries: list[Entry], rejected: list[Skipped]) -> Iterator[Entry]:
    """The entries in the order of their paths; of several with one path, the first row's."""
    # Names of ASCII alone are in the order of their bytes by themselves, without a copy of each.
    plain = all(entry.path.isascii() for entry in entries)
    entries.sort(key=lambda entry: entry.path if plain else to_bytes(entry.path))
    last = ""
    for entry in entries:
        if entry.path == last:
            rejected.append(Skipped(entry.path, "repeated", REJECT_CODES["repeated"]))
        else:
            last = entry.path
            yield entry


def _tell_nothing(table: Location, rejected: list[Skipped]) -> str:
    if not rejected:
        return f"{table} has no rows of images that are asked for"
    first = rejected[0]
    return f"{table}: no image can be made of any row; of {first.path!r}: {first.detail}"
