"""A Keras callback that resumes a killed training in the middle of an epoch."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from converter.errors import UsageError
from converter.sizes import format_count
from converter.storage.locate import expand_home
from reader.arrays import Array
from reader.tfdata.checkpoint import CheckpointFolder

EPOCH_DONE: Final = object()  # value of `stop_training` that ends only the epoch, not the training
# Types saved of a callback's attributes, besides lists of arrays such as the best weights.
PLAIN: Final = (bool, int, float, str, type(None), np.generic)
# Attributes that Keras derives again, with `monitor_op`: it turns the sign of this one.
DERIVED: Final = ("min_delta",)

_log = logging.getLogger("shardmill.reader")


class ResumeTraining(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Saves the state of a training, and resumes from it when `fit` is called again.

    After a restart come exactly the records that would have come. Run the same script again:

        train = load_dataset("photos-256", "train", seed=7)
        stopping = keras.callbacks.EarlyStopping(patience=3)
        resuming = ResumeTraining(train, "checkpoints", callbacks=[stopping])
        model.fit(train, epochs=20, callbacks=[stopping, resuming])

    It saves weights, optimizer, the seeds of layers such as Dropout, metrics in the middle of an
    epoch, the history that `fit` returns, and the state of the callbacks it is given. Random
    numbers drawn elsewhere, by `tf.random` or from Keras' global seed, start over. A training that
    was complete, or stopped by a callback, does nothing when you run it again.

    Without a checkpoint it begins at the `initial_epoch` and `initial_step` of `load_dataset`,
    whatever has been read of the data set before. It prints one line that says where it resumes, or
    that the training is complete. Put it last in the list, so that it saves what the others have
    decided.

    Args:
        dataset: the data for `fit`, with a seed; also the result of its `map`.
        folder: for the checkpoint; only one process may write there.
        every_steps: steps between checkpoints; each epoch ends with one too.
        callbacks: others of `fit` whose state is saved: attributes that are numbers, strings or
            lists of arrays.

    Raises:
        UsageError: `dataset` is not from shardmill, or is a sequence; `fit` reads other data, or is
            used in a way that cannot be resumed; or the checkpoint is of other data or options.
        DatasetError: the checkpoint is damaged, or does not fit the model.
    """

    def __init__(
        self,
        dataset: Any,
        folder: str | os.PathLike[str],
        every_steps: int = 500,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        super().__init__()
        if every_steps < 1:
            raise UsageError(f"every_steps {every_steps} is out of range: at least 1")
        source = _find_source(dataset)
        self._element_spec = dataset.element_spec
        self._position = source.position
        self._fingerprint = source.epoch_fingerprint
        self._steps = len(source)
        self._folder = expand_home(folder)
        self._checkpoint = CheckpointFolder(Path(self._folder))
        self._every_steps = every_steps
        self._callbacks = tuple(callbacks)
        self._begin = self._position.start
        self._is_read = False
        self._resumed: dict[str, Any] | None = None
        self._logs: list[tuple[int, dict[str, Any]]] = []
        self._fresh: list[dict[str, Any]] = []
        self._epoch = self._first_step = self._saved_step = 0

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        for callback in self._callbacks:
            if callback.model is not model:
                raise UsageError(
                    f"{type(callback).__name__} has to stand before ResumeTraining in the "
                    "callbacks of fit, which saves what it has decided"
                )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        del logs
        if self.params["steps"] != self._steps:
            raise UsageError(
                f"fit takes {self.params['steps']} steps an epoch, the data set has {self._steps}: "
                "give fit no steps_per_epoch, and data whose batches are not regrouped"
            )
        # Only before the first `fit`: later, callbacks already hold state that has to be saved.
        self._fresh = self._fresh or [_list_plain(callback) for callback in self._callbacks]
        self._logs, self._is_read = [], False
        self._begin = self._position.start
        self._resumed = self._checkpoint.read(self._fingerprint)
        if self._resumed is None:
            return
        self._build()
        self._restore(self._resumed)
        self._begin = (self._resumed["epoch"], self._resumed["step"])
        # As in `keras.callbacks.BackupAndRestore`. A training that was stopped gets no more epochs.
        first = sys.maxsize if self._resumed["stopped"] else self._resumed["epoch"]
        self.model._initial_epoch = first  # noqa: SLF001
        _tell(self._describe(self._resumed))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the data to the start of this epoch: Keras may have taken a batch before."""
        del logs
        # Keras has read it by now. An interrupted `fit` must not leave it to the next one.
        self.model._initial_epoch = None  # noqa: SLF001
        (begin, step), self._begin = self._begin, (0, 0)
        if begin != epoch and (begin or step):
            raise UsageError(
                f"fit begins with epoch {epoch}, its data with {begin}: give fit "
                f"initial_epoch={begin}"
            )
        self._epoch = epoch
        self._first_step = self._saved_step = step if begin == epoch else 0
        self._position.seek(epoch, self._first_step)
        if self._first_step and self._resumed is not None:
            # Once more, as Keras has reset the metrics, and other callbacks may have repeated what
            # they do at the beginning of an epoch, such as lowering the learning rate.
            self._restore(self._resumed)
        self._resumed = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        del logs
        if not self._is_read and self._position.epoch <= self._epoch:  # no iterator has taken it
            raise UsageError(
                "fit reads other data than ResumeTraining was given: give both the same data set"
            )
        self._is_read = True
        step = self._first_step + batch + 1
        if step >= self._steps:
            # A resumed epoch is shorter than Keras expects. It would ask for one more batch and may
            # run the part of that step that needs no data: the optimizer then counts a step too
            # many, and its next ones differ by 1e-5.
            if self._first_step and not self.model.stop_training:
                self.model.stop_training = EPOCH_DONE
        elif step - self._saved_step >= self._every_steps:
            self._save(self._epoch, step)
            self._saved_step = step

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.model.stop_training is EPOCH_DONE:
            self.model.stop_training = False
        self._logs.append((epoch, dict(logs or {})))
        self._save(epoch + 1, 0)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        del logs
        self.model._initial_epoch = None  # noqa: SLF001 (the next `fit` decides on its own)
        if (history := getattr(self.model, "history", None)) is None:
            return
        history.epoch = [epoch for epoch, _ in self._logs]
        history.history = {}
        for _, values in self._logs:
            for name, value in values.items():
                history.history.setdefault(name, []).append(value)

    def _describe(self, state: dict[str, Any]) -> str:
        epoch, step = state["epoch"], state["step"]
        done, again = format_count(epoch, "epoch"), f"remove {self._folder} to start over"
        if state["stopped"]:
            return f"complete: a callback stopped it after {done}; {again}"
        if epoch >= self.params["epochs"]:
            return (
                f"complete: {done} {'is' if epoch == 1 else 'are'} done; raise epochs, or {again}"
            )
        return f"resuming at epoch {epoch}, step {step} of {self._steps}, from {self._folder}"

    def _save(self, epoch: int, step: int) -> None:
        arrays = {
            f"variable-{number}": keras.ops.convert_to_numpy(variable)
            for number, variable in enumerate(_list_unsaved(self.model))
        }
        for number, callback in enumerate(self._callbacks):
            arrays |= {f"callback-{number}-{name}": array for name, array in _list_arrays(callback)}
        state = {
            "epoch": epoch,
            "step": step,
            "stopped": bool(self.model.stop_training),
            "data": self._fingerprint,
            "history": self._logs,
            # Not what you chose, such as patience: you may change that.
            "callbacks": [
                {key: value for key, value in _list_plain(one).items() if value != fresh.get(key)}
                for one, fresh in zip(self._callbacks, self._fresh, strict=True)
            ],
        }
        self._checkpoint.write(state, arrays, self.model.save_weights)

    def _build(self) -> None:
        # Creates all variables, which Keras otherwise does at the first batch.
        model = self.model
        metrics = model._compile_metrics  # noqa: SLF001
        if not model.built or (metrics is not None and not metrics.built):
            # What Keras does itself under a `tf.distribute.Strategy`.
            model._symbolic_build(data_batch=self._element_spec)  # noqa: SLF001
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)

    def _restore(self, state: dict[str, Any]) -> None:
        self._checkpoint.load_weights(state, self._load_weights)
        arrays = self._checkpoint.read_arrays(state)
        variables = _list_unsaved(self.model)
        saved = [name for name in arrays if name.startswith("variable-")]
        if len(saved) != len(variables) or len(state["callbacks"]) != len(self._callbacks):
            raise UsageError(
                f"the checkpoint has {len(saved)} variables of metrics and seeds and "
                f"{len(state['callbacks'])} callbacks, this training {len(variables)} and "
                f"{len(self._callbacks)}: use the same, or another folder"
            )
        for number, variable in enumerate(variables):
            variable.assign(arrays[f"variable-{number}"])
        self._logs = list(state["history"])
        for number, callback in enumerate(self._callbacks):
            _set_state(callback, state["callbacks"][number], arrays, f"callback-{number}-")

    def _load_weights(self, path: Path) -> None:
        with warnings.catch_warnings():
            # Of another optimizer, Keras takes what fits and warns.
            warnings.filterwarnings("error", message=r"Skipping variable loading|A total of")
            self.model.load_weights(path)


def _tell(line: str) -> None:
    _log.info(line)
    if keras.config.is_interactive_logging_enabled():  # where Keras prints lines of its own
        encoding = sys.stdout.encoding or "utf-8"
        print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _find_source(dataset: Any) -> Any:
    """Finds the data set of shardmill from which another was made."""
    if isinstance(dataset, keras.utils.PyDataset):
        raise UsageError(
            f"ResumeTraining takes no {type(dataset).__name__}, as Keras chooses the order of its "
            "batches: give it, and fit, what load_dataset gives"
        )
    while not hasattr(dataset, "epoch_fingerprint"):
        inputs = dataset._inputs() if hasattr(dataset, "_inputs") else []  # noqa: SLF001
        if len(inputs) != 1:
            raise UsageError(
                f"ResumeTraining takes what load_dataset gives, or `map` makes of it, not "
                f"{type(dataset).__name__}"
            )
        dataset = inputs[0]
    return dataset


def _list_unsaved(model: keras.Model) -> list[keras.Variable]:
    """Lists what `save_weights` leaves out: metrics, and the seeds of random layers."""
    weights = {id(weight) for weight in model.weights}
    variables = {id(variable): variable for variable in model.variables}
    variables |= {id(variable): variable for variable in model.metrics_variables}
    return [variable for key, variable in variables.items() if key not in weights]


def _list_plain(callback: keras.callbacks.Callback) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(callback).items()
        if isinstance(value, PLAIN) and name not in DERIVED
    }


def _list_arrays(callback: keras.callbacks.Callback) -> Iterator[tuple[str, Array]]:
    for name, value in vars(callback).items():
        if isinstance(value, list) and all(isinstance(item, np.ndarray) for item in value):
            yield from ((f"{name}-{place}", array) for place, array in enumerate(value))


def _set_state(
    callback: keras.callbacks.Callback, plain: dict[str, Any], arrays: dict[str, Array], prefix: str
) -> None:
    lists: dict[str, list[Array]] = {}
    for key, array in arrays.items():  # in the order in which they were listed
        if key.startswith(prefix):
            name, _, _ = key.removeprefix(prefix).rpartition("-")
            lists.setdefault(name, []).append(array)
    known = vars(callback)
    known.update({name: value for name, value in {**plain, **lists}.items() if name in known})
