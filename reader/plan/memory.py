"""Measures what a read holds, and divides `max_ram` among its buffers."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from converter.errors import UsageError
from converter.sizes import format_bytes, format_count
from reader.examples.columns import FilePaths
from reader.plan.choices import Choice, ImagePlan
from reader.records.indexed_file import RecordFile, read_index
from reader.records.record_files import KEPT_INDEX_BYTES, RecordFiles
from reader.remote.remote_shards import MIXED_SHARDS, list_remote
from reader.sampling.orders import select_all

# What a reader holds besides its buffers: threads, graph and the C library's heap. A reader of tiny
# images grew by 18 to 22 MB.
RUNTIME_BYTES: Final = 24_000_000
# The same for `serializable`: what TensorFlow frees stays in its threads' heaps. In ten epochs a
# reader of 16 images a batch grew by 68 MB, and with a single heap by 37.
SERIALIZABLE_BYTES: Final = 64_000_000
# Client libraries, connections and responses of an object store: 45 to 82 MB.
STORE_BYTES: Final = 96_000_000
# Of each shard, in the memory of a process that opened 100,000: 576 are the entry in its manifest,
# 344 are paths and 129 their texts, once they are used.
SHARD_BYTES: Final = 1_300
INDEX_BYTES: Final = 8  # per record, at most
PARSED_BYTES: Final = 24  # per record of an index that is being read
LABEL_BYTES: Final = 5  # per cached image besides its pixels: its label, and whether it is present

LENT_BATCHES: Final = 2  # outside the queues: one with the caller, one on its way back
MAX_CALLS: Final = 8  # batches filled in parallel; with more cores, several threads fill each
SLICE_RECORDS: Final = 16  # at least, for a thread: parsing costs 0.2 ms a slice in numpy calls
BLOCK_BYTES: Final = 4_000_000  # encoded records that a thread reads at once
MAX_WINDOW_RECORDS: Final = 8_192
RUN_BYTES: Final = 1_000_000  # the least sequential read worth the latency of remote storage
MIN_RUNS: Final = 4  # in a window
SINGLES: Final = 32  # single images of one size that are read at once

# How `serializable` reads: shards interleaved, records taken of each in turn, turns read ahead (and
# times the shards opened ahead), and the read buffer of a shard.
OPEN_SHARDS: Final = 4
TURN_RECORDS: Final = 4
AHEAD: Final = 2
READ_BYTES: Final = 256_000

SERIALIZABLE_CALLS: Final = ((64, 2, 1_024), (16, 2, 1_024), (8, 1, 1_024), (2, 1, 128))
"""Images decoded in parallel, prefetched batches, and the smallest window that goes with them: a
larger window comes before more images. More images than cores do no harm: the machine that builds
a pipeline may have fewer cores than those that run it."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What a reader has to hold."""

    records: int  # in the split
    shard_records: int  # in its largest shard
    record_bytes: int  # the largest encoded record
    mean_record_bytes: int  # an average one
    batch_size: int  # images per batch
    image_bytes: int  # one image as the caller gets it
    decoded_bytes: int = 0  # the largest image in a decoder, besides its place in the batch
    staged_bytes: int = 0  # per image of a batch, until the whole batch has been resized
    fixed_bytes: int = 0  # the image cache
    extra_bytes: int = 0  # whatever else does not depend on the buffers
    shards: int = 0  # in the manifest
    open_shards: int = 4  # shards read at the same time, unless all are
    shuffle: bool | str | None = "exact"  # False, `exact` or `buffer`
    cores: int = 2  # for decoding threads


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Buffers:
    """Sizes of a reader's buffers."""

    calls: int  # batches filled in parallel
    # Finished ones that wait for the caller. Fixed: an autotuned prefetch grows until the memory is
    # gone.
    prefetch_batches: int
    threads: int = 1  # that fill each of those batches
    block_bytes: int = BLOCK_BYTES  # encoded records that a thread reads at once, or a single one
    # Limit for indexes kept in memory. An exact shuffle reads others again when it comes to them.
    index_bytes: int = 0
    run: int = 0  # records read at once with `buffer`; else 0
    window: int = 0  # records shuffled together with `buffer`; else 0
    resizes_batches: bool = False  # whether whole batches are resized, instead of each image
    bytes: int = 0  # total of all buffers

    @property
    def batches(self) -> int:
        """How many finished batches can exist at the same time."""
        return self.calls + self.prefetch_batches + LENT_BATCHES


