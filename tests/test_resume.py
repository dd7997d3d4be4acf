"""Epochs entered anywhere, shared by hosts, with damage, cached, mixed, and by number."""

import logging
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import convert_folder

from converter import ConvertOptions, RecordError, UsageError
from converter.format.indexing import index_files
from converter.names import show_name
from reader import (
    load_dataset,
    mix_datasets,
    open_shards,
    open_tfrecords,
    typed_errors,
)

OPTIONS = {"batch_size": 8, "dtype": "uint8", "with_filename": True, "seed": 5}


def list_batches(dataset: tf.data.Dataset) -> list[tuple[bytes, ...]]:
    return [
        tuple(np.asarray(column).tobytes() for column in batch[:-1]) + tuple(batch[-1].numpy())
        for batch in dataset
    ]


def list_names(dataset: tf.data.Dataset) -> list[bytes]:
    return [name for batch in dataset for name in batch[-1].numpy() if name]


@pytest.fixture
def damaged(converted, tmp_path):
    """A copy of the data set with one bit of a payload flipped."""
    folder = shutil.copytree(converted, tmp_path / "set")
    shard = folder / "train-00001-of-00003.tfrecord"
    offset = int(shard.with_suffix(".tfindex").read_text().splitlines()[2].split()[0])
    data = bytearray(shard.read_bytes())
    data[offset + 200] ^= 1
    shard.write_bytes(data)
    return folder


@pytest.mark.parametrize("shuffle", [False, "exact", "buffer"])
def test_an_epoch_goes_on_at_every_step_as_it_would_have(converted, shuffle):
    whole = load_dataset(converted, shuffle=shuffle, **OPTIONS)
    first, second = list_batches(whole), list_batches(whole)
    assert (first != second) == bool(shuffle)
    for step in range(len(first)):
        dataset = load_dataset(converted, shuffle=shuffle, initial_step=step, **OPTIONS)
        assert list_batches(dataset) == first[step:]
        assert list_batches(dataset) == second
        assert len(dataset) == len(first)
    later = load_dataset(converted, shuffle=shuffle, initial_epoch=1, initial_step=2, **OPTIONS)
    assert list_batches(later) == second[2:]


def test_an_order_without_a_seed_cannot_be_continued(converted):
    with pytest.raises(UsageError, match=r"^initial_epoch and initial_step"):
        load_dataset(converted, initial_step=1)


@pytest.mark.parametrize("batch_size", [8, None])
@pytest.mark.parametrize("shuffle", [False, "exact", "buffer"])
def test_every_host_goes_on_at_every_step(converted, monkeypatch, shuffle, batch_size):
    monkeypatch.setattr("reader.plan.memory.MAX_WINDOW_RECORDS", 16)
    arguments = OPTIONS | {"shuffle": shuffle, "batch_size": batch_size, "shard_count": 4}
    for host in (0, 3):
        dataset = load_dataset(converted, **arguments, shard_index=host)
        epochs = [list_elements(dataset) for _ in range(3)]
        for step in range(len(dataset) + 1):
            dataset.position.seek(1, step)
            assert list_elements(dataset) == epochs[1][step:]
        assert list_elements(dataset) == epochs[2]


def list_elements(dataset: tf.data.Dataset) -> list[list[bytes]]:
    return [[np.asarray(column).tobytes() for column in element[:-1]]
            + np.ravel(element[-1].numpy()).tolist() for element in dataset]  # fmt: skip


