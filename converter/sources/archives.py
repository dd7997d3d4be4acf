"""Images in an archive, read where they lie: tar, tars in a tar, and zip; nothing is unpacked.

A member is found by the place of its header in the file, so that a worker reads exactly the bytes
of an image, also of an archive in a store. Nothing in a header is believed: names that lead out of
the archive, links, devices and encrypted members are left out, and no more is inflated than the
stated size.

In a compressed tar, a member cannot be read without everything before it. So members are read in
their order: the tar is decompressed once for the list, once for the hashes if they are needed, in
part for the sample, and once by each worker that writes.
"""

import bz2
import contextlib
import errno
import functools
import gzip
import hashlib
import lzma
import struct
import tarfile
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, BinaryIO, Final, cast

from converter import progress
from converter.entries import Entries
from converter.errors import ImageError, UsageError
from converter.inventory import NO_LABEL, Entry, Skipped, leave_out
from converter.sources.folders import clean_name, has_image_suffix, is_clutter
from converter.sources.inputs import is_compressed, is_zip
from converter.sources.tar_headers import Header
from converter.sources.zips import list_zip, peek_zip_member, start_zip_member
from converter.storage.location import Location

# By how the name of a compressed tar ends.
OPENERS: Final[dict[str, Any]] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}

_BLOCK: Final = tarfile.BLOCKSIZE  # the header of a member, before its content
_MAX_DEPTH: Final = 3  # of tars within tars
_MAX_HEADER_BYTES: Final = 1 << 20  # `tarfile` would read whatever the header of a name claims

# A tar of images does not decompress to more than 1 GiB plus 200 times its size: a bomb does.
_FREE_BYTES: Final = 1 << 30
_MAX_RATIO: Final = 200

_PIECE_BYTES: Final = 1 << 20
_MAX_DIGESTED: Final = 1_024  # compressed tars whose hashes are kept, about 300 bytes a member

# What decompressing a damaged tar raises.
_DAMAGE: Final = (EOFError, OSError, lzma.LZMAError, zlib.error)

# Of many threads that need to know what is in an archive, one looks through it.
_one_at_a_time: Final = threading.RLock()


def list_archive(archive: Location, skipped: list[Skipped]) -> tuple[Entries, dict[str, set[str]]]:
    """The images of an archive and its folders, as of `list_folder`."""
    entries = Entries()
    folders: defaultdict[str, set[str]] = defaultdict(set)
    for member in read_members(archive):
        if isinstance(member, Skipped):
            skipped.append(member)
            continue
        *parents, name = member.path.split("/")
        is_hidden = any(map(is_clutter, (*parents, name)))
        if any(parents) and not is_hidden:
            folders[parents[0]].update(parents[1:2])
        if member.path.endswith("/"):
            continue
        if is_hidden or not has_image_suffix(name):
            code = "skipped_hidden" if is_hidden else "skipped_extension"
            skipped.append(leave_out(member.path, code))
            continue
        progress.advance()
        entries.append(member)
    # As with tar, the last one of a name counts.
    entries.sort()
    entries, repeated = entries.keep_distinct(last=True)
    skipped += (leave_out(path, "skipped_repeated") for path in repeated)
    return entries, folders


def read_members(archive: Location) -> Iterator[Entry | Skipped]:
    """All members of an archive in their order, those of inner tars in the place of each.

    Folders are entries whose paths end in a slash. The name of an inner tar, without its suffix, is
    a folder in the paths of its members.
    """
    with _explain_damage(archive):
        packed_bytes = _measure(archive)
        if is_zip(archive):
            with archive.open_read() as file:
                yield from list_zip(file, archive.name)
        else:
            with _open_window(archive, packed_bytes) as window:
                yield from _list_window(window, "", 1)


def read_tar(
    archive: Location, wants: Callable[[Entry], bool]
) -> Generator[tuple[Entry | Skipped, bytes | None]]:
    """The members of a tar, and the content of those that are wanted, in one reading.

    A tar in it is a member like any other. Raises what `read_members` raises.
    """
    with _explain_damage(archive), _open_window(archive, _measure(archive)) as window:
        for member in _list_window(window, "", _MAX_DEPTH):
            content = None
            if isinstance(member, Entry) and wants(member):
                window.file.seek(member.place + _BLOCK)
                content = window.file.read(member.size_bytes)
                if len(content) != member.size_bytes:
                    raise UsageError(f"{archive} became shorter while it was read: start again")
            yield member, content


