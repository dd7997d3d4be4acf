"""A converted folder as TensorFlow Datasets opens it, with nothing added."""

import os

import numpy as np
import pytest
import tensorflow as tf
from conftest import convert_folder, encode_image, make_image

from converter import ConvertOptions
from reader import Record, open_shards

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


def decode_record(record: Record) -> np.ndarray:
    """What TFDS makes of an image: JPEG by the faster, coarser way of two, WebP not at all."""
    if record.format == "webp":
        return np.array(record.encoded, object)
    if record.format == "raw":
        return np.frombuffer(record.encoded, np.uint8).reshape(record.height, record.width, 3)
    return tf.io.decode_image(record.encoded, expand_animations=False).numpy()


def test_splits_counts_and_class_names_are_known(folder):
    shards = open_shards(folder)
    info = tfds.builder_from_directory(folder).info
    assert {
        name: (split.num_examples, split.num_shards) for name, split in info.splits.items()
    } == {name: (split.records, split.shards) for name, split in shards.splits.items()}
    assert sorted(info.splits) == sorted(SPLITS)
    assert info.features["image/class/label"].names == shards.class_names
    image = info.features["image/encoded"]
    if folder.parent.name.startswith("webp"):
        assert isinstance(image, tfds.features.Text)
    else:
        assert (image.shape, image.dtype) == ((16, 20, 3), np.uint8)


@pytest.mark.parametrize("split", SPLITS)
def test_every_feature_of_every_record_is_read(folder, split):
    shards = open_shards(folder)
    examples = tfds.builder_from_directory(folder).as_dataset(split, shuffle_files=False)
    found = {example["image/source_id"]: example for example in examples.as_numpy_iterator()}
    assert len(found) == shards.splits[split].records
    for record in shards.source(split):
        source_id = os.fsencode(record.source_id)
        example = found[source_id]
        pixels = np.asarray(example.pop("image/encoded"), decode_record(record).dtype)
        np.testing.assert_array_equal(pixels, decode_record(record), strict=True)
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
    found = [
        (image if isinstance(image, bytes) else image.tolist(), label)
        for image, label in pairs.as_numpy_iterator()
    ]
    source = open_shards(folder).source("train")
    assert sorted(found) == sorted((decode_record(r).tolist(), r.label) for r in source)


def test_part_of_a_split_can_be_read(folder):
    builder = tfds.builder_from_directory(folder)
    count = open_shards(folder).splits["train"].records
    assert len(builder.as_dataset("train[:10]")) == 10
    assert len(list(builder.as_dataset(f"train[10:{count}]"))) == count - 10


@pytest.mark.parametrize("encoding", ["keep", "raw"])
def test_images_that_keep_their_aspect_ratio_are_read(tmp_path, encoding):
    for seed, size in enumerate([(24, 32), (32, 24), (24, 48)]):
        path = tmp_path / "images" / "a" / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(make_image(seed, *size), "PNG"))
    options = ConvertOptions(image_size=(12, 12), resize="shorter", encoding=encoding)
    convert_folder(tmp_path / "images", tmp_path / "set", options)
    examples = tfds.builder_from_directory(tmp_path / "set").as_dataset("train")
    found = {e["image/source_id"]: e["image/encoded"] for e in examples.as_numpy_iterator()}
    for record in open_shards(tmp_path / "set").source("train"):
        pixels = found.pop(os.fsencode(record.source_id))
        if encoding == "raw":  # TFDS has no feature for pixels of many shapes: it gives bytes
            assert pixels == record.encoded
        else:
            np.testing.assert_array_equal(pixels, decode_record(record), strict=True)
    assert not found
