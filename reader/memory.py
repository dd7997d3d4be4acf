"""Divides a number of bytes among the buffers of a `tf.data` pipeline; pure arithmetic."""

from __future__ import annotations

import dataclasses
from typing import Final

from converter.errors import UsageError

PREFETCH_BATCHES: Final = 2
"""Fixed: an autotuned prefetch grows until the memory is gone."""

PARALLEL_BATCHES: Final = 2
"""Batches that are filled at the same time: one is copied while the next gathers its images."""

BATCHES_IN_FLIGHT: Final = PREFETCH_BATCHES + PARALLEL_BATCHES + 2
"""Besides those: one being converted, one with the caller."""

MAX_CYCLE: Final = 16
READ_BYTES: Final = 262_144
"""The read buffer of one open shard: TensorFlow's own default."""

OPEN_PER_CYCLE: Final = 3
"""TensorFlow's parallel interleave opens that many shards for each one that it reads from …"""

RECORDS_PER_SHARD: Final = 3
"""… and holds that many records of each (`kDefaultCyclePrefetchFactor` and a block length of 1)."""

MAX_SHUFFLE_RECORDS: Final = 512
"""Records lie on disk in a random order, their shards are read in another one, `MAX_CYCLE` at a
time: a larger buffer costs memory and mixes no better that anybody could measure."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Buffers:
    """Sizes of the buffers of one pipeline.

    Attributes:
        cycle: shards that are read at the same time.
        shuffle_records: encoded records in the shuffle buffer.
        prefetch_batches: finished batches that wait for the caller.
    """

    cycle: int
    shuffle_records: int
    prefetch_batches: int


def divide_memory(
    max_ram_bytes: int,
    *,
    shards: int,
    records: int,
    record_bytes: int,
    batch_bytes: int,
    image_bytes: int,
    cores: int,
) -> Buffers:
    """Sizes the buffers so that they hold at most `max_ram_bytes` together.

    Args:
        max_ram_bytes: the budget.
        shards: of the split.
        records: of the split.
        record_bytes: the largest record, encoded.
        batch_bytes: one decoded batch, as the caller gets it.
        image_bytes: the largest image while it is decoded and resized.
        cores: images that are decoded at the same time.

    Raises:
        UsageError: the budget does not even hold the batches; says what would do.
    """
    batches = BATCHES_IN_FLIGHT * batch_bytes + cores * image_bytes
    per_shard = OPEN_PER_CYCLE * (READ_BYTES + RECORDS_PER_SHARD * record_bytes)
    least = batches + per_shard + record_bytes
    if max_ram_bytes < least:
        raise UsageError(
            f"max_ram_bytes {max_ram_bytes:,} is too small: {BATCHES_IN_FLIGHT} batches of "
            f"{batch_bytes:,} bytes, {cores} images in the decoder and their records need "
            f"{least:,}; allow that, or take smaller batches"
        )
    left = max_ram_bytes - batches
    cycle = max(1, min(shards, MAX_CYCLE, left // 4 // per_shard))
    room = (left - cycle * per_shard) // record_bytes
    return Buffers(
        cycle=cycle,
        shuffle_records=max(1, min(records, MAX_SHUFFLE_RECORDS, room)),
        prefetch_batches=PREFETCH_BATCHES,
    )
