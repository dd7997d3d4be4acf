"""Several files at once, in whatever folders they lie."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from converter.storage.location import Location


def choose_threads(*places: Location | None) -> int:
    """How many files to read at the same time: one a core, more if any place is a store."""
    return max(place.concurrency for place in places if place is not None)


def read_files(paths: Iterable[Location]) -> Iterator[bytes]:
    """The content of small files, in order; those of a store are fetched at the same time.

    Raises:
        OSError: one cannot be read.
        StoreError: the store does not answer, or refuses.
    """
    for folder, group in itertools.groupby(paths, lambda path: path.parent):
        yield from folder.read_files(path.name for path in group)


def remove_files(paths: Iterable[Location]) -> None:
    """Removes files, as far as they are there.

    Raises:
        OSError: one cannot be removed.
        StoreError: the store does not answer, or refuses.
    """
    for folder, group in itertools.groupby(paths, lambda path: path.parent):
        folder.remove_files(path.name for path in group)
