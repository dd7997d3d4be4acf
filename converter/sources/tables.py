"""A table of images: each row names one, and says what is known about it.

A row without an image is rejected, with its number; a path that leads out of the folder is never
opened. The order of the rows does not matter.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from converter.errors import ImageError, UsageError
from converter.format import schema
from converter.format.schema import Column, check_column_name
from converter.images.geometry import parse_box
from converter.inventory import NO_LABEL, Entry, Inventory, Skipped, leave_out, reject
from converter.names import find_file, to_bytes
from converter.options import COLUMN_OPTIONS, ConvertOptions
from converter.sources import rows
from converter.sources.folders import SPLIT_FOLDERS, clean_name, order_classes
from converter.storage.location import Location

_PATH_COLUMNS: Final = ("path", "file_name")
_LABEL_COLUMN: Final = "label"

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


def scan_table(
    table: Location, options: ConvertOptions, look_up: Callable[[str], Entry]
) -> Inventory:
    """Lists the images of a table, which is read twice; `look_up` is of `make_lookup`."""
    # The kinds of columns and the classes are known only after the first time.
    reader = _survey_rows(table, options, look_up)
    options = reader.options
    entries: list[Entry] = []
    rejected: list[Skipped] = []
    skipped: list[Skipped] = []
    for number, row in rows.read_rows(table):
        shown = str(row.get(options.path_column) or f"row {number}")
        try:
            entries.append(reader.read(row))
        except ValueError as error:  # a value makes no sense
            rejected.append(Skipped(shown, "bad_row", f"row {number}: {error}"))
        except ImageError as error:  # there is no image or no mask
            rejected.append(Skipped(shown, error.code, f"row {number}: {error.detail}"))
        except LookupError:  # its class is not in the list
            skipped.append(leave_out(shown, "skipped_no_label"))
    if not entries:
        reason = "no rows of images that are asked for"
        if rejected:
            reason = f"no image in any row; of {rejected[0].path!r:.120}: {rejected[0].detail}"
        raise UsageError(f"{table} has {reason}")
    kept = tuple(_reject_repeated(entries, rejected))
    return Inventory(
        classes=tuple(reader.classes),
        entries=kept,
        skipped=tuple(sorted(skipped, key=lambda file: to_bytes(file.path))),
        rejected=tuple(rejected),
        columns=tuple(reader.columns),
        labelled=options.label_column is not None,
    )


def normalize_path(cell: Any) -> str:
    """The path in a row, without empty parts and dots; an `ImageError` if it leads out."""
    if rows.is_blank(cell) or not isinstance(cell, str):
        raise ValueError(f"{cell!r:.60} is not a path")
    path, is_outside = clean_name(rows.read_text(cell))
    if is_outside or "://" in cell or not path:
        raise reject("outside")
    return path


def _reject_repeated(entries: list[Entry], rejected: list[Skipped]) -> Iterator[Entry]:
    """The entries in the order of their paths; of several with one path, the first row's."""
    # ASCII text sorts like its bytes, without a copy of each path.
    plain = all(entry.path.isascii() for entry in entries)
    entries.sort(key=lambda entry: entry.path if plain else to_bytes(entry.path))
    last = ""
    for entry in entries:
        if entry.path == last:
            rejected.append(leave_out(entry.path, "repeated"))
        else:
            last = entry.path
            yield entry


def _sort_name(name: str) -> tuple[bool, int, bytes, bytes]:
    """Orders whole numbers by value, and all other names after them by their bytes."""
    is_number = name.isascii() and name.isdecimal()
    digits = to_bytes(name.lstrip("0")) if is_number else b""
    return not is_number, len(digits), digits, to_bytes(name)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _RowReader:
    """Makes entries of rows. `columns` maps those of records to those of the table."""

    options: ConvertOptions
    look_up: Callable[[str], Entry]
    classes: dict[str, int]
    columns: dict[Column, str]

    def read(self, row: rows.Row) -> Entry:
        """Makes an entry of a row, or raises what `scan_table` catches."""
        options = self.options
        path = normalize_path(row.get(options.path_column))
        mask = self._find_mask(row.get(options.mask_column)) if options.mask_column else None
        found = self.look_up(path)
        if find_file(path, options.frames) != path:
            raise ValueError(f"{path!r:.60} is what a frame would be called: rename it")
        label = NO_LABEL
        if options.label_column:
            label = self.classes[rows.read_name(row.get(options.label_column))]
        group = row.get(options.group_column or "")
        return found._replace(
            label=label,
            split=_read_split(row.get(options.split_column or "")),
            group="" if rows.is_blank(group) else rows.read_name(group),
            values=self._encode_values(row) if self.columns else "",
            mask=mask,
        )

    def _find_mask(self, cell: Any) -> Entry:
        if rows.is_blank(cell):
            raise reject("mask_missing")
        try:
            return self.look_up(normalize_path(cell))
        except (ImageError, ValueError) as error:
            detail = error.detail if isinstance(error, ImageError) else error
            raise reject("mask_missing", f"{cell!r:.200}: {detail}") from error

    def _encode_values(self, row: rows.Row) -> str:
        values = {
            column.name: self._read_value(column, row.get(source))
            for column, source in self.columns.items()
        }
        if schema.BOX_LABELS in values:
            boxes, labels = len(values[schema.BOXES]), len(values[schema.BOX_LABELS])
            if boxes != labels:
                raise ValueError(f"{boxes} boxes with {labels} labels")
        return _ENCODER.encode([*values.values()])

    def _read_value(self, column: Column, cell: Any) -> Any:
        match column.name:
            case schema.LABELS:
                return sorted(set(self._read_labels(cell)))
            case schema.BOX_LABELS:
                return self._read_labels(cell)
            case schema.TARGET:
                return rows.read_number(cell)
            case schema.BOXES:
                return [parse_box(box, self.options.box_format) for box in rows.read_list(cell)]
        return rows.convert_cell(cell, column.kind)

    def _read_labels(self, cell: Any) -> list[int]:
        return [self.classes[rows.read_name(name)] for name in rows.read_list(cell)]


