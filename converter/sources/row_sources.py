"""Sources whose images come as rows: of a table, of annotations, or of files that hold the images.

Each row names an image, or holds one, and says what is known about it. A row without an image is
rejected, with its place; a path that leads out of the folder is never opened. The order of the rows
does not matter.
"""

import dataclasses
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from converter import progress
from converter.entries import Entries
from converter.errors import ImageError, UsageError
from converter.format import schema
from converter.format.schema import Column, check_column_name
from converter.images.geometry import parse_box
from converter.inventory import (
    NO_LABEL,
    Entry,
    Inventory,
    Note,
    Skipped,
    encode_values,
    leave_out,
    reject,
)
from converter.names import find_file, parse_path_format, to_bytes
from converter.options import ConvertOptions
from converter.sources import rows
from converter.sources.column_notes import ColumnNotes, list_path_columns, list_used
from converter.sources.folder_labels import BACKGROUND, number_names, order_classes
from converter.sources.folders import clean_name
from converter.sources.originals import Lookup, make_lookup
from converter.sources.row_labels import list_classes, list_labels, read_names
from converter.sources.split_names import SPLIT_FOLDERS
from converter.storage.location import Location

# The key in a row of the image that it holds: an `Entry`, or an `ImageError` for none. Rows without
# it name their image in the path column. No column has that name.
IMAGE: Final = "\0image"

# The key in a row of the (height, width) that it states, (0, 0) for none. With it, boxes are in
# pixels of the file, whose EXIF may turn the image.
SIZE: Final = "\0size"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RowSource:
    """Images as rows, which are read twice, and what is known about them before."""

    images: Location  # as given; messages name it
    root: Location  # what the paths and files of entries are relative to
    options: ConvertOptions  # with the columns that are used
    # From the first row on, each with its place, such as `row 5`. The dicts may be reused.
    read_rows: Callable[[], Iterator[tuple[str, rows.Row]]]
    # Gets the names of all columns, and raises a UsageError.
    check_columns: Callable[[set[str]], None] = lambda _names: None
    # Says what to do, as the end of a message, if no row has an image.
    advise: Callable[[], str] = lambda: ""
    classes: tuple[str, ...] = ()  # in label order, if the source says so; rows may have others
    # Of columns, if the source says so, whatever their cells look like: keys of `schema.KINDS`.
    kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # Files that are no part of it, and what is odd; both may grow while the rows are read first.
    skipped: Sequence[Skipped] = ()
    notes: Sequence[Note] = ()
    recognized: str = ""  # what was found, for people
    # The split of the image at a path, if neither its row nor its file says one.
    find_split: Callable[[str], str] = lambda _path: ""


def scan_rows(source: RowSource) -> Inventory:
    """Lists the images of a source, ordered by path."""
    # The kinds of columns and the classes are known only after the first time.
    noted = ColumnNotes(source.options, IMAGE)
    reader = _survey_rows(source, noted)
    options = reader.options
    entries = Entries()
    rejected: list[Skipped] = []
    skipped: list[Skipped] = [*source.skipped]
    one_hot = [] if options.class_names else noted.find_one_hot()
    progress.begin("scan", unit="rows", note="looking for their images")
    for place, row in source.read_rows():
        progress.advance()
        if one_hot and [rows.find_flag(row.get(name)) for name in one_hot].count(1) != 1:
            one_hot = []
        found = reader.read(row, place)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            (skipped if found.code == "skipped_no_label" else rejected).append(found)
    if one_hot:
        raise UsageError(
            f"{source.images}: {options.label_column!r} is one of {len(one_hot):,} columns of 0 "
            f"and 1, and each row has one 1: give --labels-columns {shlex.join(one_hot)}; if 0 and "
            "1 are the classes, give a file with both as --classes"
        )
    if not entries:
        reason = "no row left: the options leave out all of them"
        if rejected:
            first = rejected[0]
            reason = f"no image in any row; of {first.path!r:.120}: {first.detail}{source.advise()}"
        raise UsageError(f"{source.images} has {reason}")
    entries.sort()
    entries, repeated = entries.keep_distinct()  # of one path, the first row's
    rejected += (leave_out(path, "repeated") for path in repeated)
    return Inventory(
        classes=reader.classes,
        entries=entries,
        skipped=tuple(sorted(skipped, key=lambda file: to_bytes(file.path))),
        rejected=tuple(rejected),
        found_classes=reader.found_classes,
        notes=(*source.notes, *noted.list_notes([*reader.classes])),
        columns=tuple(reader.columns),
        labelled=options.label_column is not None,
        recognized=source.recognized or noted.describe(),
    )


