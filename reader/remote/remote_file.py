"""Files of a data set in an object store: known by its manifest, read through a cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from converter.errors import DatasetError
from converter.format.manifest import Manifest
from converter.storage.layout import name_index
from converter.storage.location import Location
from reader.records.indexed_file import RecordFile, check_size
from reader.remote.shard_cache import Content, ShardCache

MIXED_SHARDS: Final = 8
"""Whose runs `shuffle="buffer"` mixes, where the cache holds them."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile(RecordFile):
    """A shard in a store.

    Attributes:
        path: its address.
        index_bytes: the size of its index.
        cache: where it is kept, once it has been fetched.
    """

    path: Location
    index_bytes: int
    index_sha256: str
    cache: ShardCache

    @property
    def content(self) -> Content:
        return Content(self.path, self.bytes, self.digest)

    @property
    def index_content(self) -> Content:
        index = self.path.with_name(name_index(self.path.name))
        return Content(index, self.index_bytes, self.index_sha256)

    def open(self) -> int:
        return self.cache.open(self.content)

    def open_index(self) -> int:
        return self.cache.open(self.index_content)


def check_objects(folder: Location, manifest: Manifest) -> None:
    """Compares the sizes of a data set's objects with its manifest, by one listing.

    Raises:
        DatasetError: an object is missing, shorter or longer than it was written.
        StoreError: the store does not answer, or refuses.
    """
    sizes = folder.list_sizes()
    for shard in manifest.shards:
        index = name_index(shard.name)
        for name, size in ((shard.name, shard.bytes), (index, shard.index_bytes)):
            if name not in sizes:
                raise DatasetError(f"{folder / name} is missing")
            check_size(folder / name, sizes[name], size)


def list_remote(files: Sequence[RecordFile]) -> list[RemoteFile]:
    """Those of some files that lie in a store."""
    return [file for file in files if isinstance(file, RemoteFile)]


def fits_cache(files: Sequence[RecordFile]) -> bool:
    """Whether their cache holds all of them at the same time."""
    remote = list_remote(files)
    needed = sum(file.bytes + file.index_bytes for file in remote)
    return not remote or needed <= min(file.cache.limit_bytes for file in remote)


def count_mixed(files: Sequence[RecordFile]) -> int:
    """How many shards `shuffle="buffer"` mixes: the cache has to hold those that come next, too."""
    remote = list_remote(files)
    largest = max(file.bytes + file.index_bytes for file in remote)
    most = min(MIXED_SHARDS, max(1, remote[0].cache.limit_bytes // (2 * largest)))
    groups = -(-len(files) // most)
    return -(-len(files) // groups)  # the last group is not left with a single one
