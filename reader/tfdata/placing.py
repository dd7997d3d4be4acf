"""What TensorFlow does for the engine: images that it alone makes to the same numbers.

`make_placer` decodes image by image, `resize_batch` resizes whole batches that the engine decoded.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import tensorflow as tf

from converter.errors import UsageError
from reader.arrays import Array, Scratch
from reader.batches import decoders
from reader.batches.decoders import Decoder, Task
from reader.examples.fields import RAW
from reader.plan.images import ImagePlan
from reader.plan.options import ReadOptions
from reader.plan.read_plan import ReadPlan
from reader.tfdata.decoding import (
    fit_image,
    fit_mask,
    make_decoder,
    make_mask_decoder,
    round_pixels,
)

PART_IMAGES: Final = 8
"""That one call of a graph decodes, so that few of them wait in memory."""


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
    held: dict[int, Array] = {}
    keys = itertools.count()

    def fit(key: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        # Handed over without a copy, which would stay in the heap of each thread: memory grew from
        # 240 to 430 MB, and on.
        pixels = tf.numpy_function(lambda key: held[int(key)], [key], tf.uint8)
        pixels.set_shape((None, None, channels))
        if not options.pad_to_aspect_ratio:
            return fit_image(pixels, natural.stored, options)
        return round_pixels(tf.image.resize(pixels, size, options.interpolation), options)

    specs = [tf.TensorSpec((), tf.int64), tf.TensorSpec((2,), tf.int32)]
    run = tf.function(fit, input_signature=specs, autograph=False).get_concrete_function()

    def place(task: Task) -> str | None:
        (height, width), key, row = task.size, next(keys), task.row
        top, left, *size = 0, 0, *row.shape[:2]
        if options.pad_to_aspect_ratio:
            top, left, *size = find_inset(task.size, (row.shape[0], row.shape[1]))
            row[...] = 0
        with scratch.borrow() as memory:
            pixels = memory.take(height * width * channels).reshape(height, width, channels)
            (problem,) = decode([task._replace(row=pixels)])
            if problem is None:
                held[key] = pixels
                try:
                    image = run(tf.constant(key, tf.int64), tf.constant(size, tf.int32)).numpy()
                    _copy_result(image, row[top : top + size[0], left : left + size[1]])
                except tf.errors.OpError as error:
                    problem = _describe(error)
                finally:
                    del held[key]
        return problem

    return lambda tasks: [place(task) for task in tasks]


def find_inset(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where `tf.image.resize_with_pad` puts an image: top, left, height, width.

    A graph cannot be asked: optimized, it multiplies where this divides, and is off by a row.
    """
    sides, goals = np.array(size, np.float32), np.array(target, np.float32)
    resized = sides / (sides / goals).max()
    margins = np.maximum(np.floor((goals - resized) / 2), 0).astype(int)
    return (*margins.tolist(), *np.floor(resized).astype(int).tolist())


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