def normalize_path(cell: Any) -> str:
    """The path in a row, without empty parts and dots; an `ImageError` if it leads out."""
    if rows.is_blank(cell) or not isinstance(cell, str):
        raise ValueError(f"{cell!r:.60} is not a path")
    path, is_outside = clean_name(rows.read_text(cell))
    if is_outside or "://" in cell or not path:
        raise reject("outside")
    return path


def sort_name(name: str) -> tuple[bool, int, bytes, bytes]:
    """Orders whole numbers by value, and all other names after them by their bytes."""
    is_number = name.isascii() and name.isdecimal()
    digits = to_bytes(name.lstrip("0")) if is_number else b""
    return not is_number, len(digits), digits, to_bytes(name)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _RowReader:
    """Makes entries of rows. `columns` maps those of records to those of the rows."""

    options: ConvertOptions
    look_up: Lookup
    classes: tuple[str, ...]
    labels: Mapping[str, int]  # by the names in the rows
    found_classes: tuple[str, ...]
    columns: dict[Column, str]
    path_parts: list[tuple[str, str | None]]  # those of `path_format`
    find_split: Callable[[str], str]

    def read(self, row: rows.Row, place: str) -> Entry | Skipped:
        """Makes an entry of a row, or says why there is none."""
        held, shown = row.get(IMAGE), place
        try:
            path = held.path if isinstance(held, Entry) else self._name_image(row)
            shown = str(path or place)
            return self._read(row)
        except ValueError as error:  # a value makes no sense
            return Skipped(shown, "bad_row", f"{place}: {error}")
        except ImageError as error:  # there is no image or no mask
            return Skipped(shown, error.code, f"{place}: {error.detail}")
        except LookupError:  # its class is not in the list
            return leave_out(shown, "skipped_no_label")

    def _read(self, row: rows.Row) -> Entry:
        options = self.options
        found = self._find_image(row)
        if find_file(found.path, options.frames) != found.path:
            raise ValueError(f"{found.path!r:.60} is what a frame would be called: rename it")
        label = NO_LABEL
        if options.label_column:
            label = self.labels[rows.read_name(row.get(options.label_column))]
        given = found.split or self.find_split(found.path)
        given = "" if options.split_folders == "no" else given
        group = row.get(options.group_column or "")
        return found._replace(
            label=label,
            split=_read_split(row.get(options.split_column or "")) or given,
            group="" if rows.is_blank(group) else rows.read_name(group),
            values=self._encode_values(row) if self.columns else "",
        )

    def _find_image(self, row: rows.Row) -> Entry:
        """The image that a row names or holds, with its mask."""
        held, options = row.get(IMAGE), self.options
        if isinstance(held, ImageError):
            raise held
        if isinstance(held, Entry):
            return held
        path = normalize_path(self._name_image(row))
        mask = self._find_mask(row.get(options.mask_column)) if options.mask_column else None
        return self.look_up(path)._replace(mask=mask)

    def _name_image(self, row: rows.Row) -> Any:
        """What a row says of where its image lies."""
        if self.options.path_format is None:
            return row.get(self.options.path_column)
        return "".join(
            text + (rows.read_name(row.get(column)) if column else "")
            for text, column in self.path_parts
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
            column.name: self._read_value(column, row, source)
            for column, source in self.columns.items()
        }
        schema.check_lengths(values)
        stated = [row[SIZE]] if SIZE in row and schema.BOXES in values else []
        return encode_values((*values.values(), *stated))

    def _read_value(self, column: Column, row: rows.Row, source: str) -> Any:
        cell, options = row.get(source), self.options
        match column.name:
            case schema.LABELS:
                return sorted({*self._number(list_labels(row, options))})
            case schema.BOX_LABELS:
                return self._number(read_names(cell, options))
            case schema.TARGET:
                return rows.read_number(cell)
            case schema.BOXES:
                return [parse_box(box, options.box_format) for box in rows.read_list(cell)]
        if schema.is_of_boxes(column.name):
            cell = rows.read_list(cell)
        return rows.convert_cell(cell, column.kind)

    def _number(self, names: list[str]) -> list[int]:
        if self.options.trim_labels:  # taken off later
            return [self.labels.get(name, NO_LABEL) for name in names]
        return [self.labels[name] for name in names]


