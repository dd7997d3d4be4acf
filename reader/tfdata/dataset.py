"""Builds a `tf.data.Dataset`: of the engine's batches, or of arbitrary records in TFRecords."""

import atexit
import functools
import re
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import tensorflow as tf

from converter.errors import DatasetError, RecordError, ShardmillError, UsageError
from reader.arrays import Array
from reader.batches.batch import Ragged, format_batch
from reader.batches.batch_reader import BatchReader
from reader.batches.iterator import Reader, fill_cache
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
from reader.records.damage import DamageLog, keep_error, typed_errors
from reader.records.record_files import RecordFiles
from reader.sampling.orders import Order, Position, Steps, list_blocks, select_all
from reader.tfdata.placing import make_mask_placer, make_placer, make_resizer

Columns: TypeAlias = list[tf.Tensor]
_NO_ERROR: Final = np.array(b"", np.object_)  # TensorFlow takes 50 us to convert a plain ""

PART_BLOCKS: Final = 1 << 14  # rows of `list_blocks` that are listed at once

# After this time without a call none will come: TensorFlow's queues are full.
QUIET_S: Final = 0.05
PATIENCE_S: Final = 10.0  # limit for a thread that keeps calling


class Calls:
    """Keeps calls of Python by TensorFlow's threads from outliving the interpreter.

    Raises a `UsageError` in place of a call that comes too late.
    """

    # A thread that waits for an ending interpreter never returns. TensorFlow waits for its calls
    # when it deletes an iterator: a script whose iterator was still alive at its end used to hang.

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0
        self._changed_s = 0.0
        self._is_ending = False

    def __enter__(self) -> None:
        self._count(1)
        if self._is_ending:
            self._count(-1)
            raise UsageError("nothing is read any more: the interpreter ends")

    def __exit__(self, *_: object) -> None:
        self._count(-1)

    def end(self) -> None:
        """Refuses further calls, and waits for those in progress."""
        self._is_ending = True
        limit_s = time.monotonic() + PATIENCE_S
        while self._under_way or time.monotonic() < min(limit_s, self._changed_s + QUIET_S):
            time.sleep(QUIET_S / 10)

    def _count(self, change: int) -> None:
        with self._lock:
            self._under_way += change
            self._changed_s = time.monotonic()


_calls: Final = Calls()
atexit.register(_calls.end)

# AutoGraph would write eleven files per dataset to the system's temporary folder, and a killed
# process would leave them there.
leave_alone: Final = tf.autograph.experimental.do_not_convert


def make_dataset(plan: ReadPlan) -> tf.data.Dataset:
    """Builds the pipeline that `ShardSet.dataset` describes."""
    silence_keras(plan.options)
    reader = make_reader(plan)
    position = Position(plan.options.initial_epoch, plan.options.initial_step)
    block = plan.block_steps if plan.options.batch_size is None else None
    dataset = read_steps(_make_call(plan, reader), position, plan.steps.count, plan.calls, block)
    dataset = dataset.prefetch(plan.buffers.prefetch_batches)
    dataset = dataset.with_options(choose_settings(plan.calls))
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
    """Makes a graph function from a row of `list_blocks` to an element."""
    template = format_batch(plan, reader.read(plan.options.initial_epoch, []))
    types = [tf.as_dtype(array.dtype) for array in _expand(template)]

    def read(steps: Array) -> list[Array]:
        epoch, begin, end = steps.tolist()
        return _expand(format_batch(plan, reader.read(epoch, range(begin, end))))

    return lambda steps: _pack(plan, template, call_python(read, [steps], types))


def _expand(element: Any) -> list[Array]:
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
    silence_keras(options)
    measured = measure_files(files.files)
    demand = Demand(
        **measured,
        batch_size=options.batch_size or SINGLES,
        image_bytes=measured["record_bytes"],
        # Python's copy and TensorFlow's, while one becomes the other.
        staged_bytes=2 * measured["record_bytes"],
        shuffle=options.shuffle,
        cores=count_cores(),
    )
    buffers = divide_memory(options.max_ram_bytes, demand)
    files, order = choose_order(files, buffers, options, select_all(len(files)))
    steps = plan_steps(len(files), options)
    damage = DamageLog(options.on_damage, options.max_damaged)
    position = Position(options.initial_epoch, options.initial_step)
    single = options.batch_size is None
    size = SINGLES if single else options.batch_size if options.remainder == "drop" else None

    def call(listed: tf.Tensor) -> tf.Tensor:
        read = functools.partial(_read_payloads, files, order, steps, damage)
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
    """Reads the payloads, bytes (n,), of a row of `list_blocks`."""
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


