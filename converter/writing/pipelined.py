"""Writes shards one after another where images or data set lie in a store, without idle waits.

Three things go on at the same time: originals are fetched, also those of the next shard; one shard
is converted; and the one before it is sent, with its receipt. Alone, each shard would wait for its
entries, for its first original, and for one answer after another at its end.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from converter.costs import Cost, start_cost, take_cost, write_cost
from converter.inventory import Entry
from converter.planning.plan import Shard, fetch_entries, parse_entries
from converter.sources.inputs import locate_masks
from converter.sources.originals import read_ahead
from converter.storage.files import Layout
from converter.writing.shard_writer import Job, Receipt, compose_shard, convert_entry

# Decoders release the interpreter, and then the thread that talks to the store holds it for up to
# 5 ms at once. With this, 247 images a second came from a store 50 ms away, without it 201.
_SWITCH_S: Final = 0.0003
_switch_lock: Final = threading.Lock()
_usual_intervals: Final[list[float]] = []


def uses_store(job: Job) -> bool:
    """Whether the images, the masks or the data set of a job lie in a store."""
    masks = locate_masks(job.images, job.options)
    return any(place.is_remote for place in (job.images, masks, job.out))


def write_pipelined(shards: Sequence[Shard], job: Job) -> Iterator[tuple[Receipt, Cost]]:
    """Converts the images of some shards; errors are those of `write_shard`.

    Memory is bounded by one image, those that are being fetched, and 60 bytes for each entry of two
    shards; temporary files take two shards. When a shard fails, or the entries of the next one, the
    shards before it are finished, and the one that was begun may be.

    Yields:
        for each finished shard, its receipt and its cost, without the time that was only waiting
        for another thread.
    """
    with _switch_often(), ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(2) as writing:
        planned = read_ahead(
            _read_entries(shards, job, reading),
            job.images,
            locate_masks(job.images, job.options),
            job.options.max_file_bytes,
        )
        before: Future[tuple[Receipt, Cost]] | None = None
        for shard in shards:
            start_cost()
            outcomes = (
                found
                for (entry, text), reads in itertools.islice(planned, shard.records)
                for found in convert_entry(entry, text, job, reads)
            )
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
) -> Iterator[tuple[Entry, str]]:
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
