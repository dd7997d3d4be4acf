"""The names and labels of a whole split, collected in the background, to filter and to search.

Names go to a temporary file without a name, 4 bytes a record and label stay in memory: a million
records take about 8 MB. Nothing is collected before you filter or search.
"""

import dataclasses
import functools
import os
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from converter.names import fold_name, to_bytes
from pipelines.view.summaries import Shape, Summary, read_summaries
from reader.arrays import Numbers
from reader.records.record_files import RecordFiles

PART_RECORDS: Final = 512
MAX_WAIT_S: Final = 0.05  # of a search for the pages being answered, between two parts
MAX_FOUND: Final = 10_000
"""Records whose names hold a text: more are not counted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """Which records are shown: those of a class, and those whose names hold a text."""

    label: int | None = None
    text: str = ""

    def __bool__(self) -> bool:
        return self.label is not None or bool(self.text)


class Progress(NamedTuple):
    """How far a listing is."""

    looked: int  # records
    records: int
    damaged: int  # records and records of files that cannot be read
    done: bool
    failed: bool = False  # whether it ended before it was done


class Traffic:
    """Counts the pages being answered, which searches let pass: `with traffic:` around each."""

    def __init__(self) -> None:
        self._pages = 0
        self._lock = threading.Lock()
        self._calm = threading.Event()
        self._calm.set()

    def __enter__(self) -> None:
        with self._lock:
            self._pages += 1
            self._calm.clear()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._pages -= 1
            if not self._pages:
                self._calm.set()

    def let_pass(self) -> None:
        """Waits until no page is being answered, but not for long."""
        self._calm.wait(MAX_WAIT_S)


class _Part(NamedTuple):
    """Some neighbours: their labels, and where their names lie in the temporary file."""

    first: int
    labels: npt.NDArray[np.int32]
    owners: npt.NDArray[np.int32] | None  # row of the record of each label; None if each has one
    offset: int
    size: int


class Listing:
    """What is known of the records of one split; `start` collects it in a thread."""

    def __init__(self, files: RecordFiles, shape: Shape, traffic: Traffic | None = None) -> None:
        self._files, self._shape, self._traffic = files, shape, traffic or Traffic()
        self._parts: list[_Part] = []
        self._names = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (closed below)
        weakref.finalize(self, self._names.close)
        self._looked = self._damaged = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._find = functools.lru_cache(maxsize=8)(self._find_records)

    @property
    def started(self) -> bool:
        return self._thread is not None

    @property
    def progress(self) -> Progress:
        ended = self._thread is not None and not self._thread.is_alive()
        looked, records = self._looked, len(self._files)
        done = looked >= records
        return Progress(looked, records, self._damaged, done, failed=ended and not done)

    def start(self, patience_s: float = 0.0) -> Progress:
        """Begins to collect unless that has begun; waits a little, for small sets are done soon."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._collect, daemon=True)
                self._thread.start()
        self._thread.join(patience_s)
        return self.progress

    def find(self, wanted: Filter) -> Numbers:
        """The numbers of all records found so far, in order; of a text `MAX_FOUND` at most."""
        return self._find(wanted, len(self._parts))

    def _collect(self) -> None:
        offset, first = 0, 0
        for file in self._files.files:
            # Not beyond the end of a file: one that is missing costs only itself.
            for begin in range(first, first + file.records, PART_RECORDS):
                end = min(begin + PART_RECORDS, first + file.records)
                numbers = np.arange(begin, end, dtype=np.int64)
                summaries = read_summaries(self._files, numbers, self._shape)
                offset += self._add(begin, summaries, offset)
                self._traffic.let_pass()
            first += file.records

    def _add(self, first: int, summaries: Sequence[Summary], offset: int) -> int:
        names = b"".join(_fold(summary.name) + b"\n" for summary in summaries)
        os.pwrite(self._names.fileno(), names, offset)
        counts = [len(summary.labels) for summary in summaries]
        labels = [label for summary in summaries for label in summary.labels]
        kept = np.array([label if abs(label) < 1 << 31 else -1 for label in labels], np.int32)
        owners = None
        if not all(count == 1 for count in counts):
            owners = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._parts.append(_Part(first, kept, owners, offset, len(names)))
        self._damaged += sum(bool(summary.error) for summary in summaries)
        self._looked = first + len(summaries)
        return len(names)

    def _find_records(self, wanted: Filter, parts: int) -> Numbers:
        if wanted.text:
            return np.array([*self._search(wanted, parts)], np.int64)
        if wanted.label is None:
            return np.arange(self._looked, dtype=np.int64)
        found = [_select(part, wanted.label) + part.first for part in self._parts[:parts]]
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def _search(self, wanted: Filter, parts: int) -> Iterator[int]:
        needle, left = _fold(wanted.text), MAX_FOUND
        for part in self._parts[:parts]:
            rows = None if wanted.label is None else {*_select(part, wanted.label).tolist()}
            names = os.pread(self._names.fileno(), part.size, part.offset)
            for row in _find_rows(names, needle):
                if rows is None or row in rows:
                    yield part.first + row
                    left -= 1
                    if not left:
                        return


def _fold(name: str) -> bytes:
    """A name as it is searched for: neither case nor the composition of letters counts."""
    return to_bytes(fold_name(name)).replace(b"\n", b" ")


def _find_rows(names: bytes, needle: bytes) -> Iterator[int]:
    """The lines that hold a text."""
    at = row = counted = 0
    while (at := names.find(needle, at)) >= 0:
        row += names.count(b"\n", counted, at)
        yield row
        counted = at
        at = names.find(b"\n", at)  # once for each line


def _select(part: _Part, label: int) -> npt.NDArray[Any]:
    rows = np.flatnonzero(part.labels == label)
    return rows if part.owners is None else part.owners[rows]
