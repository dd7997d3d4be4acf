"""Requests about objects, each repeated until it is answered, and an object as a file.

Stores show an object whole or not at all, so objects need no temporary names. All functions raise
`FileNotFoundError` for an object that does not exist, and `StoreError` if the store refuses or does
not answer.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import errno
import functools
import itertools
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from converter.names import to_bytes
from converter.storage.requests import start, wait
from converter.storage.stores import SeekableFile, Stat, Store, Transfer, measure_file, read_parts

if TYPE_CHECKING:  # which is built on these
    from converter.storage.objects import ObjectPath
    from converter.storage.stores import Body, Page

PIECE_BYTES: Final = 4 << 20
_SMALL_BYTES: Final = 1 << 20
# Requests that wait for their turn; each takes some 10 kB.
_STARTED: Final = 1000
# Parts of a listing that are requested before they are needed.
_AHEAD: Final = 16
# What a file requests after a jump.
_FIRST_BYTES: Final = 1 << 16
# In flight, at most, beside the piece that is being read.
_AHEAD_BYTES: Final = 32 << 20
# How many times what was read in one go is requested ahead.
_GROWTH: Final = 4
# Gaps up to here are read and dropped: they arrive sooner than one more answer would.
_GAP_BYTES: Final = 4 << 20


def start_read(
    path: ObjectPath, offset: int = 0, size: int | None = None, version: str | None = None
) -> concurrent.futures.Future[bytes]:
    """Starts to read a range, or all that follows; gives fewer bytes only where the object ends.

    With a `version`, as `stat_object` gives it, any other is an OSError with ESTALE.
    """
    pieces: list[bytes] = []
    stop = None if size is None else offset + size
    transfer = Transfer(write=pieces.append, place=offset, stop=stop, version=version)

    async def read(store: Store) -> bytes:
        if size is None or size > 0:
            await _receive(path, transfer, store)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    return start(path, read, progress=lambda: transfer.place)


def download_object(path: ObjectPath, file: Path, on_bytes: Callable[[int], object]) -> int:
    """Appends to a file what it does not have yet of an object; see `Location.download`."""
    with open(file, "ab") as stream:

        def write(chunk: bytes) -> None:
            stream.write(chunk)
            on_bytes(len(chunk))

        transfer = Transfer(write=write, place=stream.tell())
        receive = functools.partial(_receive, path, transfer)
        wait(start(path, receive, progress=lambda: transfer.place))
        return transfer.place


async def _receive(path: ObjectPath, transfer: Transfer, store: Store) -> None:
    known = transfer.version
    try:
        await store.get(path.bucket, path.key, transfer)
    except EOFError:
        return  # the range lies behind the end
    # For another version S3 answers 412, and Google 404.
    except (FileExistsError, FileNotFoundError) as error:
        if known is None:
            raise
        raise OSError(errno.ESTALE, "it changed while it was read", str(path)) from error


def stat_object(path: ObjectPath) -> Stat:
    """Asks for the size and version of an object."""
    return wait(start(path, lambda store: store.stat(path.bucket, path.key)))


def put_object(path: ObjectPath, data: Body, attempt: str | None = None) -> str:
    """Writes bytes, or an open file, as an object; with `attempt`, as `Store.put` does.

    Returns its tag. Raises OSError if the file cannot be read.
    """
    size = len(data) if isinstance(data, bytes) else measure_file(data)
    if not isinstance(data, bytes) and size <= _SMALL_BYTES:
        data = b"".join(read_parts(data, _SMALL_BYTES))
    put = start(path, lambda store: store.put(path.bucket, path.key, data, attempt), size=size)
    return wait(put)


def create_object(path: ObjectPath, data: bytes) -> None:
    """Writes an object, or raises FileExistsError if there is one: one of many callers succeeds."""
    attempt = uuid.uuid4().hex
    try:
        put_object(path, data, attempt)
    except FileExistsError:
        # An earlier request of ours may have succeeded, and its answer been lost.
        if stat_object(path).attempt != attempt:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None


def copy_objects(pairs: Iterable[tuple[ObjectPath, ObjectPath]]) -> None:
    """Copies objects within a kind of store, many at the same time."""

    def start_copy(source: ObjectPath, target: ObjectPath) -> concurrent.futures.Future[None]:
        return start(
            source,
            lambda store: store.copy(source.bucket, source.key, target.bucket, target.key),
        )

    _wait_for_all(itertools.starmap(start_copy, pairs))


def delete_objects(paths: Iterable[ObjectPath]) -> None:
    """Deletes objects, as far as they exist, many at the same time."""

    def start_delete(path: ObjectPath) -> concurrent.futures.Future[None]:
        return start(path, lambda store: store.delete(path.bucket, path.key))

    _wait_for_all(map(start_delete, paths))


def _wait_for_all(requests: Iterator[concurrent.futures.Future[None]]) -> None:
    """Waits for requests, each of which starts when it is taken, and holds a few of them."""
    while batch := [*itertools.islice(requests, _STARTED)]:
        for request in batch:
            wait(request)


def has_objects(folder: ObjectPath) -> bool:
    """Asks whether there are objects below a prefix."""
    page = wait(_start_page(folder, folder.prefix, nested=False))
    return bool(page.objects or page.prefixes)


def list_level(folder: ObjectPath, prefix: str = "") -> Iterator[tuple[str, int | None]]:
    """Yields the names right below a folder that begin with `prefix`, each with a size in bytes.

    The size is None if there are objects below that name.
    """
    return ((name, size) for name, size, _ in list_tagged(folder, prefix))


def list_tagged(folder: ObjectPath, prefix: str = "") -> Iterator[tuple[str, int | None, str]]:
    """Does what `list_level` does, with the tag of each object, as `Store.put` returns it."""
    skipped = len(folder.prefix)
    for page in _list_pages(folder, folder.prefix + prefix, nested=False):
        for key, size in page.objects.items():
            yield key[skipped:], size, page.tags.get(key, "")
        yield from ((deeper[skipped:].rstrip("/"), None, "") for deeper in page.prefixes)


def list_objects(folder: ObjectPath) -> Iterator[tuple[ObjectPath, int]]:
    """Lists all objects below a prefix with their sizes, by key, as answers arrive."""
    for page in _list_pages(folder, folder.prefix, nested=False):
        for key, size in _expand(folder, page):
            yield dataclasses.replace(folder, key=key), size


def list_versions(
    folder: ObjectPath, after: str, until: str | None, on_version: Callable[[str], object]
) -> Iterator[tuple[str, int]]:
    """Lists objects below a prefix whose rest of the key is in a range; calls with versions.

    The range is behind `after` and up to `until`, or to the end. Yields the rest of each key, and
    the size, in order.
    """
    skipped = len(folder.prefix)
    begin = folder.prefix + after if after else ""
    end = None if until is None else to_bytes(folder.prefix + until)
    for page in _list_pages(folder, folder.prefix, nested=True, after=begin, until=end):
        for key, size in page.objects.items():
            name = key[skipped:]
            # By bytes: Python's order is another one where names are not UTF-8.
            if end is not None and to_bytes(key) > end:
                return
            if to_bytes(name) > to_bytes(after):
                on_version(page.versions.get(key, ""))
                yield name, size


def probe_keys(folder: ObjectPath, prefix: str, after: str, most: int) -> tuple[list[str], bool]:
    """The next keys below a folder that begin with `prefix`, from about `after` on.

    Returns the rests of up to `most` keys in order, 1,000 at most, and whether more of them follow.
    """
    skipped = len(folder.prefix)
    begin = folder.prefix + after if after else ""
    page = wait(_start_page(folder, folder.prefix + prefix, nested=True, after=begin, most=most))
    return [key[skipped:] for key in page.objects], page.token is not None


def _expand(folder: ObjectPath, page: Page) -> Iterator[tuple[str, int]]:
    """Yields the objects of a page and all below its prefixes, by key."""
    # Why not simply list all? An answer has up to 1000 objects, and only it tells how to ask for
    # the next one: a million objects would take a thousand round trips in a row. Prefixes, such as
    # the folders of classes, are listed at the same time.
    objects, prefixes = deque(page.objects.items()), deque(page.prefixes)
    ahead: deque[concurrent.futures.Future[Page]] = deque()
    try:
        for prefix in page.prefixes:
            while prefixes and len(ahead) < _AHEAD:
                ahead.append(_start_page(folder, prefixes.popleft(), nested=True))
            while objects and objects[0][0] < prefix:
                yield objects.popleft()
            for inner in _list_pages(folder, prefix, nested=True, first=ahead.popleft()):
                yield from inner.objects.items()
        yield from objects
    finally:
        for future in ahead:
            future.cancel()


def _list_pages(
    folder: ObjectPath,
    prefix: str,
    *,
    nested: bool,
    first: concurrent.futures.Future[Page] | None = None,
    after: str = "",
    until: bytes | None = None,
) -> Iterator[Page]:
    """Yields the pages of a listing up to a key; the next one is requested before one is used."""
    following = first or _start_page(folder, prefix, nested=nested, after=after)
    try:
        while True:
            page = wait(following)
            last = to_bytes(next(reversed(page.objects), ""))
            is_last = page.token is None or (until is not None and last > until)
            if not is_last:
                following = _start_page(
                    folder, prefix, nested=nested, token=page.token, after=after
                )
            # Consoles show an empty folder by an object whose key ends in a slash.
            shown = {key: size for key, size in page.objects.items() if not key.endswith("/")}
            yield page._replace(objects=shown)
            if is_last:
                return
    finally:
        following.cancel()


def _start_page(
    folder: ObjectPath, prefix: str, *, nested: bool, token: str | None = None, **more: Any
) -> concurrent.futures.Future[Page]:
    return start(
        dataclasses.replace(folder, key=prefix),
        lambda store: store.list(folder.bucket, prefix, nested=nested, token=token, **more),
    )


class ObjectFile(SeekableFile):
    """An object opened for reading; raises OSError with ESTALE once the object has changed."""

    # The further a reader has gone forward, the more of what follows is requested early. After a
    # jump, little is requested, so that it arrives soon.

    def __init__(self, path: ObjectPath) -> None:
        size, self._version, _ = stat_object(path)
        super().__init__(size)
        self._path = path
        self._run = self._asked = 0  # bytes read since the last jump; where requests end
        self._begin, self._data = 0, b""
        # Where each requested piece begins, its size, and its bytes on their way.
        self._pending: deque[tuple[int, int, concurrent.futures.Future[bytes]]] = deque()

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
        begin, size, reading = self._pending.popleft()
        # Together, because the wait may fail, and then the old piece must stay where it was.
        self._begin, self._data = begin, wait(reading)
        if len(self._data) != size:
            raise OSError(errno.ESTALE, "it changed while it was read", str(self._path))
        self._run += size
        if not jumped:
            self._request()

    def _request(self) -> None:
        # Pieces ahead, and at least the one that is read next.
        ahead = min(_GROWTH * self._run, _AHEAD_BYTES)
        most = min(PIECE_BYTES, max(_FIRST_BYTES, ahead))
        used = self._begin + len(self._data) if self._run else self._place
        while self._asked < self._size and (not self._pending or self._asked < used + ahead):
            size = min(most, self._size - self._asked)
            reading = start_read(self._path, self._asked, size, self._version)
            self._pending.append((self._asked, size, reading))
            self._asked += size

    def _cancel(self) -> None:
        for *_, reading in self._pending:
            reading.cancel()
        self._pending.clear()
