"""A split as a `tf.data.Dataset`: length, order, shapes, values, memory and damage."""

import dataclasses
import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import convert_folder, encode_image, make_image, write_folder, write_image

from converter import ConvertOptions, DatasetError, RecordError, UsageError
from converter.planning.plan import read_entries
from reader import ReadOptions, ShardSet, load_dataset, open_shards, typed_errors
from reader.sampling.orders import REMAINDERS

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=3)

LABEL_SPECS = {
    "int": lambda batch: tf.TensorSpec(batch, tf.int32),
    "categorical": lambda batch: tf.TensorSpec((*batch, 2), tf.float32),
    "binary": lambda batch: tf.TensorSpec((*batch, 1), tf.float32),
}


@pytest.fixture
def damaged(converted, tmp_path):
    """A copy of the data set that a test may change."""
    return shutil.copytree(converted, tmp_path / "set")


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """20 images in 2 classes, 3 shards."""
    root = tmp_path_factory.mktemp("two")
    for seed in range(20):
        write_image(root / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    convert_folder(root / "images", root / "set", OPTIONS)
    return root / "set"


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """10 images in 3 classes, once as PNG and once raw, in one shard."""
    root = tmp_path_factory.mktemp("few")
    for seed in range(10):
        write_image(root / "images" / "abc"[seed % 3] / f"{seed}.png", seed)
    for encoding in ("png", "raw"):
        options = dataclasses.replace(OPTIONS, encoding=encoding, num_shards=1)
        convert_folder(root / "images", root / encoding, options)
    return {encoding: root / encoding for encoding in ("png", "raw")}


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


@pytest.mark.parametrize(
    ("batch_size", "remainder", "batch"),
    [
        (None, "keep", ()),
        (None, "pad", ()),
        (2, "keep", (None,)),
        (2, "drop", (2,)),
        (2, "pad", (2,)),
    ],
)
@pytest.mark.parametrize("label_mode", ["int", "categorical", "binary", None])
@pytest.mark.parametrize(("dtype", "with_filename"), [("float32", False), ("uint8", True)])
def test_the_element_spec_says_shapes_and_dtypes(
    two_classes, with_filename, label_mode, batch_size, remainder, batch, dtype
):
    dataset = load_dataset(
        two_classes,
        label_mode=label_mode,
        batch_size=batch_size,
        remainder=remainder,
        dtype=dtype,
        with_filename=with_filename,
    )
    expected = [tf.TensorSpec((*batch, 16, 20, 3), tf.as_dtype(dtype))]
    if label_mode:
        expected.append(LABEL_SPECS[label_mode](batch))
    if remainder == "pad":
        expected.append(tf.TensorSpec(batch, tf.float32))
    if with_filename:
        expected.append(tf.TensorSpec(batch, tf.string))
    assert dataset.element_spec == (tuple(expected) if len(expected) > 1 else expected[0])


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
    with pytest.raises(UsageError, match=r"^label_mode 'binary' takes 2 classes, .* has 3: "):
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
    with pytest.raises(
        UsageError,
        match=r"^max_ram 100.0 kB .* 32 images of 3,840 bytes, .* [\d.]+ MB \([\d,]+ bytes\)",
    ):
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
    with pytest.raises(UsageError, match=r"images differ in size .* batch_size=None"):
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
        images = shutil.copytree(image_folder, tmp_path / "images")
        options = dataclasses.replace(OPTIONS, validation_split=0.25)
        plan = write_folder(images, tmp_path / "unspoilt", options)
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


ORDERS = [False, "exact", "buffer"]


@pytest.fixture
def small_windows(monkeypatch):
    """Lets `buffer` have several windows in data sets of a few records."""
    monkeypatch.setattr("reader.plan.memory.MAX_WINDOW_RECORDS", 8)


def read_steps(dataset: tf.data.Dataset) -> list[list[object]]:
    """All that each element of an epoch holds."""
    return [
        [column.tolist() for column in map(np.asarray, element)]
        for element in dataset.as_numpy_iterator()
    ]


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("shuffle", ORDERS)
def test_an_epoch_goes_on_at_any_step_as_if_it_had_not_been_left(
    few, small_windows, shuffle, batch_size
):
    arguments = {"batch_size": batch_size, "shuffle": shuffle, "seed": 5, "with_filename": True}
    arguments["random_flip"] = True
    dataset = load_dataset(few["png"], **arguments)
    epochs = [read_steps(dataset) for _ in range(3)]
    assert len({str(epoch) for epoch in epochs}) == 3
    for epoch, step in itertools.product((0, 1), range(len(dataset) + 1)):
        dataset.position.seek(epoch, step)
        assert read_steps(dataset) == epochs[epoch][step:]
    assert read_steps(dataset) == epochs[2]
    for epoch, step in ((0, 1), (1, len(dataset) - 1), (0, len(dataset))):
        resumed = load_dataset(few["png"], **arguments, initial_epoch=epoch, initial_step=step)
        assert len(resumed) == len(dataset)
        assert read_steps(resumed) == epochs[epoch][step:]
        assert read_steps(resumed) == epochs[epoch + 1]


@pytest.mark.parametrize("remainder", REMAINDERS)
def test_an_epoch_goes_on_whatever_becomes_of_the_remainder(two_classes, remainder):
    arguments = {"batch_size": 8, "seed": 5, "remainder": remainder}
    epochs = [read_steps(dataset) for dataset in [load_dataset(two_classes, **arguments)] * 2]
    resumed = load_dataset(two_classes, **arguments, initial_step=1)
    assert read_steps(resumed) == epochs[0][1:]
    assert read_steps(resumed) == epochs[1]


def test_where_to_go_on_has_to_exist_and_takes_a_seed(two_classes):
    with pytest.raises(UsageError, match=r"^initial_step 6 .* has 5 steps$"):
        load_dataset(two_classes, batch_size=4, seed=1, initial_step=6)
    for arguments in (
        {"initial_step": 1},
        {"initial_epoch": 1, "shuffle": "buffer"},
        {"initial_step": 1, "shuffle": False, "random_flip": True},
        {"initial_step": 1, "shuffle": False, "random_crop": (0.5, 1.0)},
    ):
        with pytest.raises(UsageError, match=r"^initial_epoch and initial_step .* seed"):
            load_dataset(two_classes, batch_size=4, **arguments)
    assert len([*load_dataset(two_classes, batch_size=4, shuffle=False, initial_step=1)]) == 4


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("shuffle", ORDERS)
def test_an_order_does_not_depend_on_the_number_of_threads(
    two_classes, small_windows, monkeypatch, shuffle, batch_size
):
    found = []
    for threads in (1, 2, 7):
        monkeypatch.setattr("reader.tfdata.dataset.count_cores", lambda threads=threads: threads)
        monkeypatch.setattr("reader.plan.memory.count_cores", lambda threads=threads: threads)
        dataset = load_dataset(
            two_classes, seed=3, batch_size=batch_size, shuffle=shuffle, random_flip=True
        )
        found.append([read_steps(dataset) for _ in range(2)])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("shuffle", ["exact", "buffer"])
@pytest.mark.parametrize("batch_size", [None, 7])
def test_every_order_holds_each_record_once_in_every_epoch(
    two_classes, small_windows, shuffle, batch_size
):
    dataset = load_dataset(two_classes, shuffle=shuffle, batch_size=batch_size, with_filename=True)
    single = dataset if batch_size is None else dataset.unbatch()
    epochs = [[name for *_, name in single.as_numpy_iterator()] for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    paths = sorted(path.encode() for path in dataset.file_paths)
    assert [sorted(epoch) for epoch in epochs] == [paths] * 3


@pytest.mark.parametrize("shuffle", [False, True])
def test_names_belong_to_their_images_and_labels(converted, image_folder, shuffle):
    dataset = load_dataset(converted, with_filename=True, shuffle=shuffle, batch_size=10)
    source = open_shards(converted).source("train")
    for images, labels, names in dataset.as_numpy_iterator():
        for image, label, name in zip(images, labels, names, strict=True):
            record = source.by_id(name.decode())
            assert (image_folder / record.source_id).is_file()
            assert record.label == label
            np.testing.assert_array_equal(tf.io.decode_png(record.encoded), image)
    if not shuffle:
        read = [name.decode() for *_, names in dataset.as_numpy_iterator() for name in names]
        assert read == dataset.file_paths


@pytest.mark.parametrize("encoding", ["png", "raw"])
@pytest.mark.parametrize("image_size", [None, (8, 9)])
@pytest.mark.parametrize("batch_size", [3, 32])
def test_what_is_padded_is_black_has_no_name_and_weighs_nothing(
    few, encoding, image_size, batch_size
):
    arguments = {"image_size": image_size, "shuffle": False, "with_filename": True}
    expected = read_rows(load_dataset(few[encoding], batch_size=None, **arguments))
    padded = load_dataset(few[encoding], batch_size=batch_size, remainder="pad", **arguments)
    rows = read_rows(padded)
    assert len(rows) == len(padded) * batch_size
    assert [[image, label, name] for image, label, _, name in rows[:10]] == expected
    assert [mask for _, _, mask, _ in rows] == [1] * 10 + [0] * (len(rows) - 10)
    for image, label, _, name in rows[10:]:
        assert (np.sum(image), label, name) == (0, 0, b"")


@pytest.mark.parametrize("remainder", REMAINDERS)
def test_a_remainder_is_kept_or_dropped_or_padded(two_classes, remainder):
    dataset = load_dataset(two_classes, batch_size=8, remainder=remainder, seed=1)
    sizes = {"keep": [8, 8, 4], "drop": [8, 8], "pad": [8, 8, 8]}[remainder]
    for _ in range(2):
        elements = list(dataset.as_numpy_iterator())
        assert [len(images) for images, *_ in elements] == sizes
        if remainder == "pad":
            assert [mask.tolist() for *_, mask in elements] == [[1] * 8, [1] * 8, [1] * 4 + [0] * 4]


def spoil(folder: Path, record: int) -> str:
    """Flips the last bit of a record's payload; gives the path of its original."""
    name = open_shards(folder).source("train")[record].source_id
    shard = min(folder.glob("train-*.tfrecord"))
    begin, size = map(int, shard.with_suffix(".tfindex").read_text().splitlines()[record].split())
    data = bytearray(shard.read_bytes())
    data[begin + size - 5] ^= 1
    shard.write_bytes(data)
    return name


@pytest.mark.parametrize("encoding", ["png", "raw"])
@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("remainder", ["keep", "pad"])
@pytest.mark.parametrize("image_size", [None, (8, 9)])
def test_a_damaged_record_is_left_out_of_its_batch_or_blanked(
    few, tmp_path, encoding, batch_size, remainder, image_size
):
    folder = shutil.copytree(few[encoding], tmp_path / "set")
    arguments = {
        "batch_size": batch_size,
        "remainder": remainder,
        "image_size": image_size,
        "shuffle": False,
        "with_filename": True,
        "class_names": ["c", "b"],  # so that there is no label 0 for what was not read
    }
    before = {row[-1]: row for row in read_rows(load_dataset(folder, **arguments))}
    source = open_shards(folder).source("train")
    record = next(number for number, kept in enumerate(source) if kept.text == "b")
    del before[spoil(folder, record).encode()]
    before.pop(b"", None)
    dataset = load_dataset(folder, **arguments, on_damage="skip")
    rows = read_rows(dataset)
    assert [error.record for error in dataset.damage.errors.values()] == [record]
    blank = [row for row in rows if row[-1] not in before]
    assert [row for row in rows if row[-1] in before] == [*before.values()]
    if remainder == "pad":
        assert len(rows) == len(dataset) * (batch_size or 1)
        for image, label, mask, empty in blank:
            assert np.shape(image) == (*(image_size or (16, 20)), 3)
            assert (np.sum(image), label, mask, empty) == (0, 0, 0, b"")
    else:
        assert not blank
    if batch_size is not None:  # how many are damaged is not known before
        assert sum(1 for _ in dataset) == len(dataset)


def read_rows(dataset: tf.data.Dataset) -> list[list[object]]:
    """All that is known of each single image."""
    batched = tf.nest.flatten(dataset.element_spec)[0].shape.rank == 4
    single = dataset.unbatch() if batched else dataset
    return [
        [column.tolist() if isinstance(column, np.ndarray) else column for column in element]
        for element in single.as_numpy_iterator()
    ]


def test_a_batch_without_a_whole_record_is_an_error(two_classes, tmp_path):
    folder = shutil.copytree(two_classes, tmp_path / "set")
    spoil(folder, 0)
    dataset = load_dataset(folder, batch_size=1, shuffle=False, on_damage="skip")
    with pytest.raises(DatasetError, match=r"^not one record"), typed_errors():
        list(dataset)


def test_more_damage_than_allowed_is_an_error(two_classes, tmp_path):
    folder = shutil.copytree(two_classes, tmp_path / "set")
    spoil(folder, 0)
    spoil(folder, 1)
    arguments = {"batch_size": 4, "shuffle": False, "on_damage": "skip"}
    assert len(list(load_dataset(folder, **arguments, max_damaged=2))) == 5
    with pytest.raises(DatasetError, match=r"^more than 1 damaged"), typed_errors():
        list(load_dataset(folder, **arguments, max_damaged=1))


def test_several_iterators_read_epochs_of_their_own_side_by_side(two_classes):
    dataset = load_dataset(two_classes, batch_size=3, seed=2)
    epochs = [read_steps(dataset) for _ in range(3)]
    dataset.position.seek(0)
    iterators = [dataset.as_numpy_iterator() for _ in range(3)]
    found = [[], [], []]
    for elements in zip(*iterators, strict=True):
        for number, element in enumerate(elements):
            found[number].append([column.tolist() for column in element])
    assert found == epochs


def test_an_abandoned_iterator_leaves_the_next_epoch_whole(two_classes):
    dataset = load_dataset(two_classes, batch_size=None, seed=2)
    epochs = [read_steps(dataset) for _ in range(4)]
    dataset.position.seek(0)
    for number in (0, 1):
        begun = itertools.islice(dataset.as_numpy_iterator(), 3)
        assert [[np.asarray(c).tolist() for c in element] for element in begun] == epochs[number][
            :3
        ]
    iter(dataset)  # nothing was asked of it
    assert read_steps(dataset) == epochs[2]
    assert dataset.position.epoch == 3


def test_repeated_epochs_are_different_ones(two_classes):
    dataset = load_dataset(two_classes, batch_size=6, seed=2)
    epochs = [read_steps(dataset) for _ in range(2)]
    dataset.position.seek(0)
    assert read_steps(dataset.repeat(2)) == epochs[0] + epochs[1]


@pytest.mark.parametrize("batch_size", [None, 6])
def test_what_is_made_of_a_dataset_keeps_its_length_and_order(two_classes, batch_size):
    dataset = load_dataset(two_classes, batch_size=batch_size, seed=2)
    epochs = [read_steps(dataset) for _ in range(2)]
    dataset.position.seek(0)
    made = dataset.map(lambda image, label: (image / 2 * 2, label), 2).prefetch(3)
    assert len(made) == made.cardinality() == len(dataset)
    assert [read_steps(made) for _ in range(2)] == epochs


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_batches_that_are_kept_are_not_written_over(few, encoding):
    dataset = load_dataset(few[encoding], batch_size=2, seed=1, dtype="uint8")
    kept, copies = [], []
    for _ in range(9):
        for images, _ in dataset:
            kept.append(images)
            copies.append(images.numpy().copy())
    for images, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(images, copy)


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize(
    ("dtype", "data_format"), [("uint8", "channels_first"), ("float32", "channels_last")]
)
@pytest.mark.parametrize("change", [{}, {"image_size": (9, 7)}, {"color_mode": "grayscale"}])
def test_raw_images_are_those_that_were_stored_as_png(few, change, data_format, dtype, batch_size):
    arguments = {"data_format": data_format, "dtype": dtype, "batch_size": batch_size, **change}
    arguments |= {"shuffle": False, "with_filename": True}
    raw, png = (load_dataset(few[name], **arguments) for name in ("raw", "png"))
    assert raw.element_spec == png.element_spec
    for element, expected in zip(read_rows(raw), read_rows(png), strict=True):
        assert element[1:] == expected[1:]
        # The PNG decoder weighs the colours in whole numbers, TensorFlow in fractions.
        tolerance = 1 if "color_mode" in change else 0
        np.testing.assert_allclose(element[0], expected[0], rtol=0, atol=tolerance)


@pytest.mark.parametrize("encoding", ["raw", "keep", "webp"])
def test_images_of_different_sizes_come_singly_in_every_encoding(tmp_path, encoding):
    sizes = {}
    for seed in range(9):
        suffix = ("png", "jpeg", "webp")[seed % 3]
        picture = make_image(seed, height=10 + seed, width=30 - 2 * seed)
        path = tmp_path / "images" / "ab"[seed % 2] / f"{seed}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(picture, suffix.upper(), quality=90))
        sizes[f"{path.parent.name}/{path.name}".encode()] = (10 + seed, 30 - 2 * seed, 3)
    options = dataclasses.replace(OPTIONS, encoding=encoding, resize="none")
    convert_folder(tmp_path / "images", tmp_path / "set", options)
    arguments = {"with_filename": True, "seed": 1}
    single = load_dataset(tmp_path / "set", batch_size=None, **arguments)
    assert {name: image.shape for image, _, name in single.as_numpy_iterator()} == sizes
    changed = load_dataset(
        tmp_path / "set", batch_size=4, image_size=(8, 8), random_crop=(0.2, 0.7), **arguments
    )
    (first, *_), *_, (last, *_) = changed.as_numpy_iterator()
    assert (first.shape, last.shape) == ((4, 8, 8, 3), (1, 8, 8, 3))


@pytest.mark.parametrize("encoding", ["jpeg", "webp", "raw"])
def test_random_changes_depend_on_seed_epoch_and_record_alone(tmp_path, encoding):
    for seed in range(12):
        write_image(tmp_path / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    options = dataclasses.replace(OPTIONS, encoding=encoding)
    convert_folder(tmp_path / "images", tmp_path / "set", options)
    changes = {"random_crop": (0.2, 0.8), "random_flip": True, "with_filename": True}

    def read(seed, epochs=2, **arguments):
        dataset = load_dataset(tmp_path / "set", seed=seed, **changes | arguments)
        return [{row[-1]: row for row in read_rows(dataset)} for _ in range(epochs)]

    first, second = read(1, batch_size=3)
    assert read(1, batch_size=None, shuffle=False) == [first, second]
    assert read(1, batch_size=2, shuffle="buffer", initial_epoch=1, epochs=1) == [second]
    other, _ = read(2, batch_size=None)
    for one, two in ((first, second), (first, other)):
        assert sum(one[name] != two[name] for name in one) >= 11


def test_about_half_of_the_images_are_mirrored_others_in_every_epoch(converted):
    arguments = {"with_filename": True, "seed": 4, "batch_size": None}
    stored = {row[-1]: row[0] for row in read_rows(load_dataset(converted, **arguments))}
    dataset = load_dataset(converted, **arguments, random_flip=True)
    epochs = []
    for _ in range(4):
        flipped = set()
        for image, _, name in read_rows(dataset):
            if image != stored[name]:
                np.testing.assert_array_equal(np.array(image)[:, ::-1], stored[name])
                flipped.add(name)
        epochs.append(flipped)
    assert len(stored) == 52
    assert all(14 <= len(flipped) <= 38 for flipped in epochs)
    assert len(set.union(*epochs)) > 42
    assert len(set.intersection(*epochs)) < 12


def test_a_random_crop_of_everything_is_the_image_itself(converted):
    arguments = {"shuffle": False, "seed": 1, "batch_size": 4}
    whole = read_rows(load_dataset(converted, **arguments))
    assert read_rows(load_dataset(converted, **arguments, random_crop=(1.0, 1.0))) == whole


def test_class_weights_are_those_of_scikit_learn(tmp_path):
    class_weight = pytest.importorskip("sklearn.utils.class_weight")
    for seed in range(17):
        write_image(tmp_path / "images" / "aaaabbc"[seed % 7] / f"{seed}.png", seed)
    convert_folder(tmp_path / "images", tmp_path / "set", OPTIONS)
    shards = open_shards(tmp_path / "set")
    labels = shards.source("train").labels
    expected = class_weight.compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    assert shards.class_weight("train") == pytest.approx(dict(enumerate(expected)))
    with pytest.raises(DatasetError, match="validation"):
        shards.class_weight("validation")


class Diary(keras.Model):
    """Notes the labels that it is trained and tested with."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.trained, self.tested = [], []

    def call(self, images):
        return self.dense(keras.ops.mean(images, (1, 2)))

    def train_step(self, data):
        self.trained.append(data[1].numpy().tolist())
        return super().train_step(data)

    def test_step(self, data):
        self.tested.append(data[1].numpy().tolist())
        return super().test_step(data)


def test_a_fit_is_trained_with_the_epochs_from_the_first_on(two_classes):
    arguments = {"labels": range(20), "order": "path", "batch_size": 6, "seed": 1}
    dataset = load_dataset(two_classes, **arguments)
    epochs = [[labels.tolist() for _, labels in dataset.as_numpy_iterator()] for _ in range(4)]
    validation = load_dataset(two_classes, **arguments, shuffle=False)
    held_out = [labels.tolist() for _, labels in validation.as_numpy_iterator()]
    model = Diary()
    model.compile("sgd", "mse", run_eagerly=True)
    dataset.position.seek(0)
    settings = {"validation_data": validation, "verbose": 0, "shuffle": False}
    model.fit(dataset, epochs=2, **settings)
    assert model.trained == epochs[0] + epochs[1]
    assert model.tested == held_out * 2
    model.fit(dataset, epochs=4, initial_epoch=2, **settings)
    assert model.trained == [labels for epoch in epochs for labels in epoch]
    assert dataset.position.epoch == 4


def test_a_fit_under_a_strategy_is_trained_with_whole_epochs(two_classes):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    dataset = load_dataset(two_classes, labels=range(20), order="path", batch_size=6, seed=1)
    epochs = [[labels.tolist() for _, labels in dataset.as_numpy_iterator()] for _ in range(2)]
    seek = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: dataset.position.seek(epoch)
    )
    with strategy.scope():
        model = keras.Sequential(
            [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(1)]
        )
        model.compile("sgd", "mse")
    # Under a strategy, Keras looks at a batch before the first epoch: that takes an epoch too.
    dataset.position.seek(0)
    model.fit(dataset, epochs=2, verbose=0, shuffle=False)
    assert dataset.position.epoch == 3
    history = model.fit(dataset, epochs=2, verbose=0, shuffle=False, callbacks=[seek])
    assert dataset.position.epoch == 2
    assert np.isfinite(history.history["loss"]).all()
    distributed = strategy.experimental_distribute_dataset(dataset)
    dataset.position.seek(0)
    assert [[labels.numpy().tolist() for _, labels in distributed] for _ in range(2)] == epochs


DETERMINISTIC = """
import sys
import keras
import tensorflow as tf
from reader import load_dataset

tf.config.experimental.enable_op_determinism()
for _ in range(2):
    keras.utils.set_random_seed(1)
    train = load_dataset(
        sys.argv[1], batch_size=8, seed=1, random_crop=(0.3, 1.0), random_flip=True
    )
    model = keras.Sequential(
        [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(train, epochs=2, verbose=0, shuffle=False)
    print(sum(weight.numpy().astype("float64").sum() for weight in model.weights).hex())
"""


def test_a_training_can_be_repeated_to_the_last_bit(two_classes):
    done = subprocess.run(
        [sys.executable, "-c", DETERMINISTIC, two_classes],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    once, again = done.stdout.split()
    assert once == again


def test_hosts_share_an_epoch(two_classes):
    arguments = {"batch_size": 4, "seed": 1, "with_filename": True, "remainder": "pad"}
    hosts = [
        load_dataset(two_classes, **arguments, shard_index=index, shard_count=3)
        for index in range(3)
    ]
    assert [len(host) for host in hosts] == [2, 2, 2]
    for _ in range(2):
        names = [name for host in hosts for *_, mask, name in read_rows(host) if mask]
        assert sorted(names) == sorted(path.encode() for path in hosts[0].file_paths)
    with pytest.raises(UsageError, match=r"^shard_count 3: .* the same order"):
        load_dataset(two_classes, shard_index=0, shard_count=3)
    context = tf.distribute.InputContext(num_input_pipelines=3, input_pipeline_id=1)
    given = load_dataset(two_classes, **arguments, input_context=context)
    given.position.seek(2)
    assert read_rows(given) == read_rows(hosts[1])


@pytest.mark.parametrize(("encoding", "batch_size"), [("png", 4), ("raw", 4), ("raw", None)])
@pytest.mark.parametrize(
    "change",
    [
        {"image_size": (30, 8), "crop_to_aspect_ratio": True},
        {"image_size": (30, 8), "pad_to_aspect_ratio": True},
        {"random_crop": (0.5, 0.9), "random_flip": True},
        {"random_crop": (0.5, 0.9), "image_size": (30, 8), "color_mode": "rgba"},
        {"random_flip": True, "color_mode": "grayscale"},
    ],
    ids=str,
)
def test_nothing_depends_on_where_in_a_batch_an_image_is(few, encoding, batch_size, change):
    arguments = {"batch_size": batch_size, "seed": 1, "with_filename": True, **change}
    dataset = load_dataset(few[encoding], **arguments, remainder="pad")
    rows = {row[-1]: row[:2] for row in read_rows(dataset) if row[2]}
    other = load_dataset(few[encoding], **arguments | {"batch_size": 3, "shuffle": False})
    assert rows == {row[-1]: row[:2] for row in read_rows(other)}
    assert len(rows) == 10
