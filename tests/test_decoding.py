"""One record as tensors: eagerly, and inside `tf.data`, where less is known of shapes."""

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import convert_folder, encode_image, make_image, write_image
from PIL import Image

from converter import ConvertOptions
from converter.format.manifest import ImageInfo
from reader import open_shards
from reader.batches.batch_reader import SEED_FACTOR
from reader.plan.choices import ImagePlan
from reader.plan.planning import plan_reading
from reader.plan.read_options import ReadOptions
from reader.sampling.draws import derive_key
from reader.tfdata.dataset import make_reader
from reader.tfdata.decoding import (
    decode_pixels,
    draw_window,
    fit_image,
    format_labels,
    make_decoder,
)
from reader.tfdata.placing import find_inset

FORMATS = ("jpeg", "png", "webp", "raw")


def describe(*formats: str, height: int | None = 24, width: int | None = 32) -> ImageInfo:
    return ImageInfo(
        height=height,
        width=width,
        max_height=24,
        max_width=32,
        channels=3,
        formats=dict.fromkeys(formats, 1),
    )


def describe_images(image: ImageInfo, color_mode: str = "rgb", **options: Any) -> ImagePlan:
    return ImagePlan(stored=image, options=ReadOptions(color_mode=color_mode, **options))


def make_stored(seed: int, stored_format: str) -> tuple[bytes, np.ndarray]:
    """A picture of 24x32 as it is stored, and the pixels that Pillow sees in it."""
    image = make_image(seed)
    if stored_format == "raw":
        return image.tobytes(), np.asarray(image)
    encoded = encode_image(image, stored_format.upper(), quality=90)
    return encoded, np.asarray(Image.open(io.BytesIO(encoded)))


def decode_eagerly(stored: list[bytes], image: ImageInfo, color_mode: str) -> list[np.ndarray]:
    images = describe_images(image, color_mode)
    return [
        decode_pixels(tf.constant(encoded), tf.constant([24, 32]), None, images).numpy()
        for encoded in stored
    ]


def decode_in_map(stored: list[bytes], image: ImageInfo, color_mode: str) -> list[np.ndarray]:
    dataset = tf.data.Dataset.from_tensor_slices(stored)
    size, images = tf.constant([24, 32]), describe_images(image, color_mode)
    decoded = dataset.map(lambda encoded: decode_pixels(encoded, size, None, images))
    return list(decoded.as_numpy_iterator())


@pytest.mark.parametrize("decode", [decode_eagerly, decode_in_map])
@pytest.mark.parametrize(
    "formats",
    [*((name,) for name in FORMATS), ("jpeg", "png"), ("jpeg", "png", "webp")],
    ids="+".join,
)
def test_pixels_are_those_of_pillow(formats, decode):
    made = [make_stored(number, formats[number % len(formats)]) for number in range(6)]
    decoded = decode([encoded for encoded, _ in made], describe(*formats), "rgb")
    for pixels, (_, expected) in zip(decoded, made, strict=True):
        np.testing.assert_array_equal(pixels, expected, strict=True)


@pytest.mark.parametrize("decode", [decode_eagerly, decode_in_map])
@pytest.mark.parametrize("stored_format", FORMATS)
@pytest.mark.parametrize(("color_mode", "channels"), [("grayscale", 1), ("rgba", 4)])
def test_a_color_mode_decides_the_channels(stored_format, color_mode, channels, decode):
    encoded, expected = make_stored(3, stored_format)
    (pixels,) = decode([encoded], describe(stored_format), color_mode)
    assert (pixels.shape, pixels.dtype) == ((24, 32, channels), np.uint8)
    if color_mode == "rgba":
        np.testing.assert_array_equal(pixels[..., :3], expected)
        assert (pixels[..., 3] == 255).all()
    else:
        grey = expected @ [0.299, 0.587, 0.114]
        assert np.abs(pixels[..., 0] - grey).max() <= 3


def resize_image(pixels: tf.Tensor, size: tuple[int, int], interpolation: str) -> tf.Tensor:
    options = {"image_size": size, "interpolation": interpolation, "dtype": "uint8"}
    return fit_image(pixels, describe_images(describe("png"), **options))


def test_a_resized_image_is_rounded_not_cut_off():
    pixels = tf.constant([[[0, 0, 0], [255, 3, 1]]], tf.uint8)
    resized = resize_image(pixels, (1, 3), "bilinear")
    np.testing.assert_array_equal(
        resized, np.array([[[0, 0, 0], [128, 2, 0], [255, 3, 1]]], np.uint8), strict=True
    )


