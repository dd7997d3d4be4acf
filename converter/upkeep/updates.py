"""Takes what was added, changed or removed into a finished data set, and writes little for it.

Every image that stays keeps its split, its shard and its label. A shard that loses an image or has
a changed one is written again; new images go into those shards first and then into the smallest
ones, as few as hold them. All other shards are carried over as they are, byte for byte.

The number of shards is in their names and stays. So shards may differ in length after an update,
and new classes come behind the old ones, not in the order of their names. A conversion as a whole
puts both right.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from converter.commits.commit import read_notes
from converter.errors import DatasetError, ImageError, UsageError
from converter.format.manifest import Manifest, ShardInfo
from converter.format.schema import LABELS, Column
from converter.images.frame_paths import find_file
from converter.inventory import CONTENT_NOTES, NO_LABEL, Entry, Inventory, name_class
from converter.options import ConvertOptions
from converter.planning.plan import Base, Draft, Plan, Shard
from converter.planning.splits import assign_splits, draw
from converter.sources.duplicates import DUPLICATE_CODES, note_duplicates
from converter.storage.files import choose_threads
from converter.storage.hashing import hash_file
from converter.storage.layout import MANIFEST, REJECTS, Layout, name_index
from converter.storage.location import Location
from converter.upkeep.comparisons import Comparison, Share
from converter.writing.records import make_records
from converter.writing.shard_writer import Receipt, write_receipt

SPARE_SHARE: Final = 4
"""A shard takes new images up to a quarter over the mean length, so that few shards are written."""

_PIECE_BYTES: Final = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """What an update of a data set would do.

    Attributes:
        draft: the whole data set as it will be.
        kept: receipts of the shards that stay as they are, by name.
        added: number of images that are new, or could not be converted before.
        changed: number of images with other content than before.
        removed: number of images that are gone.
        needed: whether anything at all is different.
    """

    draft: Draft
    kept: Mapping[str, Receipt]
    added: int
    changed: int
    removed: int
    needed: bool

    @property
    def records(self) -> int:
        """How many images the shards have that are to be written."""
        planned = sum(map(sum, self.draft.shard_records.values()))
        return planned - sum(receipt.images for receipt in self.kept.values())


def plan_update(
    folder: Location,
    manifest: Manifest,
    images: Location,
    inventory: Inventory,
    *,
    on_shard: Callable[[ShardInfo], object] | None = None,
) -> Update:
    """Finds out what became of the images of a data set, and where new ones go.

    Every image is read, because its content is compared; none of the old ones is decoded.

    Args:
        folder: the data set.
        manifest: its manifest.
        images: the folder of the originals.
        inventory: what lies in it now.
        on_shard: called with each shard once it is compared, in order.

    Raises:
        DatasetError: a shard is damaged, so that nobody can tell what is in it.
    """
    options = ConvertOptions.from_json(manifest.options)
    inventory = keep_labels(inventory, manifest.classes)
    refused = read_rejects(folder)
    shares = Comparison(
        folder=folder,
        manifest=manifest,
        images=images,
        present={entry.path: entry for entry in inventory.entries},
        options=options,
        refused=refused,
        noted=any(note.code in CONTENT_NOTES for note in read_notes(folder)),
    ).compare_shards(on_shard)
    known = {entry.path for share in shares.values() for entry in share.entries}
    additions = {entry.path: entry for entry in inventory.entries if entry.path not in known}
    rejected = _try_again(refused, additions, inventory, images, options)
    for path in {find_file(reject["path"], options.frames) for reject in rejected}:
        del additions[path]
    fresh = _assign(inventory, shares, manifest, additions, options)
    members = _place(shares, manifest, fresh, options)
    kept = {
        name: share.receipt
        for name, share in shares.items()
        if not share.touched and members[name] == share.entries
    }
    left_out = _list_left_out(inventory, shares, rejected)
    before = {path: line["code"] for path, line in refused.items()}
    noted, digest = _note_again(inventory, members, manifest), hash_file(folder / MANIFEST)
    return Update(
        draft=_draft(noted, members, manifest, rejected, digest),
        kept=kept,
        added=len(additions),
        changed=sum(share.changed for share in shares.values()),
        removed=sum(share.removed for share in shares.values()),
        needed=(len(kept), inventory.classes, left_out) != (len(shares), manifest.classes, before),
    )


def check_kind(manifest: Manifest, inventory: Inventory) -> None:
    """Refuses labels and columns that are not of the kind of those in the records.

    Raises:
        UsageError: says which.
    """
    before = {column.name: column.kind for column in manifest.columns}
    now = {column.name: column.kind for column in inventory.columns}
    different = sorted(dict(before.items() ^ now.items()))
    if different or manifest.labelled != inventory.labelled:
        raise UsageError(
            f"{different[0] if different else 'the label'} is not of the same kind as before, "
            "which all records would have to be: convert the data set anew with --overwrite"
        )


def carry_shards(update: Update, folder: Location, plan: Plan) -> Plan:
    """Takes the shards that stay over into a plan, with their receipts; returns that plan.

    Here they get a second name in its output, or are copied where the file system has no links. In
    a store they stay where they are.

    Raises:
        OutputError: a file cannot be written.
        OSError: a link cannot be made.
        StoreError: the store does not answer, or refuses.
    """
    names = [file for name in update.kept for file in (name, name_index(name))]
    folder.carry_files(names, plan.out, Layout(plan.out).scratch)

    def leave_receipt(shard: Shard) -> None:
        write_receipt(update.kept[shard.name], Layout(plan.out), shard)

    kept = [shard for shard in plan.shards if shard.name in update.kept]
    with concurrent.futures.ThreadPoolExecutor(choose_threads(plan.out)) as pool:
        list(pool.map(leave_receipt, kept))
    return dataclasses.replace(plan, carried=frozenset(update.kept))


def keep_labels(inventory: Inventory, classes: Sequence[str]) -> Inventory:
    """The scan with the labels that classes had before; new ones come behind them."""
    known = set(classes)
    merged = (*classes, *(name for name in inventory.classes if name not in known))
    places = {name: label for label, name in enumerate(merged)}
    labels = {label: places[name] for label, name in enumerate(inventory.classes)}
    labels[NO_LABEL] = NO_LABEL
    # Most stay the same object: a million copies would take 70 MB.
    entries = (
        entry if entry.label == labels[entry.label] else entry._replace(label=labels[entry.label])
        for entry in inventory.entries
    )
    if any(label != place for label, place in labels.items()):
        entries = (_renumber(entry, inventory.columns, labels) for entry in entries)
    return dataclasses.replace(inventory, classes=merged, entries=tuple(entries))


def _renumber(entry: Entry, columns: Sequence[Column], labels: Mapping[int, int]) -> Entry:
    """An entry with other numbers of classes in its values."""
    places = [place for place, column in enumerate(columns) if column.kind == "labels"]
    if not places:
        return entry
    values = json.loads(entry.values)
    for place in places:
        numbers = [labels[label] for label in values[place]]
        values[place] = sorted(numbers) if columns[place].name == LABELS else numbers
    return entry._replace(values=json.dumps(values, separators=(",", ":")))


def read_rejects(folder: Location) -> dict[str, dict[str, str]]:
    """Path, code and detail of every file that was left out, by its path."""
    try:
        lines = (folder / REJECTS).read_bytes().splitlines()
        return {line["path"]: line for line in map(json.loads, lines)}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DatasetError(f"{folder / REJECTS}: cannot be read: {error}") from error


def place_additions(sizes: Sequence[int], additions: int, touched: Iterable[int]) -> list[int]:
    """How many new images each shard of a split takes.

    Args:
        sizes: how many images each shard holds.
        additions: how many new ones there are.
        touched: the shards that are written again in any case.

    >>> place_additions([10, 10, 9, 10], 3, [])
    [0, 0, 3, 0]
    >>> place_additions([10, 10, 9, 10], 3, [0])
    [3, 0, 0, 0]
    """
    first = set(touched)
    mean = -(-(sum(sizes) + additions) // len(sizes))
    limit = mean + mean // SPARE_SHARE
    taken = [0] * len(sizes)
    for place in sorted(range(len(sizes)), key=lambda n: (n not in first, sizes[n], n)):
        taken[place] = max(0, min(additions, limit - sizes[place]))
        additions -= taken[place]
    return taken


def _list_left_out(
    inventory: Inventory, shares: Mapping[str, Share], rejected: Iterable[Mapping[str, str]]
) -> dict[str, str]:
    """The code of what is not converted, by its path."""
    left_out = {reject["path"]: reject["code"] for reject in rejected}
    left_out |= {line.path: line.code for line in (*inventory.rejected, *inventory.skipped)}
    lines = (line for share in shares.values() for line in share.receipt.rejects)
    return left_out | {line["path"]: line["code"] for line in lines}


def _try_again(
    refused: Iterable[str],
    additions: Mapping[str, Entry],
    inventory: Inventory,
    images: Location,
    options: ConvertOptions,
) -> list[dict[str, str]]:
    """Those of the images that were rejected and cannot be converted now either, and why."""
    files = dict.fromkeys(find_file(path, options.frames) for path in refused)
    entries = [additions[path] for path in files if path in additions]

    def find_reasons(entry: Entry) -> list[dict[str, str]]:
        reasons = []
        for found, (outcome,) in make_records(
            entry, name_class(inventory, entry), images, [options], inventory.columns
        ):
            if not isinstance(outcome, ImageError):
                return []
            reasons.append({"path": found.path, "code": outcome.code, "detail": outcome.detail})
        return reasons

    with concurrent.futures.ThreadPoolExecutor(choose_threads(images)) as pool:
        return [reason for reasons in pool.map(find_reasons, entries) for reason in reasons]


def _assign(
    inventory: Inventory,
    shares: Mapping[str, Share],
    manifest: Manifest,
    additions: Mapping[str, Entry],
    options: ConvertOptions,
) -> dict[str, list[Entry]]:
    """The new images of each split, in the order of their ranks.

    Raises:
        UsageError: the data set has no split of that name.
    """
    kept = {
        entry.path: shard.split for shard in manifest.shards for entry in shares[shard.name].entries
    }
    members = assign_splits(inventory.entries, options, inventory.duplicates, kept)
    fresh = {
        split: [entry for entry in group if entry.path in additions]
        for split, group in members.items()
    }
    for split, group in fresh.items():
        if group and split not in manifest.splits:
            raise UsageError(
                f"{group[0].path!r} goes into split {split!r}, and the data set has none: convert "
                "it anew with --overwrite"
            )
    return fresh


def _place(
    shares: Mapping[str, Share],
    manifest: Manifest,
    additions: Mapping[str, Sequence[Entry]],
    options: ConvertOptions,
) -> dict[str, list[Entry]]:
    """The images of each shard in record order, new ones included."""
    members = {}
    for split in manifest.splits:
        fresh_ones = additions.get(split, ())
        names = [shard.name for shard in manifest.list_shards(split)]
        sizes = [len(shares[name].entries) for name in names]
        touched = [place for place, name in enumerate(names) if shares[name].touched]
        fresh = iter(fresh_ones)
        counts = place_additions(sizes, len(fresh_ones), touched)
        for name, count in zip(names, counts, strict=True):
            new = [next(fresh) for _ in range(count)]
            members[name] = (
                _sort(shares[name].entries + new, options) if new else shares[name].entries
            )
    return members


def _note_again(
    inventory: Inventory, members: Mapping[str, list[Entry]], manifest: Manifest
) -> Inventory:
    """A scan that says of images with the same content if they are in several splits by now.

    Old ones keep theirs, so a file that was changed may have the content of one in another split.
    """
    if not inventory.duplicates:
        return inventory
    splits = {entry.path: shard.split for shard in manifest.shards for entry in members[shard.name]}
    entries = list(inventory.entries)
    for places in inventory.duplicates:
        known = next((splits[path] for p in places if (path := entries[p].path) in splits), "")
        for place in places:
            entry = entries[place]
            entries[place] = entry._replace(split=splits.get(entry.path, known))
    others = (note for note in inventory.notes if note.code not in DUPLICATE_CODES)
    notes = (*others, *note_duplicates(entries, inventory.duplicates))
    return dataclasses.replace(inventory, notes=notes)


def _draft(
    inventory: Inventory,
    members: Mapping[str, list[Entry]],
    manifest: Manifest,
    rejected: Sequence[dict[str, str]],
    digest: str,
) -> Draft:
    shares = {
        split: [members[shard.name] for shard in manifest.list_shards(split)]
        for split in manifest.splits
    }
    return Draft(
        inventory=inventory,
        splits={split: list(itertools.chain(*parts)) for split, parts in shares.items()},
        shard_records={split: [len(part) for part in parts] for split, parts in shares.items()},
        rejected=tuple(rejected),
        base=Base(digest, manifest.updated + 1),
    )


def _sort(entries: list[Entry], options: ConvertOptions) -> list[Entry]:
    """The order that a conversion as a whole gives: old images keep theirs, new ones mix in."""
    return sorted(entries, key=lambda entry: (draw(entry.path, options).rank, entry))
