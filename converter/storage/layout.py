"""Which file of a data set lies where.

OUT/{split}-{i:05d}-of-{n:05d}.tfrecord   and .tfindex: a shard and its index
OUT/manifest.json                         last to appear: the data set is complete
OUT/.shardmill/                           plan, receipts, temporary files and a lock until then
.OUT.shardmill-new/                       beside it: what is to replace OUT once it is complete
.OUT.shardmill-old/                       beside it: what was replaced and is being removed
.OUT.shardmill-reports-…/                 beside it: what workers elsewhere report of a check

In an object store the same names follow the prefix that is given for OUT.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import posixpath
import re
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar, cast

from converter.errors import UsageError
from converter.storage.objects import ObjectPath, parse_address

Location: TypeAlias = Path | ObjectPath
"""Where a file or a folder lies: here, or in an object store."""

AnyPath: TypeAlias = str | os.PathLike[str] | ObjectPath
"""How a location is given."""

_L_co = TypeVar("_L_co", bound=Location, covariant=True)

SHARD_SUFFIX: Final = ".tfrecord"
INDEX_SUFFIX: Final = ".tfindex"
MANIFEST: Final = "manifest.json"
LABELS: Final = "labels.txt"
REJECTS: Final = "rejects.jsonl"
NOTES: Final = "notes.jsonl"
WORK_FOLDER: Final = ".shardmill"

_SHARD_FILE: Final = re.compile(
    rf"[a-z]+-\d{{5}}-of-\d{{5}}({re.escape(SHARD_SUFFIX)}|{re.escape(INDEX_SUFFIX)})"
)

# `Path` makes one slash of two.
_ADDRESS: Final = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class Layout(Generic[_L_co]):
    """The paths of one data set.

    Attributes:
        out: the data set's folder.
    """

    out: _L_co

    @property
    def manifest(self) -> _L_co:
        return self._join(MANIFEST)

    @property
    def work(self) -> _L_co:
        return self._join(WORK_FOLDER)

    @property
    def plan(self) -> _L_co:
        return self._join(WORK_FOLDER, "plan.json")

    @property
    def entries(self) -> _L_co:
        return self._join(WORK_FOLDER, "entries.jsonl")

    @property
    def left_out(self) -> _L_co:
        return self._join(WORK_FOLDER, "left_out.jsonl")

    @property
    def notes(self) -> _L_co:
        return self._join(WORK_FOLDER, NOTES)

    @property
    def receipts(self) -> _L_co:
        return self._join(WORK_FOLDER, "receipts")

    @property
    def costs(self) -> _L_co:
        return self._join(WORK_FOLDER, "costs")

    @property
    def lock(self) -> _L_co:
        return self._join(WORK_FOLDER, "lock")

    @property
    def replacing(self) -> _L_co:
        return self._join(WORK_FOLDER, "replacing")

    @property
    def repair(self) -> _L_co:
        return self._join(WORK_FOLDER, "repair")

    @property
    def stage(self) -> _L_co:
        return cast("_L_co", self.out.with_name(f".{self.out.name}.shardmill-new"))

    @property
    def retired(self) -> _L_co:
        return cast("_L_co", self.out.with_name(f".{self.out.name}.shardmill-old"))

    @property
    def reports(self) -> str:
        """What the name of each folder for reports beside it begins with."""
        return f".{self.out.name}.shardmill-reports-"

    @property
    def scratch(self) -> _L_co:
        return self._join(WORK_FOLDER, "tmp")

    def _join(self, *names: str) -> _L_co:
        path: Location = self.out
        for name in names:
            path = path / name
        return cast("_L_co", path)

    def make_work_folders(self) -> None:
        """Makes the output and the folders in which it is prepared."""
        # In a store, a folder is there as soon as something is in it.
        for folder in (self.receipts, self.costs, self.scratch):
            if isinstance(folder, Path):
                folder.mkdir(parents=True, exist_ok=True)


def locate(path: AnyPath) -> Location:
    """The absolute path of a file or folder, or its address in an object store.

    Raises:
        UsageError: it is an address that makes no sense, or of a kind that is not known.
    """
    if isinstance(path, ObjectPath):
        return path
    text = os.fspath(path)
    if match := _ADDRESS.match(text):
        return parse_address(f"{match[1]}://{text[match.end() :]}")
    return Path(text).absolute()


def parse_location(text: str) -> Location:
    """A path as it is given, or an address in an object store.

    Raises:
        UsageError: as `locate` does; or it is nothing, which would be the current folder.
    """
    if not text:
        raise UsageError("a path is empty: write . for the current folder")
    return locate(text) if _ADDRESS.match(text) else Path(text)


def locate_output(out: AnyPath) -> Location:
    """Where a data set lies; of a link, the folder that it leads to, which is what may be replaced.

    Raises:
        UsageError: it is no address that makes sense, or that of a whole bucket, or a link that
            leads to itself.
    """
    path = locate(out)
    if isinstance(path, Path):
        _check_link(path)
        return path.resolve() if path.is_symlink() or ".." in path.parts else path
    if not path.key:
        raise UsageError(f"{path} is a whole bucket: give a prefix in it, such as {path}/dataset")
    return path


def _check_link(path: Path) -> None:
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(f"{path} is a link that leads to itself: choose a folder") from None


def join(folder: Location, path: str) -> Location:
    """What a path leads to from a folder; one that is absolute, or an address, leads there alone.

    Raises:
        UsageError: it leads out of a bucket, or is no address that makes sense.

    >>> join(locate("s3://bucket/tables"), "../photos")
    ObjectPath('s3://bucket/photos')
    """
    if _ADDRESS.match(path):
        return locate(path)
    if isinstance(folder, Path) or path.startswith("/"):
        return Path(os.path.normpath(Path(str(folder), path)))
    key = posixpath.normpath(posixpath.join(folder.key, path))
    if key.split("/")[0] == "..":
        raise UsageError(f"{path!r} leads from {folder} out of the bucket: give an address")
    return dataclasses.replace(folder, key="" if key == "." else key)


def relate(path: Location, folder: Location) -> str:
    """How a path is written so that `join` finds it from a folder, also when both have moved.

    >>> relate(locate("s3://bucket/masks"), locate("s3://bucket/photos"))
    '../masks'
    """
    if isinstance(path, Path) and isinstance(folder, Path):
        return os.path.relpath(path, folder)
    if isinstance(path, Path) or isinstance(folder, Path):
        return str(path)
    if (path.scheme, path.bucket) != (folder.scheme, folder.bucket):
        return str(path)
    return posixpath.relpath(f"/{path.key}", f"/{folder.key}")


def lies_in(place: Location, folder: Location) -> bool:
    """Whether something is a folder, or lies in it."""
    if isinstance(place, Path) and isinstance(folder, Path):
        return place.is_relative_to(folder)
    # What follows a prefix may be the rest of a name: the two are compared as folders.
    return f"{place}/".startswith(f"{folder}/")


def name_size(height: int, width: int) -> str:
    """The name of the folder of a size, where there are several.

    >>> name_size(224, 320)
    '224x320'
    """
    return f"{height}x{width}"


def name_shard(split: str, index: int, count: int) -> str:
    """The file name of a shard.

    >>> name_shard("train", 3, 16)
    'train-00003-of-00016.tfrecord'
    """
    return f"{split}-{index:05d}-of-{count:05d}{SHARD_SUFFIX}"


def is_shard_file(name: str) -> bool:
    """Whether a name is of the form of a shard's or of its index'.

    >>> is_shard_file("train-00003-of-00016.tfindex")
    True
    """
    return bool(_SHARD_FILE.fullmatch(name))


def name_index(shard: str) -> str:
    """The index file's name for the shard of that name.

    >>> name_index("train-00000-of-00016.tfrecord")
    'train-00000-of-00016.tfindex'
    >>> name_index("mnist-train.tfrecord-00000-of-00001")
    'mnist-train.tfrecord-00000-of-00001.tfindex'
    """
    return shard.removesuffix(SHARD_SUFFIX) + INDEX_SUFFIX