def test_an_interpolation_that_overshoots_stays_within_0_to_255():
    pixels = tf.constant([[[0] * 3] * 3 + [[255] * 3] * 3], tf.uint8)
    resized = resize_image(pixels, (1, 24), "bicubic").numpy()[0, :, 0]
    assert list(resized[:8]) == [0] * 8
    assert list(resized[-8:]) == [255] * 8
    assert all(np.diff(resized[8:-8].astype(int)) >= 0)


@pytest.mark.parametrize(
    ("label_mode", "labels", "expected"),
    [
        ("int", [2, 0], np.array([2, 0], np.int32)),
        ("int", 1, np.array(1, np.int32)),
        ("categorical", [2, 0], np.array([[0, 0, 1], [1, 0, 0]], np.float32)),
        ("categorical", 1, np.array([0, 1, 0], np.float32)),
        ("binary", [1, 0], np.array([[1], [0]], np.float32)),
        ("binary", 1, np.array([1], np.float32)),
    ],
)
def test_labels_of_each_mode_batched_and_single(label_mode, labels, expected):
    formatted = format_labels(tf.constant(labels, tf.int32), label_mode, 3).numpy()
    np.testing.assert_array_equal(formatted, expected, strict=True)


@pytest.mark.parametrize("shares", [(0.08, 1.0), (0.5, 0.5), (1.0, 1.0), (0.3, 0.4)])
@pytest.mark.parametrize("size", [(64, 80), (16, 200), (300, 20), (5, 5), (1, 40)])
def test_a_random_window_has_the_area_asked_for_whatever_the_shape_of_the_image(size, shares):
    windows = np.array(
        [draw_window(tf.constant(size), shares, tf.constant(seed, tf.int64)) for seed in range(40)]
    )
    top, left, height, width = windows.T
    assert (windows >= [0, 0, 1, 1]).all()
    assert (top + height <= size[0]).all()
    assert (left + width <= size[1]).all()
    rounding = (height + width) / 2 + 1
    assert (height * width >= shares[0] * size[0] * size[1] - rounding).all()
    assert (height * width <= shares[1] * size[0] * size[1] + rounding).all()
    again = draw_window(tf.constant(size), shares, tf.constant(7, tf.int64))
    np.testing.assert_array_equal(again, windows[7])


def test_random_windows_are_anywhere_and_of_many_shapes():
    windows = np.array(
        [
            draw_window(tf.constant([90, 90]), (0.25, 0.5), tf.constant(seed, tf.int64))
            for seed in range(200)
        ]
    )
    top, left, height, width = windows.T
    for begin, length in ((top, height), (left, width)):
        place = begin / (90 - length)
        assert np.histogram(place, 4, (0, 1))[0].min() > 30
    assert np.histogram(np.log(width / height), 4, np.log([0.75, 4 / 3]))[0].min() > 30
    assert np.histogram(height * width / 8100, 4, (0.25, 0.5))[0].min() > 30


@pytest.mark.parametrize("color_mode", ["rgb", "grayscale", "rgba"])
@pytest.mark.parametrize("formats", [*((name,) for name in FORMATS), ("jpeg", "png")], ids="+".join)
def test_part_of_an_image_is_that_part_of_its_pixels(formats, color_mode):
    images, size = describe_images(describe(*formats), color_mode), tf.constant([24, 32])
    for seed in range(8):
        encoded, _ = make_stored(seed, formats[seed % len(formats)])
        window = draw_window(size, (0.2, 0.7), tf.constant(seed, tf.int64))
        top, left, height, width = window.numpy()
        whole = decode_pixels(tf.constant(encoded), size, None, images).numpy()
        expected = whole[top : top + height, left : left + width]
        part = decode_pixels(tf.constant(encoded), size, window, images).numpy()
        if formats == ("jpeg",) and color_mode != "grayscale":
            # The colours of its outermost pixels would have been smoothed with neighbours' beyond.
            expected, part = expected[1:-1, 1:-1], part[1:-1, 1:-1]
        np.testing.assert_array_equal(part, expected, strict=True)


