"""Which file of a data set lies where.

OUT/{split}-{i:05d}-of-{n:05d}.tfrecord   and .tfindex: a shard and its index
OUT/manifest.json                         last to appear: the data set is complete
OUT/.shardmill/                           plan, receipts, temporary files and a lock until then
.OUT.shardmill-new/                       beside it: replaces OUT once it is complete
.OUT.shardmill-old/                       beside it: was replaced and is being removed
.OUT.shardmill-reports-…/                 beside it: what workers elsewhere report on a check

In an object store the same names follow the prefix of OUT.
"""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

from converter.storage.location import Location

_L = TypeVar("_L", bound=Location)

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


class Layout(Generic[_L]):
    """The paths of one data set.

    Args:
        out: the data set's folder.
    """

    def __init__(self, out: _L) -> None:
        self.out = out
        self.manifest = out / MANIFEST
        self.work = out / WORK_FOLDER
        self.plan = self.work / "plan.json"
        self.entries = self.work / "entries.jsonl"
        self.left_out = self.work / "left_out.jsonl"
        self.notes = self.work / NOTES
        self.receipts = self.work / "receipts"
        self.costs = self.work / "costs"
        self.lock = self.work / "lock"
        self.replacing = self.work / "replacing"
        self.repair = self.work / "repair"
        self.scratch = self.work / "tmp"

    @property
    def stage(self) -> _L:
        return self.out.with_name(f".{self.out.name}.shardmill-new")

    @property
    def retired(self) -> _L:
        return self.out.with_name(f".{self.out.name}.shardmill-old")

    @property
    def reports(self) -> str:
        """How the name of each folder for reports beside it begins."""
        return f".{self.out.name}.shardmill-reports-"

    def make_work_folders(self) -> None:
        """Makes the output and the folders in which it is prepared."""
        for folder in (self.receipts, self.costs, self.scratch):
            folder.make_folder()


def name_size(height: int, width: int) -> str:
    """Names the folder of a size, if there are several: `224x320`."""
    return f"{height}x{width}"


def name_shard(split: str, index: int, count: int) -> str:
    """Names the file of a shard: `train-00003-of-00016.tfrecord`."""
    return f"{split}-{index:05d}-of-{count:05d}{SHARD_SUFFIX}"


def is_shard_file(name: str) -> bool:
    """Tells whether a name looks like that of a shard or its index."""
    return bool(_SHARD_FILE.fullmatch(name))


def name_index(shard: str) -> str:
    """Names the index file of a shard.

    >>> name_index("train-00000-of-00016.tfrecord")
    'train-00000-of-00016.tfindex'
    >>> name_index("mnist-train.tfrecord-00000-of-00001")
    'mnist-train.tfrecord-00000-of-00001.tfindex'
    """
    return shard.removesuffix(SHARD_SUFFIX) + INDEX_SUFFIX
