"""Finds the images that the rows of a table name: in a folder, below a prefix, in an archive."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from converter.names import to_bytes, to_system
from converter.sources.archives import index_archive
from converter.sources.folders import list_prefix, stays_inside
from converter.sources.inputs import is_archive
from converter.sources.rows import RowError
from converter.storage.location import Location

Lookup: TypeAlias = Callable[[str], tuple[int, int]]
"""From the path of an image to its size, and to its place if it lies in an archive.

Raises `RowError` for a path without an image."""


def make_lookup(root: Location) -> Lookup:
    """Makes what finds images in a folder, below a prefix or in an archive.

    An archive or a prefix is listed once, because a request for each image would take longer.
    Memory grows with the number of their files, by about 200 bytes each.

    Raises:
        UsageError: the root cannot be read as an archive.
        StoreError: the store does not answer, or refuses.
    """
    if is_archive(root):
        members = index_archive(root)
        return _name_missing(lambda path: (members[path].size, members[path].place))
    if root.is_remote:
        sizes = dict(list_prefix(root))
        return _name_missing(lambda path: (sizes[path], 0))
    return _FolderLookup(Path(str(root))).find


def _name_missing(find: Lookup) -> Lookup:
    def look_up(path: str) -> tuple[int, int]:
        try:
            return find(path)
        except KeyError:
            raise RowError("missing") from None

    return look_up


class _FolderLookup:
    """Finds images in a folder, without following a link out of it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._prefix = os.fsencode(root) + b"/"
        self._inside: dict[str, bool] = {}

    def find(self, path: str) -> tuple[int, int]:
        folder = path.rpartition("/")[0]
        if folder not in self._inside:
            self._inside[folder] = self._is_inside(folder)
        if not self._inside[folder]:
            raise RowError("outside")
        try:
            # `Path.lstat` takes longer than the call itself.
            status = os.lstat(self._prefix + to_bytes(path))
            if stat.S_ISLNK(status.st_mode):
                file = self._root / to_system(path)
                status = file.stat()
                if not stays_inside(file, self._root):
                    raise RowError("outside")
        except FileNotFoundError:
            raise RowError("missing") from None
        except OSError as error:
            raise RowError("unreadable", str(error.strerror)) from error
        if not stat.S_ISREG(status.st_mode):
            raise RowError("unreadable", "not a file")
        return status.st_size, 0

    def _is_inside(self, folder: str) -> bool:
        try:
            target = (self._root / to_system(folder)).resolve()
        except (OSError, RuntimeError):  # links that lead to each other, or a name that is too long
            return False
        return target.is_relative_to(self._root.resolve())
