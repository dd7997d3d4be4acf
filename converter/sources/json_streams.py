"""Reads JSON that is larger than memory: an object whose lists are long, item by item."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from typing import Any, Final, TextIO

from converter.errors import UsageError
from converter.storage.location import Location

# An item is in memory whole, with about 100 bytes for each of its characters in the worst case.
# The largest of COCO, a crowd as runs of pixels, has 50,000.
MAX_ITEM_CHARS: Final = 1 << 22
_PIECE_CHARS: Final = 1 << 20

_FILLED: Final = re.compile(r"[^ \t\n\r]")
_NUMBER_GOES_ON: Final = ("", ".", "e", "E")
_DECODER: Final = json.JSONDecoder()


def read_lists(file: Location) -> Iterator[tuple[str, Iterator[Any]]]:
    """Yields each key of the object that a JSON file holds, with the items of its list.

    Any other value has no items. Items that the caller leaves are passed over. Memory is bounded by
    two items of 4 million characters. Raises UsageError if the file is no such JSON.
    """
    # As in tables, bytes that are not UTF-8 may be part of a file's name.
    with (
        _describe_errors(file),
        io.TextIOWrapper(file.open_read(), "utf-8-sig", "surrogateescape") as text,
    ):
        for key, items in _Parser(text).read_object():
            yield key, _guard(items, file)


def _guard(items: Iterator[Any], file: Location) -> Iterator[Any]:
    # The caller takes them from outside of the block in `read_lists`.
    with _describe_errors(file):
        yield from items


@contextlib.contextmanager
def _describe_errors(file: Location) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise UsageError(f"{file} is not JSON that can be read: too many lists inside") from error
    except ValueError as error:
        raise UsageError(f"{file} is not JSON that can be read: {error}") from error


class _Parser:
    """Reads values one after another from a text, of which a part is in memory."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._text, self._at, self._is_all = file, "", 0, False
        self._passed = 0  # characters of the file before those in memory

    def read_object(self) -> Iterator[tuple[str, Iterator[Any]]]:
        keys: set[str] = set()
        self._expect("{")
        while self._peek() != "}":
            if keys:
                self._expect(",")
            key = self._decode()
            if not isinstance(key, str) or key in keys:
                raise ValueError(f"{key!r:.60} is no key, or stands twice")
            keys.add(key)
            self._expect(":")
            if self._peek() == "[":
                items = self._read_items()
                yield key, items
                for _ in items:
                    pass
            else:
                self._decode()
                yield key, iter(())
        self._expect("}")
        if self._peek():
            raise ValueError(f"it goes on after its end, at character {self._passed + self._at}")

    def _read_items(self) -> Iterator[Any]:
        self._expect("[")
        if self._peek() != "]":
            yield self._decode()
        while self._peek() != "]":
            self._expect(",")
            yield self._decode()
        self._expect("]")

    def _expect(self, character: str) -> None:
        if (found := self._peek()) != character:
            place = f"at character {self._passed + self._at}"
            raise ValueError(f"{found!r} {place}, expected {character!r}")
        self._at += 1

    def _peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            found = _FILLED.search(self._text, self._at)
            self._at = found.start() if found else len(self._text)
            if found or self._is_all:
                return found[0] if found else ""
            self._read_more()

    def _decode(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                # Of `1.5`, `1` is a number, too, if the rest is not there yet.
                if self._is_all or self._text[end : end + 1] not in _NUMBER_GOES_ON:
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if self._is_all:
                    place = self._passed + error.pos
                    raise ValueError(f"{error.msg} at character {place}") from error
            self._read_more()

    def _read_more(self) -> None:
        left = self._text[self._at :]
        if len(left) > MAX_ITEM_CHARS:
            where = f"at character {self._passed + self._at}"
            raise ValueError(f"the value {where} is wrong, or longer than {MAX_ITEM_CHARS:,}")
        # Twice as much each time, so that the work grows with the length of an item alone.
        more = self._file.read(max(_PIECE_CHARS, len(left)))
        self._passed, self._text, self._at = self._passed + self._at, left + more, 0
        self._is_all = not more
