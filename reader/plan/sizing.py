"""Measures what a read will hold, and sizes its buffers accordingly."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Final

import numpy as np

from converter.errors import UsageError
from converter.sizes import format_bytes, format_count
from reader.examples.columns import FilePaths
from reader.plan.image_plan import ImagePlan
from reader.plan.memory import STORE_BYTES, Buffers, Demand, divide_memory
from reader.plan.record_choice import Choice
from reader.records.indexed_file import RecordFile, read_index
from reader.records.record_files import RecordFiles
from reader.remote.remote_shards import MIXED_SHARDS, list_remote
from reader.sampling.orders import select_all

LABEL_BYTES: Final = 5  # per cached image besides its pixels: its label, and whether it is present
VALUE_BYTES: Final = {"uint8": 1, "float32": 4}

SINGLES: Final = 32  # single images of one size that are read at once


def size_buffers(files: RecordFiles, images: ImagePlan, choice: Choice) -> tuple[Buffers, bool]:
    """Divides `max_ram`; says whether whole batches can be resized in it."""
    check_images(images, choice)
    max_ram_bytes = images.options.max_ram_bytes
    measure = functools.partial(measure_demand, files, images, choice)
    if images.resizes_alike:
        try:
            return divide_memory(max_ram_bytes, measure(whole_batches=True)), True
        except UsageError:
            pass  # resizing image by image takes less memory, and more time
    demand = measure(whole_batches=False)
    if demand.fixed_bytes > max_ram_bytes:
        raise UsageError(
            f"cache would keep {format_count(choice.selection.count, 'image')} of "
            f"{_cached_bytes(images, choice):,} bytes, {format_bytes(demand.fixed_bytes)} in all, "
            f"and max_ram is {format_bytes(max_ram_bytes)}: allow more, or leave it out"
        )
    try:
        return divide_memory(max_ram_bytes, demand), False
    except UsageError as error:
        if images.stored.height is not None or not len(files):
            raise
        raise UsageError(f"{error}; {_describe_largest(files, images)}") from None


def check_images(images: ImagePlan, choice: Choice) -> None:
    """Refuses images and labels in a form in which they cannot be given."""
    options = images.options
    if options.label_mode == "binary" and len(choice.class_names) != 2:
        raise UsageError(
            f"label_mode 'binary' takes 2 classes, this data set has {len(choice.class_names)}: "
            "use 'int' or 'categorical'"
        )
    if images.height is None and (options.batch_size is not None or options.cache):
        raise UsageError(
            "the stored images differ in size and cannot be batched as they are: "
            "give image_size=(height, width) to resize them, or batch_size=None for single ones"
        )
    if images.height is None and options.random_crop is not None:
        raise UsageError("the stored images differ in size: give the image_size for random_crop")
    if options.cache and options.batch_size is None:
        raise UsageError("cache keeps batches ready: give a batch_size")


def measure_demand(
    files: RecordFiles, images: ImagePlan, choice: Choice, *, whole_batches: bool
) -> Demand:
    """Measures what a read holds; `whole_batches` stay as stored until they are resized."""
    options, stored, shards = images.options, images.stored, files.files
    measured = measure_files(shards)
    pixels = stored.max_height * stored.max_width
    mask_bytes = _mask_bytes(images, choice)
    resized = images.values * 4 * images.is_resized  # `tf.image.resize` gives float32
    # Pillow unpacks to 4 bytes a pixel and then copies; a mask has one value a pixel.
    decoded = pixels * (images.channels + 4) + (5 * pixels + mask_bytes) * choice.given.masks
    decoded += images.part_images * (pixels * images.channels + resized) * (not images.is_quick)
    staged = pixels * images.channels + resized + pixels * choice.given.masks
    chosen = (choice.selection.chosen, choice.record_labels)
    is_remote = bool(list_remote(shards))
    return Demand(
        **measured,
        batch_size=options.batch_size or (SINGLES if images.height is not None else 1),
        image_bytes=images.values * VALUE_BYTES[options.dtype] + mask_bytes,
        decoded_bytes=decoded + (0 if whole_batches else resized),
        # With columns, next to nothing of a record may be the image.
        staged_bytes=staged * whole_batches + measured["record_bytes"] * bool(choice.given.needed),
        fixed_bytes=choice.selection.count * _cached_bytes(images, choice) if options.cache else 0,
        extra_bytes=STORE_BYTES * is_remote
        + sum(array.nbytes for array in chosen if array is not None),
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
        "shard_records": max((file.records for file in files), default=0),
        "record_bytes": max([1, *(file.max_record_bytes for file in files)]),
        "mean_record_bytes": max(1, sum(file.bytes for file in files) // max(1, records)),
    }


def count_cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _mask_bytes(images: ImagePlan, choice: Choice) -> int:
    return images.values // images.channels * choice.given.masks


def _cached_bytes(images: ImagePlan, choice: Choice) -> int:
    pixel_bytes = images.values * VALUE_BYTES[images.decoded_dtype]
    return pixel_bytes + _mask_bytes(images, choice) + LABEL_BYTES


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
