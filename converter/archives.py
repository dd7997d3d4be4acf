"""Images in an archive, read where they lie: tar, tars in a tar, and zip; nothing is unpacked.

A member is found by the place of its header in the file, so that a worker reads exactly the bytes
of an image. Nothing in a header is believed: names that lead out of the archive, links, devices and
what is encrypted are left out, and no more is inflated than the size that is stated.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from converter.entries import SKIP_RULES, Entry, Skipped
from converter.errors import ImageError, UsageError
from converter.folders import has_image_suffix, is_clutter
from converter.layout import Location
from converter.names import from_bytes, to_bytes
from converter.streams import (
    BROKEN,
    CURSOR,
    FREE_BYTES,
    MAX_RATIO,
    OPENERS,
    is_compressed,
    open_stream,
)

SUFFIXES: Final = (".tar", ".zip")

MAX_DEPTH: Final = 3
"""Of tars within tars."""

MAX_HEADER_BYTES: Final = 1 << 20
"""Of a long name: `tarfile` would read whatever its header claims."""

MAX_MEMBER_BYTES: Final = 1 << 28
"""Of an image, as it is when it is inflated."""

_BLOCK: Final = tarfile.BLOCKSIZE
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_END: Final = struct.Struct("<4s4H2LH")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _DESCRIBED_LATER = 1, 8
_STORED, _DEFLATED = 0, 8
_PIECE_BYTES: Final = 1 << 16


class Member(NamedTuple):
    """One member of an archive.

    Attributes:
        path: its name; that of an inner tar, without its suffix, is a folder before it.
        size: in bytes.
        place: where its header begins in the file.
        code: of the rule by which it is left out, or nothing.
        detail: about that.
        is_folder: whether it is one.
    """

    path: str
    size: int = 0
    place: int = 0
    code: str = ""
    detail: str = ""
    is_folder: bool = False


def is_archive(path: Location) -> bool:
    """Whether a path is that of an archive, by its name."""
    return path.name.lower().endswith((*SUFFIXES, *OPENERS)) and not path.is_dir()


def list_archive(archive: Path, skipped: list[Skipped]) -> tuple[list[Entry], dict[str, list[str]]]:
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


def read_members(archive: Path) -> Iterator[Member]:
    """All members of an archive in their order, those of inner tars in the place of each.

    Raises:
        UsageError: it cannot be read as an archive.
    """
    try:
        packed = archive.stat().st_size
        compressed = is_compressed(archive)
        with open_stream(archive) if compressed else open(archive, "rb") as file:
            if archive.name.lower().endswith(".zip"):
                yield from _read_zip(file, archive)
            else:
                size = FREE_BYTES + MAX_RATIO * packed if compressed else packed
                yield from _read_tar(_Window(file, 0, size), "", 1)
    except FileNotFoundError:
        raise UsageError(f"{archive} does not exist: give an archive of images") from None
    except (OSError, tarfile.TarError, struct.error, zlib.error, ValueError, *BROKEN) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{archive} cannot be read as an archive: {reason}") from error


def read_member(archive: Path, place: int, size: int) -> bytes:
    """Reads the member whose header begins at a place.

    Args:
        archive: its path.
        place: as in `Entry.place`.
        size: as in `Entry.size_bytes`.

    Raises:
        ImageError: there is another member now, or it is damaged or larger than allowed.
        OSError: the archive cannot be read.
    """
    if size > MAX_MEMBER_BYTES:
        raise ImageError("too_large", f"{size:,} bytes, at most {MAX_MEMBER_BYTES:,}")
    if is_compressed(archive):
        try:
            data = CURSOR.read(archive, place, _BLOCK + size)
        except (zlib.error, *BROKEN) as error:
            raise ImageError("decode_error", f"damaged in the archive: {error}") from error
        return _check_tarred(data, size)
    with open(archive, "rb", buffering=0) as file:
        if archive.name.lower().endswith(".zip"):
            return _read_zipped(file, place, size)
        return _check_tarred(os.pread(file.fileno(), _BLOCK + size, place), size)


def digest_members(archive: Path) -> dict[str, str]:
    """The SHA-256 of every image of an archive in hexadecimal, by its path, in one reading of it.

    Raises:
        UsageError: it cannot be read as an archive.
    """
    status = archive.stat()
    return _digest_all(archive, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _digest_all(archive: Path, _size: int, _mtime_ns: int) -> dict[str, str]:
    digests = {}
    for path, member in _index_archive(archive, _size, _mtime_ns).items():
        with contextlib.suppress(ImageError):
            data = read_member(archive, member.place, member.size)
            digests[path] = hashlib.sha256(data).hexdigest()
    return digests


def _check_tarred(data: bytes, size: int) -> bytes:
    """The content of a member, which comes behind its header."""
    try:
        tarfile.TarInfo.frombuf(data[:_BLOCK], "utf-8", "surrogateescape")
    except tarfile.TarError:
        raise ImageError("changed", "the archive changed since it was listed") from None
    if len(data) != _BLOCK + size:
        raise ImageError("changed", f"{size} bytes when listed, {len(data) - _BLOCK} now")
    return data[_BLOCK:]


def peek_member(archive: Path, place: int, size: int) -> bytes:
    """The first bytes of a member, at most so many, unchecked; nothing if it is not there.

    Raises:
        OSError: the archive cannot be read.
    """
    with open(archive, "rb", buffering=0) as file:
        if not archive.name.lower().endswith(".zip"):
            return os.pread(file.fileno(), size, place + _BLOCK)
        file.seek(place)
        fields = file.read(_LOCAL.size)
        if len(fields) != _LOCAL.size:
            return b""
        method, name_bytes, extra_bytes = (_LOCAL.unpack(fields)[at] for at in (3, 9, 10))
        file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
        data = file.read(size)
        if method == _STORED:
            return data
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
        except zlib.error:
            return b""


def find_member(archive: Path, path: str) -> Member | None:
    """The member of that path; the archive is listed once, which takes some 250 bytes a member.

    Raises:
        UsageError: it cannot be read as an archive.
    """
    status = archive.stat()
    return _index_archive(archive, status.st_size, status.st_mtime_ns).get(path)


@functools.lru_cache(maxsize=1)
def _index_archive(archive: Path, _size: int, _mtime_ns: int) -> dict[str, Member]:
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


def _clean(name: str) -> tuple[str, str]:
    """A name without what means nothing in it, and the code of what is wrong with it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    outside = name.startswith("/") or ".." in parts or "\0" in name
    return "/".join(parts), "skipped_outside" if outside else ""


