"""What the steps to come need of a store, fetched before it is needed.

Orders are pure functions, so which shards come next is known. As many of them as the cache holds
are fetched in the background, by a few threads; those that are there already are noted as in use,
so that none of them has to go for another.
"""

from __future__ import annotations

import collections
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from reader.arrays import Numbers
from reader.records.indexed_file import RecordFile
from reader.remote.remote_file import RemoteFile, list_remote
from reader.remote.shard_cache import Content, ShardCache
from reader.sampling.steps import Steps

FETCHERS: Final = 4
"""Threads, each with one object on its way."""

SHARDS_AHEAD: Final = 32
SAMPLED_STEPS: Final = 256
"""Of the steps to come that are looked at, by a few of their records."""

LOOKS: Final = 16
"""In the time of a horizon: how often what comes is sampled anew."""


class Outlook:
    """Fetches what the steps to come need; everything it does may fail, and is done again then.

    Args:
        files: that hold the records; some of them in a store.
        steps: of an epoch.
    """

    def __init__(self, files: Sequence[RecordFile], steps: Steps) -> None:
        self._files = files
        self._ends = np.cumsum([file.records for file in files], dtype=np.int64)
        self._cache = list_remote(files)[0].cache
        self._count = steps.count
        ahead = int(self._ends[-1]) * SHARDS_AHEAD // len(files) // steps.batch_size
        self._horizon = max(1, min(ahead, steps.count))
        self._looked = (-1, 0)
        self._wanted: collections.deque[Content] = collections.deque()
        self._busy: set[Content] = set()
        self._threads: list[threading.Thread] = []
        weakref.finalize(self, self._wanted.clear)

    def look(
        self, epoch: int, step: int, numbers: Numbers, sample: Callable[[int, list[int]], Numbers]
    ) -> None:
        """Starts to fetch what is needed next.

        Args:
            epoch: that is read.
            step: that is read.
            numbers: int64 (n,), of its records.
            sample: gives numbers of a few records of each of some steps of an epoch, in order.
        """
        looked_epoch, looked_step = self._looked
        if epoch == looked_epoch and looked_step <= step < looked_step + self._horizon // LOOKS:
            return
        self._looked = epoch, step
        stride = max(1, self._horizon // SAMPLED_STEPS)
        later = list(range(step + 1, step + self._horizon, stride))
        here = [number for number in later if number < self._count]
        samples = [sample(epoch, here)] if here else []
        if len(here) < len(later):
            samples.append(sample(epoch + 1, [n - self._count for n in later[len(here) :]]))
        self._want(np.concatenate([numbers, *samples]))

    def _want(self, numbers: Numbers) -> None:
        which = np.searchsorted(self._ends, numbers, side="right").tolist()
        needed = list(self._take_what_fits(dict.fromkeys(which)))
        # What is needed first is to be kept longest.
        missing = [content for content in reversed(needed) if not self._cache.touch(content)]
        self._wanted.clear()
        self._wanted.extend(reversed(missing))
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        while len(self._threads) < min(FETCHERS, len(missing)):
            arguments = (self._cache, self._wanted, self._busy)
            thread = threading.Thread(target=_fetch, args=arguments, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _take_what_fits(self, which: Iterable[int]) -> Iterator[Content]:
        """Shards and their indexes, as far as the cache holds all of them."""
        left = self._cache.limit_bytes
        for number in which:
            file = self._files[number]
            if isinstance(file, RemoteFile):
                left -= file.bytes + file.index_bytes
                if left < 0:
                    return
                yield file.index_content
                yield file.content


def _fetch(cache: ShardCache, wanted: collections.deque[Content], busy: set[Content]) -> None:
    """Fetches what is wanted until nothing is."""
    while wanted:
        # Errors are ignored here: the reader meets them itself.
        with contextlib.suppress(Exception):
            content = wanted.popleft()
            if content in busy:
                continue
            busy.add(content)
            try:
                os.close(cache.open(content))
            finally:
                busy.discard(content)
