"""Decides which image goes into which split, in which order, and how many go into each shard.

A hash of seed and path decides the draw and the rank of an image, independently of other images,
the runner and the number of workers. So an image stays in its split when others are added. Images
that stay together, as a group or by their content, share the draw of the first in that order. A
split that is given by folders, a table or an earlier conversion is kept.

With `stratify`, each class gives its lowest draws until it has given its share. An image can then
move when others of its class are added, because the limit moves.
"""

import hashlib
import itertools
import re
import sys
from collections.abc import Collection, Mapping, Sequence, Sized
from typing import Final, NamedTuple

import numpy as np

from converter.entries import SPLIT_NUMBERS, Entries, Members
from converter.entry_columns import Numbers, deal
from converter.errors import UsageError
from converter.inventory import SPLITS, Entry
from converter.names import to_bytes
from converter.options import MAX_SHARDS, ConvertOptions
from converter.planning.strata import (
    OPEN,
    TEST,
    TRAIN,
    VALIDATION,
    Draws,
    Hints,
    read_labels,
    stratify,
)

FOLDER: Final = "folder"  # the value of `group_by` that makes each folder a group

_CHUNK: Final = 4_096  # images whose hashes become part of an array at once
_PART_BITS: Final = 4  # of the ranks that are sorted at once

# A split has at least this many shards, to keep all cores busy and for interleaved reading, while
# each of them keeps at least `MIN_SHARD_RECORDS`.
MIN_SHARDS: Final = 16
MIN_SHARD_RECORDS: Final = 32


class Drawn(NamedTuple):
    """The draw decides the split, the rank the place in it; both are uniform below 2**64."""

    draw: int
    rank: int


def draw(path: str, options: ConvertOptions) -> Drawn:
    """Hashes a path, or the name of a group, with the seed."""
    # Not by `hash`, which differs between processes.
    digest = hashlib.blake2b(to_bytes(path), digest_size=16, key=_make_key(options)).digest()
    return Drawn(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))


def _make_key(options: ConvertOptions) -> bytes:
    return options.seed.to_bytes(8, "little")


def assign_splits(
    entries: Sequence[Entry],
    options: ConvertOptions,
    duplicates: Sequence[Sequence[int]] = (),
    kept: Mapping[str, str] | None = None,
) -> dict[str, Sequence[Entry]]:
    """Assigns the entries to splits and puts each split into its seeded order.

    `duplicates` are images with the same content, as their places in `entries`. `kept` are splits
    from an earlier conversion, by path; with it, splits may stay empty. The result has the splits
    with any entries, in the order of `SPLITS`. Raises UsageError if a split that was asked for gets
    no image, or is given already, or if the pattern of groups matches no path.
    """
    columns = Entries.of(entries)
    groups = _find_groups(columns, options)
    if kept is None:
        _check_grouped(columns, groups, options)
    given = _read_given(columns, options, kept or {})
    draws, ranks = draw_all(columns, options)
    if kept and groups:
        # Before duplicates are joined, which may lie in several splits by now.
        given = spread(given, join_units(groups, len(columns), ()), columns.splits)
    units = None
    if groups or (options.stratify and duplicates):
        units = join_units(groups, len(columns), duplicates)
        draws = draw_together(units, draws, ranks, groups, options)
        given = spread(given, units, columns.splits)
    elif duplicates:  # those alone, because units of all images would take as much as the entries
        places, sets = number_sets(duplicates)
        draws[places] = draw_together(sets, draws[places], ranks[places], {}, options)
        given[places] = spread(given[places], sets, columns.splits[places])
    if options.stratify:
        chosen = stratify(read_labels(columns), draws, given, units, options)
    else:
        chosen = np.where(given == OPEN, draw_freely(draws, options), given)
    del draws, given, units
    members = _sort(columns, chosen, ranks)
    if kept is None:
        check_filled(members, options, is_given=bool((columns.splits != OPEN).any()))
    return {split: group for split, group in members.items() if group}


def draw_all(entries: Entries, options: ConvertOptions) -> tuple[Draws, Draws]:
    """The draws and ranks of all images: uint64 (images,) each."""
    draws, ranks = np.empty((2, len(entries)), np.uint64)
    key, hashes = _make_key(options), entries.paths.iterate()
    for begin in range(0, len(entries), _CHUNK):
        paths = itertools.islice(hashes, _CHUNK)
        found = b"".join(hashlib.blake2b(path, digest_size=16, key=key).digest() for path in paths)
        part = np.frombuffer(found, "<u8").reshape(-1, 2)
        draws[begin : begin + _CHUNK], ranks[begin : begin + _CHUNK] = part.T
    return draws, ranks


