"""One TFRecord file on disk and its index: measured, opened and read, and never trusted.

Nothing here waits for a pipe, takes memory because a file claims to be large, or lets another error
out than a `DatasetError`.
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
import numpy.typing as npt

from converter.errors import DatasetError, RecordError
from converter.format.indexes import PIECE_BYTES, parse_offsets, parse_pieces
from converter.format.manifest import ShardInfo
from converter.format.tfrecords import FRAMING_BYTES, scan_records
from converter.sizes import format_count
from converter.storage.layout import name_index
from converter.storage.location import Location

if TYPE_CHECKING:
    from typing_extensions import Self

MAPPED_BYTES: Final = 1 << 18
"""From this size on, memory comes from the system and goes back to it at once: what every thread's
part of the C library's heap kept of long reads doubled the memory of `shuffle="buffer"`."""

LARGE_BYTES: Final = 1 << 24
"""A larger record's checksum is compared before memory is taken for it: a file can be all holes."""

Buffer: TypeAlias = bytearray | mmap.mmap


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordFile:
    """One TFRecord file and its index.

    Attributes:
        path: of the file.
        records: how many it holds.
        bytes: its size.
        max_record_bytes: its largest record, framing included.
        index_sha256: of its index, or None if it is not known.
        digest: tells its content from that of other files.
    """

    path: Location
    records: int
    bytes: int
    max_record_bytes: int
    index_sha256: str | None = None
    digest: str = ""

    @property
    def index(self) -> Location:
        return self.path.with_name(name_index(self.path.name))

    def open(self) -> int:
        """A descriptor of the file.

        Raises:
            OSError: it is not there, or is no regular file.
        """
        return open_regular(self.path)

    def open_index(self) -> int:
        """A descriptor of its index; raises the same."""
        return open_regular(self.index)

    @classmethod
    def of_shard(cls, folder: Location, shard: ShardInfo, **more: Any) -> Self:
        """The file of a shard; `more` is what a kind of file has besides."""
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
    """Where a record lies: the file, its number in there, its first byte and its size."""

    file: RecordFile
    record: int
    offset: int
    size: int

    def describe(self, detail: str, source: str | None = None) -> RecordError:
        return RecordError(self.file.path.name, self.offset, detail, self.record, source)


class Group(NamedTuple):
    """Where some records of one file lie, in the order in which they lie there.

    Attributes:
        file: that holds them.
        indexes: int64 (records,), the place of each among the numbers that were asked for.
        records: int64 (records,), their numbers within the file.
        begins: int64 (records,), the first byte of each.
        ends: int64 (records,), the byte behind each.
    """

    file: RecordFile
    indexes: npt.NDArray[np.int64]
    records: npt.NDArray[np.int64]
    begins: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    def list_places(self) -> list[tuple[int, Place]]:
        """The same, one by one: (index, place)."""
        columns = (self.indexes, self.records, self.begins, self.ends - self.begins)
        return [
            (index, Place(self.file, *place))
            for index, *place in zip(*(column.tolist() for column in columns), strict=True)
        ]


class open_file:  # noqa: N801 (used as the function that it replaces)
    """Opens a file for `os.pread`; a plain descriptor costs a third of a Python file object."""

    def __init__(self, file: RecordFile) -> None:
        self._file = file

    def __enter__(self) -> int:
        try:
            self._descriptor = self._file.open()
        except OSError as error:
            raise describe_failure(self._file.path, error) from error
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def ask_for(groups: Sequence[Group]) -> None:
    """Lets the system fetch some records, all at the same time, before one of them is waited for.

    Not if those looked at, of the first and of the last file, are there already: to ask for what is
    there took 4 microseconds a record.

    Raises:
        DatasetError: a file cannot be opened.
    """
    groups = [group for group in groups if not group.file.path.is_remote]
    if not hasattr(os, "posix_fadvise") or all(map(_is_there, groups[:: max(1, len(groups) - 1)])):
        return
    for group in groups:
        with open_file(group.file) as descriptor:
            for begin, end in zip(group.begins.tolist(), group.ends.tolist(), strict=True):
                os.posix_fadvise(descriptor, begin, end - begin, os.POSIX_FADV_WILLNEED)


def ask_for_index(file: RecordFile) -> None:
    """Lets the system fetch a file's index; what is wrong with it is said when it is read."""
    if file.path.is_remote or not hasattr(os, "posix_fadvise"):
        return
    with contextlib.suppress(OSError):
        descriptor = file.open_index()
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)


