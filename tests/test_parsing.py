"""One record as tensors: eagerly, and inside `tf.data`, where less is known of shapes."""

import io

import numpy as np
import pytest
import tensorflow as tf
from conftest import encode_image, make_image
from PIL import Image

from converter.examples import encode_example
from converter.manifest import ImageInfo
from reader.parsing import format_images, format_labels, parse_record, resize_image

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


def make_record(seed: int, stored_format: str, label: int) -> tuple[bytes, np.ndarray]:
    """A record with a picture of 24x32, and the pixels that Pillow sees in it."""
    image = make_image(seed)
    encoded = image.tobytes()
    if stored_format != "raw":
        encoded = encode_image(image, stored_format.upper(), quality=90)
        image = Image.open(io.BytesIO(encoded))
    features = {
        "image/encoded": encoded,
        "image/height": 24,
        "image/width": 32,
        "image/class/label": label,
        "image/class/text": b"not looked at",
    }
    return encode_example(features), np.asarray(image)


def parse_eagerly(records: list[bytes], image: ImageInfo) -> list[tuple[np.ndarray, np.ndarray]]:
    tensors = [parse_record(tf.constant(record), image) for record in records]
    return [(pixels.numpy(), label.numpy()) for pixels, label in tensors]


def parse_in_map(records: list[bytes], image: ImageInfo) -> list[tuple[np.ndarray, np.ndarray]]:
    dataset = tf.data.Dataset.from_tensor_slices(records)
    return list(dataset.map(lambda record: parse_record(record, image)).as_numpy_iterator())


@pytest.mark.parametrize("parse", [parse_eagerly, parse_in_map])
@pytest.mark.parametrize(
    "formats",
    [*((name,) for name in FORMATS), ("jpeg", "png"), ("jpeg", "png", "webp")],
    ids="+".join,
)
def test_pixels_and_labels_are_those_of_pillow(formats, parse):
    made = [make_record(number, formats[number % len(formats)], number) for number in range(6)]
    parsed = parse([record for record, _ in made], describe(*formats))
    for number, ((pixels, label), (_, expected)) in enumerate(zip(parsed, made, strict=True)):
        np.testing.assert_array_equal(pixels, expected, strict=True)
        assert (label, label.dtype) == (number, np.int32)


@pytest.mark.parametrize("stored_format", FORMATS)
@pytest.mark.parametrize("side", [(24, 32), (None, None)], ids=["one size", "many sizes"])
def test_the_static_shape_holds_the_sizes_that_are_known(stored_format, side):
    image = describe(stored_format, height=side[0], width=side[1])
    dataset = tf.data.Dataset.from_tensors(make_record(1, stored_format, 0)[0])
    assert dataset.map(lambda record: parse_record(record, image)).element_spec == (
        tf.TensorSpec((*side, 3), tf.uint8),
        tf.TensorSpec((), tf.int32),
    )


@pytest.mark.parametrize("stored_format", FORMATS)
def test_an_image_of_another_size_than_promised_is_an_error(stored_format):
    image = describe(stored_format, height=25)
    record, _ = make_record(1, stored_format, 0)
    with pytest.raises(ValueError, match=r"24.*25|25.*24"):
        parse_eagerly([record], image)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"24.*25|25.*24"):
        parse_in_map([record], image)


@pytest.mark.parametrize("parse", [parse_eagerly, parse_in_map])
@pytest.mark.parametrize("missing", ["image/encoded", "image/class/label"])
def test_a_record_without_image_or_label_is_an_error(missing, parse):
    features = {"image/encoded": encode_image(make_image(1)), "image/class/label": 1}
    del features[missing]
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"Feature: {missing}"):
        parse([encode_example(features)], describe("jpeg"))


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


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_dtype_changes_no_value(dtype):
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    formatted = format_images(tf.constant(values), dtype).numpy()
    np.testing.assert_array_equal(formatted, values.astype(dtype), strict=True)


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
