"""Requests to object stores, made as often as it takes.

What fails as it may not fail the next time is asked again, after a pause that grows and is never
the same. When that has taken too long, there is one error.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple, TypeVar

from converter.errors import StoreError, UsageError
from converter.storage.gcs import GcsStore
from converter.storage.s3 import S3Store
from converter.storage.stores import CONNECTIONS, Store, TransientError, shorten

PATIENCE_VARIABLE: Final = "SHARDMILL_STORE_SECONDS"
"""Environment: how long a store may fail before that is an error."""

_PATIENCE_S: Final = 120.0
_LONGEST_PATIENCE_S: Final = 86_400
_SLOWEST_BYTES_PER_S: Final = 100_000
_LONGEST_ANSWER_S: Final = 20.0
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 10.0

_T = TypeVar("_T")


class _Opened(NamedTuple):
    store: Store
    gate: asyncio.Semaphore


_opened: dict[tuple[str, float], _Opened] = {}
"""By scheme, and by how long an answer may take."""

_lock = threading.Lock()


def _forget() -> None:
    """A forked process has none of the connections, nor the thread that serves them."""
    global _lock  # noqa: PLW0603 (whoever held it is not here)
    _lock = threading.Lock()
    _opened.clear()


os.register_at_fork(after_in_child=_forget)


def _open(scheme: str) -> _Opened:
    answer_s = min(_LONGEST_ANSWER_S, read_patience() / 6)
    with _lock:
        if (scheme, answer_s) not in _opened:
            store = open_store(scheme, answer_s)
            _opened[scheme, answer_s] = _Opened(store, asyncio.Semaphore(CONNECTIONS))
        return _opened[scheme, answer_s]


def open_early(scheme: str) -> None:
    """Imports what requests to a kind of store need: half a second before the first one.

    Raises:
        UsageError: a package is not installed.
        StoreError: there are no usable credentials.
    """
    _open(scheme)


def start(
    scheme: str, act: Callable[[Store], Coroutine[Any, Any, _T]]
) -> concurrent.futures.Future[_T]:
    """Lets something be asked of a store, and does not wait for it.

    A process has `CONNECTIONS` of these under way; more of them wait here.

    Args:
        scheme: `s3` or `gs`.
        act: asks it.

    Returns:
        what can be waited for, or cancelled.
    """
    opened = _open(scheme)

    async def run() -> _T:
        async with opened.gate:
            return await act(opened.store)

    return asyncio.run_coroutine_threadsafe(run(), opened.store.loop)


def wait(future: concurrent.futures.Future[_T]) -> _T:
    """What comes of a request."""
    try:
        return future.result()
    finally:
        future.cancel()  # if it is a signal that ends the waiting


async def retry(
    address: object,
    request: Callable[[], Awaitable[_T]],
    size: int = 0,
    progress: Callable[[], int] = lambda: 0,
) -> _T:
    """Makes a request until it succeeds, is refused, or has failed for too long.

    Args:
        address: what it is about.
        request: makes it once.
        size: how many bytes are sent.
        progress: how many bytes have come. With more of them, patience begins anew.
    """
    patience = read_patience() + size / _SLOWEST_BYTES_PER_S
    began = moved = time.monotonic()
    first = seen = progress()
    tries = 0
    while True:
        try:
            return await asyncio.wait_for(request(), patience)
        except FileNotFoundError as error:
            raise describe_missing(address) from error
        except (TransientError, asyncio.TimeoutError) as error:
            failure: Exception = error
        now, tries = time.monotonic(), tries + 1
        if progress() > seen:
            seen, moved, tries = progress(), now, 0
        slow = now - began - (seen - first) / _SLOWEST_BYTES_PER_S
        if max(now - moved, slow) > patience:
            what = str(failure) or "no answer"
            raise StoreError(
                f"{address} cannot be reached for {now - began:.0f} s: {what}; check "
                f"the network and the store, or be more patient with {PATIENCE_VARIABLE}"
            ) from failure
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(tries, 10), patience / 10)
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 (keeps callers apart)


def read_patience() -> float:
    """For how many seconds a store may fail, or say nothing, before that is an error.

    Raises:
        UsageError: the environment says something that is no such number.
    """
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


def open_store(scheme: str, timeout_s: float) -> Store:
    """The store of an address.

    Args:
        scheme: `s3` or `gs`.
        timeout_s: how long it may say nothing in the middle of a request.

    Raises:
        UsageError: the package that it needs is not installed.
        StoreError: there are no usable credentials.
    """
    try:
        return S3Store(timeout_s) if scheme == "s3" else GcsStore(timeout_s)
    except UsageError:
        raise
    except Exception as error:
        raise StoreError(f"{scheme}:// cannot be opened: {shorten(error)}") from error


def describe_missing(address: object) -> FileNotFoundError:
    """There is no object of that name."""
    return FileNotFoundError(errno.ENOENT, "there is no such object", str(address))
