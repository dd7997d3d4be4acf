"""Images that are stored raw, read straight into the batch that they belong to.

The system copies the bytes once, from its cache to their place in the batch. Their checksum is
computed there, while they are still in the processor's cache.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import google_crc32c
import numpy as np
import numpy.typing as npt

from converter.format import examples
from converter.format.tfrecords import FOOTER_BYTES, HEADER_BYTES, mask_crc
from reader.arrays import Array, Flags, Numbers
from reader.examples.columns import Heads, read_heads
from reader.examples.fields import find_spans
from reader.records.blocks import read_integers
from reader.records.indexed_file import Group, open_file
from reader.records.record_files import RecordFiles

# A record with more besides its image is read singly, as `max_ram` does not count that.
MAX_REST_BYTES: Final = 1 << 16


def read_raw_images(
    files: RecordFiles, numbers: Numbers, rows: Array, slots: Numbers, *, with_names: bool
) -> tuple[Numbers, Numbers, npt.NDArray[np.object_], Flags]:
    """Reads raw images of one size.

    Args:
        files: the records.
        numbers: int64 (records,), in any order, at least one.
        rows: uint8 (batch, height, width, channels); row `slots[i]` becomes record `numbers[i]`.
        slots: int64 (records,).
        with_names: read the paths of the originals too.

    Returns:
        Arrays (records,), in the order on disk: positions in `numbers`, int64; labels, int64; paths
        of the originals if asked for, bytes; and which records are valid.
    """
    groups = files.prefetch(numbers)
    indexes = np.concatenate([group.indexes for group in groups])
    heads, image_bytes = read_heads(groups), rows[0].nbytes
    rest = heads.sizes - image_bytes
    # No memory for what may be nothing but holes.
    valid = heads.valid & (heads.image_bytes == image_bytes) & (rest <= MAX_REST_BYTES)
    tail_bytes = np.where(valid, rest - heads.begins, FOOTER_BYTES)
    stops = np.cumsum(tail_bytes)
    starts = stops - tail_bytes
    tails = np.zeros(int(stops[-1]), np.uint8)
    parts = [
        (rows[slot], tails[start:stop])
        for slot, start, stop in zip(slots[indexes], starts, stops, strict=True)
    ]
    crcs, valid = _read_parts(groups, heads, valid, parts)
    valid &= mask_crc(crcs) == read_integers(tails, stops - FOOTER_BYTES, "<u4")
    names = np.full(len(indexes), b"", np.object_)
    if with_names:
        begins, ends, named = find_spans(
            tails, starts, stops - FOOTER_BYTES, (examples.SOURCE_ID,), within=True
        )
        valid &= named
        for row, (begin, end) in enumerate(zip(begins[0].tolist(), ends[0].tolist(), strict=True)):
            names[row] = tails[begin:end].tobytes()
    return indexes, heads.labels, names, valid


def _read_parts(
    groups: Sequence[Group], heads: Heads, valid: Flags, parts: Sequence[tuple[Array, Array]]
) -> tuple[Numbers, Flags]:
    """Reads images and tails; returns unmasked checksums of payloads, and what was read in full."""
    extend = google_crc32c.extend
    crcs, there = np.zeros(len(parts), np.int64), valid.copy()
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
