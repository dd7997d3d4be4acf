"""Members of tars, of tars in them, and of tars that are compressed as a whole."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final, cast

from converter.errors import ImageError
from converter.names import from_bytes
from converter.sources.inputs import is_compressed
from converter.sources.members import Member, clean_name
from converter.storage.location import Location

MAX_DEPTH: Final = 3
"""Of tars within tars."""

MAX_HEADER_BYTES: Final = 1 << 20
"""Of a long name: `tarfile` would read whatever its header claims."""

BLOCK: Final = tarfile.BLOCKSIZE
"""Bytes of a header, which stands before its member."""

OPENERS: Final[dict[str, Callable[[Any], object]]] = {
    "gz": gzip.open,
    "bz2": bz2.open,
    "xz": lzma.open,
}
"""By how the name of a compressed tar ends."""

_MAX_RATIO: Final = 200
_FREE_BYTES: Final = 1 << 30
"""A tar of images does not decompress to more than this, plus its size times that ratio."""


def list_tar(archive: Location, packed_bytes: int) -> Iterator[Member]:
    """All members of a tar in their order; those of an inner tar stand in its place."""
    compressed = is_compressed(archive)
    size = _FREE_BYTES + _MAX_RATIO * packed_bytes if compressed else packed_bytes
    with _decompress(archive) if compressed else archive.open_read() as file:
        yield from _list_window(_Window(file, 0, size), "", 1)


def check_member(data: bytes, size: int) -> bytes:
    """The content of a member, without the header before it."""
    check_header(data[:BLOCK])
    if len(data) != BLOCK + size:
        raise ImageError("changed", f"{size} bytes when listed, {len(data) - BLOCK} now")
    return data[BLOCK:]


def check_header(data: bytes) -> None:
    """Makes sure that this is still the header of a member."""
    try:
        tarfile.TarInfo.frombuf(data, "utf-8", "surrogateescape")
    except tarfile.TarError:
        raise ImageError("changed", "the archive changed since it was listed") from None


class Cursor:
    """An open compressed tar; reading backward starts again from the beginning."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: tuple[Location, tuple[int, str] | None] | None = None
        self._file: BinaryIO | None = None

    def read(self, archive: Location, place: int, size: int) -> bytes:
        """`size` decompressed bytes from `place`; fewer only where the tar ends."""
        # Of an object, no other version than the one that was opened can be read.
        asked = archive, None if archive.is_remote else archive.read_version()
        with self._lock:
            if self._file is None or self._opened != asked:
                self._close()
                self._file, self._opened = _decompress(archive), asked
            self._file.seek(place)
            return self._file.read(size)

    def close(self) -> None:
        """Closes the tar, which may be another file when it is opened again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._opened = None


CURSOR: Final = Cursor()
"""The one of this process."""


def _decompress(archive: Location) -> BinaryIO:
    opener = next(OPENERS[end] for end in OPENERS if archive.name.lower().endswith(end))
    return cast("BinaryIO", opener(archive.open_read() if archive.is_remote else str(archive)))


def _list_window(window: _Window, folder: str, depth: int) -> Iterator[Member]:
    # `tarfile` asks its file for nothing but `read`, `seek` and `tell`; its types ask for more.
    with tarfile.open(fileobj=window, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:  # type: ignore[call-overload]
        while (info := tar.next()) is not None:
            tar.members = []  # it would keep a kilobyte of each
            path, code = clean_name(from_bytes(info.name.encode("utf-8", "surrogateescape")))
            path = (folder + path).rstrip("/")  # an archive of `.` has it for a member
            if info.size < 0:  # `tarfile` would go backward
                raise tarfile.ReadError(f"{path!r} claims {info.size:,} bytes")
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
                yield from _list_inner(window, info, path, depth)
            else:
                yield Member(path, info.size, window.begin + info.offset_data - BLOCK)
        if window.last_read != bytes(BLOCK):  # to `tarfile`, a damaged header is the end of a tar
            at = window.begin + tar.offset
            raise tarfile.ReadError(f"no header and no end at byte {at:,}: damaged or cut off")


def _list_inner(window: _Window, info: tarfile.TarInfo, path: str, depth: int) -> Iterator[Member]:
    inner = _Window(window.file, window.begin + info.offset_data, info.size)
    try:
        yield from _list_window(inner, f"{path[: -len('.tar')]}/", depth + 1)
    except tarfile.TarError as error:  # the members after the inner tar can still be read
        yield Member(path, code="unreadable", detail=f"cannot be read as an archive: {error}")


class _Window:
    """A part of a file as a file of its own, from which no large piece is read at once."""

    def __init__(self, file: BinaryIO, begin: int, size: int) -> None:
        self.file, self.begin, self.size, self._at = file, begin, size, 0
        self.last_read = b""

    def read(self, size: int = -1) -> bytes:
        size = min(size if size >= 0 else self.size, max(0, self.size - self._at))
        if size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes, at most {MAX_HEADER_BYTES:,}")
        self.file.seek(self.begin + self._at)
        data = self.file.read(size)
        self._at += len(data)
        self.last_read = data
        return data

    def seek(self, offset: int) -> int:
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at
