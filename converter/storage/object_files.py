"""An object as a file: read here and there by ranges, and ahead of a reader that goes forward.

The further a reader has gone forward, the more of what follows is requested early. After a jump,
little is requested, so that it arrives soon.
"""

from __future__ import annotations

import concurrent.futures
import errno
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from converter.storage.object_requests import start_read, stat_object
from converter.storage.requests import wait
from converter.storage.stores import SeekableFile

if TYPE_CHECKING:  # which is built on this
    from converter.storage.objects import ObjectPath

PIECE_BYTES: Final = 4 << 20
_FIRST_BYTES: Final = 1 << 16
_AHEAD_BYTES: Final = 32 << 20
"""In flight, at most, beside the piece that is being read."""

_GROWTH: Final = 4
"""How many times what was read in one go is requested ahead."""

_GAP_BYTES: Final = 4 << 20
"""Gaps up to here are read and dropped: they arrive sooner than one more answer would."""


class _Piece(NamedTuple):
    begin: int
    end: int
    reading: concurrent.futures.Future[bytes]


class ObjectFile(SeekableFile):
    """An object opened for reading, in one version from the first byte to the last.

    Reading raises what `start_read` raises: OSError with ESTALE once the object has changed.
    """

    def __init__(self, path: ObjectPath) -> None:
        size, self._version, _ = stat_object(path)
        super().__init__(size)
        self._path = path
        self._run = self._asked = 0
        self._begin, self._data = 0, b""
        self._pending: deque[_Piece] = deque()

    def readinto(self, buffer: Any) -> int:
        if self._place >= self._size:
            return 0
        while not self._begin <= self._place < self._begin + len(self._data):
            self._advance()
        start = self._place - self._begin
        part = self._data[start : start + len(buffer)]
        buffer[: len(part)] = part
        self._place += len(part)
        return len(part)

    def close(self) -> None:
        self._cancel()
        super().close()

    def _advance(self) -> None:
        """Takes the next piece, or the first one after a jump."""
        jumped = not self._begin <= self._place < self._asked + _GAP_BYTES
        if jumped:
            self._cancel()
            self._run, self._asked = 0, self._place
        self._request()
        piece = self._pending.popleft()
        self._begin, self._data = piece.begin, wait(piece.reading)
        if len(self._data) != piece.end - piece.begin:
            raise OSError(errno.ESTALE, "it changed while it was read", str(self._path))
        self._run += piece.end - piece.begin
        if not jumped:
            self._request()

    def _request(self) -> None:
        """Requests pieces ahead, and one at least."""
        ahead = min(_GROWTH * self._run, _AHEAD_BYTES)
        size = min(PIECE_BYTES, max(_FIRST_BYTES, ahead))
        used = self._begin + len(self._data) if self._run else self._place
        while self._asked < self._size and (not self._pending or self._asked < used + ahead):
            end = min(self._asked + size, self._size)
            reading = start_read(self._path, self._asked, end - self._asked, self._version)
            self._pending.append(_Piece(self._asked, end, reading))
            self._asked = end

    def _cancel(self) -> None:
        while self._pending:
            self._pending.pop().reading.cancel()
