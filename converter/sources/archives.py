"""Images in an archive, read where they lie: tar, tars in a tar, and zip; nothing is unpacked.

A member is found by the place of its header in the file, so that a worker reads exactly the bytes
of an image, also of an archive in a store. Nothing in a header is believed: names that lead out of
the archive, links, devices and encrypted members are left out, and no more is inflated than the
stated size.

In a compressed tar, a member cannot be read without everything before it. So members are read in
their order: the tar is decompressed once for the list, once for the hashes if they are needed, in
part for the sample, and once by each worker that writes.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import lzma
import struct
import tarfile
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from converter.errors import ImageError, UsageError
from converter.inventory import SKIP_RULES, Entry, Skipped
from converter.names import to_bytes
from converter.sources.folders import has_image_suffix, is_clutter, sort_folders
from converter.sources.inputs import is_compressed, is_zip
from converter.sources.members import Member
from converter.sources.tars import BLOCK, CURSOR, check_header, check_member, list_tar
from converter.sources.zips import list_zip, peek_zip_member, start_zip_member
from converter.storage.location import Location

_PIECE_BYTES: Final = 1 << 20

_DAMAGE: Final = (EOFError, OSError, lzma.LZMAError, zlib.error)
"""What decompressing a damaged tar raises."""

_one_at_a_time: Final = threading.RLock()
"""Of many threads that need to know what is in an archive, one looks through it."""


def list_archive(
    archive: Location, skipped: list[Skipped]
) -> tuple[list[Entry], dict[str, list[str]]]:
    """The images of an archive and its folders, as of `list_folder`."""
    found: dict[str, Entry] = {}
    folders: defaultdict[str, set[str]] = defaultdict(set)
    for member in read_members(archive):
        names = member.path.split("/")
        code = member.code or ("skipped_hidden" if any(map(is_clutter, names)) else "")
        parents = names if member.is_folder else names[:-1]
        if member.path and parents and not code:
            folders[parents[0]].update(parents[1:2])
        if member.is_folder:
            continue
        if not code and not has_image_suffix(names[-1]):
            code = "skipped_extension"
        if code:
            skipped.append(Skipped(member.path, code, member.detail or SKIP_RULES[code]))
            continue
        if member.path in found:  # as with tar, the last one counts
            code = "skipped_repeated"
            skipped.append(Skipped(member.path, code, SKIP_RULES[code]))
        found[member.path] = Entry(member.path, 0, member.size, place=member.place)
    entries = sorted(found.values(), key=lambda entry: to_bytes(entry.path))
    return entries, sort_folders(folders)


def read_members(archive: Location) -> Iterator[Member]:
    """All members of an archive in their order, those of inner tars in the place of each."""
    try:
        packed_bytes, _ = archive.read_version()
        CURSOR.close()
        if is_zip(archive):
            with archive.open_read() as file:
                yield from list_zip(file, archive.name)
        else:
            yield from list_tar(archive, packed_bytes)
    except FileNotFoundError:
        raise UsageError(f"{archive} does not exist: give an archive of images") from None
    except (tarfile.TarError, struct.error, ValueError, *_DAMAGE) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{archive} cannot be read as an archive: {reason}") from error


def index_archive(archive: Location) -> dict[str, Member]:
    """The members by their paths, about 250 bytes each; a process lists an archive once."""
    version = archive.read_version()
    with _one_at_a_time:
        return _index_version(archive, version)


@functools.lru_cache(maxsize=1)
def _index_version(archive: Location, _version: tuple[int, str]) -> dict[str, Member]:
    return {m.path: m for m in read_members(archive) if not m.code and not m.is_folder}


def start_member(archive: Location, place: int, size: int) -> Callable[[], bytes]:
    """Begins to read the member of that size whose header begins at `place`.

    From a store this is one request, which is not waited for. The function that is returned waits,
    takes memory for `size` bytes, and raises `ImageError` if another member is there now, or it is
    damaged, and `OSError` if the archive cannot be read.
    """
    if is_compressed(archive):
        return lambda: check_member(_read_compressed(archive, place, BLOCK + size), size)
    if is_zip(archive):
        return start_zip_member(archive, place, size)
    reading = archive.start_read(place, BLOCK + size)
    return lambda: check_member(reading.result(), size)


def peek_member(archive: Location, place: int, size: int) -> bytes:
    """The first bytes of a member, at most `size`, unchecked; not of a compressed tar."""
    if is_zip(archive):
        return peek_zip_member(archive, place, size)
    return archive.read_range(place + BLOCK, size)


def digest_members(archive: Location) -> dict[str, str]:
    """The SHA-256 of every image of a compressed tar, by its path, from one reading.

    Memory is bounded by 1 MiB, whatever the size of a member. Damaged members are left out.

    Raises:
        UsageError: it cannot be read as an archive.
        StoreError: the store does not answer, or refuses.
    """
    version = archive.read_version()
    with _one_at_a_time:
        return _digest_version(archive, version)


@functools.lru_cache(maxsize=1)
def _digest_version(archive: Location, version: tuple[int, str]) -> dict[str, str]:
    digests = {}
    for path, member in _index_version(archive, version).items():
        with contextlib.suppress(ImageError):
            if digest := _digest(archive, member):
                digests[path] = digest
    return digests


def _digest(archive: Location, member: Member) -> str:
    check_header(_read_compressed(archive, member.place, BLOCK))
    begin, end = member.place + BLOCK, member.place + BLOCK + member.size
    pieces = (
        _read_compressed(archive, at, min(_PIECE_BYTES, end - at))
        for at in range(begin, end, _PIECE_BYTES)
    )
    return digest_pieces(pieces, member.size).hex()


def digest_pieces(pieces: Iterable[bytes], size: int) -> bytes:
    """The SHA-256 of a file; empty if it does not have that size."""
    state, read_bytes = hashlib.sha256(), 0
    for piece in pieces:
        state.update(piece)
        read_bytes += len(piece)
        if read_bytes > size:
            break
    return state.digest() if read_bytes == size else b""


def _read_compressed(archive: Location, place: int, size: int) -> bytes:
    try:
        return CURSOR.read(archive, place, size)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno == errno.ESTALE:
            raise ImageError("changed", "the archive changed since it was listed") from error
        raise ImageError("decode_error", f"damaged in the archive: {error}") from error
