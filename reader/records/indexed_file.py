"""One TFRecord file and its index: measured, opened and read, and never trusted.

Nothing here waits for a pipe, or takes memory because a file claims to be large.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import io
import mmap
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np

from converter.errors import DatasetError, RecordError
from converter.format.indexes import PIECE_BYTES, parse_offsets, parse_pieces
from converter.format.manifest import ShardInfo
from converter.format.tfrecords import FRAMING_BYTES, scan_records
from converter.sizes import format_count
from converter.storage.files import name_index
from converter.storage.location import Location
from reader.arrays import Array, Numbers

if TYPE_CHECKING:
    from typing_extensions import Self

# Larger buffers come from the system and go back to it at once: what each thread's part of the C
# library's heap kept of long reads doubled the memory of `shuffle="buffer"`.
MAPPED_BYTES: Final = 1 << 18
# Larger records are checked before memory is taken for them: a file can be all holes.
LARGE_BYTES: Final = 1 << 24
Buffer: TypeAlias = bytearray | mmap.mmap


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordFile:
    """A file and its index."""

    path: Location
    records: int
    bytes: int
    max_record_bytes: int  # framing included
    index_sha256: str | None = None  # None if unknown
    digest: str = ""  # tells its content from that of other files

    @property
    def index(self) -> Location:
        return self.path.with_name(name_index(self.path.name))

    def open(self) -> int:
        return open_regular(self.path)

    def open_index(self) -> int:
        return open_regular(self.index)

    @classmethod
    def of_shard(cls, folder: Location, shard: ShardInfo, **more: Any) -> Self:
        """Describes the file of a shard; `more` are the fields that a subclass adds."""
        return cls(
            path=folder / shard.name,
            records=shard.records,
            bytes=shard.bytes,
            max_record_bytes=shard.max_record_bytes,
            index_sha256=shard.index_sha256,
            digest=shard.sha256,
            **more,
        )


class Place(NamedTuple):
    """Where a record lies: its file, its number there, its first byte and its size."""

    file: RecordFile
    record: int
    offset: int
    size: int

    def describe(self, detail: str, source: str | None = None) -> RecordError:
        return RecordError(self.file.path.name, self.offset, detail, self.record, source)


class Group(NamedTuple):
    """Where some records of one file lie, in their order on disk: arrays (records,)."""

    file: RecordFile
    indexes: Numbers  # position among the numbers that were asked for
    records: Numbers  # number within the file
    begins: Numbers  # first byte
    ends: Numbers  # byte after the last

    @property
    def sizes(self) -> Numbers:
        return self.ends - self.begins

    def take(self, rows: slice | Array) -> Group:
        return Group(self.file, *(column[rows] for column in self[1:]))

    def list_places(self) -> list[tuple[int, Place]]:
        columns = (self.indexes, self.records, self.begins, self.sizes)
        return [
            (index, Place(self.file, *place))
            for index, *place in zip(*(column.tolist() for column in columns), strict=True)
        ]


class open_file:  # noqa: N801 (used as the function that it replaces)
    """Opens a file for `os.pread`; raises a `DatasetError` if that fails."""

    # A plain descriptor costs a third of a Python file object.

    def __init__(self, file: RecordFile) -> None:
        self._file = file

    def __enter__(self) -> int:
        try:
            self._descriptor = self._file.open()
        except OSError as error:
            raise DatasetError(f"{self._file.path} cannot be read: {error.strerror}") from error
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def prefetch_records(groups: Sequence[Group]) -> None:
    """Asks the system to fetch some records, all at once, before the first is waited for."""
    groups = [group for group in groups if not group.file.path.is_remote]
    # One record of the first and of the last file is probed: asking for pages that are cached
    # already took 4 microseconds a record.
    probes = groups[:: max(1, len(groups) - 1)]
    if not hasattr(os, "posix_fadvise") or all(map(_is_cached, probes)):
        return
    for group in groups:
        with open_file(group.file) as descriptor:
            for begin, size in zip(group.begins.tolist(), group.sizes.tolist(), strict=True):
                os.posix_fadvise(descriptor, begin, size, os.POSIX_FADV_WILLNEED)


def prefetch_indexes(files: Sequence[RecordFile]) -> None:
    """Does the same for whole indexes; reading one then reports what is wrong with it."""
    files = [file for file in files if not file.path.is_remote]
    with contextlib.suppress(OSError):
        probes = files[:: max(1, len(files) - 1)]
        if not hasattr(os, "posix_fadvise") or all(map(_is_index_cached, probes)):
            return
    for file in files:
        with contextlib.suppress(OSError), _close_after(file.open_index()) as descriptor:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)


def _is_cached(group: Group) -> bool:
    """Whether the last byte of the last record can be read without waiting for a disk."""
    with open_file(group.file) as descriptor:
        return _can_read(descriptor, int(group.ends[-1]) - 1)


def _is_index_cached(file: RecordFile) -> bool:
    with _close_after(file.open_index()) as descriptor:
        return _can_read(descriptor, 0)


def _can_read(descriptor: int, offset: int) -> bool:
    with contextlib.suppress(OSError):
        os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
        return True
    return False  # or the system cannot tell


@contextlib.contextmanager
def _close_after(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_regular(path: Location | Path) -> int:
    """Returns a descriptor of a file; raises an `OSError` if it is missing, or no regular file."""
    # A pipe would block, and a device may have no end.
    descriptor = os.open(str(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file")


def read_at(descriptor: int, place: Place, size: int) -> Buffer:
    """Reads `size` bytes from the start of a record on; raises a `RecordError` if that fails."""
    if size > LARGE_BYTES:
        _check_large(descriptor, place)
    try:
        memory = bytearray(size) if size < MAPPED_BYTES else mmap.mmap(-1, size)
    except OSError as error:
        raise place.describe(f"{size:,} bytes of memory: {error.strerror}") from error
    try:
        read = os.preadv(descriptor, [memory], place.offset)
    except OSError as error:
        raise place.describe(f"cannot be read: {error.strerror}") from error
    if read != size:
        raise place.describe("the file ends before it does")
    return memory


def _check_large(descriptor: int, place: Place) -> None:
    # In 512 KiB of memory: the record may be a hole.
    try:
        with open(descriptor, "rb", PIECE_BYTES, closefd=False) as file:
            file.seek(place.offset)
            size = next(scan_records(file, place.file.path.name, place.size))
    except RecordError as error:
        raise place.describe(error.detail) from error
    except OSError as error:
        raise place.describe(f"cannot be read: {error.strerror}") from error
    if size != place.size:
        raise place.describe(
            f"length {size - FRAMING_BYTES}, expected {place.size - FRAMING_BYTES}"
        )


def check_sizes(folder: Location, shards: Sequence[ShardInfo]) -> None:
    """Compares the sizes of all shards and indexes on a disk with the manifest, as `check_size`."""
    sizes: dict[str, int] = {}
    # One look at a folder of 200,000 files takes 0.6 s, one at each file 1.6 s, and over a network
    # far more.
    with contextlib.suppress(OSError):  # a folder that may be entered, and not listed
        sizes = folder.list_sizes()
    for shard in shards:
        for name, size in shard.file_sizes.items():
            if sizes.get(name) != size:
                check_size(folder / name, measure_file(folder / name), size)


def measure_file(path: Location) -> int:
    """Returns the size of a file; raises a `DatasetError` if it is missing, or no regular file."""
    try:
        found = Path(str(path)).stat()
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise DatasetError(f"{path} is not a regular file")
    return found.st_size


def check_size(path: Location, found: int, size: int) -> None:
    """Raises a `DatasetError` if a file does not have the size that the manifest says."""
    # TensorFlow, for one, accepts a shard that was cut between two records as complete.
    if found != size:
        raise DatasetError(f"{path} has {found} bytes, expected {size}: run shardmill verify")


def read_index(file: RecordFile) -> Numbers:
    """Reads where each record begins, and where the last one ends: int64 (records + 1,)."""
    offsets = _load_known(file) if file.index_sha256 else load_index(file)[0]
    if len(offsets) - 1 != file.records:
        listed = format_count(len(offsets) - 1, "record")
        raise DatasetError(f"{file.index} lists {listed}, expected {file.records}")
    # A size decides how much memory is allocated.
    largest = int(np.diff(offsets).max(initial=0))
    if largest > file.max_record_bytes:
        raise DatasetError(
            f"{file.index} lists a record of {largest} bytes, expected no more than "
            f"{file.max_record_bytes}"
        )
    return offsets


def _load_known(file: RecordFile) -> Numbers:
    with contextlib.suppress(DatasetError):
        offsets, sha256 = load_index(file, parse_offsets)
        if sha256 == file.index_sha256:
            return offsets
    load_index(file)  # raises an error that says what is wrong
    raise DatasetError(
        f"{file.index} is not the index that was written: its checksum does not match; "
        "run shardmill verify"
    )


def load_index(
    file: RecordFile, parse: Callable[..., Numbers] = parse_pieces
) -> tuple[Numbers, str]:
    """Reads an index of which path and size alone are known; also returns its SHA-256."""
    # Where that is compared, `parse_offsets` is enough.
    index, digest = file.index, hashlib.sha256()

    def read_pieces(stream: io.FileIO) -> Iterator[bytes]:
        while piece := stream.read(PIECE_BYTES):
            digest.update(piece)
            yield piece

    try:
        with open(file.open_index(), "rb", buffering=0) as stream:
            offsets = parse(read_pieces(stream), index=str(index), shard_bytes=file.bytes)
    except FileNotFoundError:
        raise DatasetError(
            f"{index} is missing: write it with `shardmill index {file.path}`"
        ) from None
    except OSError as error:
        raise DatasetError(f"{index} cannot be read: {error.strerror}") from error
    return offsets, digest.hexdigest()
