"""`ShardSet.sequence`: any batch of an epoch, for Keras."""

import copy
import dataclasses
import os
import pickle
import re
import shutil

import keras
import numpy as np
import pytest
from conftest import convert_folder, write_image

from converter import ConvertOptions, DatasetError, RecordError, UsageError
from reader import ReadOptions, load_dataset, open_shards

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=3)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """50 images in 2 classes, once as PNG and once raw."""
    root = tmp_path_factory.mktemp("sequence")
    for seed in range(50):
        write_image(root / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    for encoding in ("png", "raw"):
        options = dataclasses.replace(OPTIONS, encoding=encoding)
        convert_folder(root / "images", root / encoding, options)
    return root


def repickle(thing: object) -> object:
    return pickle.loads(pickle.dumps(thing))


def check_equal(one: object, other: object) -> None:
    one, other = (batch if isinstance(batch, tuple) else (batch,) for batch in (one, other))
    for mine, column in zip(one, other, strict=True):
        assert isinstance(mine, np.ndarray)
        np.testing.assert_array_equal(mine, column, strict=True)


@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [
        ("png", {}),
        ("raw", {}),
        ("png", {"shuffle": "buffer"}),
        ("png", {"shuffle": False, "label_mode": None}),
        ("png", {"remainder": "pad", "label_mode": "categorical", "dtype": "uint8"}),
        ("raw", {"remainder": "pad", "label_mode": "categorical", "dtype": "uint8"}),
        ("png", {"remainder": "drop", "label_mode": "binary", "data_format": "channels_first"}),
        ("raw", {"random_crop": (0.3, 0.9), "random_flip": True, "with_filename": True}),
        ("png", {"random_crop": (0.3, 0.9), "random_flip": True, "with_filename": True}),
        ("raw", {"image_size": (9, 7), "color_mode": "grayscale", "interpolation": "area"}),
        ("png", {"class_names": ["b"], "shard_index": 1, "shard_count": 2}),
    ],
    ids=str,
)
def test_a_sequence_has_the_batches_of_the_dataset(stored, encoding, arguments):
    shards = open_shards(stored / encoding)
    sequence = shards.sequence("train", 6, seed=3, **arguments)
    dataset = shards.dataset("train", ReadOptions(batch_size=6, seed=3, **arguments))
    assert (sequence.class_names, len(sequence)) == (dataset.class_names, len(dataset))
    assert sequence.file_paths == dataset.file_paths
    for _ in range(2):
        batches = list(dataset.as_numpy_iterator())
        for step in (len(batches) - 1, 0, 2):
            check_equal(sequence[step], batches[step])
            check_equal(sequence[step - len(batches)], batches[step])
        sequence.on_epoch_end()
    assert sequence.epoch == 2


def test_a_sequence_is_shown_as_one_line(stored):
    shards = open_shards(stored / "png")
    sequence = shards.sequence("train", 6)
    assert repr(sequence) == "BatchSequence(9 steps of 6; 16x20x3 float32; 2 classes; epoch 0)"
    sequence.on_epoch_end()
    assert repr(sequence).endswith("; epoch 1)")
    arguments = {"image_size": 64, "color_mode": "grayscale", "dtype": "uint8", "initial_epoch": 3}
    sequence = shards.sequence("train", 50, class_names=["b"], seed=1, **arguments)
    assert repr(sequence) == "BatchSequence(1 step of 50; 64x64x1 uint8; 1 class; epoch 3)"


def test_the_eighth_batch_is_the_eighth(stored):
    sequence = open_shards(stored / "png").sequence("train", 6, seed=3, initial_epoch=5)
    dataset = load_dataset(stored / "png", batch_size=6, seed=3, initial_epoch=5, initial_step=7)
    check_equal(sequence[7], next(dataset.as_numpy_iterator()))