class _Window:
    """A part of a file as a file of its own, of which no large piece is read at once."""

    def __init__(self, file: BinaryIO, begin: int, size: int) -> None:
        self.file, self.begin, self.size, self._at = file, begin, size, 0

    def read(self, size: int = -1) -> bytes:
        size = min(size if size >= 0 else self.size, max(0, self.size - self._at))
        if size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes, at most {MAX_HEADER_BYTES:,}")
        self.file.seek(self.begin + self._at)
        data = self.file.read(size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at


def _read_tar(window: _Window, folder: str, depth: int) -> Iterator[Member]:
    with tarfile.open(fileobj=window, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:  # type: ignore[call-overload]
        while (info := tar.next()) is not None:
            tar.members = []  # it would keep a kilobyte of each
            path, code = _clean(from_bytes(info.name.encode("utf-8", "surrogateescape")))
            path = (folder + path).rstrip("/")  # an archive of `.` has it for a member
            place = window.begin + info.offset_data - _BLOCK
            if code:
                yield Member(path, code=code)
            elif info.isdir():
                yield Member(path, is_folder=True)
            elif info.issym() or info.islnk():
                yield Member(path, code="skipped_link")
            elif not info.isreg() or info.issparse():
                yield Member(path, code="skipped_special")
            elif info.offset_data + info.size > window.size:
                raise tarfile.ReadError(
                    f"{path!r} goes past the end, or past what can be in it: cut off, or a bomb"
                )
            elif path.lower().endswith(".tar") and depth < MAX_DEPTH:
                inner = _Window(window.file, window.begin + info.offset_data, info.size)
                yield from _read_tar(inner, f"{path[: -len('.tar')]}/", depth + 1)
            else:
                yield Member(path, info.size, place)


def _read_zip(file: BinaryIO, archive: Path) -> Iterator[Member]:
    begin, size = _find_directory(file, archive)
    end, at = begin + size, begin
    file.seek(begin)
    while at < end:
        header = _CENTRAL.unpack(file.read(_CENTRAL.size))
        if header[0] != b"PK\1\2":
            raise ValueError(f"no member where one has to be, at byte {at}")
        name_bytes, extra_bytes, comment_bytes = header[10:13]
        name, extra = file.read(name_bytes), file.read(extra_bytes)
        file.seek(comment_bytes, os.SEEK_CUR)
        at += _CENTRAL.size + name_bytes + extra_bytes + comment_bytes
        sizes = _read_sizes(header[8], header[9], header[16], extra)
        yield _describe_zipped(name, header[3], header[4], header[15] >> 16, sizes)


def _describe_zipped(
    name: bytes, flags: int, method: int, mode: int, sizes: tuple[int, int]
) -> Member:
    path, code = _clean(from_bytes(name))
    if code:
        return Member(path, code=code)
    if name.endswith(b"/"):
        return Member(path, is_folder=True)
    if stat.S_ISLNK(mode):
        return Member(path, code="skipped_link")
    if flags & _ENCRYPTED:
        return Member(path, code="unreadable", detail="encrypted")
    if method not in (_STORED, _DEFLATED):
        return Member(path, code="unreadable", detail=f"compressed by method {method}")
    return Member(path, *sizes)


def _find_directory(file: BinaryIO, archive: Path) -> tuple[int, int]:
    """Where the list of members begins, and how long it is."""
    total = file.seek(0, os.SEEK_END)
    tail_bytes = min(total, _END.size + _MAX_16)
    file.seek(total - tail_bytes)
    tail = file.read(tail_bytes)
    found = tail.rfind(b"PK\5\6")
    if found < 0:
        raise ValueError("it has no list of members at its end: it is cut off, or no zip")
    *_, size, begin, _ = _END.unpack(tail[found : found + _END.size])
    end = total - tail_bytes + found
    if _MAX_32 in (size, begin):
        file.seek(max(0, end - 20))
        locator = file.read(20)
        if locator[:4] == b"PK\6\7":
            file.seek(int.from_bytes(locator[8:16], "little"))
            *_, size, begin = _END_64.unpack(file.read(_END_64.size))
    if begin + size > end:
        raise ValueError(f"its list of members goes past its end: {archive.name} is damaged")
    return begin, size


def _read_sizes(packed: int, size: int, place: int, extra: bytes) -> tuple[int, int]:
    """The size and the place of a member, which are elsewhere if they take more than 32 bits."""
    while len(extra) >= 4:
        kind, length = struct.unpack("<2H", extra[:4])
        if kind == 1:
            numbers = iter(struct.unpack(f"<{length // 8}Q", extra[4 : 4 + length // 8 * 8]))
            size = next(numbers) if size == _MAX_32 else size
            if packed == _MAX_32:
                next(numbers)
            place = next(numbers) if place == _MAX_32 else place
        extra = extra[4 + length :]
    return size, place


def _read_zipped(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    fields = file.read(_LOCAL.size)
    if len(fields) != _LOCAL.size or fields[:4] != b"PK\3\4":
        raise ImageError("changed", "the archive changed since it was listed")
    _, _, flags, method, _, _, crc, _, _, name_bytes, extra_bytes = _LOCAL.unpack(fields)
    file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
    pieces = iter(lambda: file.read(_PIECE_BYTES), b"")
    try:
        data, rest = _take(pieces, size) if method == _STORED else _inflate(pieces, size)
    except zlib.error as error:
        raise ImageError("decode_error", f"damaged in the archive: {error}") from error
    if flags & _DESCRIBED_LATER:
        rest += next(pieces, b"")
        rest = rest.removeprefix(b"PK\7\x08")
        crc = int.from_bytes(rest[:4], "little")
    if zlib.crc32(data) != crc:
        raise ImageError("decode_error", "its checksum in the archive does not match")
    return data


def _take(pieces: Iterable[bytes], size: int) -> tuple[bytes, bytes]:
    data = b""
    for piece in pieces:
        data += piece
        if len(data) >= size:
            break
    if len(data) < size:
        raise ImageError("changed", f"{size} bytes when listed, {len(data)} now")
    return data[:size], data[size:]


def _inflate(pieces: Iterable[bytes], size: int) -> tuple[bytes, bytes]:
    """Inflates exactly so many bytes; what would be more is refused, not made."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = bytearray()
    for piece in pieces:
        data += inflater.decompress(piece, size + 1 - len(data))
        if inflater.eof or len(data) > size:
            break
    if len(data) != size or not inflater.eof:
        raise ImageError("decode_error", f"does not inflate to the {size} bytes that are stated")
    return bytes(data), inflater.unused_data
