"""Shards in object stores: opened by their manifest, and read through a cache.

A store cannot exchange two data sets in one step: the old manifest goes, and the new one comes when
all its objects are in place. Opening a data set in between waits for that.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Final

from converter.errors import DatasetError
from converter.format.manifest import Manifest, read_manifest
from converter.storage.files import Layout
from converter.storage.location import Location
from converter.storage.requests import PATIENCE_VARIABLE, read_patience
from reader.records.indexed_file import RecordFile, check_size
from reader.remote.shard_cache import ShardCache, StoredObject

MIXED_SHARDS: Final = 8  # whose runs `shuffle="buffer"` mixes, where the cache holds them
_PAUSE_S: Final = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile(RecordFile):
    """A shard in a store, kept in a cache once it has been fetched."""

    index_bytes: int
    index_sha256: str
    cache: ShardCache

    @property
    def shard_object(self) -> StoredObject:
        return StoredObject(self.path, self.bytes, self.digest)

    @property
    def index_object(self) -> StoredObject:
        return StoredObject(self.index, self.index_bytes, self.index_sha256)

    @property
    def total_bytes(self) -> int:
        """What the shard and its index take in the cache."""
        return self.bytes + self.index_bytes

    def open(self) -> int:
        return self.cache.open(self.shard_object)

    def open_index(self) -> int:
        return self.cache.open(self.index_object)


def list_remote(files: Sequence[RecordFile]) -> list[RemoteFile]:
    """Selects the files that lie in a store."""
    return [file for file in files if isinstance(file, RemoteFile)]


def fits_cache(files: Sequence[RecordFile]) -> bool:
    """Whether the cache holds all of these files at the same time."""
    remote = list_remote(files)
    needed = sum(file.total_bytes for file in remote)
    return not remote or needed <= min(file.cache.limit_bytes for file in remote)


def count_mixed(files: Sequence[RecordFile]) -> int:
    """Returns how many shards `shuffle="buffer"` mixes, with room left for as many that follow."""
    remote = list_remote(files)
    largest = max(file.total_bytes for file in remote)
    most = min(MIXED_SHARDS, max(1, remote[0].cache.limit_bytes // (2 * largest)))
    groups = -(-len(files) // most)
    return -(-len(files) // groups)  # the last group is not left with a single one


def await_manifest(folder: Location) -> Manifest:
    """Reads the manifest of a data set in a store, if need be after a replacement has ended.

    Raises:
        DatasetError: the manifest is missing or damaged, or an object is missing or has another
            size; or a replacement was interrupted, or takes longer than a store may fail.
        StoreError: the store does not answer, or refuses.
    """
    end = time.monotonic() + read_patience()
    while True:
        try:
            return _read_checked(folder)
        except DatasetError:
            if not Layout(folder).replacing.is_file():
                return _read_checked(folder)  # it may have ended meanwhile
        if folder.find_owner() is None:
            raise DatasetError(
                f"{folder} was being replaced when that was interrupted: run the same convert "
                "command again, which ends it"
            )
        if time.monotonic() > end:
            raise DatasetError(
                f"{folder} is being replaced for longer than {read_patience():.0f} s: open it when "
                f"that has ended, or be more patient with {PATIENCE_VARIABLE}"
            )
        time.sleep(_PAUSE_S)


def _read_checked(folder: Location) -> Manifest:
    """Reads the manifest, and compares it with the sizes of all objects, by one listing."""
    manifest, sizes = read_manifest(folder), folder.list_sizes()
    for shard in manifest.shards:
        for name, size in shard.file_sizes.items():
            if name not in sizes:
                raise DatasetError(f"{folder / name} is missing")
            check_size(folder / name, sizes[name], size)
    return manifest
