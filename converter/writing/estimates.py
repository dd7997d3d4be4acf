"""Estimates the size of records from a sample, before anything is planned."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import os
import statistics
import time
from collections.abc import Sequence
from typing import Final

from converter.errors import ImageError
from converter.format.tfrecords import FRAMING_BYTES
from converter.inventory import Entry, Inventory, name_class
from converter.options import ConvertOptions
from converter.sources.inputs import is_compressed, locate_masks
from converter.storage.location import Location
from converter.writing.records import make_records

BATCH: Final = 32
MAX_SAMPLES: Final = 1024

MAX_RELATIVE_ERROR: Final = 0.03
"""Sampling ends at this standard error of the mean: 5 of them make the promised 15 %."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a sample says about all images.

    `record_bytes` is the mean size of the records of a file, framing included: of none for a
    rejected file, and of all frames. Time is that of one core.
    """

    record_bytes: float
    seconds_per_image: float
    samples: int
    rejected: int


def estimate_records(
    entries: Sequence[Entry], inventory: Inventory, images: Location, options: ConvertOptions
) -> Estimate:
    """Converts images from the front of `entries` until their mean size is known well enough.

    The number of samples depends only on their sizes, never on time or cores, so the same images
    give the same shards everywhere.

    Args:
        entries: in random order.
        inventory: of these entries.
        images: the folder or archive that they are relative to.
        options: those of the conversion.
    """
    places = images, locate_masks(images, options)
    threads = BATCH if any(place.is_remote for place in places) else os.cpu_count()
    if is_compressed(images):
        # Compressed tars are not seekable: members are read in order, one after another.
        entries, threads = sorted(entries, key=lambda entry: entry.place), 1
    sizes: list[int] = []
    seconds = 0.0
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        while len(sizes) < min(len(entries), MAX_SAMPLES) and not _is_enough(sizes, len(entries)):
            batch = entries[len(sizes) : len(sizes) + BATCH]
            for size, spent in pool.map(
                lambda entry: _measure(entry, inventory, images, options), batch
            ):
                sizes.append(size)
                seconds += spent
    return Estimate(
        record_bytes=max(FRAMING_BYTES, statistics.fmean(sizes)),
        seconds_per_image=seconds / len(sizes),
        samples=len(sizes),
        rejected=sizes.count(0),
    )


def bound_record_bytes(options: ConvertOptions) -> float:
    """An upper limit for the size of any record in bytes; infinite if unknown."""
    if not options.fixed_size or options.encoding == "keep" or options.frames == "all":
        return math.inf
    height, width = options.image_size
    return height * width * (options.channels + options.masked) * 1.2 + 4096


def _measure(
    entry: Entry, inventory: Inventory, images: Location, options: ConvertOptions
) -> tuple[int, float]:
    start, text = time.thread_time(), name_class(inventory, entry)
    records = make_records(entry, text, images, [options], inventory.columns)
    size = sum(
        len(outcome.payload) + FRAMING_BYTES
        for _, (outcome,) in records
        if not isinstance(outcome, ImageError)
    )
    return size, time.thread_time() - start


def _is_enough(sizes: Sequence[int], population: int) -> bool:
    if len(sizes) < 2 * BATCH:
        return False
    mean = statistics.fmean(sizes)
    unseen = 1 - len(sizes) / population
    error = statistics.stdev(sizes) * math.sqrt(unseen / len(sizes))
    return error <= MAX_RELATIVE_ERROR * mean
