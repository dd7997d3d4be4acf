"""Mean and standard deviation of the channels of a split, from exact sums."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from converter import progress
from converter.errors import DatasetError, UsageError
from converter.format.manifest import ImageInfo
from converter.sizes import format_count
from reader.arrays import Array
from reader.batches.batch_reader import BatchReader
from reader.batches.threads import run_ahead
from reader.plan.read_options import COLOR_CHANNELS, ReadOptions, make_options
from reader.plan.read_plan import ReadPlan, plan_steps
from reader.sampling.draws import derive_key, permute
from reader.sampling.orders import select_chosen

SAMPLE_KEY: Final = -4  # of the permutation that a sample begins; others are in `planning`

# Rows of pixels that are added up in 32 bits: 65,536 squares of 255 are less than 2^32.
_ROWS: Final = 65_536

_TAKEN: Final = ("on_damage", "max_damaged", "max_ram", "cache_dir", "cache_bytes")

_BATCH_SIZE: Final = 32


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PixelStatistics:
    """What the pixels of a split have in common, channel by channel.

    Means and deviations are in the units of the stored pixels, 0 to 255. For images from 0 to 1,
    divide `mean` and `std` by 255, and `variance` by 255 twice. For Keras:

        normalize = keras.layers.Normalization(mean=found.mean, variance=found.variance)

    Attributes:
        records: images that were read.
        pixels: of all of them together; images of different sizes count by their pixels.
        sums: of the values of each channel, exactly.
        square_sums: of their squares.
        damaged: records that were skipped.
    """

    records: int
    pixels: int
    sums: tuple[int, ...]
    square_sums: tuple[int, ...]
    damaged: int = 0

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean of each channel, 0 to 255."""
        return tuple(total / self.pixels for total in self.sums)

    @property
    def variance(self) -> tuple[float, ...]:
        """The variance of each channel, of all pixels and not of a sample of them."""
        # In whole numbers: the difference of two large floats would lose digits.
        return tuple(
            (square * self.pixels - total * total) / (self.pixels * self.pixels)
            for total, square in zip(self.sums, self.square_sums, strict=True)
        )

    @property
    def std(self) -> tuple[float, ...]:
        """The standard deviation of each channel, 0 to 127.5."""
        return tuple(map(math.sqrt, self.variance))


def choose_options(image: ImageInfo, options: dict[str, Any]) -> ReadOptions:
    """The options that read all images as they are stored; of `options`, only some are taken."""
    asked = make_options(options, _TAKEN)
    modes = {channels: mode for mode, channels in COLOR_CHANNELS.items()}
    return dataclasses.replace(
        asked,
        # Images of different sizes come one by one.
        batch_size=None if image.height is None or image.width is None else _BATCH_SIZE,
        label_mode=None,
        masks=False,
        color_mode=modes.get(image.channels, "rgb"),
        dtype="uint8",
        shuffle=False,
        remainder="pad",
    )


def draw_sample(plan: ReadPlan, count: int, seed: int) -> ReadPlan:
    """A plan for some of the records, in their order; more with the same seed are the same first.

    Takes 8 bytes for each record drawn. Raises a `UsageError` for another type or range.
    """
    for name, value, least in (("sample", count, 1), ("seed", seed, 0)):
        if type(value) is not int or not least <= value < 2**63:
            raise UsageError(f"{name} {value!r:.60} is not a whole number of {least} or more")
    selection = plan.choice.selection
    if count >= selection.count:
        return plan
    key = derive_key(seed, SAMPLE_KEY)
    drawn = permute(np.arange(count, dtype=np.int64), selection.count, key)
    chosen = select_chosen(selection.find_records(np.sort(drawn)))
    choice = dataclasses.replace(plan.choice, selection=chosen)
    return dataclasses.replace(plan, choice=choice, steps=plan_steps(count, plan.options))


def measure_pixels(plan: ReadPlan) -> PixelStatistics:
    """Reads an epoch of uint8 images, within the memory of the plan, and adds their pixels up.

    Raises a `RecordError` for a damaged record that is not to be skipped, and a `DatasetError` if
    there is no image to measure.
    """
    reader = BatchReader(plan)

    def add_up(step: int) -> tuple[int, int, Array]:
        batch = reader.read(0, [step])
        # Records that are skipped are black, so they add nothing.
        records, (height, width) = int(batch.valid.sum()), batch.images.shape[1:3]
        return records, records * height * width, sum_channels(batch.images)

    progress.begin("measure", plan.choice.selection.count)
    steps, ahead = range(plan.steps.count), plan.buffers.prefetch_batches
    results = run_ahead(add_up, steps, plan.calls, ahead)
    return _total(results, plan.images.channels, reader)


def sum_channels(images: Array) -> npt.NDArray[np.uint64]:
    """The sums of uint8 (images, height, width, channels), and of squares: (2, channels)."""
    count, height, width, channels = images.shape
    rows = images.reshape(count * height, width * channels)
    sums = np.zeros((2, width, channels), np.uint64)
    # In Einstein's notation NumPy neither copies the pixels nor widens them all at once: 0.1 ms an
    # image of 256x256, where `sum` and a product take 0.3 ms.
    for begin in range(0, len(rows), _ROWS):
        part = rows[begin : begin + _ROWS]
        sums[0] += np.einsum("ij->j", part, dtype=np.uint32).reshape(width, channels)
        sums[1] += np.einsum("ij,ij->j", part, part, dtype=np.uint32).reshape(width, channels)
    totals: npt.NDArray[np.uint64] = sums.sum(axis=1)
    return totals


def _total(
    results: Iterable[tuple[int, int, Array]], channels: int, reader: BatchReader
) -> PixelStatistics:
    records = pixels = 0
    # Python's whole numbers have no limit; 64 bits end at 2 * 10^14 pixels.
    sums, squares = [0] * channels, [0] * channels
    for images, held, part in results:
        records, pixels = records + images, pixels + held
        progress.advance(images)
        for channel, (total, square) in enumerate(part.T.tolist()):
            sums[channel] += total
            squares[channel] += square
    damaged = len(reader.damage)
    if not pixels:
        skipped = f", {format_count(damaged, 'damaged record')} skipped" if damaged else ""
        raise DatasetError(f"there is no image to measure in this split{skipped}")
    return PixelStatistics(
        records=records,
        pixels=pixels,
        sums=tuple(sums),
        square_sums=tuple(squares),
        damaged=damaged,
    )
