"""Records by their number, over several TFRecord files: located by index, checked, never trusted.

Everything that reads goes through here, so whatever reaches a decoder has been framed as the index
says and has the checksum that it was written with. Files are opened when they are needed and closed
at once: objects of this module can be shared by threads, pickled, and used after a fork.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from converter import examples
from converter.errors import DatasetError, RecordError
from converter.indexes import name_index, parse_index
from converter.manifest import ShardInfo
from converter.names import from_bytes
from converter.tfrecords import HEADER_BYTES, unframe_record
from reader.orders import Numbers

MAX_RUN_BYTES: Final = 1 << 22
"""Neighbours are read with one call up to this size."""

MAPPED_BYTES: Final = 1 << 18
"""From this size on, memory comes from the system and goes back to it at once: what every thread's
part of the C library's heap kept of long reads doubled the memory of `shuffle="buffer"`."""

Block: TypeAlias = bytes | mmap.mmap


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordFile:
    """One TFRecord file and its index.

    Attributes:
        path: of the file.
        records: how many it holds.
        bytes: its size.
        max_record_bytes: its largest record, framing included.
        index_sha256: of its index, or None if nobody noted it.
        digest: tells its content from that of other files.
    """

    path: Path
    records: int
    bytes: int
    max_record_bytes: int
    index_sha256: str | None = None
    digest: str = ""

    @property
    def index(self) -> Path:
        return self.path.with_name(name_index(self.path.name))

    @classmethod
    def of_shard(cls, folder: Path, shard: ShardInfo) -> RecordFile:
        return cls(
            path=folder / shard.name,
            records=shard.records,
            bytes=shard.bytes,
            max_record_bytes=shard.max_record_bytes,
            index_sha256=shard.index_sha256,
            digest=shard.sha256,
        )


class Place(NamedTuple):
    """Where a record lies: the file, its number in there, its first byte and its size."""

    file: RecordFile
    record: int
    offset: int
    size: int

    def describe(self, detail: str, source: str | None = None) -> RecordError:
        return RecordError(self.file.path.name, self.offset, detail, self.record, source)


class RecordFiles:
    """Numbered records: those of the first file, then those of the second, and so on.

    Args:
        files: in the order in which their records are counted.
        max_index_bytes: how much of the indexes may be kept in memory, 8 bytes a record; the one
            that was not used for the longest time goes first.
    """

    def __init__(self, files: Sequence[RecordFile], max_index_bytes: int = 1 << 30) -> None:
        self.files = tuple(files)
        self.max_index_bytes = max_index_bytes
        self._ends = np.cumsum([file.records for file in files], dtype=np.int64)
        self._indexes: collections.OrderedDict[Path, Numbers] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[RecordFiles], tuple[object, ...]]:
        return RecordFiles, (self.files, self.max_index_bytes)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.files else 0

    def read(self, number: int) -> tuple[Place, memoryview]:
        """Where one record lies, and its payload.

        Raises:
            RecordError: it is damaged.
            DatasetError: its file or index is missing, or is not what it should be.
        """
        ((_, place, payload),) = self.read_many(np.array([number], np.int64))
        if isinstance(payload, RecordError):
            raise payload
        return place, payload

    def read_many(self, numbers: Numbers) -> Iterator[tuple[int, Place, memoryview | RecordError]]:
        """Reads some records in the order in which they lie on disk, neighbours at once.

        Args:
            numbers: int64 (n,), of the records, in any order.

        Yields:
            (index into `numbers`, place, payload): instead of a damaged payload, its error.

        Raises:
            DatasetError: a file or an index is missing, or is not what it should be.
        """
        for file, places in self.locate(numbers):
            with open_file(file.path) as descriptor:
                for run in _join_neighbours(places):
                    yield from _read_run(descriptor, run)

    def locate(self, numbers: Numbers) -> Iterator[tuple[RecordFile, list[tuple[int, Place]]]]:
        """Finds where some records lie.

        Yields:
            each file that holds some of them, with (index into `numbers`, place) of those, in the
            order in which they lie in it.

        Raises:
            DatasetError: an index is missing, or does not fit its file.
        """
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        which = np.searchsorted(self._ends, ordered, side="right")
        for number in np.unique(which).tolist():
            file = self.files[number]
            chosen = which == number
            records = ordered[chosen] - (self._ends[number] - file.records)
            offsets = self._get_index(file)
            begins, ends = offsets[records], offsets[records + 1]
            places = [
                (index, Place(file, record, begin, end - begin))
                for index, record, begin, end in zip(
                    order[chosen].tolist(),
                    records.tolist(),
                    begins.tolist(),
                    ends.tolist(),
                    strict=True,
                )
            ]
            yield file, places

    def _get_index(self, file: RecordFile) -> Numbers:
        with self._lock:
            offsets = self._indexes.pop(file.path, None)
            if offsets is not None:
                self._indexes[file.path] = offsets
                return offsets
        offsets = read_index(file)
        with self._lock:
            self._indexes[file.path] = offsets
            # One number more than records are in each.
            size = sum(kept[:-1].nbytes for kept in self._indexes.values())
            while size > self.max_index_bytes and len(self._indexes) > 1:
                size -= self._indexes.popitem(last=False)[1][:-1].nbytes
        return offsets


