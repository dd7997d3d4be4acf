"""A table of images: which columns it has, and what they are used for if nothing is said."""

import dataclasses
import functools
import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from converter.errors import UsageError
from converter.options import ConvertOptions
from converter.sources import rows
from converter.sources.column_notes import list_path_columns, list_used
from converter.sources.hints import find_path_format, propose_path_option
from converter.sources.inputs import is_table, locate_root
from converter.sources.parquet_columns import read_columns
from converter.sources.patterns import is_pattern
from converter.sources.row_sources import RowSource
from converter.sources.rows import Row
from converter.storage.location import Location

_PATH_COLUMNS: Final = ("path", "file_name")
_LABEL_COLUMN: Final = "label"
_FIRST_ROWS: Final = 8  # that proposals look at


def recognize(images: Location, _names: Sequence[str], _options: ConvertOptions) -> bool:
    """Whether IMAGES is a table, by its name."""
    return is_table(images) and not is_pattern(images)


def imply_options(_images: Location, _options: ConvertOptions) -> Mapping[str, str]:
    """Nothing: the usual names of columns are looked for in the first row."""
    return {}


def open_rows(table: Location, options: ConvertOptions) -> RowSource:
    """Opens a table in CSV, TSV, JSON lines or Parquet, whose rows name images."""
    root = locate_root(table, options)
    first = [row for _, row in itertools.islice(rows.read_rows(table), _FIRST_ROWS)]
    options = apply_usual_names(options, first[0] if first else {})

    def read_rows() -> Iterator[tuple[str, Row]]:
        return ((f"row {number}", row) for number, row in rows.read_rows(table))

    def check_columns(names: set[str]) -> None:
        _check_paths(table, root, options, names, first)
        check_labels(table, options, names)

    return RowSource(
        images=table,
        root=root,
        options=options,
        read_rows=read_rows,
        check_columns=check_columns,
        advise=functools.partial(_advise, root, options, first),
    )


def apply_usual_names(options: ConvertOptions, row: rows.Row) -> ConvertOptions:
    """The options with the columns that a first row has, if nothing is said."""
    path, label = options.path_column, options.label_column
    if path not in row and path == _PATH_COLUMNS[0] and options.path_format is None:
        path = next((name for name in _PATH_COLUMNS if name in row), path)
    if (
        not options.names_labels
        and _LABEL_COLUMN in row
        and _LABEL_COLUMN not in list_used(options)
    ):
        label = _LABEL_COLUMN
    return dataclasses.replace(options, path_column=path, label_column=label)


def _check_paths(
    table: Location, root: Location, options: ConvertOptions, names: set[str], first: Sequence[Row]
) -> None:
    column = options.path_column
    if options.path_format is not None or column in names:
        return
    proposal = propose_path_option(root, first)
    raise UsageError(
        f"{table} has no column {column!r}: there are {_describe_columns(table, names)}"
        + (f"; {proposal}" if proposal else "")
    )


def _describe_columns(table: Location, names: set[str]) -> str:
    if table.suffix.lower() != ".parquet":
        return ", ".join(sorted(names))
    # It may have been meant to hold its images.
    return f"{read_columns(table).describe()}, none of which holds images"


def check_labels(table: Location, options: ConvertOptions, names: set[str]) -> None:
    """Raises UsageError if labels look forgotten."""
    # Labels must not get lost because of how their column is spelled, or where it begins.
    alike = {name for name in names if name.strip().lower() == _LABEL_COLUMN}
    unused = sorted(alike - {*list_used(options), *list_path_columns(options)})
    if unused and not options.names_labels:
        raise UsageError(
            f"{table}: column {unused[0]!r} is not taken for labels, as the first row has no "
            f"{_LABEL_COLUMN!r}: name it with --label-column, or carry it along with --keep-column"
        )


def _advise(root: Location, options: ConvertOptions, first: Sequence[Row]) -> str:
    """What to do if no image that a table names is there."""
    column = options.path_column
    found = "" if options.path_format else find_path_format(root, column, first)
    return (
        f"; give --path-format {shlex.quote(found)}" if found not in ("", f"{{{column}}}") else ""
    )
