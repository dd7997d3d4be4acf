"""Writes a group of shards: one after another, or all in one reading of their archive.

In series, where images or data set lie in a store, three things go on at the same time: originals
are fetched, also those of the next shard; one shard is converted; and the one before it is sent,
with its receipt. Alone, each shard would wait for its entries, for its first original, and for one
answer after another at its end.

Together, if the archive is compressed as a whole: images are converted in the order of the archive,
and their records wait in a spill file until each shard is put together in its own order. So the
archive is decompressed once for each group, whose shards are all finished at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt

from converter.costs import Cost, start_cost, take_cost, write_cost
from converter.inventory import Entry
from converter.planning.plan import Shard, fetch_entries, parse_entries, read_entries
from converter.sources.inputs import locate_masks
from converter.storage.files import Layout, describe_errors
from converter.writing.records import Outcome, pack_outcome, unpack_outcomes
from converter.writing.shard_writer import (
    Job,
    Planned,
    Receipt,
    compose_shard,
    convert_original,
    convert_planned,
    read_planned,
    write_outcomes,
)

# Decoders release the interpreter, and then the thread that talks to the store holds it for up to
# 5 ms at once. With this, 247 images a second came from a store 50 ms away, without it 201.
_SWITCH_S: Final = 0.0003
_switch_lock: Final = threading.Lock()
_usual_intervals: Final[list[float]] = []

_PIECE_BYTES: Final = 1 << 20


def deal_shards(shards: Sequence[Shard], groups: int) -> list[tuple[Shard, ...]]:
    """Deals shards out to at most `groups` groups, so that all have about the same bytes."""
    ordered = sorted(shards, key=lambda shard: (-shard.source_bytes, shard.name))
    return [tuple(ordered[first::groups]) for first in range(min(groups, len(ordered)))]


def uses_store(job: Job) -> bool:
    """Whether the images, the masks or the data set of a job lie in a store."""
    masks = locate_masks(job.images, job.options)
    return any(place.is_remote for place in (job.images, masks, job.out))


def write_pipelined(shards: Sequence[Shard], job: Job) -> Iterator[tuple[Receipt, Cost]]:
    """Writes shards in series; errors are those of `write_shard`.

    Memory is bounded by one image, those that are being fetched, and 60 bytes for each entry of two
    shards; temporary files take two shards. When a shard fails, or the entries of the next one, the
    shards before it are finished, and the one that was begun may be.

    Yields:
        for each finished shard, its receipt and its cost, without the time that was only waiting
        for another thread.
    """
    # Two threads send, because a shard is handed over before the one before it is awaited.
    with _switch_often(), ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(2) as writing:
        planned = read_planned(_read_entries(shards, job, reading), job)
        before: Future[tuple[Receipt, Cost]] | None = None
        for shard in shards:
            start_cost()
            outcomes = convert_planned(itertools.islice(planned, shard.records), job)
            publish = compose_shard(shard, job, outcomes)
            # Before anything can fail, because nothing else would close its files.
            sent = writing.submit(_send, publish, take_cost(), job, shard.name)
            if before is not None:
                yield before.result()
            before = sent
        if before is not None:
            yield before.result()


def _send(publish: Callable[[], Receipt], spent: Cost, job: Job, name: str) -> tuple[Receipt, Cost]:
    start_cost()
    receipt = publish()
    cost = spent + take_cost()
    write_cost(cost, Layout(job.out), name)
    return receipt, cost


def _read_entries(
    shards: Sequence[Shard], job: Job, thread: ThreadPoolExecutor
) -> Iterator[Planned]:
    """The entries of all shards; those of the next shard are fetched in advance."""
    fetched: Future[bytes] | None = None
    for shard, after in itertools.zip_longest(shards, shards[1:]):
        data = fetched.result() if fetched else fetch_entries(job.out, shard)
        fetched = thread.submit(fetch_entries, job.out, after) if after else None
        yield from parse_entries(data, job.out, shard)


@contextlib.contextmanager
def _switch_often() -> Iterator[None]:
    """Shortens the interpreter's switch interval while at least one of these blocks runs."""
    with _switch_lock:
        _usual_intervals.append(sys.getswitchinterval())
        sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        with _switch_lock:
            # The first block met the usual interval, whichever ends last.
            if len(_usual_intervals) == 1:
                sys.setswitchinterval(_usual_intervals[0])
            _usual_intervals.pop()


def write_together(shards: Sequence[Shard], job: Job) -> list[Receipt]:
    """Writes shards in one reading of their archive; errors are those of `write_shard`.

    Memory is bounded by one image and some 300 bytes for each image of these shards. Their records
    take room in the scratch folder until the end.
    """
    with spool_images(shards, [job]) as spooled:
        return [write_outcomes(shard, job, spooled.unpack(shard)) for shard in shards]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Spooled:
    """The outcomes of the images of some shards, in a spill file for each size.

    `places` gives each shard, by its name, the range of its images in `entries`.
    """

    entries: list[Entry]
    places: dict[str, range]
    files: list[BinaryIO]
    spans: npt.NDArray[np.int64]  # (images, sizes, 2): the first byte in the file, and how many

    def unpack(self, shard: Shard) -> Iterator[tuple[Entry, Outcome]]:
        """The outcomes of a shard's images in the first size, in the order of the shard."""
        for number in self.places[shard.name]:
            begin, size_bytes = self.spans[number, 0].tolist()
            self.files[0].seek(begin)
            yield from unpack_outcomes(self.files[0], self.entries[number], size_bytes)

    def read_packed(self, shard: Shard, size: int) -> Iterator[Iterator[bytes]]:
        """What `pack_outcome` made of each image in a size: pieces to read in order."""
        for number in self.places[shard.name]:
            yield _read_span(self.files[size], *self.spans[number, size].tolist())


@contextlib.contextmanager
def spool_images(shards: Sequence[Shard], jobs: Sequence[Job]) -> Iterator[Spooled]:
    """Converts the images of shards of the first job, in the order of the archive.

    The jobs differ only in output and size. Without room for the spill files, in the scratch folder
    or in `TMPDIR` if the output lies in a store, this raises `OutputError`.
    """
    planned = [item for shard in shards for item in read_entries(jobs[0].out, shard)]
    folder = Layout(jobs[0].out).scratch.temporary
    with contextlib.ExitStack() as stack:
        # Without a name, so that nothing is left over if this process is killed.
        files = [
            cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile(dir=folder))) for _ in jobs
        ]
        spans = np.zeros((len(planned), len(jobs), 2), np.int64)
        for number in sorted(range(len(planned)), key=lambda number: planned[number][0].place):
            spans[number, :, 0] = [file.tell() for file in files]
            for found, outcomes in convert_original(planned[number], jobs):
                for job, outcome, file in zip(jobs, outcomes, files, strict=True):
                    with describe_errors(Layout(job.out).scratch / "spool"):
                        file.writelines(pack_outcome(found, outcome))
            spans[number, :, 1] = [file.tell() for file in files] - spans[number, :, 0]
        ends = np.cumsum([shard.records for shard in shards]).tolist()
        places = {s.name: range(end - s.records, end) for s, end in zip(shards, ends, strict=True)}
        entries = [entry for entry, _ in planned]
        yield Spooled(entries=entries, places=places, files=files, spans=spans)


def _read_span(file: BinaryIO, begin: int, remaining: int) -> Iterator[bytes]:
    file.seek(begin)
    while remaining:
        piece = file.read(min(remaining, _PIECE_BYTES))
        if not piece:
            raise OSError(errno.EIO, "a temporary file is shorter than what was written to it")
        remaining -= len(piece)
        yield piece