class open_file:  # noqa: N801 (used as the function that it replaces)
    """Opens a file for `os.pread`; a plain descriptor costs a third of a Python file object."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> int:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise describe_failure(self._path, error) from error
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def read_at(descriptor: int, place: Place, offset: int, size: int) -> Block:
    """Reads bytes of a record's file.

    Raises:
        RecordError: the file ends before.
        DatasetError: it cannot be read.
    """
    try:
        if size < MAPPED_BYTES:
            data: Block = os.pread(descriptor, size, offset)
            read = len(data)
        else:
            data = mmap.mmap(-1, size)
            read = os.preadv(descriptor, [data], offset)
    except OSError as error:
        raise describe_failure(place.file.path, error) from error
    if read != size:
        raise place.describe("the file ends before it does")
    return data


def describe_failure(path: Path, error: OSError) -> DatasetError:
    """What a person is told about a file that the system does not give."""
    return DatasetError(f"{path} cannot be read: {error.strerror}")


def _read_run(
    descriptor: int, run: Sequence[tuple[int, Place]]
) -> Iterator[tuple[int, Place, memoryview | RecordError]]:
    begin, last = run[0][1], run[-1][1]
    try:
        data = read_at(descriptor, begin, begin.offset, last.offset + last.size - begin.offset)
    except RecordError:
        if len(run) == 1:
            yield (*run[0], begin.describe("the file ends before it does"))
        for item in run if len(run) > 1 else ():  # those that are there can still be read
            yield from _read_run(descriptor, [item])
        return
    for index, place in run:
        start = place.offset - begin.offset
        yield index, place, check_record(memoryview(data)[start : start + place.size], place)


def check_record(record: memoryview, place: Place) -> memoryview | RecordError:
    """The payload of a whole record, or what is wrong with it."""
    try:
        return unframe_record(
            record, shard=place.file.path.name, offset=place.offset, number=place.record
        )
    except RecordError as error:
        return place.describe(error.detail, find_source(record[HEADER_BYTES:]))


def find_source(payload: memoryview) -> str | None:
    """The path of the original in a record's payload, as far as damage lets it be read."""
    try:
        begin, end = examples.find_values(payload, (examples.SOURCE_ID,))[examples.SOURCE_ID]
    except (ValueError, KeyError):
        return None
    return from_bytes(bytes(payload[begin:end]))


def _join_neighbours(
    places: Sequence[tuple[int, Place]],
) -> Iterator[list[tuple[int, Place]]]:
    run: list[tuple[int, Place]] = []
    end = size = 0
    for index, place in places:
        if run and (place.offset != end or size + place.size > MAX_RUN_BYTES):
            yield run
            run, size = [], 0
        run.append((index, place))
        end, size = place.offset + place.size, size + place.size
    if run:
        yield run


def read_index(file: RecordFile) -> npt.NDArray[np.int64]:
    """Reads a file's index and checks it against what is known of the file.

    Returns:
        int64 (records + 1,): the first byte of each record, and the end.

    Raises:
        DatasetError: it is missing, damaged, or that of another file.
    """
    try:
        data = file.index.read_bytes()
    except FileNotFoundError:
        raise DatasetError(
            f"{file.index} is missing: write it with `shardmill index {file.path}`"
        ) from None
    except OSError as error:
        raise describe_failure(file.index, error) from error
    if file.index_sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise DatasetError(
            f"{file.index} is not the index that was written: its checksum does not match; "
            "run shardmill verify"
        )
    offsets = parse_index(data, index=file.index.name, shard_bytes=file.bytes)
    if len(offsets) - 1 != file.records:
        raise DatasetError(
            f"{file.index} lists {len(offsets) - 1} records, expected {file.records}"
        )
    # A size decides how much memory is asked for.
    largest = int(np.diff(offsets).max(initial=0))
    if largest > file.max_record_bytes:
        raise DatasetError(
            f"{file.index} lists a record of {largest} bytes, expected no more than "
            f"{file.max_record_bytes}"
        )
    return offsets
