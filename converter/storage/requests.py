"""Repeats requests to object stores, after growing pauses, until they succeed or take too long."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from converter.errors import StoreError, UsageError
from converter.storage.gcs import GcsStore
from converter.storage.s3 import S3Store
from converter.storage.stores import Store, TransientError, shorten

if TYPE_CHECKING:  # which is built on this
    from converter.storage.objects import ObjectPath

# In the environment: how long a store may fail before that is an error.
PATIENCE_VARIABLE: Final = "SHARDMILL_STORE_SECONDS"
_PATIENCE_S: Final = 120.0
_LONGEST_PATIENCE_S: Final = 86_400
_SLOWEST_BYTES_PER_S: Final = 100_000
_LONGEST_ANSWER_S: Final = 20.0
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 10.0

_T = TypeVar("_T")

# By scheme, and by how long an answer may take: patience may change while a process runs.
opened: dict[tuple[str, float], Store] = {}
_lock = threading.Lock()


def _forget() -> None:
    global _lock  # noqa: PLW0603 (its holder may not exist in this process)
    _lock = threading.Lock()
    opened.clear()


# A forked process has neither the connections nor the thread that serves them.
os.register_at_fork(after_in_child=_forget)


def open_store(scheme: str) -> Store:
    """Opens a kind of store, `s3` or `gs`, once per process; its imports take half a second.

    Raises UsageError if a package is not installed, StoreError without usable credentials.
    """
    # So short that several answers may fail to come before patience ends.
    answer_s = min(_LONGEST_ANSWER_S, read_patience() / 6)
    with _lock:
        if (scheme, answer_s) not in opened:
            try:
                kind = S3Store if scheme == "s3" else GcsStore
                opened[scheme, answer_s] = kind(answer_s)
            except UsageError:
                raise
            except Exception as error:
                raise StoreError(f"{scheme}:// cannot be opened: {shorten(error)}") from error
        return opened[scheme, answer_s]


def start(
    address: ObjectPath,
    request: Callable[[Store], Awaitable[_T]],
    *,
    size: int = 0,
    progress: Callable[[], int] = lambda: 0,
) -> concurrent.futures.Future[_T]:
    """Starts a request about an object; more than `CONNECTIONS` of them queue.

    Patience grows with the `size` that is sent, and starts over when `progress`, the number of
    bytes received, has grown. The future raises FileNotFoundError for a missing object, and
    StoreError if the store refuses or has failed for too long.
    """
    store = open_store(address.scheme)
    retrying = _retry(store, address, request, size, progress)
    return asyncio.run_coroutine_threadsafe(retrying, store.loop)


def wait(future: concurrent.futures.Future[_T]) -> _T:
    """Waits for the outcome of a request."""
    try:
        return future.result()
    finally:
        future.cancel()  # if a signal ends the waiting


async def _retry(
    store: Store,
    address: ObjectPath,
    request: Callable[[Store], Awaitable[_T]],
    size: int,
    progress: Callable[[], int],
) -> _T:
    async with store.gate:
        patience, tries = read_patience() + size / _SLOWEST_BYTES_PER_S, 0
        began = moved = time.monotonic()
        first = seen = progress()
        while True:
            try:
                return await asyncio.wait_for(request(store), patience)
            except FileNotFoundError as error:
                message = "there is no such object"
                raise FileNotFoundError(errno.ENOENT, message, str(address)) from error
            except (TransientError, asyncio.TimeoutError) as error:
                failure: Exception = error
            now, tries = time.monotonic(), tries + 1
            if progress() > seen:
                seen, moved, tries = progress(), now, 0
            # A store that sends a few bytes each time would never be given up.
            slow = now - began - (seen - first) / _SLOWEST_BYTES_PER_S
            if max(now - moved, slow) > patience:
                what = str(failure) or "no answer"
                raise StoreError(
                    f"{address} cannot be reached for {now - began:.0f} s: {what}; check the "
                    f"network and the store, or be more patient with {PATIENCE_VARIABLE}"
                ) from failure
            pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(tries, 10), patience / 10)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 (keeps callers apart)


def read_patience() -> float:
    """Reads for how many seconds a store may fail, or say nothing, before that is an error."""
    text = os.environ.get(PATIENCE_VARIABLE, "")
    try:
        seconds = float(text) if text else _PATIENCE_S
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < _LONGEST_PATIENCE_S:
        raise UsageError(
            f"{PATIENCE_VARIABLE} is {text!r}: give a number of seconds, up to "
            f"{_LONGEST_PATIENCE_S}"
        )
    return seconds
