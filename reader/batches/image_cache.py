"""All images of a split, and their masks, decoded once and kept in memory."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from converter.sizes import format_bytes
from reader.arrays import Array
from reader.batches.batch import Batch, BufferPool
from reader.batches.batch_reader import BatchReader, view_channels_last
from reader.batches.threads import run_ahead
from reader.plan.read_plan import ReadPlan
from reader.records.damage import DamageLog
from reader.sampling.orders import SequentialOrder
from reader.sampling.steps import Steps

_log = logging.getLogger("shardmill.reader")


class ImageCache:
    """Decoded images, kept as one batch in the order of the chosen records."""

    def __init__(self, plan: ReadPlan, kept: Batch, damage: DamageLog) -> None:
        self.damage = damage
        self._plan = plan
        self._kept = kept
        height, width, channels = kept.images.shape[1:]
        size, keep = plan.steps.batch_size, plan.buffers.batches
        self._images, self._masks = (
            BufferPool((size, *plan.images.lay_out(height, width, values)), dtype, keep)
            for values, dtype in ((channels, plan.options.dtype), (1, "uint8"))
        )

    def read(self, epoch: int, steps: Sequence[int]) -> Batch:
        kept, count = self._kept, len(steps) * self._plan.steps.batch_size
        slots, chosen = self._plan.find_chosen(epoch, steps)
        images, masks = self._fill(self._images, kept.images, slots, chosen), kept.masks
        if masks is not None:
            masks = self._fill(self._masks, masks, slots, chosen)[:count]
        batch = Batch.blank(images[:count], masks)
        for name in ("valid", "labels", "names", "values"):
            getattr(batch, name)[slots] = getattr(kept, name)[chosen]
        return batch.finish(self._plan)

    def _fill(self, pool: BufferPool, kept: Array, slots: Array, chosen: Array) -> Array:
        rows = pool.take()
        for slot, number in zip(slots.tolist(), chosen.tolist(), strict=True):
            row = view_channels_last(rows[slot], self._plan.options.data_format)
            np.copyto(row, kept[number], casting="unsafe")
        return rows


Reader: TypeAlias = BatchReader | ImageCache
"""Reads the batches of any step of any epoch."""


def fill_cache(plan: ReadPlan, make_reader: Callable[[ReadPlan], Reader]) -> ImageCache:
    """Reads and decodes all records of a plan, those of other hosts too; logs their size.

    `make_reader` makes a reader of batches in their final size; raises as that does.
    """
    records = plan.choice.selection.count
    options = dataclasses.replace(
        plan.options,
        cache=False,
        shuffle=False,
        dtype=plan.images.decoded_dtype,
        data_format="channels_last",
        remainder="pad",
    )
    given = dataclasses.replace(plan.given, with_names=True)
    whole = dataclasses.replace(
        plan,
        choice=dataclasses.replace(plan.choice, given=given),
        images=dataclasses.replace(plan.images, options=options),
        order=SequentialOrder(),
        steps=Steps(records=records, batch_size=plan.steps.batch_size, remainder="pad"),
    )
    reader = make_reader(whole)
    kept = _allocate(reader.read(0, []), records)
    steps = range(whole.steps.count)
    batches = run_ahead(lambda step: reader.read(0, [step]), steps, whole.calls, 1)
    for step, batch in enumerate(batches):
        begin = step * plan.steps.batch_size
        end = min(begin + len(batch.valid), records)
        for field in dataclasses.fields(Batch):
            column = getattr(batch, field.name)
            if column is not None:
                getattr(kept, field.name)[begin:end] = column[: end - begin]
    taken = kept.images.nbytes + (0 if kept.masks is None else kept.masks.nbytes)
    _log.info("cached %s images, %s", f"{records:,}", format_bytes(taken))
    return ImageCache(plan, kept, reader.damage)


def _allocate(like: Batch, records: int) -> Batch:
    def make(rows: Array) -> Array:
        return np.empty((records, *rows.shape[1:]), rows.dtype)

    masks = None if like.masks is None else make(like.masks)
    return Batch.blank(make(like.images), masks)
