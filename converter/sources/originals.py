"""Finds and reads originals where they lie: whole, or only what tells duplicates apart."""

import contextlib
import errno
import functools
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from converter.errors import ImageError
from converter.image_options import MAX_FILE_BYTES, check_file_size
from converter.images.record_images import identify
from converter.inventory import NO_LABEL, Entry, reject
from converter.names import to_bytes, to_system
from converter.sources import archives, containers
from converter.sources.containers import are_read_in_order
from converter.sources.folders import list_prefix, stays_inside
from converter.sources.inputs import is_archive, is_compressed
from converter.storage.location import Location
from converter.storage.stores import CONNECTIONS

Read: TypeAlias = Callable[[], bytes]
"""Gives the content of an original; raises what `read_source` raises."""

Lookup: TypeAlias = Callable[[str], Entry]
"""Finds an image by the path that a row has; raises `ImageError` where there is no image."""

AHEAD_BYTES: Final = 64 << 20  # of originals that are read from a store before they are converted
_PIECE_BYTES: Final = 1 << 20

# Without waiting: a pipe with the name of a file would block until someone writes to it.
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC

# Errors about this machine, not about the image: no reason to reject it.
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Reads(NamedTuple):
    """Pending reads of an original and of its mask, if it has one."""

    image: Read
    mask: Read | None


def read_ahead(
    planned: Iterable[tuple[Entry, str]], images: Location, masks: Location, max_bytes: int
) -> Iterator[tuple[tuple[Entry, str], Reads]]:
    """Pairs each planned image with its pending reads; in a store, the next ones are under way.

    `planned` are entries with the names of their classes, and `images` and `masks` the folders or
    archives that they are relative to. Originals over `max_bytes` are not read ahead.
    """

    def start(item: tuple[Entry, str]) -> Reads:
        mask = item[0].mask
        image = _start_read(item[0], images, max_bytes)
        return Reads(image, _start_read(mask, masks, max_bytes) if mask else None)

    if not (images.is_remote or masks.is_remote):
        # On a disk nothing is under way, and the entries of the next shard may not be readable.
        yield from ((item, start(item)) for item in planned)
        return
    pending: deque[tuple[tuple[Entry, str], Reads]] = deque()
    remaining, ahead = iter(planned), 0
    following = next(remaining, None)
    while pending or following:
        while following and len(pending) < CONNECTIONS and (ahead < AHEAD_BYTES or not pending):
            pending.append((following, start(following)))
            ahead += _count_bytes(following[0])
            following = next(remaining, None)
        item, reads = pending.popleft()
        ahead -= _count_bytes(item[0])
        yield item, reads


def _count_bytes(entry: Entry) -> int:
    return entry.size_bytes + (entry.mask.size_bytes if entry.mask else 0)


def _start_read(entry: Entry, images: Location, max_bytes: int) -> Read:
    if not images.is_remote or entry.size_bytes > max_bytes:
        return functools.partial(read_entry, entry, images)
    if entry.file:
        read = containers.start_part(images, entry)
    elif is_archive(images):
        read = archives.start_member(images, entry.place, entry.size_bytes)
    else:
        read = (images / entry.path).start_read()
    return _describe_errors()(read)


@contextlib.contextmanager
def _describe_errors() -> Iterator[None]:
    """Raises what an `OSError` says about an original; one about this machine stays as it is."""
    try:
        yield
    except FileNotFoundError as error:
        raise reject("vanished") from error
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        if error.errno == errno.ESTALE:
            raise reject("changed") from error
        raise reject("unreadable", str(error.strerror)) from error


def read_entry(entry: Entry, images: Location) -> bytes:
    """Reads the original of an entry; raises what `read_source` raises."""
    if entry.file:
        with _describe_errors():
            return containers.start_part(images, entry)()
    if not is_archive(images):
        return read_source(entry.path, images, max(entry.size_bytes, MAX_FILE_BYTES))
    with _describe_errors():
        return archives.start_member(images, entry.place, entry.size_bytes)()


