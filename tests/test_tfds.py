"""A converted folder as TensorFlow Datasets opens it, with nothing added."""

import os

import numpy as np
import pytest
from conftest import convert_folder

from converter import ConvertOptions
from reader import load_dataset, open_shards

tfds = pytest.importorskip("tensorflow_datasets")

# TFDS itself calls what protobuf has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:label.. is deprecated:DeprecationWarning")

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module", params=["jpeg", "png", "raw", "webp"])
def folder(request, image_folder, tmp_path_factory):
    """The images in each encoding, with all splits."""
    options = ConvertOptions(
        image_size=(16, 20),
        encoding=request.param,
        num_shards=3,
        validation_split=0.2,
        test_split=0.2,
    )
    out = tmp_path_factory.mktemp(request.param) / "set"
    convert_folder(image_folder, out, options)
    return out


def test_splits_counts_and_class_names_are_known(folder):
    shards = open_shards(folder)
    info = tfds.builder_from_directory(folder).info
    assert {
        name: (split.num_examples, split.num_shards) for name, split in info.splits.items()
    } == {name: (split.records, split.shards) for name, split in shards.splits.items()}
    assert sorted(info.splits) == sorted(SPLITS)
    assert info.features["image/class/label"].names == shards.class_names
    assert info.features["image/encoded"].shape == (16, 20, 3)
    assert info.features["image/encoded"].dtype == np.uint8


@pytest.mark.parametrize("split", SPLITS)
def test_every_feature_of_every_record_is_read(folder, split):
    shards = open_shards(folder)
    pixels = load_dataset(
        folder, split, batch_size=None, label_mode=None, dtype="uint8", shuffle=False
    ).as_numpy_iterator()
    examples = tfds.builder_from_directory(folder).as_dataset(split, shuffle_files=False)
    found = {example["image/source_id"]: example for example in examples.as_numpy_iterator()}
    assert len(found) == shards.splits[split].records
    for record, image in zip(shards.source(split), pixels, strict=True):
        source_id = os.fsencode(record.source_id)
        example = found[source_id]
        np.testing.assert_array_equal(example.pop("image/encoded"), image, strict=True)
        assert example == {
            "image/channels": 3,
            "image/class/label": record.label,
            "image/class/text": record.text.encode(),
            "image/colorspace": b"RGB",
            "image/filename": source_id.rpartition(b"/")[2],
            "image/format": record.format.encode(),
            "image/height": 16,
            "image/key/sha256": record.sha256.encode(),
            "image/source_id": source_id,
            "image/width": 20,
        }


def test_supervised_pairs_are_image_and_label(folder):
    builder = tfds.builder_from_directory(folder)
    pairs = builder.as_dataset("train", as_supervised=True, shuffle_files=False)
    found = sorted((image.tobytes(), int(label)) for image, label in pairs.as_numpy_iterator())
    ours = load_dataset(folder, "train", batch_size=None, dtype="uint8", shuffle=False)
    assert found == sorted(
        (image.tobytes(), int(label)) for image, label in ours.as_numpy_iterator()
    )


def test_part_of_a_split_can_be_read(folder):
    builder = tfds.builder_from_directory(folder)
    count = open_shards(folder).splits["train"].records
    assert len(builder.as_dataset("train[:10]")) == 10
    assert len(list(builder.as_dataset(f"train[10:{count}]"))) == count - 10


@pytest.mark.parametrize("encoding", ["keep", "raw"])
def test_images_of_different_sizes_are_read(image_folder, tmp_path, encoding):
    options = ConvertOptions(image_size=(12, 12), resize="shorter", encoding=encoding)
    convert_folder(image_folder, tmp_path / "set", options)
    records = open_shards(tmp_path / "set").source("train")
    examples = tfds.builder_from_directory(tmp_path / "set").as_dataset("train")
    found = {e["image/source_id"]: e["image/encoded"] for e in examples.as_numpy_iterator()}
    pixels = load_dataset(
        tmp_path / "set", batch_size=None, label_mode=None, dtype="uint8", shuffle=False
    ).as_numpy_iterator()
    for record, image in zip(records, pixels, strict=True):
        image_found = found.pop(os.fsencode(record.source_id))
        if encoding == "raw":  # TFDS has no feature for pixels of many shapes: it gives bytes
            assert image_found == image.tobytes()
        else:
            np.testing.assert_array_equal(image_found, image, strict=True)
    assert not found
