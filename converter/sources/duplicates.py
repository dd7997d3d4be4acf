"""Finds images with the same content, without reading most of the others.

Of files with the same size, both ends are read. Only files with the same ends are read whole.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from converter.inventory import MAX_NAMES, SKIP_RULES, SPLITS, Entry, Note, Skipped
from converter.storage.stores import CONNECTIONS

Sets: TypeAlias = list[list[int]]
"""Indices of entries with the same content, set by set."""

END_BYTES: Final = 4_096
"""Read first from each end of a file: both take no longer than one seek."""

MAX_SETS: Final = 1_000
"""Sets of duplicates that are named."""

DUPLICATE_CODES: Final = ("duplicate", "duplicate_class", "duplicate_split")

_HASH_BYTES: Final = 16
"""Of a SHA-256 that are compared: no one can make two files that share them."""

_CHUNK: Final = 256

Digest: TypeAlias = Callable[[Entry, int], bytes]
"""Hashes both ends of an image, or all of it, as `originals.digest_source` does; called from
several threads."""


def find_duplicates(entries: Sequence[Entry], digest: Digest, *, remote: bool = False) -> Sets:
    """Finds images with the same content, apart from empty and unreadable ones.

    With `remote`, each read takes a request, so many are under way at the same time. The sets and
    the indices in each are in order.
    """
    sizes = np.fromiter((entry.size_bytes for entry in entries), np.int64, len(entries))
    values, counts = np.unique(sizes, return_counts=True)
    alike = np.flatnonzero(np.isin(sizes, values[(counts > 1) & (values > 0)]))
    threads, chunk = (CONNECTIONS, 1) if remote else (os.cpu_count(), _CHUNK)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        sets = _group(alike, entries, digest, END_BYTES, pool=pool, chunk=chunk)
        small = [group for group in sets if entries[group[0]].size_bytes <= 2 * END_BYTES]
        large = [group for group in sets if entries[group[0]].size_bytes > 2 * END_BYTES]
        places = np.fromiter(itertools.chain(*large), np.int64)
        return sorted([*small, *_group(places, entries, digest, 0, pool=pool, chunk=chunk)])


def drop_duplicates(
    entries: Sequence[Entry], sets: Sets
) -> tuple[tuple[Entry, ...], tuple[Skipped, ...]]:
    """Keeps the first image of each set, but one of a held-out split before one of `train`."""
    dropped: dict[int, int] = {}
    for group in sets:
        # Of several in the same split, `max` takes the first.
        kept = max(group, key=lambda place: SPLITS.index(entries[place].split or SPLITS[0]))
        dropped |= {place: kept for place in group if place != kept}
    code, rule = "skipped_duplicate", SKIP_RULES["skipped_duplicate"]
    skipped = (
        Skipped(entries[place].path, code, f"{rule}: {entries[dropped[place]].path}")
        for place in sorted(dropped)
    )
    kept_ones = (entry for place, entry in enumerate(entries) if place not in dropped)
    return tuple(kept_ones), tuple(skipped)


def note_duplicates(entries: Sequence[Entry], sets: Sequence[Sequence[int]]) -> tuple[Note, ...]:
    """Makes a note about each of the first `MAX_SETS` sets, the gravest first.

    Args:
        entries: the images.
        sets: indices into `entries` of images with the same content.
    """
    notes = [_note_set([entries[place] for place in group]) for group in sets]
    notes.sort(key=lambda note: note.code, reverse=True)  # across splits, across classes, others
    return tuple(notes[:MAX_SETS])


def _note_set(group: Sequence[Entry]) -> Note:
    code = "duplicate"
    if len({(entry.label, entry.values) for entry in group}) > 1:
        code = "duplicate_class"
    if len({entry.split for entry in group}) > 1:
        code = "duplicate_split"
    return Note(code, tuple(entry.path for entry in group[:MAX_NAMES]), len(group))


def _group(
    places: npt.NDArray[np.int64],
    entries: Sequence[Entry],
    digest: Digest,
    end_bytes: int,
    *,
    pool: concurrent.futures.Executor,
    chunk: int,
) -> Sets:
    """The sets of those entries that have the same size and the same hash."""
    # In arrays, because dictionaries, or lists of a million numbers, take ten times the memory.

    def read(begin: int) -> bytes:
        return b"".join(
            digest(entries[place], end_bytes)[:_HASH_BYTES].ljust(_HASH_BYTES, b"\0")
            for place in places[begin : begin + chunk].tolist()
        )

    hashes = np.empty((2, len(places)), np.uint64)
    begins = range(0, len(places), chunk)
    for begin, data in zip(begins, pool.map(read, begins), strict=True):
        hashes[:, begin : begin + chunk] = np.frombuffer(data, np.uint64).reshape(-1, 2).T
    sizes = np.fromiter((entries[place].size_bytes for place in places), np.uint64, len(places))
    order = np.lexsort((*hashes, sizes))
    order = order[hashes[:, order].any(axis=0)]
    starts = np.ones(len(order) + 1, bool)
    starts[1:-1] = False
    for numbers in (*hashes, sizes):
        starts[1:-1] |= numbers[order[1:]] != numbers[order[:-1]]
    bounds = np.flatnonzero(starts)
    alike = np.flatnonzero(np.diff(bounds) > 1)
    return [sorted(places[order[bounds[n] : bounds[n + 1]]].tolist()) for n in alike]