@pytest.mark.parametrize("index", [9, -10, 1000])
def test_there_is_no_batch_beyond_the_last(stored, index):
    sequence = open_shards(stored / "png").sequence("train", 6)
    assert len(sequence) == 9
    with pytest.raises(IndexError):
        sequence[index]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": None}, "a sequence is one of batches: give a batch_size"),
        (
            {"initial_step": 1, "seed": 1},
            "a sequence has no initial_step: take its batches from that number on",
        ),
        (
            {"use_multiprocessing": True, "workers": 2},
            "use_multiprocessing forks a process in which TensorFlow runs, which TensorFlow does ",
        ),
        ({"batches": 3}, "argument 'batches' is unknown: there are batch_size, label_mode, "),
    ],
)
def test_what_a_sequence_cannot_be_is_refused(stored, arguments, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        open_shards(stored / "png").sequence("train", **arguments)


def test_only_the_records_of_a_batch_are_read(stored, monkeypatch):
    read = []

    def watch(call):
        def spy(*arguments):
            result = call(*arguments)
            read.append(result if isinstance(result, int) else len(result))
            return result

        return spy

    for name in ("pread", "preadv"):
        monkeypatch.setattr(os, name, watch(getattr(os, name)))
    for encoding in ("png", "raw"):
        shards = open_shards(stored / encoding)
        split = shards.splits["train"]
        sequence = shards.sequence("train", 6, seed=3)
        read.clear()
        sequence[4]
        assert 0.5 < sum(read) / (6 * split.bytes / split.records) < 2


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_a_damaged_record_is_an_error_of_its_batch_alone(stored, tmp_path, encoding):
    folder = shutil.copytree(stored / encoding, tmp_path / "set")
    shard = min(folder.glob("*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    sequence = open_shards(folder).sequence("train", 6, shuffle=False)
    with pytest.raises(RecordError, match=rf"^{shard.name}: damaged record at byte 0 ") as caught:
        sequence[0]
    assert (caught.value.shard, caught.value.record) == (shard.name, 0)
    assert len(sequence[1][0]) == 6
    skipping = open_shards(folder).sequence("train", 6, shuffle=False, on_damage="skip")
    assert len(skipping[0][0]) == 5
    shard.unlink()
    with pytest.raises(DatasetError, match=": No such file"):
        sequence[1]


def make_model() -> keras.Model:
    model = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [False, True])
def test_a_model_is_fitted_with_whole_epochs(stored, workers, cache, monkeypatch):
    sequence = open_shards(stored / "png").sequence(
        "train", 6, seed=3, workers=workers, cache=cache
    )
    assert sequence.workers == workers
    taken = []
    read = sequence.reader.read

    def spy(epoch, steps):
        taken.extend((epoch, step) for step in steps)
        return read(epoch, steps)

    sequence.reader.read = spy
    validation = open_shards(stored / "png").sequence("train", 6, shuffle=False)
    history = make_model().fit(
        sequence, validation_data=validation, epochs=2, verbose=0, shuffle=False
    )
    assert np.isfinite(history.history["loss"] + history.history["val_loss"]).all()
    # Keras looks at some batches before, and calls `on_epoch_end` once for that.
    whole = [(epoch, step) for epoch in (1, 2) for step in range(9)]
    assert sorted(taken[-18:]) == whole
    assert sequence.epoch == 3


class Diary(keras.Model):
    """Notes the labels that it is trained with."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.trained = []

    def call(self, images):
        return self.dense(keras.ops.mean(images, (1, 2)))

    def train_step(self, data):
        self.trained.append(data[1].numpy().tolist())
        return super().train_step(data)


@pytest.mark.parametrize("encoding", ["png", "raw"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_model_sees_each_record_once_an_epoch_in_a_new_order(stored, encoding, shuffle):
    sequence = open_shards(stored / encoding).sequence(
        "train", 6, seed=3, labels=range(50), order="path", workers=2
    )
    model = Diary()
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(sequence, epochs=3, verbose=0, shuffle=shuffle)
    epochs = [model.trained[begin : begin + 9] for begin in (0, 9, 18)]
    assert len(model.trained) == 27
    for number, epoch in enumerate(epochs):
        assert sorted(label for batch in epoch for label in batch) == [*range(50)]
        dataset = load_dataset(
            stored / encoding,
            batch_size=6,
            seed=3,
            labels=range(50),
            order="path",
            initial_epoch=number + 1,
        )
        expected = [labels.tolist() for _, labels in dataset.as_numpy_iterator()]
        # Keras has the batches in another order if it shuffles them, but no others.
        assert (epoch == expected) != shuffle
        assert sorted(epoch) == sorted(expected)
    assert len({str(sorted(epoch)) for epoch in epochs}) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_is_evaluated_and_predicts_as_with_the_dataset(stored, workers):
    shards = open_shards(stored / "png")
    sequence = shards.sequence("train", 6, shuffle=False, workers=workers)
    dataset = shards.dataset("train", ReadOptions(batch_size=6, shuffle=False))
    model = make_model()
    model.fit(dataset, verbose=0, shuffle=False)
    for _ in range(2):
        assert model.evaluate(sequence, verbose=0) == model.evaluate(dataset, verbose=0)
        expected = model.predict(dataset, verbose=0)
        np.testing.assert_array_equal(model.predict(sequence, verbose=0), expected)
    assert len(expected) == 50


def test_no_more_batches_wait_than_the_memory_is_meant_for(stored):
    shards = open_shards(stored / "png")
    assert shards.sequence("train", 6).max_queue_size == 4
    assert shards.sequence("train", 6, max_queue_size=7).max_queue_size == 7


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, repickle])
@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_a_copy_reads_the_same_from_the_same_epoch_on(stored, encoding, duplicate):
    options = {"dtype": "float32", "random_flip": True, "workers": 2, "with_filename": True}
    sequence = open_shards(stored / encoding).sequence("train", 6, **options)
    sequence.on_epoch_end()
    twin = duplicate(sequence)
    assert (repr(twin), twin.workers) == (repr(sequence), 2)
    for epoch in range(2):
        for index in (3, 0):
            check_equal(twin[index], sequence[index])
        twin.on_epoch_end()
        assert twin.epoch == 2 + epoch
        sequence.on_epoch_end()