def _is_there(group: Group) -> bool:
    """Whether the end of the last of some records can be read without waiting for a disk."""
    with open_file(group.file) as descriptor:
        try:
            os.preadv(descriptor, [bytearray(1)], int(group.ends[-1]) - 1, os.RWF_NOWAIT)
        except OSError:
            return False  # or the system cannot tell
    return True


def open_regular(path: Location | Path) -> int:
    """A descriptor of a file: a pipe would be waited for, and a device has no end.

    Raises:
        OSError: it is not there, or is no regular file.
    """
    descriptor = os.open(str(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file")


def read_at(descriptor: int, place: Place, size: int) -> Buffer:
    """Reads bytes of a record's file, from the beginning of the record on.

    Raises:
        RecordError: the file ends before, or cannot be read there; or they are those of a very
            large record that is damaged.
    """
    if size > LARGE_BYTES:
        check_large(descriptor, place)
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


def check_large(descriptor: int, place: Place) -> None:
    """Compares the checksums of a record in 512 KiB of memory.

    Raises:
        RecordError: it is damaged.
    """
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


def measure_file(path: Location) -> int:
    """The size of a regular file; it is not opened.

    Raises:
        DatasetError: it is missing, or something else than a file.
    """
    try:
        found = Path(str(path)).stat()
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing") from None
    except OSError as error:
        raise describe_failure(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise DatasetError(f"{path} is not a regular file")
    return found.st_size


def check_size(path: Location, found: int, size: int) -> None:
    """Compares the size of a file with that in the manifest.

    Raises:
        DatasetError: it is shorter or longer than it was written.
    """
    # TensorFlow, for one, takes a shard that was cut between two records for whole.
    if found != size:
        raise DatasetError(f"{path} has {found} bytes, expected {size}: run shardmill verify")


def describe_failure(path: Location, error: OSError) -> DatasetError:
    """The error for a file that the system cannot read."""
    return DatasetError(f"{path} cannot be read: {error.strerror}")


def read_index(file: RecordFile) -> npt.NDArray[np.int64]:
    """Reads a file's index and checks it against what is known of the file.

    Returns:
        int64 (records + 1,): the first byte of each record, and the end.

    Raises:
        DatasetError: it is missing, damaged, or that of another file.
    """
    offsets = _load_known(file) if file.index_sha256 else load_index(file)[0]
    if len(offsets) - 1 != file.records:
        raise DatasetError(
            f"{file.index} lists {format_count(len(offsets) - 1, 'record')}, "
            f"expected {file.records}"
        )
    # A size decides how much memory is asked for.
    largest = int(np.diff(offsets).max(initial=0))
    if largest > file.max_record_bytes:
        raise DatasetError(
            f"{file.index} lists a record of {largest} bytes, expected no more than "
            f"{file.max_record_bytes}"
        )
    return offsets


def _load_known(file: RecordFile) -> npt.NDArray[np.int64]:
    with contextlib.suppress(DatasetError):
        offsets, sha256 = load_index(file, parse_offsets)
        if sha256 == file.index_sha256:
            return offsets
    load_index(file)  # which says what is wrong with it
    raise DatasetError(
        f"{file.index} is not the index that was written: its checksum does not match; "
        "run shardmill verify"
    )


def load_index(
    file: RecordFile, parse: Callable[..., npt.NDArray[np.int64]] = parse_pieces
) -> tuple[npt.NDArray[np.int64], str]:
    """Reads the index of a file, of which no more than path and size need to be known.

    Args:
        file: whose index it is.
        parse: reads the index from its pieces.

    Returns:
        where records begin and the last one ends, int64 (records + 1,); and the SHA-256 of the
        index in hexadecimal.

    Raises:
        DatasetError: it is missing, or does not describe a file of that size.
    """
    index, digest = file.index, hashlib.sha256()
    try:
        with open(file.open_index(), "rb", buffering=0) as stream:
            pieces = _note_pieces(stream, digest)
            offsets = parse(pieces, index=str(index), shard_bytes=file.bytes)
    except FileNotFoundError:
        raise DatasetError(
            f"{index} is missing: write it with `shardmill index {file.path}`"
        ) from None
    except OSError as error:
        raise describe_failure(index, error) from error
    return offsets, digest.hexdigest()


def _note_pieces(file: io.FileIO, digest: hashlib._Hash) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
        yield piece
