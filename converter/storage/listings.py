"""What a store holds below a prefix, listed in parts at the same time.

An answer has up to 1000 objects, and only it tells how to ask for the next one: a million objects
would be a thousand round trips, one after the other. What lies below each part of the prefix, such
as a folder of a class, can be asked for beside the others.
"""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Iterator
from typing import Final

from converter.storage.requests import retry, start, wait
from converter.storage.stores import Found, Page, Store

_AHEAD: Final = 16
"""Parts that are asked for before they are needed."""


def list_below(scheme: str, bucket: str, prefix: str) -> Iterator[Found]:
    """All objects whose keys begin with a prefix, in the order of their keys, as answers come in.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    for page in _list_pages(scheme, bucket, prefix, nested=False):
        yield from _expand(scheme, bucket, page)


def list_level(scheme: str, bucket: str, prefix: str) -> Iterator[Found | str]:
    """The objects right below a prefix, and the names of what goes deeper.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    for page in _list_pages(scheme, bucket, prefix, nested=False):
        yield from (found for found in page.objects if not found.key.endswith("/"))
        yield from (deeper[len(prefix) :].rstrip("/") for deeper in page.prefixes)


def has_any(scheme: str, bucket: str, prefix: str) -> bool:
    """Whether any object's key begins with a prefix.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    page = wait(_start_page(scheme, bucket, prefix, nested=False))
    return bool(page.objects or page.prefixes)


def _expand(scheme: str, bucket: str, page: Page) -> Iterator[Found]:
    """The objects of one answer and those below its prefixes, in the order of their keys."""
    objects, prefixes = deque(page.objects), deque(page.prefixes)
    ahead: deque[concurrent.futures.Future[Page]] = deque()
    try:
        for prefix in page.prefixes:
            while prefixes and len(ahead) < _AHEAD:
                ahead.append(_start_page(scheme, bucket, prefixes.popleft(), nested=True))
            while objects and objects[0].key < prefix:
                yield objects.popleft()
            first = ahead.popleft()
            for inner in _list_pages(scheme, bucket, prefix, nested=True, first=first):
                yield from inner.objects
        yield from objects
    finally:
        for future in ahead:
            future.cancel()


def _list_pages(
    scheme: str,
    bucket: str,
    prefix: str,
    *,
    nested: bool,
    first: concurrent.futures.Future[Page] | None = None,
) -> Iterator[Page]:
    """All answers to a listing; the next is under way while one is looked at."""
    following = first or _start_page(scheme, bucket, prefix, nested=nested)
    try:
        while True:
            page = wait(following)
            if page.token is None:
                yield page
                return
            following = _start_page(scheme, bucket, prefix, nested=nested, token=page.token)
            yield page
    finally:
        following.cancel()


def _start_page(
    scheme: str, bucket: str, prefix: str, *, nested: bool, token: str | None = None
) -> concurrent.futures.Future[Page]:
    async def list_page(store: Store) -> Page:
        return await store.list(bucket, prefix, nested=nested, token=token)

    address = f"{scheme}://{bucket}/{prefix}"
    return start(scheme, lambda store: retry(address, lambda: list_page(store)))