def size_buffers(files: RecordFiles, images: ImagePlan, choice: Choice) -> Buffers:
    """Divides `max_ram`; resizes whole batches if they fit into it."""
    max_ram_bytes, crop = images.options.max_ram_bytes, images.options.random_crop
    measure = functools.partial(measure_demand, files, images, choice)
    if images.is_resized and images.stored.height is not None and crop is None:
        # All images alike, so in one call. Image by image takes less memory, and more time.
        with contextlib.suppress(UsageError):
            buffers = divide_memory(max_ram_bytes, measure(whole_batches=True))
            return dataclasses.replace(buffers, resizes_batches=True)
    demand, count = measure(whole_batches=False), choice.selection.count
    if demand.fixed_bytes > max_ram_bytes:
        image_bytes = demand.fixed_bytes // count
        raise UsageError(
            f"cache would keep {format_count(count, 'image')} of {image_bytes:,} "
            f"bytes, {format_bytes(demand.fixed_bytes)} in all, and max_ram is "
            f"{format_bytes(max_ram_bytes)}: allow more, or leave it out"
        )
    try:
        return divide_memory(max_ram_bytes, demand)
    except UsageError as error:
        if images.stored.height is not None or not len(files):
            raise
        raise UsageError(f"{error}; {_describe_largest(files, images)}") from None


def measure_demand(
    files: RecordFiles, images: ImagePlan, choice: Choice, *, whole_batches: bool
) -> Demand:
    """Measures what a read holds; `whole_batches` stay as stored until they are resized."""
    options, stored, measured = images.options, images.stored, measure_files(files.files)
    pixels = stored.max_height * stored.max_width
    resized = images.values * 4 * images.is_resized  # `tf.image.resize` gives float32
    mask = images.values // images.channels * choice.given.masks  # one byte a pixel
    # Pillow unpacks to 4 bytes a pixel and then copies.
    decoded = pixels * (images.channels + 4) + 5 * pixels * choice.given.masks + mask
    decoded += images.part_images * (pixels * images.channels + resized) * (not images.is_quick)
    staged = pixels * images.channels + resized + pixels * choice.given.masks
    arrays = (choice.selection.chosen, choice.record_labels)
    kept_bytes = sum(array.nbytes for array in arrays if array is not None)
    cached = images.values * np.dtype(images.decoded_dtype).itemsize + mask + LABEL_BYTES
    is_remote = bool(list_remote(files.files))
    return Demand(
        **{**measured, "shards": choice.shards},
        batch_size=options.batch_size or (SINGLES if images.height is not None else 1),
        image_bytes=images.values * np.dtype(options.dtype).itemsize + mask,
        decoded_bytes=decoded + (0 if whole_batches else resized),
        # With columns, next to nothing of a record may be the image.
        staged_bytes=staged * whole_batches + measured["record_bytes"] * bool(choice.given.needed),
        fixed_bytes=choice.selection.count * cached * options.cache,
        extra_bytes=STORE_BYTES * is_remote + kept_bytes,
        open_shards=2 * MIXED_SHARDS if is_remote else 4,
        shuffle=options.shuffle,
        # One thread may wait for TensorFlow's threads, which then do its work.
        cores=count_cores() + (options.random_crop is not None),
    )


