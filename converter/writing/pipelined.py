"""Writes shards one after the other where images or data set are far away, and never waits idly.

Three things go on at the same time: originals are on their way, also those of the shard that comes
next; one shard is converted; and the one before it is sent, with its receipt. Alone, each shard
would wait for its entries, for its first original, and for one answer after the other at its end.
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
from converter.storage.layout import Layout
from converter.writing.shard_writer import Job, Receipt, compose_shard, convert_entry

_SWITCH_S: Final = 0.0003


def is_far(job: Job) -> bool:
    """Whether anything that writing reads or writes lies in a store."""
    masks = locate_masks(job.images, job.options)
    return any(place.is_remote for place in (job.images, masks, job.out))


def write_pipelined(shards: Sequence[Shard], job: Job) -> Iterator[tuple[Receipt, Cost]]:
    """Converts the images of some shards; errors are those of `write_shard`.

    Memory is bounded by one image, those that are on their way, and 60 bytes for each entry of two
    shards; temporary files take two shards. Where a shard cannot be written, or what the next one
    needs cannot be read, those before it are finished, and the one that was begun may be.

    Yields:
        for each shard, once it is finished, its receipt and what it cost, without the time that
        nothing was done but to wait for another thread.
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
            # Before anything can fail, because nobody else would close its files.
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
    """The entries of all shards; those of the next one are asked for before they are needed."""
    fetched: Future[bytes] | None = None
    for shard, after in itertools.zip_longest(shards, shards[1:]):
        data = fetched.result() if fetched else fetch_entries(job.out, shard)
        fetched = thread.submit(fetch_entries, job.out, after) if after else None
        yield from parse_entries(data, job.out, shard)


class _Switching:
    """How many series run in this process, and how the interpreter is shared without them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.series = 0
        self.usual_s = 0.0


_switching: Final = _Switching()


@contextlib.contextmanager
def _switch_often() -> Iterator[None]:
    """Lets whoever converts have the interpreter back soon.

    Decoders work without it, and meanwhile the thread that talks to the store has it, for up to 5
    ms at once. With this, 247 images a second and not 201 came from a store 50 ms away.
    """
    with _switching.lock:
        _switching.series += 1
        if _switching.series == 1:
            _switching.usual_s = sys.getswitchinterval()
            sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        with _switching.lock:
            _switching.series -= 1
            if not _switching.series:
                sys.setswitchinterval(_switching.usual_s)
