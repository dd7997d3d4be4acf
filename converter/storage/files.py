"""Files that are complete under their final name, or do not exist.

A file is built under a unique temporary name, flushed to the disk, read back and compared, and only
then renamed; then its folder is flushed too. So a final name always means a complete file, even
after a power loss, and two attempts at the same file cannot mix.

An object store shows nothing before it is complete. An object is built in a temporary file of this
machine without a name, which cannot stay behind, and sent in one request.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from converter.errors import OutputError
from converter.sizes import format_bytes
from converter.storage.location import Location

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


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


@contextlib.contextmanager
def create_file(
    path: Location, scratch: Location, *, exclusive: bool = False
) -> Iterator[HashedFile]:
    """Opens a file that appears under `path` when the block ends without an error.

    Args:
        path: the final name; its folder has to exist.
        scratch: folder for the temporary file, on the same file system as `path`.
        exclusive: refuse to replace a file of that name, even one that appears meanwhile.

    Raises:
        OutputError: the file cannot be written, reads back differently from what was written, or
            `exclusive` and there is one already.
        StoreError: the store refuses or does not answer.
    """
    with describe_errors(path), path.create(scratch, exclusive=exclusive) as file:
        yield file


def write_file(path: Location, data: bytes, scratch: Location, *, exclusive: bool = False) -> str:
    """Writes a small file in one go, as `create_file` does; returns its SHA-256."""
    with create_file(path, scratch, exclusive=exclusive) as file:
        file.write(data)
    return file.sha256


@contextlib.contextmanager
def describe_errors(path: Location) -> Iterator[None]:
    """Turns what goes wrong with a file, or its temporary file, into an OutputError."""
    try:
        yield
    except FileExistsError:
        raise OutputError(f"{path} exists already: someone else finished this data set") from None
    except OSError as error:
        raise describe_error(error, path) from error


def describe_error(error: OSError, path: Location) -> OutputError:
    """Says what went wrong with a file that could not be written, and the way out."""
    free = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        folder = path.temporary if path.is_remote else path.parent
        with contextlib.suppress(OSError):
            free = f" ({format_bytes(shutil.disk_usage(str(folder)).free)} free)"
        if path.is_remote:
            free += f" in {folder}, where it is built: set TMPDIR"
    return OutputError(
        f"{error.filename or path} cannot be written or read: {error.strerror}{free}; finished "
        "shards are kept, run the same command again to go on"
    )


def link_file(file: Path, path: Path) -> bool:
    """Gives a file one more name, or raises FileExistsError; False if there are no links here."""
    try:
        os.link(file, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Two callers at the same instant may both find the name free.
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        return False
    return True


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
