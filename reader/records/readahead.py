"""Long sequential reads: a record is read with its neighbours, which are kept for later."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from converter.errors import RecordError
from reader.arrays import Memory, Numbers
from reader.records.blocks import MAX_RUN_BYTES, Block
from reader.records.indexed_file import Place
from reader.records.record_files import RecordFiles

Run: TypeAlias = list[tuple[Place, memoryview | RecordError]]


class RunFiles(RecordFiles):
    """Record files that are read in runs of neighbours.

    Args:
        files: the records.
        run: how many records are read at once.
        keep: how many runs are kept; the least recently used goes first.
        by_file: whether each file begins a run of its own.
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
        self._runs: collections.OrderedDict[int, Run] = collections.OrderedDict()
        self._runs_lock = threading.Lock()

    def __reduce__(self) -> tuple[type[RunFiles], tuple[object, ...]]:
        return RunFiles, self._arguments

    def read_many(self, numbers: Numbers) -> Iterator[tuple[int, Place, memoryview | RecordError]]:
        """Reads some records, run by run; see `RecordFiles.read_many`."""
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
        """Copies some records out of their runs; see `RecordFiles.read_blocks`."""
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
        with self._runs_lock:
            run = self._runs.pop(number, None) or self._read(number)
            self._runs[number] = run
            while len(self._runs) > self._keep:
                self._runs.popitem(last=False)
            return run

    def _read(self, number: int) -> Run:
        part = int(np.searchsorted(self._firsts, number, side="right")) - 1
        begin = int(self._parts[part]) + (number - int(self._firsts[part])) * self._run
        end = min(begin + self._run, int(self._parts[part + 1]))
        neighbours = np.arange(begin, end, dtype=np.int64)
        # The payloads share one buffer: thousands of small ones would leave fragments.
        return [(place, payload) for _, place, payload in super().read_many(neighbours)]


def _join(part: Sequence[tuple[int, memoryview]], size: int, memory: Memory | None) -> Block:
    # One byte more than needed: `ndarray.take` fails on an empty array.
    data = np.empty(size + 1, np.uint8) if memory is None else memory.take(size + 1)
    sizes = np.array([len(payload) for _, payload in part], np.int64)
    ends = np.cumsum(sizes)
    begins = ends - sizes
    for (_, payload), begin, end in zip(part, begins.tolist(), ends.tolist(), strict=True):
        data[begin:end] = payload
    return Block(
        data=data,
        indexes=np.array([index for index, _ in part], np.int64),
        begins=begins,
        ends=ends,
        valid=np.ones(len(part), np.bool_),
    )
