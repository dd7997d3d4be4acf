"""Builds a `tf.data.Dataset` from TensorFlow's own operations alone, without calls of Python.

shuffled shards -> records of several in turn -> a window of shuffled records -> decode -> batch

So the pipeline can be saved, run by processes without our code, and saved in the middle of an epoch
by `tf.train.Checkpoint`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import tensorflow as tf

from converter.format import examples
from converter.format.schema import MASK, Column
from reader.arrays import Array
from reader.batches.elements import BLANKS, BOX, order_parts
from reader.plan.memory import OPEN_SHARDS, READ_BYTES, TURN_RECORDS
from reader.plan.read_plan import ReadPlan
from reader.tfdata.decoding import format_labels, make_decoder, make_mask_decoder
from reader.tfdata.pipeline import Columns, choose_settings, leave_alone
from reader.tfdata.record_checks import check_fields

# Buffer for shuffling shards. With all of them in it, one worker of a tf.data service could take
# every shard.
SHUFFLED_SHARDS: Final = 16

_TYPES: Final = {bytes: tf.string, int: tf.int64, float: tf.float32}


def make_serializable(plan: ReadPlan) -> tf.data.Dataset:
    """Builds the pipeline that `ShardSet.dataset` describes for `serializable`."""
    options, seed, buffers = plan.options, plan.options.seed, plan.buffers
    shuffled = options.shuffle == "buffer"
    paths = [os.fsencode(str(file.path)) for file in plan.files.files]
    counts = [file.records for file in plan.files.files]
    dataset = tf.data.Dataset.from_tensor_slices((paths, tf.constant(counts, tf.int64)))
    # Random seeds are zipped with shards, not with records: a second source beside the records
    # would keep a tf.data service from dividing them by files.
    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    dataset = tf.data.Dataset.zip((dataset, seeds))
    if shuffled:
        dataset = dataset.shuffle(SHUFFLED_SHARDS, seed)
    # One shard after another keeps the order in which they were written.
    shards = OPEN_SHARDS if shuffled else 1
    dataset = dataset.interleave(
        leave_alone(_open_shard), shards, TURN_RECORDS, shards, deterministic=True
    )
    if plan.choice.labels is not None and plan.choice.labels.min() < 0:
        dataset = dataset.filter(leave_alone(_make_filter(plan.choice.labels)))
    # A host may have more records than others, but takes no more steps.
    dataset = dataset.take(plan.steps.records)
    if shuffled:
        # Encoded, a record takes a tenth of the memory.
        dataset = dataset.shuffle(max(1, buffers.window), seed)
    decode = leave_alone(_make_decoder(plan))
    dataset = dataset.map(decode, buffers.calls, deterministic=True)
    if options.batch_size is not None:
        # TensorFlow fuses this with `map`: the thread that decodes an image copies it to its place.
        dataset = dataset.batch(options.batch_size, drop_remainder=options.remainder == "drop")
    # After batching, because ragged columns become one tensor in no other way.
    dataset = dataset.map(leave_alone(lambda *columns: _format_element(plan, [*columns])))
    settings = choose_settings()
    settings.experimental_optimization.map_and_batch_fusion = True
    # As many threads as the machine that runs it has cores, which may be another one.
    settings.threading.private_threadpool_size = 0
    dataset = dataset.prefetch(buffers.prefetch_batches).with_options(settings)
    # Not `assert_cardinality`, which would fail in a worker that reads only a part.
    steps = tf.constant(plan.steps.count, tf.int64)
    dataset.cardinality = lambda: steps
    dataset.class_names = plan.choice.class_names
    return dataset


def _open_shard(shard: tuple[tf.Tensor, tf.Tensor], seed: tf.Tensor) -> tf.data.Dataset:
    """Reads a shard's records, each with a seed of its own."""
    path, count = shard
    records = tf.data.TFRecordDataset(path, buffer_size=READ_BYTES)
    # No checksum is wrong in a shard that was cut off between two records.
    records = records.apply(tf.data.experimental.assert_cardinality(count))
    return tf.data.Dataset.zip((records, tf.data.Dataset.random(seed)))


