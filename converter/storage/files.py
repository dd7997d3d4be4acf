"""Files on disk and in stores: read, listed, moved and removed in the same way."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from converter.errors import OutputError
from converter.storage import object_files
from converter.storage.layout import Location
from converter.storage.listings import list_level
from converter.storage.objects import (
    ObjectPath,
    copy_objects,
    delete_objects,
    download_object,
    find_object,
    list_objects,
    read_object_range,
    start_read,
    stat_object,
)
from converter.storage.stores import Found

_COPY_BYTES: Final = 1 << 20
_BATCH_FILES: Final = 256
_STORE_THREADS: Final = 16


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


def list_names(folder: Location, prefix: str = "") -> list[str]:
    """What is in a folder, ordered by the bytes of the names; nothing if there is no folder.

    Args:
        folder: which.
        prefix: what the names begin with.

    Raises:
        OSError: it cannot be read.
        StoreError: the store does not answer, or refuses.
    """
    if isinstance(folder, ObjectPath):
        found = {
            prefix + item if isinstance(item, str) else item.key[len(folder.prefix) :]
            for item in list_level(folder.scheme, folder.bucket, folder.prefix + prefix)
        }
    else:
        found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return sorted((name for name in found if name.startswith(prefix)), key=os.fsencode)


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


def remove_folder(folder: Location) -> None:
    """Removes a folder, if there is one, with all that is in it.

    Raises:
        OSError: something cannot be removed.
        StoreError: the store does not answer, or refuses.
    """
    if isinstance(folder, ObjectPath):
        remove_tree(folder)
    elif folder.exists():
        shutil.rmtree(folder)


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
        OutputError: there is no room for them in the folder that `TMPDIR` names.
        StoreError: the store does not answer, or refuses.
    """
    if isinstance(folder, Path):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="shardmill-") as here:
        for name in names:
            if find_object(folder / name) is not None:
                _download(folder / name, Path(here, name))
        yield Path(here)


def _download(path: ObjectPath, here: Path) -> None:
    try:
        download_object(path, here)
    except FileNotFoundError:
        here.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{tempfile.gettempdir()} cannot take what has to be read of {path.parent}: "
            f"{error.strerror}: set TMPDIR to a folder with more room"
        ) from error


def choose_threads(*places: Location | None) -> int | None:
    """How many files are read at the same time: one a core, more if any place is a store."""
    return _STORE_THREADS if any(isinstance(p, ObjectPath) for p in places) else os.cpu_count()


def hash_bytes(data: bytes) -> str:
    """The SHA-256 of some bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Location) -> str:
    """The SHA-256 of a file in hexadecimal, read in pieces of 1 MiB, or of 4 from a store."""
    return hash_pieces(read_pieces(path))


def hash_pieces(pieces: Iterable[bytes]) -> str:
    """The SHA-256 of what some pieces are together, in hexadecimal."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
