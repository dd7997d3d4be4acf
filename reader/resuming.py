"""Training that goes on where it was killed, in the middle of an epoch: a Keras callback."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from pathlib import Path
from typing import Any, Final

import keras

from converter.errors import DatasetError, UsageError

STATE: Final = "state.json"


class ResumeTraining(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Saves weights, optimizer and position, and goes on from there when `fit` is called again.

    The records that come after a restart are those that would have come: none is left out, none
    comes twice. The same script is simply run again:

        train = load_dataset("photos-256", "train", seed=7)
        model.fit(train, epochs=20, callbacks=[ResumeTraining(train, "checkpoints")])

    A checkpoint is complete or not there: it counts once `state.json`, which is replaced at once,
    names it. Averages that Keras shows of the resumed epoch begin anew.

    Args:
        dataset: what `fit` is given, or what that was made of by `map`; of a seed.
        folder: for the checkpoint.
        every_steps: saves after that many steps, and after each epoch.

    Raises:
        UsageError: there is a checkpoint of other data or options.
        DatasetError: the checkpoint is damaged.
    """

    def __init__(
        self, dataset: Any, folder: str | os.PathLike[str], every_steps: int = 500
    ) -> None:
        super().__init__()
        if every_steps < 1:
            raise UsageError(f"every_steps {every_steps} is out of range: at least 1")
        self._position = dataset.position
        self._fingerprint = dataset.fingerprint
        self._folder = Path(folder)
        self._every_steps = every_steps
        self._begin = (0, 0)
        self._epoch = self._first_step = self._saved_step = 0
        self._shown = contextlib.ExitStack()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restores the last checkpoint, if there is one."""
        del logs
        self._begin = (self._position.epoch, self._position.step)
        state = self._read_state()
        if state is None:
            return
        self._begin = (state["epoch"], state["step"])
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self.model.load_weights(self._folder / state["weights"])
        # What `keras.callbacks.BackupAndRestore` does.
        self.model._initial_epoch = state["epoch"]  # noqa: SLF001

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Lets the data begin where this epoch does; Keras may have looked at a batch before."""
        del logs
        resumed, step = self._begin
        self._epoch, self._first_step = epoch, step if epoch == resumed else 0
        self._saved_step = self._first_step
        self._position.seek(epoch, self._first_step)
        if self._first_step:
            # Keras warns that a whole epoch would have had more batches.
            self._shown.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="Your input ran out of data")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves if it is time."""
        del logs
        step = self._first_step + batch + 1
        if step - self._saved_step >= self._every_steps:
            self._save(self._epoch, step)
            self._saved_step = step

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves that the next epoch comes next."""
        del logs
        self._shown.close()
        self._save(epoch + 1, 0)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Lets the next call of `fit` decide on its epochs itself."""
        del logs
        self.model._initial_epoch = None  # noqa: SLF001

    def _save(self, epoch: int, step: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        weights = f"{epoch:06d}-{step:09d}.weights.h5"
        self.model.save_weights(self._folder / weights)
        state = {"epoch": epoch, "step": step, "weights": weights, "data": self._fingerprint}
        temporary = self._folder / f"{STATE}.new"
        with open(temporary, "w") as file:
            json.dump(state, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / STATE)
        for old in self._folder.glob("*-*.weights.h5"):
            if old.name != weights:
                old.unlink()

    def _read_state(self) -> dict[str, Any] | None:
        path = self._folder / STATE
        try:
            state: dict[str, Any] = json.loads(path.read_bytes())
            fingerprint = state["data"]
            found = {"epoch": int(state["epoch"]), "step": int(state["step"])}
            found["weights"] = os.path.basename(state["weights"])  # noqa: PTH119  # not out of it
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{path} is damaged: {error}; remove it to begin anew") from error
        for name, value in self._fingerprint.items():
            if fingerprint.get(name) != value:
                raise UsageError(
                    f"{path} is of a training with {name} {fingerprint.get(name)!r}, this one has "
                    f"{value!r}: use the same, or another folder"
                )
        return found
