"""Names of files as text that is the same in every locale, paths as parts, and texts to show.

A name is bytes. Python decodes it by the locale's encoding, so the same file has one name under
UTF-8 and another under Latin-1. Here a name is always those bytes read as UTF-8. Bytes that are
not UTF-8 become lone surrogates, so that nothing is lost on the way back.
"""

import os
import re
import string
import unicodedata
from typing import Final

MAX_SHOWN: Final = 120
"""Characters of a name, a path or a value that a message shows."""

MAX_MESSAGE: Final = 500
"""Characters of a whole message."""

# More escapes tell a reader nothing: a Parquet cell of binary once made a line of 354,426 bytes.
_MAX_BINARY: Final = 24
_GAP: Final = "…"
# What is longer than MAX_SHOWN. A path or number that is not quoted ends at a blank.
_LONG_RUN: Final = re.compile(r"\S{121,}")
# A value with blanks ends where its quotes do. The apostrophe of a plural is no quote.
_LONG_QUOTE: Final = re.compile(
    r"""(?<!\w)b?'(?:\\.|[^'\\]){121,}'(?!\w)|(?<!\w)b?"(?:\\.|[^"\\]){121,}"(?!\w)"""
)


def from_system(name: str) -> str:
    """The portable spelling of a name from the operating system."""
    return from_bytes(os.fsencode(name))


def to_system(name: str) -> str:
    """The spelling by which this process can open a file of that portable name."""
    return os.fsdecode(to_bytes(name))


def from_bytes(name: bytes) -> str:
    """The portable spelling of a name's bytes."""
    return name.decode("utf-8", "surrogateescape")


def to_bytes(name: str) -> bytes:
    """The bytes of a portable name, which also order names independently of the locale."""
    return name.encode("utf-8", "surrogateescape")


def fold_name(name: str) -> str:
    """A name as it is where neither case nor the composition of letters counts."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def name_frame(path: str, number: int | None) -> str:
    """The path of a frame, `cats/one.gif#3`; that of the file if the image is alone in it."""
    return path if number is None else f"{path}#{number}"


def find_file(path: str, frames: str) -> str:
    """The path of the file that a record is from; the inverse of `name_frame`.

    `frames` is the option: only with `all`, a path may be that of a frame.
    """
    file, mark, number = path.rpartition("#")
    return file if frames == "all" and mark and number.isdecimal() else path


def parse_path_format(text: str) -> list[tuple[str, str | None]]:
    """The parts of a format of paths: each a text, and the column whose cell follows, if any.

    The braces hold the name of a column, whatever is in it; nothing of Python's formats is obeyed.
    Raises ValueError for anything else.

    >>> parse_path_format("train/{id}.png")
    [('train/', 'id'), ('.png', None)]
    """
    parts = []
    for literal, column, spec, conversion in string.Formatter().parse(text):
        if column is not None and (spec or conversion or not column or "{" in column):
            raise ValueError("braces hold the name of a column and nothing else")
        parts.append((literal, column))
    return parts


def show_name(name: str, most: int = MAX_SHOWN) -> str:
    r"""A name on one line, without control characters; of a long one, its end.

    >>> show_name("photos\n"), show_name("a-rather-long-name", 8)
    ('photos\\n', '…ng-name')
    """
    end = name[-most:]
    shown = end if end.isprintable() else repr(end)[1:-1]
    return shown if len(name) <= most and len(shown) <= most else f"…{shown[1 - most :]}"


def escape(text: str) -> str:
    r"""A text on one line: what a terminal might obey, and bytes that are not UTF-8, as escapes.

    >>> escape("photos\n\udcff")
    'photos\\n\\xff'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _spell(char) for char in text)


def _spell(char: str) -> str:
    # A byte that is not UTF-8 is a surrogate in a name.
    byte = ord(char) - 0xDC00
    if 0x80 <= byte <= 0xFF:
        return f"\\x{byte:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def fit_message(text: str) -> str:
    """A message for people: one printable line of at most `MAX_MESSAGE` characters.

    Long values in it lose their middle, and so does a message that is still too long: its beginning
    says what is wrong, its end what to do. A short message stays as it is, and so does what this
    function returned.
    """
    if len(text) <= MAX_SHOWN and text.isprintable():
        return text
    # What may be a whole file is cut before work is put into it. Values are cut before the text is,
    # so that what stands between two of them stays.
    text = _LONG_RUN.sub(_cut_value, escape(_cut(text, 1 << 16)))
    previous, text = "", _cut(text, 4 * MAX_MESSAGE)  # quotes are searched for in quadratic time
    while text != previous:
        previous, text = text, _LONG_RUN.sub(_cut_value, _LONG_QUOTE.sub(_cut_value, text))
        text = _cut(text, MAX_MESSAGE)
    return text


def _cut_value(found: re.Match[str]) -> str:
    """Cuts what is between up to 4 quotes and brackets a side, if that alone is too long."""
    text = found[0]
    begin = min(4, len(text) - len(text.lstrip("'\"([")))
    end = max(len(text) - 4, len(text.rstrip("'\")],:;.")))
    value = text[begin:end]
    if len(value) <= MAX_SHOWN:
        return text
    most = _MAX_BINARY if value.count("\\") > len(value) // 8 else MAX_SHOWN
    return f"{text[:begin]}{_cut(value, most)}{text[end:]}"


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    kept = most - len(_GAP)
    return f"{text[: kept // 2]}{_GAP}{text[kept // 2 - kept :]}"
