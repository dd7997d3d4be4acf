"""Builds a `tf.data.Dataset` from TensorFlow's own operations alone, without calls of Python.

shuffled shards -> records of several in turn -> a window of shuffled records -> decode -> batch

So the pipeline can be saved, run by processes without our code, and saved in the middle of an epoch
by `tf.train.Checkpoint`. Records are compared with the manifest as the engine does it.
"""

import functools
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

import tensorflow as tf

from converter.format import examples
from converter.format.manifest import ImageInfo
from converter.format.schema import MASK, Column
from reader.arrays import Array
from reader.batches.batch import BLANKS, BOX, order_parts
from reader.examples.fields import NUMBERS
from reader.examples.image_headers import MAX_SCANS
from reader.plan.memory import OPEN_SHARDS, READ_BYTES, TURN_RECORDS
from reader.plan.read_plan import ReadPlan
from reader.tfdata.dataset import Columns, choose_settings, leave_alone, silence_keras
from reader.tfdata.decoding import format_labels, make_decoder, make_mask_decoder

# Buffer for shuffling shards. With all of them in it, one worker of a tf.data service could take
# every shard.
SHUFFLED_SHARDS: Final = 16

_TYPES: Final = {bytes: tf.string, int: tf.int64, float: tf.float32}
_SIDE: Final = 1 << 14  # sides in a WebP have 14 bits


def make_serializable(plan: ReadPlan) -> tf.data.Dataset:
    """Builds the pipeline that `ShardSet.dataset` describes for `serializable`."""
    options, seed, buffers = plan.options, plan.options.seed, plan.buffers
    silence_keras(options)
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
        labels = plan.choice.labels
        dataset = dataset.filter(leave_alone(lambda record, _: _is_wanted(record, labels)))
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
    path, count = shard
    records = tf.data.TFRecordDataset(path, buffer_size=READ_BYTES)
    # No checksum is wrong in a shard that was cut off between two records.
    records = records.apply(tf.data.experimental.assert_cardinality(count))
    return tf.data.Dataset.zip((records, tf.data.Dataset.random(seed)))


def _is_wanted(record: tf.Tensor, labels: Array) -> tf.Tensor:
    number = {examples.LABEL: tf.io.FixedLenFeature((), tf.int64)}
    stored = tf.io.parse_single_example(record, number)[examples.LABEL]
    return tf.gather(labels, stored) >= 0


def _make_decoder(plan: ReadPlan) -> Callable[[tf.Tensor, tf.Tensor], Columns]:
    """Makes a function from a record and its seed to what `_format_element` takes."""
    image, options, given, choice = plan.images.stored, plan.options, plan.given, plan.choice
    decode_image = make_decoder(plan.images)
    decode_mask = make_mask_decoder(plan.images, given.mask_padding)
    features = {
        name: tf.io.FixedLenFeature((), tf.int64 if name in NUMBERS else tf.string)
        for name in given.features
    }
    features[examples.SOURCE_ID] = tf.io.FixedLenFeature((), tf.string, "")

    def decode(record: tf.Tensor, seed: tf.Tensor) -> Columns:
        fields = tf.io.parse_single_example(record, features)
        size, checks = _check_fields(fields, image, given.classes)
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
        if choice.labels is not None:
            label = tf.gather(choice.labels, label)
        name = record if given.needed else fields[examples.SOURCE_ID]
        return [pictures[0], tf.cast(label, tf.int32), name, *pictures[1:]]

    return decode


def _format_element(plan: ReadPlan, columns: Columns) -> Any:
    """Does in a graph what `batch.format_batch` does with arrays."""
    images, labels, names, *masks = columns
    given, parsed, label = plan.given, {}, None
    if given.needed:
        parsed = _parse_columns(names, given.needed, single=plan.options.batch_size is None)
        names = parsed[examples.SOURCE_ID]
    if given.label is not None:
        label = _make_label(given.label, parsed, plan.given.classes)
    elif plan.options.label_mode is not None and plan.has_classes:
        label = format_labels(labels, plan.options.label_mode, len(plan.choice.class_names))
    extra = {name: parsed[column.name] for name, column in given.columns.items()}
    names = names if plan.options.with_filename else None
    return order_parts(plan, images, masks[0] if masks else None, label, names, extra or None)


