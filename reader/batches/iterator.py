"""The batches of epoch after epoch, read or kept in memory; as NumPy arrays: `ShardSet.batches`."""

import dataclasses
import functools
import logging
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from converter.errors import UsageError
from converter.sizes import format_bytes, format_count
from reader.arrays import Array
from reader.batches.batch import Batch, BufferPool, Ragged, format_batch
from reader.batches.batch_reader import BatchReader, view_channels_last
from reader.batches.threads import run_ahead
from reader.examples.columns import FilePaths
from reader.plan.read_plan import ReadPlan, describe_plan, find_difference
from reader.records.damage import DamageLog
from reader.sampling.orders import SequentialOrder, Steps

_log = logging.getLogger("shardmill.reader")


class Batches:
    """The batches of a split: each iteration is an epoch, and `len` is its number of steps.

        batches = open_shards("photos-256").batches("train", batch_size=64, seed=7)
        for epoch in range(10):
            for images, labels in batches:
                ...

    An iteration that you leave before its last batch does not count: the next one begins where it
    began, so a look costs nothing. Threads read ahead while you iterate, and end with the
    iteration. The memory of a batch that you release is used for another.

    Attributes:
        class_names: in label order.
        file_paths: of the originals, in the order of an epoch that is not shuffled.
        epoch: of the batch that comes next.
        step: of the batch that comes next; what was read ahead does not count.
        damage: the records that were skipped.

    Raises:
        UsageError: you ask for single images, or for pixels that only TensorFlow computes to the
            same numbers.
    """

    def __init__(self, plan: ReadPlan) -> None:
        options = plan.options
        if options.batch_size is None:
            raise UsageError("batches are of several images: give a batch_size, or use source()")
        self.class_names: list[str] = plan.choice.class_names
        self.file_paths: FilePaths = plan.file_paths
        self.plan = plan
        self.reader: Reader = fill_cache(plan, BatchReader) if options.cache else BatchReader(plan)
        self.damage: DamageLog = self.reader.damage
        self.epoch, self.step = options.initial_epoch, options.initial_step
        self._start = self.epoch, self.step

    def __len__(self) -> int:
        return self.plan.steps.count

    def __iter__(self) -> Iterator[Any]:
        (epoch, first), count = self._start, len(self)
        read, ahead = functools.partial(self._read, epoch), self.plan.buffers.prefetch_batches
        step = first  # `enumerate` would keep each element until the next one
        for element in run_ahead(read, range(first, count), self.plan.calls, ahead):
            step += 1
            self.epoch, self.step = (epoch, step) if step < count else (epoch + 1, 0)
            if step == count:
                self._start = epoch + 1, 0
            yield element
            del element  # its memory can serve another while the next one is waited for
        if first >= count:
            self.seek(epoch + 1)

    def __repr__(self) -> str:
        size, at = self.plan.options.batch_size, f"epoch {self.epoch}, step {self.step}"
        return f"Batches({format_count(len(self), 'step')} of {size} images, next: {at})"

    def seek(self, epoch: int, step: int = 0) -> None:
        """Starts the next iteration at an epoch and step; a `UsageError` if there is none."""
        try:
            epoch, step = operator.index(epoch), operator.index(step)
        except TypeError:
            raise UsageError(
                f"epoch {epoch!r:.60}, step {step!r:.60} are not two numbers: give both"
            ) from None
        if epoch < 0 or not 0 <= step <= len(self):
            raise UsageError(
                f"epoch {epoch}, step {step} is out of range: epochs from 0, steps to {len(self)}"
            )
        self.epoch, self.step = epoch, step
        self._start = epoch, step

    def state_dict(self) -> dict[str, Any]:
        """Returns your position for `load_state_dict`: a few hundred bytes as JSON."""
        return {"epoch": self.epoch, "step": self.step, "data": describe_plan(self.plan)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a saved state; a `UsageError` if that is of other data or options."""
        try:
            epoch, step, data = int(state["epoch"]), int(state["step"]), dict(state["data"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"{state!r:.120} is not a state of batches: {error!r:.60}") from error
        wanted = describe_plan(self.plan)
        if name := find_difference(data, wanted):
            raise UsageError(
                f"the state is of batches with {name} {data.get(name)!r:.60}, these have "
                f"{wanted.get(name)!r:.60}: use the same data and options, and a seed"
            )
        self.seek(epoch, step)

    def _read(self, epoch: int, step: int) -> Any:
        element = format_batch(self.plan, self.reader.read(epoch, [step]))
        if self.plan.given.columns:
            columns = element[-1]
            for name, column in columns.items():
                columns[name] = column.list_rows() if isinstance(column, Ragged) else column
        return element


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


Reader: TypeAlias = BatchReader | ImageCache  # of the batches of any step of any epoch


def fill_cache(plan: ReadPlan, make_reader: Callable[[ReadPlan], Reader]) -> ImageCache:
    """Reads all records of a plan in their final size, those of other hosts too; logs the bytes."""
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
    like = reader.read(0, [])
    images = np.empty((records, *like.images.shape[1:]), like.images.dtype)
    masks = None if like.masks is None else np.empty((records, *like.masks.shape[1:]), np.uint8)
    kept = Batch.blank(images, masks)
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
