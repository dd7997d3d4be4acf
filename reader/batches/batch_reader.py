"""The engine: the records of a step, read, checked and decoded straight into a lent batch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from converter.errors import DatasetError, RecordError
from reader.arrays import Array, Bytes, Flags, Numbers, Scratch
from reader.batches.buffer_pool import BufferPool
from reader.batches.decoders import Decoder, Size, Task, make_decoder, make_mask_decoder
from reader.batches.raw_pixels import read_pixels
from reader.batches.threads import Team
from reader.examples.fields import Fields, find_fields, parse_payload
from reader.plan.read_plan import ReadPlan
from reader.records.blocks import Block
from reader.records.damage import REFUSAL, DamageLog
from reader.records.record_files import find_source
from reader.remote.prefetch import ShardPrefetcher
from reader.remote.range_reads import RangeFiles
from reader.remote.remote_file import list_remote
from reader.sampling.draws import draw_flips
from reader.sampling.orders import derive_key

SAMPLED_RECORDS: Final = 8
_ODD: Final = np.int64(0x1E3779B97F4A7C15)
"""Spreads neighbouring numbers over the seeds of their images."""


@dataclasses.dataclass(kw_only=True, slots=True)
class Batch:
    """What was read of some steps; where `valid` is False, nothing else means anything.

    Attributes:
        images: (n, height, width, channels), or (n, channels, height, width), of the dtype asked
            for.
        valid: bool (n,).
        labels: int32 (n,).
        names: bytes (n,), paths of the originals; empty if they were not asked for.
        masks: uint8, as `images` with one channel; None if they were not asked for.
        values: `Values` (n,), of each record's columns; None if none were asked for.
        flips: bool (n,), which images are mirrored.
    """

    images: Array
    valid: Flags
    labels: npt.NDArray[np.int32]
    names: npt.NDArray[np.object_]
    masks: Array | None
    values: npt.NDArray[np.object_]
    flips: Flags

    @classmethod
    def begin(cls, count: int, images: Array, masks: Array | None) -> Batch:
        """A batch of `count` places, none of them valid yet."""
        return cls(
            images=images,
            valid=np.zeros(count, np.bool_),
            labels=np.zeros(count, np.int32),
            names=np.full(count, b"", np.object_),
            masks=masks,
            values=np.full(count, None, np.object_),
            flips=np.zeros(count, np.bool_),
        )

    def pad(self) -> Batch:
        """Blanks what is not valid."""
        blank = ~self.valid
        if blank.any():
            self.images[blank], self.labels[blank] = 0, 0
            self.names[blank], self.values[blank] = b"", None
            if self.masks is not None:
                self.masks[blank] = 0
        return self

    def compact(self) -> Batch:
        """Moves together what is valid."""
        valid = self.valid
        if valid.all():
            return self
        return Batch(
            images=_compact(self.images, valid),
            valid=valid[valid],
            labels=self.labels[valid],
            names=self.names[valid],
            masks=None if self.masks is None else _compact(self.masks, valid),
            values=self.values[valid],
            flips=self.flips[valid],
        )


class BatchReader:
    """Reads the batches of any step of any epoch; threads may share it.

    A batch lies in memory that is lent: it is used again once no array shows it any more.

    Args:
        plan: what is read and how.
        decode: decodes an image to its place; None for what needs no TensorFlow.
        decode_mask: decodes a mask to its place; None likewise.
        resize: resizes and mirrors a whole batch of stored images; None where that is not done to
            all at once.

    Attributes:
        plan: what is read and how.
        damage: what was skipped.

    Raises:
        UsageError: the images have to be changed in a way that takes TensorFlow.
    """

    def __init__(
        self,
        plan: ReadPlan,
        decode: Decoder | None = None,
        decode_mask: Decoder | None = None,
        resize: Callable[[Batch], Batch] | None = None,
    ) -> None:
        self.plan = plan
        self.damage = DamageLog(plan.options.on_damage, plan.options.max_damaged)
        self._wanted = plan.wanted
        self._decoders = decode or make_decoder(plan.images), decode_mask or make_mask_decoder()
        self._resize = resize
        # Whole batches are turned when they are resized.
        self._data_format = "channels_last" if resize else plan.options.data_format
        self._scratch = Scratch()
        self._team = Team(plan.buffers.threads)
        self._images = self._make_pool(plan.shape_read(), plan.read_dtype)
        self._masks = self._make_pool(plan.shape_read(1), "uint8") if plan.given.masks else None
        stored = plan.images.stored
        is_plain = (plan.options.dtype, plan.options.data_format) == ("uint8", "channels_last")
        self._pixels: BufferPool | None = None
        if plan.is_direct and not is_plain and stored.height and stored.width:
            shape = stored.height, stored.width, stored.channels
            self._pixels = self._make_pool(shape, "uint8")
        far = list_remote(plan.files.files) and not isinstance(plan.files, RangeFiles)
        self._prefetcher = (
            ShardPrefetcher(plan.files.files, plan.steps) if far and plan.steps.count else None
        )

    def read(self, epoch: int, steps: Sequence[int]) -> Batch:
        """Reads the images of some steps, and what else is asked for.

        Raises:
            RecordError: a record is damaged, and the policy is to raise.
            DatasetError: too many are, or none of a batch is whole, or a file is missing or not
                what it should be.
        """
        slots, numbers = self._find(epoch, steps)
        batch = self._begin(len(steps) * self.plan.steps.batch_size)
        seeds = (numbers * _ODD) ^ np.int64(derive_key(self.plan.options.seed or 0, epoch) >> 1)
        if self.plan.options.random_flip:
            batch.flips[slots] = draw_flips(seeds)
        if len(numbers) and self.plan.is_direct:
            self._fill_directly(batch, slots, numbers, seeds)
        elif len(numbers):
            self._team.run(functools.partial(self._fill, batch), slots, numbers, seeds)
        self._replace_labels(batch, slots, numbers)
        batch = finish_batch(self.plan, batch)
        return batch if self._resize is None else self._resize(batch)

    def _make_pool(self, shape: tuple[int, int, int] | None, dtype: str) -> BufferPool | None:
        count = self.plan.steps.batch_size * self.plan.block_steps
        keep = self.plan.buffers.batches
        return None if shape is None else BufferPool((count, *shape), dtype, keep)

    def _find(self, epoch: int, steps: Sequence[int]) -> tuple[Numbers, Numbers]:
        slots, chosen = self.plan.find_chosen(epoch, steps)
        numbers = self.plan.choice.selection.find_records(chosen)
        if self._prefetcher is not None and steps:
            self._prefetcher.update(epoch, steps[-1], numbers, self._sample)
        return slots, numbers

    def _sample(self, epoch: int, steps: Sequence[int]) -> Numbers:
        """The numbers of a few records of each of some steps."""
        stride = -(-self.plan.steps.batch_size // SAMPLED_RECORDS)
        _, chosen = self.plan.find_chosen(epoch, steps, stride)
        return self.plan.choice.selection.find_records(chosen)

    def _begin(self, count: int) -> Batch:
        """A batch without anything in it yet."""
        images, masks = self._allocate(count, (0, 0)) if self._images is None else (
            self._images.take()[:count], None if self._masks is None else self._masks.take()[:count]
        )  # fmt: skip
        return Batch.begin(count, images, masks)

    def _allocate(self, count: int, size: Size) -> tuple[Array, Array | None]:
        """Blank images of a size of their own, and masks if they are given."""
        images = self.plan.images
        shape, mask_shape = images.lay_out(*size, images.channels), images.lay_out(*size, 1)
        masks = np.zeros((count, *mask_shape), np.uint8) if self._wanted.masks else None
        return np.zeros((count, *shape), self.plan.read_dtype), masks

    def _fill_directly(
        self, batch: Batch, slots: Numbers, numbers: Numbers, seeds: Numbers
    ) -> None:
        """Reads images that are stored raw as they are asked for, without a copy between."""
        rows = batch.images if self._pixels is None else self._pixels.take()
        labels, names, valid = read_pixels(
            self.plan.files, numbers, rows, slots, with_names=self._wanted.with_names
        )
        for slot in slots if self._pixels is not None else ():
            np.copyto(turn_image(batch.images[slot], self._data_format), rows[slot])
        valid &= labels < self._wanted.limit
        batch.labels[slots[valid]] = labels[valid]
        batch.names[slots[valid]] = names[valid]
        batch.valid[slots[valid]] = True
        if not valid.all():
            self._fill_singly(batch, slots[~valid], numbers[~valid], seeds[~valid])

    def _fill(self, batch: Batch, slots: Numbers, numbers: Numbers, seeds: Numbers) -> None:
        """Reads and decodes some of the records of a batch.

        Args:
            batch: where they belong.
            slots: int64 (records,), the place of each.
            numbers: int64 (records,), which they are; at least one.
            seeds: int64 (records,), for random changes.
        """
        left = np.ones(len(numbers), np.bool_)
        limit_bytes = self.plan.buffers.block_bytes
        with self._scratch.borrow() as memory:
            for block in self.plan.files.read_blocks(numbers, limit_bytes, memory):
                fields = find_fields(block, self._wanted)
                rows = self._decode_block(batch, block, fields, slots, seeds)
                done = block.indexes[rows]
                batch.labels[slots[done]] = fields.labels[rows]
                batch.valid[slots[done]] = True
                left[done] = False
        if left.any():
            self._fill_singly(batch, slots[left], numbers[left], seeds[left])

    def _decode_block(
        self, batch: Batch, block: Block, fields: Fields, slots: Numbers, seeds: Numbers
    ) -> Numbers:
        """Decodes what is as it should be; gives the rows of the block for which that was done."""
        rows = np.flatnonzero(fields.valid)
        indexes = block.indexes[rows]
        places = slots[indexes].tolist()
        details = (
            places,
            [(height, width) for height, width in fields.sizes[rows].tolist()],
            seeds[indexes].tolist(),
        )
        images, masks = (_cut(block.data, spans, rows) for spans in (fields.images, fields.masks))
        problems = self._place(batch, zip(*details, images, masks, strict=True))
        if self._wanted.with_names:
            for slot, name in zip(places, _cut(block.data, fields.names, rows), strict=True):
                batch.names[slot] = name.tobytes()
        if self._wanted.columns:
            for slot, row in zip(places, rows.tolist(), strict=True):
                batch.values[slot] = fields.values[row]
        return rows[[problem is None for problem in problems]]

    def _fill_singly(self, batch: Batch, slots: Numbers, numbers: Numbers, seeds: Numbers) -> None:
        """Reads with care what was not as it should be, and takes note of what is damaged."""
        for row, place, payload in self.plan.files.read_many(numbers):
            slot, seed = int(slots[row]), int(seeds[row])
            if isinstance(payload, RecordError):
                self.damage.report(payload)
                continue
            try:
                field = parse_payload(payload, self._wanted)
                image, mask = (np.frombuffer(part, np.uint8) for part in (field.image, field.mask))
                (problem,) = self._place(batch, [(slot, field.size, seed, image, mask)])
            except ValueError as error:
                problem = str(error)
            if problem is not None:
                self.damage.report(place.describe(problem, find_source(payload)))
                continue
            batch.labels[slot], batch.names[slot] = field.label, field.name
            batch.values[slot], batch.valid[slot] = field.values, True

    def _place(
        self, batch: Batch, parts: Iterable[tuple[int, Size, int, Bytes, Bytes]]
    ) -> list[str | None]:
        """Decodes images and their masks to their places; says what is wrong with each of them.

        Args:
            batch: where they belong.
            parts: of each the place, height and width, seed, and the bytes of image and mask.
        """
        tasks, mask_tasks = [], []
        for slot, size, seed, image, mask in parts:
            if self._images is None:  # then it is the only one
                batch.images, batch.masks = self._allocate(1, size)
            flip = self._resize is None and bool(batch.flips[slot])
            row = turn_image(batch.images[slot], self._data_format, flip=flip)
            tasks.append(Task(image, size, seed, row))
            if batch.masks is not None:
                row = turn_image(batch.masks[slot], self._data_format, flip=flip)
                mask_tasks.append(Task(mask, size, seed, row))
        decode, decode_mask = self._decoders
        problems = decode(tasks)
        if mask_tasks:
            pairs = zip(problems, decode_mask(mask_tasks), strict=True)
            problems = [one or (other and f"its mask: {other}") for one, other in pairs]
        return [problem and f"{REFUSAL}{problem}" for problem in problems]

    def _replace_labels(self, batch: Batch, slots: Numbers, numbers: Numbers) -> None:
        choice = self.plan.choice
        if choice.record_labels is not None:
            batch.labels[slots] = choice.record_labels[numbers]
        elif choice.labels is not None and self._wanted.labelled:
            batch.labels[slots] = choice.labels[batch.labels[slots]]


def finish_batch(plan: ReadPlan, batch: Batch) -> Batch:
    """Blanks what is not valid, or leaves it out, as `remainder` says.

    Raises:
        DatasetError: nothing of it is valid.
    """
    if plan.options.remainder == "pad":
        return batch.pad()
    if plan.options.batch_size is not None and len(batch.valid) and not batch.valid.any():
        raise DatasetError("not one record of a batch is whole: run shardmill verify")
    return batch.compact()


def turn_image(row: Array, data_format: str, *, flip: bool = False) -> Array:
    """An image's place as (height, width, channels), mirrored if `flip`."""
    if data_format == "channels_first":
        row = np.moveaxis(row, 0, -1)
    return row[:, ::-1] if flip else row


def _compact(rows: Array, valid: Flags) -> Array:
    count = int(valid.sum())
    if not valid[:count].all():
        rows[:count] = rows[valid]
    return rows[:count]


def _cut(data: Bytes, spans: Numbers, rows: Numbers) -> list[Bytes]:
    """The parts of a block's data from `spans[0]` to `spans[1]`, of some of its rows."""
    begins, ends = spans[:, rows].tolist()
    return [data[begin:end] for begin, end in zip(begins, ends, strict=True)]
