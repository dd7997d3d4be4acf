"""What the checks of shards found: the reports of single ones, and all of them together."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from converter.format.manifest import Manifest, ShardInfo
from converter.storage.files import MANIFEST
from converter.upkeep.contents import SourceCounts


class Fault(NamedTuple):
    """One thing that is wrong."""

    file: str  # a name in the data set, or the path of an original
    detail: str
    original: bool = False  # whether `file` is an original that differs from its record
    record: int | None = None  # the damaged record of that shard, by its number there


class Report(NamedTuple):
    """What the check of one shard found; no counts if not all of its records could be read."""

    faults: list[Fault]
    counts: SourceCounts | None

    def to_json(self) -> bytes:
        return json.dumps(self).encode("ascii")

    @classmethod
    def from_json(cls, data: bytes) -> "Report":
        faults, counts = json.loads(data)
        if counts is not None:
            labels, formats, smallest, largest = counts
            pairs = [(label, n) for label, n in labels]
            counts = SourceCounts(pairs, formats, tuple(smallest), tuple(largest))
        return cls([Fault(*fault) for fault in faults], counts)


class Findings:
    """The sum of reports, one of each shard, in any order: their faults and counts alone."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._faults: dict[str, list[Fault]] = {}  # by shard
        self._counted = 0  # shards
        self._labels: dict[str, Counter[int]] = {split: Counter() for split in manifest.splits}
        self._formats: Counter[str] = Counter()
        self._height = self._width = 0

    def add(self, shard: ShardInfo, report: Report) -> None:
        """Adds the report on a shard."""
        if report.faults:
            self._faults[shard.name] = report.faults
        if (found := report.counts) is not None:
            self._counted += 1
            self._labels[shard.split].update(dict(found.labels))
            self._formats.update(found.formats)
            self._height = max(self._height, found.max_image_size[0])
            self._width = max(self._width, found.max_image_size[1])

    def list_faults(self) -> list[Fault]:
        """The faults of all shards, in order, and then those of their sum."""
        shards = self._manifest.shards
        faults = [fault for shard in shards for fault in self._faults.get(shard.name, ())]
        # Where records cannot be read, all counts would be wrong.
        return faults + ([*self._compare_counts()] if self._counted == len(shards) else [])

    def _compare_counts(self) -> Iterator[Fault]:
        for split, info in self._manifest.splits.items():
            for label, expected in enumerate(info.labels):
                if (count := self._labels[split][label]) != expected:
                    detail = f"label {label} is on {count} records, stated are {expected}"
                    yield Fault(MANIFEST, f"split {split}: {detail}")
        image = self._manifest.image
        if self._formats != image.formats:
            yield Fault(MANIFEST, f"formats are {dict(self._formats)}, stated are {image.formats}")
        if (self._height, self._width) != (image.max_height, image.max_width):
            stated = f"{image.max_height}x{image.max_width}"
            yield Fault(
                MANIFEST, f"images are up to {self._height}x{self._width}, stated is {stated}"
            )
