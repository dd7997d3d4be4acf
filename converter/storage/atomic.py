"""Files that are complete under their final name, or not there at all.

A file is built under a unique temporary name, flushed to the disk, read back and compared, and
only then renamed; then the folder is flushed too. So whoever sees a final name sees a whole file,
also after a power loss, and two attempts at the same file cannot mix.

In an object store nothing is there before it is whole. What is to go there is built in a temporary
file here, which has no name and so cannot stay behind, and sent in one request.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

from converter.errors import OutputError
from converter.sizes import format_bytes
from converter.storage.files import hash_file, hash_pieces, sync_folder
from converter.storage.layout import Location
from converter.storage.objects import ObjectPath, create_object, put_file
from converter.storage.stores import read_parts

_COPY_BYTES: Final = 1 << 20


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

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


@contextlib.contextmanager
def create_file(
    path: Location, scratch: Location, *, exclusive: bool = False
) -> Iterator[HashedFile]:
    """Opens a file that appears under `path` when the block ends without an error.

    Args:
        path: the final name; its folder has to exist.
        scratch: folder for the temporary file, on the same file system as `path`; in a store, that
            of this machine serves.
        exclusive: refuse to replace a file of that name, also one that appears meanwhile.

    Raises:
        OutputError: the file cannot be written, reads back differently from what was written, or
            `exclusive` and there is one already.
        StoreError: the store does not answer, or refuses.
    """
    try:
        with (
            _create_object(path, exclusive=exclusive)
            if isinstance(path, ObjectPath)
            else _create_file(path, Path(str(scratch)), exclusive=exclusive)
        ) as file:
            yield file
    except FileExistsError:
        raise OutputError(f"{path} exists already: somebody else finished this data set") from None
    except OSError as error:
        raise _describe(error, path) from error


@contextlib.contextmanager
def _create_file(path: Path, scratch: Path, *, exclusive: bool) -> Iterator[HashedFile]:
    temporary = scratch / f"{path.name}.{uuid.uuid4().hex}"
    try:
        with open(temporary, "xb", buffering=_COPY_BYTES) as stream:
            file = HashedFile(stream)
            yield file
            file.sync()
        _compare(file, hash_file(temporary), path)
        _publish(temporary, path, exclusive=exclusive)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path, *, exclusive: bool) -> None:
    if not (exclusive and link_file(temporary, path)):
        temporary.replace(path)
    sync_folder(path.parent)


@contextlib.contextmanager
def _create_object(path: ObjectPath, *, exclusive: bool) -> Iterator[HashedFile]:
    with tempfile.TemporaryFile(buffering=_COPY_BYTES) as temporary:
        stream = cast("BinaryIO", temporary)
        file = HashedFile(stream)
        yield file
        stream.flush()
        _compare(file, hash_pieces(read_parts(stream, _COPY_BYTES)), path)
        if exclusive:
            create_object(path, b"".join(read_parts(stream, _COPY_BYTES)))
        else:
            put_file(path, stream)


def _compare(file: HashedFile, sha256: str, path: Location) -> None:
    if sha256 != file.sha256:
        raise OutputError(f"{path} reads back differently from what was written: check the disk")


def write_file(path: Location, data: bytes, scratch: Location, *, exclusive: bool = False) -> str:
    """Writes a small file in one go, as `create_file` does; returns its SHA-256."""
    with create_file(path, scratch, exclusive=exclusive) as file:
        file.write(data)
    return file.sha256


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


@contextlib.contextmanager
def describe_errors(path: Location) -> Iterator[None]:
    """Tells what went wrong with a temporary file of `path` as `create_file` does."""
    try:
        yield
    except OSError as error:
        raise _describe(error, path) from error


def _describe(error: OSError, path: Location) -> OutputError:
    free = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        folder = path.parent if isinstance(path, Path) else tempfile.gettempdir()
        with contextlib.suppress(OSError):
            free = f" ({format_bytes(shutil.disk_usage(folder).free)} free)"
        if isinstance(path, ObjectPath):
            free += f" in {folder}, where it is built: set TMPDIR"
    return OutputError(
        f"{error.filename or path} cannot be written or read: {error.strerror}{free}; finished "
        "shards are kept, run the same command again to go on"
    )