def may_stay(entry: Entry, split: str, options: ConvertOptions) -> bool:
    """Whether an image may stay in the split that it is in."""
    # Fractions are of the images that are given to `train`.
    drawn = entry.split == "train" and options.held_out.get(split)
    return not entry.split or entry.split == split or bool(drawn)


def plan_shards(
    splits: Mapping[str, Sized], options: ConvertOptions, record_bytes: float
) -> dict[str, list[int]]:
    """The number of records of each shard, by split, if a record has this mean size."""
    largest = max(map(len, splits.values()))
    counts = {}
    for split, entries in splits.items():
        if options.num_shards is None:
            count = count_shards(len(entries), len(entries) * record_bytes, options.shard_bytes)
        elif options.num_shards > largest:
            raise UsageError(
                f"num shards {options.num_shards} is more than the {largest} images of the "
                "largest split: ask for fewer"
            )
        else:
            count = max(1, round(options.num_shards * len(entries) / largest))
        counts[split] = cut_evenly(len(entries), count)
    return counts


def count_shards(records: int, split_bytes: float, shard_bytes: int) -> int:
    """The number of shards of a split, whatever the number of cores."""
    floor = min(MIN_SHARDS, records // MIN_SHARD_RECORDS)
    return max(1, floor, min(records, MAX_SHARDS, round(split_bytes / shard_bytes)))


def cut_evenly(total: int, parts: int) -> list[int]:
    """Cuts `total` into `parts` numbers that differ by one at most, the larger ones first.

    >>> cut_evenly(10, 4)
    [3, 3, 2, 2]
    """
    small, extra = divmod(total, parts)
    return [small + 1] * extra + [small] * (parts - extra)


def join_units(
    groups: Mapping[int, str], images: int, duplicates: Sequence[Sequence[int]]
) -> Numbers:
    """Numbers for images that are equal if they stay together: int64 (images,).

    `groups` are those of the images that have one, by their places.
    """
    units = np.arange(images, dtype=np.int64)
    first: dict[str, int] = {}
    for place, group in groups.items():
        units[place] = first.setdefault(group, place)
    if not groups:  # no image is in two sets of duplicates
        for places in duplicates:
            units[np.asarray(places)] = places[0]
        return units
    # Groups that share an image by its content become one.
    parents: dict[int, int] = {}  # only of units with duplicates, which are few
    for places in duplicates:
        root = _find(parents, int(units[places[0]]))
        for place in places[1:]:
            parents[_find(parents, int(units[place]))] = root
    roots = np.arange(images, dtype=np.int64)
    for unit in parents:
        roots[unit] = _find(parents, unit)
    return roots[units]


def number_sets(sets: Sequence[Sequence[int]]) -> tuple[Numbers, Numbers]:
    """The images of some sets, and the number of the set of each: int64 (images,)."""
    members = np.fromiter(itertools.chain(*sets), np.int64)
    return members, np.repeat(np.arange(len(sets)), [*map(len, sets)])


def _find_groups(entries: Entries, options: ConvertOptions) -> dict[int, str]:
    """The groups of the images that have one, by their places."""
    if entries.find("group") is None and options.group_by is None:
        return {}
    found = ((place, find_group(entry, options)) for place, entry in enumerate(entries))
    # Equal texts as one object: there are far fewer groups than images.
    return {place: sys.intern(group) for place, group in found if group}


def find_group(entry: Entry, options: ConvertOptions) -> str:
    """The group of an image, or an empty string."""
    if entry.group or options.group_by is None:
        return entry.group
    if options.group_by == FOLDER:
        return entry.path.rpartition("/")[0] + "/"
    match = re.search(options.group_by, entry.path)
    return "" if match is None else match[1 if match.re.groups else 0] or ""


def _read_given(entries: Entries, options: ConvertOptions, kept: Mapping[str, str]) -> Hints:
    """The number of the split that each image has already, or `OPEN`: int8 (images,)."""
    numbers = np.unique(entries.splits).tolist()
    check_given({SPLITS[number] for number in numbers if number != OPEN}, options)
    given = open_given(entries.splits, options)
    if kept:
        for place, path in enumerate(entries.paths):
            if path in kept:
                given[place] = SPLIT_NUMBERS[kept[path]]
    return given


def check_given(present: Collection[str], options: ConvertOptions) -> None:
    """Raises UsageError if a split is asked for that some images have already."""
    for split in options.held_out:
        if not options.held_out[split] or split not in present:
            continue
        raise UsageError(
            f"split {split!r} is given by the images' folders or table, and asked for as a "
            f"fraction: leave out the {split} split, or draw all splits with --split-folders no"
        )


def open_given(splits: Hints, options: ConvertOptions) -> Hints:
    """Given splits, of which `train` is `OPEN` where fractions of it are asked for."""
    given: Hints = splits.copy()
    if any(options.held_out.values()):
        given[given == TRAIN] = OPEN
    return given


def draw_together(
    units: Numbers, draws: Draws, ranks: Draws, groups: Mapping[int, str], options: ConvertOptions
) -> Draws:
    """Gives each unit the draw of its image with the lowest rank, or of that image's group."""
    draws = draws.copy()
    known: dict[str, int] = {}
    for place, group in groups.items():
        if group not in known:
            known[group] = draw(f"group {group}", options).draw
        draws[place] = known[group]
    # It hardly changes when images are added, and a rank says nothing of the draw: by the lowest
    # draw, a fifth to validate on would be 83 % of the images that have seven copies each.
    order = np.argsort(ranks, kind="stable")[::-1]
    shared = np.empty_like(draws)
    shared[units[order]] = draws[order]  # of several values for a unit, NumPy keeps the last
    return shared[units]


def spread(given: Hints, units: Numbers, splits: Hints) -> Hints:
    """Assigns open images to the split of the images that stay with them."""
    # In a byte each: eight arrays of a million numbers would take more than the plan itself.
    nothing = len(SPLITS)
    of_all = np.where(given == OPEN, nothing, given).astype(np.int8)
    # An image that a folder assigns to `train` is not held out for a duplicate in `test`.
    of_rest = np.where(splits > TRAIN, nothing, of_all).astype(np.int8)
    lowest = np.full((2, len(given)), nothing, np.int8)
    np.minimum.at(lowest[0], units, of_all)
    np.minimum.at(lowest[1], units, of_rest)
    in_all, in_rest = lowest[:, units]
    alone = np.where(in_all < nothing, np.minimum(in_rest, np.int8(TRAIN)), np.int8(nothing))
    found = np.where(splits == TRAIN, np.where(in_rest < nothing, in_rest, alone), in_all)
    spread: Hints = np.where((given == OPEN) & (found < nothing), found, given)
    return spread


def draw_freely(draws: Draws, options: ConvertOptions) -> Hints:
    """The split of each image, as an index of `SPLITS`, by its draw alone."""
    shares = draws / 2.0**64
    chosen = np.full(len(draws), TRAIN, np.int8)
    chosen[shares < sum(options.held_out.values())] = TEST
    chosen[shares < options.validation_split] = VALIDATION
    return chosen


def _sort(entries: Entries, chosen: Hints, ranks: Draws) -> dict[str, Members]:
    """Orders each split by rank, a part of the ranks at a time, which takes less memory."""
    parts = deal(ranks, _PART_BITS)
    members = {}
    for number, split in enumerate(SPLITS):
        found = np.empty(int((chosen == number).sum()), np.uint32)
        begin = 0
        for part in range(1 << _PART_BITS):
            places = np.flatnonzero((parts == part) & (chosen == number))
            order = np.argsort(ranks[places], kind="stable")
            found[begin : begin + len(places)] = places[order]
            begin += len(places)
        members[split] = Members(entries, found)
    return members


def _check_grouped(entries: Entries, groups: Mapping[int, str], options: ConvertOptions) -> None:
    if options.group_by and not groups:
        raise UsageError(
            f"group by {options.group_by!r} matches none of the paths, such as "
            f"{entries[0].path!r}: nothing would be kept together"
        )


def check_filled(members: Mapping[str, Sized], options: ConvertOptions, *, is_given: bool) -> None:
    """Raises UsageError for a split that was asked for, or is needed, and has no image."""
    for split, group in members.items():
        if not group and options.held_out.get(split, not is_given):
            way_out = "smaller fractions" if split == "train" else "a larger fraction"
            raise UsageError(
                f"split {split!r} gets none of the images: ask for {way_out} or another seed"
            )


def _find(parents: dict[int, int], unit: int) -> int:
    while (parent := parents.get(unit, unit)) != unit:
        # Halves the path on the way, so that long chains of duplicates do not take ever longer.
        parents[unit] = parents.get(parent, parent)
        unit = parents[unit]
    return unit
