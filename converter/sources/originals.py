"""Reads originals from where they lie: whole, or only what tells duplicates apart."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

from converter.errors import ImageError
from converter.image_options import MAX_FILE_BYTES
from converter.inventory import Entry
from converter.names import to_bytes
from converter.reasons import REJECT_CODES
from converter.sources.archives import (
    digest_members,
    find_member,
    is_archive,
    peek_member,
    read_member,
    start_member,
)
from converter.sources.streams import is_compressed
from converter.storage.location import Location
from converter.storage.stores import CONNECTIONS

Read: TypeAlias = Callable[[], bytes]
"""Gives the content of an original; raises what `read_source` raises."""

_AHEAD_BYTES: Final = 64 << 20
"""Of originals that are read from a store before they are converted."""

_PIECE_BYTES: Final = 1 << 20

# Without waiting: a pipe that took a file's name would wait for somebody to write.
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Says something about this machine and nothing about the image: no reason to leave it out."""


class Reads(NamedTuple):
    """What reads an original.

    Attributes:
        image: the original itself.
        mask: that of its mask, if it has one.
    """

    image: Read
    mask: Read | None


def read_ahead(
    planned: Iterable[tuple[Entry, str]], images: Location, masks: Location, max_bytes: int
) -> Iterator[tuple[tuple[Entry, str], Reads]]:
    """Gives each planned image with what reads it; from a store, what comes next is on its way.

    Args:
        planned: entries with the names of their classes.
        images: the folder that they are relative to, or the archive that they lie in.
        masks: the same of their masks.
        max_bytes: larger ones are not read before they are asked for.
    """
    if not (images.is_remote or masks.is_remote):
        for item in planned:
            yield item, _start_both(item[0], images, masks, max_bytes)
        return
    pending: deque[tuple[tuple[Entry, str], Reads]] = deque()
    remaining, ahead = iter(planned), 0
    following = next(remaining, None)
    while pending or following:
        while following and len(pending) < CONNECTIONS and (ahead < _AHEAD_BYTES or not pending):
            pending.append((following, _start_both(following[0], images, masks, max_bytes)))
            ahead += _count_bytes(following[0])
            following = next(remaining, None)
        item, reads = pending.popleft()
        ahead -= _count_bytes(item[0])
        yield item, reads


def _count_bytes(entry: Entry) -> int:
    return entry.size_bytes + (entry.mask.size_bytes if entry.mask else 0)


def _start_both(entry: Entry, images: Location, masks: Location, max_bytes: int) -> Reads:
    mask = entry.mask
    return Reads(_start(entry, images, max_bytes), _start(mask, masks, max_bytes) if mask else None)


def _start(entry: Entry, images: Location, max_bytes: int) -> Read:
    if not images.is_remote or entry.size_bytes > max_bytes:
        return functools.partial(read_entry, entry, images)
    if is_archive(images):
        return _guard(start_member(images, entry.place, entry.size_bytes))
    return _guard((images / entry.path).start_read().result)


def _guard(reading: Read) -> Read:
    """What tells errors of reading as those of an original."""

    def read() -> bytes:
        try:
            return reading()
        except OSError as error:
            raise _describe(error) from error

    return read


def read_entry(entry: Entry, images: Location) -> bytes:
    """Reads the original of an entry; arguments and errors are those of `read_source`."""
    if not is_archive(images):
        return read_source(entry.path, images, max(entry.size_bytes, MAX_FILE_BYTES))
    try:
        return read_member(images, entry.place, entry.size_bytes)
    except OSError as error:
        raise _describe(error) from error


