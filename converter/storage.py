"""Files on disk: complete under their final name, or not there at all.

A file is built under a unique temporary name, flushed to the disk, read back and compared, and
only then renamed; then the folder is flushed too. So whoever sees a final name sees a whole file,
also after a power loss, and two attempts at the same file cannot mix.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from converter.errors import OutputError
from converter.sizes import format_bytes

_COPY_BYTES: Final = 1 << 20


class HashedFile:
    """A file that is being written, with the SHA-256 and the size of what was written."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "xb", buffering=_COPY_BYTES)  # noqa: SIM115 (closed by `close`)
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def create_file(path: Path, scratch: Path, *, exclusive: bool = False) -> Iterator[HashedFile]:
    """Opens a file that appears under `path` when the block ends without an error.

    Args:
        path: the final name; its folder has to exist.
        scratch: folder for the temporary file, on the same file system as `path`.
        exclusive: refuse to replace a file of that name, also one that appears meanwhile.

    Raises:
        OutputError: the file cannot be written, reads back differently from what was written, or
            `exclusive` and there is one already.
    """
    temporary = scratch / f"{path.name}.{uuid.uuid4().hex}"
    try:
        with contextlib.closing(HashedFile(temporary)) as file:
            yield file
            file.sync()
        if hash_file(temporary) != file.sha256:
            raise OutputError(
                f"{path} reads back differently from what was written: check the disk"
            )
        _publish(temporary, path, exclusive=exclusive)
    except OSError as error:
        raise _describe(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes, scratch: Path, *, exclusive: bool = False) -> str:
    """Writes a small file in one go, as `create_file` does; returns its SHA-256."""
    with create_file(path, scratch, exclusive=exclusive) as file:
        file.write(data)
    return file.sha256


def read_range(path: Path, offset: int, size: int) -> bytes:
    """Reads `size` bytes from `offset`; fewer only where the file ends."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def hash_bytes(data: bytes) -> str:
    """The SHA-256 of some bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal, read in pieces of 1 MiB."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(_COPY_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def link_file(file: Path, path: Path) -> bool:
    """Gives a file one more name; False where the file system has no links.

    Raises:
        FileExistsError: there is a file of that name. Without links, two callers at the same
            instant may both be told that there is none.
        OSError: the link cannot be made.
    """
    try:
        os.link(file, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(temporary: Path, path: Path, *, exclusive: bool) -> None:
    try:
        if not (exclusive and link_file(temporary, path)):
            temporary.replace(path)
    except FileExistsError:
        raise OutputError(f"{path} exists already: somebody else finished this data set") from None
    sync_folder(path.parent)


def _describe(error: OSError, path: Path) -> OutputError:
    free = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError):
            free = f" ({format_bytes(shutil.disk_usage(path.parent).free)} free)"
    return OutputError(
        f"{error.filename or path} cannot be written or read: {error.strerror}{free}; finished "
        "shards are kept, run the same command again to go on"
    )
