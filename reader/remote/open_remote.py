"""Opens data sets in object stores, also while they are being replaced.

A store cannot exchange two data sets in one step: the manifest of the old one goes, and that of the
new one comes when all its objects are in place. Opening it in between waits for that.
"""

from __future__ import annotations

import time
from typing import Final

from converter.errors import DatasetError
from converter.format.manifest import Manifest, read_manifest
from converter.storage.layout import Layout
from converter.storage.location import Location
from converter.storage.requests import PATIENCE_VARIABLE, read_patience
from reader.remote.remote_file import check_objects

_PAUSE_S: Final = 0.2


def await_manifest(folder: Location) -> Manifest:
    """The manifest of a data set in a store, if need be once a replacement has ended.

    Raises:
        DatasetError: there is none, it is damaged, or something is not there as it states; or the
            replacement was interrupted, or takes longer than a store may fail.
        StoreError: the store does not answer, or refuses.
    """
    end = time.monotonic() + read_patience()
    while True:
        try:
            return _open(folder)
        except DatasetError:
            if not Layout(folder).replacing.is_file():
                return _open(folder)  # it may have ended meanwhile
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


def _open(folder: Location) -> Manifest:
    manifest = read_manifest(folder)
    check_objects(folder, manifest)
    return manifest
