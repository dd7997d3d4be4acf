"""Many records in one block of memory: read and checked without an object for each of them.

A block only says that something is wrong with a record. `RecordFiles.read_many` then reads that
record again, by itself, and finds out what.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import google_crc32c
import numpy as np

from converter.format.tfrecords import (
    FOOTER_BYTES,
    FRAMING_BYTES,
    HEADER_BYTES,
    LENGTH_BYTES,
    mask_crc,
)
from reader.arrays import Bytes, Flags, Memory, Numbers
from reader.records.indexed_file import LARGE_BYTES, Group, open_file

MAX_RUN_BYTES: Final = 1 << 22  # of neighbours that are read with one call


class Block(NamedTuple):
    """Some records, in their order on disk; very large ones are left out."""

    data: Bytes
    indexes: Numbers  # (records,): position of each among the numbers that were asked for
    begins: Numbers  # (records,): where each payload begins in `data`
    ends: Numbers  # (records,): where each ends
    valid: Flags  # (records,): whether it was read in full and framing and checksums are right


def read_blocks(
    groups: Iterable[Group], limit_bytes: int = MAX_RUN_BYTES, memory: Memory | None = None
) -> Iterator[Block]:
    """Reads some records, block by block; see `RecordFiles.read_blocks`."""
    small = (_leave_out_large(group) for group in groups)
    for part in _cut([group for group in small if len(group.indexes)], limit_bytes):
        yield _read_block(part, memory)


def _cut(groups: list[Group], limit_bytes: int) -> Iterator[list[Group]]:
    part: list[Group] = []
    left = limit_bytes
    if sum(int((group.ends - group.begins).sum()) for group in groups) <= limit_bytes:
        yield from [groups] if groups else []
        return
    for group in groups:
        first = 0
        while first < len(group.indexes):
            totals = np.cumsum(group.ends[first:] - group.begins[first:])
            count = int(np.searchsorted(totals, left, side="right"))
            if not count and part:
                yield part
                part, left = [], limit_bytes
                continue
            last = first + max(1, count)
            part.append(group.take(slice(first, last)))
            left -= int(totals[last - first - 1])
            first = last
    if part:
        yield part


def _read_block(groups: Sequence[Group], memory: Memory | None) -> Block:
    sizes = np.concatenate([group.ends - group.begins for group in groups])
    stops = np.cumsum(sizes)
    starts = stops - sizes
    total = int(stops[-1])
    data = np.empty(total, np.uint8) if memory is None else memory.take(total)
    there = np.zeros(len(sizes), np.bool_)
    first = 0
    for group in groups:
        last = first + len(group.indexes)
        there[first:last] = _read_group(group, data.data, starts[first:last])
        first = last
    indexes = np.concatenate([group.indexes for group in groups])
    valid = there & check_records(data, starts, stops)
    return Block(data, indexes, starts + HEADER_BYTES, stops - FOOTER_BYTES, valid)


def check_records(data: Bytes, starts: Numbers, stops: Numbers) -> Flags:
    """Checks lengths and checksums of framed records: bool (records,)."""
    extend = google_crc32c.extend
    crcs = [
        extend(0, data[start + HEADER_BYTES : stop - FOOTER_BYTES])
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    ]
    valid = check_lengths(data, starts, stops - starts)
    valid &= read_integers(data, stops - FOOTER_BYTES, "<u4") == mask_crc(np.array(crcs, np.int64))
    return valid


def check_lengths(data: Bytes, starts: Numbers, sizes: Numbers) -> Flags:
    """Checks the headers of framed records of known sizes: bool (records,)."""
    crcs = [google_crc32c.extend(0, data[at : at + LENGTH_BYTES]) for at in starts.tolist()]
    valid: Flags = read_integers(data, starts, "<u8") == sizes - FRAMING_BYTES
    valid &= read_integers(data, starts + LENGTH_BYTES, "<u4") == mask_crc(np.array(crcs, np.int64))
    return valid


def read_integers(data: Bytes, at: Numbers, dtype: str) -> Numbers:
    """Reads little-endian integers of 4 or 8 bytes; one that is no int64 becomes negative."""
    size = np.dtype(dtype).itemsize
    found: Numbers = data[at[:, None] + np.arange(size)].view(dtype)[:, 0].astype(np.int64)
    return found


def _leave_out_large(group: Group) -> Group:
    # No memory for large records yet: they may be holes in a file.
    small = group.ends - group.begins <= LARGE_BYTES
    return group if small.all() else group.take(small)


def _read_group(group: Group, view: memoryview, starts: Numbers) -> Flags:
    """Reads records to `starts` in `view`; returns which of them the file has in full."""
    there = np.zeros(len(starts), np.bool_)
    begins, ends, places = group.begins.tolist(), group.ends.tolist(), starts.tolist()
    with open_file(group.file) as descriptor:
        for first, last in join_neighbours(begins, ends):
            begin, start = begins[first], places[first]
            size = ends[last - 1] - begin
            try:
                read = os.preadv(descriptor, [view[start : start + size]], begin)
            except OSError:
                continue
            there[first:last] = read == size or group.ends[first:last] <= begin + read
    return there


def join_neighbours(begins: Sequence[int], ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Divides records into ranges without gaps, of up to `MAX_RUN_BYTES`."""
    first = 0
    for last in range(1, len(begins)):
        if begins[last] != ends[last - 1] or ends[last] - begins[first] > MAX_RUN_BYTES:
            yield first, last
            first = last
    yield first, len(begins)