@pytest.mark.parametrize("remainder", ["drop", "pad"])
@pytest.mark.parametrize("shuffle", [False, "exact"])
def test_an_epoch_goes_on_at_every_step_on_another_number_of_hosts(converted, shuffle, remainder):
    arguments = OPTIONS | {"shuffle": shuffle, "remainder": remainder}
    hosts = {
        count: [
            load_dataset(
                converted,
                **arguments | {"batch_size": 8 // count},
                shard_index=host,
                shard_count=count,
            )
            for host in range(count)
        ]
        for count in (1, 2, 4)
    }

    def read_from(step: int, count: int) -> list[list[bytes]]:
        for host in hosts[count]:
            host.position.seek(1, step)
        return [
            [name for batch in batches for name in batch[-1].numpy() if name]
            for batches in zip(*hosts[count], strict=True)
        ]

    whole = read_from(0, 1)
    for step in range(len(whole)):
        for count in hosts:
            assert read_from(step, count) == whole[step:]


@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
@pytest.mark.parametrize("hosts", [2, 5])
def test_hosts_see_every_record_once_in_equal_steps(converted, hosts, remainder):
    shares = [
        load_dataset(converted, shard_index=host, shard_count=hosts, remainder=remainder, **OPTIONS)
        for host in range(hosts)
    ]
    names = [name for share in shares for name in list_names(share)]
    assert len({len(share) for share in shares}) == 1
    assert len(set(names)) == len(names)
    if remainder != "drop":
        assert len(names) == open_shards(converted).splits["train"].records


def test_a_damaged_record_is_a_typed_error_with_its_original(damaged):
    with pytest.raises(RecordError) as caught, typed_errors():
        list(load_dataset(damaged, **OPTIONS))
    error = caught.value
    assert (error.shard, error.record) == ("train-00001-of-00003.tfrecord", 2)
    assert error.source is not None
    assert len(str(error)) <= 500


@pytest.mark.parametrize("remainder", ["keep", "pad"])
def test_a_skipped_record_is_the_only_one_missing_and_logged_once(
    converted, damaged, remainder, caplog
):
    dataset = load_dataset(damaged, on_damage="skip", remainder=remainder, **OPTIONS)
    with caplog.at_level(logging.WARNING):
        epochs = [list_names(dataset) for _ in range(2)]
    whole = set(list_names(load_dataset(converted, **OPTIONS)))
    assert [len(whole - set(epoch)) for epoch in epochs] == [1, 1]
    assert len(caplog.messages) == len(dataset.damage) == 1


def test_a_cache_gives_the_same_batches_and_is_refused_where_it_does_not_fit(converted):
    cached = load_dataset(converted, cache=True, **OPTIONS)
    fresh = load_dataset(converted, **OPTIONS)
    for _ in range(2):
        assert list_batches(cached) == list_batches(fresh)
    with pytest.raises(UsageError, match=r"^cache .* \d+ images of 965 bytes"):
        load_dataset(converted, cache=True, max_ram="10kB")


def test_a_sequence_gives_any_batch_of_the_epoch(converted):
    sequence = open_shards(converted).sequence("train", 8, seed=5, dtype="uint8")
    for _ in range(2):
        epoch = load_dataset(
            converted, batch_size=8, seed=5, dtype="uint8", initial_epoch=sequence.epoch
        )
        batches = list(epoch.as_numpy_iterator())
        assert len(sequence) == len(batches)
        for step in (0, 3, -1):
            for ours, expected in zip(sequence[step], batches[step], strict=True):
                np.testing.assert_array_equal(ours, expected)
        sequence.on_epoch_end()


def test_raw_images_are_read_as_encoded_ones(image_folder, converted, tmp_path):
    options = ConvertOptions(
        image_size=(16, 20), encoding="raw", num_shards=3, validation_split=0.25
    )
    convert_folder(image_folder, tmp_path / "raw", options)
    for changes in ({}, {"dtype": "float32"}, {"data_format": "channels_first"}):
        raw = load_dataset(tmp_path / "raw", **OPTIONS | changes)
        assert list_batches(raw) == list_batches(load_dataset(converted, **OPTIONS | changes))


def test_a_mixture_is_one_epoch_of_each_at_most(converted, tmp_path):
    other = shutil.copytree(converted, tmp_path / "other")
    mixed = mix_datasets({converted: 1, other: 1}, **OPTIONS)
    names = list_names(mixed)
    assert len(names) == 100
    assert max(names.count(name) for name in names) <= 2
    with pytest.raises(UsageError, match=r"mixed at 99:1$"):
        mix_datasets({converted: 99, other: 1}, **OPTIONS)


def test_keras_gets_the_same_pixels_labels_and_names(image_folder, tmp_path):
    # What Keras lists: PNG and JPEG alike, decoded and resized in every epoch.
    out = tmp_path / "set"
    convert_folder(image_folder, out, ConvertOptions(resize="none", encoding="keep"))
    for arguments in (
        {},
        {"label_mode": "categorical", "interpolation": "bicubic"},
        {"color_mode": "grayscale", "crop_to_aspect_ratio": True},
        {"data_format": "channels_first"},
        {"class_names": ["cat with hat", "ant"]},
    ):
        theirs = keras.utils.image_dataset_from_directory(
            image_folder, image_size=(10, 30), shuffle=False, verbose=False, **arguments
        )
        ours = load_dataset(out, image_size=(10, 30), shuffle=False, **arguments)
        assert ours.element_spec == theirs.element_spec
        assert ours.class_names == theirs.class_names
        paths = [str(Path(path).relative_to(image_folder)) for path in theirs.file_paths]
        assert sorted(paths) == sorted(ours.file_paths)
        expected = dict(zip(paths, theirs.unbatch().as_numpy_iterator(), strict=True))
        for path, (image, label) in zip(
            ours.file_paths, ours.unbatch().as_numpy_iterator(), strict=True
        ):
            # Keras decodes JPEG with the faster, coarser inverse DCT.
            tolerance = 1e-3 if path.endswith(".png") else 13
            np.testing.assert_allclose(image, expected[path][0], atol=tolerance)
            np.testing.assert_array_equal(label, expected[path][1])


def test_a_validation_split_is_drawn_once_and_for_all(image_folder, tmp_path):
    convert_folder(image_folder, tmp_path / "set", ConvertOptions(image_size=(8, 8)))
    options = OPTIONS | {"validation_split": 0.25}
    train, validation = load_dataset(tmp_path / "set", subset="both", **options)
    held_out = list_names(validation)
    assert held_out == list_names(validation)
    assert (len(list_names(train)), len(held_out)) == (54, 18)
    assert not set(list_names(train)) & set(held_out)


def test_records_of_others_are_read_at_random_shuffled_and_resumed(tmp_path):
    for number in range(2):
        with tf.io.TFRecordWriter(str(tmp_path / f"x.tfrecord-{number}")) as writer:
            for value in range(20 * number, 20 * number + 20):
                feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
                features = tf.train.Features(feature={"value": feature})
                writer.write(tf.train.Example(features=features).SerializeToString())
    index_files([tmp_path / "x.tfrecord-0", tmp_path / "x.tfrecord-1"])
    records = open_tfrecords(
        tmp_path / "x.tfrecord-*", {"value": tf.io.FixedLenFeature([], tf.int64)}
    )
    first, last = (show_name(str(tmp_path / f"x.tfrecord-{number}")) for number in range(2))
    assert repr(records) == f"TFRecordSet('{first}' and 1 more: 40 records; 1 feature)"
    assert repr(records.source()) == "RecordSequence(40 records in 2 shards)"
    single = open_tfrecords(tmp_path / "x.tfrecord-1")
    assert repr(single) == f"TFRecordSet('{last}': 20 records)"
    assert [record["value"] for record in records.source()[[39, 0, 20]]] == [[39], [0], [20]]
    options = {"batch_size": 6, "shuffle": True, "seed": 1}
    whole = [batch["value"].numpy().tolist() for batch in records.dataset(**options)]
    assert sorted(value for batch in whole for value in batch) == list(range(40))
    resumed = records.dataset(initial_step=3, **options)
    assert [batch["value"].numpy().tolist() for batch in resumed] == whole[3:]
