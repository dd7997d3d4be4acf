"""One encoded image becomes a tensor: decode, crop, resize, flip; all in TensorFlow's own code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import tensorflow as tf

from reader.plan.image_plan import ImagePlan
from reader.plan.read_options import COLOR_CHANNELS

ASPECTS: Final = (3 / 4, 4 / 3)
"""Shapes of random crops, width by height: Szegedy et al., "Going Deeper with Convolutions"."""


def make_decoder(images: ImagePlan) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Puts together what has to be done with every image.

    Returns:
        a function of an image's bytes (), its stored height and width, int32 (2,), and its seed,
        int64 (). It gives (height, width, channels): uint8, or float32 where a resize to float32
        images is not to be rounded; 0 to 255.
    """
    options = images.options

    def decode(encoded: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if options.random_crop is not None:
            window = draw_window(size, options.random_crop, seed)
            pixels = decode_window(encoded, size, window, images)
        else:
            pixels = decode_pixels(encoded, size, images)
        pixels = fit_image(pixels, images)
        if options.random_flip:
            pixels = tf.image.stateless_random_flip_left_right(pixels, tf.stack([seed, 1]))
        pixels.set_shape((images.height, images.width, None))
        return pixels

    return decode


def make_mask_decoder(
    images: ImagePlan, padding: int
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Puts together what has to be done with every mask: what is done with its image.

    Args:
        images: which images are made of which.
        padding: the number where an image is padded.

    Returns:
        a function as that of `make_decoder`, of a mask's bytes and its image's size and seed. It
        gives uint8 (height, width, 1), and no number that is not in the mask.
    """
    options = images.options

    def decode(encoded: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        mask = tf.io.decode_png(encoded, 1)
        if options.random_crop is not None:
            top, left, height, width = tf.unstack(draw_window(size, options.random_crop, seed))
            mask = mask[top : top + height, left : left + width]
        mask = fit_mask(mask, images, padding)
        if options.random_flip:  # as its image, because nothing but the seed decides
            mask = tf.image.stateless_random_flip_left_right(mask, tf.stack([seed, 1]))
        mask.set_shape((images.height, images.width, 1))
        return mask

    return decode


def fit_image(pixels: tf.Tensor, images: ImagePlan) -> tf.Tensor:
    """Brings an image to the size asked for, or back to the stored one after a random crop.

    Rounded, if integers are asked for.
    """
    if not images.is_resized:
        return pixels
    pixels = _resize(pixels, images, images.options.interpolation)
    if images.options.dtype == "float32":
        return pixels
    return tf.saturate_cast(tf.round(pixels), tf.uint8)


def fit_mask(mask: tf.Tensor, images: ImagePlan, padding: int) -> tf.Tensor:
    """Does with a mask what `fit_image` does with its image."""
    if not images.is_resized:
        return mask
    if not images.options.pad_to_aspect_ratio:
        return _resize(mask, images, "nearest")
    # Padded with 0, which is a number of a class: so these are one higher meanwhile.
    padded = _resize(tf.cast(mask, tf.int32) + 1, images, "nearest")
    return tf.cast(tf.where(padded == 0, padding, padded - 1), tf.uint8)


def _resize(pixels: tf.Tensor, images: ImagePlan, method: str) -> tf.Tensor:
    size = (images.height, images.width)
    if images.options.crop_to_aspect_ratio:
        pixels = crop_to_ratio(pixels, size)
    if images.options.pad_to_aspect_ratio:
        return tf.image.resize_with_pad(pixels, *size, method=method)
    return tf.image.resize(pixels, size, method=method)


def decode_pixels(encoded: tf.Tensor, size: tf.Tensor, images: ImagePlan) -> tf.Tensor:
    """Decodes what is stored to uint8 (height, width, channels of the colour mode)."""
    stored, color_mode = images.stored, images.options.color_mode
    if stored.is_raw:
        shape = tf.concat([size, [stored.channels]], 0)
        pixels = tf.reshape(tf.io.decode_raw(encoded, tf.uint8), shape)
    else:
        # Alpha is not made up here: only if it is stored, it is decoded.
        channels = 1 if color_mode == "grayscale" else 3
        channels = 4 if color_mode == "rgba" and stored.channels == 4 else channels
        pixels = decode_image(encoded, tuple(stored.formats), channels)
    return convert_color(pixels, color_mode)


def decode_image(encoded: tf.Tensor, formats: tuple[str, ...], channels: int) -> tf.Tensor:
    """Decodes JPEG, PNG or WebP to uint8 (height, width, channels)."""
    if formats == ("jpeg",):
        return decode_jpeg(encoded, channels)
    if formats == ("png",):
        return tf.io.decode_png(encoded, channels)
    # From WebP, only three or four channels can be decoded.
    channels = 3 if "webp" in formats else channels
    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: decode_jpeg(encoded, channels),
        lambda: tf.io.decode_image(encoded, channels, expand_animations=False),
    )
    pixels.set_shape((None, None, channels))
    return pixels


def decode_jpeg(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes a JPEG to the very pixels that Pillow decodes.

    TensorFlow's default, also that of `decode_image`, is a faster inverse DCT that is off by up to
    13 levels on photographs, and with libjpeg-turbo's SIMD no faster.
    """
    return tf.io.decode_jpeg(encoded, channels, dct_method="INTEGER_ACCURATE")


def convert_color(pixels: tf.Tensor, color_mode: str) -> tf.Tensor:
    """Turns uint8 pixels of one, three or four channels into those of a colour mode."""
    channels = COLOR_CHANNELS[color_mode]
    if pixels.shape[-1] == channels:
        return pixels
    if pixels.shape[-1] == 1:
        pixels = tf.image.grayscale_to_rgb(pixels)
    pixels = pixels[..., :3]
    if channels == 3:
        return pixels
    if channels == 1:
        return tf.image.rgb_to_grayscale(pixels)
    return tf.concat(
        [pixels, tf.fill(tf.concat([tf.shape(pixels)[:2], [1]], 0), tf.constant(255, tf.uint8))], -1
    )


def crop_to_ratio(pixels: tf.Tensor, size: Sequence[Any]) -> tf.Tensor:
    """Cuts the largest middle part of the shape of `size` out of one or more images, like Keras."""
    height, width = tf.unstack(tf.shape(pixels)[-3:-1])
    part_height = tf.maximum(tf.minimum(height, width * size[0] // size[1]), 1)
    part_width = tf.maximum(tf.minimum(width, height * size[1] // size[0]), 1)
    top, left = (height - part_height) // 2, (width - part_width) // 2
    return pixels[..., top : top + part_height, left : left + part_width, :]


def draw_window(size: tf.Tensor, shares: tuple[float, float], seed: tf.Tensor) -> tf.Tensor:
    """Draws a random part of an image.

    Args:
        size: its height and width, int32 (2,).
        shares: least and greatest share of its area.
        seed: int64 (); the same seed gives the same part.

    Returns:
        top, left, height and width, int32 (4,).
    """
    area, shape, down, right = tf.unstack(tf.random.stateless_uniform([4], tf.stack([seed, 0])))
    height, width = tf.unstack(tf.cast(size, tf.float32))
    area = height * width * (shares[0] + area * (shares[1] - shares[0]))
    # Of a long image, only a long part can have that area.
    shapes = tf.clip_by_value(tf.constant(ASPECTS), area / height**2, width**2 / area)
    low, high = tf.unstack(tf.math.log(shapes))
    aspect = tf.exp(low + shape * (high - low))
    part = tf.stack([tf.sqrt(area / aspect), tf.sqrt(area * aspect)])
    part = tf.clip_by_value(tf.round(part), 1.0, tf.stack([height, width]))
    corner = tf.floor(tf.stack([down, right]) * (tf.stack([height, width]) - part + 1))
    return tf.cast(tf.concat([corner, part], 0), tf.int32)


def decode_window(
    encoded: tf.Tensor, size: tf.Tensor, window: tf.Tensor, images: ImagePlan
) -> tf.Tensor:
    """Decodes part of an image: of a JPEG, only the blocks that it touches."""
    if tuple(images.stored.formats) != ("jpeg",):
        top, left, height, width = tf.unstack(window)
        pixels = decode_pixels(encoded, size, images)
        return pixels[top : top + height, left : left + width]
    color_mode = images.options.color_mode
    channels = 1 if color_mode == "grayscale" else 3
    pixels = tf.image.decode_and_crop_jpeg(encoded, window, channels, dct_method="INTEGER_ACCURATE")
    return convert_color(pixels, color_mode)


def format_labels(labels: tf.Tensor, label_mode: str | None, classes: int) -> tf.Tensor:
    """Turns int32 labels (…,) into float32 one-hot (…, classes) or float32 (…, 1) if asked for."""
    if label_mode == "categorical":
        return tf.one_hot(labels, classes)
    if label_mode == "binary":
        return tf.expand_dims(tf.cast(labels, tf.float32), -1)
    return labels
