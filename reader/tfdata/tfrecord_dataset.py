"""Builds a `tf.data.Dataset` of arbitrary records: read by index, parsed in whole batches."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from converter.errors import DatasetError, RecordError, UsageError
from reader.arrays import Array
from reader.plan.fingerprint import describe_order
from reader.plan.memory import Demand, divide_memory
from reader.plan.read_options import ReadOptions
from reader.plan.read_plan import choose_order, plan_steps, resolve_options
from reader.plan.sizing import SINGLES, count_cores, measure_files
from reader.records.damage import DamageLog
from reader.records.record_files import RecordFiles
from reader.sampling.orders import Order
from reader.sampling.position import Position
from reader.sampling.selection import select_all
from reader.sampling.steps import Steps
from reader.tfdata.pipeline import call_python, choose_settings, map_elements, read_steps


def make_dataset(
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
