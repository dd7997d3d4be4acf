"""Compares the records of a data set with the images, masks and rows that there are now.

Every original is read, because its content is compared; none is decoded.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from converter.errors import ImageError
from converter.format import examples
from converter.format.manifest import Manifest, ShardInfo
from converter.format.schema import BOXES, MASK, Column, make_features
from converter.images.boxes import fit_boxes
from converter.images.frame_paths import find_file
from converter.images.geometry import Size
from converter.images.image_notes import examine_image, note_traits
from converter.inventory import Entry, NoteTally
from converter.options import ConvertOptions
from converter.planning.splits import may_stay
from converter.sources.mask_pairing import locate_masks
from converter.sources.originals import read_entry, read_source
from converter.sources.streams import is_compressed
from converter.storage.files import choose_threads
from converter.storage.hashing import hash_bytes
from converter.storage.layout import name_index
from converter.storage.location import Location
from converter.upkeep.provenance import Source, describe_change, is_stated, read_sources
from converter.writing.shard_writer import Receipt


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One shard compared with what is there now.

    Attributes:
        entries: its images that are still there, in record order.
        changed: how many of them have other content, another mask, or other values in their row.
        removed: how many are gone.
        damaged: whether its bytes are not those that the manifest states.
        receipt: of the shard as it lies there.
    """

    entries: list[Entry]
    changed: int
    removed: int
    damaged: bool
    receipt: Receipt

    @property
    def touched(self) -> bool:
        return bool(self.changed or self.removed or self.damaged)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What shards are compared with.

    Attributes:
        folder: the data set.
        manifest: its manifest.
        images: the folder of the originals, or their archive.
        present: the images that are there now, by their paths.
        options: of the data set.
        refused: what was left out when it was written, by path: the lines of its rejects.
        noted: whether anything was odd about the content of its images.
    """

    folder: Location
    manifest: Manifest
    images: Location
    present: Mapping[str, Entry]
    options: ConvertOptions
    refused: Mapping[str, dict[str, str]]
    noted: bool

    def compare_shards(self, on_shard: Callable[[ShardInfo], object] | None) -> dict[str, Share]:
        """All shards by their names.

        Raises:
            DatasetError: one is damaged, so that nobody can tell what is in it.
        """
        shares = {}
        with concurrent.futures.ThreadPoolExecutor(
            choose_threads(self.folder, self.images)
        ) as pool:
            work = pool.map(self._compare_shard, self.manifest.shards)
            for shard, share in zip(self.manifest.shards, work, strict=True):
                shares[shard.name] = share
                if on_shard is not None:
                    on_shard(shard)
        return shares

    def _compare_shard(self, shard: ShardInfo) -> Share:
        with self.folder.bring_local((shard.name, name_index(shard.name))) as here:
            sources = read_sources(
                here, shard, labelled=self.manifest.labelled, detailed=bool(self.manifest.columns)
            )
            damaged = not is_stated(here, shard)
        entries, changed, removed, tally = [], 0, 0, NoteTally()
        for path, group in itertools.groupby(sources, self._name_file):
            entry, frames = self.present.get(path), list(group)
            if entry is None or not may_stay(entry, shard.split, self.options):
                removed += 1
                continue
            entries.append(entry)
            data = self._read(entry)
            changed += self._is_changed(entry, frames[0], data)
            if self.noted and data is not None:
                with contextlib.suppress(ImageError):
                    note_traits((frame.path for frame in frames), data, self.options, tally)
        receipt = _describe_shard(
            shard, sources, self._list_rejects(entries), tally, len(entries) + removed
        )
        return Share(
            entries=entries, changed=changed, removed=removed, damaged=damaged, receipt=receipt
        )

    def _name_file(self, source: Source) -> str:
        return find_file(source.path, self.options.frames)

    def _read(self, entry: Entry) -> bytes | None:
        """An original; None if it cannot be read now, or not without all before it."""
        if is_compressed(self.images):
            return None
        try:
            return read_source(entry.path, self.images, self.options.max_file_bytes)
        except ImageError:
            return None

    def _is_changed(self, entry: Entry, source: Source, data: bytes | None) -> bool:
        if entry.label != source.label or self._has_other_content(entry, source, data):
            return True
        if not self.manifest.columns:
            return False
        features = examples.decode_example(source.details)
        return self._has_other_mask(entry, features) or self._has_other_values(
            entry, features, data
        )

    def _has_other_content(self, entry: Entry, source: Source, data: bytes | None) -> bool:
        if data is not None:
            return hash_bytes(data) != source.sha256
        limit = self.options.max_file_bytes
        return describe_change(entry.path, source.sha256, self.images, limit) is not None

    def _has_other_mask(self, entry: Entry, features: examples.Features) -> bool:
        if entry.mask is None:
            return False
        try:
            data = read_entry(entry.mask, locate_masks(self.images, self.options))
        except ImageError:
            return True
        return features.get(examples.MASK_SHA256) != [hash_bytes(data).encode()]

    def _has_other_values(
        self, entry: Entry, features: examples.Features, data: bytes | None
    ) -> bool:
        columns = [column for column in self.manifest.columns if column.name != MASK]
        if not columns:
            return False
        size = self._measure(entry, columns, data)
        values = fit_boxes(columns, json.loads(entry.values), size, self.options)
        types = {column.name: column.type for column in columns}
        now = examples.encode_example(make_features(columns, values), types)
        # As bytes: there are numbers that are not equal to themselves, and rounded ones.
        stored = {name: features.get(name, []) for name in types}
        return now != examples.encode_example(stored, types)

    def _measure(self, entry: Entry, columns: Sequence[Column], data: bytes | None) -> Size:
        """The size of an original, if boxes lie in it."""
        if not any(column.name == BOXES for column in columns):
            return 1, 1
        if data is None:
            data = read_entry(entry, self.images)
        return examine_image(data, self.options).size

    def _list_rejects(self, entries: Sequence[Entry]) -> list[dict[str, str]]:
        """The frames of some files that could not be converted, where others could."""
        if self.options.frames != "all":
            return []
        files = {entry.path for entry in entries}
        return [line for path, line in self.refused.items() if find_file(path, "all") in files]


def _describe_shard(
    shard: ShardInfo,
    sources: Sequence[Source],
    rejects: list[dict[str, str]],
    tally: NoteTally,
    files: int,
) -> Receipt:
    return Receipt(
        **dataclasses.asdict(shard),
        max_image_size=(
            max((source.height for source in sources), default=0),
            max((source.width for source in sources), default=0),
        ),
        formats=dict(sorted(Counter(source.format for source in sources).items())),
        labels=sorted(Counter(source.label for source in sources).items()),
        rejects=rejects,
        frames=len(sources) + len(rejects) - files,
        notes=[note._asdict() for note in tally.list_notes()],
    )
