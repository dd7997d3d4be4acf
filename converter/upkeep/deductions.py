"""Which originals were in shards that are lost, told from what is left of their split.

What no other shard holds was in the lost ones, and records lie in the order of their ranks. Where
that does not do, the originals are made into records once more, and their lengths tell:

    a lost shard has its index     its lines are found among the lengths, in their order
    it has none                    the records that lie side by side and give that very index
    one is left over               what is left over was in it

Nothing of it has to be believed: what is written from it takes its place by its SHA-256 alone.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Final

from converter.errors import DatasetError
from converter.format.indexes import format_line, parse_index
from converter.format.manifest import Manifest, ShardInfo
from converter.format.tfrecords import FOOTER_BYTES, HEADER_BYTES
from converter.images.frame_paths import find_file
from converter.inventory import Entry, Inventory, name_class
from converter.options import ConvertOptions
from converter.planning.splits import assign_splits
from converter.storage.files import choose_threads
from converter.storage.hashing import hash_bytes
from converter.storage.layout import name_index
from converter.storage.location import Location
from converter.upkeep.provenance import Source, read_sources
from converter.upkeep.updates import read_rejects
from converter.writing.records import Record, make_records

_MAX_STEPS: Final = 1_000_000
"""Of the search for the lines of indexes: seconds. Where lengths differ, it never turns back."""

_REST: Final = -1


def deduce_members(
    folder: Location,
    manifest: Manifest,
    lost: Sequence[ShardInfo],
    inventory: Inventory,
    images: Location,
) -> dict[str, list[Entry]]:
    """The originals of lost shards, as far as anything tells of them, if only likely ones.

    Args:
        folder: the data set.
        manifest: its manifest.
        lost: shards whose originals are not known.
        inventory: the images, with the labels of the manifest.
        images: the folder that they are relative to.

    Raises:
        DatasetError: another shard is damaged, so that nobody can tell what is in it.
    """
    options = ConvertOptions.from_json(manifest.options)
    left = _list_left(folder, manifest, lost, inventory, options)

    def measure(entry: Entry) -> int | None:
        text = name_class(inventory, entry)
        made = [
            outcome
            for _, (outcome,) in make_records(entry, text, images, [options], inventory.columns)
            if isinstance(outcome, Record)
        ]
        return len(made[0].payload) + HEADER_BYTES + FOOTER_BYTES if len(made) == 1 else None

    def measure_all(entries: Sequence[Entry]) -> list[int | None]:
        with concurrent.futures.ThreadPoolExecutor(choose_threads(images)) as pool:
            return list(pool.map(measure, entries))

    found: dict[str, list[Entry]] = {}
    for split in dict.fromkeys(shard.split for shard in lost):
        shards = [shard for shard in lost if shard.split == split]
        found |= _deal(folder, shards, left.get(split, []), measure_all)
    return found


def read_all_sources(
    folder: Location, manifest: Manifest, shards: Sequence[ShardInfo]
) -> Iterator[tuple[ShardInfo, list[Source]]]:
    """Shards with what their records were made from; raises what `read_sources` does."""
    with concurrent.futures.ThreadPoolExecutor(choose_threads(folder)) as pool:
        found = pool.map(lambda s: read_sources(folder, s, labelled=manifest.labelled), shards)
        yield from zip(shards, found, strict=True)


def match_lengths(lengths: Sequence[int | None], rows: Sequence[Sequence[int]]) -> list[int] | None:
    """Finds rows of lengths, each in its order, among all lengths.

    Args:
        lengths: all of them, in order.
        rows: some of them, in the same order; no two rows have one in common.

    Returns:
        for each length the number of its row, or -1 if it is in none: the first answer that there
        is. None if the rows are not all found, or not soon.

    >>> match_lengths([5, 7, 6, 7], [[7, 6], [5]])
    [1, 0, 0, -1]
    """
    spare = len(lengths) - sum(map(len, rows))
    if spare < 0:
        return None
    at = [0] * len(rows)
    chosen: list[int] = []
    open_choices: list[list[int]] = []
    failed: set[tuple[int, ...]] = set()
    for _ in range(_MAX_STEPS):
        place = len(chosen)
        if place == len(lengths):
            return chosen
        if len(open_choices) == place:
            choices = [
                number
                for number, row in enumerate(rows)
                if at[number] < len(row) and row[at[number]] == lengths[place]
            ]
            choices += [_REST] * (place - sum(at) < spare)
            open_choices.append(choices[::-1])
        if not open_choices[place]:
            failed.add((place, *at))
            open_choices.pop()
            if not chosen:
                return None
            _step(at, chosen.pop(), -1)
            continue
        choice = open_choices[place].pop()
        _step(at, choice, 1)
        if (place + 1, *at) in failed:
            _step(at, choice, -1)
        else:
            chosen.append(choice)
    return None


def _step(at: list[int], choice: int, by: int) -> None:
    if choice != _REST:
        at[choice] += by


def _list_left(
    folder: Location,
    manifest: Manifest,
    lost: Sequence[ShardInfo],
    inventory: Inventory,
    options: ConvertOptions,
) -> dict[str, list[Entry]]:
    """The images of each split that are in no shard that is whole, in record order."""
    taken = dict.fromkeys(read_rejects(folder), "train")
    whole = [shard for shard in manifest.shards if shard not in lost]
    for shard, sources in read_all_sources(folder, manifest, whole):
        taken |= {find_file(source.path, options.frames): shard.split for source in sources}
    members = assign_splits(inventory.entries, options, inventory.duplicates, taken)
    return {
        split: [entry for entry in group if entry.path not in taken]
        for split, group in members.items()
    }


def _deal(
    folder: Location,
    shards: Sequence[ShardInfo],
    entries: list[Entry],
    measure: Callable[[Sequence[Entry]], list[int | None]],
) -> dict[str, list[Entry]]:
    """Which of the images of a split were in which of its lost shards."""
    complete = len(entries) == sum(shard.records for shard in shards)
    if complete and len(shards) == 1:
        return {shards[0].name: entries}
    rows = {shard.name: _read_lengths(folder, shard) for shard in shards}
    indexed = {name: row for name, row in rows.items() if row is not None}
    lengths = measure(entries)
    places = match_lengths(lengths, [*indexed.values()])
    if places is None:
        indexed, places = {}, [_REST] * len(entries)
    names = [*indexed]
    found: dict[str, list[Entry]] = {name: [] for name in names}
    for place, entry in zip(places, entries, strict=True):
        if place != _REST:
            found[names[place]].append(entry)
    placed = zip(places, entries, lengths, strict=True)
    rest = [(entry, length) for place, entry, length in placed if place == _REST]
    unknown = [shard for shard in shards if shard.name not in indexed]
    return found | _find_neighbours(unknown, rest, complete=complete)


def _find_neighbours(
    shards: list[ShardInfo], rest: list[tuple[Entry, int | None]], *, complete: bool
) -> dict[str, list[Entry]]:
    """The images of shards without an index: side by side once those of others are out."""
    found: dict[str, list[Entry]] = {}
    while True:
        if complete and len(shards) == 1:
            return {**found, shards[0].name: [entry for entry, _ in rest]}
        windows = ((shard, _find_window(shard, [length for _, length in rest])) for shard in shards)
        shard, window = next(((s, w) for s, w in windows if w is not None), (None, None))
        if shard is None or window is None:
            return found
        found[shard.name] = [entry for entry, _ in rest[window]]
        shards = [other for other in shards if other is not shard]
        del rest[window]


def _find_window(shard: ShardInfo, lengths: Sequence[int | None]) -> slice | None:
    """Where the records lie side by side that give the index of a shard."""
    ends = [0, *accumulate(length or 0 for length in lengths)]
    for first in range(len(lengths) - shard.records + 1):
        window = slice(first, first + shard.records)
        if ends[window.stop] - ends[first] != shard.bytes:
            continue
        lines = (
            format_line(start - ends[first], end - start)
            for start, end in pairwise(ends[first : window.stop + 1])
        )
        if hash_bytes(b"".join(lines)) == shard.index_sha256:
            return window
    return None


def _read_lengths(folder: Location, shard: ShardInfo) -> list[int] | None:
    """The lengths of the records of a shard by its index, if that is whole."""
    index = name_index(shard.name)
    try:
        data = (folder / index).read_bytes()
        if hash_bytes(data) != shard.index_sha256:
            return None
        bounds = parse_index(data, index=index, shard_bytes=shard.bytes).tolist()
    except (OSError, DatasetError):
        return None
    return [end - start for start, end in pairwise(bounds)]
