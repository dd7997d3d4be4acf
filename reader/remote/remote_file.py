"""Files of a data set in an object store: known by its manifest, read through a cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from converter.storage.layout import name_index
from converter.storage.objects import ObjectPath
from reader.records.indexed_file import RecordFile
from reader.remote.shard_cache import ShardCache, StoredObject

MIXED_SHARDS: Final = 8
"""How many shards `shuffle="buffer"` mixes the runs of, where the cache holds them."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile(RecordFile):
    """A shard in a store, kept in a cache once it has been fetched."""

    path: ObjectPath
    index_bytes: int
    index_sha256: str
    cache: ShardCache

    @property
    def shard_object(self) -> StoredObject:
        return StoredObject(self.path, self.bytes, self.digest)

    @property
    def index_object(self) -> StoredObject:
        index = self.path.with_name(name_index(self.path.name))
        return StoredObject(index, self.index_bytes, self.index_sha256)

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
