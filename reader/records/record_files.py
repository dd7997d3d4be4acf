"""Records by their number, over several TFRecord files: located by index, checked, never trusted.

Everything that reads goes through here, so whatever reaches a decoder has been framed as the index
says and has the checksum that it was written with. Files are opened when they are needed and closed
at once: objects of this module can be shared by threads, pickled, and used after a fork.
"""

from __future__ import annotations

import collections
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from converter.errors import RecordError
from converter.format import examples
from converter.format.tfrecords import HEADER_BYTES, unframe_record
from converter.names import from_bytes
from converter.storage.location import Location
from reader.arrays import Memory, Numbers
from reader.records.blocks import MAX_RUN_BYTES, Block, join_neighbours, read_blocks
from reader.records.indexed_file import (
    Group,
    Place,
    RecordFile,
    ask_for,
    ask_for_index,
    open_file,
    read_at,
    read_index,
)

MAX_ASKED_RECORDS: Final = 4_096
"""More are read in the order in which they lie, and the system looks ahead by itself."""

MAX_NAME_BYTES: Final = 4_096
"""Of a name that is read from a damaged record."""


_instances: weakref.WeakSet[RecordFiles] = weakref.WeakSet()


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
        self._indexes: collections.OrderedDict[Location, Numbers] = collections.OrderedDict()
        self._lock = threading.Lock()
        _instances.add(self)

    def __reduce__(self) -> tuple[type[RecordFiles], tuple[object, ...]]:
        return type(self), (self.files, self.max_index_bytes)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.files else 0

    def read_many(self, numbers: Numbers) -> Iterator[tuple[int, Place, memoryview | RecordError]]:
        """Reads some records in the order in which they lie on disk, neighbours at once.

        Args:
            numbers: int64 (n,), of the records, in any order.

        Yields:
            (index into `numbers`, place, payload): instead of a damaged payload, its error.

        Raises:
            DatasetError: a file or an index is missing, or is not what it should be.
        """
        for group in self.gather(numbers):
            places = group.list_places()
            with open_file(group.file) as descriptor:
                for first, last in join_neighbours(group.begins.tolist(), group.ends.tolist()):
                    yield from _read_run(descriptor, places[first:last])

    def read_blocks(
        self, numbers: Numbers, limit_bytes: int = MAX_RUN_BYTES, memory: Memory | None = None
    ) -> Iterator[Block]:
        """Reads some records, in any order, into few blocks of memory; see `blocks.read_blocks`.

        Raises:
            DatasetError: a file or an index is missing, or is not what it should be.
        """
        return read_blocks(self.gather(numbers), limit_bytes, memory)

    def gather(self, numbers: Numbers) -> list[Group]:
        """Finds where some records lie, and lets the system begin to fetch them.

        From disks that take a request at a time to answer, a batch comes in the time of a few.

        Raises:
            DatasetError: a file or an index is missing, or is not what it should be.
        """
        groups = list(self.find(numbers))
        if len(numbers) <= MAX_ASKED_RECORDS:
            ask_for(groups)
        return groups

    def find(self, numbers: Numbers) -> Iterator[Group]:
        """Finds where some records lie, file by file.

        Raises:
            DatasetError: an index is missing, or does not fit its file.
        """
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        which = np.searchsorted(self._ends, ordered, side="right")
        # np.unique would import numpy.ma, which takes as long as reading a batch.
        needed = np.flatnonzero(np.bincount(which)).tolist()
        files = [self.files[number] for number in needed]
        with self._lock:
            missing = [file for file in files if file.path not in self._indexes]
        self._prepare(missing)
        for number, file in zip(needed, files, strict=True):
            first, last = np.searchsorted(which, [number, number + 1]).tolist()
            records = ordered[first:last] - (self._ends[number] - file.records)
            offsets = self._get_index(file)
            begins, ends = offsets[records], offsets[records + 1]
            yield Group(file, order[first:last], records, begins, ends)

    def _prepare(self, missing: Sequence[RecordFile]) -> None:
        """Lets the system fetch the indexes that are missing, while the first one is read."""
        for file in missing[1:]:
            ask_for_index(file)

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


def _unlock() -> None:
    """A lock that another thread held when this process was forked is never released here."""
    for files in _instances:
        files._lock = threading.Lock()  # noqa: SLF001 (their own module)


os.register_at_fork(after_in_child=_unlock)


def _read_run(
    descriptor: int, run: Sequence[tuple[int, Place]]
) -> Iterator[tuple[int, Place, memoryview | RecordError]]:
    begin, last = run[0][1], run[-1][1]
    try:
        data = read_at(descriptor, begin, last.offset + last.size - begin.offset)
    except RecordError as error:
        if len(run) == 1:
            yield (*run[0], error)
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
    return from_bytes(bytes(payload[begin : min(end, begin + MAX_NAME_BYTES)]))
