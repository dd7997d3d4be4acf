"""Rows of a table: CSV, TSV, JSON lines or Parquet, one after another as dicts of cells.

What reads a cell, or finds the kind of a column, raises `ValueError` where it makes no sense.
"""

import csv
import functools
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from converter.errors import UsageError
from converter.names import from_bytes, to_bytes
from converter.sources.dialects import UTF16_MARKS, find_dialect
from converter.sources.parquet_files import ParquetError, read_batches, read_metadata
from converter.storage.location import Location

Row: TypeAlias = dict[str, Any]

# A line is in memory whole, so it is bounded.
_MAX_LINE_BYTES: Final = 1 << 24
_BINARY: Final = ("binary", "large_binary")

# The largest numbers that a record can hold: in an int64, and in the 32 bits of a float.
_MAX_INT: Final = 2**63 - 1
_MAX_FLOAT: Final = 3.4028234e38

# Digits with zeros before them, or with too many for an integer, are a name.
_DIGITS: Final = re.compile(r"[+-]?\d+")
_INT: Final = re.compile(r"[+-]?(0|[1-9]\d{0,18})")

_COMMA: Final = re.compile(r"[+-]?\d+,\d+")
_FLAGS: Final[dict[str | float, int]] = {
    "1": 1, "0": 0, "-1": -1, "1.0": 1, "0.0": 0, "-1.0": -1, "true": 1, "false": 0,
    1: 1, 0: 0, -1: -1,
}  # fmt: skip

BLANK: Final = "blank"  # the kind of a column whose cells hold nothing
UNKNOWN: Final = ""  # and of one before its first cell


def read_rows(table: Location) -> Iterator[tuple[int, Row]]:
    """The rows of a table, numbered from 1; memory is bounded by a few thousand rows."""
    if not table.is_file():
        raise UsageError(f"{table} does not exist, or is not a file: give a table of images")
    if (read := READERS.get(table.suffix.lower())) is None:
        raise UsageError(f"{table} is no table: its name has to end in {', '.join(READERS)}")
    try:
        yield from enumerate(read(table), 1)
    except OSError as error:
        raise UsageError(f"{table} cannot be read: {error.strerror or error}") from error


def _read_csv(table: Location, usual: str = ",") -> Iterator[Row]:
    limit = csv.field_size_limit(_MAX_LINE_BYTES)  # of all that this process reads: set back below
    try:
        encoding, errors, delimiter, skipped = find_dialect(table, usual)
        with io.TextIOWrapper(
            table.open_read(), encoding=encoding, errors=errors, newline=""
        ) as file:
            lines = itertools.islice(file, skipped, None)
            rows = csv.DictReader(lines, delimiter=delimiter, strict=True)
            _check_header(table, rows.fieldnames or ())
            for row in rows:
                # `DictReader` keeps surplus fields under None, and fills up with None.
                if None in row or None in row.values():
                    number, line = len(rows.fieldnames or ()), rows.line_num + skipped
                    raise UsageError(
                        f"{table}: the row that ends in line {line} has more "
                        f"or fewer than the {number} fields of the first one"
                    )
                yield row
    except (csv.Error, UnicodeError) as error:
        raise UsageError(f"{table} cannot be read as a table: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _read_json_lines(table: Location) -> Iterator[Row]:
    with table.open_read() as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES), b""), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig", "surrogateescape"))
            except (ValueError, RecursionError) as error:
                hint = ": save it in UTF-8, not UTF-16" if line.startswith(UTF16_MARKS) else ""
                raise UsageError(f"{table}: line {number} is not JSON: {error}{hint}") from error
            if not isinstance(row, dict):
                raise UsageError(f"{table}: line {number} is not a JSON object")
            yield row


def _read_parquet(table: Location) -> Iterator[Row]:
    metadata = read_metadata(table)
    schema = metadata.schema.to_arrow_schema()
    _check_header(table, schema.names)
    # Some writers store text as binary columns.
    binary = [field.name for field in schema if str(field.type) in _BINARY]
    try:
        for batch in read_batches(table, schema.names, range(metadata.num_row_groups)):
            for row in batch.to_pylist():
                for name in binary:
                    if row[name] is not None:
                        row[name] = from_bytes(row[name])
                yield row
    except ParquetError as error:
        raise UsageError(f"{table} cannot be read as Parquet: {error}") from error


def _check_header(table: Location, names: Sequence[str]) -> None:
    if not names:
        raise UsageError(f"{table} is empty: its first line has to name the columns")
    if len(set(names)) != len(names):
        double = next(name for name in names if list(names).count(name) > 1)
        raise UsageError(f"{table}: column {double!r} stands twice in the first line")


# By how the name of a table ends.
READERS: Final[dict[str, Callable[[Location], Iterator[Row]]]] = {
    ".csv": _read_csv,
    ".tsv": functools.partial(_read_csv, usual="\t"),
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}


