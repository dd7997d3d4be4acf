"""Finds images with the same content, without reading most of the others.

Of files with the same size, both ends are read. Only files with the same ends are read whole.
"""

import concurrent.futures
import dataclasses
import itertools
import resource
from array import array
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from converter import progress
from converter.entries import Entries
from converter.inventory import MAX_NAMES, SKIP_RULES, Entry, Inventory, Note, Skipped
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.sources.originals import digest_source
from converter.storage.location import Location
from converter.storage.stores import CONNECTIONS

Places: TypeAlias = npt.NDArray[np.uint32]
Sets: TypeAlias = "list[array[int]]"
"""Indices of entries with the same content, set by set."""

DUPLICATE_CODES: Final = ("duplicate", "duplicate_class", "duplicate_split")
END_BYTES: Final = 4_096  # read first from each end of a file: both take no longer than one seek

_MAX_SETS: Final = 1_000  # of duplicates that are named
_HASH_BYTES: Final = 16  # of a SHA-256: no one can make two files that share them

_CHUNK: Final = 1_024  # images that are read before it is seen whether threads are of use

_PART: Final = 1 << 20  # images
_PART_BITS: Final = 4
_PARTS: Final = 1 << _PART_BITS  # of all hashes


def mark_duplicates(inventory: Inventory, root: Location, options: ConvertOptions) -> Inventory:
    """Notes images with the same content, or leaves out all but one, as `dedupe` says."""
    entries = Entries.of(inventory.entries)
    sets = find_duplicates(entries, root, options.max_file_bytes)
    notes = (*inventory.notes, *note_duplicates(entries, sets))
    if options.dedupe == "report":
        return dataclasses.replace(inventory, notes=notes, duplicates=tuple(sets))
    kept, dropped = drop_duplicates(entries, sets)
    skipped = sorted((*inventory.skipped, *dropped), key=lambda file: to_bytes(file.path))
    return dataclasses.replace(inventory, entries=kept, skipped=tuple(skipped), notes=notes)


def find_duplicates(images: Sequence[Entry], root: Location, max_bytes: int) -> Sets:
    """Finds images with the same content, in order, but no empty, larger or unreadable ones."""
    entries = Entries.of(images)
    alike = _find_alike(entries.sizes, max_bytes)
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        progress.begin("plan", len(alike), note="looking for duplicates")
        sets = _group(alike, entries, root, END_BYTES, pool)
        is_large = [entries.sizes[group[0]] > 2 * END_BYTES for group in sets]
        large = [*itertools.compress(sets, is_large)]
        small = [group for group, skip in zip(sets, is_large, strict=True) if not skip]
        places = np.fromiter(itertools.chain(*large), np.uint32)
        progress.begin("plan", len(places), note="comparing likely duplicates")
        sets = [*small, *_group(places, entries, root, 0, pool)]
        return sorted(sets)


def _find_alike(sizes: npt.NDArray[np.int64], max_bytes: int) -> Places:
    """The files that have the size of another one."""
    ordered = np.sort(sizes)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    twice = twice[(twice > 0) & (twice <= max_bytes)]
    if not len(twice):
        return np.empty(0, np.uint32)
    # In parts: NumPy makes numbers of eight bytes on the way.
    parts = []
    for begin in range(0, len(sizes), _PART):
        part = sizes[begin : begin + _PART]
        found = np.minimum(np.searchsorted(twice, part), len(twice) - 1)
        parts.append((np.flatnonzero(twice[found] == part) + begin).astype(np.uint32))
    return np.concatenate(parts)


