"""Finds the images that the rows of a table name: in a folder, below a prefix, in an archive."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from converter.names import to_bytes, to_system
from converter.sources.archives import index_archive, is_archive
from converter.sources.folders import stays_inside
from converter.sources.rows import RowError
from converter.storage.location import Location
from converter.storage.object_requests import list_objects
from converter.storage.objects import parse_address

Locate: TypeAlias = Callable[[str], tuple[int, int]]
"""Finds an image by its path: its size, and its place if it lies in an archive."""


def make_locator(root: Location) -> Locate:
    """What finds images in a root; it raises RowError where there is none of a path.

    Raises:
        UsageError: the root cannot be read as an archive.
        StoreError: the store does not answer, or refuses.
    """
    if is_archive(root):
        return ArchiveLocator(root)
    return PrefixLocator(root) if root.is_remote else FolderLocator(Path(str(root)))


class FolderLocator:
    """Finds images in a folder, without following a link out of it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._prefix = os.fsencode(root) + b"/"
        self._inside: dict[str, bool] = {}

    def __call__(self, path: str) -> tuple[int, int]:
        folder = path.rpartition("/")[0]
        if folder not in self._inside:
            self._inside[folder] = self._is_inside(folder)
        if not self._inside[folder]:
            raise RowError("outside")
        try:
            # Not with `Path`, which takes longer than the call itself.
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


class PrefixLocator:
    """Finds images below a prefix, which is listed once: a request for each would take longer.

    Memory grows with the number of objects, by about 200 bytes each.
    """

    def __init__(self, root: Location) -> None:
        address = parse_address(str(root))
        self._sizes = {path.relative_to(address): size for path, size in list_objects(address)}

    def __call__(self, path: str) -> tuple[int, int]:
        if path not in self._sizes:
            raise RowError("missing")
        return self._sizes[path], 0


class ArchiveLocator:
    """Finds images in an archive, which is listed once."""

    def __init__(self, archive: Location) -> None:
        self._members = index_archive(archive)

    def __call__(self, path: str) -> tuple[int, int]:
        member = self._members.get(path)
        if member is None:
            raise RowError("missing")
        return member.size, member.place
