"""Checks a finished data set against its manifest: every byte, count and name."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from converter.errors import DatasetError, RecordError
from converter.indexes import name_index, parse_index
from converter.layout import MANIFEST, WORK_FOLDER
from converter.manifest import Manifest, ShardInfo, read_manifest
from converter.storage import hash_file
from converter.tfrecords import scan_records


class Fault(NamedTuple):
    """One thing that is wrong: the file's name, and what is wrong with it."""

    file: str
    detail: str


def verify_dataset(
    folder: Path, *, on_shard: Callable[[ShardInfo], object] | None = None
) -> list[Fault]:
    """Reads every byte of a data set and lists what does not fit its manifest.

    Memory is bounded by 1 MiB and some 150 bytes for each record of a shard, for each core.

    Args:
        folder: the data set.
        on_shard: called with each shard once it is checked, in order.

    Returns:
        the faults, in the order of the manifest; none means the data set is whole.

    Raises:
        DatasetError: the manifest itself is missing, damaged or of a newer format.
    """
    manifest = read_manifest(folder)
    faults = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        checks = pool.map(lambda shard: list(_check_shard(folder, shard)), manifest.shards)
        for shard, found in zip(manifest.shards, checks, strict=True):
            faults += found
            if on_shard is not None:
                on_shard(shard)
    for name, info in manifest.files.items():
        faults += _check_file(folder / name, info.bytes, info.sha256)
    return faults + list(_find_strangers(folder, manifest))


def _check_shard(folder: Path, shard: ShardInfo) -> Iterator[Fault]:
    index = folder / name_index(shard.name)
    file_faults = list(_check_file(folder / shard.name, shard.bytes, shard.sha256))
    index_faults = list(_check_file(index, shard.index_bytes, shard.index_sha256))
    yield from file_faults
    yield from index_faults
    if not file_faults or "checksum" in file_faults[0].detail:
        yield from _check_records(folder, shard, with_index=not index_faults)


def _check_file(path: Path, size: int, sha256: str) -> Iterator[Fault]:
    try:
        found = path.stat().st_size
        if not path.is_file():
            yield Fault(path.name, "is not a file")
        elif found != size:
            yield Fault(path.name, f"has {found} bytes, expected {size}")
        elif hash_file(path) != sha256:
            yield Fault(path.name, "its checksum does not match: bytes were changed")
    except OSError as error:
        yield Fault(
            path.name, "is missing" if not path.exists() else f"cannot be read: {error.strerror}"
        )


def _check_records(folder: Path, shard: ShardInfo, *, with_index: bool) -> Iterator[Fault]:
    """Names the damaged record where the checksum of a shard fails, and compares with the index."""
    try:
        with open(folder / shard.name, "rb") as file:
            bounds = [0, *accumulate(scan_records(file, shard.name, shard.bytes))]
    except RecordError as error:
        yield Fault(shard.name, str(error).removeprefix(f"{shard.name}: "))
        return
    if len(bounds) != shard.records + 1:
        yield Fault(shard.name, f"holds {len(bounds) - 1} records, expected {shard.records}")
    if with_index:
        index = name_index(shard.name)
        try:
            data = (folder / index).read_bytes()
            offsets = parse_index(data, index=index, shard_bytes=shard.bytes)
            if not np.array_equal(offsets, bounds):
                yield Fault(index, "does not match the records of its shard")
        except DatasetError as error:
            yield Fault(index, str(error).removeprefix(f"{index}: "))


def _find_strangers(folder: Path, manifest: Manifest) -> Iterator[Fault]:
    names = {MANIFEST, *manifest.files}
    for shard in manifest.shards:
        names |= {shard.name, name_index(shard.name)}
    for name in sorted((path.name for path in folder.iterdir()), key=os.fsencode):
        if name == WORK_FOLDER:
            yield Fault(name, "is left over from a conversion")
        elif name not in names:
            yield Fault(name, "does not belong to the data set")
