"""Columns of records as tensors: parsed by TensorFlow from whole records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import tensorflow as tf

from converter.format import examples
from converter.format.schema import Column
from reader.batches.elements import BOX, NOTHING
from reader.plan.columns import Given

TYPES: Final = {bytes: tf.string, int: tf.int64, float: tf.float32}


def parse_details(
    details: tf.Tensor, columns: Iterable[Column], *, single: bool
) -> dict[str, tf.Tensor]:
    """The columns of some records, and the paths of their originals.

    Args:
        details: the records, string (batch,), or () of a single one.
        columns: which.
        single: whether it is a single one.

    Returns:
        by feature: tensors (batch,), or ragged tensors (batch, None), of boxes (batch, None, 4); of
        a single record without `batch`, none of them ragged.
    """
    paths = tf.io.FixedLenFeature((), tf.string, "")
    features = {column.name: _describe(column) for column in columns}
    details = details[None] if single else details
    parsed = tf.io.parse_example(details, {**features, examples.SOURCE_ID: paths})
    if not single:
        return dict(parsed)
    return {name: value[0] for name, value in parsed.items()}


def make_label(label: Column, parsed: Mapping[str, tf.Tensor], given: Given) -> tf.Tensor:
    """What is given as label: a number, float32 (…,), or 0 and 1, float32 (…, classes)."""
    value = parsed[label.name]
    if label.kind != "labels":
        return tf.cast(value, tf.float32)
    numbers = value.to_tensor(-1) if isinstance(value, tf.RaggedTensor) else value
    hot = tf.minimum(tf.reduce_sum(tf.one_hot(numbers, given.classes), axis=-2), 1.0)
    hot.set_shape((*hot.shape[:-1], given.classes))
    return hot


def _describe(column: Column) -> Any:
    kind = TYPES[column.type]
    if column.is_scalar:
        return tf.io.FixedLenFeature((), kind, NOTHING[column.type])
    fours = [tf.io.RaggedFeature.UniformRowLength(BOX)] if column.kind == "boxes" else []
    return tf.io.RaggedFeature(kind, partitions=fours)
