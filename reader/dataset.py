"""Shards become a `tf.data.Dataset`: one straight pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from converter.errors import UsageError
from converter.manifest import Manifest, ShardInfo
from reader.memory import PARALLEL_BATCHES, Buffers, divide_memory
from reader.options import ReadOptions
from reader.parsing import format_images, format_labels, parse_record, resize_image


def make_dataset(
    folder: Path, manifest: Manifest, split: str, options: ReadOptions
) -> tf.data.Dataset:
    """Builds the pipeline over one split, as `ShardSet.dataset` describes it.

    Raises:
        UsageError: the images cannot be batched, or the labels not be given, as asked.
    """
    shards = manifest.list_shards(split)
    _check_modes(manifest, options)
    buffers = _size_buffers(manifest, shards, options)
    cores = os.cpu_count() or 1
    shuffle = split == "train" if options.shuffle is None else options.shuffle
    classes = len(manifest.classes)

    # Empty shards are left out: they would idle in the interleave.
    names = tf.constant([str(folder / s.name) for s in shards if s.records], tf.string)
    files = tf.data.Dataset.from_tensor_slices(names)
    if shuffle:
        files = files.shuffle(len(shards), seed=options.seed)
    dataset = files.interleave(
        tf.data.TFRecordDataset,
        cycle_length=buffers.cycle if shuffle else 1,
        num_parallel_calls=min(cores, buffers.cycle) if shuffle else None,
        deterministic=True if shuffle else None,
    )
    # The count is in the manifest: `len` works, and `fit` shows the steps of the first epoch. One
    # record too few is an error at the end of the epoch instead of nothing.
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(_count(shards)))
    if shuffle:
        # Encoded records: a twelfth of the memory that decoded images take.
        dataset = dataset.shuffle(buffers.shuffle_records, seed=options.seed)
    dataset = dataset.map(
        lambda record: _decode(record, manifest, options), cores, deterministic=True
    )
    if options.batch_size is not None:
        dataset = dataset.batch(
            options.batch_size,
            drop_remainder=options.drop_remainder,
            num_parallel_calls=PARALLEL_BATCHES,
            deterministic=True,
        )
    # After batching: one cast of a whole batch instead of a float32 copy of every image.
    dataset = dataset.map(
        lambda images, labels: _format(images, labels, options, classes), 1, deterministic=True
    )
    return _finish(dataset.prefetch(buffers.prefetch_batches), manifest)


def _decode(
    record: tf.Tensor, manifest: Manifest, options: ReadOptions
) -> tuple[tf.Tensor, tf.Tensor]:
    pixels, label = parse_record(record, manifest.image)
    stored = (manifest.image.height, manifest.image.width)
    if options.image_size is not None and options.image_size != stored:
        pixels = resize_image(pixels, options.image_size, options.interpolation)
    return pixels, label


def _format(images: tf.Tensor, labels: tf.Tensor, options: ReadOptions, classes: int) -> Any:
    images = format_images(images, options.dtype)
    if options.label_mode is None:
        return images
    return images, format_labels(labels, options.label_mode, classes)


def _finish(dataset: tf.data.Dataset, manifest: Manifest) -> tf.data.Dataset:
    settings = tf.data.Options()
    # TensorFlow would add a prefetch of its own, sized by nobody.
    settings.experimental_optimization.inject_prefetch = False
    settings.deterministic = True
    # As many threads as cores, and not those of the model: with TensorFlow's shared pool, every
    # other epoch ran on one of two cores alone (measured: 1,950 or 3,400 images a second).
    settings.threading.private_threadpool_size = os.cpu_count() or 1
    dataset = dataset.with_options(settings)
    dataset.class_names = list(manifest.classes)
    return dataset


def _check_modes(manifest: Manifest, options: ReadOptions) -> None:
    if options.label_mode == "binary" and len(manifest.classes) != 2:
        raise UsageError(
            f"label_mode 'binary' takes 2 classes, this data set has {len(manifest.classes)}: "
            "use 'int' or 'categorical'"
        )
    if options.batch_size and options.image_size is None and manifest.image.height is None:
        raise UsageError(
            "the stored images differ in size and cannot be batched as they are: "
            "give image_size=(height, width) to resize them, or batch_size=None for single ones"
        )


def _size_buffers(manifest: Manifest, shards: Sequence[ShardInfo], options: ReadOptions) -> Buffers:
    image = manifest.image
    stored = image.max_height * image.max_width * image.channels
    height, width = options.image_size or (image.max_height, image.max_width)
    given = height * width * image.channels
    value_bytes = 1 if options.dtype == "uint8" else 4
    return divide_memory(
        options.max_ram_bytes,
        shards=len(shards),
        records=_count(shards),
        # Where every image was rejected there is no largest record.
        record_bytes=max(1, *(shard.max_record_bytes for shard in shards)),
        batch_bytes=given * value_bytes * (options.batch_size or 1),
        # `tf.image.resize` gives float32, whatever is asked for.
        image_bytes=stored + (4 * given if options.image_size else 0),
        cores=os.cpu_count() or 1,
    )


def _count(shards: Sequence[ShardInfo]) -> int:
    return sum(shard.records for shard in shards)
