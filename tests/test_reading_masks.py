"""Masks as they are read: beside their images, moved as those are, with the numbers they had."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import convert_folder, encode_image, read_record, write_image
from PIL import Image

from converter.errors import UsageError
from converter.format.examples import decode_example, encode_example
from converter.options import ConvertOptions
from reader import load_dataset, open_shards
from reader.examples.fields import Given, parse_payload

COUNT = 14
SIZE = (24, 32)


def make_numbers(seed: int) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return ((rows // 3 + columns // 4 * 5 + seed) % 7).astype(np.uint8)


@pytest.fixture(scope="module", params=["png", "raw"])
def masked(request, tmp_path_factory) -> Path:
    """Images of two classes that show their masks, each number as a level of grey."""
    root = tmp_path_factory.mktemp("masked")
    for seed in range(COUNT):
        path = Path("ab"[seed % 2]) / f"{seed:02}.png"
        numbers = make_numbers(seed)
        for folder, levels in (("images", numbers * 30), ("masks", numbers)):
            (root / folder / path).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / path).write_bytes(encode_image(Image.fromarray(levels), "PNG"))
    options = ConvertOptions(
        image_size=SIZE, encoding=request.param, mask_dir="../masks", num_shards=2, mask_padding=9
    )
    convert_folder(root / "images", root / "out", options)
    return root / "out"


def read_pairs(dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each image and its mask, of batches or of single ones."""
    pairs = []
    for images, masks in dataset:
        single = len(images.shape) == 3
        pairs += [(images, masks)] if single else zip(images, masks, strict=True)
    return [(np.asarray(image), np.asarray(mask)) for image, mask in pairs]


@pytest.mark.parametrize("batch_size", [None, 1, 5, 64])
@pytest.mark.parametrize("shuffle", [False, "exact", "buffer"])
def test_each_image_comes_with_its_mask(masked, batch_size, shuffle):
    dataset = load_dataset(masked, batch_size=batch_size, shuffle=shuffle, dtype="uint8", seed=3)
    spec = dataset.element_spec[1]
    assert spec.dtype == tf.uint8
    assert spec.shape.as_list()[-3:] == [*SIZE, 1]
    pairs = read_pairs(dataset)
    assert len(pairs) == COUNT
    for image, mask in pairs:
        np.testing.assert_array_equal(image[..., :1], mask * 30)
    assert len({mask.tobytes() for _, mask in pairs}) == 7


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize(
    "options",
    [
        {"random_flip": True},
        {"random_crop": (0.2, 0.6)},
        {"random_crop": (0.2, 0.6), "random_flip": True, "image_size": (30, 18)},
        {"image_size": (48, 64)},
        {"image_size": (30, 18), "crop_to_aspect_ratio": True},
        {"image_size": (11, 7)},
    ],
)
def test_a_mask_is_changed_as_its_image_is(masked, options, batch_size):
    # Where both are taken from the nearest pixel, they still show the same.
    dataset = load_dataset(
        masked, batch_size=batch_size, seed=5, dtype="uint8", interpolation="nearest", **options
    )
    for image, mask in read_pairs(dataset):
        np.testing.assert_array_equal(image[..., :1], mask * 30)
    assert len(read_pairs(dataset)) == COUNT


def test_flips_and_crops_are_drawn(masked):
    plain = {mask.tobytes() for _, mask in read_pairs(load_dataset(masked, shuffle=False))}
    flipped = read_pairs(load_dataset(masked, random_flip=True, seed=1))
    assert 2 <= sum(mask.tobytes() not in plain for _, mask in flipped) <= COUNT - 2


def test_a_resize_makes_up_no_number(masked):
    dataset = load_dataset(masked, image_size=(37, 41), interpolation="bicubic")
    for _, mask in read_pairs(dataset):
        assert set(mask.flat) <= set(range(7))


def test_what_is_padded_has_the_number_of_the_data_set(masked):
    dataset = load_dataset(masked, image_size=(32, 32), pad_to_aspect_ratio=True, dtype="uint8")
    for image, mask in read_pairs(dataset):
        assert set(mask[:3].flat) == set(mask[-3:].flat) == {9}
        assert set(mask[4:-4].flat) == set(range(7))
        assert image[:3].max() == 0


def test_the_other_tensors_come_behind_masks(masked):
    options = {"batch_size": 4, "shuffle": False, "remainder": "pad", "with_filename": True}
    *_, (images, masks, weights, names) = load_dataset(masked, **options)
    assert [tuple(t.shape) for t in (images, masks, weights, names)] == [
        (4, *SIZE, 3), (4, *SIZE, 1), (4,), (4,)
    ]  # fmt: skip
    np.testing.assert_array_equal(weights, [1, 1, 0, 0])
    assert np.asarray(masks)[2:].max() == 0


def test_channels_may_come_first(masked):
    for images, masks in load_dataset(masked, data_format="channels_first", batch_size=4):
        assert images.shape[1:] == (3, *SIZE)
        assert masks.shape[1:] == (1, *SIZE)
        np.testing.assert_array_equal(images[:, :1], tf.cast(masks, tf.float32) * 30)


@pytest.mark.parametrize(
    "options",
    [{"masks": False}, {"label_mode": "categorical"}, {"labels": [0, 1] * 7, "order": "path"}],
)
def test_labels_come_if_they_are_asked_for(masked, options):
    _, labels = next(iter(load_dataset(masked, batch_size=4, **options)))
    assert labels.shape[0] == 4
    assert labels.dtype != tf.uint8