def measure_files(files: Sequence[RecordFile]) -> dict[str, int]:
    """The sizes of records for `Demand`; there are no files where every image was rejected."""
    records = sum(file.records for file in files)
    return {
        "records": records,
        "shards": len(files),
        "shard_records": max((file.records for file in files), default=0),
        "record_bytes": max([1, *(file.max_record_bytes for file in files)]),
        "mean_record_bytes": max(1, sum(file.bytes for file in files) // max(1, records)),
    }


def count_cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _describe_largest(files: RecordFiles, images: ImagePlan) -> str:
    """Names the record that takes the most memory, and the largest image size."""
    file = max(files.files, key=lambda file: file.max_record_bytes)
    record = int(np.diff(read_index(file)).argmax())
    before = sum(other.records for other in files.files[: files.files.index(file)])
    name = FilePaths(files, select_all(len(files)))[before + record]
    return (
        f"the largest record, {format_bytes(file.max_record_bytes)}, is that of {name!r:.122}, "
        f"and images have up to {images.stored.max_height}x{images.stored.max_width} pixels"
    )


def divide_memory(max_ram_bytes: int, demand: Demand) -> Buffers:
    """Sizes the buffers so that a reader holds at most `max_ram_bytes`, or says what would fit."""
    buffers = _choose(max_ram_bytes, demand, _list_choices(demand), _measure)
    if demand.shuffle != "exact":
        return buffers
    # It touches all indexes, the other orders only those of neighbours.
    whole = _measure_indexes(demand.records, demand.shards)
    more = max(0, min(whole - buffers.index_bytes, max_ram_bytes - buffers.bytes))
    index_bytes, size = buffers.index_bytes + more, buffers.bytes + more
    return dataclasses.replace(buffers, index_bytes=index_bytes, bytes=size)


def divide_serializable(max_ram_bytes: int, demand: Demand) -> Buffers:
    """Does the same for a pipeline of TensorFlow's own operations, as `serializable` builds it."""
    choices = (
        Buffers(calls=calls, prefetch_batches=ahead, run=1, window=min(least, demand.records))
        for calls, ahead, least in SERIALIZABLE_CALLS
    )
    return _choose(max_ram_bytes, demand, choices, _measure_serializable)


def _choose(
    max_ram_bytes: int,
    demand: Demand,
    choices: Iterable[Buffers],
    measure: Callable[[Demand, Buffers], int],
) -> Buffers:
    """Takes the first buffers that fit with their window, the least one, and extends the window."""
    shuffled = demand.shuffle == "buffer"
    each = 2 * demand.record_bytes  # in the window being used up and in the one being filled
    for buffers in choices:
        taken = measure(demand, buffers)
        needed = taken + buffers.window * each * shuffled
        if needed <= max_ram_bytes:
            room = min((max_ram_bytes - taken) // each, MAX_WINDOW_RECORDS, demand.records)
            window = room // buffers.run * buffers.run * shuffled
            run = buffers.run if window else 0
            return dataclasses.replace(buffers, run=run, window=window, bytes=taken + window * each)
    # In the smallest buffers, only the batches themselves depend on the batch size.
    image_bytes = buffers.batches * demand.image_bytes + buffers.calls * demand.staged_bytes
    fitting = demand.batch_size - -(-(needed - max_ram_bytes) // image_bytes)
    listed = SHARD_BYTES * demand.shards
    parsed = (PARSED_BYTES + INDEX_BYTES) * demand.shard_records
    way_out = "or smaller images"
    if fitting > 0:
        way_out = f"or batches of at most {fitting}"
    elif listed > needed // 2:
        count = format_count(demand.shards, "shard")
        way_out = f"or fewer, larger shards: to list {count} takes {format_bytes(listed)}"
    elif parsed > needed // 2:
        count = format_count(demand.shard_records, "record")
        way_out = f"or smaller shards: the index of {count} takes {format_bytes(parsed)}"
    if demand.fixed_bytes and needed - demand.fixed_bytes <= max_ram_bytes:
        way_out = "or leave out the cache"
    raise UsageError(
        f"max_ram {format_bytes(max_ram_bytes)} is too small: batches of {demand.batch_size} "
        f"images of {demand.image_bytes:,} bytes, with all that is read and decoded for them, need "
        f"{format_bytes(needed)} ({needed:,} bytes); allow that, {way_out}"
    )


def _list_choices(demand: Demand) -> Iterator[Buffers]:
    """From all cores at work down to one image at a time."""
    most = min(MAX_WINDOW_RECORDS // MIN_RUNS, demand.records // (2 * MIN_RUNS))
    run = max(1, min(RUN_BYTES // demand.mean_record_bytes, most))
    touched = min(demand.open_shards * demand.shard_records, demand.records)
    indexes = _measure_indexes(touched, min(demand.open_shards, demand.shards))
    window = min(MIN_RUNS * run, demand.records // run * run)
    smallest = Buffers(
        calls=1, prefetch_batches=1, block_bytes=0, index_bytes=indexes, run=run, window=window
    )
    usual = dataclasses.replace(smallest, block_bytes=BLOCK_BYTES)
    for calls in range(min(demand.cores, MAX_CALLS), 0, -1):
        threads = min(-(-demand.cores // calls), max(1, demand.batch_size // SLICE_RECORDS))
        for ahead in (2, 1) if calls > 1 else (1,):
            yield dataclasses.replace(usual, calls=calls, prefetch_batches=ahead, threads=threads)
    yield usual  # a record at a time took six times as long
    yield smallest


def _measure_indexes(records: int, shards: int) -> int:
    return INDEX_BYTES * records + KEPT_INDEX_BYTES * shards


def _measure(demand: Demand, buffers: Buffers) -> int:
    """What a reader holds without a window."""
    batch = demand.batch_size
    block = min(batch * demand.record_bytes, max(buffers.block_bytes, demand.record_bytes))
    # A damaged record is read once more, by itself.
    thread = block + demand.record_bytes + demand.decoded_bytes
    thread += PARSED_BYTES * demand.shard_records  # of which all threads need the same at once
    return (
        RUNTIME_BYTES
        + SHARD_BYTES * demand.shards
        + demand.fixed_bytes
        + demand.extra_bytes
        + buffers.index_bytes
        + buffers.batches * batch * demand.image_bytes
        + buffers.calls * (batch * demand.staged_bytes + buffers.threads * thread)
    )


def _measure_serializable(demand: Demand, buffers: Buffers) -> int:
    """The same for `serializable`, where an image is copied into its batch after decoding."""
    batches = 1 + buffers.prefetch_batches + LENT_BATCHES
    opened = (1 + AHEAD) * (OPEN_SHARDS if demand.shuffle == "buffer" else 1)
    return (
        SERIALIZABLE_BYTES
        + SHARD_BYTES * demand.shards
        + batches * demand.batch_size * demand.image_bytes
        + buffers.calls * (demand.decoded_bytes + 2 * demand.image_bytes + 3 * demand.record_bytes)
        + opened * (READ_BYTES + AHEAD * TURN_RECORDS * demand.record_bytes)
    )
