"""Writes a group of shards: one after another, or all in one reading of their archive.

In series, where images or data set lie in a store, three things go on at the same time: originals
are fetched, also those of the next shard; one shard is converted; and the one before it is sent,
with its receipt. Alone, each shard would wait for its entries, for its first original, and for one
answer after another at its end.

Together, if images can only be read one after another: they are converted in the order of their
files, and their records wait in a spill file until each shard is put together in its own order. So
an archive is decompressed once for each group, whose shards are all finished at the end.
"""

import contextlib
import errno
import itertools
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Final, cast

import numpy as np

from converter.costs import Cost, start_cost, take_cost, write_cost
from converter.inventory import Entry
from converter.planning.plan import Shard, fetch_entries, parse_entries, read_entries
from converter.sources.containers import locate_part
from converter.sources.inputs import locate_masks
from converter.storage.files import Layout, describe_errors
from converter.writing.records import Frames, pack_outcome, unpack_outcomes
from converter.writing.shard_writer import (
    Job,
    Planned,
    Receipt,
    compose_shard,
    convert_images,
    convert_original,
    write_images,
)

# Decoders release the interpreter, and then the thread that talks to the store holds it for up to
# 5 ms at once. With this, 247 images a second came from a store 50 ms away, without it 201.
_SWITCH_S: Final = 0.0003
_switch_lock: Final = threading.Lock()
_usual_intervals: Final[list[float]] = []


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
    shards before it are finished, and the one that was begun may be. Time that was only waiting for
    another thread is not part of the cost.
    """
    # Two threads send, because a shard is handed over before the one before it is awaited.
    with _switch_often(), ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(2) as writing:
        images = convert_images(_read_entries(shards, job, reading), [job])
        before: Future[tuple[Receipt, Cost]] | None = None
        for shard in shards:
            start_cost()
            publish = compose_shard(shard, job, itertools.islice(images, shard.records))
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
    """Writes shards in one reading of their images; errors are those of `write_shard`.

    Memory is bounded by one image and some 300 bytes for each image of these shards. Their records
    take room in the scratch folder until the end.
    """
    with open_images(shards, [job]) as read_images:
        return [write_images(shard, job, read_images(shard)) for shard in shards]


@contextlib.contextmanager
def open_images(
    shards: Sequence[Shard], jobs: Sequence[Job]
) -> Iterator[Callable[[Shard], Iterator[Frames]]]:
    """Gives a function that converts the images of a shard, in its order.

    The jobs differ only in output and size. Images that are read in order are all converted here.
    Without room for the spill files, in the scratch folder or in `TMPDIR` if the output lies in a
    store, this raises `OutputError`.
    """
    if not jobs[0].in_order:
        yield lambda shard: convert_images(read_entries(jobs[0].out, shard), jobs)
        return
    planned = [item for shard in shards for item in read_entries(jobs[0].out, shard)]
    folder = Layout(jobs[0].out).scratch.temporary
    with contextlib.ExitStack() as stack:
        # Without a name, so that nothing is left over if this process is killed.
        files: list[BinaryIO] = []
        stack.callback(_close, files)
        for _ in jobs:
            opened = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed above)
            files.append(cast("BinaryIO", opened))
        # (images, sizes, 2): the first byte in the file of a size, and the number of bytes
        spans = np.zeros((len(planned), len(jobs), 2), np.int64)
        parts = [locate_part(entry) for entry, _ in planned]
        for number in sorted(range(len(planned)), key=parts.__getitem__):
            spans[number, :, 0] = [file.tell() for file in files]
            for found, outcomes in convert_original(planned[number], jobs):
                for job, outcome, file in zip(jobs, outcomes, files, strict=True):
                    with describe_errors(Layout(job.out).scratch / "spool"):
                        file.writelines(pack_outcome(found, outcome))
            spans[number, :, 1] = [file.tell() for file in files] - spans[number, :, 0]
        for job, file in zip(jobs, files, strict=True):
            with describe_errors(Layout(job.out).scratch / "spool"):
                file.flush()
        ends = np.cumsum([shard.records for shard in shards]).tolist()
        places = {s.name: slice(end - s.records, end) for s, end in zip(shards, ends, strict=True)}

        def read_images(shard: Shard) -> Iterator[Frames]:
            place = places[shard.name]
            for (entry, _), lies in zip(planned[place], spans[place].tolist(), strict=True):
                yield _unpack_image(entry, files, lies)

        yield read_images


def _close(files: Sequence[BinaryIO]) -> None:
    for file in files:
        # A full disk, which was said when it was written to, does not take what is left either.
        with contextlib.suppress(OSError):
            file.close()


def _unpack_image(entry: Entry, files: Sequence[BinaryIO], spans: list[list[int]]) -> Frames:
    packed = []
    for file, (begin, size_bytes) in zip(files, spans, strict=True):
        file.seek(begin)
        if os.fstat(file.fileno()).st_size < begin + size_bytes:
            message = "a temporary file is shorter than what was written to it"
            raise OSError(errno.EIO, message)
        packed.append(unpack_outcomes(file, entry, size_bytes))
    # Frame by frame, so that no more than one of them is in memory.
    for frame in zip(*packed, strict=True):
        yield frame[0][0], [outcome for _, (outcome,) in frame]