def _make_filter(labels: Array) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    def is_wanted(record: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        number = {examples.LABEL: tf.io.FixedLenFeature((), tf.int64)}
        stored = tf.io.parse_single_example(record, number)[examples.LABEL]
        return tf.gather(labels, stored) >= 0

    return is_wanted


def _make_decoder(plan: ReadPlan) -> Callable[[tf.Tensor, tf.Tensor], Columns]:
    """Makes a function from a record and its seed to what `_format_element` takes."""
    image, options, given, choice = plan.images.stored, plan.options, plan.given, plan.choice
    decode_image = make_decoder(plan.images)
    decode_mask = make_mask_decoder(plan.images, given.mask_padding)
    texts = (examples.ENCODED, *(MASK,) * given.masks)
    numbers = (examples.LABEL,) * given.labelled
    numbers += (examples.HEIGHT, examples.WIDTH) * image.is_raw
    features = {name: tf.io.FixedLenFeature((), tf.string) for name in texts}
    features |= {name: tf.io.FixedLenFeature((), tf.int64) for name in numbers}
    features[examples.SOURCE_ID] = tf.io.FixedLenFeature((), tf.string, "")

    def decode(record: tf.Tensor, seed: tf.Tensor) -> Columns:
        fields = tf.io.parse_single_example(record, features)
        size, checks = check_fields(fields, image, given.classes)
        with tf.control_dependencies(checks):  # before a decoder takes memory
            fields = {name: tf.identity(value) for name, value in fields.items()}
        pixels = tf.cast(decode_image(fields[examples.ENCODED], size, seed), options.dtype)
        pixels.set_shape((None, None, plan.images.channels))
        pictures = [pixels]
        if given.masks:
            pictures.append(decode_mask(fields[MASK], size, seed))
        if options.data_format == "channels_first":
            pictures = [tf.transpose(picture, (2, 0, 1)) for picture in pictures]
        label = fields.get(examples.LABEL, tf.constant(0, tf.int64))
        label = tf.cast(
            label if choice.labels is None else tf.gather(choice.labels, label), tf.int32
        )
        name = record if given.needed else fields[examples.SOURCE_ID]
        return [pictures[0], label, name, *pictures[1:]]

    return decode


def _format_element(plan: ReadPlan, columns: Columns) -> Any:
    """Does in a graph what `elements.format_batch` does with arrays."""
    images, labels, names, *masks = columns
    given, parsed, label = plan.given, {}, None
    if given.needed:
        parsed = _parse_columns(names, given.needed, single=plan.options.batch_size is None)
        names = parsed[examples.SOURCE_ID]
    if given.label is not None:
        label = _make_label(given.label, parsed, plan.given.classes)
    elif plan.options.label_mode is not None and plan.has_classes:
        label = format_labels(labels, plan.options.label_mode, len(plan.choice.class_names))
    return order_parts(
        plan,
        images=images,
        masks=masks[0] if masks else None,
        label=label,
        weights=None,  # `pad` is refused
        names=names,
        columns={name: parsed[column.name] for name, column in given.columns.items()},
    )


def _parse_columns(
    records: tf.Tensor, columns: Iterable[Column], *, single: bool
) -> dict[str, tf.Tensor]:
    """Parses the columns and names of records, string (batch,), or of a single one, string ().

    Gives tensors (batch,), ragged (batch, None), or of boxes (batch, None, 4); without `batch`, and
    not ragged, for a single record.
    """
    features = {column.name: _describe(column) for column in columns}
    features[examples.SOURCE_ID] = tf.io.FixedLenFeature((), tf.string, "")
    if not single:
        return dict(tf.io.parse_example(records, features))
    parsed = tf.io.parse_example(records[None], features)
    return {name: value[0] for name, value in parsed.items()}


def _describe(column: Column) -> Any:
    kind = _TYPES[column.type]
    if column.is_scalar:
        return tf.io.FixedLenFeature((), kind, BLANKS[column.type])
    fours = [tf.io.RaggedFeature.UniformRowLength(BOX)] if column.kind == "boxes" else []
    return tf.io.RaggedFeature(kind, partitions=fours)


def _make_label(label: Column, parsed: Mapping[str, tf.Tensor], classes: int) -> tf.Tensor:
    """Makes a label of a column: a number, float32 (…,), or 0 and 1, float32 (…, classes)."""
    value = parsed[label.name]
    if label.kind != "labels":
        return tf.cast(value, tf.float32)
    numbers = value.to_tensor(-1) if isinstance(value, tf.RaggedTensor) else value
    hot = tf.minimum(tf.reduce_sum(tf.one_hot(numbers, classes), axis=-2), 1.0)
    hot.set_shape((*hot.shape[:-1], classes))
    return hot
