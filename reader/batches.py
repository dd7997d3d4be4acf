"""The records of a step, read and checked: everything up to the decoder, without TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from converter import examples
from converter.errors import RecordError
from converter.manifest import ImageInfo
from reader.buffers import Array
from reader.damage import DamageLog
from reader.headers import measure_image
from reader.orders import Numbers, Order, derive_key
from reader.pixels import read_pixels
from reader.records import RecordFiles, find_source
from reader.selections import Selection
from reader.steps import Steps

RAW: Final = "raw"
_ODD: Final = np.int64(0x1E3779B97F4A7C15)
"""Spreads neighbouring numbers over the seeds of their images."""


@dataclasses.dataclass(frozen=True, slots=True)
class Examples:
    """Some records as columns; where `valid` is False, the others mean nothing.

    Attributes:
        valid: bool (n,).
        labels: int32 (n,).
        encoded: bytes (n,), the images as they are stored.
        sizes: int32 (n, 2), height and width of the stored images.
        seeds: int64 (n,), for random changes of each image in this epoch.
        names: bytes (n,), paths of the originals; empty if they were not asked for.
    """

    valid: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int32]
    encoded: npt.NDArray[np.object_]
    sizes: npt.NDArray[np.int32]
    seeds: Numbers
    names: npt.NDArray[np.object_]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchReader:
    """Reads the records of any step of any epoch.

    Attributes:
        files: of the split.
        image: what the stored images have in common.
        classes: how many labels are stored.
        selection: which records of the split an epoch is made of.
        order: in which order they come.
        steps: which of them are a step, on this host.
        damage: what happens with damaged records.
        seed: for random changes of images.
        labels: int32 (classes,), the label to give for each stored one.
        record_labels: int32 (records of the split,), labels instead of the stored ones.
        with_names: read the paths of the originals too.
        filler: encoded image that stands where there is none.
    """

    files: RecordFiles
    image: ImageInfo
    classes: int
    selection: Selection
    order: Order
    steps: Steps
    damage: DamageLog
    seed: int = 0
    labels: npt.NDArray[np.int32] | None = None
    record_labels: npt.NDArray[np.int32] | None = None
    with_names: bool = False
    filler: bytes = b""

    def read_examples(self, epoch: int, steps: Sequence[int]) -> Examples:
        """Reads the encoded images of some steps, `batch_size` records each.

        Raises:
            RecordError: one is damaged, and the policy is to raise.
            DatasetError: too many are, or a file is missing or not what it should be.
        """
        slots, numbers, columns = self._begin(epoch, steps)
        for index, place, payload in self.files.read_many(numbers):
            slot = int(slots[index])
            if isinstance(payload, RecordError):
                self.damage.report(payload)
                continue
            try:
                self._fill(columns, slot, payload)
            except ValueError as error:
                self.damage.report(place.describe(str(error), find_source(payload)))
        return self._finish(columns, slots, numbers)

    def read_images(self, epoch: int, step: int, rows: Array) -> Examples:
        """Reads the images of a step that are stored raw, straight to where they shall be.

        Args:
            epoch: which.
            step: which.
            rows: (batch_size, height, width, channels), filled where the result is valid.

        Raises:
            RecordError: one is damaged, and the policy is to raise.
            DatasetError: too many are, or a file is missing or not what it should be.
        """
        slots, numbers, columns = self._begin(epoch, [step])
        for index, label, name in read_pixels(
            self.files,
            numbers,
            rows,
            slots,
            self.damage,
            classes=self.classes,
            with_names=self.with_names,
        ):
            slot = int(slots[index])
            columns.labels[slot], columns.names[slot] = label, name
            columns.valid[slot] = True
        return self._finish(columns, slots, numbers)

    def describe(self, epoch: int, steps: Sequence[int], slot: int, detail: str) -> RecordError:
        """What to say of the record at one of the places of some steps' batches."""
        slots, ordered = self.find_ordered(epoch, steps)
        number = self.selection.find_records(ordered[slots == slot])
        place, payload = self.files.read(int(number[0]))
        return place.describe(detail, find_source(payload))

    def find_ordered(self, epoch: int, steps: Sequence[int]) -> tuple[Numbers, Numbers]:
        """Which places of some steps' batches hold a record, and which of the selected ones."""
        positions = np.concatenate([self.steps.find_positions(step) for step in steps])
        slots = np.flatnonzero(positions >= 0)
        return slots, self.order.find_records(epoch, positions[slots])

    def make_examples(self, count: int) -> Examples:
        """Columns for some records, none of them valid yet."""
        return Examples(
            valid=np.zeros(count, np.bool_),
            labels=np.zeros(count, np.int32),
            encoded=np.full(count, self.filler, np.object_),
            sizes=np.ones((count, 2), np.int32),
            seeds=np.zeros(count, np.int64),
            names=np.full(count, b"", np.object_),
        )

    def _begin(self, epoch: int, steps: Sequence[int]) -> tuple[Numbers, Numbers, Examples]:
        slots, ordered = self.find_ordered(epoch, steps)
        numbers = self.selection.find_records(ordered)
        columns = self.make_examples(len(steps) * self.steps.batch_size)
        key = derive_key(self.seed, epoch)
        columns.seeds[slots] = (numbers * _ODD) ^ np.int64(key >> 1)
        return slots, numbers, columns

    def _fill(self, columns: Examples, slot: int, payload: memoryview) -> None:
        found = examples.find_values(payload, self._wanted)
        try:
            begin, end = found[examples.ENCODED]
            label = _read_number(payload, found[examples.LABEL])
            if RAW in self.image.formats:
                height = _read_number(payload, found[examples.HEIGHT])
                width = _read_number(payload, found[examples.WIDTH])
            else:
                height, width = measure_image(payload[begin:end])
            if self.with_names:
                name_begin, name_end = found[examples.SOURCE_ID]
                columns.names[slot] = bytes(payload[name_begin:name_end])
        except KeyError as error:
            raise ValueError(f"feature {error} is missing") from error
        self._check(height, width, label, end - begin)
        columns.sizes[slot] = height, width
        columns.labels[slot] = label
        columns.encoded[slot] = bytes(payload[begin:end])
        columns.valid[slot] = True

    @property
    def _wanted(self) -> tuple[str, ...]:
        wanted = [examples.LABEL, examples.ENCODED]
        if RAW in self.image.formats:
            wanted += [examples.HEIGHT, examples.WIDTH]
        if self.with_names:
            wanted.append(examples.SOURCE_ID)
        return tuple(wanted)

    def _check(self, height: int, width: int, label: int, size: int) -> None:
        """Compares with the manifest, before a decoder takes memory for what a header claims."""
        image = self.image
        fits = 1 <= height <= image.max_height and 1 <= width <= image.max_width
        if image.height is not None:
            fits = (height, width) == (image.height, image.width)
        if RAW in image.formats:
            fits = fits and size == height * width * image.channels
        if not fits:
            raise ValueError(
                f"an image of {height}x{width} in {size} bytes, expected up to "
                f"{image.max_height}x{image.max_width}"
            )
        if label >= self.classes:
            raise ValueError(f"label {label}, expected less than {self.classes}")

    def _finish(self, columns: Examples, slots: Numbers, numbers: Numbers) -> Examples:
        if self.record_labels is not None:
            columns.labels[slots] = self.record_labels[numbers]
        elif self.labels is not None:
            columns.labels[slots] = self.labels[columns.labels[slots]]
        return columns


def _read_number(payload: memoryview, span: tuple[int, int]) -> int:
    try:
        value, end = examples.read_varint(payload, span[0])
    except IndexError as error:
        raise ValueError("a number is cut off") from error
    if end != span[1]:
        raise ValueError("not one number where one has to be")
    return value
