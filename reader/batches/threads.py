"""Threads that fill batches: several ahead of the caller, and several for one batch."""

import collections
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np

from reader.arrays import Array

T = TypeVar("T")
U = TypeVar("U")
NAME = "shardmill"  # of these threads, as a debugger or `py-spy` shows them


def run_ahead(compute: Callable[[T], U], items: Iterable[T], calls: int, ahead: int) -> Iterator[U]:
    """Yields `compute(item)` for each item, in order, run by threads ahead of need.

    There are `calls` threads, which end with the iterator, and up to `ahead` results that wait. An
    exception is raised in place of a result.
    """
    threads, process = ThreadPoolExecutor(calls, NAME), os.getpid()
    is_finalizing = sys.is_finalizing  # `sys` may be emptied by then
    waiting: collections.deque[tuple[T, Future[U]]] = collections.deque()
    coming = iter(items)
    try:
        for item in coming:
            waiting.append((item, threads.submit(compute, item)))
            if len(waiting) >= calls + ahead:
                yield waiting.popleft()[1].result()
                if process != os.getpid():
                    break
        while waiting and process == os.getpid():
            yield waiting.popleft()[1].result()
    finally:
        # In a fork, locks that they held are never released. At exit, all have been joined already.
        if not is_finalizing() and process == os.getpid():
            threads.shutdown(wait=True, cancel_futures=True)
    if process != os.getpid():  # threads do not survive a fork: what they had ahead is done again
        left = [item for item, _ in waiting]
        yield from run_ahead(compute, itertools.chain(left, coming), calls, ahead)


class Team:
    """Threads that share the records of each batch; with a `size` of 1, the caller does it all."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._threads: ThreadPoolExecutor | None = None
        self._process = 0

    def run(self, function: Callable[..., None], *columns: Array) -> None:
        """Calls a function with equal parts of arrays; raises its error once all have ended."""
        if self._size == 1:
            function(*columns)
            return
        parts = zip(*(np.array_split(column, self._size) for column in columns), strict=True)
        futures: list[Future[Any]] = [
            self._start().submit(function, *part) for part in parts if len(part[0])
        ]
        wait(futures)
        for future in futures:
            future.result()

    def _start(self) -> ThreadPoolExecutor:
        if self._threads is None or self._process != os.getpid():
            # They end when nothing refers to their executor any more.
            self._threads, self._process = ThreadPoolExecutor(self._size, NAME), os.getpid()
        return self._threads
