"""The state of a training on disk: all of it, or that of before."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from converter import DatasetError, UsageError
from reader.tfdata.checkpoint import STATE, CheckpointFolder

FINGERPRINT = {"seed": 7, "image_size": [8, 10], "mixture": None}


def make_state(epoch: int, step: int) -> dict[str, object]:
    return {
        "epoch": epoch,
        "step": step,
        "stopped": False,
        "data": FINGERPRINT,
        "history": [(0, {"loss": np.float32(0.1), "rates": np.arange(2)})],
        "callbacks": [{"best": float("inf"), "wait": 3}],
    }


def write(folder: Path, epoch: int, step: int, **arrays: np.ndarray) -> CheckpointFolder:
    checkpoint = CheckpointFolder(folder)
    checkpoint.write(make_state(epoch, step), arrays, lambda path: path.write_text("weights"))
    return checkpoint


def test_what_was_written_is_read(tmp_path):
    arrays = {
        "seeds": np.array([2**32 - 1, 7], np.uint32),
        "half": np.array([0.1, 3e38], ml_dtypes.bfloat16),
        "nothing": np.zeros((0, 3)),
    }
    checkpoint = write(tmp_path / "new" / "folder", 3, 120, **arrays)
    state = checkpoint.read(FINGERPRINT)
    assert state == {
        **make_state(3, 120),
        "name": "000003-000000120",
        "history": [(0, {"loss": float(np.float32(0.1)), "rates": [0, 1]})],
    }
    found = checkpoint.read_arrays(state)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        # A type of no name in NumPy comes back as one that holds the same numbers.
        np.testing.assert_array_equal(found[name], array.astype(found[name].dtype))
    assert (found["seeds"].dtype, found["half"].dtype) == (np.uint32, np.float32)
    read = []
    checkpoint.load_weights(state, lambda path: read.append(path.read_text()))
    assert read == ["weights"]


def test_there_is_none_before_the_first(tmp_path):
    assert CheckpointFolder(tmp_path).read(FINGERPRINT) is None
    assert CheckpointFolder(tmp_path / "missing").read(FINGERPRINT) is None


def test_only_the_last_one_is_kept(tmp_path):
    for position in ((0, 5), (0, 1_000_000_000), (1, 0), (12_345_678, 9)):
        write(tmp_path, *position)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["12345678-000000009.npz", "12345678-000000009.weights.h5", STATE]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (FINGERPRINT | {"seed": 8}, "seed 7, this one has 8"),
        (FINGERPRINT | {"new": 1}, "new None, this one has 1"),
        ({"seed": 7, "image_size": [8, 10]} | {"mixture": [[3, 4]]}, "mixture None, this one has "),
        ({"seed": 7}, "image_size [8, 10], this one has None"),
    ],
)
def test_whatever_is_not_the_same_on_both_sides_is_refused(tmp_path, wanted, message):
    checkpoint = write(tmp_path, 0, 1)
    with pytest.raises(UsageError) as caught:
        checkpoint.read(wanted)
    assert f"{STATE} is of a training with {message}" in str(caught.value)


def test_a_state_leads_to_no_other_folder(tmp_path):
    checkpoint = write(tmp_path / "one", 0, 1)
    for changes in ({"epoch": "../2"}, {"step": "1/../../2"}, {"epoch": None}):
        state = json.loads((tmp_path / "one" / STATE).read_bytes())
        (tmp_path / "one" / STATE).write_text(json.dumps(state | changes))
        with pytest.raises(DatasetError, match=r"is damaged: .*; remove it"):
            checkpoint.read(FINGERPRINT)


def test_arrays_that_only_a_pickle_could_hold_are_damage(tmp_path):
    checkpoint = write(tmp_path, 0, 1)
    np.savez(tmp_path / "000000-000000001.npz", evil=np.array([{"a": 1}], object))
    state = checkpoint.read(FINGERPRINT)
    with pytest.raises(DatasetError, match=r"state\.json is damaged: Object"):
        checkpoint.read_arrays(state)