def _read_split(cell: Any) -> str:
    if rows.is_blank(cell):
        return ""
    split = SPLIT_FOLDERS.get(str(cell).strip().lower())
    if split is None:
        raise ValueError(f"{cell!r:.60} is not a split: {', '.join(sorted(SPLIT_FOLDERS))}")
    return split


def _survey_rows(
    table: Location, options: ConvertOptions, look_up: Callable[[str], Entry]
) -> _RowReader:
    """Finds the columns of a table, their kinds, and the classes."""
    names: set[str] = set()
    kinds = dict.fromkeys(options.keep_columns, rows.UNKNOWN)
    found: set[str] = set()
    number = 0
    for number, row in rows.read_rows(table):
        names |= row.keys()
        if number == 1:
            options = _apply_usual_names(options, row)
        try:
            for name, kind in kinds.items():
                kinds[name] = rows.join_kinds(kind, rows.find_kind(row.get(name)))
        except ValueError as error:
            where = f"{table}: column {name!r}, row {number}"
            raise UsageError(f"{where} cannot be carried into records: {error}") from error
        found.update(_list_classes(row, options))
    if not number:
        raise UsageError(f"{table} has no rows: give it one for each image")
    _check_columns(table, names, options)
    classes = order_classes(found, options, key=_sort_name)
    return _RowReader(
        options=options,
        look_up=look_up,
        classes={name: label for label, name in enumerate(classes)},
        columns=_list_columns(options, kinds),
    )


def _apply_usual_names(options: ConvertOptions, row: rows.Row) -> ConvertOptions:
    path, label = options.path_column, options.label_column
    if path not in row and path == _PATH_COLUMNS[0]:
        path = next((name for name in _PATH_COLUMNS if name in row), path)
    unlabelled = label is None and options.labels_column is None
    if unlabelled and _LABEL_COLUMN in row and _LABEL_COLUMN not in _list_used(options):
        label = _LABEL_COLUMN
    return dataclasses.replace(options, path_column=path, label_column=label)


def _list_used(options: ConvertOptions) -> list[str]:
    named = [getattr(options, name) for name in COLUMN_OPTIONS]
    return [options.path_column, *(name for name in named if name), *options.keep_columns]


def _list_classes(row: rows.Row, options: ConvertOptions) -> Iterator[str]:
    """The names of classes in a row, up to one that makes no sense: `_RowReader` rejects that."""
    try:
        if options.label_column:
            yield rows.read_name(row.get(options.label_column))
        for column in (options.labels_column, options.box_labels_column):
            for name in rows.read_list(row.get(column)) if column else ():
                yield rows.read_name(name)
    except ValueError:
        return


def _check_columns(table: Location, names: set[str], options: ConvertOptions) -> None:
    used = _list_used(options)
    for name in used:
        if name not in names:
            known = ", ".join(sorted(names)) or "none"
            raise UsageError(f"{table} has no column {name!r}: there are {known}")
    # Labels must not get lost because of how their column is spelled, or where it begins.
    alike = {name for name in names if name.strip().lower() == _LABEL_COLUMN}
    unused = sorted(alike - {*used})
    if unused and options.label_column is None and options.labels_column is None:
        raise UsageError(
            f"{table}: column {unused[0]!r} is not taken for labels, as the first row has no "
            f"{_LABEL_COLUMN!r}: name it with --label-column, or carry it along with --keep-column"
        )


def _list_columns(options: ConvertOptions, kinds: dict[str, str]) -> dict[Column, str]:
    asked = (
        (schema.LABELS, "labels", options.labels_column),
        (schema.TARGET, "float", options.target_column),
        (schema.CAPTION, "text", options.caption_column),
        (schema.BOXES, "boxes", options.boxes_column),
        (schema.BOX_LABELS, "labels", options.box_labels_column),
    )
    columns = {Column(name, kind): source for name, kind, source in asked if source}
    stored = {rows.UNKNOWN: "text", "blank": "text", "list": "texts"}  # a column without a value
    for name, kind in kinds.items():
        columns[Column(check_column_name(name), stored.get(kind, kind))] = name
    return columns
