"""The names of classes in rows: of one label, of several in a list, or of a column for each."""

from collections.abc import Iterator, Sequence
from typing import Any

from converter.options import ConvertOptions
from converter.sources import rows


def list_classes(row: rows.Row, options: ConvertOptions) -> Iterator[str]:
    """The names of classes in the cells of a row, up to one that makes no sense.

    What reads the row for its entry rejects that. Columns of 0 and 1 are classes by their names.
    """
    try:
        if options.label_column:
            yield rows.read_name(row.get(options.label_column))
        for column in (options.labels_column, options.box_labels_column):
            yield from read_names(row.get(column), options) if column else ()
    except ValueError:
        return


def list_labels(row: rows.Row, options: ConvertOptions) -> list[str]:
    """The names of all classes that an image has; a ValueError if a cell makes no sense."""
    if options.labels_column:
        return read_names(row.get(options.labels_column), options)
    return [name for name in options.labels_columns if _has_label(row, name)]


def read_names(cell: Any, options: ConvertOptions) -> list[str]:
    """Reads a list of the names of classes; a ValueError if one of them makes no sense."""
    return [rows.read_name(name) for name in rows.read_list(cell, options.labels_separator)]


def find_class(number: Any, classes: Sequence[str]) -> str:
    """The name of the class with a number; a ValueError if there is none."""
    if not isinstance(number, int) or not 0 <= number < len(classes):
        raise ValueError(f"label {number!r:.60} is none of {len(classes):,} classes")
    return classes[number]


def _has_label(row: rows.Row, column: str) -> bool:
    cell = row.get(column)
    flag = rows.find_flag(cell)
    if flag is None and not rows.is_blank(cell):
        raise ValueError(f"column {column!r}: {cell!r:.60} is none of 0, 1 and -1")
    return flag == 1
