"""Proposes the shards of a conversion: scan, sample and plan, without writing. No Beam here."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

from converter.images.openers import register_formats
from converter.inventory import Entry, Inventory
from converter.options import ConvertOptions
from converter.planning.plan import Draft
from converter.planning.splits import assign_splits, plan_shards
from converter.sources.inputs import locate_root
from converter.sources.scan import scan_images
from converter.storage.locate import locate
from converter.storage.location import AnyPath
from converter.writing.records import Estimate, bound_record_bytes, check_scan, estimate_records


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """The plan of a conversion, and sizes measured on a sample, or None if none was needed."""

    draft: Draft
    estimate: Estimate | None

    @property
    def bytes(self) -> float:
        """About how many bytes the shards take; 0 if no sample was needed."""
        images = len(self.draft.inventory.entries)
        return self.estimate.record_bytes * images if self.estimate else 0.0

    @property
    def source_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.draft.inventory.entries)

    def count_labels(self) -> list[int]:
        """Counts the images of each class, in label order."""
        inventory = self.draft.inventory
        counts = Counter(entry.label for entry in inventory.entries)
        return [counts[label] for label in range(len(inventory.classes))]


def propose(
    images: AnyPath,
    options: ConvertOptions | None = None,
    *,
    always_sample: bool = True,
    room: float = math.inf,
    inventory: Inventory | None = None,
) -> Proposal:
    """Plans the shards of a conversion, whatever the output, without writing anything.

    Args:
        images: as for `pipelines.convert`.
        options: as for `pipelines.convert`.
        always_sample: convert a sample even if the number of shards does not depend on it.
        room: free bytes; a sample is also taken if the shards might not fit.
        inventory: the images, if they are scanned already.

    Raises:
        UsageError: there is nothing to convert, or not with these options.
    """
    options = options or ConvertOptions()
    folder = locate(images)
    register_formats(options.formats)  # a missing extra shows here, not in every worker
    inventory = inventory or scan_images(folder, options)
    check_scan(inventory, options)
    splits = assign_splits(inventory.entries, options, inventory.duplicates)
    estimate, record_bytes = None, bound_record_bytes(options)
    doubtful = record_bytes * len(inventory.entries) > room
    if always_sample or doubtful or not _is_decided(splits, options, record_bytes):
        sample = max(splits.values(), key=len)
        estimate = estimate_records(sample, inventory, locate_root(folder, options), options)
        record_bytes = estimate.record_bytes
    shard_records = plan_shards(splits, options, record_bytes)
    draft = Draft(inventory=inventory, splits=splits, shard_records=shard_records)
    return Proposal(draft=draft, estimate=estimate)


def _is_decided(
    splits: dict[str, list[Entry]], options: ConvertOptions, record_bytes: float
) -> bool:
    """Whether records of the largest possible size make as many shards as empty ones would."""
    if math.isinf(record_bytes):
        return options.num_shards is not None
    return plan_shards(splits, options, record_bytes) == plan_shards(splits, options, 0)
