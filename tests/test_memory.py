"""How a number of bytes is divided among the buffers of the reader."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter import UsageError
from reader.memory import (
    BATCHES_IN_FLIGHT,
    MAX_CYCLE,
    MAX_SHUFFLE_RECORDS,
    PREFETCH_BATCHES,
    READ_BYTES,
    Buffers,
    divide_memory,
)

SPLITS = st.fixed_dictionaries(
    {
        "shards": st.integers(1, 100_000),
        "records": st.integers(1, 10**9),
        "record_bytes": st.integers(17, 300_000_000),
        "batch_bytes": st.integers(1, 10**10),
        "image_bytes": st.integers(1, 10**9),
        "cores": st.integers(1, 256),
    }
)


def find_least(split: dict[str, int]) -> int:
    """The smallest budget that works: one shard, one record to shuffle, what is decoded."""
    return hold_pixels(split) + hold_shards(1, split) + split["record_bytes"]


def hold_shards(cycle: int, split: dict[str, int]) -> int:
    """The bytes of the open shards, thrice as many as are read, with three records each."""
    return cycle * 3 * (READ_BYTES + 3 * split["record_bytes"])


def hold_pixels(split: dict[str, int]) -> int:
    """The bytes of all batches, and of the images that are not in a batch yet."""
    return BATCHES_IN_FLIGHT * split["batch_bytes"] + split["cores"] * split["image_bytes"]


@given(SPLITS, st.integers(0, 10**11))
def test_the_buffers_together_never_exceed_the_budget(split, spare):
    budget = find_least(split) + spare
    buffers = divide_memory(budget, **split)
    assert (
        hold_pixels(split)
        + hold_shards(buffers.cycle, split)
        + buffers.shuffle_records * split["record_bytes"]
    ) <= budget


@given(SPLITS, st.integers(0, 10**11))
def test_each_buffer_holds_at_least_one_and_no_more_than_there_is(split, spare):
    budget = find_least(split) + spare
    buffers = divide_memory(budget, **split)
    assert 1 <= buffers.cycle <= min(split["shards"], MAX_CYCLE)
    assert 1 <= buffers.shuffle_records <= min(split["records"], MAX_SHUFFLE_RECORDS)
    assert buffers.prefetch_batches == PREFETCH_BATCHES


@given(SPLITS)
def test_one_byte_less_than_the_least_is_refused_with_the_least_in_the_message(split):
    least = find_least(split)
    message = (
        f"max_ram_bytes {least - 1:,} is too small: 6 batches of {split['batch_bytes']:,} bytes, "
        f"{split['cores']} images in the decoder and their records need {least:,}; allow that, or "
        "take smaller batches"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        divide_memory(least - 1, **split)


@pytest.mark.parametrize(
    ("budget", "cycle", "shuffle_records"),
    [
        (512_000_000, 16, 512),  # all that is of use
        (86_000_000, 2, 512),  # a quarter of what the batches leave is for open shards
        (77_200_000, 1, 22),  # hardly more than the batches
    ],
)
def test_the_sizes_for_common_budgets(budget, cycle, shuffle_records):
    found = divide_memory(
        budget,
        shards=40,
        records=5_000,
        record_bytes=10_000,
        batch_bytes=12_600_000,
        image_bytes=125_000,
        cores=4,
    )
    assert found == Buffers(
        cycle=cycle, shuffle_records=shuffle_records, prefetch_batches=PREFETCH_BATCHES
    )