def read_steps(
    call: Callable[[tf.Tensor], Any],
    position: Position,
    count: int,
    calls: int = 1,
    block: int | None = None,
) -> tf.data.Dataset:
    """Builds a dataset that calls a function with each row of `list_blocks`.

    Every iterator takes an epoch of its own. `count` is the number of elements of a whole epoch,
    also if the first one starts in its middle: Keras' progress bar and `len` need it beforehand.
    `block` single records are read at once; it is None for batches.
    """
    blocks = -(-count // (block or 1))

    size, listed = block or 1, min(max(1, blocks), PART_BLOCKS)

    def begin_part(place: Array) -> list[Array]:
        with _calls:
            epoch, step = position.take() if place[1] < 0 else place.tolist()
        return [np.array([epoch, step + listed * size]), np.array([epoch, step])]

    def scan(place: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        following, place = tf.numpy_function(begin_part, [place], [tf.int64, tf.int64])
        following.set_shape((2,))
        return following, place

    def list_part(place: Array) -> Array:
        epoch, step = place.tolist()
        return list_blocks(epoch, step, count, size, listed)

    def expand(place: tf.Tensor) -> tf.Tensor:
        rows = tf.numpy_function(list_part, [place], tf.int64)
        # Not true of every epoch, but from this `unbatch` knows the number of elements.
        rows.set_shape((listed, 3))
        return rows

    # Many steps are listed at once: counting in the graph took 11 ms an epoch and 0.06 ms a step.
    # Those of 100 million images, all at once, took 80 MB.
    nowhere = np.array([-1, -1], np.int64)
    parts = tf.data.Dataset.range(-(-blocks // listed)).scan(nowhere, leave_alone(scan))
    steps = map_elements(parts, expand).unbatch()
    if blocks > listed:
        steps = steps.take(blocks)
    dataset = map_elements(steps, call, calls)
    # `unbatch` assumes that the last block is full: `take` corrects the length.
    return dataset.unbatch().take(count) if block else dataset


def map_elements(
    dataset: tf.data.Dataset, function: Callable[..., Any], calls: int = 1
) -> tf.data.Dataset:
    """Applies a function to all elements in order, `calls` at the same time."""
    return dataset.map(leave_alone(function), calls, deterministic=True)


def call_python(
    function: Callable[..., Any], inputs: Sequence[tf.Tensor], types: Sequence[tf.DType]
) -> Columns:
    """Calls a pure Python function in a graph; arrays are passed without a copy, both ways."""

    # TensorFlow raises our errors from their text: raised in Python, they would be shown with a
    # traceback, 700 letters more.
    def call(*arrays: Array) -> list[Any]:
        try:
            with _calls:
                given = function(*arrays)
        except ShardmillError as error:
            return [*(np.zeros(0, kind.as_numpy_dtype) for kind in types), keep_error(error)]
        return [*(given if isinstance(given, list | tuple) else [given]), _NO_ERROR]

    *columns, error = tf.numpy_function(call, inputs, [*types, tf.string], stateful=False)
    with tf.control_dependencies([tf.raw_ops.Assert(condition=tf.equal(error, ""), data=[error])]):
        return [tf.identity(column) for column in columns]


def silence_keras(options: ReadOptions) -> None:
    """Keeps `fit` from warning, at every call, that it does not shuffle what is shuffled here.

    Keras warns of any `tf.data.Dataset` unless `shuffle=False` is passed, and cannot see into it.
    """
    if options.shuffle:
        text = (
            "`shuffle=True` was passed, but will be ignored since the data `x` was provided as a tf"
        )
        warnings.filterwarnings("ignore", re.escape(text), UserWarning)


def choose_settings(calls: int = 1) -> tf.data.Options:
    """Keeps TensorFlow from adding buffers and threads of its own, but those for `calls`."""
    settings = tf.data.Options()
    # TensorFlow would add a prefetch whose size `max_ram` does not count.
    settings.experimental_optimization.inject_prefetch = False
    # With it, every other epoch decoded on one of two cores alone (1,950 instead of 3,700/s).
    settings.autotune.enabled = False
    settings.deterministic = True
    # As many threads as cores, and not those of the model.
    settings.threading.private_threadpool_size = max(count_cores(), calls)
    # The plan has already divided the records among hosts.
    policy = tf.data.experimental.AutoShardPolicy.OFF
    settings.experimental_distribute.auto_shard_policy = policy
    return settings
