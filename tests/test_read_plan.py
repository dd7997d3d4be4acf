"""What is decided before the first record is read."""

import dataclasses
import re

import pytest
from conftest import convert_folder, write_image

from converter import ConvertOptions, UsageError
from reader import ReadOptions, open_shards
from reader.plan.planning import plan_reading
from reader.plan.read_plan import resolve_options
from reader.records.record_files import RunFiles
from reader.sampling.orders import SequentialOrder, ShuffledOrder, WindowedOrder

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="raw", num_shards=2)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """20 raw images in 2 classes."""
    root = tmp_path_factory.mktemp("raw")
    for seed in range(20):
        write_image(root / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    convert_folder(root / "images", root / "set", OPTIONS)
    return root / "set"


def make_plan(folder, split="train", **arguments):
    return plan_reading(folder, open_shards(folder).manifest, split, ReadOptions(**arguments))


@pytest.mark.parametrize(
    ("arguments", "split", "remote", "order"),
    [
        ({}, "train", False, "exact"),
        ({}, "train", True, "buffer"),
        ({}, "validation", False, False),
        ({}, "test", True, False),
        ({"shuffle": True}, "validation", False, "exact"),
        ({"shuffle": False}, "train", False, False),
        ({"shuffle": "buffer"}, "train", False, "buffer"),
        ({"shuffle": "exact"}, "test", True, "exact"),
        ({"subset": "training"}, "test", False, "exact"),
        ({"subset": "validation"}, "train", False, False),
        ({"subset": "validation", "shuffle": True}, "train", False, "exact"),
    ],
)
def test_the_order_is_chosen_by_split_subset_and_storage(arguments, split, remote, order):
    if "subset" in arguments:
        arguments = arguments | {"validation_split": 0.5}
    options = ReadOptions(seed=5, **arguments)
    resolved = resolve_options(options, split, remote=remote)
    assert (resolved.shuffle, resolved.seed) == (order, 5)


def test_without_a_seed_one_is_drawn():
    seeds = {resolve_options(ReadOptions(), "train", remote=False).seed for _ in range(4)}
    assert len(seeds) == 4
    assert all(seed is not None and 0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    "arguments",
    [
        {"initial_step": 1},
        {"initial_epoch": 1},
        {"shard_count": 2},
        {"shuffle": False, "random_flip": True, "shard_count": 2},
    ],
)
def test_what_others_have_to_repeat_takes_a_seed(arguments):
    with pytest.raises(UsageError, match=r"seed of|all of"):
        resolve_options(ReadOptions(**arguments), "train", remote=False)
    resolve_options(ReadOptions(**arguments, seed=0), "train", remote=False)


@pytest.mark.parametrize(
    ("shuffle", "order", "files"),
    [
        (False, SequentialOrder, False),
        ("exact", ShuffledOrder, False),
        ("buffer", WindowedOrder, 1),
    ],
)
def test_an_order_is_read_as_suits_it(raw, shuffle, order, files):
    plan = make_plan(raw, shuffle=shuffle)
    assert isinstance(plan.order, order)
    assert isinstance(plan.files, RunFiles) == bool(files)
    assert bool(plan.buffers.window) == bool(files)


@pytest.mark.parametrize(
    ("arguments", "is_direct", "is_resized", "decoded_dtype"),
    [
        ({}, True, False, "uint8"),
        ({"data_format": "channels_first"}, True, False, "uint8"),
        ({"image_size": (16, 20)}, True, False, "uint8"),
        ({"image_size": (16, 21)}, False, True, "float32"),
        ({"image_size": (16, 21), "dtype": "uint8"}, False, True, "uint8"),
        ({"batch_size": None}, True, False, "uint8"),
        ({"color_mode": "grayscale"}, False, False, "uint8"),
        ({"random_flip": True}, False, False, "uint8"),
        ({"random_crop": (0.5, 1.0)}, False, True, "float32"),
    ],
)
def test_what_is_stored_as_it_is_wanted_needs_no_decoder(
    raw, converted, arguments, is_direct, is_resized, decoded_dtype
):
    plan = make_plan(raw, **arguments)
    assert (plan.is_direct, plan.images.is_resized) == (is_direct, is_resized)
    assert plan.images.decoded_dtype == decoded_dtype
    assert not make_plan(converted, **arguments).is_direct


def test_paths_are_in_the_order_of_an_epoch_that_is_not_shuffled(raw):
    source = open_shards(raw).source("train")
    stored = [record.source_id for record in source]
    assert make_plan(raw).file_paths == stored
    chosen = make_plan(raw, class_names=["b"]).file_paths
    assert chosen == [path for path in stored if path.startswith("b/")]
    assert (chosen[-1], chosen[2:4], len(chosen)) == (list(chosen)[-1], list(chosen)[2:4], 10)


def test_a_plan_reads_no_record_unless_it_has_to(raw, tmp_path, monkeypatch):
    monkeypatch.setattr("os.open", None)
    make_plan(raw, validation_split=0.5, subset="training", seed=1)
    make_plan(raw, class_names=["b", "a"], seed=1)
    with pytest.raises(TypeError):
        make_plan(raw, class_names=["b"])


def test_options_are_not_touched_by_a_plan(raw):
    options = ReadOptions(batch_size=4)
    before = dataclasses.replace(options)
    plan_reading(raw, open_shards(raw).manifest, "train", options)
    assert options == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"batch_size": 8, "shard_count": 3, "seed": 1, "shard_index": 2, "initial_step": 2},
            "initial_step 2 is out of range: an epoch has 1 steps",
        ),
        (
            {"batch_size": 1, "shard_count": 3, "seed": 1},
            "remainder 'keep' would leave a host without a record in a step: 20 records in batches "
            "of 1 on 3 hosts; choose 'drop' or 'pad'",
        ),
        (
            {"labels": [0, 1], "order": "path"},
            "labels has 2 entries for 20 records: give one for each, in the order of the "
            "originals' paths",
        ),
        ({"class_names": ["c"]}, "class_names: 'c' is none of the classes: there are a, b"),
        (
            {"class_names": ["a"], "label_mode": "binary"},
            "label_mode 'binary' takes 2 classes, this data set has 1: use 'int' or 'categorical'",
        ),
    ],
)
def test_what_does_not_fit_the_data_set_is_refused(raw, arguments, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        make_plan(raw, **arguments)
