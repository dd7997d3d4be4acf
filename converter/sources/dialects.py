"""Tables in text as programs write them: their encoding, and what separates their columns."""

import codecs
import csv
import io
import re
from typing import Final, NamedTuple

from converter.errors import UsageError
from converter.storage.location import Location

# In the order in which they are tried. Excel writes `;` where numbers have a decimal comma.
_SEPARATORS: Final = (";", "\t", ",")
_HEAD_BYTES: Final = 1 << 16  # the first line is in them, or enough of it
UTF16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # what begins a text in UTF-16

# A first line for Excel alone, which says nothing but the separator.
_HINT: Final = re.compile(r"sep=([;,\t|:])\r?\n")


class Dialect(NamedTuple):
    """How a table in text is written."""

    encoding: str
    errors: str  # what becomes of bytes that the encoding does not have, as `open` takes it
    separator: str
    skipped: int  # lines before the names of the columns


def find_dialect(table: Location, usual: str) -> Dialect:
    """Finds out how a table is written, from its first line.

    The `usual` separator stands unless it gives one column and another gives more. Raises
    UsageError for what is neither UTF-8 nor, with a byte order mark, UTF-16.
    """
    # A store refuses a range of an empty object.
    head = table.read_range(0, _HEAD_BYTES) if table.measure() else b""
    dialect = Dialect("utf-8-sig", "surrogateescape", usual, 0)  # a file's name may be no UTF-8
    if head.startswith(UTF16_MARKS):  # what Excel calls "Unicode text"
        dialect = Dialect("utf-16", "strict", usual, 0)
    text = head.decode(dialect.encoding, "replace")
    if "\0" in text.partition("\n")[0]:
        raise UsageError(f"{table} is not text in UTF-8: save it again, as CSV in UTF-8")
    if hint := _HINT.match(text):
        return dialect._replace(separator=hint[1], skipped=1)
    counts = {each: _count_columns(text, each) for each in (usual, *_SEPARATORS)}
    if counts[usual] < 2:
        dialect = dialect._replace(separator=max(counts, key=counts.__getitem__))
    return dialect


def _count_columns(text: str, separator: str) -> int:
    lines = io.StringIO(text, newline="")
    return len(next(csv.reader(lines, delimiter=separator), ()))
