"""What a conversion would do: scan, sample and plan, without writing anything. No Beam here."""

from __future__ import annotations

import dataclasses
import math

from converter.images.openers import register_formats
from converter.inventory import Entry, Inventory
from converter.options import ConvertOptions
from converter.planning.plan import Draft
from converter.planning.sharding import plan_shards
from converter.planning.splits import assign_splits
from converter.planning.strict_checks import check_scan
from converter.sources.inputs import locate_root
from converter.sources.scan import scan_images
from converter.storage.locate import locate
from converter.storage.location import AnyPath
from converter.writing.estimates import Estimate, bound_record_bytes, estimate_records


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """What a conversion would do; nothing is written yet.

    Attributes:
        inventory: the images, and what is left out.
        splits: the entries of each split, in record order.
        shard_records: how many records each shard of each split would hold.
        estimate: what a sample says about sizes, or None where no sample was needed.
    """

    inventory: Inventory
    splits: dict[str, list[Entry]]
    shard_records: dict[str, list[int]]
    estimate: Estimate | None

    @property
    def bytes(self) -> float:
        """About how many bytes the shards take; 0 where no sample was needed."""
        return self.estimate.record_bytes * len(self.inventory.entries) if self.estimate else 0.0

    @property
    def draft(self) -> Draft:
        """What `converter.planning.plan.write_plan` writes."""
        return Draft(inventory=self.inventory, splits=self.splits, shard_records=self.shard_records)


def propose(
    images: AnyPath,
    options: ConvertOptions | None = None,
    *,
    always_sample: bool = True,
    room: float = math.inf,
    inventory: Inventory | None = None,
) -> Proposal:
    """Finds out what converting a folder would give, without writing anything.

    Args:
        images: folder with a folder of images for each class.
        options: what the conversion would be asked for.
        always_sample: convert a sample even where the number of shards does not depend on it.
        room: how many bytes are free; a sample tells whether what might not fit into them does.
        inventory: what lies in the folder, where that is known.

    Raises:
        UsageError: there is nothing to convert, or not as asked.
    """
    options = options or ConvertOptions()
    folder = locate(images)
    register_formats(options.formats)  # an extra that is missing shows here, not in every worker
    inventory = inventory or scan_images(folder, options)
    check_scan(inventory, options)
    splits = assign_splits(inventory.entries, options, inventory.duplicates)
    estimate = None
    bound = bound_record_bytes(options)
    doubtful = bound * len(inventory.entries) > room
    if always_sample or doubtful or not _is_decided(splits, options, bound):
        sample = max(splits.values(), key=len)
        estimate = estimate_records(sample, inventory, locate_root(folder, options), options)
    record_bytes = estimate.record_bytes if estimate else bound
    return Proposal(
        inventory=inventory,
        splits=splits,
        shard_records=plan_shards(splits, options, record_bytes),
        estimate=estimate,
    )


def _is_decided(
    splits: dict[str, list[Entry]], options: ConvertOptions, record_bytes: float
) -> bool:
    """Whether records of the largest possible size make as many shards as empty ones would."""
    if math.isinf(record_bytes):
        return options.num_shards is not None
    return plan_shards(splits, options, record_bytes) == plan_shards(splits, options, 0)