def _group(
    places: Places,
    entries: Entries,
    root: Location,
    end_bytes: int,
    pool: concurrent.futures.Executor,
) -> Sets:
    """The sets of those entries that have the same size and the same hash."""
    # In arrays, because dictionaries, or lists of a million numbers, take ten times the memory.
    hashes = np.empty((len(places), 2), np.uint64)
    waits = root.is_remote

    def read(place: int) -> bytes:
        digest = digest_source(entries[place], root, end_bytes)
        return digest[:_HASH_BYTES].ljust(_HASH_BYTES, b"\0")

    for begin in range(0, len(places), _CHUNK):
        part = places[begin : begin + _CHUNK].tolist()
        waits_before = _count_waits()
        data = b"".join(pool.map(read, part) if waits else map(read, part))
        hashes[begin : begin + len(part)] = np.frombuffer(data, np.uint64).reshape(-1, 2)
        # Threads that need not wait for a disk take turns, and 1.7 times as long as one alone.
        waits |= _count_waits() - waits_before > len(part) / 2
        progress.advance(len(part))
    sets: Sets = []
    # A part at a time, by the first bits of the hash: sorting takes 50 bytes for each hash in it.
    numbers = (hashes[:, 0] >> np.uint64(64 - _PART_BITS)).astype(np.uint8)
    for number in range(_PARTS):
        chosen = np.flatnonzero(numbers == number)
        sets += _find_sets(hashes[chosen], places[chosen], entries.sizes)
    return sets


def _count_waits() -> int:
    """How often this thread has waited, as for a disk; always 0 where the system does not say."""
    whose = getattr(resource, "RUSAGE_THREAD", None)  # of Linux alone
    return 0 if whose is None else resource.getrusage(whose).ru_nvcsw


def _find_sets(
    hashes: npt.NDArray[np.uint64], places: Places, sizes: npt.NDArray[np.int64]
) -> Sets:
    """The sets of places with one hash and one size; hashes are uint64 (images, 2)."""
    keys = np.stack((*hashes.T, sizes[places].astype(np.uint64)))
    order = np.lexsort(keys)
    order = order[keys[:2, order].any(axis=0)]  # a hash of zeros is an image that cannot be read
    keys = keys[:, order]
    begins_set = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    bounds = np.concatenate(([0], np.flatnonzero(begins_set) + 1, [len(order)]))
    alike = np.flatnonzero(np.diff(bounds) > 1)
    found = (np.sort(places[order[bounds[n] : bounds[n + 1]]]) for n in alike)
    return [array("I", group.tobytes()) for group in found]


def drop_duplicates(entries: Entries, sets: Sets) -> tuple[Entries, tuple[Skipped, ...]]:
    """Keeps the first image of each set, but one of a held-out split before one of `train`."""
    dropped: dict[int, int] = {}
    for group in sets:
        splits = np.maximum(entries.splits[group], 0)  # none given is as good as `train`
        kept = group[int(splits.argmax())]  # the first of several in the same split
        dropped |= {place: kept for place in group.tolist() if place != kept}
    code, rule = "skipped_duplicate", SKIP_RULES["skipped_duplicate"]
    skipped = (
        Skipped(entries.paths[place], code, f"{rule}: {entries.paths[dropped[place]]}")
        for place in sorted(dropped)
    )
    kept_ones = np.delete(np.arange(len(entries), dtype=np.uint32), [*dropped])
    return entries.take(kept_ones) if dropped else entries, tuple(skipped)


def note_duplicates(entries: Entries, sets: Sequence[Sequence[int]]) -> tuple[Note, ...]:
    """Makes a note about each of the first thousand sets, the gravest first."""
    labels, splits = entries.labels.data, entries.splits.data
    values, notes = entries.find("values"), []
    for places in sets:
        code = "duplicate"
        if len({(labels[n], values and values[n]) for n in places}) > 1:
            code = "duplicate_class"
        if len({splits[n] for n in places}) > 1:
            code = "duplicate_split"
        first = tuple(entries.paths[n] for n in places[:MAX_NAMES])
        notes.append(Note(code, first, len(places)))
    notes.sort(key=lambda note: note.code, reverse=True)  # across splits, across classes, others
    return tuple(notes[:_MAX_SETS])