def _measure(archive: Location) -> int:
    packed_bytes, _ = archive.read_version()
    if not (archive.is_remote or archive.is_file()):  # a pipe would be waited for
        raise UsageError(f"{archive} is no file: give an archive of images")
    CURSOR.close()
    return packed_bytes


@contextlib.contextmanager
def _explain_damage(archive: Location) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"{archive} does not exist: give an archive of images") from None
    except (tarfile.TarError, struct.error, ValueError, *_DAMAGE) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{archive} cannot be read as an archive: {reason}") from error


def index_archive(archive: Location) -> dict[str, Entry]:
    """The members by their paths, about 250 bytes each; a process lists an archive once."""
    version = archive.read_version()
    with _one_at_a_time:
        return _index_version(archive, version)


@functools.lru_cache(maxsize=1)
def _index_version(archive: Location, _version: tuple[int, str]) -> dict[str, Entry]:
    members = (member for member in read_members(archive) if isinstance(member, Entry))
    return {member.path: member for member in members if not member.path.endswith("/")}


def start_member(archive: Location, place: int, size: int) -> Callable[[], bytes]:
    """Begins to read the member of that size whose header begins at `place`.

    From a store this is one request, which is not waited for. The function that is returned waits,
    takes memory for `size` bytes, and raises `ImageError` if another member is there now, or it is
    damaged, and `OSError` if the archive cannot be read.
    """
    if is_compressed(archive):
        return lambda: _check_member(_read_compressed(archive, place, _BLOCK + size), size)
    if is_zip(archive):
        return start_zip_member(archive, place, size)
    read = archive.start_read(place, _BLOCK + size)
    return lambda: _check_member(read(), size)


def peek_member(archive: Location, place: int, size: int) -> bytes:
    """The first bytes of a member, at most `size`, unchecked; not of a compressed tar."""
    if is_zip(archive):
        return peek_zip_member(archive, place, size)
    return archive.read_range(place + _BLOCK, size)


def digest_members(archive: Location) -> dict[str, str]:
    """The SHA-256 of every image of a compressed tar, by its path, from one reading.

    Memory is bounded by 1 MiB, whatever the size of a member. Damaged members are left out; an
    archive that cannot be read at all is a `UsageError`.
    """
    version = archive.read_version()
    with _one_at_a_time:
        return _digest_version(archive, version)


@functools.lru_cache(maxsize=_MAX_DIGESTED)
def _digest_version(archive: Location, version: tuple[int, str]) -> dict[str, str]:
    digests = {}
    for path, member in _index_version(archive, version).items():
        with contextlib.suppress(ImageError):
            if digest := _digest(archive, member):
                digests[path] = digest
    return digests


def _digest(archive: Location, member: Entry) -> str:
    _check_header(_read_compressed(archive, member.place, _BLOCK))
    begin, end = member.place + _BLOCK, member.place + _BLOCK + member.size_bytes
    pieces = (
        _read_compressed(archive, at, min(_PIECE_BYTES, end - at))
        for at in range(begin, end, _PIECE_BYTES)
    )
    return digest_pieces(pieces, member.size_bytes).hex()


def digest_pieces(pieces: Iterable[bytes], size: int) -> bytes:
    """The SHA-256 of a file; empty if it does not have that size."""
    state, read_bytes = hashlib.sha256(), 0
    for piece in pieces:
        state.update(piece)
        read_bytes += len(piece)
        if read_bytes > size:
            break
    return state.digest() if read_bytes == size else b""


class Cursor:
    """An open compressed tar; reading backward starts again from the beginning."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._opened: tuple[Location, tuple[int, str] | None] | None = None
        self._file: BinaryIO | None = None

    def read(self, archive: Location, place: int, size: int) -> bytes:
        """`size` decompressed bytes from `place`; fewer only where the tar ends."""
        # Of an object, no other version than the one that was opened can be read.
        asked = archive, None if archive.is_remote else archive.read_version()
        with self._lock:
            if self._file is None or self._opened != asked:
                self.close()
                self._file, self._opened = _decompress(archive), asked
            self._file.seek(place)
            return self._file.read(size)

    def close(self) -> None:
        """Closes the tar, which may be another file when it is opened again."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = self._opened = None


