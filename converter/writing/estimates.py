"""What a sample says about all images: the size of their records, and of the originals."""

import concurrent.futures
import dataclasses
import math
import os
import statistics
import time
from collections.abc import Sequence
from typing import Final

from converter import progress
from converter.errors import ImageError
from converter.format.tfrecords import FRAMING_BYTES
from converter.images.geometry import Size, fit_image
from converter.inventory import Entry, Inventory, name_class
from converter.options import ConvertOptions
from converter.sources.containers import are_read_in_order, locate_part
from converter.sources.inputs import locate_masks
from converter.storage.location import Location
from converter.writing.records import make_records

BATCH: Final = 32
MAX_SAMPLES: Final = 1024
# Sampling ends at this standard error of the mean: 5 of them make the promised 15 %.
MAX_RELATIVE_ERROR: Final = 0.03


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SampledSizes:
    """Sizes (height, width) in pixels of the originals in a sample; of animations, one frame's.

    Attributes:
        read: number of originals.
        original: the one in the middle, by its area.
        stored: what is stored of that one.
        alike: whether all originals have the same size.
        enlarged: how many of them get more rows or columns, and fewer of neither.
    """

    read: int
    original: Size
    stored: Size
    alike: bool
    enlarged: int


def compare_sizes(originals: Sequence[Size], options: ConvertOptions) -> SampledSizes:
    """Compares originals, at least one, with what the options make of them."""
    # Of heights and widths alone, the medians of upright and lying photos would be a square.
    middle = sorted(originals, key=math.prod)[(len(originals) - 1) // 2]
    return SampledSizes(
        read=len(originals),
        original=middle,
        stored=fit_image(middle, options).canvas,
        alike=len({*originals}) == 1,
        enlarged=sum(_is_enlarged(size, options) for size in originals),
    )


def _is_enlarged(size: Size, options: ConvertOptions) -> bool:
    geometry = fit_image(size, options)
    kept, scaled = geometry.crop[2:], geometry.scaled
    return scaled != kept and scaled[0] >= kept[0] and scaled[1] >= kept[1]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a sample says about all images."""

    record_bytes: float  # the mean over files: no record if rejected, else all frames, with framing
    seconds_per_image: float  # of one core
    samples: int
    rejected: int
    sizes: SampledSizes | None  # None if all are rejected


def estimate_records(
    entries: Sequence[Entry], inventory: Inventory, images: Location, options: ConvertOptions
) -> Estimate:
    """Converts `entries`, which are in random order, until their mean size is known well enough."""
    places = images, locate_masks(images, options)
    threads = BATCH if any(place.is_remote for place in places) else os.cpu_count()
    if are_read_in_order(entries, images):
        entries, threads = sorted(entries, key=locate_part), 1

    def measure(entry: Entry) -> tuple[int, Size | None, float]:
        start, text = time.thread_time(), name_class(inventory, entry)
        records = make_records(entry, text, images, [options], inventory.columns)
        written = [outcome for _, (outcome,) in records if not isinstance(outcome, ImageError)]
        size = sum(len(record.payload) + FRAMING_BYTES for record in written)
        original = written[0].image.origin.size if written else None
        return size, original, time.thread_time() - start

    sizes: list[int] = []
    originals: list[Size] = []
    seconds = 0.0
    progress.begin("plan", note="converting a sample")
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        # The number of samples depends on their sizes alone, never on time or cores, so that the
        # same images give the same shards everywhere.
        while len(sizes) < min(len(entries), MAX_SAMPLES) and not _is_enough(sizes, len(entries)):
            for size, original, spent in pool.map(
                measure, entries[len(sizes) : len(sizes) + BATCH]
            ):
                sizes.append(size)
                seconds += spent
                originals += [original] if original else []
                progress.advance()
    return Estimate(
        record_bytes=max(FRAMING_BYTES, statistics.fmean(sizes)),
        seconds_per_image=seconds / len(sizes),
        samples=len(sizes),
        rejected=sizes.count(0),
        sizes=compare_sizes(originals, options) if originals else None,
    )


def bound_record_bytes(options: ConvertOptions) -> float:
    """An upper limit for the size of any record in bytes; infinite if unknown."""
    if not options.fixed_size or options.encoding == "keep" or options.frames == "all":
        return math.inf
    height, width = options.image_size
    # Noise may take more than its pixels once it is compressed; the rest is names and hashes.
    return height * width * (options.channels + options.masked) * 1.2 + 4096


def _is_enough(sizes: Sequence[int], population: int) -> bool:
    if len(sizes) < 2 * BATCH:
        return False
    mean = statistics.fmean(sizes)
    # Images that are drawn without putting them back: of all of them, the mean has no error.
    unseen = 1 - len(sizes) / population
    error = statistics.stdev(sizes) * math.sqrt(unseen / len(sizes))
    return error <= MAX_RELATIVE_ERROR * mean
