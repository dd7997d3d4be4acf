"""Brings a finished data set up to date with its images, rewriting as few shards as possible.

Every image that stays keeps its split, its shard and its label. A shard that loses an image or has
a changed one is written again. New images go into those shards first and then into the smallest
ones, as few as can hold them. All other shards are carried over byte for byte.

The number of shards is part of their names and stays. So shards may differ in length after an
update, and new classes come after the old ones. A new conversion restores the regular order.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from converter.commits.commit import read_notes
from converter.entries import Entries
from converter.errors import DatasetError, ImageError, UsageError
from converter.format.manifest import Manifest
from converter.inventory import CONTENT_NOTES, Entry, Inventory, find_used, name_class, note_empty
from converter.names import find_file
from converter.options import ConvertOptions
from converter.planning.plan import Base, Draft, Plan, list_left_out
from converter.planning.splits import assign_splits, draw
from converter.sources.duplicates import DUPLICATE_CODES, note_duplicates
from converter.sources.joined import keep_labels
from converter.storage.files import MANIFEST, REJECTS, Layout, hash_file, name_index
from converter.storage.location import Location, map_in_threads
from converter.upkeep.comparisons import Comparison, ShardComparison
from converter.upkeep.contents import OnShard
from converter.writing.records import make_records
from converter.writing.shard_writer import Receipt, write_receipt

# A shard takes new images up to a quarter over the mean length, so that few shards are written.
SPARE_SHARE: Final = 4


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """What an update of a data set would do."""

    draft: Draft  # the whole data set as it will be
    kept: Mapping[str, Receipt]  # of the shards that stay as they are, by name
    added: int  # images that are new, or could not be converted before
    changed: int  # images
    removed: int  # images
    needed: bool  # whether anything at all differs

    @property
    def records(self) -> int:
        """How many images are in the shards that have to be written."""
        planned = sum(map(sum, self.draft.shard_records.values()))
        return planned - sum(receipt.images for receipt in self.kept.values())


def plan_update(
    folder: Location,
    manifest: Manifest,
    images: Location,
    inventory: Inventory,
    on_shard: OnShard | None = None,
) -> Update:
    """Compares a data set with its images, and assigns new images to shards.

    Every image is read, because its content is compared; the old ones are not decoded.
    `inventory` is the current scan of `images`; `on_shard` gets each compared shard, in order.
    Raises DatasetError if the records of a shard cannot be read, and UsageError if a new image
    belongs to a split that the data set does not have.
    """
    task = Comparison(
        folder=folder,
        manifest=manifest,
        images=images,
        inventory=_note_emptied(keep_labels(inventory, manifest.classes)),
        options=ConvertOptions.from_json(manifest.options),
        refused=read_rejects(folder),
        noted=any(note.code in CONTENT_NOTES for note in read_notes(folder)),
    )
    compared = task.compare_shards(on_shard)
    additions, rejected = _find_additions(task, compared)
    members = _place(task, compared, _assign_splits(task, compared, additions))
    kept = {
        name: shard.receipt
        for name, shard in compared.items()
        if not shard.touched and members[name] == shard.entries
    }
    draft = dataclasses.replace(
        draft_shards(_note_duplicates(task, members), members, manifest),
        rejected=tuple(rejected),
        base=Base(hash_file(folder / MANIFEST), manifest.updated + 1),
    )
    return Update(
        draft=draft,
        kept=kept,
        added=len(additions),
        changed=sum(shard.changed for shard in compared.values()),
        removed=sum(shard.removed for shard in compared.values()),
        needed=len(kept) != len(compared)
        or task.inventory.classes != manifest.classes
        or _has_other_rejects(task, compared, draft),
    )


def check_kind(manifest: Manifest, inventory: Inventory) -> None:
    """Raises UsageError if labels or columns are of another kind than those in the records."""
    before = {column.name: column.kind for column in manifest.columns}
    now = {column.name: column.kind for column in inventory.columns}
    different = sorted(dict(before.items() ^ now.items()))
    if different or manifest.labelled != inventory.labelled:
        raise UsageError(
            f"{different[0] if different else 'the label'} is not of the same kind as before, "
            "which all records would have to be: convert the data set again with --overwrite"
        )


def carry_shards(update: Update, folder: Location, plan: Plan) -> Plan:
    """Takes the shards that stay over into a plan, with their receipts; returns that plan.

    On a disk they are hard-linked into its output, or copied where the file system has no links.
    In a store they stay where they are. Raises OutputError, OSError or StoreError if that fails.
    """
    names = [file for name in update.kept for file in (name, name_index(name))]
    folder.carry_files(names, plan.out, Layout(plan.out).scratch)
    layout, kept = Layout(plan.out), [shard for shard in plan.shards if shard.name in update.kept]
    list(map_in_threads(lambda s: write_receipt(update.kept[s.name], layout, s), kept, plan.out))
    return dataclasses.replace(plan, carried=frozenset(update.kept))


def read_rejects(folder: Location) -> dict[str, dict[str, str]]:
    """The lines of `rejects.jsonl` by path; raises DatasetError if it is missing or damaged."""
    path = folder / REJECTS
    try:
        if path.measure() is None:  # of a pipe, too, which would be waited for
            raise DatasetError(f"{path} is missing, or no file")
        return {line["path"]: line for line in map(json.loads, path.read_bytes().splitlines())}
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error


def find_rejects(
    entry: Entry, inventory: Inventory, images: Location, options: ConvertOptions
) -> list[dict[str, str] | None]:
    """Converts an image; for each frame, gives its line of `rejects.jsonl` or None."""
    text = name_class(inventory, entry)
    return [
        {"path": found.path, "code": outcome.code, "detail": outcome.detail}
        if isinstance(outcome, ImageError)
        else None
        for found, (outcome,) in make_records(entry, text, images, [options], inventory.columns)
    ]


def draft_shards(
    inventory: Inventory, members: Mapping[str, list[Entry]], manifest: Manifest
) -> Draft:
    """Drafts a plan with the shards of a data set; a shard without members gets no images."""
    parts = {
        split: [members.get(shard.name, []) for shard in manifest.list_shards(split)]
        for split in manifest.splits
    }
    return Draft(
        inventory=inventory,
        splits={split: list(itertools.chain(*shards)) for split, shards in parts.items()},
        shard_records={split: list(map(len, shards)) for split, shards in parts.items()},
    )


def place_additions(sizes: Sequence[int], additions: int, touched: Iterable[int]) -> list[int]:
    """Decides how many of so many additions each shard takes; the touched ones come first.

    >>> place_additions([10, 10, 9, 10], 3, [])
    [0, 0, 3, 0]
    >>> place_additions([10, 10, 9, 10], 3, [0])
    [3, 0, 0, 0]
    """
    first = set(touched)
    mean = -(-(sum(sizes) + additions) // len(sizes))  # rounded up, so that all of them fit
    limit = mean + mean // SPARE_SHARE
    taken = [0] * len(sizes)
    # Those that are written anyway, and then the smallest, which have most room.
    for place in sorted(range(len(sizes)), key=lambda n: (n not in first, sizes[n], n)):
        taken[place] = max(0, min(additions, limit - sizes[place]))
        additions -= taken[place]
    return taken


def _find_additions(
    task: Comparison, compared: Mapping[str, ShardComparison]
) -> tuple[dict[str, Entry], list[dict[str, str]]]:
    """The images to add by path, and the lines of rejects that still cannot be converted."""
    known = {entry.path for shard in compared.values() for entry in shard.entries}
    additions = {entry.path: entry for entry in task.inventory.entries if entry.path not in known}
    files = dict.fromkeys(find_file(path, task.options.frames) for path in task.refused)
    entries = [additions[path] for path in files if path in additions]
    found = map_in_threads(
        lambda e: find_rejects(e, task.inventory, task.images, task.options), entries, task.images
    )
    # An image is added if any of its frames can be converted now.
    rejected = [reject for _, rejects in found if all(rejects) for reject in rejects if reject]
    for path in {find_file(reject["path"], task.options.frames) for reject in rejected}:
        del additions[path]
    return additions, rejected


def _has_other_rejects(
    task: Comparison, compared: Mapping[str, ShardComparison], draft: Draft
) -> bool:
    of_shards = (line for shard in compared.values() for line in shard.receipt.rejects)
    codes = {line["path"]: line["code"] for line in (*list_left_out(draft), *of_shards)}
    return codes != {path: line["code"] for path, line in task.refused.items()}


def _assign_splits(
    task: Comparison, compared: Mapping[str, ShardComparison], additions: Mapping[str, Entry]
) -> dict[str, list[Entry]]:
    """The new images of each split, ordered by rank."""
    inventory, shards = task.inventory, compared.values()
    kept = {entry.path: shard.receipt.split for shard in shards for entry in shard.entries}
    members = assign_splits(inventory.entries, task.options, inventory.duplicates, kept)
    fresh = {
        split: [entry for entry in group if entry.path in additions]
        for split, group in members.items()
    }
    for split, group in fresh.items():
        if group and split not in task.manifest.splits:
            raise UsageError(
                f"{group[0].path!r} goes into split {split!r}, and the data set has none: convert "
                "it again with --overwrite"
            )
    return fresh


def _place(
    task: Comparison,
    compared: Mapping[str, ShardComparison],
    additions: Mapping[str, Sequence[Entry]],
) -> dict[str, list[Entry]]:
    """The images of each shard in record order, including new ones."""
    members = {}
    for split in task.manifest.splits:
        fresh, names = additions.get(split, ()), [s.name for s in task.manifest.list_shards(split)]
        sizes = [len(compared[name].entries) for name in names]
        touched = [place for place, name in enumerate(names) if compared[name].touched]
        remaining = iter(fresh)
        for name, count in zip(names, place_additions(sizes, len(fresh), touched), strict=True):
            members[name] = compared[name].entries
            if count:
                # In the order of a new conversion: old images keep theirs, new ones mix in.
                mixed = itertools.chain(members[name], itertools.islice(remaining, count))
                members[name] = sorted(mixed, key=lambda e: (draw(e.path, task.options).rank, e))
    return members


def _note_emptied(inventory: Inventory) -> Inventory:
    """Notes also the classes that the scan has not found any more: they keep their labels."""
    before = tuple(note for note in inventory.notes if note.code == "empty_class")
    now = note_empty(inventory.classes, find_used(inventory.entries, inventory.columns))
    if now == before:
        return inventory
    others = (note for note in inventory.notes if note not in before)
    return dataclasses.replace(inventory, notes=(*others, *now))


def _note_duplicates(task: Comparison, members: Mapping[str, list[Entry]]) -> Inventory:
    """Notes images with the same content whose splits differ by now."""
    # Old ones keep their split, so a changed file may have the content of one in another split.
    inventory = task.inventory
    if not inventory.duplicates:
        return inventory
    splits = {
        entry.path: shard.split for shard in task.manifest.shards for entry in members[shard.name]
    }
    entries = list(inventory.entries)
    for places in inventory.duplicates:
        known = next((splits[path] for p in places if (path := entries[p].path) in splits), "")
        for place in places:
            entry = entries[place]
            entries[place] = entry._replace(split=splits.get(entry.path, known))
    others = (note for note in inventory.notes if note.code not in DUPLICATE_CODES)
    notes = (*others, *note_duplicates(Entries(entries), inventory.duplicates))
    return dataclasses.replace(inventory, notes=notes)
