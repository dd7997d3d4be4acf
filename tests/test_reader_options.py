"""What `ReadOptions` takes and refuses."""

import dataclasses
import re

import pytest

from converter import UsageError
from reader import ReadOptions
from reader.options import DTYPES, INTERPOLATIONS, LABEL_MODES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"label_mode": "onehot"},
            "label_mode 'onehot' is unknown: choose one of 'int', 'categorical', 'binary', None",
        ),
        ({"label_mode": ""}, "label_mode '' is unknown"),
        ({"dtype": "float16"}, "dtype 'float16' is unknown: choose one of 'float32', 'uint8'"),
        (
            {"interpolation": "cubic"},
            "interpolation 'cubic' is unknown: choose one of 'bilinear', 'nearest', 'bicubic', 'ar",
        ),
        ({"batch_size": 0}, "batch_size 0 is out of range: at least 1, or None"),
        ({"batch_size": -8}, "batch_size -8 is out of range: at least 1, or None"),
        ({"image_size": (0, 20)}, "image_size (0, 20) is out of range: 1 to 65535 pixels"),
        ({"image_size": (16, 65_536)}, "image_size (16, 65536) is out of range: 1 to 65535 pixels"),
        ({"seed": -1}, "seed -1 is out of range: 0 to 9223372036854775807"),
        ({"seed": 2**63}, "seed 9223372036854775808 is out of range: 0 to 9223372036854775807"),
    ],
)
def test_a_value_out_of_its_range_is_refused(arguments, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        ReadOptions(**arguments)


@pytest.mark.parametrize("image_size", [(16,), (16, 20, 3), "16"])
def test_an_image_size_that_is_not_height_and_width_is_refused(image_size):
    with pytest.raises(UsageError, match="image_size"):
        ReadOptions(image_size=image_size)


@pytest.mark.parametrize(
    "arguments",
    [
        *({"label_mode": mode} for mode in LABEL_MODES),
        *({"dtype": dtype} for dtype in DTYPES),
        *({"interpolation": method} for method in INTERPOLATIONS),
        {"batch_size": 1},
        {"batch_size": None},
        {"image_size": (1, 65_535)},
        {"seed": 0},
        {"seed": 2**63 - 1},
    ],
)
def test_the_ends_of_each_range_are_accepted(arguments):
    accepted = dataclasses.asdict(ReadOptions(**arguments))
    assert accepted == dataclasses.asdict(ReadOptions()) | arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"remainder": "drop", "on_damage": "skip"}, "on_damage 'skip' can make a batch smaller"),
        ({"cache": True, "random_flip": True}, "cache keeps decoded images"),
        ({"validation_split": 0.2}, "validation_split and subset take each other"),
        ({"validation_split": 0.2, "subset": "training"}, "validation_split draws records with"),
        ({"validation_split": 1.0, "subset": "training", "seed": 1}, "validation_split 1.0 is out"),
        ({"shard_index": 2, "shard_count": 2}, "shard_index 2 is out of range: 0 to 1"),
        ({"random_crop": (0.5, 0.2)}, "random_crop (0.5, 0.2) is out of range"),
        ({"shuffle": 1}, "shuffle 1 is unknown"),
        ({"max_ram": "lots"}, "'lots' is not a size"),
    ],
)
def test_what_contradicts_itself_is_refused(arguments, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        ReadOptions(**arguments)


def test_a_square_can_be_given_by_its_side():
    assert ReadOptions(image_size=16).image_size == (16, 16)


def test_options_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError, match="batch_size"):
        ReadOptions().batch_size = 64
