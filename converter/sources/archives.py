"""Images in an archive, read where they lie: tar, tars in a tar, and zip; nothing is unpacked.

A member is found by the place of its header in the file, so that a worker reads exactly the bytes
of an image, also of an archive in a store. Nothing in a header is believed: names that lead out of
the archive, links, devices and what is encrypted are left out, and no more is inflated than the
size that is stated.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import struct
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Final

from converter.errors import ImageError, UsageError
from converter.inventory import SKIP_RULES, Entry, Skipped
from converter.names import to_bytes
from converter.sources.folders import has_image_suffix, is_clutter, is_named
from converter.sources.members import Member
from converter.sources.streams import (
    BROKEN,
    CURSOR,
    FREE_BYTES,
    MAX_RATIO,
    OPENERS,
    is_compressed,
    open_stream,
)
from converter.sources.tars import BLOCK, check_header, check_member, list_tar
from converter.sources.zips import bound_zipped, list_zip, peek_zipped, read_zipped
from converter.storage.location import Location

SUFFIXES: Final = (".tar", ".zip")

_PIECE_BYTES: Final = 1 << 20

_once: Final = threading.RLock()
"""Whatever looks through a whole archive: of many threads that want to know, one does it."""


def is_archive(path: Location) -> bool:
    """Whether a path is that of an archive, by its name."""
    return is_named(path, (*SUFFIXES, *OPENERS))


def list_archive(
    archive: Location, skipped: list[Skipped]
) -> tuple[list[Entry], dict[str, list[str]]]:
    """The images of an archive, ordered by the bytes of their paths, and its folders.

    Args:
        archive: its path.
        skipped: takes everything else.

    Raises:
        UsageError: it cannot be read as an archive.
    """
    found: dict[str, Entry] = {}
    folders: dict[str, dict[str, None]] = {}
    for member in read_members(archive):
        names = member.path.split("/")
        if not member.code and not any(map(is_clutter, names)):
            _note_folders(names if member.is_folder else names[:-1], folders)
        if member.is_folder:
            continue
        if skip := _judge(member, names):
            skipped.append(skip)
        else:
            if member.path in found:  # as with tar, the last one counts
                code = "skipped_repeated"
                skipped.append(Skipped(member.path, code, SKIP_RULES[code]))
            found[member.path] = Entry(member.path, 0, member.size, place=member.place)
    entries = sorted(found.values(), key=lambda entry: to_bytes(entry.path))
    ordered = {top: sorted(folders[top], key=to_bytes) for top in sorted(folders, key=to_bytes)}
    return entries, ordered


def read_members(archive: Location) -> Iterator[Member]:
    """All members of an archive in their order, those of inner tars in the place of each.

    Raises:
        UsageError: it cannot be read as an archive.
    """
    try:
        packed, _ = archive.read_version()
        compressed = is_compressed(archive)
        CURSOR.close()
        with open_stream(archive) if compressed else archive.open_read() as file:
            if _is_zip(archive):
                yield from list_zip(file, archive.name)
            else:
                yield from list_tar(file, FREE_BYTES + MAX_RATIO * packed if compressed else packed)
    except FileNotFoundError:
        raise UsageError(f"{archive} does not exist: give an archive of images") from None
    except (OSError, tarfile.TarError, struct.error, zlib.error, ValueError, *BROKEN) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{archive} cannot be read as an archive: {reason}") from error


def read_member(archive: Location, place: int, size: int) -> bytes:
    """Reads the member whose header begins at a place.

    Args:
        archive: its path.
        place: as in `Entry.place`.
        size: as in `Entry.size_bytes`; so much memory it takes.

    Raises:
        ImageError: there is another member now, or it is damaged.
        OSError: the archive cannot be read.
        StoreError: the store that it lies in does not answer, or refuses.
    """
    if is_compressed(archive):
        try:
            data = CURSOR.read(archive, place, BLOCK + size)
        except (zlib.error, *BROKEN) as error:
            raise _describe_damage(error) from error
        return check_member(data, size)
    return start_member(archive, place, size)()


def start_member(archive: Location, place: int, size: int) -> Callable[[], bytes]:
    """Begins to read a member, of an archive in a store with one request, and does not wait for it.

    Returns:
        what gives it; raises what `read_member` raises.
    """
    if is_compressed(archive):
        return functools.partial(read_member, archive, place, size)
    if not _is_zip(archive):
        reading = archive.start_read(place, BLOCK + size)
        return lambda: check_member(reading.result(), size)
    if not archive.is_remote:
        return functools.partial(_read_zipped, archive, place, size)
    reading = archive.start_read(place, bound_zipped(size))

    def read() -> bytes:
        data = reading.result()
        try:
            return read_zipped(io.BytesIO(data), 0, size)
        except ImageError:
            if len(data) < bound_zipped(size):
                raise
        return _read_zipped(archive, place, size)  # its header is an odd one, or it is damaged

    return read


def _read_zipped(archive: Location, place: int, size: int) -> bytes:
    with archive.open_read() as file:
        return read_zipped(file, place, size)


def digest_members(archive: Location) -> dict[str, str]:
    """The SHA-256 of every image of a compressed archive, by its path, in one reading of it.

    Memory is bounded by 1 MiB, whatever the size of a member.

    Raises:
        UsageError: it cannot be read as an archive.
    """
    version = archive.read_version()
    with _once:
        return _digest_all(archive, version)


@functools.lru_cache(maxsize=1)
def _digest_all(archive: Location, version: tuple[int, str]) -> dict[str, str]:
    digests = {}
    for path, member in _index_archive(archive, version).items():
        with contextlib.suppress(ImageError):
            digests[path] = _digest(archive, member)
    return digests


def _digest(archive: Location, member: Member) -> str:
    state, at = hashlib.sha256(), member.place + BLOCK
    try:
        check_header(CURSOR.read(archive, member.place, BLOCK))
        for begin in range(0, member.size, _PIECE_BYTES):
            size = min(_PIECE_BYTES, member.size - begin)
            piece = CURSOR.read(archive, at + begin, size)
            if len(piece) != size:
                raise ImageError("changed", "the archive ends before it")
            state.update(piece)
    except (zlib.error, *BROKEN) as error:
        raise _describe_damage(error) from error
    return state.hexdigest()


def _describe_damage(error: Exception) -> ImageError:
    if isinstance(error, OSError) and error.errno == errno.ESTALE:
        return ImageError("changed", "the archive changed since it was listed")
    return ImageError("decode_error", f"damaged in the archive: {error}")


def _is_zip(archive: Location) -> bool:
    return archive.name.lower().endswith(".zip")


def peek_member(archive: Location, place: int, size: int) -> bytes:
    """The first bytes of a member, at most so many, unchecked; nothing if it is not there.

    Raises:
        OSError: the archive cannot be read.
        StoreError: the store that it lies in does not answer, or refuses.
    """
    if not _is_zip(archive):
        return archive.read_range(place + BLOCK, size)
    if not archive.is_remote:
        with archive.open_read() as file:
            return peek_zipped(file, place, size)
    data = archive.read_range(place, bound_zipped(size))
    return peek_zipped(io.BytesIO(data), 0, size)


def find_member(archive: Location, path: str) -> Member | None:
    """The member of that path; raises what `index_archive` raises."""
    return index_archive(archive).get(path)


def index_archive(archive: Location) -> dict[str, Member]:
    """The members by their paths; the archive is listed once, which takes some 250 bytes a member.

    Raises:
        OSError: the archive is not there.
        UsageError: it cannot be read as an archive.
    """
    version = archive.read_version()
    with _once:
        return _index_archive(archive, version)


@functools.lru_cache(maxsize=1)
def _index_archive(archive: Location, _version: tuple[int, str]) -> dict[str, Member]:
    return {m.path: m for m in read_members(archive) if not m.code and not m.is_folder}


def _judge(member: Member, names: list[str]) -> Skipped | None:
    code = member.code
    if not code and any(map(is_clutter, names)):
        code = "skipped_hidden"
    if not code and not has_image_suffix(names[-1]):
        code = "skipped_extension"
    return Skipped(member.path, code, member.detail or SKIP_RULES[code]) if code else None


def _note_folders(names: list[str], folders: dict[str, dict[str, None]]) -> None:
    if names and names[0]:
        inner = folders.setdefault(names[0], {})
        if len(names) > 1:
            inner[names[1]] = None
