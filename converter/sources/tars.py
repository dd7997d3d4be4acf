"""Members of a tar, and of tars in it: where each begins, and what is in it."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, Final

from converter.errors import ImageError
from converter.names import from_bytes
from converter.sources.members import Member, clean_name

MAX_DEPTH: Final = 3
"""Of tars within tars."""

MAX_HEADER_BYTES: Final = 1 << 20
"""Of a long name: `tarfile` would read whatever its header claims."""

BLOCK: Final = tarfile.BLOCKSIZE
"""Bytes of a header, behind which its member comes."""


def list_tar(file: BinaryIO, size: int) -> Iterator[Member]:
    """All members of a tar in their order, those of inner tars in the place of each.

    Args:
        file: the tar.
        size: how many bytes there can be.

    Raises:
        tarfile.TarError: it is damaged, or cut off.
    """
    yield from _list_window(_Window(file, 0, size), "", 1)


def check_member(data: bytes, size: int) -> bytes:
    """The content of a member, which comes behind its header.

    Raises:
        ImageError: there is another member by now, or less of it.
    """
    check_header(data[:BLOCK])
    if len(data) != BLOCK + size:
        raise ImageError("changed", f"{size} bytes when listed, {len(data) - BLOCK} now")
    return data[BLOCK:]


def check_header(data: bytes) -> None:
    """Makes sure that there is a header of a member.

    Raises:
        ImageError: there is none any more.
    """
    try:
        tarfile.TarInfo.frombuf(data, "utf-8", "surrogateescape")
    except tarfile.TarError:
        raise ImageError("changed", "the archive changed since it was listed") from None


def _list_window(window: _Window, folder: str, depth: int) -> Iterator[Member]:
    # `tarfile` asks its file for nothing but `read`, `seek` and `tell`; its types ask for more.
    with tarfile.open(fileobj=window, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:  # type: ignore[call-overload]
        while (info := tar.next()) is not None:
            tar.members = []  # it would keep a kilobyte of each
            path, code = clean_name(from_bytes(info.name.encode("utf-8", "surrogateescape")))
            path = (folder + path).rstrip("/")  # an archive of `.` has it for a member
            place = window.begin + info.offset_data - BLOCK
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
                yield Member(path, info.size, place)
        if window.last != bytes(BLOCK):  # to `tarfile`, a damaged header is the end of a tar
            at = window.begin + tar.offset
            raise tarfile.ReadError(f"no header and no end at byte {at:,}: damaged or cut off")


def _list_inner(window: _Window, info: tarfile.TarInfo, path: str, depth: int) -> Iterator[Member]:
    """Members of a tar in a tar; where it is damaged, no other is."""
    inner = _Window(window.file, window.begin + info.offset_data, info.size)
    try:
        yield from _list_window(inner, f"{path[: -len('.tar')]}/", depth + 1)
    except tarfile.TarError as error:
        yield Member(path, code="unreadable", detail=f"cannot be read as an archive: {error}")


class _Window:
    """A part of a file as a file of its own, of which no large piece is read at once.

    Attributes:
        last: what was read last.
    """

    def __init__(self, file: BinaryIO, begin: int, size: int) -> None:
        self.file, self.begin, self.size, self._at = file, begin, size, 0
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        size = min(size if size >= 0 else self.size, max(0, self.size - self._at))
        if size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes, at most {MAX_HEADER_BYTES:,}")
        self.file.seek(self.begin + self._at)
        data = self.file.read(size)
        self._at += len(data)
        self.last = data
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at
