"""Cells of a table: what they mean, and which kind a whole column has."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from converter.names import to_bytes

SEPARATOR: Final = "|"
"""Between the names in a cell of text."""

MAX_INT: Final = 2**63 - 1
MAX_FLOAT: Final = 3.4028234e38
"""The largest number that a record can hold in 32 bits."""

# Digits with zeros before them, or with too many for an integer, are a name.
_DIGITS: Final = re.compile(r"[+-]?\d+")
_INT: Final = re.compile(r"[+-]?(0|[1-9]\d{0,18})")

_BLANK: Final = "blank"

UNKNOWN: Final = ""
"""The kind of a column before its first cell."""


def is_blank(cell: Any) -> bool:
    """Whether a cell holds nothing."""
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def read_name(cell: Any) -> str:
    """Reads a name, such as that of a class; whole numbers are names too.

    Raises:
        ValueError: it is not a name.
    """
    if is_blank(cell) or isinstance(cell, list | dict | bool):
        raise ValueError(f"{cell!r:.60} is not a name")
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # of a column with blank cells
    return read_text(cell)


def read_text(cell: Any) -> str:
    """Reads a text; numbers and dates become text as they are written.

    Raises:
        ValueError: it is not text, or has half of a character, which JSON can hold and no record.
    """
    if isinstance(cell, list | dict | tuple | bytes):
        raise ValueError(f"{cell!r:.60} is not a text")  # noqa: TRY004 (a value of a table)
    text = str(cell)
    try:
        to_bytes(text)
    except UnicodeEncodeError:
        raise ValueError(f"{text!a:.60} has half of a character in it") from None
    return text


def read_list(cell: Any) -> list[Any]:
    """Reads a list, from JSON or from text with `SEPARATOR` between its parts.

    A blank cell is an empty list, and any other single value a list of one.

    Raises:
        ValueError: it begins like JSON and is not.
    """
    if is_blank(cell):
        return []
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{cell!r:.60} is not a list in JSON: {error}") from error
    if isinstance(cell, str):
        return [part.strip() for part in cell.split(SEPARATOR)]
    return cell if isinstance(cell, list) else [cell]


def read_number(cell: Any) -> float:
    """Reads a number.

    Raises:
        ValueError: it is not a number, or not finite in a record.
    """
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(cell, bool) or not abs(number) <= MAX_FLOAT:
        raise ValueError(f"{cell!r:.60} is not a number")
    return number


def find_kind(cell: Any) -> str:
    """The kind of a column with this cell alone: a key of `schema.KINDS`, `list` or `blank`.

    Raises:
        ValueError: no column of records can hold it.
    """
    if is_blank(cell):
        return _BLANK
    if isinstance(cell, list):
        kinds = [find_kind(part) for part in cell]
        joined = "list"
        for kind in kinds:
            if kind not in ("int", "float", "text"):
                raise ValueError(f"{cell!r:.60} holds more than numbers and text")
            joined = join_kinds(joined, f"{kind}s")
        return joined
    if isinstance(cell, bool | int):
        return "int" if -MAX_INT <= cell <= MAX_INT else "text"
    if isinstance(cell, float):
        return "float"
    if not isinstance(cell, str):
        raise ValueError(f"{type(cell).__name__} {cell!r:.60} is neither a number nor text")  # noqa: TRY004
    if _DIGITS.fullmatch(cell):
        return "int" if _INT.fullmatch(cell) and abs(int(cell)) <= MAX_INT else "text"
    return "float" if _is_float(cell) else "text"


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def join_kinds(one: str, other: str) -> str:
    """The kind of a column that holds cells of two kinds.

    Raises:
        ValueError: no kind holds both.
    """
    kinds = {one, other} - {_BLANK, UNKNOWN}
    if len(kinds) < 2:
        found = kinds.pop() if kinds else _BLANK
        # A missing number is NaN, which no integer can be.
        return "float" if found == "int" and _BLANK in (one, other) else found
    plural = {kind for kind in kinds if kind.endswith("s") or kind == "list"}
    if len(plural) == 1:
        raise ValueError("lists in some rows, and single values in others")
    singular = {kind.removesuffix("s") for kind in kinds - {"list"}}
    widest = next(kind for kind in ("text", "float", "int") if kind in singular)
    return widest + ("s" if plural else "")


def convert_cell(cell: Any, kind: str) -> Any:
    """Converts a cell to the value of a column of that kind.

    Raises:
        ValueError: it is not of that kind.
    """
    if kind.endswith("s"):
        return [convert_cell(part, kind[:-1]) for part in (cell or [])]
    if is_blank(cell):
        return "" if kind == "text" else math.nan
    if kind == "text":
        return read_text(cell)
    return int(cell) if kind == "int" else float(cell)
