"""From what a person gives to a `Location`: a path of this machine, or an address in a store."""

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
    """The absolute path of a file or folder, or its address in an object store.

    Raises:
        UsageError: it is an address that makes no sense, or of a kind that is not known.
    """
    if isinstance(path, ObjectPath):
        return path
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else str(path)
    if match := _ADDRESS.match(text):
        return parse_address(f"{match[1]}://{text[match.end() :]}")
    return DiskPath(text).absolute()


def parse_location(text: str) -> Location:
    """A path as it is given, or an address in an object store.

    Raises:
        UsageError: as `locate` does; or it is empty, which would be the current folder.
    """
    if not text:
        raise UsageError("a path is empty: write . for the current folder")
    return locate(text) if _ADDRESS.match(text) else DiskPath(text)


def locate_output(out: AnyPath) -> Location:
    """Where a data set lies; of a link, the folder that it leads to, which is what may be replaced.

    Raises:
        UsageError: it is no address that makes sense, or that of a whole bucket, or a link that
            leads to itself.
    """
    return locate(out).as_output()


def join(folder: Location, path: str) -> Location:
    """What a path leads to from a folder; one that is absolute, or an address, leads there alone.

    Raises:
        UsageError: it leads out of a bucket, or is no address that makes sense.

    >>> join(locate("s3://bucket/tables"), "../photos")
    ObjectPath('s3://bucket/photos')
    """
    if _ADDRESS.match(path):
        return locate(path)
    return DiskPath(os.path.normpath(path)) if path.startswith("/") else folder.join(path)


def relate(path: Location, folder: Location) -> str:
    """How a path is written so that `join` finds it from a folder, also when both have moved.

    >>> relate(locate("s3://bucket/masks"), locate("s3://bucket/photos"))
    '../masks'
    """
    return path.relate(folder)


def lies_in(place: Location, folder: Location) -> bool:
    """Whether something is a folder, or lies in it."""
    return folder.contains(place)
