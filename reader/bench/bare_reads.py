"""Reads the bytes of a split and nothing else: what a disk or a store can give."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from converter.format.manifest import Manifest
from converter.storage.location import Location
from reader.arrays import Numbers
from reader.batches.threads import run_ahead
from reader.bench.meter import Build, Epoch
from reader.records.indexed_file import RecordFile, open_file, read_index

THREADS: Final = 16  # so many requests keep a disk or a store busy
TASK_RECORDS: Final = 64
PIECE_BYTES: Final = 8_000_000  # of an object, in one request
MAX_RECORDS: Final = 1_000_000  # that are located, at 24 bytes each


class Spans(NamedTuple):
    """Where records lie: number of the file, first byte and size, each (records,)."""

    files: Numbers
    begins: Numbers
    sizes: Numbers


def prepare_disk(folder: Location, manifest: Manifest, split: str) -> Build:
    """Reads records at random places, as an exact shuffle does, and not from memory."""
    files = [RecordFile.of_shard(folder, shard) for shard in manifest.list_shards(split)]
    spans = _locate(files)
    order = np.random.default_rng(0).permutation(len(spans.sizes))

    def read(begin: int) -> int:
        return _read_spans(files, spans, order[begin : begin + TASK_RECORDS])

    def build() -> Epoch:
        def epoch() -> Iterator[float]:
            for file in files:
                drop_cached(file)
            return run_ahead(read, range(0, len(order), TASK_RECORDS), THREADS, 1)

        return epoch

    return build


def prepare_store(folder: Location, manifest: Manifest, split: str) -> Build:
    """Fetches whole objects in large pieces, many at a time, past the cache of shards."""
    shards = manifest.list_shards(split)
    pieces = [(shard, at) for shard in shards for at in range(0, shard.bytes, PIECE_BYTES)]

    def read(number: int) -> float:
        shard, at = pieces[number]
        data = (folder / shard.name).read_range(at, PIECE_BYTES)
        return len(data) / shard.bytes * shard.records

    return lambda: lambda: run_ahead(read, range(len(pieces)), THREADS, 1)


def drop_cached(file: RecordFile) -> None:
    """Asks the system to forget what it holds of a file; some systems cannot."""
    if hasattr(os, "posix_fadvise"):
        with open_file(file) as descriptor:
            os.fsync(descriptor)  # what is not on the disk yet would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _locate(files: Sequence[RecordFile]) -> Spans:
    columns: list[Numbers] = []
    total = 0
    for number, file in enumerate(files):
        if file.records and total < MAX_RECORDS:
            edges = read_index(file)
            begins = edges[:-1]
            columns.append(np.stack([np.full(len(begins), number), begins, np.diff(edges)]))
            total += len(begins)
    return Spans(*np.concatenate(columns, axis=1))


def _read_spans(files: Sequence[RecordFile], spans: Spans, rows: Numbers) -> int:
    for number in np.unique(spans.files[rows]).tolist():
        mine = rows[spans.files[rows] == number]
        with open_file(files[number]) as descriptor:
            places = zip(spans.begins[mine].tolist(), spans.sizes[mine].tolist(), strict=True)
            for begin, size in places:
                os.pread(descriptor, size, begin)
    return len(rows)
