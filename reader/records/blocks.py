"""Many records in one block of memory: read and checked without an object for each of them.

A block only says that something is wrong with a record; `RecordFiles.read_many` finds out what.
"""

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
    # No memory for large records yet: they may be holes in a file.
    masks = ((group, group.sizes <= LARGE_BYTES) for group in groups)
    small = [group if fits.all() else group.take(fits) for group, fits in masks if fits.any()]
    for part in _cut(small, limit_bytes):
        yield _read_block(part, memory)


def _cut(groups: list[Group], limit_bytes: int) -> Iterator[list[Group]]:
    """Divides records into parts of up to `limit_bytes`, or of a single record that has more."""
    # Most batches are one part. This takes 8 us for three files, the loop below 13.
    if groups and sum(int(group.sizes.sum()) for group in groups) <= limit_bytes:
        yield groups
        return
    part: list[Group] = []
    left = limit_bytes
    for group in groups:
        totals = np.cumsum(group.sizes)
        first = done = 0  # records and bytes of this group that are in earlier parts
        while first < len(totals):
            last = int(np.searchsorted(totals, done + left, side="right"))
            if last > first or not part:
                last = max(first + 1, last)
                part.append(group.take(slice(first, last)))
                left -= int(totals[last - 1]) - done
                first, done = last, int(totals[last - 1])
            if first < len(totals):
                yield part
                part, left = [], limit_bytes
    if part:
        yield part


def _read_block(groups: Sequence[Group], memory: Memory | None) -> Block:
    sizes = np.concatenate([group.sizes for group in groups])
    stops = np.cumsum(sizes)
    starts = stops - sizes
    total = int(stops[-1])
    data = np.empty(total, np.uint8) if memory is None else memory.take(total)
    there, first = [], 0
    for group in groups:
        last = first + len(group.indexes)
        there.append(_read_group(group, data.data, starts[first:last]))
        first = last
    indexes = np.concatenate([group.indexes for group in groups])
    valid = np.concatenate(there) & check_records(data, starts, stops)
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
