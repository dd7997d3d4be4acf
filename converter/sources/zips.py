"""Members of a zip: where each begins, and what is in it, stored or deflated."""

import io
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Final

from converter.errors import ImageError
from converter.inventory import NO_LABEL, Entry, Skipped, leave_out
from converter.names import from_bytes
from converter.sources.folders import clean_name
from converter.storage.location import Location

# `zipfile` keeps an object of each member and finds them by name; a worker needs one, by its place.
# The layouts are those of https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT:
# mark, made by, needed, flags, method, time, date | CRC, packed, size |
# bytes of name, extra and comment, disk, attributes | attributes, place
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
# mark, needed, flags, method, time, date | CRC, packed, size | bytes of name and extra
_LOCAL: Final = struct.Struct("<4s5H3L2H")
# mark, disk, its first, members here, members | bytes, place of the list | bytes of the comment
_END: Final = struct.Struct("<4s4H2LH")
# mark, bytes | made by, needed | disk, its first | members here, members, bytes, place of the list
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_MAX_16, _MAX_32, _NOWHERE = 0xFFFF, 0xFFFFFFFF, 1 << 63
_ENCRYPTED, _DESCRIBED_LATER = 1, 8
_STORED, _DEFLATED = 0, 8
_PIECE_BYTES: Final = 1 << 16
_NAME_BYTES: Final = 1 << 10
_DESCRIPTOR_BYTES: Final = 64


def list_zip(file: BinaryIO, name: str) -> Iterator[Entry | Skipped]:
    """All members of the zip of that name, in the order of the list at its end."""
    begin, size, members = _find_directory(file, name)
    end, at, listed = begin + size, begin, 0
    file.seek(begin)
    while at < end:
        header = _CENTRAL.unpack(file.read(_CENTRAL.size))
        if header[0] != b"PK\1\2":
            raise ValueError(f"no header of a member at byte {at}")
        name_bytes, extra_bytes, comment_bytes = header[10:13]
        path, extra = file.read(name_bytes), file.read(extra_bytes)
        file.seek(comment_bytes, os.SEEK_CUR)
        at += _CENTRAL.size + name_bytes + extra_bytes + comment_bytes
        sizes = _read_sizes(header[8], header[9], header[16], extra)
        listed += 1
        yield _describe(path, header[3], header[4], header[15] >> 16, sizes)
    if listed & _MAX_16 != members & _MAX_16:  # some writers have no more than 16 bits for it
        raise ValueError(f"{listed:,} members, and {members:,} are stated: {name} is damaged")


def start_zip_member(archive: Location, place: int, size: int) -> Callable[[], bytes]:
    """Begins to read a member, and returns a function that waits for its content."""
    span = _span_member(size)
    fetch = archive.start_read(place, span) if archive.is_remote else None

    def read() -> bytes:
        if fetch is not None:
            data = fetch()
            try:
                return _read_member(io.BytesIO(data), 0, size)
            except ImageError:  # damaged, or its header is longer than usual
                if len(data) < span:
                    raise
        with archive.open_read() as file:
            return _read_member(file, place, size)

    return read


def peek_zip_member(archive: Location, place: int, size: int) -> bytes:
    """The first bytes of a member, at most `size`, unchecked; empty if it is damaged."""
    file = io.BytesIO(archive.read_range(place, _span_member(size)))
    _, method, _ = _read_header(file, 0)
    begin = place + file.tell()
    data = file.read(size)
    if len(data) < size:  # its header is longer than usual, or the archive ends
        data = archive.read_range(begin, size)
    try:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        return data if method == _STORED else inflater.decompress(data, size)
    except zlib.error:
        return b""


def _span_member(size: int) -> int:
    """How many bytes, from its header on, hold a member of that size, unless it is an odd one."""
    # Content that does not compress grows by less than a thousandth.
    return _LOCAL.size + _NAME_BYTES + size + size // 1000 + _DESCRIPTOR_BYTES