def plan_images(folder, **arguments):
    shards = open_shards(folder)
    options = ReadOptions(batch_size=5, shuffle=False, seed=3, **arguments)
    return plan_reading(folder, shards.manifest, "train", options)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """11 images of one size in each encoding, with noise that a resize shows."""
    root = tmp_path_factory.mktemp("stored")
    for seed in range(11):
        write_image(root / "images" / "a" / f"{seed}.png", seed)
    for encoding in FORMATS:
        options = ConvertOptions(image_size=(24, 32), encoding=encoding, num_shards=1)
        convert_folder(root / "images", root / encoding, options)
    return root


@pytest.mark.parametrize("encoding", FORMATS)
@pytest.mark.parametrize("color_mode", ["rgb", "grayscale", "rgba"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"random_flip": True, "data_format": "channels_first"},
        {"image_size": (9, 50)},
        {"image_size": (9, 50), "dtype": "uint8", "interpolation": "bicubic"},
        {"image_size": (30, 18), "crop_to_aspect_ratio": True, "random_flip": True},
        {"image_size": (30, 18), "pad_to_aspect_ratio": True, "data_format": "channels_first"},
        {"image_size": (24, 32), "random_crop": (0.1, 0.9), "random_flip": True},
    ],
    ids=str,
)
def test_images_are_made_one_by_one_as_in_whole_batches_and_in_a_graph(
    stored, encoding, color_mode, arguments
):
    plan = plan_images(stored / encoding, color_mode=color_mode, **arguments)
    one_by_one = dataclasses.replace(plan.buffers, resizes_batches=False)
    whole, singly = (
        np.concatenate([reader.read(2, [step]).images for step in (0, 1)])
        for reader in (
            make_reader(plan), make_reader(dataclasses.replace(plan, buffers=one_by_one))
        )
    )  # fmt: skip
    np.testing.assert_array_equal(whole, singly, strict=True)
    decode = make_decoder(plan.images)
    seeds = (np.arange(10) * SEED_FACTOR) ^ np.int64(derive_key(3, 2) >> 1)
    records = open_shards(stored / encoding).source("train")[:10]
    for image, record, seed in zip(whole, records, seeds.tolist(), strict=True):
        made = decode(tf.constant(record.encoded), tf.constant([24, 32]), tf.constant(seed))
        made = tf.cast(made, plan.options.dtype).numpy()
        if plan.options.data_format == "channels_first":
            made = np.moveaxis(made, -1, 0)
        np.testing.assert_array_equal(image, made, strict=True)


@pytest.mark.parametrize("decode", [decode_eagerly, decode_in_map])
@pytest.mark.parametrize("stored_format", ["png", "raw"])
def test_stored_transparency_is_decoded_where_it_is_asked_for(stored_format, decode):
    image = make_image(1, mode="RGBA")
    described = dataclasses.replace(describe(stored_format), channels=4)
    stored = image.tobytes() if stored_format == "raw" else encode_image(image, "PNG")
    pixels = np.asarray(image)
    np.testing.assert_array_equal(decode([stored], described, "rgba")[0], pixels)
    np.testing.assert_array_equal(decode([stored], described, "rgb")[0], pixels[..., :3])


@pytest.mark.parametrize("decode", [decode_eagerly, decode_in_map])
@pytest.mark.parametrize("stored_format", ["png", "jpeg", "raw"])
def test_stored_gray_is_decoded_to_every_color_mode(stored_format, decode):
    image = make_image(1, mode="L")
    described = dataclasses.replace(describe(stored_format), channels=1)
    stored = image.tobytes()
    if stored_format != "raw":
        stored = encode_image(image, stored_format.upper())
        image = Image.open(io.BytesIO(stored))
    for color_mode, mode in (("grayscale", "L"), ("rgb", "RGB"), ("rgba", "RGBA")):
        expected = np.asarray(image.convert(mode)).reshape(24, 32, -1)
        np.testing.assert_array_equal(decode([stored], described, color_mode)[0], expected)


@pytest.mark.parametrize("seed", range(4))
def test_a_padded_image_lies_where_tensorflow_puts_it(seed):
    random = np.random.default_rng(seed)
    for size, target in random.integers(1, 90, (60, 2, 2)).tolist():
        top, left, height, width = find_inset(tuple(size), tuple(target))
        if not height or not width:
            continue  # TensorFlow refuses it, too
        padded = tf.image.resize_with_pad(tf.ones((*size, 1)), *target, "nearest")[..., 0]
        expected = np.zeros(target, np.float32)
        expected[top : top + height, left : left + width] = 1
        np.testing.assert_array_equal(padded, expected, err_msg=f"{size} {target}")
