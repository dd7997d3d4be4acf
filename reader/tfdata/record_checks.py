"""Compares records with the manifest in a graph, before a decoder trusts their headers.

`reader.batches` does the same without TensorFlow. Of a header that is cut off, TensorFlow's own
operations raise the error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Final

import tensorflow as tf

from converter.format import examples
from converter.format.manifest import ImageInfo
from converter.format.schema import MASK
from reader.examples.image_headers import MAX_SCANS

_BYTE: Final = 256
_SIDE: Final = 1 << 14  # sides in a WebP have 14 bits


def check_fields(
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
    known = [name for name in _MEASURES if name in formats]
    if len(known) == 1:
        return _MEASURES[known[0]](encoded)
    start = tf.strings.substr(encoded, 0, 1)
    size = tf.zeros(2, tf.int64)
    for name in known:
        measure = functools.partial(_MEASURES[name], encoded)
        size = tf.cond(start == _STARTS[name], measure, lambda size=size: size)
    return size


def _measure_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.extract_jpeg_shape(encoded, tf.int64)[:2]


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
        return tf.reduce_sum(data[begin:end] * [_BYTE**place for place in range(end - begin)])

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


_MEASURES: Final[dict[str, Callable[[tf.Tensor], tf.Tensor]]] = {
    "jpeg": _measure_jpeg,
    "png": _measure_png,
    "webp": _measure_webp,
}
_STARTS: Final = {"jpeg": b"\xff", "png": b"\x89", "webp": b"R"}
