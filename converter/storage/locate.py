"""From what a person gives to a `Location`: a path on this machine, or an address in a store."""

from __future__ import annotations

import os
import re
from typing import Final

from converter.errors import UsageError
from converter.storage.disk import DiskPath
from converter.storage.location import AnyPath, Location
from converter.storage.objects import ObjectPath, parse_address

# `Path` makes one slash of two.
_ADDRESS: Final = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)


def locate(path: AnyPath) -> Location:
    """Returns the absolute path of a file or folder, or its address in an object store.

    Raises:
        UsageError: it is no path, no valid address, or one of an unknown kind of store.
    """
    if isinstance(path, ObjectPath):
        return path
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):  # an unset variable must not name a folder
        raise UsageError(f"{path!r:.60} is no path: give a string or a pathlib.Path")
    if match := _ADDRESS.match(text):
        return parse_address(f"{match[1]}://{text[match.end() :]}")
    return DiskPath(text).absolute()


def parse_location(text: str) -> Location:
    """Returns a path as it is given, or an address in an object store.

    Raises:
        UsageError: as `locate` does; or it is empty, which would be the current folder.
    """
    if not text:
        raise UsageError("a path is empty: write . for the current folder")
    return locate(text) if _ADDRESS.match(text) else DiskPath(text)


def locate_output(out: AnyPath) -> Location:
    """Locates a data set; for a link, the folder that it leads to, which may be replaced.

    Raises:
        UsageError: as `locate` and `Location.as_output` do.
    """
    return locate(out).as_output()


def join(folder: Location, path: str) -> Location:
    """Returns where a path leads from a folder; an absolute path, or an address, stands alone.

    Raises:
        UsageError: it leads out of a bucket, or is not a valid address.

    >>> join(locate("s3://bucket/tables"), "../photos")
    ObjectPath('s3://bucket/photos')
    """
    if _ADDRESS.match(path):
        return locate(path)
    return DiskPath(os.path.normpath(path)) if path.startswith("/") else folder.join(path)
