"""What `ReadOptions` takes and refuses."""

import dataclasses
import re

import numpy as np
import pytest

from converter import UsageError
from reader import ReadOptions
from reader.plan.read_options import ALLOWED


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


@pytest.mark.parametrize("image_size", [(16,), (16, 20, 3), "16", (16.0, 20), (True, 4), 16.0])
def test_an_image_size_that_is_not_height_and_width_is_refused(image_size):
    with pytest.raises(
        UsageError, match=f"^image_size {re.escape(repr(image_size))} is not a pair"
    ):
        ReadOptions(image_size=image_size)


@pytest.mark.parametrize(
    "random_crop",
    [(0.5, 0.2), (0, 1), (0.5, 1.1), (0.5,), (0.1, 0.2, 0.3), 0.5, "ab", (True, True)],
)
def test_what_is_no_pair_of_shares_is_refused(random_crop):
    with pytest.raises(
        UsageError, match=f"^random_crop {re.escape(repr(random_crop))} is out of range"
    ):
        ReadOptions(random_crop=random_crop)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": 5}, "labels 5 is not a list of whole numbers"),
        ({"labels": ["a", "b"]}, "labels ['a', 'b'] is not a list of whole numbers"),
        ({"labels": [0.0, 1.0]}, "labels [0.0, 1.0] is not a list of whole numbers"),
        ({"labels": [0, 2**31]}, "a label 2147483648 is out of range: -2147483648 to 2147483647"),
        ({"class_names": "ab"}, "class_names 'ab' is not a list of names"),
        ({"class_names": 5}, "class_names 5 is not a list of names"),
        ({"batch_size": True}, "batch_size True is not a whole number"),
        ({"batch_size": 8.0}, "batch_size 8.0 is not a whole number"),
        ({"max_ram": None}, "max_ram None is not a whole number"),
        ({"initial_epoch": -1}, "initial_epoch -1 is out of range: at least 0"),
        ({"subset": "both"}, "subset 'both' is unknown: choose one of None, 'training', 'validati"),
    ],
)
def test_what_is_of_another_kind_is_refused(arguments, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        ReadOptions(**arguments)


def test_labels_and_classes_may_come_as_any_list_or_array():
    assert ReadOptions(labels=np.array([3, 1])).labels == (3, 1)
    assert ReadOptions(labels=range(3)).labels == (0, 1, 2)
    assert ReadOptions(class_names=["b", "a"]).class_names == ("b", "a")


@pytest.mark.parametrize(
    "arguments",
    [
        *({"label_mode": mode} for mode in ALLOWED["label_mode"]),
        *({"dtype": dtype} for dtype in ALLOWED["dtype"]),
        *({"interpolation": method} for method in ALLOWED["interpolation"]),
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
        ({"validation_split": 0.2}, "validation_split and subset go together"),
        ({"validation_split": 0.2, "subset": "training"}, "validation_split draws records with"),
        ({"validation_split": 1.0, "subset": "training", "seed": 1}, "validation_split 1.0 is out"),
        ({"shard_index": 2, "shard_count": 2}, "shard_index 2 is out of range: 0 to 1"),
        (
            {"validation_split": "a", "subset": "training", "seed": 1},
            "validation_split 'a' is out of range: above 0, below 1",
        ),
        (
            {"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": True},
            "crop_to_aspect_ratio and pad_to_aspect_ratio exclude each other",
        ),
        (
            {"random_crop": (0.5, 1.0), "pad_to_aspect_ratio": True},
            "random_crop chooses the part",
        ),
        ({"labels": [1], "class_names": ["a"]}, "class_names names the stored labels, which"),
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


def test_what_scripts_for_keras_and_numpy_give_is_taken():
    given = ReadOptions(
        batch_size=np.int64(4),
        image_size=np.array([9, 8]),
        class_names=np.array(["a", "b"]),
        cache=np.True_,
        with_filename=1,
        crop_to_aspect_ratio=0,
        seed=np.uint32(3),
    )
    assert given == ReadOptions(
        batch_size=4,
        image_size=(9, 8),
        class_names=["a", "b"],
        cache=True,
        with_filename=True,
        seed=3,
    )
    assert [type(value) for value in (given.batch_size, given.with_filename)] == [int, bool]
