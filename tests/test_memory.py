"""How a number of bytes is divided among what a reader holds."""

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter import UsageError
from reader.plan.memory import (
    BLOCK_BYTES,
    INDEX_BYTES,
    LENT_BATCHES,
    MAX_CALLS,
    MAX_WINDOW_RECORDS,
    MIN_RUNS,
    PARSED_BYTES,
    RUN_BYTES,
    RUNTIME_BYTES,
    SHARD_BYTES,
    SLICE_RECORDS,
    Buffers,
    Demand,
    divide_memory,
)
from reader.records.record_files import KEPT_INDEX_BYTES

QUICK = settings(deadline=None, max_examples=300)
BYTES = st.integers(0, 10**8) | st.integers(0, 10**11)


def make_demand(mean: int, above: int, records: int, **others: object) -> Demand:
    return Demand(records=records, record_bytes=mean + above, mean_record_bytes=mean, **others)


DEMANDS = st.builds(
    make_demand,
    mean=st.integers(1, 1_000) | st.integers(1, 10**6),
    above=st.integers(0, 10**6),
    records=st.integers(0, 40) | st.integers(0, 10**7),
    shards=st.just(0) | st.integers(0, 10**5),
    shard_records=st.integers(0, 10**5) | st.integers(0, 10**7),
    batch_size=st.integers(1, 512),
    image_bytes=st.integers(1, 10**6),
    decoded_bytes=st.just(0) | st.integers(0, 10**6),
    staged_bytes=st.just(0) | st.integers(0, 10**6),
    cores=st.integers(1, 4) | st.integers(1, 200),
    fixed_bytes=st.just(0) | st.integers(0, 10**8),
    shuffle=st.sampled_from(["sequential", "exact", "buffer"]),
)
PHOTOS = Demand(
    records=5_000,
    shard_records=313,
    record_bytes=40_000,
    mean_record_bytes=25_000,
    batch_size=64,
    image_bytes=196_608,
    decoded_bytes=196_608,
)


def add_up(demand: Demand, buffers: Buffers) -> int:
    """All that is held at most, buffer by buffer."""
    given = buffers.calls + buffers.prefetch_batches + LENT_BATCHES
    block = max(buffers.block_bytes, demand.record_bytes)
    block = min(block, demand.batch_size * demand.record_bytes)
    threads = buffers.calls * buffers.threads
    parsed = PARSED_BYTES * demand.shard_records
    return (
        RUNTIME_BYTES
        + SHARD_BYTES * demand.shards
        + demand.fixed_bytes
        + buffers.index_bytes
        + given * demand.batch_size * demand.image_bytes
        + buffers.calls * demand.batch_size * demand.staged_bytes
        + threads * (block + demand.record_bytes + demand.decoded_bytes + parsed)
        + 2 * buffers.window * demand.record_bytes
    )


def find_refusal(max_ram_bytes: int, demand: Demand) -> str:
    """The message, or nothing."""
    try:
        divide_memory(max_ram_bytes, demand)
    except UsageError as error:
        return str(error)
    return ""


def find_least(demand: Demand) -> int:
    """What a refusal says that is needed."""
    (needed,) = re.findall(r"\(([\d,]+) bytes\)", find_refusal(0, demand))
    return int(needed.replace(",", ""))


