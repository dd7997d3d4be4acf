"""Divides a number of bytes among everything that a reader holds; pure arithmetic."""

from __future__ import annotations

import dataclasses
from typing import Final

from converter.errors import UsageError
from converter.sizes import format_bytes
from reader.records.malloc import KEPT_BYTES

RUNTIME_BYTES: Final = 24_000_000
"""Threads, graph and the C library's own stock: a reader of tiny images grew by 18 to 22 MB."""

LENT_BATCHES: Final = 2
"""Finished batches outside the queues: one with the caller, one that is on its way back."""

COPIES: Final = 2
"""Of encoded records: Python's and TensorFlow's, while one becomes the other."""

STORE_BYTES: Final = 96_000_000
"""What it takes to read from an object store: the libraries' code, connections, answers on their
way. It was 45 to 82 MB."""

INDEX_BYTES: Final = 8
"""Of a shard's index, a record."""

HEAPS: Final = 8
"""That keep freed memory: of two threads an epoch, and more where epochs are left in their middle.
They came to 128 MB for 16 MB each."""

MAX_WINDOW_RECORDS: Final = 8_192
RUN_BYTES: Final = 1_000_000
"""What a sequential read should have at least, to be worth its way to a distant disk."""

MIN_RUNS: Final = 4


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What there is to be held.

    Attributes:
        records: of the split.
        shard_records: of its largest shard.
        record_bytes: the largest record, encoded.
        mean_record_bytes: an average one.
        batch_size: images a batch.
        image_bytes: one image as the caller gets it.
        decoded_bytes: the largest image while it is decoded and resized; 0 if it is stored as the
            caller gets it.
        fixed_bytes: what is held whatever else happens, such as a cache.
        selection_bytes: numbers or labels of the records that were chosen.
        store_bytes: `STORE_BYTES`, if any shard lies in a store.
        open_shards: that are read at the same time, unless all of them are.
        order: `sequential`, `exact` or `buffer`.
    """

    records: int
    shard_records: int
    record_bytes: int
    mean_record_bytes: int
    batch_size: int
    image_bytes: int
    decoded_bytes: int
    fixed_bytes: int = 0
    selection_bytes: int = 0
    store_bytes: int = 0
    open_shards: int = 4
    order: str = "exact"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Buffers:
    """Sizes of the buffers of one reader.

    Attributes:
        calls: batches that are decoded at the same time.
        prefetch_batches: finished batches that wait for the caller. Fixed: an autotuned prefetch
            grows until the memory is gone.
        index_bytes: what may be kept of the indexes.
        kept_bytes: what the heap of each thread may keep of freed memory.
        run: records that are read at once with `buffer`; else 0.
        window: records that are shuffled among each other with `buffer`; else 0.
        bytes: what all of it may take.
    """

    calls: int
    prefetch_batches: int
    index_bytes: int
    kept_bytes: int = KEPT_BYTES
    run: int = 0
    window: int = 0
    bytes: int = 0

    @property
    def batches(self) -> int:
        """Finished batches that can exist at the same time."""
        return self.calls + self.prefetch_batches + LENT_BATCHES


def divide_memory(max_ram_bytes: int, demand: Demand) -> Buffers:
    """Sizes the buffers so that a reader holds at most `max_ram_bytes`.

    Raises:
        UsageError: not even the smallest buffers fit; says what would.
    """
    index_bytes = _measure_indexes(demand)
    run = _choose_run(demand)
    for calls, prefetch in ((2, 2), (2, 1), (1, 1)):
        buffers = Buffers(calls=calls, prefetch_batches=prefetch, index_bytes=index_bytes)
        window = _choose_window(max_ram_bytes - _measure(demand, buffers, 0), run, demand)
        if window is not None:
            taken = _measure(demand, buffers, window)
            kept = _choose_kept(max_ram_bytes - taken, demand, buffers)
            return dataclasses.replace(
                buffers, kept_bytes=kept, run=run if window else 0, window=window, bytes=taken
            )
    raise UsageError(_describe_lack(max_ram_bytes, demand, buffers, run))


def _measure(demand: Demand, buffers: Buffers, window: int) -> int:
    """What a reader holds. Encoded: a batch that is read, one that waits, those being decoded."""
    batch = demand.batch_size
    decoded = batch * demand.decoded_bytes * buffers.calls
    # What is stored as it is wanted goes straight into the batch.
    encoded = batch * demand.record_bytes * COPIES * (2 + buffers.calls if decoded else 0)
    return (
        RUNTIME_BYTES
        + demand.fixed_bytes
        + demand.selection_bytes
        + demand.store_bytes
        + buffers.index_bytes
        + buffers.batches * batch * demand.image_bytes
        + decoded
        + encoded
        + _measure_window(window, demand)
    )


def _choose_kept(left: int, demand: Demand, buffers: Buffers) -> int:
    """As much as the images that are decoded at the same time, if there is room for it."""
    decoded = demand.batch_size * demand.decoded_bytes * buffers.calls
    return max(KEPT_BYTES, min(left // HEAPS, decoded))


def _measure_window(window: int, demand: Demand) -> int:
    return 2 * window * demand.record_bytes  # the one that is used up and the one that is filled


def _measure_indexes(demand: Demand) -> int:
    """All of them are touched by an exact shuffle, but only neighbours by the other orders."""
    touched = (
        demand.records if demand.order == "exact" else demand.open_shards * demand.shard_records
    )
    return INDEX_BYTES * min(touched, demand.records)


def _choose_run(demand: Demand) -> int:
    limit = min(MAX_WINDOW_RECORDS // MIN_RUNS, demand.records // (2 * MIN_RUNS))
    return max(1, min(RUN_BYTES // demand.mean_record_bytes, limit))


def _choose_window(left: int, run: int, demand: Demand) -> int | None:
    """The largest window that fits, 0 where none is needed, None where nothing fits."""
    if left < 0:
        return None
    if demand.order != "buffer":
        return 0
    room = left // _measure_window(1, demand)
    window = min(room, MAX_WINDOW_RECORDS, demand.records) // run * run
    return window if window >= _least_window(run, demand) else None


def _least_window(run: int, demand: Demand) -> int:
    return min(MIN_RUNS * run, demand.records // run * run)


def _describe_lack(max_ram_bytes: int, demand: Demand, least: Buffers, run: int) -> str:
    window = _least_window(run, demand) if demand.order == "buffer" else 0
    needed = _measure(demand, least, window)
    empty = _measure(dataclasses.replace(demand, batch_size=0), least, window)
    fitting = (max_ram_bytes - empty) // max(1, (needed - empty) // demand.batch_size)
    way_out = f"or batches of at most {fitting}" if fitting > 0 else "or smaller images"
    if demand.fixed_bytes and needed - demand.fixed_bytes <= max_ram_bytes:
        way_out = "or leave out the cache"
    return (
        f"max_ram {format_bytes(max_ram_bytes)} is too small: batches of {demand.batch_size} "
        f"images of {demand.image_bytes:,} bytes, with all that is read and decoded for them, need "
        f"{format_bytes(needed)} ({needed:,} bytes); allow that, {way_out}"
    )