# One for all threads of a process: they read members in their order, so it never goes back.
CURSOR: Final = Cursor()


def _read_compressed(archive: Location, place: int, size: int) -> bytes:
    try:
        return CURSOR.read(archive, place, size)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno == errno.ESTALE:
            raise ImageError("changed", "the archive changed since it was listed") from error
        raise ImageError("decode_error", f"damaged in the archive: {error}") from error


def _decompress(archive: Location) -> BinaryIO:
    opener = next(OPENERS[end] for end in OPENERS if archive.name.lower().endswith(end))
    return cast("BinaryIO", opener(archive.open_read() if archive.is_remote else str(archive)))


def _check_member(data: bytes, size: int) -> bytes:
    """The content of a member, without the header before it."""
    _check_header(data[:_BLOCK])
    if len(data) != _BLOCK + size:
        raise ImageError("changed", f"{size} bytes when listed, {len(data) - _BLOCK} now")
    return data[_BLOCK:]


def _check_header(data: bytes) -> None:
    try:
        Header.frombuf(data, "utf-8", "surrogateescape")
    except tarfile.TarError:
        raise ImageError("changed", "the archive changed since it was listed") from None


class _Window:
    """A part of a file as a file of its own, from which no large piece is read at once."""

    def __init__(self, file: BinaryIO, begin: int, size: int) -> None:
        self.file, self.begin, self.size, self._at = file, begin, size, 0
        self.last_read = b""

    def read(self, size: int = -1) -> bytes:
        size = min(size if size >= 0 else self.size, max(0, self.size - self._at))
        if size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes, at most {_MAX_HEADER_BYTES:,}")
        self.file.seek(self.begin + self._at)
        self.last_read = self.file.read(size)
        self._at += len(self.last_read)
        return self.last_read

    def seek(self, offset: int) -> int:
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at


@contextlib.contextmanager
def _open_window(archive: Location, packed_bytes: int) -> Iterator[_Window]:
    compressed = is_compressed(archive)
    size = _FREE_BYTES + _MAX_RATIO * packed_bytes if compressed else packed_bytes
    with _decompress(archive) if compressed else archive.open_read() as file:
        yield _Window(file, 0, size)


def _list_window(window: _Window, folder: str, depth: int) -> Iterator[Entry | Skipped]:
    # `tarfile` asks its file for nothing but `read`, `seek` and `tell`; its types ask for more.
    # With this encoding its names are spelled as `converter.names` spells them.
    with tarfile.open(  # type: ignore[call-overload]
        fileobj=window, mode="r:", tarinfo=Header, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # it would keep a kilobyte of each
            path, is_outside = clean_name(info.name)
            path = (folder + path).rstrip("/")  # an archive of `.` has it for a member
            if info.size < 0:  # `tarfile` would go backward, for ever
                raise tarfile.ReadError(f"{path!r} claims {info.size:,} bytes")
            if is_outside:
                yield leave_out(path, "skipped_outside")
            elif info.isdir():
                yield Entry(f"{path}/", NO_LABEL, 0)
            elif info.issym() or info.islnk():
                yield leave_out(path, "skipped_link")
            elif not info.isreg() or info.issparse():
                yield leave_out(path, "skipped_special")
            elif info.offset_data + info.size > window.size:
                raise tarfile.ReadError(
                    f"{path!r} goes past the end, or past what can be in it: cut off, or a bomb"
                )
            elif path.lower().endswith(".tar") and depth < _MAX_DEPTH:
                yield from _list_inner(window, info, path, depth)
            else:
                place = window.begin + info.offset_data - _BLOCK
                yield Entry(path, NO_LABEL, info.size, place=place)
        # To `tarfile`, a damaged header is the end of a tar: all images behind it would be missing.
        if window.last_read != bytes(_BLOCK):
            at = window.begin + tar.offset
            raise tarfile.ReadError(f"no header and no end at byte {at:,}: damaged or cut off")


def _list_inner(
    window: _Window, info: tarfile.TarInfo, path: str, depth: int
) -> Iterator[Entry | Skipped]:
    inner = _Window(window.file, window.begin + info.offset_data, info.size)
    try:
        yield from _list_window(inner, f"{path[: -len('.tar')]}/", depth + 1)
    except tarfile.TarError as error:  # the members after the inner tar can still be read
        yield leave_out(path, "unreadable", f"cannot be read as an archive: {error}")
