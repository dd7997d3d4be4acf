"""Fetches shards from a store before they are needed.

Orders are pure functions, so the shards that come next are known. As many of them as the cache
holds are fetched in the background, by a few threads. Those that are here already are marked as in
use, so that none of them is removed for another.
"""

from __future__ import annotations

import collections
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from reader.arrays import Numbers
from reader.records.indexed_file import RecordFile
from reader.remote.remote_shards import list_remote
from reader.remote.shard_cache import ShardCache, StoredObject
from reader.sampling.steps import Steps

FETCHERS: Final = 4  # threads, each of which fetches one object at a time
SHARDS_AHEAD: Final = 32
SAMPLED_STEPS: Final = 256  # of the steps ahead, each by a few of its records
UPDATES: Final = 16  # how often the steps ahead are sampled while their number passes


class ShardPrefetcher:
    """Fetches the shards of the steps to come; the reader itself repeats whatever fails here.

    Args:
        files: the shards, at least one of them in a store.
        steps: of an epoch.
    """

    def __init__(self, files: Sequence[RecordFile], steps: Steps) -> None:
        self._files = files
        self._ends = np.cumsum([file.records for file in files], dtype=np.int64)
        self._cache = list_remote(files)[0].cache
        self._count = steps.count
        ahead = int(self._ends[-1]) * SHARDS_AHEAD // len(files) // steps.batch_size
        self._horizon = max(1, min(ahead, steps.count))
        self._updated = (-1, 0)
        self._wanted: collections.deque[StoredObject] = collections.deque()
        self._busy: set[StoredObject] = set()
        self._threads: list[threading.Thread] = []
        weakref.finalize(self, self._wanted.clear)

    def update(
        self, epoch: int, step: int, numbers: Numbers, sample: Callable[[int, list[int]], Numbers]
    ) -> None:
        """Starts to fetch what is needed after a step.

        Args:
            epoch: the epoch that is read.
            step: the step that is read.
            numbers: int64 (n,), the records of the step.
            sample: returns numbers of a few records of each of some steps of an epoch, in order.
        """
        last_epoch, last_step = self._updated
        if epoch == last_epoch and last_step <= step < last_step + self._horizon // UPDATES:
            return
        self._updated = epoch, step
        stride = max(1, self._horizon // SAMPLED_STEPS)
        later = list(range(step + 1, step + self._horizon, stride))
        here = [number for number in later if number < self._count]
        samples = [sample(epoch, here)] if here else []
        if len(here) < len(later):
            samples.append(sample(epoch + 1, [n - self._count for n in later[len(here) :]]))
        self._fetch_files(np.concatenate([numbers, *samples]))

    def _fetch_files(self, numbers: Numbers) -> None:
        which = np.searchsorted(self._ends, numbers, side="right").tolist()
        needed, left = [], self._cache.limit_bytes
        for file in list_remote([self._files[number] for number in dict.fromkeys(which)]):
            left -= file.total_bytes
            if left < 0:
                break
            needed += [file.index_object, file.shard_object]
        # What is needed first is touched last, and so kept longest.
        missing = [item for item in reversed(needed) if not self._cache.touch(item)]
        self._wanted.clear()
        self._wanted.extend(reversed(missing))
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        while len(self._threads) < min(FETCHERS, len(missing)):
            arguments = (self._cache, self._wanted, self._busy)
            thread = threading.Thread(target=_fetch_all, args=arguments, daemon=True)
            thread.start()
            self._threads.append(thread)


def _fetch_all(
    cache: ShardCache, wanted: collections.deque[StoredObject], busy: set[StoredObject]
) -> None:
    while wanted:
        with contextlib.suppress(Exception):  # the reader meets the same error itself
            item = wanted.popleft()
            if item in busy:
                continue
            busy.add(item)
            try:
                os.close(cache.open(item))
            finally:
                busy.discard(item)
