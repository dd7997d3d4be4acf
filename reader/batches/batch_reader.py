"""The records of a step, read and checked: everything up to the decoder, without TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from converter.errors import RecordError
from converter.format.manifest import ImageInfo
from converter.format.schema import Column
from reader.arrays import Array, Bytes, Flags, Numbers
from reader.batches.raw_pixels import read_pixels
from reader.examples.fields import Field, Wanted, find_fields, parse_payload, read_details
from reader.records.blocks import Block
from reader.records.damage import DamageLog
from reader.records.record_files import RecordFiles, find_source
from reader.remote.prefetch import Outlook
from reader.sampling.orders import Order, derive_key
from reader.sampling.selection import Selection
from reader.sampling.steps import Steps

RAW: Final = "raw"
SAMPLED_RECORDS: Final = 8
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
        names: bytes (n,), paths of the originals, or all of the records but the images if columns
            were asked for; empty if neither was.
        masks: bytes (n,), the masks as they are stored; empty if they were not asked for.
    """

    valid: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int32]
    encoded: npt.NDArray[np.object_]
    sizes: npt.NDArray[np.int32]
    seeds: Numbers
    names: npt.NDArray[np.object_]
    masks: npt.NDArray[np.object_]


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
        labelled: whether records hold a label.
        columns: of the records, to be read too.
        with_masks: read the masks too.
        filler: encoded image that stands where there is none.
        mask_filler: encoded mask that does.
        outlook: fetches what the steps to come need, if that is far away.
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
    labelled: bool = True
    columns: tuple[Column, ...] = ()
    with_masks: bool = False
    filler: bytes = b""
    mask_filler: bytes = b""
    outlook: Outlook | None = None

    def read_examples(self, epoch: int, steps: Sequence[int]) -> Examples:
        """Reads the encoded images of some steps, `batch_size` records each.

        Raises:
            RecordError: one is damaged, and the policy is to raise.
            DatasetError: too many are, or a file is missing or not what it should be.
        """
        slots, numbers, columns = self._begin(epoch, steps)
        if len(numbers):

            def put(slot: int, image: Bytes) -> None:
                columns.encoded[slot] = image.tobytes()

            rest = self._fill(columns, slots, numbers, put)
            for index, field in self._read_singly(numbers, rest):
                slot = slots[index]
                columns.encoded[slot], columns.sizes[slot] = bytes(field.image), field.size
                if self.with_masks:
                    columns.masks[slot] = bytes(field.mask)
                _describe(columns, slot, field)
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
        if len(numbers):
            rest = self._fill_pixels(columns, slots, numbers, rows)
            for index, field in self._read_singly(numbers, rest):
                slot = slots[index]
                rows[slot] = np.frombuffer(field.image, np.uint8).reshape(rows.shape[1:])
                _describe(columns, slot, field)
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
            masks=np.full(count, self.mask_filler, np.object_),
        )

    def _begin(self, epoch: int, steps: Sequence[int]) -> tuple[Numbers, Numbers, Examples]:
        slots, ordered = self.find_ordered(epoch, steps)
        numbers = self.selection.find_records(ordered)
        if self.outlook is not None:
            self.outlook.look(epoch, steps[-1], numbers, self._sample)
        columns = self.make_examples(len(steps) * self.steps.batch_size)
        key = derive_key(self.seed, epoch)
        columns.seeds[slots] = (numbers * _ODD) ^ np.int64(key >> 1)
        return slots, numbers, columns

    def _sample(self, epoch: int, steps: Sequence[int]) -> Numbers:
        """The numbers of a few records of each of some steps."""
        stride = -(-self.steps.batch_size // SAMPLED_RECORDS)
        positions = np.concatenate([self.steps.find_positions(step)[::stride] for step in steps])
        ordered = self.order.find_records(epoch, positions[positions >= 0])
        return self.selection.find_records(ordered)

    def _fill(
        self,
        columns: Examples,
        slots: Numbers,
        numbers: Numbers,
        put: Callable[[int, Bytes], None],
    ) -> Numbers:
        """Reads all records that are as they should be; gives the indexes of those that are not.

        Args:
            columns: to be filled.
            slots: int64 (records,), where in there each record goes.
            numbers: int64 (records,), which they are; at least one.
            put: is called with a slot and the bytes of the image that goes there.
        """
        block = self.files.read_block(numbers)
        if not len(block.indexes):
            return np.arange(len(numbers))
        fields = find_fields(block, self._wanted)
        sound = (
            fields.sound
            & (fields.labels < self._limit)
            & self._fits(fields.sizes, fields.ends - fields.begins)
        )
        if self.columns:
            sound &= self._read_details(columns, slots, block)
        slots = slots[block.indexes[sound]]
        columns.labels[slots] = fields.labels[sound]
        columns.sizes[slots] = fields.sizes[sound]
        columns.valid[slots] = True
        spans = fields.begins[sound].tolist(), fields.ends[sound].tolist()
        for slot, begin, end in zip(slots.tolist(), *spans, strict=True):
            put(slot, block.data[begin:end])
        if self.with_masks:
            spans = fields.masks[0, sound].tolist(), fields.masks[1, sound].tolist()
            for slot, begin, end in zip(slots.tolist(), *spans, strict=True):
                columns.masks[slot] = block.data[begin:end].tobytes()
        if self.with_names and not self.columns:
            spans = fields.names[0, sound].tolist(), fields.names[1, sound].tolist()
            for slot, begin, end in zip(slots.tolist(), *spans, strict=True):
                columns.names[slot] = block.data[begin:end].tobytes()
        rest = np.ones(len(numbers), np.bool_)
        rest[block.indexes[sound]] = False
        return np.flatnonzero(rest)

    def _fill_pixels(
        self, columns: Examples, slots: Numbers, numbers: Numbers, rows: Array
    ) -> Numbers:
        """Does the same with images that are stored raw, without a copy of them between."""
        found = read_pixels(self.files, numbers, rows, slots, with_names=self.with_names)
        sound = found.sound & (found.labels < self._limit)
        columns.labels[slots[sound]] = found.labels[sound]
        columns.names[slots[sound]] = found.names[sound]
        columns.valid[slots[sound]] = True
        return np.flatnonzero(~sound)

    def _read_singly(self, numbers: Numbers, rest: Numbers) -> Iterator[tuple[int, Field]]:
        """Reads with care what was not as it should be, and takes note of what is damaged."""
        for row, place, payload in self.files.read_many(numbers[rest]):
            if isinstance(payload, RecordError):
                self.damage.report(payload)
                continue
            try:
                field = parse_payload(payload, self._wanted)
                self._check(field)
            except ValueError as error:
                self.damage.report(place.describe(str(error), find_source(payload)))
            else:
                yield int(rest[row]), field

    def _check(self, field: Field) -> None:
        """Compares with the manifest, before a decoder takes memory for what a header claims."""
        image, (height, width) = self.image, field.size
        if not self._fits(np.array([field.size]), np.array([len(field.image)])).all():
            raise ValueError(
                f"an image of {height}x{width} in {len(field.image)} bytes, expected up to "
                f"{image.max_height}x{image.max_width}"
            )
        if field.label >= self._limit:
            raise ValueError(f"label {field.label}, expected less than {self._limit}")

    def _fits(self, sizes: Numbers, image_bytes: Numbers) -> Flags:
        """Whether images are of a size that the manifest allows.

        Args:
            sizes: int64 (records, 2), height and width.
            image_bytes: int64 (records,).
        """
        image = self.image
        least, most = (image.height or 1, image.width or 1), (image.max_height, image.max_width)
        inside = (sizes >= least) & (sizes <= most)
        fits: Flags = inside[:, 0] & inside[:, 1]
        if self._is_raw:
            fits &= image_bytes == sizes[:, 0] * sizes[:, 1] * image.channels
        return fits

    def _read_details(self, columns: Examples, slots: Numbers, block: Block) -> Flags:
        """Reads all but the images, and says of which records that could be done."""
        read: Flags = block.sound.copy()
        spans = block.begins.tolist(), block.ends.tolist()
        for row, (begin, end) in enumerate(zip(*spans, strict=True)):
            with contextlib.suppress(ValueError):
                payload = block.data[begin:end].data
                columns.names[slots[block.indexes[row]]] = read_details(
                    payload, self.columns, self.classes
                )
                continue
            read[row] = False
        return read

    @property
    def _limit(self) -> int:
        """What labels have to be below."""
        return self.classes if self.labelled else 1

    @property
    def _wanted(self) -> Wanted:
        return Wanted(
            raw=self._is_raw,
            with_names=self.with_names,
            labelled=self.labelled,
            masks=self.with_masks,
            columns=self.columns,
            classes=self.classes,
        )

    @property
    def _is_raw(self) -> bool:
        return RAW in self.image.formats

    def _finish(self, columns: Examples, slots: Numbers, numbers: Numbers) -> Examples:
        if self.record_labels is not None:
            columns.labels[slots] = self.record_labels[numbers]
        elif self.labels is not None and self.labelled:
            columns.labels[slots] = self.labels[columns.labels[slots]]
        return columns


def _describe(columns: Examples, slot: int, field: Field) -> None:
    columns.labels[slot], columns.names[slot] = field.label, field.name
    columns.valid[slot] = True
