"""The state of a training on disk: complete or absent, whenever the process dies."""

import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from converter.errors import DatasetError, UsageError
from converter.storage.disk import DiskPath
from reader.arrays import Array
from reader.plan.read_plan import find_difference

STATE: Final = "state.json"
VERSION: Final = 1
_OURS: Final = re.compile(r"\d{6,}-\d{9,}\.(weights\.h5|npz)")


class CheckpointFolder:
    """Holds the latest checkpoint of a training.

    A checkpoint is a file of weights and one of further arrays, named by its position, and
    `state.json`, which is replaced atomically. The previous checkpoint counts until then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = folder / STATE

    def write(
        self, state: Mapping[str, Any], arrays: Mapping[str, Array], save: Callable[[Path], object]
    ) -> None:
        """Saves a checkpoint, its weights with `save`, and removes the previous one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = _name_files(state["epoch"], state["step"])
        weights, others = (self._folder / f"{name}.{kind}" for kind in ("weights.h5", "npz"))
        save(weights)
        columns: dict[str, Any] = {
            # bfloat16, which NumPy does not know, becomes float32, which holds the same numbers.
            key: array.astype(np.float32) if array.dtype.kind == "V" else array
            for key, array in arrays.items()
        }
        np.savez(others, **columns)
        temporary, plain = self._folder / f"{STATE}.new", {"version": VERSION, **state}
        temporary.write_text(json.dumps(plain, indent=1, default=lambda value: value.tolist()))
        for path in (weights, others, temporary):
            DiskPath(path).sync()
        temporary.replace(self._state)
        DiskPath(self._folder).sync()
        for path in self._folder.iterdir():
            if _OURS.fullmatch(path.name) and path not in (weights, others):
                path.unlink()

    def read(self, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns the last state, or None; a `UsageError` if its fingerprint is another one."""
        try:
            state: dict[str, Any] = json.loads(self._state.read_bytes())
            if (version := state["version"]) != VERSION:
                raise UsageError(
                    f"{self._state} has version {version!r}, this shardmill reads {VERSION}: "
                    "remove it to start over"
                )
            state = _parse(state)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise self._describe_damage(error) from error
        if name := find_difference(state["data"], fingerprint):
            raise UsageError(
                f"{self._state} is of a training with {name} {state['data'].get(name)!r}, this one "
                f"has {fingerprint.get(name)!r}: use the same, or another folder"
            )
        return state

    def load_weights(self, state: Mapping[str, Any], load: Callable[[Path], object]) -> None:
        """Calls `load` with the path of the weights; raises a `DatasetError` if it fails."""
        path = self._folder / f"{state['name']}.weights.h5"
        try:
            load(path)
        # h5py and Keras raise errors of many types.
        except Exception as error:
            raise DatasetError(
                f"{path} does not fit this model and optimizer, or is damaged: use those it was "
                f"saved with, or remove {STATE} to start over: {_first_line(error)}"
            ) from error

    def read_arrays(self, state: Mapping[str, Any]) -> dict[str, Array]:
        """Returns a state's arrays, by name; raises a `DatasetError` if they are damaged."""
        try:
            with open(self._folder / f"{state['name']}.npz", "rb") as file:
                return dict(np.load(file))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise self._describe_damage(error) from error

    def _describe_damage(self, error: Exception) -> DatasetError:
        return DatasetError(
            f"{self._state} is damaged: {_first_line(error)}; remove it to start over"
        )


def _parse(state: dict[str, Any]) -> dict[str, Any]:
    epoch, step = int(state["epoch"]), int(state["step"])
    return {
        "epoch": epoch,
        "step": step,
        "name": _name_files(epoch, step),
        "stopped": bool(state["stopped"]),
        "data": dict(state["data"]),
        "history": [(int(number), dict(logs)) for number, logs in state["history"]],
        "callbacks": [dict(kept) for kept in state["callbacks"]],
    }


def _name_files(epoch: int, step: int) -> str:
    return f"{epoch:06d}-{step:09d}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