def _read_header(file: BinaryIO, place: int) -> tuple[int, int, int]:
    """Flags, method and checksum of a member, whose content comes next in the file."""
    file.seek(place)
    fields = file.read(_LOCAL.size)
    if len(fields) != _LOCAL.size or fields[:4] != b"PK\3\4":
        raise ImageError("changed", "the archive changed since it was listed")
    _, _, flags, method, _, _, crc, _, _, name_bytes, extra_bytes = _LOCAL.unpack(fields)
    file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
    return flags, method, crc


def _read_member(file: BinaryIO, place: int, size: int) -> bytes:
    flags, method, crc = _read_header(file, place)
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


def _describe(
    name: bytes, flags: int, method: int, mode: int, sizes: tuple[int, int]
) -> Entry | Skipped:
    path, is_outside = clean_name(from_bytes(name))
    if is_outside:
        return leave_out(path, "skipped_outside")
    if name.endswith(b"/"):
        return Entry(f"{path}/", NO_LABEL, 0)
    if stat.S_ISLNK(mode):
        return leave_out(path, "skipped_link")
    if flags & _ENCRYPTED:
        return leave_out(path, "unreadable", "encrypted")
    if method not in (_STORED, _DEFLATED):
        return leave_out(path, "unreadable", f"compressed by method {method}")
    size, place = sizes
    return Entry(path, NO_LABEL, size, place=place)


def _find_directory(file: BinaryIO, name: str) -> tuple[int, int, int]:
    """The place and size of the list of members, and their number."""
    total = file.seek(0, os.SEEK_END)
    tail_bytes = min(total, _END.size + _MAX_16)
    file.seek(total - tail_bytes)
    tail = file.read(tail_bytes)
    found = tail.rfind(b"PK\5\6")
    if found < 0:
        raise ValueError("it has no list of members at its end: it is cut off, or no zip")
    *_, members, size, begin, _ = _END.unpack(tail[found : found + _END.size])
    end = total - tail_bytes + found
    if _MAX_32 in (size, begin):
        file.seek(max(0, end - 20))
        locator = file.read(20)
        if locator[:4] == b"PK\6\7":
            file.seek(int.from_bytes(locator[8:16], "little"))
            *_, members, size, begin = _END_64.unpack(file.read(_END_64.size))
    if begin + size > end:
        raise ValueError(f"its list of members goes past its end: {name} is damaged")
    return begin, size, members


def _read_sizes(packed: int, size: int, place: int, extra: bytes) -> tuple[int, int]:
    """The size and place of a member, from the extra field if they take more than 32 bits."""
    while len(extra) >= 4:
        kind, length = struct.unpack("<2H", extra[:4])
        if kind == 1:
            numbers = iter(struct.unpack(f"<{length // 8}Q", extra[4 : 4 + length // 8 * 8]))
            size = next(numbers, _NOWHERE) if size == _MAX_32 else size
            if packed == _MAX_32:
                next(numbers, _NOWHERE)
            place = next(numbers, _NOWHERE) if place == _MAX_32 else place
        extra = extra[4 + length :]
    if max(size, place) >= _NOWHERE:
        raise ValueError(f"a member of {size:,} bytes at byte {place:,}: damaged")
    return size, place


def _take(pieces: Iterable[bytes], size: int) -> tuple[bytes, bytes]:
    data = bytearray()  # appending to `bytes` would copy all that came before
    for piece in pieces:
        data += piece
        if len(data) >= size:
            break
    if len(data) < size:
        raise ImageError("changed", f"{size} bytes when listed, {len(data)} now")
    return bytes(data[:size]), bytes(data[size:])


def _inflate(pieces: Iterable[bytes], size: int) -> tuple[bytes, bytes]:
    """Exactly `size` bytes, and what follows their stream; more is refused before it is made."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = bytearray()
    for piece in pieces:
        data += inflater.decompress(piece, size + 1 - len(data))
        if inflater.eof or len(data) > size:
            break
    if len(data) != size or not inflater.eof:
        raise ImageError("decode_error", f"does not inflate to the {size} bytes that are stated")
    return bytes(data), inflater.unused_data
