"""Opens data sets in object stores, even while they are being replaced.

A store cannot exchange two data sets in one step: the old manifest goes, and the new one comes when
all its objects are in place. Opening a data set in between waits for that.
"""

from __future__ import annotations

import time
from typing import Final

from converter.errors import DatasetError
from converter.format.manifest import Manifest, read_manifest
from converter.storage.files import list_sizes
from converter.storage.layout import Layout, name_index
from converter.storage.locks import find_owner
from converter.storage.objects import ObjectPath
from converter.storage.requests import PATIENCE_VARIABLE, read_patience
from reader.records.indexed_file import check_size

_PAUSE_S: Final = 0.2


def await_manifest(folder: ObjectPath) -> Manifest:
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
        if find_owner(folder) is None:
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


def _read_checked(folder: ObjectPath) -> Manifest:
    """Reads the manifest, and compares it with the sizes of all objects, by one listing."""
    manifest, sizes = read_manifest(folder), list_sizes(folder)
    for shard in manifest.shards:
        index = name_index(shard.name)
        for name, size in ((shard.name, shard.bytes), (index, shard.index_bytes)):
            if name not in sizes:
                raise DatasetError(f"{folder / name} is missing")
            check_size(folder / name, sizes[name], size)
    return manifest
