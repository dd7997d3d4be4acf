"""Finds images with the same content, without reading most of the others.

Of files with the same size, both ends are read. Only files with the same ends are read whole.
"""

import concurrent.futures
import dataclasses
import heapq
import itertools
import resource
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from converter import progress
from converter.entries import Entries
from converter.entry_columns import Numbers, Places, deal, list_repeated
from converter.inventory import MAX_NAMES, SKIP_RULES, Entry, Inventory, Note, Skipped
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.sources.originals import digest_source
from converter.storage.location import Location
from converter.storage.stores import CONNECTIONS

Sizes: TypeAlias = Numbers
Sets: TypeAlias = "list[array[int]]"
"""Indices of entries with the same content, set by set."""

DUPLICATE_CODES: Final = ("duplicate", "duplicate_class", "duplicate_split")  # the gravest last
END_BYTES: Final = 4_096  # read first from each end of a file: both take no longer than one seek

_MAX_SETS: Final = 1_000  # of duplicates that are named
_HASH_BYTES: Final = 16  # of a SHA-256: no one can make two files that share them

_CHUNK: Final = 1_024  # images that are read before it is seen whether threads are of use

_PART: Final = 1 << 20  # images
_PART_BITS: Final = 4  # of the hashes that are sorted at once


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
    shared = find_shared(np.sort(entries.sizes), max_bytes)
    alike = find_alike(entries.sizes, shared)
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        progress.begin("plan", len(alike), note="looking for duplicates")
        sets = _group(alike, entries, root, END_BYTES, pool)
        return confirm_sets(sets, entries, root, pool)


def confirm_sets(
    sets: Sets, entries: Entries, root: Location, pool: concurrent.futures.Executor
) -> Sets:
    """Compares images whose ends are the same whole, if they have more; in order."""
    is_large = [entries.sizes[group[0]] > 2 * END_BYTES for group in sets]
    large = [*itertools.compress(sets, is_large)]
    small = [group for group, skip in zip(sets, is_large, strict=True) if not skip]
    places = np.fromiter(itertools.chain(*large), np.uint32)
    progress.begin("plan", len(places), note="comparing likely duplicates")
    return sorted([*small, *_group(places, entries, root, 0, pool)])


def find_shared(ordered: Sizes, max_bytes: int) -> Sizes:
    """The sizes that occur twice among these in order, but of no empty or larger files."""
    twice: Sizes = np.unique(list_repeated(ordered))
    return twice[(twice > 0) & (twice <= max_bytes)]


def find_alike(sizes: Sizes, twice: Sizes) -> Places:
    """The files that have one of the sizes that are shared."""
    if not (len(twice) and len(sizes)):
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
    hashes = hash_images(places, entries, root, end_bytes, pool)
    sets: Sets = []
    # A part at a time, by the first bits of the hash: sorting takes 50 bytes for each hash in it.
    numbers = deal(hashes[:, 0], _PART_BITS)
    for number in range(1 << _PART_BITS):
        chosen = np.flatnonzero(numbers == number)
        sets += find_sets(hashes[chosen], places[chosen], entries.sizes)
    return sets


def hash_images(
    places: Places,
    entries: Entries,
    root: Location,
    end_bytes: int,
    pool: concurrent.futures.Executor,
) -> npt.NDArray[np.uint64]:
    """Hashes of both ends of some images, or of all for 0 bytes: (images, 2); zeros if unread."""
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
        # Threads that wait for no disk only take turns: two take 1.7 times as long as one.
        waits |= _count_waits() - waits_before > len(part) / 2
        progress.advance(len(part))
    return hashes


def _count_waits() -> int:
    """How often this thread has waited, as for a disk; always 0 where the system does not say."""
    whose = getattr(resource, "RUSAGE_THREAD", None)  # of Linux alone
    return 0 if whose is None else resource.getrusage(whose).ru_nvcsw


def find_sets(hashes: npt.NDArray[np.uint64], places: Places, sizes: Sizes) -> Sets:
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
    dropped = choose_dropped(entries, sets)
    skipped = (
        skip_duplicate(entries.paths[place], entries.paths[dropped[place]])
        for place in sorted(dropped)
    )
    return entries.leave_out(dropped), tuple(skipped)


def choose_dropped(entries: Entries, sets: Sets) -> dict[int, int]:
    """The images of some sets to leave out, each with the one that is kept instead."""
    dropped: dict[int, int] = {}
    for group in sets:
        splits = np.maximum(entries.splits[group], 0)  # none given is as good as `train`
        kept = group[int(splits.argmax())]  # the first of several in the same split
        dropped |= {place: kept for place in group.tolist() if place != kept}
    return dropped


def skip_duplicate(path: str, kept: str) -> Skipped:
    """What is said of an image that is left out because another one is kept."""
    code = "skipped_duplicate"
    return Skipped(path, code, f"{SKIP_RULES[code]}: {kept}")


def note_duplicates(entries: Entries, sets: Sequence[Sequence[int]]) -> tuple[Note, ...]:
    """Makes a note about each of the first thousand sets, the gravest first."""
    return tuple(note for _, note in choose_gravest(describe_sets(entries, sets)))


def describe_sets(entries: Entries, sets: Iterable[Sequence[int]]) -> Iterator[tuple[int, Note]]:
    """The place of the first image of each set, and a note about the set."""
    return ((places[0], _describe_set(entries, places)) for places in sets)


def choose_gravest(notes: Iterable[tuple[int, Note]]) -> list[tuple[int, Note]]:
    """The first thousand of these notes, the gravest before others."""
    # Not sorted, which would hold 500 bytes for each of maybe millions.
    return heapq.nsmallest(
        _MAX_SETS, notes, key=lambda placed: (-DUPLICATE_CODES.index(placed[1].code), placed[0])
    )


def _describe_set(entries: Entries, places: Sequence[int]) -> Note:
    labels, splits = entries.labels.data, entries.splits.data
    values, code = entries.find("values"), "duplicate"
    if len({(labels[n], values and values[n]) for n in places}) > 1:
        code = "duplicate_class"
    if len({splits[n] for n in places}) > 1:
        code = "duplicate_split"
    return Note(code, tuple(entries.paths[n] for n in places[:MAX_NAMES]), len(places))
