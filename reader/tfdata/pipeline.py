"""The parts of every `tf.data` pipeline here: steps, calls of Python, settings."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import tensorflow as tf

from converter.errors import ShardmillError, UsageError
from reader.arrays import Array
from reader.plan.memory import count_cores
from reader.records.damage import keep_error
from reader.sampling.steps import Position

Columns: TypeAlias = list[tf.Tensor]

_NO_ERROR: Final = np.array(b"", np.object_)  # TensorFlow takes 50 us to convert a plain ""

# After this time without a call none will come: TensorFlow's queues are full.
QUIET_S: Final = 0.05
PATIENCE_S: Final = 10.0  # limit for a thread that keeps calling


class Calls:
    """Keeps calls of Python by TensorFlow's threads from outliving the interpreter.

    A thread that waits for an ending interpreter never returns. TensorFlow waits for its calls when
    it deletes an iterator, so a script whose iterator was still alive at its end used to hang.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0
        self._changed_s = 0.0
        self._is_ending = False

    def __enter__(self) -> None:
        self._count(1)
        if self._is_ending:
            self._count(-1)
            self.check()

    def __exit__(self, *_: object) -> None:
        self._count(-1)

    def check(self) -> None:
        """Raises `UsageError` if the interpreter is ending."""
        if self._is_ending:
            raise UsageError("nothing is read any more: the interpreter ends")

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


def read_steps(
    call: Callable[[tf.Tensor], Any],
    position: Position,
    count: int,
    calls: int = 1,
    block: int | None = None,
) -> tf.data.Dataset:
    """Builds a dataset that calls a function with each row of `Position.begin`.

    Every iterator takes an epoch of its own. The number of elements, `count`, is that of a whole
    epoch, also if the first one starts in its middle: Keras' progress bar and `len` need to know it
    beforehand. `block` single records are read at once; it is None for batches.
    """

    def take_epoch() -> Array:
        _calls.check()
        return position.begin(count, block or 1)

    def begin(_: tf.Tensor) -> tf.Tensor:
        listed = tf.numpy_function(take_epoch, [], tf.int64)
        # Not true of every epoch, but from this `unbatch` knows the number of elements.
        listed.set_shape((max(1, -(-count // (block or 1))), 3))
        return listed

    # Steps are listed at once: counting in the graph took 11 ms an epoch and 0.06 ms a step.
    steps = map_elements(tf.data.Dataset.range(min(1, count)), begin).unbatch()
    dataset = map_elements(steps, call, calls)
    # `unbatch` assumes that the last block is full: `take` corrects the length.
    return dataset.unbatch().take(count) if block else dataset


def map_elements(
    dataset: tf.data.Dataset, function: Callable[..., Any], calls: int = 1
) -> tf.data.Dataset:
    """Applies a function to all elements in order, to `calls` of them in parallel."""
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
