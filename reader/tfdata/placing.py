"""Decodes and resizes for the engine what only TensorFlow does to the same numbers.

`make_placer` works image by image, `make_resizer` on whole batches that the engine has decoded.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from reader.arrays import Array, Scratch
from reader.batches import decoders
from reader.batches.batch import Batch
from reader.batches.decoders import Decoder, Task
from reader.plan.choices import ImagePlan
from reader.plan.read_plan import ReadPlan
from reader.tfdata import decoding


def make_placer(plan: ReadPlan) -> Decoder:
    """Makes what decodes an image for the engine, and resizes it if that is done one by one."""
    return make_image_placer(plan.images, resizes_batches=plan.buffers.resizes_batches)


def make_image_placer(images: ImagePlan, *, resizes_batches: bool = False) -> Decoder:
    """Makes what decodes an image; it resizes it, too, unless whole batches are resized later."""
    is_resized = images.is_resized and not resizes_batches
    images = _leave_to_tensorflow(images)
    if images.options.random_crop is not None:
        return _place_result(decoding.make_decoder(images), images.part_images)
    natural = dataclasses.replace(
        images.options, image_size=None, crop_to_aspect_ratio=False, pad_to_aspect_ratio=False
    )
    as_stored = dataclasses.replace(images, options=natural)
    if as_stored.is_quick:
        decode = decoders.make_decoder(as_stored)
    else:  # TensorFlow decodes a PNG in two thirds of the time that Pillow takes
        decode = _place_result(decoding.make_decoder(as_stored), as_stored.part_images)
    method = images.options.interpolation
    return _resize_singly(images, decode, images.channels, method) if is_resized else decode


def make_mask_placer(plan: ReadPlan) -> Decoder:
    """Makes what does the same with a mask."""
    images, padding = _leave_to_tensorflow(plan.images), plan.given.mask_padding
    if images.options.random_crop is not None:
        return _place_result(decoding.make_mask_decoder(images, padding), images.part_images)
    decode = decoders.make_mask_decoder()
    if plan.buffers.resizes_batches or not images.is_resized:
        return decode
    return _resize_singly(images, decode, 1, "nearest", padding)


def _leave_to_tensorflow(images: ImagePlan) -> ImagePlan:
    # The engine mirrors and rounds.
    options = dataclasses.replace(images.options, random_flip=False, dtype="float32")
    return dataclasses.replace(images, options=options)


def make_resizer(plan: ReadPlan) -> Callable[[Batch], Batch] | None:
    """Makes what resizes and mirrors whole batches for the engine; None if that is not done."""
    if not plan.buffers.resizes_batches:
        return None
    images, options, padding = plan.images, plan.options, plan.given.mask_padding

    def fit(pixels: tf.Tensor) -> tf.Tensor:
        return tf.cast(decoding.fit_image(pixels, images), options.dtype)

    fit_mask = functools.partial(decoding.fit_mask, images=images, padding=padding)
    resize = _compile_resize(images, images.channels, fit)
    if plan.given.masks:
        resize_masks = _compile_resize(images, 1, fit_mask)

    def resize_batch(batch: Batch) -> Batch:
        flips = tf.constant(batch.flips)
        batch.images = resize(_share(batch.images), flips).numpy()
        if batch.masks is not None:
            batch.masks = resize_masks(_share(batch.masks), flips).numpy()
        return batch

    return resize_batch


def _compile_resize(images: ImagePlan, channels: int, fit: Callable[[tf.Tensor], tf.Tensor]) -> Any:
    """A graph that resizes, mirrors and lays out a batch of images as stored."""

    def resize(pixels: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
        pixels = fit(pixels)
        if images.options.random_flip:
            pixels = _mirror_some(pixels, flips)
        if images.options.data_format == "channels_first":
            pixels = tf.transpose(pixels, (0, 3, 1, 2))
        return pixels

    shape = (None, images.stored.height, images.stored.width, channels)
    return _compile(resize, tf.TensorSpec(shape, tf.uint8), tf.TensorSpec((None,), tf.bool))


def _compile(function: Callable[..., Any], *inputs: tf.TensorSpec) -> Any:
    """Compiles for the CPU: a GPU has no decoders, and resizes to other numbers."""

    def run(*tensors: tf.Tensor) -> Any:
        with tf.device("/CPU:0"):
            return function(*tensors)

    return tf.function(run, input_signature=inputs, autograph=False).get_concrete_function()


def _share(array: Array) -> tf.Tensor:
    """A tensor of the same memory, which has to begin at a multiple of 64 bytes."""
    # A copy of a batch would take a millisecond, and one of an image would stay in the heap of each
    # thread: memory grew from 240 to 430 MB, and on.
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _place_result(decode: decoding.Decode, part_images: int) -> Decoder:
    """Runs a decoder of tensors on several images with one call of a graph."""

    # The decoder is copied for each of them: a loop in the graph took 0.05 ms an image more.
    def decode_all(data: tf.Tensor, sizes: tf.Tensor, seeds: tf.Tensor) -> list[tf.Tensor]:
        columns = (tf.unstack(column) for column in (data, sizes, seeds))
        return [decode(*image) for image in zip(*columns, strict=True)]

    runs = {
        count: _compile(
            decode_all,
            tf.TensorSpec((count,), tf.string),
            tf.TensorSpec((count, 2), tf.int32),
            tf.TensorSpec((count,), tf.int64),
        )
        for count in {1, part_images}
    }

    def place_part(tasks: Sequence[Task]) -> list[str | None]:
        data = tf.constant([task.encoded.tobytes() for task in tasks], tf.string)
        sizes = tf.constant([task.size for task in tasks], tf.int32)
        seeds = tf.constant([task.seed for task in tasks], tf.int64)
        try:
            images = runs[len(tasks)](data, sizes, seeds)
        except tf.errors.OpError as error:
            return [_describe(error)] if len(tasks) == 1 else place(tasks, 1)
        for image, task in zip(images, tasks, strict=True):
            _copy_result(image.numpy(), task.row)
        return [None] * len(tasks)

    def place(tasks: Sequence[Task], part: int = part_images) -> list[str | None]:
        whole = len(tasks) - len(tasks) % part
        parts = [tasks[begin : begin + part] for begin in range(0, whole, part)]
        parts += [[task] for task in tasks[whole:]]
        return [problem for some in parts for problem in place_part(some)]

    return place


def _resize_singly(
    images: ImagePlan, decode: Decoder, channels: int, method: str, padding: int = 0
) -> Decoder:
    """Resizes what a decoder gives, uint8 (height, width, channels), one image after the other."""
    options, scratch = images.options, Scratch()

    def resize(pixels: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        if options.crop_to_aspect_ratio:
            pixels = decoding.crop_to_ratio(pixels, size)
        return tf.image.resize(pixels, size, method)

    pixels_spec = tf.TensorSpec((None, None, channels), tf.uint8)
    run = _compile(resize, pixels_spec, tf.TensorSpec((2,), tf.int32))

    def place(task: Task) -> str | None:
        (height, width), row = task.size, task.row
        top, left, *size = 0, 0, *row.shape[:2]
        if options.pad_to_aspect_ratio:
            top, left, *size = find_inset(task.size, (row.shape[0], row.shape[1]))
            row[...] = padding
        with scratch.borrow() as memory:
            pixels = memory.take(height * width * channels).reshape(height, width, channels)
            (problem,) = decode([task._replace(row=pixels)])
            if problem is not None:
                return problem
            try:
                image = run(_share(pixels), tf.constant(size, tf.int32)).numpy()
            except tf.errors.OpError as error:
                return _describe(error)
        _copy_result(image, row[top : top + size[0], left : left + size[1]])
        return None

    return lambda tasks: [place(task) for task in tasks]


def find_inset(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where `tf.image.resize_with_pad` puts an image: top, left, height, width."""
    # Not computed in a graph: optimized, it multiplies where this divides, and is off by a row.
    sides, goals = np.array(size, np.float32), np.array(target, np.float32)
    resized = sides / (sides / goals).max()
    margins = np.maximum(np.floor((goals - resized) / 2), 0).astype(int)
    return (*margins.tolist(), *np.floor(resized).astype(int).tolist())


def _copy_result(image: Array, row: Array) -> None:
    """Copies an image to its place, rounded if that holds integers."""
    # TensorFlow would round with all threads of the process, which took a fifth of the time.
    if image.dtype != row.dtype:
        image = np.clip(np.rint(image), 0, 255).astype(row.dtype)
    decoders.copy_pixels(image, row)


def _describe(error: tf.errors.OpError) -> str:
    # Without the place in the graph.
    lines = re.sub(r"\{\{.*?\}\} ?|\s*\[Op:.*", "", error.message).splitlines()
    said = [line for line in lines if not re.match(r"\s|Graph execution|Detected at|$", line)]
    return said[0] if said else type(error).__name__


def _mirror_some(images: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
    # A `tf.where` over all images took five times as long. `tf.reverse` is quick only for rows of
    # three channels in three dimensions.
    chosen = tf.where(flips)
    taken = tf.gather_nd(images, chosen)
    shape = tf.shape(taken)
    rows = tf.reshape(taken, (-1, shape[2], shape[3]))
    mirrored = tf.reshape(tf.reverse(rows, [1]), shape)
    return tf.tensor_scatter_nd_update(images, chosen, mirrored)
