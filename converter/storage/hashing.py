"""SHA-256 of what is written and read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

from converter.errors import OutputError

if TYPE_CHECKING:
    from converter.storage.location import Location


class HashedFile:
    """A file that is being written, with the SHA-256 and the size of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def flush(self, *, to_disk: bool) -> None:
        """Hands what was written to the system, and with `to_disk` to the disk."""
        self._file.flush()
        if to_disk:
            os.fsync(self._file.fileno())

    def compare(self, pieces: Iterable[bytes], path: object) -> None:
        """Raises OutputError if what can be read back differs from what was written."""
        if _hash_pieces(pieces) != self.sha256:
            raise OutputError(
                f"{path} reads back differently from what was written: check the disk"
            )


def hash_bytes(data: bytes) -> str:
    """Returns the SHA-256 of some bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Location) -> str:
    """Returns the SHA-256 of a file in hexadecimal; holds one or two pieces in memory."""
    return _hash_pieces(path.read_pieces())


def _hash_pieces(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