@QUICK
@given(demand=DEMANDS, spare=BYTES)
def test_all_that_is_held_fits(demand, spare):
    max_ram_bytes = find_least(demand) + spare
    buffers = divide_memory(max_ram_bytes, demand)
    assert add_up(demand, buffers) == buffers.bytes <= max_ram_bytes
    assert 1 <= buffers.prefetch_batches <= min(2, buffers.calls)
    assert buffers.calls <= min(demand.cores, MAX_CALLS)
    # Each thread has enough to do, and no core has more than one.
    assert buffers.threads <= max(1, demand.batch_size // SLICE_RECORDS)
    assert (buffers.threads - 1) * buffers.calls < demand.cores
    assert buffers.batches == buffers.calls + buffers.prefetch_batches + 2


@QUICK
@given(demand=DEMANDS)
def test_what_is_said_to_do_does_and_one_byte_less_does_not(demand):
    enough = find_least(demand)
    assert divide_memory(enough, demand).bytes <= enough
    assert find_least(demand) == enough
    with pytest.raises(UsageError):
        divide_memory(enough - 1, demand)


@QUICK
@given(demand=DEMANDS, spare=BYTES, more=BYTES)
def test_more_memory_never_gives_less(demand, spare, more):
    least = find_least(demand)
    small, large = (divide_memory(least + size, demand) for size in (spare, spare + more))
    # Blocks come before the window: records read one by one take most of the time.
    assert (small.calls, small.prefetch_batches, small.block_bytes, small.window) <= (
        large.calls,
        large.prefetch_batches,
        large.block_bytes,
        large.window,
    )
    assert small.run == large.run


@QUICK
@given(demand=DEMANDS, max_ram_bytes=BYTES)
def test_a_way_out_that_is_named_is_one(demand, max_ram_bytes):
    message = find_refusal(max_ram_bytes, demand)
    if way_out := re.search(r"; allow that, or batches of at most (\d+)$", message):
        fitting = int(way_out[1])
        assert 1 <= fitting < demand.batch_size
        assert divide_memory(max_ram_bytes, dataclasses.replace(demand, batch_size=fitting))
        with pytest.raises(UsageError):
            divide_memory(max_ram_bytes, dataclasses.replace(demand, batch_size=fitting + 1))
    elif message.endswith("; allow that, or leave out the cache"):
        assert divide_memory(max_ram_bytes, dataclasses.replace(demand, fixed_bytes=0))
    elif "or fewer, larger shards: to list" in message:
        assert find_least(dataclasses.replace(demand, shards=0)) <= find_least(demand) / 2
    elif "or smaller shards: the index of" in message:
        assert find_least(dataclasses.replace(demand, shard_records=0)) <= find_least(demand) / 2
    elif message:
        assert message.endswith("; allow that, or smaller images")
        with pytest.raises(UsageError):
            divide_memory(max_ram_bytes, dataclasses.replace(demand, batch_size=1))


@pytest.mark.parametrize(
    ("max_ram_bytes", "changes", "message"),
    [
        (
            64_000_000,
            {},
            "max_ram 64.0 MB is too small: batches of 64 images of 196,608 bytes, with all that is "
            "read and decoded for them, need 74.6 MB (74,625,784 bytes); allow that, or batches of "
            "at most 50",
        ),
        (
            20_000_000,
            {},
            "max_ram 20.0 MB is too small: batches of 64 images of 196,608 bytes, with all that is "
            "read and decoded for them, need 74.6 MB (74,625,784 bytes); allow that, or smaller "
            "images",
        ),
        (
            100_000_000,
            {"fixed_bytes": 50_000_000},
            "max_ram 100.0 MB is too small: batches of 64 images of 196,608 bytes, with all that "
            "is read and decoded for them, need 124.6 MB (124,625,784 bytes); allow that, or leave "
            "out the cache",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(max_ram_bytes, changes, message):
    demand = dataclasses.replace(PHOTOS, **changes)
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        divide_memory(max_ram_bytes, demand)


@QUICK
@given(demand=DEMANDS, spare=BYTES)
def test_windows_are_of_several_whole_runs(demand, spare):
    demand = dataclasses.replace(demand, shuffle="buffer")
    buffers = divide_memory(find_least(demand) + spare, demand)
    if not demand.records:
        assert (buffers.run, buffers.window) == (0, 0)
        return
    assert buffers.window % buffers.run == 0
    assert buffers.window <= min(MAX_WINDOW_RECORDS, demand.records)
    assert buffers.window >= min(MIN_RUNS, demand.records) * buffers.run
    # No longer than it takes to be worth its way, and at least twice as many as in a window.
    assert buffers.run == 1 or buffers.run * demand.mean_record_bytes <= RUN_BYTES
    assert buffers.run == 1 or demand.records >= 2 * MIN_RUNS * buffers.run


def test_one_thread_reads_many_records_at_once_where_two_do_not_fit():
    demand = dataclasses.replace(PHOTOS, records=10**7, shard_records=10**7)
    buffers = divide_memory(find_least(demand) + BLOCK_BYTES, demand)
    assert (buffers.calls, buffers.threads, buffers.block_bytes) == (1, 1, BLOCK_BYTES)


@pytest.mark.parametrize("shuffle", ["sequential", "exact"])
def test_other_orders_have_no_windows(shuffle):
    buffers = divide_memory(10**9, dataclasses.replace(PHOTOS, shuffle=shuffle))
    assert (buffers.run, buffers.window) == (0, 0)


@pytest.mark.parametrize("mean_record_bytes", [1, 17, 100, 300, 488, 489, 1_000])
def test_tiny_records_can_be_shuffled_in_windows(mean_record_bytes):
    demand = dataclasses.replace(
        PHOTOS,
        records=60_000,
        record_bytes=mean_record_bytes + 100,
        mean_record_bytes=mean_record_bytes,
        shuffle="buffer",
    )
    buffers = divide_memory(512_000_000, demand)
    assert buffers.window // buffers.run >= MIN_RUNS


@pytest.mark.parametrize(
    ("max_ram_bytes", "calls", "prefetch_batches", "window"),
    [
        (512_000_000, 2, 2, 5_000),
        (180_000_000, 2, 2, 920),
        (110_000_000, 2, 1, 200),
        (100_000_000, 1, 1, 240),
    ],
)
def test_the_sizes_for_common_budgets(max_ram_bytes, calls, prefetch_batches, window):
    buffers = divide_memory(max_ram_bytes, dataclasses.replace(PHOTOS, shuffle="buffer"))
    assert (buffers.calls, buffers.prefetch_batches) == (calls, prefetch_batches)
    assert (buffers.run, buffers.window) == (40, window)


@pytest.mark.parametrize(
    ("shuffle", "records", "index_bytes"),
    [
        ("exact", 10**7, 80_000_000 + 10_000 * KEPT_INDEX_BYTES),
        ("exact", 100, 800 + 10_000 * KEPT_INDEX_BYTES),
        # Neighbours lie in one shard or two, here and at the next steps.
        ("sequential", 10**7, 4 * (313 * 8 + KEPT_INDEX_BYTES)),
        ("buffer", 10**7, 4 * (313 * 8 + KEPT_INDEX_BYTES)),
        ("sequential", 1_000, 8_000 + 4 * KEPT_INDEX_BYTES),
        ("buffer", 1_000, 8_000 + 4 * KEPT_INDEX_BYTES),
    ],
)
def test_an_exact_shuffle_alone_holds_all_indexes(shuffle, records, index_bytes):
    demand = dataclasses.replace(PHOTOS, records=records, shards=10_000, shuffle=shuffle)
    assert divide_memory(10**9, demand).index_bytes == index_bytes


def test_indexes_take_what_is_left_when_not_all_of_them_fit():
    photos = dataclasses.replace(PHOTOS, shuffle="exact", shards=16)
    many = dataclasses.replace(photos, records=10**8, shards=10**5)
    usual = divide_memory(512_000_000, photos)
    for max_ram_bytes in (256_000_000, 512_000_000, 900_000_000):
        buffers = divide_memory(max_ram_bytes, many)
        assert buffers.bytes == max_ram_bytes
        assert 4 * 313 * INDEX_BYTES < buffers.index_bytes < 10**8 * INDEX_BYTES
    # Not one thread fewer, for the sake of indexes.
    assert (buffers.calls, buffers.threads) == (usual.calls, usual.threads)
    assert divide_memory(2 * 10**9, many).bytes < 2 * 10**9


def test_a_list_of_very_many_shards_counts():
    many = dataclasses.replace(PHOTOS, batch_size=1, shards=10**5)
    assert "larger shards: to list 100,000 shards takes 130.0 MB" in find_refusal(10**8, many)
    # A smaller batch is the nearer way out.
    batch = dataclasses.replace(many, batch_size=64)
    least = find_least(many)
    assert "batches of at most 1" in find_refusal(least, batch)
