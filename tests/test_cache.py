"""`cache=True`: the same batches, decoded once."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import convert_folder, write_image

from converter import ConvertOptions, RecordError, UsageError
from reader import load_dataset, open_shards

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=2)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """11 images in 2 classes, once as PNG and once raw."""
    root = tmp_path_factory.mktemp("cached")
    for seed in range(11):
        write_image(root / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    for encoding in ("png", "raw"):
        options = dataclasses.replace(OPTIONS, encoding=encoding)
        convert_folder(root / "images", root / encoding, options)
    return root


def read_steps(dataset: tf.data.Dataset) -> list[list[object]]:
    return [[column.tolist() for column in element] for element in dataset.as_numpy_iterator()]


def spoil(folder: Path) -> None:
    """Flips a bit of the first record."""
    shard = min(folder.glob("*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)


@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [
        ("png", {}),
        ("raw", {}),
        ("png", {"shuffle": "buffer", "remainder": "pad"}),
        ("png", {"remainder": "drop", "dtype": "uint8", "data_format": "channels_first"}),
        ("raw", {"remainder": "drop", "dtype": "uint8", "data_format": "channels_first"}),
        ("raw", {"image_size": (9, 7), "color_mode": "grayscale", "label_mode": "categorical"}),
        ("png", {"image_size": (9, 7), "dtype": "uint8", "remainder": "pad", "shuffle": False}),
        ("png", {"class_names": ["b"], "data_format": "channels_first"}),
        (
            "raw",
            {"labels": range(11), "order": "path", "shard_index": 1, "shard_count": 2, "seed": 3},
        ),
        ("png", {"validation_split": 0.3, "subset": "training"}),
        ("raw", {"batch_size": 64}),
    ],
    ids=str,
)
def test_cached_batches_are_those_of_the_shards(stored, encoding, arguments):
    arguments = {"batch_size": 4, "seed": 3, "with_filename": True} | arguments
    read = load_dataset(stored / encoding, **arguments)
    cached = load_dataset(stored / encoding, **arguments, cache=True)
    assert cached.element_spec == read.element_spec
    assert len(cached) == len(read)
    epochs = [read_steps(read) for _ in range(2)]
    assert [read_steps(cached) for _ in range(2)] == epochs
    for step in range(len(read) + 1):
        cached.position.seek(1, step)
        assert read_steps(cached) == epochs[1][step:]


def test_the_shards_are_read_once(stored, tmp_path, caplog):
    folder = shutil.copytree(stored / "png", tmp_path / "set")
    caplog.set_level("INFO", logger="shardmill.reader")
    dataset = load_dataset(folder, batch_size=4, cache=True, seed=1)
    assert caplog.messages == ["cached 11 images, 10.6 kB"]
    for shard in folder.glob("*.tfrecord"):
        shard.unlink()
    assert sum(len(images) for images, _ in dataset) == 11


@pytest.mark.parametrize(
    ("dtype", "image_size", "each"),
    [("float32", None, 965), ("float32", (10, 10), 1205), ("uint8", (10, 10), 305)],
)
def test_a_cache_that_does_not_fit_is_refused(stored, dtype, image_size, each):
    with pytest.raises(
        UsageError,
        match=rf"^cache .* {each:,} bytes, {each * 11 / 1000:.1f} kB .* max_ram is 3.0 kB",
    ):
        load_dataset(stored / "png", cache=True, max_ram=3_000, dtype=dtype, image_size=image_size)


def test_a_cache_beside_which_nothing_fits_is_refused(stored):
    with pytest.raises(UsageError, match="too small") as caught:
        load_dataset(stored / "png", max_ram=1)
    (least,) = re.findall(r"\(([\d,]+) bytes\)", str(caught.value))
    least = int(least.replace(",", ""))
    load_dataset(stored / "png", max_ram=least)
    with pytest.raises(UsageError, match=r"^max_ram .* leave out the cache"):
        load_dataset(stored / "png", max_ram=least, cache=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"random_flip": True},
            "cache keeps decoded images, which random_crop and random_flip change: leave out one "
            "of the two",
        ),
        (
            {"random_crop": (0.5, 1.0)},
            "cache keeps decoded images, which random_crop and random_flip change: leave out one "
            "of the two",
        ),
        ({"batch_size": None}, "cache keeps batches ready: give a batch_size"),
    ],
)
def test_what_cannot_be_cached_is_refused(stored, arguments, message):
    with pytest.raises(UsageError, match=f"^{message}$"):
        load_dataset(stored / "png", cache=True, **arguments)


@pytest.mark.parametrize("encoding", ["png", "raw"])
@pytest.mark.parametrize("remainder", ["keep", "pad"])
def test_a_damaged_record_is_skipped_as_without_a_cache(stored, tmp_path, encoding, remainder):
    folder = shutil.copytree(stored / encoding, tmp_path / "set")
    spoil(folder)
    arguments = {"batch_size": 4, "seed": 3, "on_damage": "skip", "remainder": remainder}
    arguments["with_filename"] = True
    read = load_dataset(folder, **arguments)
    cached = load_dataset(folder, **arguments, cache=True)
    assert len(cached.damage) == 1
    assert [read_steps(cached) for _ in range(2)] == [read_steps(read) for _ in range(2)]


def test_a_damaged_record_is_named_at_once(stored, tmp_path):
    folder = shutil.copytree(stored / "png", tmp_path / "set")
    spoil(folder)
    with pytest.raises(RecordError, match=r"^train-00000-of-00002.tfrecord: damaged record at byt"):
        load_dataset(folder, cache=True)


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_of_nothing_there_is_nothing_to_be_cached(stored, encoding):
    arguments = {"validation_split": 0.05, "subset": "validation", "seed": 1}
    dataset = load_dataset(stored / encoding, cache=True, **arguments)
    assert (len(dataset), read_steps(dataset)) == (0, [])


def test_a_sequence_can_be_cached(stored):
    arguments = {"seed": 1, "with_filename": True}
    shards = open_shards(stored / "png")
    read = shards.sequence("train", 4, **arguments)
    cached = shards.sequence("train", 4, **arguments, cache=True)
    for step in range(3):
        for one, other in zip(cached[step], read[step], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_cache_of_resized_images_gives_the_data_format_asked_for(converted: Path, data_format):
    options = {"image_size": (12, 15), "data_format": data_format, "shuffle": False}
    plain, cached = (load_dataset(converted, cache=cache, **options) for cache in (False, True))
    assert plain.element_spec == cached.element_spec
    for (images, _), (others, _) in zip(plain, cached, strict=True):
        np.testing.assert_array_equal(images, others)
