"""Records by their number, over several TFRecord files: located by index, checked, never trusted.

Files are opened when they are needed and closed at once, so objects of this module can be shared by
threads, pickled, and used after a fork.
"""

from __future__ import annotations

import collections
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from converter.errors import RecordError
from converter.format.examples import find_source
from converter.format.tfrecords import HEADER_BYTES, unframe_record
from reader.arrays import Memory, Numbers
from reader.records.blocks import MAX_RUN_BYTES, Block, join_neighbours, read_blocks
from reader.records.indexed_file import (
    Group,
    Place,
    RecordFile,
    open_file,
    prefetch_indexes,
    prefetch_records,
    read_at,
    read_index,
)

# More records are read in their order on disk, and the system reads ahead by itself.
MAX_PREFETCHED_RECORDS: Final = 4_096
MAX_INDEX_BYTES: Final = 512_000_000
KEPT_INDEX_BYTES: Final = 256  # that Python's objects take for an index besides its numbers

# Where the records of a file begin, and where the last one ends.
Offsets: TypeAlias = npt.NDArray[np.uint32] | Numbers
Run: TypeAlias = list[tuple[Place, memoryview | RecordError]]

_instances: weakref.WeakSet[RecordFiles] = weakref.WeakSet()


class RecordFiles:
    """Numbered records: those of the first file, then those of the second, and so on.

    Indexes take 4 bytes a record, 8 in files of 4 GiB and more, up to `max_index_bytes`; the least
    recently used goes first.
    """

    def __init__(self, files: Sequence[RecordFile], max_index_bytes: int = MAX_INDEX_BYTES) -> None:
        self.files = tuple(files)
        self.max_index_bytes = max_index_bytes
        self._ends = np.cumsum([file.records for file in files], dtype=np.int64)
        self.indexes: collections.OrderedDict[int, Offsets] = collections.OrderedDict()
        self.index_bytes = 0
        self.replace_locks()
        _instances.add(self)

    def replace_locks(self) -> None:
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[type[RecordFiles], tuple[object, ...]]:
        return type(self), (self.files, self.max_index_bytes)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.files else 0

    def read_many(self, numbers: Numbers) -> Iterator[tuple[int, Place, memoryview | RecordError]]:
        """Reads some records in their order on disk, neighbours at once; numbers in any order.

        Yields (index into `numbers`, place, payload); for a damaged record, its error as payload.
        Raises a `DatasetError` if a file or an index is missing, or is not what it should be.
        """
        for group in self.prefetch(numbers):
            places = group.list_places()
            with open_file(group.file) as descriptor:
                for first, last in join_neighbours(group.begins.tolist(), group.ends.tolist()):
                    yield from _read_run(descriptor, places[first:last])

    def read_blocks(
        self, numbers: Numbers, limit_bytes: int = MAX_RUN_BYTES, memory: Memory | None = None
    ) -> Iterator[Block]:
        """Reads some records into few blocks of memory; raises as `read_many` does.

        A block has up to `limit_bytes`, unless a single record has more. Give `memory` for the data
        if you are done with each block before you ask for the next.
        """
        return read_blocks(self.prefetch(numbers), limit_bytes, memory)

    def prefetch(self, numbers: Numbers) -> list[Group]:
        """Locates some records and asks the system to fetch them, all at once."""
        # From a disk with a long latency, a batch then takes as long as a few single requests.
        groups = list(self.locate(numbers))
        if 1 < len(numbers) <= MAX_PREFETCHED_RECORDS:
            prefetch_records(groups)
        return groups

    def locate(self, numbers: Numbers) -> Iterator[Group]:
        """Looks up where some records lie, file by file; raises as `read_index` does."""
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        which = np.searchsorted(self._ends, ordered, side="right")
        # np.unique would import numpy.ma, which takes as long as reading a batch.
        firsts = np.flatnonzero(np.diff(which, prepend=-1)).tolist()
        needed = which[firsts].tolist()
        with self.lock:
            missing = [number for number in needed if number not in self.indexes]
        if len(missing) > 1:
            self._prefetch_indexes(missing)
        for number, first, last in zip(needed, firsts, [*firsts, len(which)][1:], strict=True):
            file = self.files[number]
            records = ordered[first:last] - (self._ends[number] - file.records)
            offsets = self._get_index(number)
            begins, ends = (offsets[at].astype(np.int64) for at in (records, records + 1))
            yield Group(file, order[first:last], records, begins, ends)

    def _prefetch_indexes(self, missing: Sequence[int]) -> None:
        prefetch_indexes([self.files[number] for number in missing])

    def _get_index(self, number: int) -> Offsets:
        with self.lock:
            if (found := self.indexes.get(number)) is not None:
                self.indexes.move_to_end(number)
                return found
        file = self.files[number]
        offsets: Offsets = read_index(file)
        if file.bytes <= np.iinfo(np.uint32).max:
            offsets = offsets.astype(np.uint32)
        with self.lock:
            self._keep_index(number, offsets)
        return offsets

    def _keep_index(self, number: int, offsets: Offsets) -> None:
        if number in self.indexes:  # another thread has read it meanwhile
            return
        self.indexes[number] = offsets
        self.index_bytes += offsets.nbytes + KEPT_INDEX_BYTES
        while self.index_bytes > self.max_index_bytes and len(self.indexes) > 1:
            _, dropped = self.indexes.popitem(last=False)
            self.index_bytes -= dropped.nbytes + KEPT_INDEX_BYTES


