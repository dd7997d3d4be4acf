"""Builds a `keras.utils.PyDataset` from a plan: any batch of an epoch, by its number."""

import functools
from typing import Any

import keras
import tensorflow as tf

from converter.errors import ShardmillError, UsageError
from converter.sizes import format_count
from reader.arrays import Array
from reader.batches.batch import Ragged, format_batch
from reader.examples.columns import FilePaths
from reader.plan.read_plan import ReadPlan
from reader.records.damage import keep_error
from reader.tfdata.dataset import make_reader


class BatchSequence(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """The batches of an epoch: `sequence[7]` reads only that one, decoded as NumPy arrays.

    They are the batches of `ShardSet.dataset`; a shuffled order changes after each epoch.
    `model.fit` takes a sequence, with `workers` threads that read ahead, in an order of its own
    unless you pass `shuffle=False`. It begins with the epoch after the first one, as Keras ends an
    epoch when it has looked at a batch. `max_queue_size` defaults to what `max_ram` allows. You can
    copy and pickle a sequence.

    Attributes:
        class_names: in label order.
        file_paths: of the originals, in the order of an epoch without shuffling.
        epoch: the current epoch.

    Raises:
        UsageError: the plan has no batches or begins in the middle of an epoch, or
            `use_multiprocessing` is given.
    """

    def __init__(self, plan: ReadPlan, **loading: Any) -> None:
        if plan.options.batch_size is None:
            raise UsageError("a sequence is one of batches: give a batch_size")
        if plan.options.initial_step:
            raise UsageError("a sequence has no initial_step: take its batches from that number on")
        if loading.get("use_multiprocessing"):
            raise UsageError(
                "use_multiprocessing forks a process in which TensorFlow runs, which TensorFlow "
                "does not support: use workers, whose threads read and decode at the same time"
            )
        ahead = plan.buffers.calls + plan.buffers.prefetch_batches
        super().__init__(**{"max_queue_size": ahead} | loading)
        self.class_names: list[str] = plan.choice.class_names
        self.file_paths: FilePaths = plan.file_paths
        self.epoch = plan.options.initial_epoch
        self._plan = plan
        self._loading = loading
        self.reader = make_reader(plan)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy makes threads, scratch memory and graphs of its own; a cache is filled again.
        make = functools.partial(type(self), self._plan, **self._loading)
        return make, (), {"epoch": self.epoch}

    def __repr__(self) -> str:
        plan, options = self._plan, self._plan.options
        steps = f"{format_count(len(self), 'step')} of {options.batch_size}"
        shape = f"{plan.images.height}x{plan.images.width}x{plan.images.channels}"
        classes = f"; {format_count(len(self.class_names), 'class')}" if plan.has_classes else ""
        return f"BatchSequence({steps}; {shape} {options.dtype}{classes}; epoch {self.epoch})"

    def __len__(self) -> int:
        return self._plan.steps.count

    def __getitem__(self, index: int) -> Any:
        step = range(len(self))[index]
        try:
            batch = self.reader.read(self.epoch, [step])
        except ShardmillError as error:
            keep_error(error)  # `fit` shows only its text
            raise
        return tf.nest.map_structure(_to_numpy, format_batch(self._plan, batch))

    def on_epoch_end(self) -> None:
        self.epoch += 1


def _to_numpy(value: Array | Ragged) -> Any:
    if isinstance(value, Ragged):
        return tf.RaggedTensor.from_row_splits(value.values, value.splits).numpy()
    return value
