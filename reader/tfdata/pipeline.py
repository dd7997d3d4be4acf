"""What every `tf.data` pipeline here is made of: its steps, its calls of Python, its settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import tensorflow as tf

from converter.errors import ShardmillError
from reader.arrays import Array
from reader.plan.sizing import count_cores
from reader.records.damage import keep_error
from reader.sampling.position import Position

Columns: TypeAlias = list[tf.Tensor]

_NO_ERROR: Final = np.array(b"", np.object_)  # TensorFlow takes 50 us to convert a plain ""

# What AutoGraph rewrites goes into files in the system's temporary folder, eleven for a dataset,
# which a process that is killed leaves there.
leave_alone: Final = tf.autograph.experimental.do_not_convert


def count_steps(position: Position, count: int) -> tf.data.Dataset:
    """The places of one epoch's steps, int64 (3,): epoch, its first step, step.

    Every iterator takes an epoch of its own. The number of elements is known beforehand, which
    Keras' progress and `len` rely on: it is that of a whole epoch, also if the first one is entered
    in its middle.

    Args:
        position: where the first one begins.
        count: steps of an epoch.
    """

    def enter(begun: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def ask() -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(position.begin, [], tf.int64), (2,))

        begun = tf.cond(begun[0] < 0, ask, lambda: begun)
        return begun, tf.concat([begun, step[None]], 0)

    def leave_out(place: tf.Tensor) -> tf.Tensor:
        here = place[None][: tf.cast(place[2] >= place[1], tf.int32)]
        # The shape claims one step, also where there is none because it was done before. So
        # `unbatch` knows the number of elements, which `filter` does not.
        here.set_shape([1, 3])
        return here

    steps = tf.data.Dataset.range(count).scan(tf.constant([-1, 0], tf.int64), leave_alone(enter))
    return map_elements(steps, leave_out).unbatch()


def map_elements(
    dataset: tf.data.Dataset, function: Callable[..., Any], calls: int = 1
) -> tf.data.Dataset:
    """Applies a function to all elements in order, to `calls` of them at the same time."""
    return dataset.map(leave_alone(function), calls, deterministic=True)


def call_python(
    function: Callable[..., Any], inputs: Sequence[tf.Tensor], types: Sequence[tf.DType]
) -> Columns:
    """Calls Python in a graph; what it gives depends on the inputs alone.

    Arrays are handed over without a copy, in both directions. An error of ours is handed over as
    its text and raised by TensorFlow: raised in Python, it would be shown with a traceback, 700
    letters more.
    """

    def call(*arrays: Array) -> list[Any]:
        try:
            given = function(*arrays)
        except ShardmillError as error:
            return [*(np.zeros(0, kind.as_numpy_dtype) for kind in types), keep_error(error)]
        return [*(given if isinstance(given, list | tuple) else [given]), _NO_ERROR]

    *columns, error = tf.numpy_function(call, inputs, [*types, tf.string], stateful=False)
    with tf.control_dependencies([tf.raw_ops.Assert(condition=tf.equal(error, ""), data=[error])]):
        return [tf.identity(column) for column in columns]


def choose_settings() -> tf.data.Options:
    """Keeps TensorFlow from adding buffers and threads of its own."""
    settings = tf.data.Options()
    # TensorFlow would add a prefetch of its own, of a size that `max_ram` does not count.
    settings.experimental_optimization.inject_prefetch = False
    # With it, every other epoch decoded on one of two cores alone (1,950 instead of 3,700/s).
    settings.autotune.enabled = False
    settings.deterministic = True
    # As many threads as cores, and not those of the model.
    settings.threading.private_threadpool_size = count_cores()
    # Which records are read here is decided already; nothing is left to be divided.
    policy = tf.data.experimental.AutoShardPolicy.OFF
    settings.experimental_distribute.auto_shard_policy = policy
    return settings