class RunFiles(RecordFiles):
    """Record files that are read in runs of neighbours, of which `keep` are kept for later.

    A run has `run` records; with `by_file`, each file begins one of its own. The least recently
    used run goes first.
    """

    def __init__(
        self,
        files: RecordFiles,
        run: int,
        keep: int,
        by_file: bool = False,  # noqa: FBT001, FBT002 (pickled as it stands here)
    ) -> None:
        super().__init__(files.files, files.max_index_bytes)
        self._arguments = (files, run, keep, by_file)
        counts = [file.records for file in self.files] if by_file else [len(self)]
        self._parts = np.cumsum([0, *counts], dtype=np.int64)
        self._firsts = np.cumsum([0, *(-(-count // run) for count in counts)], dtype=np.int64)
        self._run = run
        self._keep = keep
        self.runs: collections.OrderedDict[int, Run] = collections.OrderedDict()

    def replace_locks(self) -> None:
        super().replace_locks()
        self.runs_lock = threading.Lock()

    def __reduce__(self) -> tuple[type[RunFiles], tuple[object, ...]]:
        return RunFiles, self._arguments

    def read_many(self, numbers: Numbers) -> Iterator[tuple[int, Place, memoryview | RecordError]]:
        parts = np.searchsorted(self._parts, numbers, side="right") - 1
        places = numbers - self._parts[parts]
        runs = self._firsts[parts] + places // self._run
        for number in np.unique(runs).tolist():
            run = self._get(number)
            for index in np.flatnonzero(runs == number).tolist():
                yield index, *run[int(places[index]) % self._run]

    def read_blocks(
        self, numbers: Numbers, limit_bytes: int = MAX_RUN_BYTES, memory: Memory | None = None
    ) -> Iterator[Block]:
        part: list[tuple[int, memoryview]] = []
        size = 0
        for index, _, payload in self.read_many(numbers):
            if isinstance(payload, RecordError):
                continue
            if part and size + len(payload) > limit_bytes:
                yield _join(part, size, memory)
                part, size = [], 0
            part.append((index, payload))
            size += len(payload)
        if part:
            yield _join(part, size, memory)

    def _get(self, number: int) -> Run:
        with self.runs_lock:
            run = self.runs.pop(number, None) or self.read_run(number)
            self.runs[number] = run
            while len(self.runs) > self._keep:
                self.runs.popitem(last=False)
            return run

    def read_run(self, number: int) -> Run:
        part = int(np.searchsorted(self._firsts, number, side="right")) - 1
        begin = int(self._parts[part]) + (number - int(self._firsts[part])) * self._run
        end = min(begin + self._run, int(self._parts[part + 1]))
        neighbours = np.arange(begin, end, dtype=np.int64)
        # The payloads share one buffer: thousands of small ones would leave fragments.
        return [(place, payload) for _, place, payload in super().read_many(neighbours)]


def _replace_all_locks() -> None:
    # A lock that another thread held at the time of a fork is never released in the child.
    for files in _instances:
        files.replace_locks()


os.register_at_fork(after_in_child=_replace_all_locks)


def _read_run(
    descriptor: int, run: Sequence[tuple[int, Place]]
) -> Iterator[tuple[int, Place, memoryview | RecordError]]:
    begin, last = run[0][1], run[-1][1]
    try:
        data = read_at(descriptor, begin, last.offset + last.size - begin.offset)
    except RecordError as error:
        if len(run) == 1:
            yield (*run[0], error)
        for item in run if len(run) > 1 else ():  # some of them may still be readable
            yield from _read_run(descriptor, [item])
        return
    for index, place in run:
        start = place.offset - begin.offset
        yield index, place, _unframe(memoryview(data)[start : start + place.size], place)


def _unframe(record: memoryview, place: Place) -> memoryview | RecordError:
    shard = place.file.path.name
    try:
        return unframe_record(record, shard=shard, offset=place.offset, number=place.record)
    except RecordError as error:
        return place.describe(error.detail, find_source(record[HEADER_BYTES:]))


def _join(part: Sequence[tuple[int, memoryview]], size: int, memory: Memory | None) -> Block:
    # One byte more than needed: `ndarray.take` fails on an empty array.
    data = np.empty(size + 1, np.uint8) if memory is None else memory.take(size + 1)
    np.concatenate([payload for _, payload in part], out=data[:size])
    sizes = np.array([len(payload) for _, payload in part], np.int64)
    ends = np.cumsum(sizes)
    indexes = np.array([index for index, _ in part], np.int64)
    return Block(data, indexes, ends - sizes, ends, valid=np.ones(len(part), np.bool_))
