"""An object as a file that is read: here and there by ranges, and forward faster than it is used.

Whoever reads on from where the last read ended will go on doing so: the further that went, the more
of what comes next is on its way. Whoever jumps gets little, and soon.
"""

from __future__ import annotations

import concurrent.futures
import errno
import io
import itertools
import os
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from converter.storage.object_requests import start_read, stat_object
from converter.storage.requests import wait

if TYPE_CHECKING:  # which is built on this
    from converter.storage.objects import ObjectPath

_FIRST_BYTES: Final = 1 << 16
_PIECE_BYTES: Final = 4 << 20
_AHEAD_BYTES: Final = 32 << 20
"""On their way, at most, beside the piece that is being read."""

_GROWTH: Final = 4

_GAP_BYTES: Final = 4 << 20
"""What is skipped is read all the same up to here: it comes sooner than one more answer would."""


class _Piece(NamedTuple):
    begin: int
    end: int
    reading: concurrent.futures.Future[bytes]


class ObjectFile(io.RawIOBase):
    """An object that is open for reading, of one version from its first byte to its last.

    What is read raises what `read_object_range` raises, and `OSError` with ESTALE once the object
    is another one.

    Args:
        path: the object.
    """

    def __init__(self, path: ObjectPath) -> None:
        self._path = path
        self.size, self._version, _ = stat_object(path)
        self._place = self._run = self._asked = 0
        self._begin, self._data = 0, b""
        self._pending: deque[_Piece] = deque()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_CUR: self._place, os.SEEK_END: self.size}.get(whence, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        if self._place >= self.size:
            return 0
        while not self._begin <= self._place < self._begin + len(self._data):
            self._advance()
        start = self._place - self._begin
        part = self._data[start : start + len(buffer)]
        buffer[: len(part)] = part
        self._place += len(part)
        return len(part)

    def close(self) -> None:
        self._drop()
        super().close()

    def _advance(self) -> None:
        """Takes the next piece, or the first one behind a jump."""
        jumped = not self._begin <= self._place < self._asked + _GAP_BYTES
        if jumped:
            self._drop()
            self._run, self._asked = 0, self._place
        self._ask()
        piece = self._pending.popleft()
        self._begin, self._data = piece.begin, wait(piece.reading)
        if len(self._data) != piece.end - piece.begin:
            raise OSError(errno.ESTALE, "it changed while it was read", str(self._path))
        self._run += piece.end - piece.begin
        if not jumped:
            self._ask()

    def _ask(self) -> None:
        """Asks for some times as much ahead as was read in one go, and for one piece at least."""
        ahead = min(_GROWTH * self._run, _AHEAD_BYTES)
        size = min(_PIECE_BYTES, max(_FIRST_BYTES, ahead))
        used = self._begin + len(self._data) if self._run else self._place
        while self._asked < self.size and (not self._pending or self._asked < used + ahead):
            end = min(self._asked + size, self.size)
            reading = start_read(self._path, self._asked, end - self._asked, self._version)
            self._pending.append(_Piece(self._asked, end, reading))
            self._asked = end

    def _drop(self) -> None:
        while self._pending:
            self._pending.pop().reading.cancel()


def read_pieces(path: ObjectPath, piece_bytes: int = _PIECE_BYTES) -> Iterator[bytes]:
    """An object from its beginning to its end; the next piece is on its way meanwhile.

    Raises:
        FileNotFoundError: there is none of that name.
        StoreError: the store does not answer, or refuses.
    """
    following = start_read(path, 0, piece_bytes)
    try:
        for number in itertools.count(1):
            piece = wait(following)
            if len(piece) == piece_bytes:
                following = start_read(path, number * piece_bytes, piece_bytes)
            yield piece
            if len(piece) < piece_bytes:
                return
    finally:
        following.cancel()
