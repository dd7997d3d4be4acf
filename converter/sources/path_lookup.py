"""Finds the images that the rows of a table name: in a folder, below a prefix, in an archive."""

from __future__ import annotations

import functools
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
    """Makes a lookup in a folder, below a prefix or in an archive."""
    if is_archive(root):
        members = index_archive(root)
        return _name_missing(lambda path: (members[path].size, members[path].place))
    if root.is_remote:
        # Listed once, into about 200 bytes an object: a request for each would take longer.
        sizes = dict(list_prefix(root))
        return _name_missing(lambda path: (sizes[path], 0))
    return _look_in_folder(Path(str(root)))


def _name_missing(find: Lookup) -> Lookup:
    def look_up(path: str) -> tuple[int, int]:
        try:
            return find(path)
        except KeyError:
            raise RowError("missing") from None

    return look_up


def _look_in_folder(root: Path) -> Lookup:
    """Finds images in a folder, without following a link out of it."""
    prefix = os.fsencode(root) + b"/"

    @functools.cache
    def is_inside(folder: str) -> bool:
        try:
            target = (root / to_system(folder)).resolve()
        except (OSError, RuntimeError):  # links that lead to each other, or a name that is too long
            return False
        return target.is_relative_to(root.resolve())

    def look_up(path: str) -> tuple[int, int]:
        if not is_inside(path.rpartition("/")[0]):
            raise RowError("outside")
        try:
            # `Path.lstat` takes longer than the call itself.
            status = os.lstat(prefix + to_bytes(path))
            if stat.S_ISLNK(status.st_mode):
                file = root / to_system(path)
                status = file.stat()
                if not stays_inside(file, root):
                    raise RowError("outside")
        except FileNotFoundError:
            raise RowError("missing") from None
        except OSError as error:
            raise RowError("unreadable", str(error.strerror)) from error
        if not stat.S_ISREG(status.st_mode):
            raise RowError("unreadable", "not a file")
        return status.st_size, 0

    return look_up
