"""One serialized record becomes an image tensor and a label tensor."""

from __future__ import annotations

import tensorflow as tf

from converter import examples
from converter.manifest import ImageInfo


def parse_record(serialized: tf.Tensor, image: ImageInfo) -> tuple[tf.Tensor, tf.Tensor]:
    """Parses and decodes one record.

    Args:
        serialized: a `tf.train.Example`, a string scalar.
        image: what the stored images have in common.

    Returns:
        uint8 image (height, width, channels), with the sizes that are known as static shape, and
        int32 label ().
    """
    features = {
        examples.ENCODED: tf.io.FixedLenFeature([], tf.string),
        examples.LABEL: tf.io.FixedLenFeature([], tf.int64),
    }
    if "raw" in image.formats:
        features[examples.HEIGHT] = tf.io.FixedLenFeature([], tf.int64)
        features[examples.WIDTH] = tf.io.FixedLenFeature([], tf.int64)
    parsed = tf.io.parse_single_example(serialized, features)
    if "raw" in image.formats:
        shape = tf.stack([parsed[examples.HEIGHT], parsed[examples.WIDTH], image.channels])
        pixels = tf.reshape(tf.io.decode_raw(parsed[examples.ENCODED], tf.uint8), shape)
    else:
        pixels = decode_image(parsed[examples.ENCODED], image)
    pixels.set_shape((image.height, image.width, image.channels))
    return pixels, tf.cast(parsed[examples.LABEL], tf.int32)


def decode_image(encoded: tf.Tensor, image: ImageInfo) -> tf.Tensor:
    """Decodes JPEG, PNG or WebP to uint8 (height, width, channels)."""
    formats = tuple(image.formats)
    if formats == ("jpeg",):
        return decode_jpeg(encoded, image.channels)
    if formats == ("png",):
        return tf.io.decode_png(encoded, image.channels)
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: decode_jpeg(encoded, image.channels),
        lambda: tf.io.decode_image(encoded, image.channels, expand_animations=False),
    )


def decode_jpeg(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes a JPEG to the very pixels that Pillow decodes.

    TensorFlow's default, also that of `decode_image`, is a faster inverse DCT that is off by up to
    13 levels on photographs, and with libjpeg-turbo's SIMD no faster.
    """
    return tf.io.decode_jpeg(encoded, channels, dct_method="INTEGER_ACCURATE")


def resize_image(pixels: tf.Tensor, size: tuple[int, int], interpolation: str) -> tf.Tensor:
    """Resizes a uint8 image (height, width, channels) to a uint8 one of `size`, rounded."""
    resized = tf.image.resize(pixels, size, method=interpolation)
    return tf.saturate_cast(tf.round(resized), tf.uint8)


def format_images(images: tf.Tensor, dtype: str) -> tf.Tensor:
    """Casts uint8 images to the dtype asked for; values stay 0 to 255."""
    return images if dtype == "uint8" else tf.cast(images, dtype)


def format_labels(labels: tf.Tensor, label_mode: str | None, classes: int) -> tf.Tensor:
    """Turns int32 labels (…,) into float32 one-hot (…, classes) or float32 (…, 1) if asked for."""
    if label_mode == "categorical":
        return tf.one_hot(labels, classes)
    if label_mode == "binary":
        return tf.expand_dims(tf.cast(labels, tf.float32), -1)
    return labels