def read_source(path: str, images: Location, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Reads an original by its path alone.

    Args:
        path: as in `Entry.path`.
        images: the folder that it is relative to, or the archive that it lies in.
        max_bytes: what is larger is not read.

    Raises:
        ImageError: it is gone, too large, changes while it is read, or cannot be read.
        OSError: this machine has run out of something.
        StoreError: the store that they lie in does not answer, or refuses.
    """
    if is_archive(images):
        return _read_archived(path, images, max_bytes)
    if images.is_remote:
        return _guard((images / path).read_bytes)()
    try:
        descriptor = os.open(_locate(path, images), _FLAGS)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise ImageError("unreadable", "not a file")
            _check_size(before.st_size, max_bytes)
            with open(descriptor, "rb", buffering=0, closefd=False) as file:
                data = file.read()
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _describe(error) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ImageError("changed", REJECT_CODES["changed"])
    return data


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ImageError("too_many_bytes", f"{size:,} bytes, at most {max_bytes:,}")


def _read_archived(path: str, archive: Location, max_bytes: int) -> bytes:
    try:
        member = find_member(archive, path)
        if member is None:
            raise ImageError("vanished", REJECT_CODES["vanished"])
        _check_size(member.size, max_bytes)
        return read_member(archive, member.place, member.size)
    except OSError as error:
        raise _describe(error) from error


def _describe(error: OSError) -> Exception:
    """What an error says of an original; or the error itself, if it is about this machine."""
    if isinstance(error, FileNotFoundError):
        return ImageError("vanished", REJECT_CODES["vanished"])
    if error.errno == errno.ESTALE:
        return ImageError("changed", REJECT_CODES["changed"])
    if error.errno in _EXHAUSTED:
        return error
    return ImageError("unreadable", str(error.strerror))


def digest_source(entry: Entry, images: Location, end_bytes: int) -> bytes:
    """A hash of so many bytes at both ends of an original, or of all of it.

    Args:
        entry: the original.
        images: the folder that it is relative to.
        end_bytes: of each end; 0 for all of it, and so it is if there are no more.

    Returns:
        the hash; nothing if the original cannot be read now, or has another size.

    Raises:
        OSError: this machine has run out of something.
    """
    if is_archive(images):
        return _digest_archived(entry, images, end_bytes)
    if images.is_remote:
        return _digest_object(images / entry.path, entry.size_bytes, end_bytes)
    # Plain calls, and none that could be left out: a million small files are to take 20 seconds.
    try:
        descriptor = os.open(_locate(entry.path, images), _FLAGS)
        try:
            return _digest(descriptor, entry.size_bytes, end_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return b""


def _digest(descriptor: int, size: int, end_bytes: int) -> bytes:
    if size <= 2 * end_bytes:
        data = os.read(descriptor, size + 1)
        return hashlib.sha256(data).digest() if len(data) == size else b""
    if end_bytes:
        ends = (os.pread(descriptor, end_bytes, at) for at in (0, size - end_bytes))
        return hashlib.sha256(b"".join(ends)).digest()
    state, read = hashlib.sha256(), 0
    while piece := os.read(descriptor, _PIECE_BYTES):
        state.update(piece)
        read += len(piece)
        if read > size:
            break
    return state.digest() if read == size else b""


def _digest_object(path: Location, size: int, end_bytes: int) -> bytes:
    state, read = hashlib.sha256(), 0
    try:
        if end_bytes and size > 2 * end_bytes:
            ends = [path.start_read(at, end_bytes) for at in (0, size - end_bytes)]
            return hashlib.sha256(b"".join(end.result() for end in ends)).digest()
        for piece in path.read_pieces():
            state.update(piece)
            read += len(piece)
    except FileNotFoundError:
        return b""
    return state.digest() if read == size else b""


def _digest_archived(entry: Entry, archive: Location, end_bytes: int) -> bytes:
    if is_compressed(archive):
        return bytes.fromhex(digest_members(archive).get(entry.path, ""))
    try:
        if end_bytes and entry.size_bytes > 2 * end_bytes:
            # Not the end of it, which in a zip takes all of it.
            data = peek_member(archive, entry.place, end_bytes)
        else:
            data = read_entry(entry, archive)
    except (ImageError, OSError):
        return b""
    return hashlib.sha256(data).digest()


def _locate(path: str, images: Location) -> bytes:
    # Not with `Path`, which takes as long as to open the file.
    return os.fsencode(str(images)) + b"/" + to_bytes(path)
