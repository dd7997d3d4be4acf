"""What is reported of a damaged record, by us and by TensorFlow; and an undecodable image."""

import logging
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import convert_folder, encode_image, make_image, write_image
from forging import forge, make_payload

from converter import ConvertOptions, DatasetError, RecordError
from reader import load_dataset, open_shards, typed_errors
from reader.batches.batch import Batch
from reader.records import damage


@pytest.fixture(scope="module", params=["png", "raw"])
def damaged(request, tmp_path_factory):
    """Three images, one with a flipped bit; its shard, number, offset and original."""
    root = tmp_path_factory.mktemp("damaged")
    for number in range(3):
        write_image(root / "images" / "abc"[number] / f"ein bild {number} mit ü.png", number)
    options = ConvertOptions(image_size=(16, 20), encoding=request.param, num_shards=1)
    convert_folder(root / "images", root / "set", options)
    name = open_shards(root / "set").source("train")[1].source_id
    (shard,) = (root / "set").glob("*.tfrecord")
    offset, size = map(int, shard.with_suffix(".tfindex").read_text().splitlines()[1].split())
    data = bytearray(shard.read_bytes())
    data[offset + size // 2] ^= 4
    shard.write_bytes(data)
    return root / "set", (shard.name, 1, offset, name)


def fit(dataset: tf.data.Dataset) -> None:
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(dataset, verbose=0, shuffle=False)


def find_damage(sequence: keras.utils.PyDataset) -> int | None:
    """The number of its first batch with a damaged record."""
    for number in range(len(sequence)):
        try:
            sequence[number]
        except RecordError:  # noqa: PERF203 (each may be the one)
            return number
    return None


def test_an_error_stays_short_and_on_one_line_whatever_it_is_about():
    hostile = "../\x1b[2J\n\r\udcff" * 1000
    error = RecordError(f"{hostile}.tfrecord", 2**63, hostile, 2**63, f"{hostile}.png")
    assert len(str(error)) < 500
    assert str(error).isprintable()
    for part in (".tfrecord: damaged record at byte 9223372036854775808 (record 9", ".png'): ../"):
        assert part in str(error)
    assert error.source == f"{hostile}.png"
    plain = RecordError("a.tfrecord", 7, "too long", 3, "bee/ü 1.png")
    assert (
        str(plain)
        == "a.tfrecord: damaged record at byte 7 (record 3, from 'bee/ü 1.png'): too long"
    )


@pytest.mark.parametrize("read", [list, fit])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_tensorflow_tells_of_a_damaged_record_what_we_do(damaged, batch_size, read):
    folder, (shard, number, offset, name) = damaged
    dataset = load_dataset(folder, batch_size=batch_size, shuffle=False)
    if batch_size is None and read is fit:
        dataset = dataset.batch(2)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        read(dataset)
    text = str(caught.value)
    told = rf"{shard}: damaged record at byte {offset} \(record {number}, from \\'{name}\\'\): ch"
    assert re.search(told, text)
    assert "Traceback" not in text
    # About 330 of it are TensorFlow's.
    assert len(text) < 600
    with pytest.raises(RecordError) as typed, typed_errors():
        read(dataset)
    error = typed.value
    assert (error.shard, error.record, error.offset, error.source) == (shard, number, offset, name)


def test_the_errors_of_two_data_sets_are_told_apart(damaged, tmp_path):
    folder, (shard, *_) = damaged
    other = shutil.copytree(folder, tmp_path / "other")
    first, second = load_dataset(folder, shuffle=False), load_dataset(other, shuffle=False)
    (other / shard).unlink()
    with pytest.raises(RecordError), typed_errors():
        list(first)
    with pytest.raises(DatasetError, match=r"other/.*: No such file"), typed_errors():
        list(second)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_fit_says_of_a_sequence_is_typed_again(damaged, workers):
    folder, (shard, number, offset, name) = damaged
    shards = open_shards(folder)
    seed = next(n for n in range(100) if find_damage(shards.sequence("train", 1, seed=n)) == 2)
    # The first two batches Keras reads by itself, and lets their errors through as they are.
    with pytest.raises(tf.errors.OpError):
        fit(shards.sequence("train", 1, seed=seed, workers=workers))
    with pytest.raises(RecordError) as caught, typed_errors():
        fit(shards.sequence("train", 1, seed=seed, workers=workers))
    error = caught.value
    assert (error.shard, error.record, error.offset, error.source) == (shard, number, offset, name)


def test_errors_of_others_go_through_as_they_are():
    with pytest.raises(KeyError, match="mine"), typed_errors():
        raise KeyError("mine")
    with pytest.raises(tf.errors.InvalidArgumentError), typed_errors():
        tf.reshape(tf.zeros(2), (3,))


def test_errors_that_are_not_asked_for_are_forgotten():
    for number in range(200):
        text = damage.keep_error(DatasetError(f"{number}"))
    assert len(damage.kept_errors) <= 64
    with pytest.raises(DatasetError, match=r"^199$"), typed_errors():
        raise ValueError(f"TensorFlow says: [{text}]")


PICTURE = encode_image(make_image(1), "PNG")
BROKEN = {
    "png": PICTURE[:-30] + b"\xff" * 10 + PICTURE[-20:],
    "jpeg": encode_image(make_image(1), "JPEG")[:-200],
}


@pytest.fixture(scope="module", params=["png", "jpeg"])
def undecodable(request, tmp_path_factory):
    """Five records, all with right checksums; the image of the fourth cannot be decoded."""
    good = encode_image(make_image(2), request.param.upper())
    images = [good] * 3 + [BROKEN[request.param], good]
    payloads = [make_payload(image, number) for number, image in enumerate(images)]
    folder = tmp_path_factory.mktemp("undecodable") / "set"
    return forge(folder, {"train-0": payloads[:2], "train-1": payloads[2:]}, request.param)


PLAIN = [
    {},
    {"shuffle": "buffer", "seed": 1},
    {"remainder": "pad", "dtype": "uint8"},
    {"data_format": "channels_first", "random_flip": True},
    {"cache": True},
    {"color_mode": "rgba"},
]
OPTIONS = [
    PLAIN[0],
    PLAIN[2],
    {"batch_size": None},
    {"image_size": (12, 10)},
    {"image_size": (12, 10), "random_crop": (0.9, 1.0)},
    {"image_size": (12, 10), "cache": True, "pad_to_aspect_ratio": True},
]
DAMAGED = ("train-1.tfrecord", 1, "bee/3.png")
WHOLE = [b"ant/0.png", b"ant/2.png", b"ant/4.png", b"bee/1.png"]


def judge_error(error: RecordError) -> None:
    assert (error.shard, error.record, error.source) == DAMAGED
    assert re.search(r"cannot be decoded: .*(PNG|JPEG)", str(error))
    assert "node" not in str(error)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_image_that_no_decoder_takes_is_named(undecodable, options):
    with pytest.raises(RecordError) as caught, typed_errors():
        list(load_dataset(undecodable, **{"batch_size": 3} | options))
    judge_error(caught.value)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_left_out_alone_where_that_is_asked_for(undecodable, options):
    options = {"batch_size": 3, "on_damage": "skip", "with_filename": True} | options
    dataset = load_dataset(undecodable, **options)
    for _ in range(2):
        parts = [names for *_, names in dataset.as_numpy_iterator()]
        names = [name for part in parts for name in np.ravel(part).tolist()]
        assert sorted(name for name in names if name) == WHOLE
    (error,) = dataset.damage.errors.values()
    judge_error(error)


@pytest.mark.parametrize("options", PLAIN, ids=str)
def test_batches_name_it_or_leave_it_out_too(undecodable, options):
    shards = open_shards(undecodable)
    with pytest.raises(RecordError) as caught:
        list(shards.batches("train", 3, **options))
    judge_error(caught.value)
    batches = shards.batches("train", 3, on_damage="skip", with_filename=True, **options)
    for _ in range(2):
        names = [name for *_, names in batches for name in names.tolist()]
        assert sorted(name for name in names if name) == WHOLE
    (error,) = batches.damage.errors.values()
    judge_error(error)


def test_of_a_record_that_is_left_out_nothing_stays_in_a_batch_that_is_filled_up():
    batch = Batch(
        images=np.ones((3, 2, 2, 3), np.uint8),
        valid=np.array([True, False, True]),
        labels=np.ones(3, np.int32),
        names=np.array([b"a", b"b", b"c"], np.object_),
        masks=np.ones((3, 2, 2, 1), np.uint8),
        values=np.fromiter([([1],), ([2],), ([3],)], object),
        flips=np.zeros(3, np.bool_),
    ).pad()
    for column in (batch.images, batch.labels, batch.masks):
        assert [column[slot].any() for slot in range(3)] == [True, False, True]
    assert batch.names.tolist() == [b"a", b"", b"c"]
    assert batch.values.tolist() == [([1],), None, ([3],)]


def test_too_little_memory_is_not_the_fault_of_an_image(tmp_path, monkeypatch):
    def load(image):
        raise MemoryError

    folder = forge(tmp_path / "set", {"train-0": [make_payload(PICTURE)]})
    batches = open_shards(folder).batches("train", batch_size=1, on_damage="skip")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(MemoryError):
        list(batches)
    assert not batches.damage.errors


def test_it_is_named_in_a_training_too(undecodable):
    with pytest.raises(RecordError, match=r"record 1, from 'bee/3.png'\): "):  # noqa: SIM117
        with typed_errors():
            fit(load_dataset(undecodable, batch_size=2, seed=1))


def test_a_sequence_names_it_or_leaves_it_out(undecodable, caplog):
    shards = open_shards(undecodable)
    with pytest.raises(RecordError, match=r"record 1, from 'bee/3.png'\): "):
        list(shards.sequence("train", batch_size=5))
    options = {"batch_size": 5, "shuffle": False, "with_filename": True, "on_damage": "skip"}
    with caplog.at_level(logging.WARNING):
        (images, labels, names), *_ = shards.sequence("train", **options)
    assert names.tolist() == [b"ant/0.png", b"bee/1.png", b"ant/2.png", b"ant/4.png"]
    assert (images.shape, labels.tolist()) == ((4, 24, 32, 3), [0, 1, 0, 0])
    assert [message[:8] for message in caplog.messages] == ["skipped:"]


def test_it_is_not_blamed_for_the_errors_of_others(undecodable):
    dataset = load_dataset(undecodable, batch_size=2)
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(dataset)
    with pytest.raises(tf.errors.InvalidArgumentError, match="reshape"), typed_errors():
        tf.reshape(tf.zeros(2), (3,))
    del dataset
