"""Rebuilds the damaged files of a data set from the originals, or leaves them alone.

Only the manifest is trusted: a rebuilt file replaces a damaged one only if it has the SHA-256 that
the manifest states. So the list of a shard's originals may come from anywhere: from the shard
itself, from planning the conversion again, or from what no other shard of its split holds.
"""

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Collection, Mapping, Sequence

from converter.errors import DatasetError, ImageError
from converter.format.indexes import format_line
from converter.format.manifest import Manifest, ShardInfo
from converter.format.metadata import describe_dataset
from converter.format.tfrecords import scan_records
from converter.inventory import Entry, Inventory, NoteTally
from converter.names import find_file
from converter.options import IN_FILES, ConvertOptions
from converter.planning.plan import Draft, Plan, dump_line, list_left_out, write_plan
from converter.planning.splits import assign_splits
from converter.sources.originals import read_original
from converter.storage.files import (
    NOTES,
    REJECTS,
    Layout,
    describe_errors,
    hash_bytes,
    name_index,
    write_file,
)
from converter.storage.location import Location, map_in_threads
from converter.upkeep import contents
from converter.upkeep.updates import draft_shards, find_rejects, read_rejects
from converter.writing.image_notes import note_original


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RepairJob:
    """A damaged data set, and the folder or archive of the originals to rebuild it from."""

    folder: Location
    manifest: Manifest
    images: Location

    @property
    def options(self) -> ConvertOptions:
        return ConvertOptions.from_json(self.manifest.options)

    def rebuild_index(self, shard: ShardInfo) -> bool:
        """Writes the index of a shard from the framing of its records, if it is as stated."""
        lines, offset = bytearray(), 0
        try:
            with (
                self.folder.bring_local([shard.name]) as here,
                open(here / shard.name, "rb") as file,
            ):
                for size in scan_records(file, shard.name, shard.bytes, payloads=False):
                    lines += format_line(offset, size)
                    offset += size
        except (OSError, DatasetError):
            return False
        return self._write(name_index(shard.name), bytes(lines), shard.index_sha256)

    def rebuild_file(self, name: str, draft: Draft | None) -> bool:
        """Writes a file other than shards and indexes, if its content is known and as stated."""
        stated = self.manifest
        content = describe_dataset(
            stated.image, stated.classes, stated.shards, stated.columns, labelled=stated.labelled
        ).get(name)
        describe = {REJECTS: self._describe_rejects, NOTES: self._describe_notes}.get(name)
        if describe and draft:
            # They follow from whole shards: as long as one is damaged, these two stay as they are.
            with contextlib.suppress(DatasetError):
                content = describe(draft)
        return content is not None and self._write(name, content, stated.files[name].sha256)

    def recall_members(self, shard: ShardInfo) -> list[Entry] | None:
        """Lists a shard's originals from its records; None if those or the originals changed."""
        options = self.options
        unnamed = self.manifest.columns or options.members or options.source in IN_FILES
        if unnamed or not self.images.is_dir():
            return None  # a record does not name its row, or its place in an archive

        def recall(item: tuple[str, contents.Source]) -> Entry | None:
            path, source = item
            entry = Entry(path, source.label, self.images.child(path).measure() or 0)
            limit = options.max_file_bytes
            changed = contents.describe_change(entry, source.sha256, self.images, limit)
            return None if changed else entry

        try:
            sources = contents.read_sources(self.folder, shard, labelled=self.manifest.labelled)
            files = {find_file(source.path, options.frames): source for source in sources}
            recalled = map_in_threads(recall, [*files.items()], self.images)
            entries = [entry for _, entry in recalled if entry is not None]
        except (DatasetError, OSError, ValueError):
            return None
        return entries if len(entries) == len(files) else None

    def deduce_members(
        self, lost: Sequence[ShardInfo], inventory: Inventory
    ) -> dict[str, list[Entry]]:
        """Lists the images that no other shard of a split holds, where one shard of it is lost.

        `inventory` holds the current images, with the labels of the manifest. A shard is left out
        if its split lost several, or if the number of images is not that of its records.
        """
        options = self.options
        # The split of what was rejected does not matter: it is only not to be taken for lost.
        taken = dict.fromkeys(read_rejects(self.folder), "train")
        whole = [shard for shard in self.manifest.shards if shard not in lost]
        for shard, sources in contents.read_all_sources(self.folder, self.manifest, whole):
            taken |= {find_file(source.path, options.frames): shard.split for source in sources}
        splits = assign_splits(inventory.entries, options, inventory.duplicates, taken)
        found = {}
        for shard in lost:
            rest = [entry for entry in splits.get(shard.split, ()) if entry.path not in taken]
            alone = sum(other.split == shard.split for other in lost) == 1
            if alone and len(rest) == shard.records:
                found[shard.name] = rest
        return found

    def list_members(self, draft: Draft) -> dict[str, list[Entry]]:
        """Lists the images of each shard as the conversion planned them, including rejects."""
        members = {}
        for split, counts in draft.shard_records.items():
            entries = iter(draft.splits[split])
            for shard, count in zip(self.manifest.list_shards(split), counts, strict=True):
                members[shard.name] = list(itertools.islice(entries, count))
        return members

    def write_plan(self, members: Mapping[str, list[Entry]]) -> Plan:
        """Writes a plan, into `Layout.repair`, that makes some shards of these originals again."""
        inventory = Inventory(
            classes=self.manifest.classes,
            entries=(),
            skipped=(),
            columns=self.manifest.columns,
            labelled=self.manifest.labelled,
        )
        draft = draft_shards(inventory, members, self.manifest)
        out = Layout(self.folder).repair
        plan = write_plan(draft, self.options, images=self.images, out=out)
        shards = tuple(shard for shard in plan.shards if shard.name in members)
        return dataclasses.replace(plan, shards=shards)

    def take_shard(self, shard: ShardInfo, damaged: Collection[str]) -> list[str]:
        """Replaces the damaged files of a shard by rebuilt ones, if these are as stated."""
        rebuilt = Layout(self.folder).repair
        # Other originals, or another version of Pillow, give other bytes than were lost.
        if not contents.is_stated(rebuilt, shard):
            return []
        names = [name for name in (shard.name, name_index(shard.name)) if name in damaged]
        with describe_errors(self.folder):
            rebuilt.move_files(names, self.folder)
        return names

    def _describe_rejects(self, draft: Draft) -> bytes:
        options, members = self.options, self.list_members(draft)
        lines: list[bytes] = []
        for shard, sources in contents.read_all_sources(self.folder, self.manifest):
            written = {find_file(source.path, options.frames) for source in sources}
            for entry in members[shard.name]:
                # Of several frames, some may be written and others not.
                if entry.path not in written or options.frames == "all":
                    rejects = find_rejects(entry, draft.inventory, self.images, options)
                    # A worker's are written with spaces.
                    lines += [json.dumps(x).encode("ascii") + b"\n" for x in rejects if x]
        # In the order of a commit: first those of all shards, then those of the plan.
        return b"".join((*lines, *map(dump_line, list_left_out(draft))))

    def _describe_notes(self, draft: Draft) -> bytes:
        options, tally, columns = self.options, NoteTally(), draft.inventory.columns
        entries = {entry.path: entry for entry in draft.inventory.entries}
        for _, sources in contents.read_all_sources(self.folder, self.manifest):
            paths = [source.path for source in sources]
            for path, frames in itertools.groupby(paths, lambda p: find_file(p, options.frames)):
                with contextlib.suppress(ImageError, KeyError):
                    entry = entries[path]
                    data = read_original(entry, self.images, options.max_file_bytes)
                    note_original(entry, frames, data, options, columns, tally=tally)
        notes = (*draft.inventory.notes, *tally.list_notes())
        return b"".join(dump_line(note._asdict()) for note in notes)

    def _write(self, name: str, data: bytes, sha256: str) -> bool:
        if hash_bytes(data) != sha256:
            return False
        write_file(self.folder / name, data, Layout(self.folder).scratch)
        return True
