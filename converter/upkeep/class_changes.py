"""What an update means for the classes: which are new, which became empty, which were renamed."""

from __future__ import annotations

import concurrent.futures
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from converter.errors import ImageError
from converter.format.manifest import Manifest
from converter.inventory import Entry
from converter.options import ConvertOptions
from converter.sources.archives import digest_members
from converter.sources.originals import read_source
from converter.sources.streams import is_compressed
from converter.storage.hashing import hash_bytes
from converter.storage.location import Location, choose_threads
from converter.upkeep.provenance import read_sources
from converter.upkeep.updates import Update

_STEP: Final = 10_000


class ClassChanges(NamedTuple):
    """How the classes of a data set differ before and after an update.

    Attributes:
        added: new classes.
        emptied: classes that had images and have none any more.
        renamed: old and new name of classes with the same images, apart from some that were added
            or some that were removed.
    """

    added: tuple[str, ...] = ()
    emptied: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()


def compare_classes(
    folder: Location, manifest: Manifest, images: Location, update: Update
) -> ClassChanges:
    """Compares the classes of a data set with those after an update.

    Args:
        folder: the data set.
        manifest: its manifest.
        images: what the paths of the images are relative to.
        update: of the data set.

    Raises:
        DatasetError: a shard is damaged.
    """
    classes = update.draft.inventory.classes
    entries = [entry for group in update.draft.splits.values() for entry in group]
    now = Counter(entry.label for entry in entries)
    labels = (split.labels for split in manifest.splits.values())
    before = [sum(counts) for counts in zip(*labels, strict=True)]
    emptied = [label for label, count in enumerate(before) if count and not now[label]]
    added = range(len(manifest.classes), len(classes))
    renamed: dict[int, int] = {}
    if emptied and added:
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


def _hash_records(
    folder: Location, manifest: Manifest, labels: Collection[int]
) -> dict[int, set[str]]:
    """Returns the SHA-256 of the originals in some classes, by label."""
    found: dict[int, set[str]] = {label: set() for label in labels}
    for shard in manifest.shards:
        for source in read_sources(folder, shard, labelled=manifest.labelled):
            if source.label in found:
                found[source.label].add(source.sha256)
    return found


def _hash_files(
    entries: Sequence[Entry], images: Location, manifest: Manifest
) -> dict[int, set[str]]:
    members = digest_members(images) if is_compressed(images) else None
    limit = ConvertOptions.from_json(manifest.options).max_file_bytes

    def hash_entry(entry: Entry) -> tuple[int, str]:
        if members is not None:
            return entry.label, members.get(entry.path, "")
        try:
            return entry.label, hash_bytes(read_source(entry.path, images, limit))
        except ImageError:
            return entry.label, ""

    found = defaultdict(set)
    with concurrent.futures.ThreadPoolExecutor(choose_threads(images)) as pool:
        # In steps, because `map` makes a future for each entry at once.
        for start in range(0, len(entries), _STEP):
            for label, digest in pool.map(hash_entry, entries[start : start + _STEP]):
                found[label].add(digest)
    return found
