"""A split as a `tf.data.Dataset`: length, order, shapes, values, memory and damage."""

import dataclasses
import functools
import itertools
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import convert_folder, encode_image, make_image, mill_folder, write_image

from converter import ConvertOptions, DatasetError, RecordError, UsageError
from converter.plan import read_entries
from reader import ReadOptions, ShardSet, load_dataset, open_shards, typed_errors

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=3)

LABEL_SPECS = {
    "int": lambda batch: tf.TensorSpec(batch, tf.int32),
    "categorical": lambda batch: tf.TensorSpec((*batch, 2), tf.float32),
    "binary": lambda batch: tf.TensorSpec((*batch, 1), tf.float32),
}


@pytest.fixture
def damaged(converted, tmp_path):
    """A copy of the data set that a test may change."""
    return Path(shutil.copytree(converted, tmp_path / "set"))


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """20 images in 2 classes, 3 shards."""
    root = tmp_path_factory.mktemp("two")
    for seed in range(20):
        write_image(root / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    convert_folder(root / "images", root / "set", OPTIONS)
    return root / "set"


@pytest.fixture(scope="module")
def many_sizes(tmp_path_factory):
    """6 images, each of another size."""
    root = tmp_path_factory.mktemp("many")
    (root / "images" / "all").mkdir(parents=True)
    for seed in range(6):
        picture = make_image(seed, height=10 + seed, width=30 - 2 * seed)
        (root / "images" / "all" / f"{seed}.png").write_bytes(encode_image(picture, "PNG"))
    options = dataclasses.replace(OPTIONS, resize="none")
    convert_folder(root / "images", root / "set", options)
    return root / "set"


def read_images(folder: Path, **arguments: object) -> list[np.ndarray]:
    """The images of one epoch, in record order, as they are stored."""
    arguments = {"batch_size": None, "dtype": "uint8", "shuffle": False} | arguments
    dataset = load_dataset(folder, label_mode=None, **arguments)
    return list(dataset.as_numpy_iterator())


@functools.cache
def number_images(folder: Path) -> dict[bytes, int]:
    """The number of the record that holds each image."""
    return {image.tobytes(): number for number, image in enumerate(read_images(folder))}


def list_order(dataset: tf.data.Dataset, folder: Path) -> list[int]:
    """The numbers of the records of one epoch, recognised by their pixels."""
    numbers = number_images(folder)
    return [
        numbers[image.astype(np.uint8).tobytes()]
        for images, _ in dataset.as_numpy_iterator()
        for image in images
    ]


@pytest.mark.parametrize(
    ("arguments", "batches"),
    [
        ({"batch_size": None}, 20),
        ({"batch_size": 1}, 20),
        ({"batch_size": 8}, 3),
        ({"batch_size": 8, "remainder": "drop"}, 2),
        ({"batch_size": 20, "remainder": "drop"}, 1),
        ({"batch_size": 64}, 1),
        ({"batch_size": 64, "remainder": "drop"}, 0),
    ],
)
def test_the_length_is_known_before_anything_is_read(two_classes, arguments, batches):
    dataset = load_dataset(two_classes, **arguments)
    assert len(dataset) == dataset.cardinality() == batches
    assert sum(1 for _ in dataset) == batches


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize(
    ("batch_size", "drop_remainder", "batch"),
    [(None, False, ()), (8, False, (None,)), (8, True, (8,))],
)
@pytest.mark.parametrize("label_mode", ["int", "categorical", "binary", None])
def test_the_element_spec_says_shapes_and_dtypes(
    two_classes, label_mode, batch_size, drop_remainder, batch, dtype
):
    dataset = load_dataset(
        two_classes,
        label_mode=label_mode,
        batch_size=batch_size,
        remainder="drop" if drop_remainder else "keep",
        dtype=dtype,
    )
    images = tf.TensorSpec((*batch, 16, 20, 3), tf.as_dtype(dtype))
    expected = (images, LABEL_SPECS[label_mode](batch)) if label_mode else images
    assert dataset.element_spec == expected


@pytest.mark.parametrize("batch_size", [4, None])
@pytest.mark.parametrize("label_mode", ["int", "categorical", "binary", None])
def test_what_comes_out_is_shaped_as_by_keras(tmp_path, label_mode, batch_size):
    for seed in range(6):
        write_image(tmp_path / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    convert_folder(tmp_path / "images", tmp_path / "set", OPTIONS)
    theirs = keras.utils.image_dataset_from_directory(
        tmp_path / "images",
        label_mode=label_mode,
        batch_size=batch_size,
        image_size=(16, 20),
        verbose=False,
    )
    ours = load_dataset(tmp_path / "set", label_mode=label_mode, batch_size=batch_size)
    assert ours.element_spec == theirs.element_spec
    if label_mode:  # without labels, Keras knows no classes
        assert ours.class_names == theirs.class_names


@pytest.mark.parametrize("batch_size", [None, 8])
def test_the_labels_of_each_mode_say_the_same(two_classes, batch_size):
    labels = {}
    for label_mode in ("int", "categorical", "binary"):
        dataset = load_dataset(
            two_classes, batch_size=batch_size, label_mode=label_mode, shuffle=False
        )
        single = dataset if batch_size is None else dataset.unbatch()
        labels[label_mode] = np.array([label for _, label in single.as_numpy_iterator()])
    expected = np.array([record.label for record in open_shards(two_classes).source("train")])
    assert sorted(expected) == [0] * 10 + [1] * 10
    np.testing.assert_array_equal(labels["int"], expected.astype(np.int32), strict=True)
    np.testing.assert_array_equal(
        labels["binary"], expected[:, None].astype(np.float32), strict=True
    )
    np.testing.assert_array_equal(
        labels["categorical"], np.eye(2, dtype=np.float32)[expected], strict=True
    )


def test_three_classes_are_no_binary_labels(converted):
    message = "label_mode 'binary' takes 2 classes, this data set has 3: use 'int' or 'categorical'"
    with pytest.raises(UsageError, match=f"^{message}$"):
        load_dataset(converted, label_mode="binary")


@pytest.mark.parametrize("shuffle", [False, True])
def test_class_names_are_an_attribute_in_label_order(converted, shuffle):
    dataset = load_dataset(converted, shuffle=shuffle)
    assert dataset.class_names == ["ant", "bee", "cat with hat"]


def test_float32_holds_the_values_of_uint8(converted):
    stored = np.array(read_images(converted))
    floats = np.array(read_images(converted, dtype="float32"))
    assert (stored.dtype, stored.min(), stored.max()) == (np.uint8, 0, 255)
    np.testing.assert_array_equal(floats, stored.astype(np.float32), strict=True)


@pytest.mark.parametrize("batch_size", [7, 64])
def test_without_shuffle_records_come_in_their_order_in_every_epoch(converted, batch_size):
    dataset = load_dataset(converted, shuffle=False, batch_size=batch_size)
    count = open_shards(converted).splits["train"].records
    for _ in range(2):
        assert list_order(dataset, converted) == list(range(count))


@pytest.mark.parametrize("seed", [None, 0, 2**63 - 1])
def test_every_epoch_is_shuffled_anew_and_holds_each_record_once(converted, seed):
    dataset = load_dataset(converted, seed=seed)
    epochs = [list_order(dataset, converted) for _ in range(3)]
    records = list(range(len(epochs[0])))
    assert [sorted(epoch) for epoch in epochs] == [records] * 3
    for one, other in itertools.combinations([*epochs, records], 2):
        assert one != other


def test_the_same_seed_gives_the_same_orders_and_another_seed_others(converted):
    first, again, other = (load_dataset(converted, seed=seed) for seed in (0, 0, 1))
    for _ in range(2):
        order = list_order(first, converted)
        assert list_order(again, converted) == order
        assert list_order(other, converted) != order


def test_no_seed_gives_another_order_each_time(converted):
    assert list_order(load_dataset(converted), converted) != list_order(
        load_dataset(converted), converted
    )


def test_shuffling_mixes_the_records_of_different_shards(converted):
    shards = open_shards(converted)
    ends = list(itertools.accumulate(s.records for s in shards.manifest.list_shards("train")))
    order = list_order(load_dataset(converted, seed=1), converted)
    first = order[: ends[0]]
    assert {sum(number >= end for end in ends) for number in first} == {0, 1, 2}


def test_the_least_memory_is_enough_for_every_order(converted):
    with pytest.raises(UsageError, match="too small") as caught:
        load_dataset(converted, max_ram=1)
    (least,) = re.findall(r"\(([\d,]+) bytes\)", str(caught.value))
    dataset = load_dataset(converted, max_ram=int(least.replace(",", "")), seed=1)
    epochs = [list_order(dataset, converted) for _ in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(len(epochs[0])))] * 3


def test_a_budget_that_cannot_hold_the_batches_is_refused_with_one_that_can(converted):
    message = (
        r"^max_ram 100.0 kB is too small: batches of 32 images of 3,840 bytes, with all that is "
        r"read and decoded for them, need [\d.]+ MB \([\d,]+ bytes\); allow that, or smaller im"
    )
    with pytest.raises(UsageError, match=message):
        load_dataset(converted, max_ram="100kB")


def test_only_train_is_shuffled_unless_asked_for(converted):
    def read_paths(**arguments):
        dataset = load_dataset(converted, label_mode=None, batch_size=None, **arguments)
        return [image.tobytes() for image in dataset.as_numpy_iterator()]

    stored = read_paths(split="validation", shuffle=False)
    assert read_paths(split="validation") == stored
    shuffled = read_paths(split="validation", shuffle=True)
    assert shuffled != stored
    assert sorted(shuffled) == sorted(stored)
    assert read_paths(split="train") != read_paths(split="train", shuffle=False)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_images_are_resized_if_asked_for(converted, interpolation, dtype):
    resized = read_images(
        converted, image_size=(8, 30), interpolation=interpolation, dtype=dtype, batch_size=4
    )
    stored = tf.constant(np.array(read_images(converted)))
    expected = tf.image.resize(stored, (8, 30), interpolation).numpy()
    if dtype == "uint8":  # only float32 keeps fractions, as Keras does
        expected = np.round(expected)
    expected = expected.astype(dtype)
    np.testing.assert_array_equal(np.concatenate(resized), expected, strict=True)


def test_images_of_different_sizes_cannot_be_batched_as_they_are(many_sizes):
    message = (
        "the stored images differ in size and cannot be batched as they are: give "
        "image_size=(height, width) to resize them, or batch_size=None for single ones"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        load_dataset(many_sizes)


def test_images_of_different_sizes_come_singly_as_they_are(many_sizes):
    dataset = load_dataset(many_sizes, batch_size=None, label_mode=None)
    assert dataset.element_spec == tf.TensorSpec((None, None, 3), tf.float32)
    shapes = sorted(image.shape for image in dataset.as_numpy_iterator())
    assert shapes == [(10 + seed, 30 - 2 * seed, 3) for seed in range(6)]


def test_images_of_different_sizes_can_be_resized_and_batched(many_sizes):
    dataset = load_dataset(many_sizes, image_size=(12, 14), batch_size=6, label_mode=None)
    assert dataset.element_spec == tf.TensorSpec((None, 12, 14, 3), tf.float32)
    assert [images.shape for images in dataset] == [(6, 12, 14, 3)]


class StepWatch(keras.callbacks.Callback):
    """Notes the number of steps that a progress bar could show as each epoch begins."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_epoch_begin(self, epoch, logs=None):
        del epoch, logs
        self.steps.append(self.params["steps"])


def test_a_keras_model_is_fitted_and_knows_its_steps_from_the_first_epoch(converted):
    train = load_dataset(converted, batch_size=16, seed=1)
    validation = load_dataset(converted, "validation", batch_size=16)
    model = keras.Sequential(
        [
            keras.Input((16, 20, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    watch = StepWatch()
    # Keras warns of its own default, shuffle=True, with whatever is no array.
    history = model.fit(
        train, validation_data=validation, epochs=2, shuffle=False, verbose=0, callbacks=[watch]
    )
    assert watch.steps == [len(train)] * 2
    assert sorted(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert all(np.isfinite(history.history["val_loss"]))


@pytest.fixture
def spoil_shard(image_folder, tmp_path):
    """Converts `image_folder` with every image of the shards of some indexes spoilt."""

    def convert(split: str, *indexes: int) -> Path:
        images = Path(shutil.copytree(image_folder, tmp_path / "images"))
        options = dataclasses.replace(OPTIONS, validation_split=0.25)
        plan = mill_folder(images, tmp_path / "unspoilt", options)
        for shard in plan.shards:
            if shard.split == split and shard.index in indexes:
                for entry, _ in read_entries(plan.out, shard):
                    (images / entry.path).write_bytes(b"")
        convert_folder(images, tmp_path / "set", options)
        return tmp_path / "set"

    return convert


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("indexes", [(1,), (0, 1), (2,)])
def test_shards_without_a_single_record_are_passed_over(spoil_shard, indexes, shuffle):
    folder = spoil_shard("train", *indexes)
    shards = open_shards(folder)
    records = [shard.records for shard in shards.manifest.list_shards("train")]
    assert [index for index, count in enumerate(records) if count == 0] == list(indexes)
    order = list_order(load_dataset(folder, shuffle=shuffle), folder)
    assert sorted(order) == list(range(sum(records)))
    assert len(shards.source("train")) == sum(records)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [None, 32])
def test_a_split_without_a_single_record_is_an_empty_dataset(spoil_shard, batch_size, shuffle):
    folder = spoil_shard("validation", 0)
    dataset = load_dataset(folder, "validation", batch_size=batch_size, shuffle=shuffle)
    assert len(dataset) == 0
    assert list(dataset) == []
    full = load_dataset(folder, "train", batch_size=batch_size)
    assert dataset.element_spec == full.element_spec


@pytest.mark.parametrize("change", [-1, 1])
def test_another_number_of_records_than_promised_is_an_error(converted, change):
    manifest = open_shards(converted).manifest
    first, *others = manifest.shards
    promised = dataclasses.replace(first, records=first.records + change)
    shards = ShardSet(converted, dataclasses.replace(manifest, shards=(promised, *others)))
    message = rf"lists {first.records} records, expected {first.records + change}$"
    with pytest.raises(DatasetError, match=message), typed_errors():
        list(shards.dataset("train", ReadOptions(batch_size=None)))


@pytest.fixture
def flip_bit(converted, tmp_path):
    """Copies the data set with one bit of a record flipped; gives the shard and the offset."""

    def flip(place: int) -> tuple[Path, int]:
        shard = shutil.copytree(converted, tmp_path / "set") / "train-00001-of-00003.tfrecord"
        line = shard.with_suffix(".tfindex").read_text().splitlines()[2]
        offset, size = map(int, line.split())
        data = bytearray(shard.read_bytes())
        data[offset + place % size] ^= 1
        shard.write_bytes(data)
        return shard, offset

    return flip


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("place", [0, 11, 12, -1])
def test_a_flipped_bit_is_an_error(flip_bit, place, shuffle):
    shard, offset = flip_bit(place)
    with pytest.raises(RecordError, match=f"damaged record at byte {offset} ") as caught:  # noqa: SIM117
        with typed_errors():
            list(load_dataset(shard.parent, shuffle=shuffle))
    assert (caught.value.shard, caught.value.record) == (shard.name, 2)
