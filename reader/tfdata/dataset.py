"""Builds a `tf.data.Dataset`: of the engine's batches, or of arbitrary records in TFRecords."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from converter.errors import DatasetError, RecordError, UsageError
from reader.arrays import Array
from reader.batches.batch_reader import BatchReader
from reader.batches.elements import Ragged, format_batch
from reader.batches.image_cache import Reader, fill_cache
from reader.plan.memory import SINGLES, Demand, count_cores, divide_memory, measure_files
from reader.plan.read_options import ReadOptions
from reader.plan.read_plan import (
    ReadPlan,
    choose_order,
    describe_order,
    describe_plan,
    plan_steps,
    resolve_options,
)
from reader.records.damage import DamageLog, typed_errors
from reader.records.record_files import RecordFiles
from reader.sampling.orders import Order, select_all
from reader.sampling.steps import Position, Steps
from reader.tfdata.pipeline import Columns, call_python, choose_settings, map_elements, read_steps
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


def make_record_dataset(
    files: RecordFiles, features: Mapping[str, Any] | None, options: ReadOptions
) -> tf.data.Dataset:
    """Builds the pipeline that `TFRecordSet.dataset` describes."""
    if options.remainder == "pad":
        raise UsageError("remainder 'pad' needs to know what a record holds: use 'keep' or 'drop'")
    options = resolve_options(options, "", remote=False)
    measured = measure_files(files.files)
    largest = measured["record_bytes"]
    demand = Demand(
        **measured,
        batch_size=options.batch_size or SINGLES,
        image_bytes=largest,
        staged_bytes=2 * largest,  # Python's copy and TensorFlow's, while one becomes the other
        shuffle=options.shuffle,
        cores=count_cores(),
    )
    buffers = divide_memory(options.max_ram_bytes, demand)
    files, order = choose_order(files, buffers, options, select_all(len(files)))
    steps = plan_steps(len(files), options)
    damage = DamageLog(options.on_damage, options.max_damaged)
    read = functools.partial(_read_payloads, files, order, steps, damage)
    position = Position(options.initial_epoch, options.initial_step)
    single = options.batch_size is None
    size = SINGLES if single else options.batch_size if options.remainder == "drop" else None

    def call(listed: tf.Tensor) -> tf.Tensor:
        (payloads,) = call_python(read, [listed], [tf.string])
        payloads.set_shape((size,))
        return payloads

    dataset = read_steps(call, position, steps.count, block=SINGLES if single else None)
    if features is not None:
        parse = tf.io.parse_single_example if single else tf.io.parse_example
        dataset = map_elements(dataset, lambda data: parse(data, features), buffers.calls)
    dataset = dataset.prefetch(buffers.prefetch_batches).with_options(choose_settings())
    dataset.position, dataset.damage = position, damage
    dataset.epoch_fingerprint = describe_order(files, options, buffers, steps)
    return dataset


def _read_payloads(
    files: RecordFiles, order: Order, steps: Steps, damage: DamageLog, listed: Array
) -> Array:
    """Reads the payloads, bytes (n,), of a row of `Position.begin`."""
    epoch, begin, end = listed.tolist()
    positions = steps.join_positions(range(begin, end))
    found = {}
    for index, _, payload in files.read_many(order.find_records(epoch, positions[positions >= 0])):
        if isinstance(payload, RecordError):
            damage.report(payload)
        else:
            found[index] = bytes(payload)
    if not found:
        raise DatasetError("not one record of a batch is whole: run shardmill index --overwrite")
    return np.array([found[index] for index in sorted(found)], np.object_)
