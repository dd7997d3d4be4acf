"""Decodes an encoded image to a tensor, crops, resizes and flips it, with TensorFlow's own code."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import tensorflow as tf

from reader.plan.choices import ImagePlan
from reader.plan.read_options import COLOR_CHANNELS

# From an image's bytes (), its stored height and width, int32 (2,), and its seed, int64 ().
Decode: TypeAlias = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
# Shapes of random crops, width by height: Szegedy et al., "Going Deeper with Convolutions".
ASPECTS: Final = (3 / 4, 4 / 3)
# The same pixels as Pillow's. TensorFlow's default, also in `decode_image`, is a faster inverse
# DCT that is off by up to 13 levels on photographs, and with libjpeg-turbo's SIMD no faster.
_DCT: Final = "INTEGER_ACCURATE"


def make_decoder(images: ImagePlan) -> Decode:
    """Combines everything that is done with each image: (height, width, channels), 0 to 255.

    They are uint8, or float32 after a resize to float32 images, which is not rounded.
    """
    read = functools.partial(decode_pixels, images=images)
    return _combine(images, read, functools.partial(fit_image, images=images))


def make_mask_decoder(images: ImagePlan, padding: int) -> Decode:
    """Combines the same for masks, which keep their values: uint8 (height, width, 1)."""
    return _combine(
        images,
        lambda encoded, _, window: _cut(tf.io.decode_png(encoded, 1), window),
        lambda mask: fit_mask(mask, images, padding),
    )


def _combine(
    images: ImagePlan, read: Callable[..., tf.Tensor], fit: Callable[[tf.Tensor], tf.Tensor]
) -> Decode:
    options = images.options

    def decode(encoded: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        # An image and its mask are cropped and flipped alike, because only the seed decides.
        crop = options.random_crop
        window = None if crop is None else draw_window(size, crop, seed)
        pixels = fit(read(encoded, size, window))
        if options.random_flip:
            pixels = tf.image.stateless_random_flip_left_right(pixels, tf.stack([seed, 1]))
        pixels.set_shape((images.height, images.width, None))
        return pixels

    return decode


def fit_image(pixels: tf.Tensor, images: ImagePlan) -> tf.Tensor:
    """Resizes an image as asked for; rounded if integers are asked for."""
    if not images.is_resized:
        return pixels
    pixels = _resize(pixels, images, images.options.interpolation)
    is_exact = images.options.dtype == "float32"
    return pixels if is_exact else tf.saturate_cast(tf.round(pixels), tf.uint8)


def fit_mask(mask: tf.Tensor, images: ImagePlan, padding: int) -> tf.Tensor:
    """Resizes a mask like its image."""
    if not images.is_resized:
        return mask
    if not images.options.pad_to_aspect_ratio:
        return _resize(mask, images, "nearest")
    # TensorFlow pads with 0, which is a class: so all values are one higher meanwhile.
    padded = _resize(tf.cast(mask, tf.int32) + 1, images, "nearest")
    return tf.cast(tf.where(padded == 0, padding, padded - 1), tf.uint8)


def _resize(pixels: tf.Tensor, images: ImagePlan, method: str) -> tf.Tensor:
    size = (images.height, images.width)
    if images.options.crop_to_aspect_ratio:
        pixels = crop_to_ratio(pixels, size)
    if images.options.pad_to_aspect_ratio:
        return tf.image.resize_with_pad(pixels, *size, method=method)
    return tf.image.resize(pixels, size, method=method)


def decode_pixels(
    encoded: tf.Tensor, size: tf.Tensor, window: tf.Tensor | None, images: ImagePlan
) -> tf.Tensor:
    """Decodes a stored image, or a window of it, to uint8 (height, width, channels)."""
    stored, color_mode = images.stored, images.options.color_mode
    formats, channels = tuple(stored.formats), 1 if color_mode == "grayscale" else 3
    if stored.is_raw:
        shape = tf.concat([size, [stored.channels]], 0)
        pixels = _cut(tf.reshape(tf.io.decode_raw(encoded, tf.uint8), shape), window)
    elif formats == ("jpeg",) and window is not None:  # decodes only the blocks in the window
        pixels = tf.image.decode_and_crop_jpeg(encoded, window, channels, dct_method=_DCT)
    else:
        # An alpha channel is decoded only if it is stored: TensorFlow's own would be added later.
        channels = 4 if color_mode == "rgba" and stored.channels == 4 else channels
        pixels = _cut(_decode_image(encoded, formats, channels), window)
    return _convert_color(pixels, color_mode)


def _cut(pixels: tf.Tensor, window: tf.Tensor | None) -> tf.Tensor:
    if window is None:
        return pixels
    top, left, height, width = tf.unstack(window)
    return pixels[top : top + height, left : left + width]


def _decode_image(encoded: tf.Tensor, formats: tuple[str, ...], channels: int) -> tf.Tensor:
    if formats == ("jpeg",):
        return tf.io.decode_jpeg(encoded, channels, dct_method=_DCT)
    if formats == ("png",):
        return tf.io.decode_png(encoded, channels)
    # WebP can only be decoded to three or four channels.
    channels = 3 if "webp" in formats else channels
    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels, dct_method=_DCT),
        lambda: tf.io.decode_image(encoded, channels, expand_animations=False),
    )
    pixels.set_shape((None, None, channels))
    return pixels


def _convert_color(pixels: tf.Tensor, color_mode: str) -> tf.Tensor:
    """Converts uint8 pixels of one, three or four channels to a color mode."""
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
    alpha = tf.fill(tf.concat([tf.shape(pixels)[:2], [1]], 0), tf.constant(255, tf.uint8))
    return tf.concat([pixels, alpha], -1)


def crop_to_ratio(pixels: tf.Tensor, size: Sequence[Any]) -> tf.Tensor:
    """Cuts the largest central part with the shape of `size` out of images, as Keras does."""
    height, width = tf.unstack(tf.shape(pixels)[-3:-1])
    part_height = tf.maximum(tf.minimum(height, width * size[0] // size[1]), 1)
    part_width = tf.maximum(tf.minimum(width, height * size[1] // size[0]), 1)
    top, left = (height - part_height) // 2, (width - part_width) // 2
    return pixels[..., top : top + part_height, left : left + part_width, :]


def draw_window(size: tf.Tensor, shares: tuple[float, float], seed: tf.Tensor) -> tf.Tensor:
    """Draws a random part of an image, of some share of its area: top, left, height and width."""
    area, shape, down, right = tf.unstack(tf.random.stateless_uniform([4], tf.stack([seed, 0])))
    height, width = tf.unstack(tf.cast(size, tf.float32))
    area = height * width * (shares[0] + area * (shares[1] - shares[0]))
    # In a long image, only a long part can have that area.
    shapes = tf.clip_by_value(tf.constant(ASPECTS), area / height**2, width**2 / area)
    low, high = tf.unstack(tf.math.log(shapes))
    aspect = tf.exp(low + shape * (high - low))
    part = tf.stack([tf.sqrt(area / aspect), tf.sqrt(area * aspect)])
    part = tf.clip_by_value(tf.round(part), 1.0, tf.stack([height, width]))
    corner = tf.floor(tf.stack([down, right]) * (tf.stack([height, width]) - part + 1))
    return tf.cast(tf.concat([corner, part], 0), tf.int32)


def format_labels(labels: tf.Tensor, label_mode: str | None, classes: int) -> tf.Tensor:
    """Converts int32 labels (…,) to float32 one-hot (…, classes) or float32 (…, 1) if asked for."""
    if label_mode == "categorical":
        return tf.one_hot(labels, classes)
    if label_mode == "binary":
        return tf.expand_dims(tf.cast(labels, tf.float32), -1)
    return labels
