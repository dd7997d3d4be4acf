"""Decides how many shards a split gets, and how many records each shard holds."""

from __future__ import annotations

from typing import Final

from converter.errors import UsageError
from converter.inventory import Entry
from converter.options import MAX_SHARDS, ConvertOptions

MIN_SHARDS: Final = 16
"""A split has at least this many shards, to keep all cores busy and for interleaved reading, while
each of them keeps at least `MIN_SHARD_RECORDS`."""

MIN_SHARD_RECORDS: Final = 32


def count_shards(records: int, split_bytes: float, shard_bytes: int) -> int:
    """The number of shards of a split, whatever the number of cores."""
    floor = min(MIN_SHARDS, records // MIN_SHARD_RECORDS)
    return max(1, floor, min(records, MAX_SHARDS, round(split_bytes / shard_bytes)))


def cut_evenly(total: int, parts: int) -> list[int]:
    """Cuts `total` into `parts` numbers that differ by one at most, the larger ones first.

    >>> cut_evenly(10, 4)
    [3, 3, 2, 2]
    """
    small, extra = divmod(total, parts)
    return [small + 1] * extra + [small] * (parts - extra)


def plan_shards(
    splits: dict[str, list[Entry]], options: ConvertOptions, record_bytes: float
) -> dict[str, list[int]]:
    """The number of records of each shard, by split.

    `num_shards` decides, or else `shard_bytes` and the mean size of a record.

    Raises:
        UsageError: `num_shards` is more than the images of the largest split.
    """
    largest = max(map(len, splits.values()))
    counts = {}
    for split, entries in splits.items():
        if options.num_shards is None:
            count = count_shards(len(entries), len(entries) * record_bytes, options.shard_bytes)
        elif options.num_shards > largest:
            raise UsageError(
                f"num shards {options.num_shards} is more than the {largest} images of the "
                "largest split: ask for fewer"
            )
        else:
            count = max(1, round(options.num_shards * len(entries) / largest))
        counts[split] = cut_evenly(len(entries), count)
    return counts