def _parse_columns(
    records: tf.Tensor, columns: Iterable[Column], *, single: bool
) -> dict[str, tf.Tensor]:
    """Parses records, string (batch,), or a single one, string (), for which nothing is ragged."""
    features = {column.name: _describe(column) for column in columns}
    features[examples.SOURCE_ID] = tf.io.FixedLenFeature((), tf.string, "")
    parsed = tf.io.parse_example(records[None] if single else records, features)
    return {name: value[0] if single else value for name, value in parsed.items()}


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


def _check_fields(
    fields: Mapping[str, tf.Tensor], image: ImageInfo, classes: int
) -> tuple[tf.Tensor, list[tf.Operation]]:
    """Returns the size of a record's image, int32 (2,), and assertions about the record."""
    encoded, name = fields[examples.ENCODED], fields[examples.SOURCE_ID]
    checks = []

    def require(condition: tf.Tensor, *said: object) -> None:
        said = ("the record of", name, "holds", *said)
        checks.append(tf.raw_ops.Assert(condition=condition, data=said, summarize=9))

    if image.is_raw:
        size = tf.stack([fields[examples.HEIGHT], fields[examples.WIDTH]])
    else:
        size = _measure_header(encoded, image.formats)
    least, most = (image.height or 1, image.width or 1), (image.max_height, image.max_width)
    fits = tf.reduce_all((size >= least) & (size <= most))
    require(fits, "an image of", size, "pixels, expected up to", most)
    if "jpeg" in image.formats:
        # Each scan can cover the whole image.
        scans = tf.size(tf.raw_ops.StringSplitV2(input=[encoded], sep=b"\xff\xda").values) - 1
        require(scans <= MAX_SCANS, "an image of", scans, "scans, expected up to", MAX_SCANS)
    if MASK in fields:
        mask_size = _measure_png(fields[MASK])
        require(tf.reduce_all(mask_size == size), "a mask of", mask_size, "pixels for", size)
    if examples.LABEL in fields:
        label = fields[examples.LABEL]
        require((label >= 0) & (label < classes), "label", label, "of", classes, "classes")
    return tf.cast(size, tf.int32), checks


def _measure_header(encoded: tf.Tensor, formats: Collection[str]) -> tf.Tensor:
    """The height and width in a header, int64 (2,); zeros if it is of another format."""
    known = [_MEASURES[name] for name in _MEASURES if name in formats]
    if len(known) == 1:
        return known[0][1](encoded)
    size = tf.zeros(2, tf.int64)
    for start, measure in known:
        is_known = _starts_at(encoded, 0, start)
        size = tf.cond(is_known, functools.partial(measure, encoded), lambda size=size: size)
    return size


def _measure_png(encoded: tf.Tensor) -> tf.Tensor:
    is_png = _starts_at(encoded, 0, b"\x89PNG\r\n\x1a\n") & _starts_at(encoded, 12, b"IHDR")
    sides = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
    sides = tf.cast(tf.reverse(tf.ensure_shape(sides, (2,)), [0]), tf.int64)
    return tf.where(is_png, sides, tf.zeros_like(sides))


def _measure_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    data = tf.io.decode_raw(tf.strings.substr(encoded, 20, 10), tf.uint8)
    data = tf.cast(tf.ensure_shape(data, (10,)), tf.int64)

    def read(begin: int, end: int) -> tf.Tensor:
        return tf.reduce_sum(data[begin:end] * [256**place for place in range(end - begin)])

    bits = read(1, 5)
    sizes = {
        b"VP8X": tf.stack([read(7, 10), read(4, 7)]) + 1,
        b"VP8L": tf.stack([bits // _SIDE % _SIDE, bits % _SIDE]) + 1,
        b"VP8 ": tf.stack([read(8, 10), read(6, 8)]) % _SIDE,
    }
    is_webp = _starts_at(encoded, 0, b"RIFF") & _starts_at(encoded, 8, b"WEBP")
    found = tf.zeros(2, tf.int64)
    for name, size in sizes.items():
        found = tf.where(is_webp & _starts_at(encoded, 12, name), size, found)
    return found


def _starts_at(encoded: tf.Tensor, begin: int, expected: bytes) -> tf.Tensor:
    return tf.strings.substr(encoded, begin, len(expected)) == expected


_MEASURES: Final[dict[str, tuple[bytes, Callable[[tf.Tensor], tf.Tensor]]]] = {
    "jpeg": (b"\xff", lambda encoded: tf.io.extract_jpeg_shape(encoded, tf.int64)[:2]),
    "png": (b"\x89", _measure_png),
    "webp": (b"R", _measure_webp),
}
