"""Builds a `tf.data.Dataset` from a plan: steps -> batches of the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from reader.arrays import Array
from reader.batches.batch_reader import BatchReader
from reader.batches.elements import Ragged, format_batch
from reader.batches.image_cache import Reader, fill_cache
from reader.plan.fingerprint import describe_plan
from reader.plan.read_plan import ReadPlan
from reader.records.damage import typed_errors
from reader.sampling.position import Position
from reader.tfdata.pipeline import Columns, call_python, choose_settings, read_steps
from reader.tfdata.placing import make_mask_placer, make_placer, make_resizer


def make_dataset(plan: ReadPlan) -> tf.data.Dataset:
    """Builds the pipeline that `ShardSet.dataset` describes."""
    reader = make_reader(plan)
    position = Position(plan.options.initial_epoch, plan.options.initial_step)
    block = plan.block_steps if plan.options.batch_size is None else None
    dataset = read_steps(_make_call(plan, reader), position, plan.steps.count, plan.calls, block)
    dataset = dataset.prefetch(plan.buffers.prefetch_batches).with_options(
        choose_settings(plan.calls)
    )
    dataset.class_names = plan.choice.class_names
    dataset.file_paths = plan.file_paths
    dataset.position = position
    dataset.epoch_fingerprint = describe_plan(plan)
    dataset.damage = reader.damage
    return dataset


def make_reader(plan: ReadPlan) -> Reader:
    """Makes the engine of a plan, with TensorFlow to resize."""
    if not plan.options.cache:
        decode_mask = make_mask_placer(plan) if plan.given.masks else None
        return BatchReader(plan, make_placer(plan), decode_mask, make_resizer(plan))
    with typed_errors():
        return fill_cache(plan, make_reader)


def _make_call(plan: ReadPlan, reader: Reader) -> Callable[[tf.Tensor], Any]:
    """Makes a graph function from a row of `Position.begin` to an element."""
    template = format_batch(plan, reader.read(plan.options.initial_epoch, []))
    types = [tf.as_dtype(array.dtype) for array in _expand(template)]

    def read(steps: Array) -> list[Array]:
        epoch, begin, end = steps.tolist()
        return _expand(format_batch(plan, reader.read(epoch, range(begin, end))))

    return lambda steps: _pack(plan, template, call_python(read, [steps], types))


def _expand(element: Any) -> list[Array]:
    """Lists the arrays of an element."""
    arrays: list[Array] = []
    for leaf in tf.nest.flatten(element):
        arrays += [leaf.values, leaf.splits] if isinstance(leaf, Ragged) else [leaf]
    return arrays


def _pack(plan: ReadPlan, template: Any, columns: Columns) -> Any:
    """Builds an element like the template, with static shapes as far as they never change."""
    rows = plan.options.batch_size if plan.options.remainder != "keep" else None
    if plan.options.batch_size is None:
        # The last block may have fewer, but from this `unbatch` knows the number of elements.
        rows = plan.block_steps
    coming = iter(columns)

    def pack(leaf: Array | Ragged) -> Any:
        column, known = next(coming), leaf.values if isinstance(leaf, Ragged) else leaf
        # Images of different sizes have sides of 0 in an empty batch.
        shape = [side or None for side in known.shape[1:]]
        if not isinstance(leaf, Ragged):
            column.set_shape([rows, *shape])
            return column
        column.set_shape([None, *shape])
        return tf.RaggedTensor.from_row_splits(column, next(coming), validate=False)

    return tf.nest.map_structure(pack, template)
