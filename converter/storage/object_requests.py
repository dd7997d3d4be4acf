"""Requests about objects, made as often as it takes.

Both kinds of store show an object whole or not at all, so nothing has a temporary name here.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import errno
import itertools
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from converter.storage.listings import list_below
from converter.storage.requests import retry, start, wait
from converter.storage.stores import Body, Stat, Store, Transfer, measure_file, read_parts

if TYPE_CHECKING:  # which is built on these
    from converter.storage.objects import ObjectPath

_SMALL_BYTES: Final = 1 << 20


def read_object(path: ObjectPath) -> bytes:
    """All of an object.

    Raises:
        FileNotFoundError: there is none of that name.
        StoreError: the store does not answer, or refuses.
    """
    return wait(start_read(path))


def read_object_range(path: ObjectPath, offset: int, size: int) -> bytes:
    """Reads `size` bytes from `offset`; fewer only where the object ends.

    Raises:
        FileNotFoundError: there is none of that name.
        StoreError: the store does not answer, or refuses.
    """
    return wait(start_read(path, offset, size))


def start_read(
    path: ObjectPath, offset: int = 0, size: int | None = None, version: str | None = None
) -> concurrent.futures.Future[bytes]:
    """Begins to read an object, or a range of it, and does not wait for it.

    A process has `stores.CONNECTIONS` requests under way; more of them wait here.

    Args:
        path: the object.
        offset: of the first byte.
        size: of the range; None for all that comes.
        version: as `stat_object` gives it, if no other one will do.

    Returns:
        what can be waited for, or cancelled; raises what `read_object_range` raises, and OSError
        with ESTALE where there is another version.
    """
    stop = None if size is None else offset + size
    return start(path.scheme, lambda store: _read(store, path, offset, stop, version))


def download_object(
    path: ObjectPath,
    file: Path,
    *,
    on_bytes: Callable[[int], object] | None = None,
) -> int:
    """Writes an object to a file here; goes on where an earlier call ended.

    What lies in the file already is taken for the object's first bytes: whoever knows a checksum
    compares it afterwards.

    Args:
        path: the object.
        file: new, or what there is of it. It is not flushed to the disk.
        on_bytes: called with the number of bytes that were added, as they come.

    Returns:
        the size of the file.

    Raises:
        FileNotFoundError: there is no object of that name.
        OSError: the file cannot be written.
        StoreError: the store does not answer, or refuses.
    """
    with open(file, "ab") as stream:

        def write(chunk: bytes) -> None:
            stream.write(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))

        transfer = Transfer(write=write, place=stream.tell())
        return wait(start(path.scheme, lambda store: _transfer(store, path, transfer)))


def list_objects(folder: ObjectPath) -> Iterator[tuple[ObjectPath, int]]:
    """All objects below a prefix with their sizes, in the order of their keys, as answers come in.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    for found in list_below(folder.scheme, folder.bucket, folder.prefix):
        if not found.key.endswith("/"):  # what consoles make to show an empty folder
            yield dataclasses.replace(folder, key=found.key), found.size


def find_object(path: ObjectPath) -> int | None:
    """The size of an object in bytes; None if there is none of that name.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    try:
        return stat_object(path).size
    except FileNotFoundError:
        return None


def stat_object(path: ObjectPath) -> Stat:
    """What a store tells about an object.

    Raises:
        FileNotFoundError: there is none of that name.
        StoreError: the store does not answer, or refuses.
    """
    return wait(start(path.scheme, lambda store: _stat(store, path)))


def put_file(path: ObjectPath, file: BinaryIO) -> None:
    """Writes an open file of this machine as an object, which appears whole.

    Raises:
        OSError: the file cannot be read.
        StoreError: the store does not answer, or refuses.
    """
    size = measure_file(file)
    _put(path, file if size > _SMALL_BYTES else b"".join(read_parts(file, _SMALL_BYTES)), size)


def put_bytes(path: ObjectPath, data: bytes) -> None:
    """Writes an object.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    _put(path, data, len(data))


def create_object(path: ObjectPath, data: bytes) -> None:
    """Writes an object if there is none of that name: of several callers, one does.

    Raises:
        FileExistsError: there is one.
        StoreError: the store does not answer, or refuses.
    """
    wait(start(path.scheme, lambda store: _create(store, path, data)))


def copy_object(source: ObjectPath, target: ObjectPath) -> None:
    """Copies an object within a kind of store, without its bytes coming here.

    Raises:
        FileNotFoundError: there is none of that name.
        StoreError: the store does not answer, or refuses.
    """
    wait(_start_copy(source, target))


def copy_objects(pairs: Iterable[tuple[ObjectPath, ObjectPath]]) -> None:
    """Copies objects, many at the same time; raises what `copy_object` raises."""
    for copying in [_start_copy(source, target) for source, target in pairs]:
        wait(copying)


def delete_object(path: ObjectPath) -> None:
    """Deletes an object, if there is one of that name.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    wait(_start_delete(path))


def delete_objects(paths: Iterable[ObjectPath]) -> None:
    """Deletes objects, many at the same time.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    remaining = iter(paths)
    while batch := [_start_delete(path) for path in itertools.islice(remaining, 1000)]:
        for future in batch:
            wait(future)


async def _read(
    store: Store, path: ObjectPath, offset: int, stop: int | None, version: str | None
) -> bytes:
    if stop is not None and stop <= offset:
        return b""
    pieces: list[bytes] = []
    transfer = Transfer(write=pieces.append, place=offset, stop=stop, version=version)
    await _transfer(store, path, transfer)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _transfer(store: Store, path: ObjectPath, transfer: Transfer) -> int:
    async def get() -> None:
        known = transfer.version
        try:
            await store.get(path.bucket, path.key, transfer)
        except EOFError:
            return  # asked for what lies behind the end
        except (FileExistsError, FileNotFoundError) as error:
            if known is None:
                raise
            raise OSError(errno.ESTALE, "it changed while it was read", str(path)) from error

    await retry(path, get, progress=lambda: transfer.place)
    return transfer.place


async def _stat(store: Store, path: ObjectPath) -> Stat:
    return await retry(path, lambda: store.stat(path.bucket, path.key))


def _put(path: ObjectPath, data: Body, size: int) -> None:
    async def put(store: Store) -> None:
        await store.put(path.bucket, path.key, data, None)

    wait(start(path.scheme, lambda store: retry(path, lambda: put(store), size)))


async def _create(store: Store, path: ObjectPath, data: bytes) -> None:
    attempt = uuid.uuid4().hex
    try:
        await retry(path, lambda: store.put(path.bucket, path.key, data, attempt), len(data))
    except FileExistsError:
        # An earlier request of ours may have got through, and its answer not.
        if (await _stat(store, path)).attempt != attempt:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None


def _start_copy(source: ObjectPath, target: ObjectPath) -> concurrent.futures.Future[None]:
    async def copy(store: Store) -> None:
        await store.copy(source.bucket, source.key, target.bucket, target.key)

    return start(source.scheme, lambda store: retry(source, lambda: copy(store)))


def _start_delete(path: ObjectPath) -> concurrent.futures.Future[None]:
    async def delete(store: Store) -> None:
        await store.delete(path.bucket, path.key)

    return start(path.scheme, lambda store: retry(path, lambda: delete(store)))
