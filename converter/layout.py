"""Which file of a data set lies where.

OUT/{split}-{i:05d}-of-{n:05d}.tfrecord   and .tfindex: a shard and its index
OUT/manifest.json                         last to appear: the data set is complete
OUT/.shardmill/                           plan, receipts, temporary files and a lock until then
.OUT.shardmill-new/                       beside it: what is to replace OUT once it is complete
.OUT.shardmill-old/                       beside it: what was replaced and is being removed
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Final

from converter.errors import UsageError
from converter.indexes import SHARD_SUFFIX

MANIFEST: Final = "manifest.json"
LABELS: Final = "labels.txt"
REJECTS: Final = "rejects.jsonl"
NOTES: Final = "notes.jsonl"
WORK_FOLDER: Final = ".shardmill"

_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one data set.

    Attributes:
        out: the data set's folder.
    """

    out: Path

    @property
    def manifest(self) -> Path:
        return self.out / MANIFEST

    @property
    def work(self) -> Path:
        return self.out / WORK_FOLDER

    @property
    def plan(self) -> Path:
        return self.work / "plan.json"

    @property
    def entries(self) -> Path:
        return self.work / "entries.jsonl"

    @property
    def left_out(self) -> Path:
        return self.work / "left_out.jsonl"

    @property
    def notes(self) -> Path:
        return self.work / NOTES

    @property
    def receipts(self) -> Path:
        return self.work / "receipts"

    @property
    def costs(self) -> Path:
        return self.work / "costs"

    @property
    def lock(self) -> Path:
        return self.work / "lock"

    @property
    def repair(self) -> Path:
        return self.work / "repair"

    @property
    def stage(self) -> Path:
        return self.out.with_name(f".{self.out.name}.shardmill-new")

    @property
    def retired(self) -> Path:
        return self.out.with_name(f".{self.out.name}.shardmill-old")

    @property
    def scratch(self) -> Path:
        return self.work / "tmp"

    def make_work_folders(self) -> None:
        """Makes the output and the folders in which it is prepared."""
        self.receipts.mkdir(parents=True, exist_ok=True)
        self.costs.mkdir(exist_ok=True)
        self.scratch.mkdir(exist_ok=True)


def locate(path: str | os.PathLike[str]) -> Path:
    """The absolute path of a file or folder.

    Raises:
        UsageError: it is an address such as `s3://bucket/images`, which would else be taken for a
            folder `s3:` here.
    """
    if _ADDRESS.match(os.fspath(path)):
        raise UsageError(
            f"{os.fspath(path)} is an address and no folder: object stores are not supported, "
            "mount the bucket, or use a folder here and copy it"
        )
    return Path(path).absolute()


def name_shard(split: str, index: int, count: int) -> str:
    """The file name of a shard.

    >>> name_shard("train", 3, 16)
    'train-00003-of-00016.tfrecord'
    """
    return f"{split}-{index:05d}-of-{count:05d}{SHARD_SUFFIX}"
