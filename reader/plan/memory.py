"""Divides a number of bytes among everything that a reader holds; pure arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Final

from converter.errors import UsageError
from converter.sizes import format_bytes

RUNTIME_BYTES: Final = 24_000_000
"""Threads, graph and the C library's own stock: a reader of tiny images grew by 18 to 22 MB."""

LENT_BATCHES: Final = 2
"""Finished batches outside the queues: one with the caller, one that is on its way back."""

BLOCK_BYTES: Final = 4_000_000
"""Of encoded records, that a thread reads at once."""

SLICE_RECORDS: Final = 16
"""Least part of a batch for a thread of its own: the parser's calls of numpy take 0.2 ms a part."""

MAX_CALLS: Final = 8
"""Batches that are filled at the same time; with more cores, several threads fill each of them."""

STORE_BYTES: Final = 96_000_000
"""What it takes to read from an object store: the libraries' code, connections, answers on their
way. It was 45 to 82 MB."""

INDEX_BYTES: Final = 8
"""Of a shard's index, a record."""

MAX_WINDOW_RECORDS: Final = 8_192
RUN_BYTES: Final = 1_000_000
"""What a sequential read should have at least, to be worth its way to a distant disk."""

MIN_RUNS: Final = 4

OPEN_SHARDS: Final = 4
"""That `serializable` reads in turn, to mix them."""

TURN_RECORDS: Final = 4
"""Of each of them, one after another."""

AHEAD: Final = 2
"""TensorFlow reads this many turns of a shard ahead, and opens this many times the shards."""

READ_BYTES: Final = 256_000
"""Of a shard, at once."""

SERIALIZABLE_CALLS: Final = (
    (64, 2, 1_024), (16, 2, 1_024), (8, 1, 1_024), (2, 1, 128),
)  # fmt: skip
"""Images that are decoded at the same time, batches that wait, and the least window beside them.
More records in it come before more images. More images than cores do no harm: the machine that
builds a pipeline may have fewer than others."""

