"""A table of images: which columns it has, and what they are used for if nothing is said."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Final

from converter.errors import UsageError
from converter.options import ConvertOptions
from converter.sources import rows
from converter.sources.inputs import locate_root
from converter.sources.row_sources import RowSource, list_used
from converter.storage.location import Location

_PATH_COLUMNS: Final = ("path", "file_name")
_LABEL_COLUMN: Final = "label"


def open_table(table: Location, options: ConvertOptions) -> RowSource:
    """Opens a table in CSV, TSV, JSON lines or Parquet, whose rows name images."""
    root = locate_root(table, options)
    _, first = next(rows.read_rows(table), (0, {}))
    options = _apply_usual_names(options, first)

    def read_rows() -> Iterator[tuple[str, rows.Row]]:
        return ((f"row {number}", row) for number, row in rows.read_rows(table))

    return RowSource(
        images=table,
        root=root,
        options=options,
        read_rows=read_rows,
        check_columns=functools.partial(_check_labels, table, options),
    )


def _apply_usual_names(options: ConvertOptions, row: rows.Row) -> ConvertOptions:
    path, label = options.path_column, options.label_column
    if path not in row and path == _PATH_COLUMNS[0]:
        path = next((name for name in _PATH_COLUMNS if name in row), path)
    unlabelled = label is None and options.labels_column is None
    if unlabelled and _LABEL_COLUMN in row and _LABEL_COLUMN not in list_used(options):
        label = _LABEL_COLUMN
    return dataclasses.replace(options, path_column=path, label_column=label)


def _check_labels(table: Location, options: ConvertOptions, names: set[str]) -> None:
    # Labels must not get lost because of how their column is spelled, or where it begins.
    alike = {name for name in names if name.strip().lower() == _LABEL_COLUMN}
    unused = sorted(alike - {*list_used(options), options.path_column})
    if unused and options.label_column is None and options.labels_column is None:
        raise UsageError(
            f"{table}: column {unused[0]!r} is not taken for labels, as the first row has no "
            f"{_LABEL_COLUMN!r}: name it with --label-column, or carry it along with --keep-column"
        )
