"""Compares the records of a data set with the current images, masks and rows, and its classes.

Every original is read to compare its content; none is decoded.
"""

import contextlib
import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from converter.errors import ImageError
from converter.format import examples
from converter.format.manifest import Manifest, ShardInfo
from converter.format.schema import BOXES, find_column
from converter.images.opened_images import Origin, examine_image
from converter.images.record_images import identify
from converter.inventory import Entry, Inventory, NoteTally, find_used
from converter.names import find_file
from converter.options import ConvertOptions
from converter.planning.plan import Draft
from converter.planning.splits import may_stay
from converter.sources.containers import are_read_in_order, locate_part
from converter.sources.inputs import locate_masks
from converter.sources.originals import hash_original, read_entry, read_original
from converter.storage.files import name_index
from converter.storage.location import Location, map_in_threads
from converter.upkeep import contents
from converter.writing.image_notes import note_original
from converter.writing.records import describe_values
from converter.writing.shard_writer import Receipt


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardComparison:
    """One shard compared with the current images."""

    entries: list[Entry]  # its images that still exist, in record order
    changed: int  # of these: other content, another mask, or other values in their row
    removed: int
    damaged: bool  # its bytes differ from the manifest
    receipt: Receipt  # of the shard as it is now

    @property
    def touched(self) -> bool:
        """Whether the shard has to be written again, even without new images."""
        return bool(self.changed or self.removed or self.damaged)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A data set, and the current scan of its originals to compare it with."""

    folder: Location
    manifest: Manifest
    images: Location
    inventory: Inventory
    options: ConvertOptions
    refused: Mapping[str, dict[str, str]]  # the lines of its `rejects.jsonl` by path
    noted: bool  # whether any notes are about the content of its images

    def compare_shards(self, on_shard: contents.OnShard | None) -> dict[str, ShardComparison]:
        """Compares all shards, by name; calls `on_shard` with each, in order."""
        present = {entry.path: entry for entry in self.inventory.entries}
        work, shards = (lambda shard: self._compare_shard(shard, present)), self.manifest.shards
        compared = map_in_threads(work, shards, self.folder, self.images, on_item=on_shard)
        return {shard.name: comparison for shard, comparison in compared}

    def _compare_shard(self, shard: ShardInfo, present: Mapping[str, Entry]) -> ShardComparison:
        with self.folder.bring_local((shard.name, name_index(shard.name))) as here:
            labelled, detailed = self.manifest.labelled, bool(self.manifest.columns)
            sources = contents.read_sources(here, shard, labelled=labelled, detailed=detailed)
            damaged = not contents.is_stated(here, shard)
        changed, removed, tally = 0, 0, NoteTally()
        columns = self.inventory.columns
        kept: list[tuple[Entry, list[contents.Source]]] = []
        mode = self.options.frames
        for path, group in itertools.groupby(sources, lambda s: find_file(s.path, mode)):
            entry, frames = present.get(path), list(group)
            if entry is None or not may_stay(entry, shard.split, self.options):
                removed += 1
            else:
                kept.append((entry, frames))
        entries = [entry for entry, _ in kept]
        if are_read_in_order(entries, self.images):
            kept.sort(key=lambda pair: locate_part(pair[0]))
        for entry, frames in kept:
            data = self._read(entry)
            changed += self._is_changed(entry, frames[0], data)
            if self.noted and data is not None:
                with contextlib.suppress(ImageError):
                    paths = [frame.path for frame in frames]
                    note_original(entry, paths, data, self.options, columns, tally=tally)
        rejects = self._list_rejects(entries)
        receipt = Receipt(
            **dataclasses.asdict(shard),
            **contents.count_sources(sources)._asdict(),
            rejects=rejects,
            frames=len(sources) + len(rejects) - len(entries) - removed,
            notes=[note._asdict() for note in tally.list_notes()],
        )
        return ShardComparison(
            entries=entries, changed=changed, removed=removed, damaged=damaged, receipt=receipt
        )

    def _read(self, entry: Entry) -> bytes | None:
        """An original; None if it cannot be read now, or only with all members before it."""
        with contextlib.suppress(ImageError):
            if not are_read_in_order([entry], self.images):
                return read_original(entry, self.images, self.options.max_file_bytes)
        return None

    def _is_changed(self, entry: Entry, source: contents.Source, data: bytes | None) -> bool:
        if entry.label != source.label:
            return True
        if data is None:
            limit = self.options.max_file_bytes
            if contents.describe_change(entry, source.sha256, self.images, limit):
                return True
        elif identify(data) != source.sha256:
            return True
        if not self.manifest.columns:
            return False
        found = examples.decode_example(source.details)
        return self._has_other_mask(entry, found) or self._has_other_values(entry, found, data)

    def _has_other_mask(self, entry: Entry, features: examples.Features) -> bool:
        if entry.mask is None:
            return False
        with contextlib.suppress(ImageError):
            masks = locate_masks(self.images, self.options)
            digest = hash_original(entry.mask, masks, self.options.max_file_bytes)
            return features.get(examples.MASK_SHA256) != [digest.encode()]
        return True

    def _has_other_values(
        self, entry: Entry, features: examples.Features, data: bytes | None
    ) -> bool:
        columns, origin = self.manifest.columns, Origin()
        if find_column(columns, BOXES):
            original = read_entry(entry, self.images) if data is None else data
            origin = examine_image(original, self.options)
        now = describe_values(entry, columns, origin, self.options)
        stored = {name: features.get(name, []) for name in now}
        types = {column.name: column.type for column in columns}
        # Compared as bytes, because NaN is not equal to itself and stored floats are rounded.
        return examples.encode_example(now, types) != examples.encode_example(stored, types)

    def _list_rejects(self, entries: Sequence[Entry]) -> list[dict[str, str]]:
        """The rejected frames of files with other frames that were converted."""
        if self.options.frames != "all":
            return []
        files = {entry.path for entry in entries}
        return [line for path, line in self.refused.items() if find_file(path, "all") in files]


class ClassChanges(NamedTuple):
    """How the classes of a data set differ before and after an update."""

    added: tuple[str, ...] = ()
    emptied: tuple[str, ...] = ()  # of all their images
    renamed: tuple[tuple[str, str], ...] = ()  # old and new names of classes with the same images


def compare_classes(
    folder: Location, manifest: Manifest, images: Location, draft: Draft, *, lost: bool = True
) -> ClassChanges:
    """Compares classes with those of an update's draft; raises DatasetError for a damaged shard.

    `lost` says whether any image was removed or changed: if not, no class has lost one.
    """
    classes = draft.inventory.classes
    entries = [entry for group in draft.splits.values() for entry in group]
    emptied = _find_emptied(folder, manifest, entries) if lost else []
    added = range(len(manifest.classes), len(classes))
    renamed: dict[int, int] = {}
    if emptied and added and manifest.labelled:
        # Shards and files are read once more, but only if a class vanished and another came.
        old = _hash_records(folder, manifest, emptied)
        new = _hash_files([entry for entry in entries if entry.label in added], images, manifest)
        # Images may be added or removed at the same time, so either set may hold the other.
        renamed = {
            label: other
            for label in emptied
            for other in added
            if new[other] and (old[label] <= new[other] or new[other] <= old[label])
        }
    return ClassChanges(
        added=tuple(classes[label] for label in added if label not in renamed.values()),
        emptied=tuple(classes[label] for label in emptied if label not in renamed),
        renamed=tuple((classes[label], classes[other]) for label, other in renamed.items()),
    )


def _find_emptied(folder: Location, manifest: Manifest, entries: Iterable[Entry]) -> list[int]:
    """The labels that records have, and no image has any more."""
    if manifest.labelled:
        now = {entry.label for entry in entries}
        return [n for n, count in enumerate(manifest.count_labels()) if count and n not in now]
    if all(column.kind != "labels" for column in manifest.columns):
        return []
    unused = {*range(len(manifest.classes))} - find_used(entries, manifest.columns)
    # The manifest does not count labels in lists: records are read, if a class may have lost all.
    return sorted(unused & _find_listed(folder, manifest)) if unused else []


def _find_listed(folder: Location, manifest: Manifest) -> set[int]:
    """The labels in lists of records."""
    names = [column.name for column in manifest.columns if column.kind == "labels"]
    return {
        label
        for _, sources in contents.read_all_sources(folder, manifest, detailed=True)
        for source in sources
        for features in [examples.decode_example(source.details)]
        for name in names
        for label in features.get(name, ())
        if isinstance(label, int)
    }


def _hash_records(
    folder: Location, manifest: Manifest, labels: Collection[int]
) -> dict[int, set[str]]:
    """The SHA-256 of the originals in some classes, by label, as their records state it."""
    found: dict[int, set[str]] = {label: set() for label in labels}
    for _, sources in contents.read_all_sources(folder, manifest):
        for source in sources:
            if source.label in found:
                found[source.label].add(source.sha256)
    return found


def _hash_files(
    entries: Sequence[Entry], images: Location, manifest: Manifest
) -> dict[int, set[str]]:
    limit = ConvertOptions.from_json(manifest.options).max_file_bytes

    def hash_entry(entry: Entry) -> str:
        with contextlib.suppress(ImageError):
            return hash_original(entry, images, limit)
        return ""

    found = defaultdict(set)
    for entry, digest in map_in_threads(hash_entry, entries, images):
        found[entry.label].add(digest)
    return found