def test_images_come_alone_if_they_are_asked_for(masked):
    images = next(iter(load_dataset(masked, batch_size=4, label_mode=None)))
    assert images.shape == (4, *SIZE, 3)
    _, masks = next(iter(load_dataset(masked, batch_size=4, label_mode=None, masks=True)))
    assert masks.shape == (4, *SIZE, 1)


def test_a_sequence_gives_masks(masked):
    sequence = open_shards(masked).sequence("train", batch_size=4, random_flip=True, seed=2)
    images, masks = sequence[1]
    assert (masks.dtype, masks.shape) == (np.uint8, (4, *SIZE, 1))
    np.testing.assert_array_equal(images[..., :1], masks.astype(np.float32) * 30)


def test_a_source_has_masks(masked):
    records = open_shards(masked).source("train")
    for record in records[:5]:
        with Image.open(io.BytesIO(record.mask)) as mask:
            numbers = make_numbers(int(Path(record.source_id).stem))
            np.testing.assert_array_equal(np.asarray(mask), numbers)
        assert record.values == {}


def test_a_mask_of_another_size_is_a_damaged_record(masked):
    shards = open_shards(masked)
    payload = bytes(read_record(shards.source("train")._files, 0))
    features = decode_example(payload)
    wanted = Given(image=shards.manifest.image, classes=2, masks=True)
    assert parse_payload(memoryview(payload), wanted).mask
    small = encode_image(Image.new("L", (32, 23)), "PNG")
    features["image/segmentation/class/encoded"] = [small]
    with pytest.raises(ValueError, match="not a PNG of 24x32"):
        parse_payload(memoryview(encode_example(features)), wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": 1}, "masks 1 is unknown: choose one of None, True, False"),
    ],
)
def test_what_makes_no_sense_is_refused(masked, options, message):
    with pytest.raises(UsageError, match=message):
        load_dataset(masked, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": "exact"},
        {"shuffle": False, "data_format": "channels_first", "with_filename": True},
        {"shuffle": False, "image_size": (12, 20), "pad_to_aspect_ratio": True},
        {"shuffle": "exact", "remainder": "pad", "dtype": "float32"},
    ],
)
def test_a_cache_keeps_the_masks_too(masked, options):
    options = {"batch_size": 5, "seed": 3, "dtype": "uint8"} | options
    read, cached = load_dataset(masked, **options), load_dataset(masked, cache=True, **options)
    assert cached.element_spec == read.element_spec
    for _ in range(2):
        for batch, kept in zip(read, cached, strict=True):
            for column, wanted in zip(kept, batch, strict=True):
                np.testing.assert_array_equal(column, wanted)


def test_cached_masks_are_counted(masked):
    each = SIZE[0] * SIZE[1] * (3 + 1) + 5
    with pytest.raises(UsageError, match=f"cache .* {COUNT} images of {each:,} bytes"):
        load_dataset(masked, cache=True, max_ram=1_000, dtype="uint8")


def test_a_damaged_record_is_skipped_by_a_cache_with_masks(masked, tmp_path):
    folder = shutil.copytree(masked, tmp_path / "out")
    shard = next(folder.glob("train-00001*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    options = {"batch_size": 4, "seed": 3, "on_damage": "skip", "dtype": "uint8"}
    pairs = read_pairs(load_dataset(folder, cache=True, **options))
    assert len(pairs) == COUNT - 1
    for image, mask in pairs:
        np.testing.assert_array_equal(image[..., :1], mask * 30)


def test_masks_that_are_not_there_are_refused(converted):
    with pytest.raises(UsageError, match="masks are asked for"):
        load_dataset(converted, masks=True)


def test_images_of_different_sizes_have_masks(tmp_path):
    for seed in range(4):
        image = Image.fromarray(make_numbers(seed)[: 10 + seed])
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{seed}.png").write_bytes(encode_image(image, "PNG"))
    options = ConvertOptions(resize="none", encoding="png", label_from="none", mask_dir="../masks")
    convert_folder(tmp_path / "images", tmp_path / "out", options)
    pairs = read_pairs(load_dataset(tmp_path / "out", batch_size=None, dtype="uint8"))
    assert sorted(len(mask) for _, mask in pairs) == [10, 11, 12, 13]
    for image, mask in pairs:
        np.testing.assert_array_equal(image[..., :1], mask)


# TFDS itself calls what protobuf has deprecated, and leaves a file to be closed.
@pytest.mark.filterwarnings("ignore:label.. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_tensorflow_datasets_reads_masks(masked):
    tfds = pytest.importorskip("tensorflow_datasets", reason="there is none for Python 3.10")
    builder = tfds.builder_from_directory(masked)
    shape = builder.info.features["image/segmentation/class/encoded"].shape
    assert shape == (*SIZE, 1)
    for image, mask in tfds.as_numpy(builder.as_dataset("train", as_supervised=True)):
        np.testing.assert_array_equal(image[..., :1], mask * 30)


def test_boxes_are_never_given_where_they_do_not_lie(tmp_path):
    write_image(tmp_path / "1.png", 1)
    (tmp_path / "t.jsonl").write_text('{"path": "1.png", "boxes": [[1, 2, 9, 12]]}\n')
    options = ConvertOptions(image_size=SIZE, boxes_column="boxes", label_from="top")
    convert_folder(tmp_path / "t.jsonl", tmp_path / "out", options)
    for moves in ({"random_crop": (0.1, 1)}, {"random_flip": True}, {"crop_to_aspect_ratio": True}):
        name = next(iter(moves))
        with pytest.raises(UsageError, match=f"^column 'boxes' .* which {name} would"):
            load_dataset(tmp_path / "out", columns=("boxes",), image_size=(9, 9), seed=1, **moves)
    assert load_dataset(tmp_path / "out", random_flip=True, seed=1).element_spec is not None