def read_original(entry: Entry, images: Location, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Reads an original as it is now, whatever its size was; raises what `read_source` raises."""
    if entry.file:
        check_file_size(entry.size_bytes, max_bytes)
        return read_entry(entry, images)
    return read_source(entry.path, images, max_bytes)


def hash_original(entry: Entry, images: Location, max_bytes: int) -> str:
    """The SHA-256 of an original in hexadecimal, as of `identify`.

    Raises what `read_source` raises.
    """
    if entry.file and are_read_in_order([entry], images):
        digest = containers.digest_part(images, entry, 0).hex()
    elif is_compressed(images):
        # All members are hashed in one pass, because each can be read only after those before it.
        digest = archives.digest_members(images).get(entry.path, "")
    else:
        return identify(read_original(entry, images, max_bytes))
    if not digest:
        raise reject("vanished")
    return digest


def read_source(path: str, images: Location, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Reads an original by its path in a folder or an archive.

    Raises ImageError if it is gone, over `max_bytes`, changes while it is read, or cannot be read,
    and OSError if this machine has run out of something.
    """
    with _describe_errors():
        if is_archive(images):
            member = archives.index_archive(images).get(path)
            if member is None:
                raise reject("vanished")
            check_file_size(member.size_bytes, max_bytes)
            return read_entry(member, images)
        if images.is_remote:
            return (images / path).read_bytes()
        return _read_file(_encode_path(path, images), max_bytes)


def _read_file(path: bytes, max_bytes: int) -> bytes:
    descriptor = os.open(path, _FLAGS)
    try:
        # A file that is written to meanwhile would become half an image without a word.
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise reject("unreadable", "not a file")
        check_file_size(before.st_size, max_bytes)
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            data = file.read()
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise reject("changed")
    return data


def _encode_path(path: str, images: Location) -> bytes:
    # Joining with `Path` takes as long as opening the file.
    return _encode_root(images) + to_bytes(path)


@functools.lru_cache(maxsize=16)
def _encode_root(images: Location) -> bytes:
    return os.fsencode(str(images)) + b"/"


def digest_source(entry: Entry, images: Location, end_bytes: int) -> bytes:
    """The SHA-256 of both ends of an original, or of all of it if it has no more, or for 0 bytes.

    It is empty if the original cannot be read now, or has another size.
    """
    if entry.file:
        return containers.digest_part(images, entry, end_bytes)
    if is_archive(images):
        return _digest_archived(entry, images, end_bytes)
    if images.is_remote:
        return _digest_object(images / entry.path, entry.size_bytes, end_bytes)
    # Plain calls, and no more than needed: a million small files must take 20 seconds at most.
    try:
        descriptor = os.open(_encode_path(entry.path, images), _FLAGS)
        try:
            return _digest_file(descriptor, entry.size_bytes, end_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return b""


def _digest_file(descriptor: int, size: int, end_bytes: int) -> bytes:
    if size <= 2 * end_bytes:
        data = os.read(descriptor, size + 1)  # one more shows that the file has grown
        return hashlib.sha256(data).digest() if len(data) == size else b""
    if end_bytes:
        ends = (os.pread(descriptor, end_bytes, at) for at in (0, size - end_bytes))
        return hashlib.sha256(b"".join(ends)).digest()
    return archives.digest_pieces(iter(lambda: os.read(descriptor, _PIECE_BYTES), b""), size)


def _digest_object(path: Location, size: int, end_bytes: int) -> bytes:
    try:
        if end_bytes and size > 2 * end_bytes:
            ends = [path.start_read(at, end_bytes) for at in (0, size - end_bytes)]
            return hashlib.sha256(b"".join(read() for read in ends)).digest()
        return archives.digest_pieces(path.read_pieces(), size)
    except FileNotFoundError:
        return b""


def _digest_archived(entry: Entry, archive: Location, end_bytes: int) -> bytes:
    if is_compressed(archive):
        return bytes.fromhex(archives.digest_members(archive).get(entry.path, ""))
    try:
        if end_bytes and entry.size_bytes > 2 * end_bytes:
            # Not its last bytes: to read those of a zip, all of it has to be inflated.
            data = archives.peek_member(archive, entry.place, end_bytes)
        else:
            data = read_entry(entry, archive)
    except (ImageError, OSError):
        return b""
    return hashlib.sha256(data).digest()


def make_lookup(root: Location) -> Lookup:
    """Makes a function that finds an image in a folder, below a prefix or in an archive.

    It takes a path, as tables have them, and raises `ImageError` where there is no image.
    """
    if not (root.is_remote or is_archive(root)):
        return _look_in_folder(Path(str(root)))
    if is_archive(root):
        find = archives.index_archive(root).__getitem__
    else:
        # Listed once, into about 200 bytes an object: a request for each would take longer.
        sizes = dict(list_prefix(root))

        def find(path: str) -> Entry:
            return Entry(path, NO_LABEL, sizes[path])

    def look_up(path: str) -> Entry:
        try:
            return find(path)
        except KeyError:
            raise reject("missing") from None

    return look_up


def _look_in_folder(root: Path) -> Lookup:
    """Finds images in a folder, without following a link out of it."""
    prefix = os.fsencode(root) + b"/"

    @functools.cache
    def is_inside(folder: str) -> bool:
        try:
            target = (root / to_system(folder)).resolve()
        except (OSError, RuntimeError, ValueError):  # links in a circle, or no name at all
            return False
        return target.is_relative_to(root.resolve())

    def look_up(path: str) -> Entry:
        if not is_inside(path.rpartition("/")[0]):
            raise reject("outside")
        try:
            # `Path.lstat` takes longer than the call itself.
            status = os.lstat(prefix + to_bytes(path))
            if stat.S_ISLNK(status.st_mode):
                file = root / to_system(path)
                status = file.stat()
                if not stays_inside(file, root):
                    raise reject("outside")
        except (FileNotFoundError, ValueError):  # no file has a name with NUL or half a character
            raise reject("missing") from None
        except OSError as error:
            raise reject("unreadable", str(error.strerror)) from error
        if not stat.S_ISREG(status.st_mode):
            raise reject("unreadable", "not a file")
        return Entry(path, NO_LABEL, status.st_size)

    return look_up
