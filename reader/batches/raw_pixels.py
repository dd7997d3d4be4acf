"""Images that are stored raw, read straight into the batch they belong to.

The bytes are copied once, by the system, from its cache to their place in the batch; the checksum
is computed there, while they are still in the processor's cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import Final

import google_crc32c
import numpy as np
import numpy.typing as npt

from converter.format import examples
from converter.format.tfrecords import (
    FOOTER_BYTES,
    FRAMING_BYTES,
    HEADER_BYTES,
    LENGTH_BYTES,
    mask_crc,
)
from reader.arrays import Array, Bytes, Flags, Numbers
from reader.examples.vector_parse import find_spans, read_numbers
from reader.records.blocks import read_integers
from reader.records.files import Group, open_file
from reader.records.record_files import RecordFiles

HEAD_BYTES: Final = 512
"""Holds all that comes before an image's bytes, unless a class has a name of 400 letters."""

MAX_REST_BYTES: Final = 1 << 16
"""Of a record besides its image; what has more is read alone, as `max_ram` does not count it."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """Records up to the bytes of their images, in the order in which they lie on disk.

    Attributes:
        data: uint8 (records, HEAD_BYTES).
        labels: int64 (records,).
        begins: int64 (records,), where each image begins in its record.
        sizes: int64 (records,), of the whole record.
        sound: bool (records,), whether all that can be checked already is right.
    """

    data: Bytes
    labels: Numbers
    begins: Numbers
    sizes: Numbers
    sound: Flags


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What was read besides the pixels, in the order of what was asked for.

    Attributes:
        labels: int64 (records,).
        names: bytes (records,), paths of the originals, if they were asked for.
        sound: bool (records,); where it is not, nothing else means anything.
    """

    labels: Numbers
    names: npt.NDArray[np.object_]
    sound: Flags


def read_pixels(
    files: RecordFiles, numbers: Numbers, rows: Array, slots: Numbers, *, with_names: bool
) -> Found:
    """Reads raw images of one size.

    Args:
        files: that hold them.
        numbers: int64 (records,), in any order, at least one.
        rows: uint8 (batch, height, width, channels); row `slots[i]` becomes record `numbers[i]`.
        slots: int64 (records,).
        with_names: read the paths of the originals too.

    Raises:
        DatasetError: a file or index is missing, or is not what it should be.
    """
    groups = files.gather(numbers)
    indexes = np.concatenate([group.indexes for group in groups])
    heads = _read_heads(groups, rows[0].nbytes)
    tail_bytes = np.where(heads.sound, heads.sizes - heads.begins - rows[0].nbytes, FOOTER_BYTES)
    stops = np.cumsum(tail_bytes)
    tails = np.zeros(int(stops[-1]), np.uint8)
    parts = [
        (rows[slot], tails[start:stop])
        for slot, start, stop in zip(slots[indexes], stops - tail_bytes, stops, strict=True)
    ]
    crcs, there = _read_rows(groups, heads, parts)
    labels, sound = np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.bool_)
    names = np.full(len(numbers), b"", np.object_)
    labels[indexes] = heads.labels
    sound[indexes] = there & (mask_crc(crcs) == read_integers(tails, stops - FOOTER_BYTES, "<u4"))
    for index, (_, tail) in zip(indexes.tolist(), parts, strict=True) if with_names else ():
        name = _find_name(tail.data) if sound[index] else None
        sound[index] &= name is not None
        names[index] = name or b""
    return Found(labels=labels, names=names, sound=sound)


def _read_heads(groups: Sequence[Group], image_bytes: int) -> Heads:
    sizes = np.concatenate([group.ends - group.begins for group in groups])
    data = np.zeros((len(sizes), HEAD_BYTES), np.uint8)
    number = 0
    for group in groups:
        with open_file(group.file) as descriptor:
            for offset in group.begins.tolist():
                with contextlib.suppress(OSError):
                    os.preadv(descriptor, (data[number],), offset)
                number += 1
    flat, starts = data.reshape(-1), np.arange(len(sizes)) * HEAD_BYTES
    begins, ends, sound = find_spans(
        flat, starts + HEADER_BYTES, starts + sizes - FOOTER_BYTES,
        (examples.LABEL, examples.ENCODED),
    )  # fmt: skip
    labels, single = read_numbers(flat, begins[0], ends[0])
    sound &= sizes - image_bytes <= MAX_REST_BYTES  # no memory for what may be nothing but holes
    sound &= single & (ends[1] - begins[1] == image_bytes)
    sound &= np.maximum(ends[0], begins[1]) <= starts + HEAD_BYTES
    sound &= read_integers(flat, starts, "<u8") == sizes - FRAMING_BYTES
    crcs = [google_crc32c.extend(0, row[:LENGTH_BYTES]) for row in data]
    sound &= read_integers(flat, starts + LENGTH_BYTES, "<u4") == mask_crc(np.array(crcs, np.int64))
    return Heads(data=data, labels=labels, begins=begins[1] - starts, sizes=sizes, sound=sound)


def _read_rows(
    groups: Sequence[Group], heads: Heads, parts: Sequence[tuple[Array, Array]]
) -> tuple[Numbers, Flags]:
    """Reads the images of records, and what comes behind them.

    Returns:
        the checksums of their payloads, not yet masked, int64 (records,); and which records are
        there, bool (records,).
    """
    extend = google_crc32c.extend
    crcs, there = np.zeros(len(parts), np.int64), heads.sound.copy()
    number = 0
    for group in groups:
        with open_file(group.file) as descriptor:
            for offset in group.begins.tolist():
                if there[number]:
                    (row, tail), begin = parts[number], int(heads.begins[number])
                    try:
                        read = os.preadv(descriptor, [row.data, tail.data], offset + begin)
                    except OSError:
                        read = 0
                    there[number] = read == row.nbytes + tail.nbytes
                    crc = extend(0, heads.data[number, HEADER_BYTES:begin])
                    crcs[number] = extend(extend(crc, row.reshape(-1)), tail[:-FOOTER_BYTES])
                number += 1
    return crcs, there


def _find_name(tail: memoryview) -> bytes | None:
    """The path of the original, in what comes behind an image's bytes in its record."""
    try:
        size = len(tail) - FOOTER_BYTES
        found = examples.find_entries(tail, (examples.SOURCE_ID,), 0, size)
        begin, end = found[examples.SOURCE_ID]
    except (ValueError, KeyError):
        return None
    return bytes(tail[begin:end])
