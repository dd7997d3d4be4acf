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
import re
from typing import Final, Generic, TypeVar, cast

from converter.storage.location import Location

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
        for folder in (self.receipts, self.costs, self.scratch):
            folder.make_folder()


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
