"""From what a person gives to a `Location`: a path on this machine, or an address in a store.

s3://bucket/prefix/name      Amazon S3, and other stores with its protocol
gs://bucket/prefix/name      Google Cloud Storage
"""

import os
import re
from typing import Final

from converter.errors import UsageError
from converter.storage.disk import DiskPath
from converter.storage.location import AnyPath, Location
from converter.storage.objects import ObjectPath

# `Path` makes one slash of two. With three there is no bucket, as in s3://$UNSET/prefix.
_ADDRESS: Final = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(.*)", re.IGNORECASE | re.DOTALL)
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")


def locate(path: AnyPath) -> Location:
    """Returns the absolute path of a file or folder, or its address in an object store.

    Raises UsageError if it is no path, no valid address, or one of an unknown kind of store.
    """
    if isinstance(path, ObjectPath):
        return path
    if isinstance(path, DiskPath):  # a `~` in front is the name of a folder: it was given as ./~
        return path.absolute()
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):  # an unset variable must not name a folder
        raise UsageError(f"{path!r:.60} is no path: give a string or a pathlib.Path")
    return parse_address(text) if is_address(text) else DiskPath(expand_home(text)).absolute()


def parse_location(text: str) -> Location:
    """`locate` for a text of a person, which leaves a path as it is given.

    Raises a UsageError also if the text is empty, which would be the current folder.
    """
    if not text:
        raise UsageError("a path is empty: write . for the current folder")
    return parse_address(text) if is_address(text) else DiskPath(expand_home(text))


def locate_output(out: AnyPath) -> Location:
    """`locate` for a data set: for a link, the folder that it leads to (`Location.as_output`)."""
    return locate(out).as_output()


def join(folder: Location, path: str) -> Location:
    """Returns where a path leads from a folder; an absolute path, or an address, stands alone.

    Raises UsageError if it leads out of a bucket, or is not a valid address.

    >>> join(locate("s3://bucket/tables"), "../photos")
    ObjectPath('s3://bucket/photos')
    """
    if is_address(path):
        return parse_address(path)
    # No `~` here: the path is stored in a data set or a table, and may be read by someone else.
    return DiskPath(os.path.normpath(path)) if path.startswith("/") else folder.join(path)


def expand_home(path: str | os.PathLike[str]) -> str:
    """Replaces a `~` in front with the user's home folder, and `~name` with that of `name`."""
    return os.path.expanduser(path)  # noqa: PTH111 (Path's fails where there is no such user)


def is_address(text: str) -> bool:
    """Tells whether a text is an address, and not the path of a file on this machine.

    >>> is_address("s3://bucket/flowers"), is_address("flowers")
    (True, False)
    """
    return _ADDRESS.fullmatch(text) is not None


def parse_address(text: str) -> ObjectPath:
    """Parses the address of an object, or of all objects below it; raises what `locate` does."""
    match = _ADDRESS.fullmatch(text)
    scheme, rest = (match[1].lower(), match[2]) if match else ("", "")
    if scheme not in ("s3", "gs"):
        raise UsageError(f"{scheme}:// is an unknown kind of address: give s3://… or gs://…")
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):  # it may hold credentials, which are not shown
        raise UsageError(
            f"{scheme}:// is not followed by a valid bucket name: give {scheme}://bucket/prefix, "
            "and credentials in the environment"
        )
    key = key.strip("/")
    # Disks and some clients would take `a//b` and `a/../b` for other names than a store does.
    if any(part in ("", ".", "..") for part in key.split("/") if key):
        raise UsageError(f"{text} has an empty part, or one of only dots: leave that out")
    return ObjectPath(scheme, bucket, key)
