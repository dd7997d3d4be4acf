"""Finds images with the same content, without reading most of the others.

Of files with the same size, both ends are read. Only files with the same ends are read whole.
"""

import concurrent.futures
import dataclasses
import itertools
import os
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from converter import progress
from converter.inventory import SKIP_RULES, SPLITS, Entry, Inventory, Note, Skipped, make_note
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.sources.originals import digest_source
from converter.storage.location import Location
from converter.storage.stores import CONNECTIONS

Sets: TypeAlias = list[list[int]]
"""Indices of entries with the same content, set by set."""

DUPLICATE_CODES: Final = ("duplicate", "duplicate_class", "duplicate_split")
END_BYTES: Final = 4_096  # read first from each end of a file: both take no longer than one seek

_MAX_SETS: Final = 1_000  # of duplicates that are named
_HASH_BYTES: Final = 16  # of a SHA-256: no one can make two files that share them

# Files that a thread is given at once, so that handing them over costs little beside hashing small
# ones. Objects are given one by one: each read is a request, and many have to be under way.
_CHUNK: Final = 256


def mark_duplicates(inventory: Inventory, root: Location, options: ConvertOptions) -> Inventory:
    """Notes images with the same content, or leaves out all but one, as `dedupe` says."""
    entries = inventory.entries
    sets = find_duplicates(entries, root, options.max_file_bytes)
    notes = (*inventory.notes, *note_duplicates(entries, sets))
    if options.dedupe == "report":
        return dataclasses.replace(inventory, notes=notes, duplicates=tuple(map(tuple, sets)))
    kept, dropped = drop_duplicates(entries, sets)
    skipped = sorted((*inventory.skipped, *dropped), key=lambda file: to_bytes(file.path))
    return dataclasses.replace(inventory, entries=kept, skipped=tuple(skipped), notes=notes)


def find_duplicates(entries: Sequence[Entry], root: Location, max_bytes: int) -> Sets:
    """Finds images with the same content, in order, but no empty, larger or unreadable ones."""
    sizes = np.fromiter((entry.size_bytes for entry in entries), np.int64, len(entries))
    values, counts = np.unique(sizes, return_counts=True)
    asked = (counts > 1) & (values > 0) & (values <= max_bytes)
    alike = np.flatnonzero(np.isin(sizes, values[asked]))
    threads = CONNECTIONS if root.is_remote else os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        progress.begin("plan", len(alike), note="looking for duplicates")
        sets = _group(alike, entries, root, END_BYTES, pool)
        small = [group for group in sets if entries[group[0]].size_bytes <= 2 * END_BYTES]
        large = [group for group in sets if entries[group[0]].size_bytes > 2 * END_BYTES]
        places = np.fromiter(itertools.chain(*large), np.int64)
        progress.begin("plan", len(places), note="comparing likely duplicates")
        return sorted([*small, *_group(places, entries, root, 0, pool)])


def _group(
    places: npt.NDArray[np.int64],
    entries: Sequence[Entry],
    root: Location,
    end_bytes: int,
    pool: concurrent.futures.Executor,
) -> Sets:
    """The sets of those entries that have the same size and the same hash."""
    # In arrays, because dictionaries, or lists of a million numbers, take ten times the memory.
    chunk = 1 if root.is_remote else _CHUNK

    def read(begin: int) -> bytes:
        return b"".join(
            digest_source(entries[place], root, end_bytes)[:_HASH_BYTES].ljust(_HASH_BYTES, b"\0")
            for place in places[begin : begin + chunk].tolist()
        )

    hashes = np.empty((2, len(places)), np.uint64)  # each half of the hashes is a row
    begins = range(0, len(places), chunk)
    for begin, data in zip(begins, pool.map(read, begins), strict=True):
        part = np.frombuffer(data, np.uint64).reshape(-1, 2).T
        hashes[:, begin : begin + chunk] = part
        progress.advance(part.shape[1])
    sizes = np.fromiter((entries[place].size_bytes for place in places), np.uint64, len(places))
    order = np.lexsort((*hashes, sizes))
    order = order[hashes[:, order].any(axis=0)]  # a hash of zeros is an image that cannot be read
    keys = np.stack((*hashes, sizes))[:, order]  # (3, images)
    begins_set = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    bounds = np.concatenate(([0], np.flatnonzero(begins_set) + 1, [len(order)]))
    alike = np.flatnonzero(np.diff(bounds) > 1)
    return [sorted(places[order[bounds[n] : bounds[n + 1]]].tolist()) for n in alike]


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
    """Makes a note about each of the first thousand sets, the gravest first."""
    notes = []
    for group in sets:
        images, code = [entries[place] for place in group], "duplicate"
        if len({(image.label, image.values) for image in images}) > 1:
            code = "duplicate_class"
        if len({image.split for image in images}) > 1:
            code = "duplicate_split"
        notes.append(make_note(code, [image.path for image in images]))
    notes.sort(key=lambda note: note.code, reverse=True)  # across splits, across classes, others
    return tuple(notes[:_MAX_SETS])
