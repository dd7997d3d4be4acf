"""What decides an epoch, noted so that a reading is only continued as the same."""

import json
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from conftest import convert_folder, write_image

from converter import ConvertOptions
from converter.format.indexing import index_files
from reader import ReadOptions, load_dataset, mix_datasets, open_shards, open_tfrecords
from reader.plan.planning import plan_reading
from reader.plan.read_plan import describe_plan

OPTIONS = ConvertOptions(image_size=(8, 10), encoding="png", num_shards=2)
READING = {"seed": 5, "batch_size": 4}
DIGESTS = ("data", "class_names")
CHANGES: list[dict[str, object]] = [
    {"seed": 6},
    {"batch_size": 5},
    {"batch_size": None},
    {"shuffle": "buffer"},
    {"shuffle": False},
    {"remainder": "drop"},
    {"shard_count": 2},
    {"shard_count": 2, "shard_index": 1},
    {"class_names": ["a"]},
    {"class_names": ["b", "a"]},
    {"labels": [0, 1] * 10, "order": "path"},
    {"labels": [1, 0] * 10, "order": "path"},
    {"validation_split": 0.5, "subset": "training"},
    {"validation_split": 0.5, "subset": "validation", "shuffle": True},
    {"validation_split": 0.45, "subset": "validation", "shuffle": True},
    {"image_size": (4, 4)},
    {"image_size": (4, 4), "interpolation": "nearest"},
    {"image_size": (4, 4), "crop_to_aspect_ratio": True},
    {"image_size": (4, 4), "pad_to_aspect_ratio": True},
    {"color_mode": "grayscale"},
    {"dtype": "uint8"},
    {"random_crop": (0.5, 1.0)},
    {"random_crop": (0.4, 1.0)},
    {"random_flip": True},
]


def write_set(root: Path, seeds: range) -> Path:
    """A data set of 2 classes, all of whose pixels are decided by `seeds`."""
    for number, seed in enumerate(seeds):
        write_image(root / "images" / "ab"[number % 2] / f"{number}.png", seed)
    convert_folder(root / "images", root / "set", OPTIONS)
    return root / "set"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("stored"), range(20))


def describe(folder: Path, split: str = "train", **arguments: object) -> dict[str, object]:
    manifest = open_shards(folder).manifest
    return describe_plan(plan_reading(folder, manifest, split, ReadOptions(**READING | arguments)))


def test_it_holds_the_choices_themselves_where_a_person_can_read_them(stored):
    found = describe(stored, random_crop=(0.5, 1.0))
    assert {name: value for name, value in found.items() if name not in DIGESTS} == {
        "seed": 5,
        "order": "exact",
        "window": 0,
        "records": 20,
        "batch_size": 4,
        "remainder": "keep",
        "shard_index": 0,
        "shard_count": 1,
        "mixture": None,
        "labels": None,
        "subset": None,
        "validation_split": None,
        "image_size": [8, 10],
        "color_mode": "rgb",
        "dtype": "float32",
        "interpolation": "bilinear",
        "crop_to_aspect_ratio": False,
        "pad_to_aspect_ratio": False,
        "random_crop": [0.5, 1.0],
        "random_flip": False,
    }  # fmt: skip
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_whatever_changes_the_records_or_their_pixels_shows(stored, change):
    assert describe(stored, **change) != describe(stored)


def test_no_two_choices_look_alike(stored):
    assert len({json.dumps(describe(stored, **change)) for change in CHANGES}) == len(CHANGES)


@pytest.mark.parametrize(
    "change",
    [
        {"label_mode": None},
        {"max_ram": "1GB"},
        {"on_damage": "skip"},
        {"data_format": "channels_first"},
        {"with_filename": True},
        {"cache": True},
        {"initial_epoch": 3, "initial_step": 2},
    ],
    ids=str,
)
def test_what_changes_neither_does_not_show(stored, change):
    assert describe(stored, **change) == describe(stored)


def test_the_memory_shows_where_it_decides_the_order(stored, monkeypatch):
    monkeypatch.setattr("reader.plan.memory.MAX_WINDOW_RECORDS", 8)
    small = describe(stored, shuffle="buffer")
    monkeypatch.setattr("reader.plan.memory.MAX_WINDOW_RECORDS", 16)
    assert describe(stored, shuffle="buffer") != small


def test_other_images_of_the_same_names_are_other_data(stored, tmp_path):
    other = write_set(tmp_path / "other", [*range(19), 77])
    found, expected = describe(other), describe(stored)
    assert found.pop("data") != expected.pop("data")
    assert found == expected
    moved = shutil.copytree(stored, tmp_path / "moved")
    assert describe(moved) == describe(stored)


def test_another_split_is_other_data(converted):
    assert describe(converted)["data"] != describe(converted, "validation")["data"]


def test_a_mixture_of_other_data_is_another(stored, tmp_path):
    sets = [write_set(tmp_path / name, range(60 + which, 120 + which))
            for which, name in enumerate(("x", "y", "z"))]  # fmt: skip
    prints = [
        mix_datasets(dict.fromkeys(chosen, 1), **READING).epoch_fingerprint
        for chosen in (sets[:2], sets[1:], sets[1::-1])
    ]
    assert len({json.dumps(one) for one in prints}) == 3
    assert prints[0] == mix_datasets(dict.fromkeys(sets[:2], 2), **READING).epoch_fingerprint


def test_a_dataset_carries_it(stored):
    assert load_dataset(stored, **READING).epoch_fingerprint == describe(stored)


def test_records_of_others_are_known_by_their_indexes(tmp_path):
    def write(name: str, sizes: list[int]) -> dict[str, object]:
        with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
            for size in sizes:
                writer.write(b"x" * size)
        index_files([tmp_path / name])
        return open_tfrecords(tmp_path / name).dataset(**READING).epoch_fingerprint

    first = write("a.tfrecord", [3, 4, 5])
    assert first == write("b.tfrecord", [3, 4, 5])
    assert first["records"] == 3
    second = write("c.tfrecord", [3, 5, 4])
    assert second.pop("data") != first.pop("data")
    assert second == first
