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

from converter import examples
from converter.tfrecords import (
    FOOTER_BYTES,
    FRAMING_BYTES,
    HEADER_BYTES,
    LENGTH_BYTES,
    compute_masked_crc,
    mask_crc,
)
from reader.blocks import read_integers
from reader.buffers import Array
from reader.files import LARGE_BYTES, Group, open_file
from reader.orders import Numbers
from reader.records import RecordFiles
from reader.spans import Bytes, Mask, find_spans, read_numbers

HEAD_BYTES: Final = 512
"""Holds all that comes before an image's bytes, unless a class has a name of 400 letters."""


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
    sound: Mask


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
    sound: Mask


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
    groups = list(files.find(numbers))
    heads = _read_heads(groups, rows[0].nbytes)
    labels = np.zeros(len(numbers), np.int64)
    names = np.full(len(numbers), b"", np.object_)
    sound = np.zeros(len(numbers), np.bool_)
    number = 0
    for group in groups:
        with open_file(group.file.path) as descriptor:
            for index, offset in zip(group.indexes.tolist(), group.begins.tolist(), strict=True):
                tail = None
                if heads.sound[number]:
                    row = rows[slots[index]]
                    tail = _read_row(descriptor, heads, number, offset, row)
                name = _find_name(tail) if with_names and tail is not None else b""
                sound[index] = tail is not None and name is not None
                labels[index], names[index] = heads.labels[number], name
                number += 1
    return Found(labels=labels, names=names, sound=sound)


def _read_heads(groups: Sequence[Group], image_bytes: int) -> Heads:
    sizes = np.concatenate([group.ends - group.begins for group in groups])
    data = np.zeros((len(sizes), HEAD_BYTES), np.uint8)
    number = 0
    for group in groups:
        with open_file(group.file.path) as descriptor:
            for offset in group.begins.tolist():
                with contextlib.suppress(OSError):
                    os.preadv(descriptor, [data[number].data], offset)
                number += 1
    flat, starts = data.reshape(-1), np.arange(len(sizes)) * HEAD_BYTES
    begins, ends, sound = find_spans(
        flat, starts + HEADER_BYTES, starts + sizes - FOOTER_BYTES,
        (examples.LABEL, examples.ENCODED),
    )  # fmt: skip
    labels, single = read_numbers(flat, begins[0], ends[0])
    sound &= sizes - image_bytes <= LARGE_BYTES  # no memory for what may be nothing but holes
    sound &= single & (ends[1] - begins[1] == image_bytes) & (begins[1] <= starts + HEAD_BYTES)
    sound &= read_integers(flat, starts, "<u8") == sizes - FRAMING_BYTES
    crcs = [google_crc32c.extend(0, row[:LENGTH_BYTES]) for row in data]
    sound &= read_integers(flat, starts + LENGTH_BYTES, "<u4") == mask_crc(np.array(crcs, np.int64))
    return Heads(data=data, labels=labels, begins=begins[1] - starts, sizes=sizes, sound=sound)


def _read_row(descriptor: int, heads: Heads, number: int, offset: int, row: Array) -> bytes | None:
    """Reads the image of one record; what comes behind it, or None if something is wrong."""
    begin, size = int(heads.begins[number]), int(heads.sizes[number])
    tail = bytearray(size - begin - row.nbytes)
    try:
        read = os.preadv(descriptor, [row.data, tail], offset + begin)
    except OSError:
        return None
    rest, footer = bytes(tail[:-FOOTER_BYTES]), bytes(tail[-FOOTER_BYTES:])
    crc = compute_masked_crc(heads.data[number, HEADER_BYTES:begin], row, rest)
    whole = read == size - begin and crc.to_bytes(FOOTER_BYTES, "little") == footer
    return rest if whole else None


def _find_name(tail: bytes) -> bytes | None:
    """The path of the original, in what comes behind an image's bytes in its record."""
    try:
        found = examples.find_entries(memoryview(tail), (examples.SOURCE_ID,), 0, len(tail))
        begin, end = found[examples.SOURCE_ID]
    except (ValueError, KeyError):
        return None
    return tail[begin:end]
