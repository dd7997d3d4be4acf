"""Mills shards one after the other where images or data set are far away, and never waits idly.

Three things go on at the same time: originals are on their way, also those of the shard that comes
next; one shard is converted; and the one before it is sent, with its receipt. Alone, each shard
would wait for its entries, for its first original, and for one answer after the other at its end.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from converter.costs import Cost, enter, start_cost, take_cost, write_cost
from converter.entries import Entry
from converter.errors import OutputError, StoreError
from converter.milling.mill import Job, Receipt, compose_shard, convert_entry
from converter.planning.plan import Shard, read_entries
from converter.sources.originals import read_ahead
from converter.sources.pairing import locate_masks
from converter.storage.layout import Layout
from converter.storage.objects import ObjectPath

_USUAL_SWITCH_S: Final = sys.getswitchinterval()
_SWITCH_S: Final = 0.0003


def is_far(job: Job) -> bool:
    """Whether anything that milling reads or writes lies in a store."""
    masks = locate_masks(job.images, job.options)
    return any(isinstance(place, ObjectPath) for place in (job.images, masks, job.out))


def mill_series(shards: Sequence[Shard], job: Job) -> Iterator[tuple[Receipt, Cost]]:
    """Converts the images of some shards; errors are those of `mill_shard`.

    Memory is bounded by one image and those that are on their way; temporary files take two shards.
    If one cannot be written, those before it are, and those that were begun.

    Yields:
        for each shard, once it is finished, its receipt and what it cost.
    """
    with _switch_often(), ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(4) as writing:
        planned = read_ahead(
            _read_entries(shards, job, reading),
            job.images,
            locate_masks(job.images, job.options),
            job.options.max_file_bytes,
        )
        before: Callable[[], tuple[Receipt, Cost]] | None = None
        start_cost()
        for shard in shards:
            outcomes = (
                found
                for (entry, text), reads in itertools.islice(planned, shard.records)
                for found in convert_entry(entry, text, job, reads)
            )
            publish = compose_shard(shard, job, outcomes)
            # Before anything can fail, because nobody else would close its files.
            sent = _start(publish, take_cost(), shard, job, writing)
            start_cost()
            if before is not None:
                enter("write")
                yield before()
                enter("other")
            before = sent
        if before is not None:
            yield before()


@contextlib.contextmanager
def _switch_often() -> Iterator[None]:
    """Lets whoever converts have the interpreter back soon.

    Decoders work without it, and meanwhile the thread that talks to the store has it, for up to 5
    ms at once. With this, 247 images a second and not 201 came from a store 50 ms away.
    """
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(_USUAL_SWITCH_S)


def _start(
    publish: Callable[[], Receipt], cost: Cost, shard: Shard, job: Job, threads: ThreadPoolExecutor
) -> Callable[[], tuple[Receipt, Cost]]:
    """Publishes a shard in another thread; gives what waits for it."""
    receipt = threads.submit(publish)
    telling = threads.submit(_tell, cost, job, shard.name)

    def wait() -> tuple[Receipt, Cost]:
        telling.result()
        return receipt.result(), cost

    return wait


def _tell(cost: Cost, job: Job, name: str) -> None:
    # What is only told must not cost a shard that is finished.
    with contextlib.suppress(OutputError, StoreError):
        write_cost(cost, Layout(job.out), name)


def _read_entries(
    shards: Sequence[Shard], job: Job, thread: ThreadPoolExecutor
) -> Iterator[tuple[Entry, str]]:
    """The entries of all shards; those of the next one are asked for before they are needed."""
    remaining = iter(shards)
    following = thread.submit(_list_entries, job, next(remaining, None))
    while entries := following.result():
        following = thread.submit(_list_entries, job, next(remaining, None))
        yield from entries


def _list_entries(job: Job, shard: Shard | None) -> list[tuple[Entry, str]]:
    return [*read_entries(job.out, shard)] if shard else []
