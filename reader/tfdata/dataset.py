"""A plan becomes a `tf.data.Dataset`: one straight pipeline of steps.

steps -> read (Python, by index) -> decode (TensorFlow's threads) -> gather into lent arrays
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import tensorflow as tf

from converter.errors import DatasetError, RecordError
from converter.format import examples
from reader.arrays import Array
from reader.batches.batch_reader import BatchReader, Examples
from reader.batches.buffer_pool import BufferPool
from reader.batches.image_cache import ImageCache, fill_cache
from reader.plan.fingerprint import describe_plan
from reader.plan.options import COLOR_CHANNELS
from reader.plan.read_plan import SINGLES, ReadPlan
from reader.records.damage import RecentSteps
from reader.records.malloc import LEFT_BYTES, keep_heap
from reader.tfdata.decoding import (
    describe_refusal,
    encode_filler,
    encode_mask_filler,
    format_labels,
    make_decoder,
    make_mask_decoder,
)
from reader.tfdata.details import make_label, parse_details
from reader.tfdata.pipeline import (
    Columns,
    apply_settings,
    call_python,
    count_cores,
    count_steps,
    map_elements,
)

# Of the columns of `Examples`, in order; the shapes without their first axis.
EXAMPLE_TYPES: Final = (tf.bool, tf.int32, tf.string, tf.int32, tf.int64, tf.string, tf.string)
EXAMPLE_SHAPES: Final = ((), (), (), (2,), (), (), ())

DECODED_SPECS: Final = tuple(map(tf.TensorSpec, EXAMPLE_SHAPES[2:5], EXAMPLE_TYPES[2:5]))
"""Of those columns, what an image is decoded from."""


def make_dataset(plan: ReadPlan) -> tf.data.Dataset:
    """Builds the pipeline that `ShardSet.dataset` describes."""
    steps = count_steps(plan.position, plan.reader.steps.count, plan.buffers.kept_bytes)
    if plan.options.batch_size is None:
        dataset = _decode_singles(plan, steps)
    elif plan.is_direct or plan.options.cache:
        dataset = _read_ready(plan, steps)
    else:
        dataset = _decode_batches(plan, steps)
    dataset = map_elements(dataset, lambda *columns: format_element(plan, [*columns]))
    return _finish(dataset.prefetch(plan.buffers.prefetch_batches), plan)


def make_ready_reader(plan: ReadPlan) -> Callable[[int, int], tuple[Array, ...]]:
    """A function of epoch and step that needs no decoder: (images, labels, mask, names).

    The images are read, or copied from the cache, straight into a batch. From the cache, masks may
    come behind them.
    """
    if plan.options.cache:
        return _make_cached_reader(plan, fill_cache(plan, make_dataset))
    return _make_image_reader(plan, plan.reader)


def _make_image_reader(
    plan: ReadPlan, source: BatchReader | ImageCache
) -> Callable[[int, int], tuple[Array, ...]]:
    given = BufferPool(_given_shape(plan), plan.options.dtype, plan.buffers.batches)
    stored_as = (plan.decoded_dtype, "channels_last")
    as_given = (plan.options.dtype, plan.options.data_format) == stored_as
    stored = BufferPool(_batch_shape(plan), plan.decoded_dtype, plan.buffers.calls)

    def read(epoch: int, step: int) -> tuple[Array, ...]:
        rows = (given if as_given else stored).take()
        examples = source.read_images(int(epoch), int(step), rows)
        images = rows if as_given else _copy_images(given.take(), rows, plan)
        return _compact(plan, images, examples.valid, examples.labels, examples.names)

    return read


def _make_cached_reader(
    plan: ReadPlan, cache: ImageCache
) -> Callable[[int, int], tuple[Array, ...]]:
    read_images = _make_image_reader(plan, cache)
    if not plan.given.masks:
        return read_images
    pool = BufferPool(_mask_shape(plan), "uint8", plan.buffers.batches)

    def read(epoch: int, step: int) -> tuple[Array, ...]:
        masks = pool.take()
        valid = cache.read_masks(int(epoch), int(step), masks)
        return (*read_images(epoch, step), _compact_images(plan, masks, valid))

    return read


def make_gatherer(plan: ReadPlan) -> Callable[..., tuple[Array, ...]]:
    """A function of which records are valid, labels, names and then all decoded images and masks.

    It copies the images into a batch, and gives (images, labels, mask, names), where `mask` says
    which are there; and the masks of all images, if they are given, as another batch.
    """
    pool = BufferPool(_given_shape(plan), plan.options.dtype, plan.buffers.batches)
    mask_pool = BufferPool(_mask_shape(plan), "uint8", plan.buffers.batches)

    def fill(rows: Array, valid: Array, images: Sequence[Array]) -> Array:
        for row, image, wanted in zip(rows, images, valid, strict=True):
            if wanted:
                _copy_images(row, image, plan)
        return rows

    def gather(valid: Array, labels: Array, names: Array, *images: Array) -> tuple[Array, ...]:
        rows = fill(pool.take(), valid, images[: len(valid)])
        gathered = _compact(plan, rows, valid, labels, names)
        if not plan.given.masks:
            return gathered
        masks = fill(mask_pool.take(), valid, images[len(valid) :])
        return (*gathered, _compact_images(plan, masks, valid))

    return gather


def make_batch_decoder(plan: ReadPlan) -> Callable[..., Columns]:
    """A function of the columns of `Examples`, in a graph: images, labels, mask, names, masks.

    Decoding a batch in one call instead of image by image saves what tf.data spends on every
    element and every copy: 4,200 instead of 3,700 images a second on two cores.
    """
    batch_size = plan.reader.steps.batch_size
    decoders = make_decoders(plan)
    if plan.is_resized or plan.options.random_flip:
        # Traced once and kept in one piece: 256 copies of a random crop in a graph took 9 seconds
        # to be made and 3.5 in every epoch, instead of 0.8 and 0.6. To decode alone is one piece.
        decoders = [
            tf.function(
                decode,
                input_signature=DECODED_SPECS,
                autograph=False,
                experimental_attributes={"_noinline": True},
            )
            for decode in decoders
        ]
    gather = make_gatherer(plan)

    def call(*columns: tf.Tensor) -> Columns:
        valid, labels, encoded, sizes, seeds, names, masks = columns
        images = [
            decode(*image)
            for decode, data in zip(decoders, (encoded, masks), strict=False)
            for image in zip(
                tf.unstack(data, batch_size),
                tf.unstack(sizes, batch_size),
                tf.unstack(seeds, batch_size),
                strict=True,
            )
        ]
        gathered = call_python(gather, [valid, labels, names, *images], _types(plan))
        return _set_shapes(plan, gathered)

    return call


def make_decoders(plan: ReadPlan) -> list[Callable[..., tf.Tensor]]:
    """That of images, and behind it that of masks, if they are given."""
    decoders = [make_decoder(plan.image, plan.options)]
    if plan.given.masks:
        decoders.append(make_mask_decoder(plan.image, plan.options, plan.given.mask_padding))
    return decoders


def _read_ready(plan: ReadPlan, steps: tf.data.Dataset) -> tf.data.Dataset:
    read = make_ready_reader(plan)

    def call(epoch: tf.Tensor, step: tf.Tensor) -> Columns:
        return _set_shapes(plan, call_python(read, [epoch, step], _types(plan)))

    # One at a time: threads of Python wait for each other at every record, and two of them gave
    # 6,800 to 9,200 images a second where one alone reads 12,000.
    return map_elements(steps, call, 1)


def _decode_batches(plan: ReadPlan, steps: tf.data.Dataset) -> tf.data.Dataset:
    examples = _read_examples(plan, steps, plan.reader.steps.batch_size).prefetch(1)
    return map_elements(examples, make_batch_decoder(plan), plan.buffers.calls)


def _decode_singles(plan: ReadPlan, steps: tf.data.Dataset) -> tf.data.Dataset:
    """Reads some records at once, and decodes each by itself."""
    decoders = make_decoders(plan)

    def call(*columns: tf.Tensor) -> Columns:
        valid, label, encoded, size, seed, name, mask = columns
        pairs = zip(decoders, (encoded, mask), strict=False)
        images = [decode(data, size, seed) for decode, data in pairs]
        images[0] = tf.cast(images[0], plan.options.dtype)
        if plan.options.remainder == "pad":
            images = [tf.where(valid, image, tf.zeros_like(image)) for image in images]
            label = tf.where(valid, label, 0)
        if plan.options.data_format == "channels_first":
            images = [tf.transpose(image, (2, 0, 1)) for image in images]
        image, *masks = images
        return [image, label, tf.cast(valid, tf.float32), name, *masks]

    # The last block is smaller, and `take` makes up for what `unbatch` is told of it.
    singles = _read_examples(plan, steps.batch(SINGLES), SINGLES).unbatch()
    return map_elements(singles.take(plan.reader.steps.count), call, 2 * count_cores())


def _read_examples(plan: ReadPlan, steps: tf.data.Dataset, records: int) -> tf.data.Dataset:
    reader = with_filler(plan)
    recent = RecentSteps(functools.partial(find_undecoded, plan))
    last = plan.reader.steps.count - 1
    compact = plan.options.batch_size is None and plan.options.remainder != "pad"

    def read(epoch: Array, steps: Array) -> list[Array]:
        asked = int(np.ravel(epoch)[0]), np.ravel(steps).tolist()
        recent.note(*asked)
        if asked[1][-1] == last:
            keep_heap(LEFT_BYTES)
        examples = reader.read_examples(*asked)
        columns = [getattr(examples, field.name) for field in dataclasses.fields(examples)]
        return [column[examples.valid] for column in columns] if compact else columns

    def call(epoch: tf.Tensor, steps: tf.Tensor) -> Columns:
        columns: Columns = call_python(read, [epoch, steps], EXAMPLE_TYPES)
        for column, shape in zip(columns, EXAMPLE_SHAPES, strict=True):
            column.set_shape((records, *shape))
        return columns

    # One at a time: reading takes a thirtieth of the time that decoding takes.
    return map_elements(steps, call)


def find_undecoded(plan: ReadPlan, epoch: int, steps: Sequence[int]) -> RecordError | None:
    """The error of the first image of some steps that cannot be decoded, tried one by one."""
    examples = plan.reader.read_examples(epoch, steps)
    for slot, images in enumerate(decode_singly(plan, examples)):
        if isinstance(images, str):
            return plan.reader.describe(epoch, steps, slot, images)
    return None


def decode_singly(
    plan: ReadPlan, examples: Examples
) -> Iterator[tuple[tf.Tensor, ...] | str | None]:
    """Each image, and its mask if it is given; or what a decoder said that did not take it.

    None where there is no image.
    """
    decoders = make_decoders(plan)
    columns = (examples.valid, examples.sizes, examples.seeds, examples.encoded, examples.masks)
    for valid, size, seed, *encoded in zip(*columns, strict=True):
        pairs = zip(decoders, encoded, strict=False)
        place = tf.constant(size), tf.constant(seed)
        try:
            yield tuple(d(tf.constant(data), *place) for d, data in pairs) if valid else None
        except tf.errors.InvalidArgumentError as error:
            yield describe_refusal(error)


def with_filler(plan: ReadPlan) -> BatchReader:
    """The reader of a plan, with something to decode where a batch has no record."""
    return dataclasses.replace(
        plan.reader, filler=encode_filler(plan.image), mask_filler=encode_mask_filler()
    )


def _compact(
    plan: ReadPlan, images: Array, valid: Array, labels: Array, names: Array
) -> tuple[Array, Array, Array, Array]:
    """Moves together what is valid, or blanks what is not, as `remainder` says."""
    images = _compact_images(plan, images, valid)
    if plan.options.remainder == "pad":
        labels = np.where(valid, labels, np.int32(0))
        return images, labels, valid.astype(np.float32), names
    return images, labels[valid], valid[valid].astype(np.float32), names[valid]


def _compact_images(plan: ReadPlan, images: Array, valid: Array) -> Array:
    if plan.options.remainder == "pad":
        images[~valid] = 0
        return images
    count = int(valid.sum())
    if not count:
        raise DatasetError("not one record of a batch is whole: run shardmill verify")
    if not valid[:count].all():
        images[:count] = images[valid]
    return images[:count]


def _copy_images(rows: Array, images: Array, plan: ReadPlan) -> Array:
    """Copies one image, or several, into the shape and dtype that are asked for."""
    if plan.options.data_format == "channels_first":
        images = np.moveaxis(images, -1, -3)
    np.copyto(rows, images, casting="unsafe")
    return rows


def format_element(plan: ReadPlan, columns: Columns) -> Any:
    """What the caller gets of images, labels, mask, names or what stands for them, and masks."""
    images, labels, mask, names, *masks = columns
    element = [images]
    given, parsed = plan.given, {}
    if given.needed:
        single = plan.options.batch_size is None
        parsed = parse_details(names, given.needed, single=single)
        names = parsed[examples.SOURCE_ID]
    if given.masks:
        element += masks
    elif given.label is not None:
        element.append(make_label(given.label, parsed, given))
    elif plan.options.label_mode is not None and plan.has_classes:
        element.append(format_labels(labels, plan.options.label_mode, len(plan.class_names)))
    if plan.options.remainder == "pad":
        element.append(mask)
    if plan.options.with_filename:
        element.append(names)
    if given.columns:
        element.append({name: parsed[column.name] for name, column in given.columns.items()})
    return tuple(element) if len(element) > 1 else images


def _finish(dataset: tf.data.Dataset, plan: ReadPlan) -> tf.data.Dataset:
    dataset = apply_settings(dataset)
    dataset.class_names = plan.class_names
    dataset.file_paths = plan.file_paths
    dataset.position = plan.position
    dataset.epoch_fingerprint = describe_plan(plan)
    dataset.damage = plan.reader.damage
    return dataset


def _types(plan: ReadPlan) -> tuple[tf.DType, ...]:
    types = (tf.as_dtype(plan.options.dtype), tf.int32, tf.float32, tf.string)
    return (*types, tf.uint8) if plan.given.masks else types


def _set_shapes(plan: ReadPlan, columns: Columns) -> Columns:
    batch_size = plan.reader.steps.batch_size if plan.options.remainder != "keep" else None
    shapes = (_given_shape(plan)[1:], (), (), (), _mask_shape(plan)[1:])
    for column, shape in zip(columns, shapes, strict=False):  # of masks, if there are any
        column.set_shape((batch_size, *shape))
    return columns


def _batch_shape(plan: ReadPlan) -> tuple[int, ...]:
    if plan.height is None or plan.width is None:
        raise AssertionError("images of different sizes have no batch")
    channels = COLOR_CHANNELS[plan.options.color_mode]
    return (plan.reader.steps.batch_size, plan.height, plan.width, channels)


def _mask_shape(plan: ReadPlan) -> tuple[int, ...]:
    batch_size, height, width, _ = _batch_shape(plan)
    is_first = plan.options.data_format == "channels_first"
    return (batch_size, 1, height, width) if is_first else (batch_size, height, width, 1)


def _given_shape(plan: ReadPlan) -> tuple[int, ...]:
    batch_size, height, width, channels = _batch_shape(plan)
    if plan.options.data_format == "channels_first":
        return (batch_size, channels, height, width)
    return (batch_size, height, width, channels)