def _read_split(cell: Any) -> str:
    if rows.is_blank(cell):
        return ""
    split = SPLIT_FOLDERS.get(str(cell).strip().lower())
    if split is None:
        raise ValueError(f"{cell!r:.60} is not a split: {', '.join(sorted(SPLIT_FOLDERS))}")
    return split


def _survey_rows(source: RowSource, noted: ColumnNotes) -> _RowReader:
    """Finds the columns of the rows, their kinds, and the classes."""
    options = source.options
    kinds = {
        name: source.kinds.get(name, rows.UNKNOWN)
        for name in (*options.box_columns, *options.keep_columns)
    }
    found: set[str] = set()
    holds_images = False
    progress.begin("scan", unit="rows")
    for place, row in source.read_rows():
        progress.advance()
        holds_images |= isinstance(row.get(IMAGE), Entry)
        _join_kinds(kinds, row, f"{source.images}: {place}", options)
        noted.add(row)
        found.update(list_classes(row, options))
    names = {*noted.names}
    if not names:
        raise UsageError(f"{source.images} has no rows: give it one for each image")
    source.check_columns(names)
    _check_columns(source, names)
    classes = options.labels_columns or source.classes or tuple(sorted(found, key=sort_name))
    if not source.classes and not options.class_names:
        noted.add_labels(found)
    more = sorted(found - {*classes}, key=sort_name)
    ordered = order_classes((*classes, *more), options)
    return _RowReader(
        options=options,
        # What holds its images needs no list of what lies in its folder.
        look_up=_find_nothing if holds_images else make_lookup(source.root),
        classes=ordered,
        # What lies in a folder of that name is left out, but a row may say it.
        labels=({BACKGROUND: 0} if options.label_offset else {}) | number_names(ordered, options),
        found_classes=(*classes, *more) if options.class_names else (),
        columns=_list_columns(options, kinds),
        path_parts=parse_path_format(options.path_format or ""),
        find_split=source.find_split,
    )


def _join_kinds(kinds: dict[str, str], row: rows.Row, where: str, options: ConvertOptions) -> None:
    """Takes the cells of a row into account for the kinds of columns that records carry."""
    try:
        for name, kind in kinds.items():
            cell = row.get(name)
            cell = rows.read_list(cell) if name in options.box_columns else cell
            kinds[name] = rows.join_kinds(kind, rows.find_kind(cell))
    except ValueError as error:
        what = f"{where}, column {name!r}"
        raise UsageError(f"{what} cannot be carried into records: {error}") from error


def _make_column(name: str, kind: str) -> Column:
    return Column(check_column_name(name), kind)


def _find_nothing(_path: str) -> Entry:
    raise reject("missing")


def _check_columns(source: RowSource, names: set[str]) -> None:
    options, used = source.options, list_used(source.options)
    if IMAGE in names and options.path_format is not None:
        raise UsageError(f"path format: {source.images} holds its images: leave the format out")
    for name in used if IMAGE in names else (*list_path_columns(options), *used):
        if name not in names:
            known = ", ".join(sorted(names - {IMAGE, SIZE})) or "none"
            raise UsageError(f"{source.images} has no column {name!r}: there are {known}")


def _list_columns(options: ConvertOptions, kinds: dict[str, str]) -> dict[Column, str]:
    asked = (
        (schema.LABELS, "labels", options.labels_column or ", ".join(options.labels_columns)),
        (schema.TARGET, "float", options.target_column),
        (schema.CAPTION, "text", options.caption_column),
        (schema.BOXES, "boxes", options.boxes_column),
        (schema.BOX_LABELS, "labels", options.box_labels_column),
    )
    columns = {Column(name, kind): source for name, kind, source in asked if source}
    stored = {rows.UNKNOWN: "text", rows.BLANK: "text", "list": "texts"}  # a column without a value
    for name, kind in kinds.items():
        make = schema.make_box_column if name in options.box_columns else _make_column
        columns[make(name, stored.get(kind, kind))] = name
    return columns
