"""Files that are complete under their final name, or not there at all.

A file is built under a unique temporary name, flushed to the disk, read back and compared, and only
then renamed; then the folder is flushed too. So a final name always means a whole file, also after
a power loss, and two attempts at the same file cannot mix.

In an object store nothing is visible before it is whole. What goes there is built in a temporary
file of this machine without a name, which cannot stay behind, and sent in one request.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from converter.errors import OutputError
from converter.sizes import format_bytes
from converter.storage.hashing import HashedFile
from converter.storage.location import Location

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


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
        with path.create(scratch, exclusive=exclusive) as file:
            yield file
    except FileExistsError:
        raise OutputError(f"{path} exists already: somebody else finished this data set") from None
    except OSError as error:
        raise describe_error(error, path) from error


def write_file(path: Location, data: bytes, scratch: Location, *, exclusive: bool = False) -> str:
    """Writes a small file in one go, as `create_file` does; returns its SHA-256."""
    with create_file(path, scratch, exclusive=exclusive) as file:
        file.write(data)
    return file.sha256


@contextlib.contextmanager
def describe_errors(path: Location) -> Iterator[None]:
    """Raises what goes wrong with a temporary file of `path` as `create_file` does."""
    try:
        yield
    except OSError as error:
        raise describe_error(error, path) from error


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
        if error.errno not in _NO_LINKS:
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


def describe_error(error: OSError, path: Location) -> OutputError:
    """What went wrong with a file that was to be written, and the way out."""
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
