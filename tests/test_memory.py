"""How a number of bytes is divided among what a reader holds."""

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter import UsageError
from reader.memory import RUNTIME_BYTES, Demand, divide_memory

DEMANDS = st.builds(
    Demand,
    records=st.integers(1, 10**7),
    shard_records=st.integers(1, 10**5),
    record_bytes=st.integers(1_000, 10**6),
    mean_record_bytes=st.integers(17, 1_000),
    batch_size=st.integers(1, 512),
    image_bytes=st.integers(1, 10**6),
    decoded_bytes=st.integers(0, 10**6),
    order=st.sampled_from(["sequential", "exact", "buffer"]),
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


@given(demand=DEMANDS, max_ram_bytes=st.integers(0, 10**11))
@settings(deadline=None)
def test_all_that_is_held_fits_or_is_refused(demand, max_ram_bytes):
    try:
        buffers = divide_memory(max_ram_bytes, demand)
    except UsageError:
        return
    batches = buffers.batches * demand.batch_size * demand.image_bytes
    assert batches + RUNTIME_BYTES + buffers.index_bytes <= buffers.bytes <= max_ram_bytes
    if demand.order == "buffer" and buffers.window:
        assert buffers.window % buffers.run == 0


@given(demand=DEMANDS)
@settings(deadline=None)
def test_what_is_said_to_do_does_and_one_byte_less_does_not(demand):
    with pytest.raises(UsageError) as caught:
        divide_memory(0, demand)
    (needed,) = re.findall(r"\(([\d,]+) bytes\)", str(caught.value))
    enough = int(needed.replace(",", ""))
    assert divide_memory(enough, demand).bytes <= enough
    with pytest.raises(UsageError):
        divide_memory(enough - 1, demand)


def test_the_batch_that_would_fit_is_named():
    with pytest.raises(UsageError, match="is too small") as caught:
        divide_memory(64_000_000, PHOTOS)
    (fitting,) = re.findall(r"batches of at most (\d+)$", str(caught.value))
    assert divide_memory(64_000_000, dataclasses.replace(PHOTOS, batch_size=int(fitting)))
    with pytest.raises(UsageError):
        divide_memory(64_000_000, dataclasses.replace(PHOTOS, batch_size=int(fitting) + 1))


def test_more_memory_gives_more_calls_and_larger_windows():
    windowed = dataclasses.replace(PHOTOS, order="buffer")
    small, large = (divide_memory(size, windowed) for size in (180_000_000, 1_000_000_000))
    assert small.window < large.window
    assert (large.calls, large.prefetch_batches) == (2, 2)


def test_an_exact_shuffle_holds_all_indexes():
    many = dataclasses.replace(PHOTOS, records=10**7)
    assert divide_memory(10**9, many).index_bytes == 80_000_000
    ordered = dataclasses.replace(many, order="sequential")
    assert divide_memory(10**9, ordered).index_bytes == 4 * 313 * 8
