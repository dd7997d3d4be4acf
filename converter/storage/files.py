"""Files on disk and in stores: complete under their final name, or not there at all.

A file is built under a unique temporary name, flushed to the disk, read back and compared, and
only then renamed; then the folder is flushed too. So whoever sees a final name sees a whole file,
also after a power loss, and two attempts at the same file cannot mix.

In an object store nothing is there before it is whole. What is to go there is built in a temporary
file here, which has no name and so cannot stay behind, and sent in one request.

This is the one place that asks whether something lies here or in a store.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, cast

from converter.errors import OutputError
from converter.sizes import format_bytes
from converter.storage import object_files
from converter.storage.layout import Location
from converter.storage.listings import list_level
from converter.storage.objects import (
    ObjectPath,
    copy_objects,
    create_object,
    delete_objects,
    download_object,
    find_object,
    list_objects,
    put_file,
    read_object_range,
    start_read,
    stat_object,
)
from converter.storage.stores import Found, read_parts

_COPY_BYTES: Final = 1 << 20
_BATCH_FILES: Final = 256
_STORE_THREADS: Final = 16


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
        _compare(file, _hash_pieces(read_parts(stream, _COPY_BYTES)), path)
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


def open_file(path: Location) -> BinaryIO:
    """Opens a file for reading; of a store, what comes next is on its way.

    Raises:
        OSError: it is not there, or cannot be opened.
        StoreError: the store does not answer, or refuses.
    """
    if isinstance(path, ObjectPath):
        return object_files.open_object(path)
    return open(path, "rb")


def read_version(path: Location) -> tuple[int, str]:
    """The size of a file, and what changes when it is written.

    Raises:
        OSError: it cannot be told.
        StoreError: the store does not answer, or refuses.
    """
    if isinstance(path, ObjectPath):
        found = stat_object(path)
        return found.size, found.version
    status = path.stat()
    return status.st_size, str(status.st_mtime_ns)


def read_range(path: Location, offset: int, size: int) -> bytes:
    """Reads `size` bytes from `offset`; fewer only where the file ends."""
    if isinstance(path, ObjectPath):
        return read_object_range(path, offset, size)
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def read_pieces(path: Location) -> Iterator[bytes]:
    """A file from its beginning to its end, in pieces of 1 MiB, or of 4 from a store."""
    if isinstance(path, ObjectPath):
        yield from object_files.read_pieces(path)
        return
    with open(path, "rb") as file:
        while piece := file.read(_COPY_BYTES):
            yield piece


def read_files(paths: Sequence[Location]) -> Iterator[bytes]:
    """The content of small files, in order; those of a store are fetched at the same time.

    Raises:
        OSError: one cannot be read.
        StoreError: the store does not answer, or refuses.
    """
    remaining = iter(paths)
    while batch := list(itertools.islice(remaining, _BATCH_FILES)):
        reads = [start_read(path) if isinstance(path, ObjectPath) else path for path in batch]
        yield from (
            read.read_bytes() if isinstance(read, Path) else read.result() for read in reads
        )


def measure_file(path: Location) -> int | None:
    """The size of a file in bytes; None if there is none of that name, or it is no file.

    Raises:
        OSError: it cannot be told.
        StoreError: the store does not answer, or refuses.
    """
    if isinstance(path, ObjectPath):
        return find_object(path)
    return path.stat().st_size if path.is_file() else None


def list_sizes(folder: Location) -> dict[str, int]:
    """The files in a folder by their names, with their sizes in bytes; none if there is no folder.

    Raises:
        OSError: it cannot be read.
        StoreError: the store does not answer, or refuses.
    """
    if isinstance(folder, ObjectPath):
        return {
            item.key[len(folder.prefix) :]: item.size
            for item in list_level(folder.scheme, folder.bucket, folder.prefix)
            if isinstance(item, Found)
        }
    try:
        with os.scandir(folder) as items:
            return {item.name: item.stat().st_size for item in items if item.is_file()}
    except FileNotFoundError:
        return {}


def list_names(folder: Location) -> list[str]:
    """What is in a folder, ordered by the bytes of the names; nothing if there is no folder.

    Raises:
        OSError: it cannot be read.
        StoreError: the store does not answer, or refuses.
    """
    if isinstance(folder, ObjectPath):
        found = {
            item if isinstance(item, str) else item.key[len(folder.prefix) :]
            for item in list_level(folder.scheme, folder.bucket, folder.prefix)
        }
    else:
        found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return sorted(found, key=os.fsencode)


def remove_files(paths: Iterable[Location]) -> None:
    """Removes files, as far as they are there.

    Raises:
        OSError: one cannot be removed.
        StoreError: the store does not answer, or refuses.
    """
    chosen = list(paths)
    delete_objects(path for path in chosen if isinstance(path, ObjectPath))
    for path in chosen:
        if isinstance(path, Path):
            path.unlink(missing_ok=True)


def remove_tree(folder: Location, *, keep: Collection[str] = ()) -> None:
    """Removes what is in a folder.

    Args:
        folder: which; it stays, empty.
        keep: names of what is in it and stays.

    Raises:
        OSError: something cannot be removed.
        StoreError: the store does not answer, or refuses.
    """
    if isinstance(folder, ObjectPath):
        paths = (info.path for info in list_objects(folder))
        delete_objects(path for path in paths if path.relative_to(folder) not in keep)
        return
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def move_files(names: Iterable[str], source: Location, target: Location) -> None:
    """Moves files from a folder into another one like it, over what is there.

    Raises:
        OSError: one cannot be moved.
        StoreError: the store does not answer, or refuses.
    """
    chosen = list(names)
    if isinstance(source, ObjectPath) and isinstance(target, ObjectPath):
        copy_objects((source / name, target / name) for name in chosen)
        delete_objects(source / name for name in chosen)
        return
    for name in chosen:
        Path(str(source), name).replace(Path(str(target), name))
    sync_folder(Path(str(target)))


@contextlib.contextmanager
def bring_here(folder: Location, names: Iterable[str]) -> Iterator[Path]:
    """A folder of this machine with some files of another one; those that are missing are not.

    Raises:
        OSError: there is no room for them.
        StoreError: the store does not answer, or refuses.
    """
    if isinstance(folder, Path):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="shardmill-") as here:
        for name in names:
            if find_object(folder / name) is not None:
                download_object(folder / name, Path(here, name))
        yield Path(here)


def choose_threads(*places: Location | None) -> int | None:
    """How many files are read at the same time: one a core, more if any place is a store."""
    return _STORE_THREADS if any(isinstance(p, ObjectPath) for p in places) else os.cpu_count()


def hash_bytes(data: bytes) -> str:
    """The SHA-256 of some bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Location) -> str:
    """The SHA-256 of a file in hexadecimal, read in pieces of 1 MiB, or of 4 from a store."""
    return _hash_pieces(read_pieces(path))


def _hash_pieces(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
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