SERIALIZABLE_BYTES: Final = 64_000_000
"""Instead of `RUNTIME_BYTES`: what TensorFlow frees stays in heaps of its threads. In ten epochs a
reader of 16 images a batch grew by 68 MB, and with one heap for all by 37."""


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
        decoded_bytes: the largest image while a thread decodes it, besides its place in the batch.
        staged_bytes: of each image of a batch, until the whole batch has been resized.
        fixed_bytes: what is held whatever else happens, such as a cache.
        selection_bytes: numbers or labels of the records that were chosen.
        store_bytes: `STORE_BYTES`, if any shard lies in a store.
        open_shards: that are read at the same time, unless all of them are.
        shuffle: False, `exact` or `buffer`.
        cores: threads that decode.
    """

    records: int
    shard_records: int
    record_bytes: int
    mean_record_bytes: int
    batch_size: int
    image_bytes: int
    decoded_bytes: int = 0
    staged_bytes: int = 0
    fixed_bytes: int = 0
    selection_bytes: int = 0
    store_bytes: int = 0
    open_shards: int = 4
    shuffle: bool | str | None = "exact"
    cores: int = 2


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Buffers:
    """Sizes of the buffers of one reader.

    Attributes:
        calls: batches that are filled at the same time.
        prefetch_batches: finished batches that wait for the caller. Fixed: an autotuned prefetch
            grows until the memory is gone.
        threads: that fill each of those batches.
        block_bytes: of encoded records that each thread reads at once, if they have more than one.
        index_bytes: what may be kept of the indexes.
        run: records that are read at once with `buffer`; else 0.
        window: records that are shuffled among each other with `buffer`; else 0.
        bytes: what all of it may take.
    """

    calls: int
    prefetch_batches: int
    threads: int = 1
    block_bytes: int = BLOCK_BYTES
    index_bytes: int = 0
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
    run = _choose_run(demand)
    least = min(MIN_RUNS * run, demand.records // run * run)
    choices = ((buffers, _measure(demand, buffers), least) for buffers in _list_choices(demand))
    return _choose(max_ram_bytes, demand, choices, run)


def divide_serializable(max_ram_bytes: int, demand: Demand) -> Buffers:
    """Sizes the buffers of a pipeline of TensorFlow's own operations, which `serializable` gives.

    Raises:
        UsageError: not even the smallest buffers fit; says what would.
    """
    choices = []
    for calls, prefetch, least in SERIALIZABLE_CALLS:
        buffers = Buffers(calls=calls, prefetch_batches=prefetch)
        taken = _measure_serializable(demand, buffers)
        choices.append((buffers, taken, min(least, demand.records)))
    return _choose(max_ram_bytes, demand, choices, run=1)


def _choose(
    max_ram_bytes: int, demand: Demand, choices: Iterable[tuple[Buffers, int, int]], run: int
) -> Buffers:
    """The first buffers that fit, with as large a window as fits.

    Args:
        max_ram_bytes: the limit.
        demand: what there is to be held.
        choices: buffers, from large to small; what they take without a window; its least size.
        run: records that a window is a multiple of.
    """
    shuffled = demand.shuffle == "buffer"
    each = 2 * demand.record_bytes  # of the window that is used up and the one that is filled
    for buffers, taken, least in choices:
        needed = taken + least * each * shuffled
        if needed <= max_ram_bytes:
            room = min((max_ram_bytes - taken) // each, MAX_WINDOW_RECORDS, demand.records)
            window = room // run * run * shuffled
            return dataclasses.replace(
                buffers, run=run if window else 0, window=window, bytes=taken + window * each
            )
    # Of the smallest buffers, only the batches themselves depend on their size.
    image_bytes = buffers.batches * demand.image_bytes + buffers.calls * demand.staged_bytes
    raise UsageError(_describe_lack(max_ram_bytes, demand, needed, image_bytes))


def _measure_serializable(demand: Demand, buffers: Buffers) -> int:
    """What it holds without a window. An image is copied into its batch once it is decoded."""
    batches = 1 + buffers.prefetch_batches + LENT_BATCHES
    opened = (1 + AHEAD) * (OPEN_SHARDS if demand.shuffle == "buffer" else 1)
    return (
        SERIALIZABLE_BYTES
        + batches * demand.batch_size * demand.image_bytes
        + buffers.calls * (demand.decoded_bytes + 2 * demand.image_bytes + 3 * demand.record_bytes)
        + opened * (READ_BYTES + AHEAD * TURN_RECORDS * demand.record_bytes)
    )


def _list_choices(demand: Demand) -> Iterator[Buffers]:
    """From all cores at work to one image at a time, each smaller than the one before."""
    index_bytes = _measure_indexes(demand)
    calls = min(demand.cores, MAX_CALLS)
    for number in range(calls, 0, -1):
        parts = max(1, demand.batch_size // SLICE_RECORDS)
        threads = min(-(-demand.cores // number), parts)
        for prefetch in (2, 1) if number > 1 else (1,):
            yield Buffers(
                calls=number, prefetch_batches=prefetch, threads=threads, index_bytes=index_bytes
            )
    yield Buffers(calls=1, prefetch_batches=1, block_bytes=0, index_bytes=index_bytes)


def _measure(demand: Demand, buffers: Buffers) -> int:
    """What a reader holds without a window."""
    batch = demand.batch_size
    block = min(batch * demand.record_bytes, max(buffers.block_bytes, demand.record_bytes))
    # A damaged record is read once more, by itself.
    thread = block + demand.record_bytes + demand.decoded_bytes
    return (
        RUNTIME_BYTES
        + demand.fixed_bytes
        + demand.selection_bytes
        + demand.store_bytes
        + buffers.index_bytes
        + buffers.batches * batch * demand.image_bytes
        + buffers.calls * (batch * demand.staged_bytes + buffers.threads * thread)
    )


def _measure_indexes(demand: Demand) -> int:
    """All of them are touched by an exact shuffle, but only neighbours by the other orders."""
    touched = (
        demand.records if demand.shuffle == "exact" else demand.open_shards * demand.shard_records
    )
    return INDEX_BYTES * min(touched, demand.records)


def _choose_run(demand: Demand) -> int:
    limit = min(MAX_WINDOW_RECORDS // MIN_RUNS, demand.records // (2 * MIN_RUNS))
    return max(1, min(RUN_BYTES // demand.mean_record_bytes, limit))


def _describe_lack(max_ram_bytes: int, demand: Demand, needed: int, each: int) -> str:
    """What to say where `needed` does not fit, `each` of it for an image of a batch."""
    fitting = demand.batch_size - -(-(needed - max_ram_bytes) // each)
    way_out = f"or batches of at most {fitting}" if fitting > 0 else "or smaller images"
    if demand.fixed_bytes and needed - demand.fixed_bytes <= max_ram_bytes:
        way_out = "or leave out the cache"
    return (
        f"max_ram {format_bytes(max_ram_bytes)} is too small: batches of {demand.batch_size} "
        f"images of {demand.image_bytes:,} bytes, with all that is read and decoded for them, need "
        f"{format_bytes(needed)} ({needed:,} bytes); allow that, {way_out}"
    )
