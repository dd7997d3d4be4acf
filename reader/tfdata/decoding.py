"""Encoded images become tensors: decode, crop, resize, flip; all in TensorFlow's own code.

`make_decoder` is for a graph. `make_placer` is for the engine, where an image cannot be made to the
same numbers without TensorFlow; `resize_batch` is for whole batches that the engine has decoded.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import tensorflow as tf

from converter.errors import UsageError
from converter.format.manifest import ImageInfo
from reader.arrays import Array, Scratch
from reader.batches import decoders
from reader.batches.decoders import Decoder, Task
from reader.examples.fields import RAW
from reader.plan.options import COLOR_CHANNELS, ReadOptions
from reader.plan.read_plan import ImagePlan, ReadPlan

PART_IMAGES: Final = 8
"""That one call of a graph decodes, so that few of them wait in memory."""

ASPECTS: Final = (3 / 4, 4 / 3)
"""Shapes of random crops, width by height: Szegedy et al., "Going Deeper with Convolutions"."""


def make_decoder(
    image: ImageInfo, options: ReadOptions
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Puts together what has to be done with every image.

    Args:
        image: what the stored images have in common.
        options: what is asked for.

    Returns:
        a function of an image's bytes (), its stored height and width, int32 (2,), and its seed,
        int64 (). It gives (height, width, channels): uint8, or float32 where a resize to float32
        images is not to be rounded; 0 to 255.
    """

    def decode(encoded: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if options.random_crop is not None:
            window = draw_window(size, options.random_crop, seed)
            pixels = decode_window(encoded, size, window, image, options.color_mode)
        else:
            pixels = decode_pixels(encoded, size, image, options.color_mode)
        pixels = fit_image(pixels, image, options)
        if options.random_flip:
            pixels = tf.image.stateless_random_flip_left_right(pixels, tf.stack([seed, 1]))
        pixels.set_shape((*(options.image_size or (image.height, image.width)), None))
        return pixels

    return decode


def make_mask_decoder(
    image: ImageInfo, options: ReadOptions, padding: int
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Puts together what has to be done with every mask: what is done with its image.

    Args:
        image: what the stored images have in common.
        options: what is asked for.
        padding: the number where an image is padded.

    Returns:
        a function as that of `make_decoder`, of a mask's bytes and its image's size and seed. It
        gives uint8 (height, width, 1), and no number that is not in the mask.
    """

    def decode(encoded: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        mask = tf.io.decode_png(encoded, 1)
        if options.random_crop is not None:
            top, left, height, width = tf.unstack(draw_window(size, options.random_crop, seed))
            mask = mask[top : top + height, left : left + width]
        mask = fit_mask(mask, image, options, padding)
        if options.random_flip:  # as its image, because nothing but the seed decides
            mask = tf.image.stateless_random_flip_left_right(mask, tf.stack([seed, 1]))
        mask.set_shape((*(options.image_size or (image.height, image.width)), 1))
        return mask

    return decode


def make_placer(plan: ReadPlan) -> Decoder:
    """What decodes an image for the engine, and resizes it where that is done one by one.

    TensorFlow decodes a PNG in two thirds of the time that Pillow takes. A JPEG is decoded as the
    engine does it, unless only a part of it is needed.
    """
    options = dataclasses.replace(plan.options, random_flip=False)  # the engine mirrors
    as_stored = dataclasses.replace(
        options, image_size=None, random_crop=None,
        crop_to_aspect_ratio=False, pad_to_aspect_ratio=False,
    )  # fmt: skip
    natural = dataclasses.replace(plan.images, options=as_stored)
    stored, one_by_one = plan.images.stored, plan.images.is_resized and not plan.resizes_batches
    quick = options.random_crop is None and _is_quick(natural)
    if one_by_one and not quick and not options.pad_to_aspect_ratio:
        return _place_result(make_decoder(stored, options))
    decode = (
        decoders.make_decoder(natural) if quick else _place_result(make_decoder(stored, as_stored))
    )
    return _fit_result(decode, natural, options) if one_by_one else decode


def make_mask_placer(plan: ReadPlan) -> Decoder:
    """What decodes a mask for the engine, likewise."""
    if plan.resizes_batches or not plan.images.is_resized:
        return decoders.make_mask_decoder()
    options = dataclasses.replace(plan.options, random_flip=False)
    return _place_result(make_mask_decoder(plan.images.stored, options, plan.given.mask_padding))


def _is_quick(images: ImagePlan) -> bool:
    """Whether the engine decodes such images to TensorFlow's numbers, and not in more time."""
    try:
        decoders.check_natural(images)
    except UsageError:
        return False
    return tuple(images.stored.formats) in (("jpeg",), (RAW,))


def _place_result(decode: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]) -> Decoder:
    """Runs a decoder of tensors, for several images in one call of a graph.

    A call takes 0.1 ms, and a step of the loop in it 0.01.
    """
    specs = [
        tf.TensorSpec((None,), tf.string),
        tf.TensorSpec((None, 2), tf.int32),
        tf.TensorSpec((None,), tf.int64),
    ]
    single = [tf.TensorSpec(spec.shape[1:], spec.dtype) for spec in specs]
    signature = tf.function(decode, input_signature=single, autograph=False)
    output = signature.get_concrete_function().structured_outputs
    run = tf.function(
        lambda *images: tf.map_fn(
            lambda image: decode(*image),
            images,
            fn_output_signature=tf.TensorSpec(output.shape, output.dtype),
            parallel_iterations=1,
        ),
        input_signature=specs,
        autograph=False,
    ).get_concrete_function()

    def place_part(tasks: Sequence[Task]) -> list[str | None]:
        data = tf.constant([task.encoded.tobytes() for task in tasks], tf.string)
        sizes = tf.constant([task.size for task in tasks], tf.int32)
        try:
            images = run(data, sizes, tf.constant([task.seed for task in tasks], tf.int64)).numpy()
        except tf.errors.OpError as error:
            if len(tasks) == 1:
                return [_describe(error)]
            return [place_part([task])[0] for task in tasks]
        for image, task in zip(images, tasks, strict=True):
            _copy_result(image, task.row)
        return [None] * len(tasks)

    def place(tasks: Sequence[Task]) -> list[str | None]:
        parts = range(0, len(tasks), PART_IMAGES)
        return [
            problem for begin in parts for problem in place_part(tasks[begin : begin + PART_IMAGES])
        ]

    return place


def _fit_result(decode: Decoder, natural: ImagePlan, options: ReadOptions) -> Decoder:
    """Resizes what a decoder gives, one image after the other."""
    scratch, channels = Scratch(), natural.channels

    def fit(pixels: tf.Tensor) -> tf.Tensor:
        return fit_image(pixels, natural.stored, options)

    if not options.pad_to_aspect_ratio:
        # An optimized graph multiplies where `resize_with_pad` divides, and is then off by a row.
        spec = tf.TensorSpec((None, None, channels), tf.uint8)
        fit = tf.function(fit, input_signature=[spec], autograph=False).get_concrete_function()

    def place(task: Task) -> str | None:
        height, width = task.size
        with scratch.borrow() as memory:
            pixels = memory.take(height * width * channels).reshape(height, width, channels)
            (problem,) = decode([task._replace(row=pixels)])
            if problem is None:
                _copy_result(fit(tf.constant(pixels)).numpy(), task.row)
        return problem

    return lambda tasks: [place(task) for task in tasks]


def _copy_result(image: Array, row: Array) -> None:
    if row.strides[1] < 0:
        image, row = decoders.mirror(image), row[:, ::-1]
    np.copyto(row, image, casting="unsafe")


def _describe(error: tf.errors.OpError) -> str:
    """What a decoder said of an image that it did not take."""
    return re.sub(r"\{\{.*?\}\} ?|\s*\[Op:.*|\n.*", "", error.message, flags=re.DOTALL)


def resize_batch(images: tf.Tensor, flips: tf.Tensor, plan: ReadPlan) -> tf.Tensor:
    """Resizes and mirrors images of one size, and brings them into the data format asked for.

    Args:
        images: uint8 (n, height, width, channels).
        flips: bool (n,), which are mirrored.
        plan: says how.
    """
    images = fit_image(images, plan.images.stored, plan.options)
    return _arrange(tf.cast(images, plan.options.dtype), flips, plan)


def resize_masks(masks: tf.Tensor, flips: tf.Tensor, plan: ReadPlan) -> tf.Tensor:
    """Does with masks what `resize_batch` does with their images; their numbers stay."""
    masks = fit_mask(masks, plan.images.stored, plan.options, plan.given.mask_padding)
    return _arrange(masks, flips, plan)


def _arrange(images: tf.Tensor, flips: tf.Tensor, plan: ReadPlan) -> tf.Tensor:
    if plan.options.random_flip:
        images = _mirror_some(images, flips)
    if plan.options.data_format == "channels_first":
        images = tf.transpose(images, (0, 3, 1, 2))
    return images


def _mirror_some(images: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
    """Mirrors some of a batch's images.

    A `tf.where` over all of them took five times as long. `tf.reverse` is quick only for rows of
    three channels in three dimensions.
    """
    chosen = tf.where(flips)
    taken = tf.gather_nd(images, chosen)
    shape = tf.shape(taken)
    rows = tf.reshape(taken, (-1, shape[2], shape[3]))
    mirrored = tf.reshape(tf.reverse(rows, [1]), shape)
    return tf.tensor_scatter_nd_update(images, chosen, mirrored)


def fit_mask(mask: tf.Tensor, image: ImageInfo, options: ReadOptions, padding: int) -> tf.Tensor:
    """Does with a mask what `fit_image` does with its image."""
    size = find_target(image, options)
    if size is None:
        return mask
    if options.crop_to_aspect_ratio:
        mask = crop_to_ratio(mask, size)
    if not options.pad_to_aspect_ratio:
        return tf.image.resize(mask, size, method="nearest")
    # Padded with 0, which is a number of a class: so these are one higher meanwhile.
    numbers = tf.cast(mask, tf.int32) + 1
    padded = tf.image.resize_with_pad(numbers, *size, method="nearest")
    return tf.cast(tf.where(padded == 0, padding, padded - 1), tf.uint8)


def decode_pixels(
    encoded: tf.Tensor, size: tf.Tensor, image: ImageInfo, color_mode: str
) -> tf.Tensor:
    """Decodes what is stored to uint8 (height, width, channels of the colour mode)."""
    if RAW in image.formats:
        shape = tf.concat([size, [image.channels]], 0)
        pixels = tf.reshape(tf.io.decode_raw(encoded, tf.uint8), shape)
    else:
        # Alpha is not made up here: only if it is stored, it is decoded.
        channels = 1 if color_mode == "grayscale" else 3
        channels = 4 if color_mode == "rgba" and image.channels == 4 else channels
        pixels = decode_image(encoded, image, channels)
    return convert_color(pixels, color_mode)


def decode_image(encoded: tf.Tensor, image: ImageInfo, channels: int) -> tf.Tensor:
    """Decodes JPEG, PNG or WebP to uint8 (height, width, channels)."""
    formats = tuple(image.formats)
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


def fit_image(pixels: tf.Tensor, image: ImageInfo, options: ReadOptions) -> tf.Tensor:
    """Brings an image to the size asked for, or back to the stored one after a random crop."""
    size = find_target(image, options)
    if size is None:
        return pixels
    if options.crop_to_aspect_ratio:
        pixels = crop_to_ratio(pixels, size)
    if options.pad_to_aspect_ratio:
        pixels = tf.image.resize_with_pad(pixels, *size, method=options.interpolation)
    else:
        pixels = tf.image.resize(pixels, size, method=options.interpolation)
    return pixels if options.dtype == "float32" else tf.saturate_cast(tf.round(pixels), tf.uint8)


def find_target(image: ImageInfo, options: ReadOptions) -> tuple[int, int] | None:
    """The size that images are resized to; None where they stay as they are."""
    height, width = options.image_size or (image.height, image.width)
    as_stored = (height, width) == (image.height, image.width)
    if height is None or width is None or (as_stored and options.random_crop is None):
        return None
    return height, width


def crop_to_ratio(pixels: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
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
    encoded: tf.Tensor, size: tf.Tensor, window: tf.Tensor, image: ImageInfo, color_mode: str
) -> tf.Tensor:
    """Decodes part of an image: of a JPEG, only the blocks that it touches."""
    if tuple(image.formats) != ("jpeg",):
        top, left, height, width = tf.unstack(window)
        pixels = decode_pixels(encoded, size, image, color_mode)
        return pixels[top : top + height, left : left + width]
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
