"""A Keras callback that says whether a training waits for its data: `InputStats`."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import keras
import tensorflow as tf

from converter.errors import UsageError
from reader.batches.input_clock import InputClock, InputUse, count_images, describe_use, join_uses

T = TypeVar("T")

_END: Final = (StopIteration, tf.errors.OutOfRangeError)
_log = logging.getLogger("shardmill.reader")


class InputStats(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Measures how long the steps of a training wait for data, and says so after each epoch.

        stats = InputStats()
        model.fit(train, epochs=3, callbacks=[stats])
        stats.epochs[-1].wait_share     # 0.02: the model is busy for 98 % of the time

    With Keras it takes each batch from the iterator just before the step, and measures that. The
    step itself is the same, to the bit; with `steps_per_execution`, steps are still taken one by
    one. In a loop of your own:

        for images, labels in stats.watch(train):
            ...

    or `with stats.wait(): batch = next(iterator)`, and `stats.end_epoch()` after the last one.

    What is prefetched while a step computes costs no time, and does not count. In `fit`, each step
    is waited for, so that a GPU never computes while the wait for data is measured; this costs a
    little speed. In a loop of your own, a GPU may still compute then, unless you read a result of
    each step: the share is the most that waiting can cost. Validation does not count, nor does the
    very first step, in which graphs are built.

    Args:
        verbose: print a line after each epoch, where Keras prints lines of its own.

    Attributes:
        epochs: an `InputUse` for each epoch: `wait_share`, `images_per_second`, `memory_bytes`,
            `peak_bytes` and more. `fit` also gets `input_wait_share` and `images_per_second` in
            its logs and its history.

    Raises:
        UsageError: Keras does not run on TensorFlow, where `watch` works with any framework; or
            there are two of them in one `fit`.
    """

    def __init__(self, verbose: bool = True) -> None:  # noqa: FBT001, FBT002 (as Keras has it)
        super().__init__()
        self._verbose = verbose
        self._clock = InputClock()
        self._line = ""
        self._images: int | None = None  # of the step that has begun
        self._batches = 0
        self._is_new = True

    @property
    def epochs(self) -> list[InputUse]:
        return self._clock.epochs

    @property
    def total(self) -> InputUse:
        """All epochs together."""
        return join_uses(self.epochs)

    @property
    def wait_share(self) -> float:
        """The share of all epochs' time that steps waited for data, 0 to 1."""
        return self.total.wait_share

    @contextlib.contextmanager
    def wait(self, images: int = 0) -> Iterator[None]:
        """Counts the time in its block as waiting for a batch of so many images.

        What follows, up to the next block or `end_epoch`, is the step.
        """
        self._end_step()
        with self._clock.wait():
            yield
        self._images, self._batches = images, 1

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """Yields the batches of one epoch of your loop; what you do between them is the step."""
        try:
            yield from self._clock.watch(batches)
        finally:
            self.end_epoch()

    def end_epoch(self) -> InputUse:
        """Ends an epoch of your loop, and prints its line."""
        self._end_step()
        use = self._clock.end_epoch()
        self._line = describe_use(len(self.epochs) - 1, self.epochs)
        self._print()
        return use

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        del logs
        if (backend := keras.backend.backend()) != "tensorflow":
            raise UsageError(
                f"InputStats measures fit on TensorFlow, and Keras runs on {backend}: write a loop "
                "with stats.watch(…)"
            )
        self._clock, self._images, self._batches = InputClock(), None, 0
        step = self.model.train_function
        if isinstance(step, _Measured):  # an interrupted `fit` left it behind
            if step.params is self.params:  # Keras makes them for each `fit`
                raise UsageError("there are two InputStats in one fit: leave one of them out")
            step = step.unmeasured
        self.model.train_function = _Measured(self, step)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        del epoch, logs
        self._print()  # now that Keras has ended the line of its bar
        self._clock.begin_epoch()
        self._is_new = True

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        del batch, logs
        if self._is_new:  # Keras has made an iterator, which may have started threads
            self._clock.count_waiting()
            self._is_new = False

    # With this method, Keras waits for the metrics of each step: so a GPU is done with it.
    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        del batch, logs
        self._end_step()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        use = self._clock.end_epoch()
        self._line = describe_use(epoch, self.epochs)
        if logs is not None:
            logs["input_wait_share"] = use.wait_share
            logs["images_per_second"] = use.images_per_second

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        del logs
        self._print()
        if isinstance(self.model.train_function, _Measured):
            self.model.train_function = self.model.train_function.unmeasured

    def take(self, iterator: Any) -> Any:
        """The next batch of an iterator; what `fit` does before each step."""
        with self._clock.wait():
            batch = next(iterator)
        self._images = (self._images or 0) + count_images(batch)
        self._batches += 1
        return batch

    def _end_step(self) -> None:
        if self._images is not None:
            self._clock.end_step(self._images, self._batches)
        self._images, self._batches = None, 0

    def _print(self) -> None:
        line, self._line = self._line, ""
        if line:
            _log.info(line)
            if self._verbose and keras.config.is_interactive_logging_enabled():
                print(line, flush=True)


class _Measured:
    """A train function of Keras that takes each batch before it calls a graph for the step."""

    def __init__(self, stats: InputStats, unmeasured: Callable[[Any], Any]) -> None:
        self.unmeasured = unmeasured
        self._stats, self._model = stats, stats.model
        self.params = stats.params
        self._run: Callable[[Any], Any] | None = None

    def __call__(self, iterator: Any) -> Any:
        outputs = None
        for step in range(self._model.steps_per_execution):
            try:
                batch = self._stats.take(iterator)
            except _END:
                if step == 0:
                    raise StopIteration from None
                break
            self._run = self._run or self._make_run(iterator.element_spec)
            outputs = self._run(batch)
        return outputs

    def _make_run(self, spec: Any) -> Callable[[Any], Any]:
        # Keras' function takes any iterator, and then makes steps one by one.
        def run(batch: Any) -> Any:
            return self.unmeasured(iter([batch]))

        # With the shapes of all batches: a smaller last one would trace the model again.
        if self._model.run_eagerly:
            return run
        graph: Callable[[Any], Any] = tf.function(run, input_signature=[spec], autograph=False)
        return graph
