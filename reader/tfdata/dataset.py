"""A plan becomes a `tf.data.Dataset`: steps -> batches of the engine -> resized, if need be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from reader.arrays import Array
from reader.batches.batch_reader import Batch, BatchReader
from reader.batches.elements import Ragged, format_batch
from reader.batches.image_cache import Reader, fill_cache
from reader.plan.fingerprint import describe_plan
from reader.plan.read_plan import ReadPlan
from reader.records.damage import DamageLog, typed_errors
from reader.sampling.position import Position
from reader.tfdata.pipeline import (
    Columns,
    call_python,
    choose_settings,
    count_steps,
    map_elements,
)
from reader.tfdata.placing import make_mask_placer, make_placer, resize_batch, resize_masks


def make_dataset(plan: ReadPlan) -> tf.data.Dataset:
    """Builds the pipeline that `ShardSet.dataset` describes."""
    reader = make_reader(plan)
    position = Position(plan.options.initial_epoch, plan.options.initial_step)
    steps = count_steps(position, plan.steps.count)
    single = plan.options.batch_size is None
    if single:
        # One by one, Python would be called for each image.
        steps = steps.batch(plan.block_steps)
    call = make_call(plan, reader)
    dataset = map_elements(steps, call, plan.calls)
    if single:
        # `unbatch` takes the last block for a full one: `take` corrects the length.
        dataset = dataset.unbatch().take(plan.steps.count)
    dataset = dataset.prefetch(plan.buffers.prefetch_batches).with_options(choose_settings())
    dataset.class_names = plan.choice.class_names
    dataset.file_paths = plan.file_paths
    dataset.position = position
    dataset.epoch_fingerprint = describe_plan(plan)
    dataset.damage = reader.damage
    return dataset


def make_reader(plan: ReadPlan) -> Reader:
    """What reads the batches of a plan, resized only if they come from a cache."""
    if not plan.options.cache:
        return BatchReader(plan, make_placer(plan), make_mask_placer(plan))
    with typed_errors():
        return fill_cache(plan, ResizedReader)


class ResizedReader:
    """Reads the batches of a plan in their final size, as numpy arrays.

    Args:
        plan: what is read and how.

    Attributes:
        damage: what was skipped.
    """

    def __init__(self, plan: ReadPlan) -> None:
        self._plan = plan
        self._reader = make_reader(plan)
        self.damage: DamageLog = self._reader.damage

    def read(self, epoch: int, steps: Sequence[int]) -> Batch:
        """Reads a batch, and resizes it if that has not been done."""
        batch = self._reader.read(epoch, steps)
        if not _is_left(self._plan):
            return batch
        flips = tf.constant(batch.flips)
        batch.images = resize_batch(tf.constant(batch.images), flips, self._plan).numpy()
        if batch.masks is not None:
            batch.masks = resize_masks(tf.constant(batch.masks), flips, self._plan).numpy()
        return batch


def make_call(plan: ReadPlan, reader: Reader) -> Callable[[tf.Tensor], Any]:
    """A function of one or more places of `count_steps`, in a graph, that gives an element."""
    template = format_batch(plan, reader.read(plan.options.initial_epoch, []))
    examples = _expand(template)
    types = [tf.bool, *(tf.as_dtype(example.dtype) for example in examples)]

    def read(places: Array) -> list[Array]:
        places = places.reshape(-1, 3)
        batch = reader.read(int(places[0, 0]), places[:, 2].tolist())
        return [batch.flips, *_expand(format_batch(plan, batch))]

    def call(places: tf.Tensor) -> Any:
        flips, *columns = call_python(read, [places], types)
        if _is_left(plan):
            columns[0] = resize_batch(_set_rows(columns[0], examples[0]), flips, plan)
            if plan.given.masks:
                columns[1] = resize_masks(_set_rows(columns[1], examples[1]), flips, plan)
        return _pack(plan, template, columns)

    return call


def _is_left(plan: ReadPlan) -> bool:
    """Whether what is read has still to be resized."""
    return plan.resizes_batches and not plan.options.cache


def _expand(element: Any) -> list[Array]:
    """The arrays of an element, one after the other."""
    arrays: list[Array] = []
    for leaf in tf.nest.flatten(element):
        arrays += [leaf.values, leaf.splits] if isinstance(leaf, Ragged) else [leaf]
    return arrays


def _pack(plan: ReadPlan, template: Any, columns: Columns) -> Any:
    """An element like the template, whose shapes are known as far as they are always the same."""
    coming = iter(columns)
    leaves = []
    for number, leaf in enumerate(tf.nest.flatten(template)):
        column = next(coming)
        if isinstance(leaf, Ragged):
            values = _set_rows(column, leaf.values)
            column = tf.RaggedTensor.from_row_splits(values, next(coming), validate=False)
        elif number <= plan.given.masks:  # images, and then masks
            column.set_shape((_count_rows(plan), *_shape_image(plan, 1 if number else None)))
        else:
            column.set_shape((_count_rows(plan), *leaf.shape[1:]))
        leaves.append(column)
    return tf.nest.pack_sequence_as(template, leaves)


def _set_rows(column: tf.Tensor, example: Array) -> tf.Tensor:
    column.set_shape((None, *example.shape[1:]))
    return column


def _count_rows(plan: ReadPlan) -> int | None:
    if plan.options.batch_size is None:
        # The last block has fewer, but `unbatch` then takes the number of elements for known.
        return plan.block_steps
    return plan.options.batch_size if plan.options.remainder != "keep" else None


def _shape_image(plan: ReadPlan, channels: int | None) -> tuple[int | None, ...]:
    images = plan.images
    channels = channels or images.channels
    if images.height is None or images.width is None:
        first = plan.options.data_format == "channels_first"
        return (channels, None, None) if first else (None, None, channels)
    return images.lay_out(images.height, images.width, channels)
