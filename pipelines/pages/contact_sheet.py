"""Real samples of a data set, drawn at random: small pictures by class, and what records say.

Whatever the size of a data set, the work is bounded: so many records, bytes, pictures and seconds.
A small one is looked at as a whole.
"""

from __future__ import annotations

import base64
import dataclasses
import random
import time
from collections.abc import Iterator, Sequence
from typing import Final

from converter.errors import ImageError, ShardmillError
from converter.format.manifest import Manifest
from converter.format.schema import LABELS
from converter.storage.location import Location
from pipelines.pages.record_facts import RecordFacts, RecordTally
from reader import Record, ShardSet, Source

MAX_RECORDS: Final = 2_048
MAX_PICTURES: Final = 320
MAX_PICTURE_BYTES: Final = 1_500_000  # of all, as they stand in the page
MAX_SECONDS: Final = 5.0
SIDE_PIXELS: Final = 112

_MAX_BYTES: Final = 1 << 26  # of records
_MAX_REMOTE: Final = 256, 1 << 24  # records and bytes, of which each run takes a request
_PER_CLASS: Final = 8
_UNGROUPED: Final = 48
_RUN: Final = 16  # records read together: neighbours are as random as others
_MAX_SEARCHED: Final = 200_000  # records whose labels are read, 8 µs each, to find rare classes
_MAX_DAMAGE: Final = 20

ALL: Final = -1
"""The group of records without a class."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A record in a contact sheet: its original's path, and its picture or what is wrong."""

    path: str
    picture: str = ""  # a data: address
    damage: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ContactSheet:
    """Samples by class number, `ALL` for records without one, and what all that were read say."""

    groups: dict[int, tuple[Sample, ...]]
    facts: RecordFacts


def draw_samples(folder: Location, manifest: Manifest) -> ContactSheet:
    """Reads and draws samples; the same data set gives the same ones.

    Damaged records, and files that are missing, are samples that say so: nothing is raised for
    them.
    """
    sheet = _Sheet(manifest)
    shards = ShardSet(folder, manifest)
    for split, numbers in _choose_records(manifest, remote=folder.is_remote):
        if sheet.is_late:
            break
        sheet.read(shards.source(split), numbers)
    if manifest.labelled and not folder.is_remote and manifest.totals.written <= _MAX_SEARCHED:
        sheet.search(shards)
    groups = {label: tuple(samples) for label, samples in sorted(sheet.groups.items())}
    return ContactSheet(groups=groups, facts=sheet.tally.describe(manifest.totals.written))


def _choose_records(manifest: Manifest, *, remote: bool) -> Iterator[tuple[str, list[int]]]:
    """Runs of records, by split: all of a small data set, else a random choice of all splits."""
    most, most_bytes = _MAX_REMOTE if remote else (MAX_RECORDS, _MAX_BYTES)
    total = max(1, manifest.totals.written)
    mean = max(1, manifest.total_bytes / total)
    most = min(most, max(_RUN, int(most_bytes / mean)))
    runs = [
        (split, list(range(begin, min(begin + _RUN, info.records))))
        for split, info in manifest.splits.items()
        for begin in _choose_begins(manifest.plan, info.records, most * info.records // total)
    ]
    random.Random(manifest.plan).shuffle(runs)  # noqa: S311 (no secret)
    yield from runs


def _choose_begins(seed: str, records: int, wanted: int) -> Sequence[int]:
    begins = range(0, records, _RUN)
    count = max(1, -(-wanted // _RUN))
    if count >= len(begins):
        return begins
    return sorted(random.Random(seed).sample(begins, count))  # noqa: S311


class _Sheet:
    def __init__(self, manifest: Manifest) -> None:
        self.tally = RecordTally()
        self.groups: dict[int, list[Sample]] = {}
        self._manifest = manifest
        self._classes = manifest.classes
        self._begin = time.monotonic()
        self._pictures = self._bytes = 0
        several = manifest.labelled or any(each.name == LABELS for each in manifest.columns)
        classes = len(manifest.classes) if several else 0
        self._per_group = (
            max(1, min(_PER_CLASS, MAX_PICTURES // classes)) if classes else _UNGROUPED
        )

    @property
    def is_late(self) -> bool:
        return time.monotonic() - self._begin > MAX_SECONDS

    def read(self, source: Source, numbers: Sequence[int]) -> None:
        """Takes records in; where one of them is damaged, each of them alone."""
        try:
            records = source[numbers]
        except (ShardmillError, OSError):
            for number in numbers:
                try:
                    self._add(source[number])
                except (ShardmillError, OSError) as error:  # noqa: PERF203 (each may be damaged)
                    self._add_damage(error, "")
            return
        for record in records:
            self._add(record)

    def search(self, shards: ShardSet) -> None:
        """Looks for records of the classes that none was drawn of."""
        for split, info in self._manifest.splits.items():
            missing = {label for label, n in enumerate(info.labels) if n} - self.groups.keys()
            if not missing or not self._has_room():
                continue
            source = shards.source(split)
            try:
                labels = source.labels.tolist()
            except (ShardmillError, OSError):
                continue  # it was said of the record that is damaged
            for number, label in enumerate(labels):
                if label in missing and self._has_room():
                    missing.discard(label)
                    self._draw_one(source, number)

    def _has_room(self) -> bool:
        few = self._pictures < MAX_PICTURES and self._bytes < MAX_PICTURE_BYTES
        return few and not self.is_late

    def _draw_one(self, source: Source, number: int) -> None:
        try:
            self._draw(source[number])
        except (ShardmillError, OSError) as error:
            self._add_damage(error, "")

    def _add(self, record: Record) -> None:
        try:
            self.tally.add(record)
        except ImageError as error:
            self._add_damage(error, record.source_id)
            return
        self._draw(record)

    def _add_damage(self, error: Exception, path: str) -> None:
        text = f"{path}: {error}" if path else str(error)
        known = text in self.tally.damage
        if known or len(self.tally.damage) >= _MAX_DAMAGE:
            return
        self.tally.damage[text] = None

    def _draw(self, record: Record) -> None:
        group = self._choose_group(record)
        if group is None or not self._has_room():
            return
        from pipelines.pages.thumbnails import Drawing, draw_record  # noqa: PLC0415 (Pillow)

        small = Drawing(side_pixels=SIDE_PIXELS, file_format="webp")
        try:
            picture = draw_record(record, self._classes, small)
        except ImageError as error:
            self._add_damage(error, record.source_id)
            sample = Sample(path=record.source_id, damage=error.detail)
        else:
            address = encode_address(picture.data, picture.media_type)
            self._bytes += len(address)
            sample = Sample(path=record.source_id, picture=address)
        self._pictures += 1
        self.groups.setdefault(group, []).append(sample)

    def _choose_group(self, record: Record) -> int | None:
        """The first class of a record that has room for a sample."""
        labels = record.values.get(LABELS)
        if labels is None:
            labels = [record.label if self._manifest.labelled else ALL]
        room = (n for n in labels if len(self.groups.get(n, ())) < self._per_group)
        return next(room, None)


def encode_address(data: bytes, media_type: str) -> str:
    """A picture as a data: address, which a page shows without a request."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