def find_cell(row: Row, name: str) -> Any:
    """The cell of a column, also of one in a structure or in a list of them: `objects.bbox`."""
    if name in row:
        return row[name]
    top, *parts = name.split(".")
    cell = row.get(top)
    for part in parts:
        if isinstance(cell, list):
            cell = [each.get(part) for each in cell if isinstance(each, dict)]
        else:
            cell = cell.get(part) if isinstance(cell, dict) else None
    return cell


def is_blank(cell: Any) -> bool:
    """Whether a cell holds nothing."""
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def read_name(cell: Any) -> str:
    """Reads a name, such as that of a class; whole numbers are names too."""
    if is_blank(cell) or isinstance(cell, list | dict | bool):
        raise ValueError(f"{cell!r:.60} is not a name")
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # of a column with blank cells
    return read_text(cell)


def read_text(cell: Any) -> str:
    """Reads a text; numbers and dates become text as they are written."""
    if isinstance(cell, list | dict | tuple | bytes):
        raise ValueError(f"{cell!r:.60} is not a text")  # noqa: TRY004 (a value of a table)
    text = str(cell)
    try:
        to_bytes(text)
    except UnicodeEncodeError:  # JSON can hold half of a surrogate pair, a record cannot
        raise ValueError(f"{text!a:.60} has half of a character in it") from None
    return text


def read_list(cell: Any, separator: str = "|") -> list[Any]:
    """Reads a list, from JSON or from text with a separator between its parts; blank is empty.

    A separator of blanks stands for any number of them.
    """
    if is_blank(cell):
        return []
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{cell!r:.60} is not a list in JSON: {error}") from error
    if isinstance(cell, str):
        if separator.isspace():
            return cell.split()
        return [part.strip() for part in cell.split(separator)]
    return cell if isinstance(cell, list) else [cell]


def read_number(cell: Any) -> float:
    """Reads a number that is finite in a record."""
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(cell, bool) or not abs(number) <= _MAX_FLOAT:
        hint = ": write it with a point" if has_decimal_comma(cell) else ""
        raise ValueError(f"{cell!r:.60} is not a number{hint}")
    return number


def has_decimal_comma(cell: Any) -> bool:
    """Whether a cell is a number with a comma in it, which may also stand between thousands."""
    return isinstance(cell, str) and _COMMA.fullmatch(cell.strip()) is not None


def find_flag(cell: Any) -> int | None:
    """The 1, 0 or -1 that a cell holds, as a number, in text or as a boolean; None for others."""
    if not isinstance(cell, str | int | float):
        return None
    if cell in _FLAGS:  # a table may have millions of them
        return _FLAGS[cell]
    word = str(cell).strip().lower()
    try:
        number = float(_FLAGS.get(word, word))
    except ValueError:
        return None
    return int(number) if number in (0, 1, -1) else None


def find_kind(cell: Any) -> str:
    """The kind of a column with this cell alone: a key of `schema.KINDS`, `list` or `blank`."""
    if is_blank(cell):
        return BLANK
    if isinstance(cell, list):
        kinds = [find_kind(part) for part in cell]
        joined = "list"
        for kind in kinds:
            if kind not in ("int", "float", "text"):
                raise ValueError(f"{cell!r:.60} holds more than numbers and text")
            joined = join_kinds(joined, f"{kind}s")
        return joined
    if isinstance(cell, bool | int):
        return "int" if -_MAX_INT <= cell <= _MAX_INT else "text"
    if isinstance(cell, float):
        return "float"
    if not isinstance(cell, str):
        raise ValueError(f"{type(cell).__name__} {cell!r:.60} is neither a number nor text")  # noqa: TRY004
    if _DIGITS.fullmatch(cell):
        return "int" if _INT.fullmatch(cell) and abs(int(cell)) <= _MAX_INT else "text"
    return "float" if _is_float(cell) else "text"


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # to Python, `1_000.5` is a number


def join_kinds(one: str, other: str) -> str:
    """The kind of a column that holds cells of two kinds."""
    kinds = {one, other} - {BLANK, UNKNOWN}
    if len(kinds) < 2:
        found = kinds.pop() if kinds else BLANK
        # A missing number is NaN, which no integer can be.
        return "float" if found == "int" and BLANK in (one, other) else found
    plural = {kind for kind in kinds if kind.endswith("s") or kind == "list"}
    if len(plural) == 1:
        raise ValueError("lists in some rows, and single values in others")
    singular = {kind.removesuffix("s") for kind in kinds - {"list"}}
    widest = next(kind for kind in ("text", "float", "int") if kind in singular)
    return widest + ("s" if plural else "")


def convert_cell(cell: Any, kind: str) -> Any:
    """Converts a cell to the value of a column of that kind."""
    if kind.endswith("s"):
        return [convert_cell(part, kind[:-1]) for part in (cell or [])]
    if is_blank(cell):
        return "" if kind == "text" else math.nan
    if kind == "text":
        return read_text(cell)
    return int(cell) if kind == "int" else float(cell)
