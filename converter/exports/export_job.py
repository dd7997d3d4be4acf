"""What to export of a data set, and what came of it."""

import dataclasses
import functools
import math
import shlex
from codecs import BOM_UTF8
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from converter.class_names import is_renamed
from converter.errors import RecordError, UsageError
from converter.exports import KINDS, POLICIES
from converter.exports.exported_columns import FILE, IMAGE, MASK_FILE, ColumnNames
from converter.exports.safe_names import TABLE, name_folders
from converter.format.manifest import Manifest, read_manifest, read_manifest_version
from converter.image_options import COLOR_CHANNELS, MAX_FILE_BYTES, MAX_PIXELS
from converter.names import to_bytes
from converter.option_fields import check_choice
from converter.storage.files import LABELS
from converter.storage.location import Location

SHARD_BYTES: Final = 500_000_000

MAX_NAMED: Final = 100  # damaged records that are kept, for their names; all are counted


class SplitFiles(NamedTuple):
    """What was written of a split: images, the files of the export, and their bytes."""

    images: int
    files: int
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """The outcome of an export.

    Attributes:
        kind: `folders`, `webdataset` or `parquet`.
        splits: the images, files and bytes that were written, by split.
        damaged: the number of records that were left out because they are damaged.
        errors: what is wrong with each of the first 100 of them.
        command: the command that converts the export to the same pixels, labels and columns again.
    """

    kind: str
    splits: dict[str, SplitFiles]
    damaged: int
    errors: tuple[RecordError, ...]
    command: str


class DamageList:
    """Collects damaged records, or raises the first one, as `on_damage` says."""

    def __init__(self, policy: str) -> None:
        self._policy = policy
        self.count = 0
        self.errors: list[RecordError] = []

    def report(self, error: RecordError) -> None:
        if self._policy == "raise":
            raise error
        self.count += 1
        if len(self.errors) < MAX_NAMED:
            self.errors.append(error)


@dataclasses.dataclass(frozen=True, kw_only=True)  # without slots, which allow no cache
class ExportJob:
    """A data set as it is now, and how to export it; see `pipelines.export`."""

    out: Location
    manifest: Manifest
    version: tuple[int, str] | None  # of the manifest's file
    kind: str = "folders"
    split: str | None = None
    shard_bytes: int | None = None
    on_damage: str = "raise"

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_choice("on damage", self.on_damage, POLICIES)
        if self.split is not None and self.split not in self.manifest.splits:
            known = ", ".join(self.manifest.splits)
            raise UsageError(f"split {self.split!r:.60} does not exist: there are {known}")
        if self.shard_bytes is not None and self.kind == "folders":
            raise UsageError("shard bytes are for webdataset and parquet: folders have no shards")
        if self.shard_bytes is not None and self.shard_bytes < 1:
            raise UsageError(f"shard bytes {self.shard_bytes} are not 1 or more")

    @classmethod
    def read(cls, out: Location, **settings: Any) -> "ExportJob":
        """Reads the manifest of a finished data set; raises what `read_manifest` raises."""
        version = read_manifest_version(out)
        return cls(out=out, manifest=read_manifest(out), version=version, **settings)

    @property
    def splits(self) -> list[str]:
        return [*self.manifest.splits] if self.split is None else [self.split]

    @property
    def total_records(self) -> int:
        """How many records there are to read."""
        return sum(self.manifest.splits[split].records for split in self.splits)

    @functools.cached_property
    def class_folders(self) -> list[str]:
        """A folder for each class, in label order."""
        return name_folders(self.manifest.classes)

    @functools.cached_property
    def split_folders(self) -> dict[str, str]:
        """A folder for each split, by its name."""
        return dict(zip(self.manifest.splits, name_folders(self.manifest.splits), strict=True))

    @functools.cached_property
    def names(self) -> ColumnNames:
        usual = {
            "folders": {},
            "webdataset": {FILE: "source_id", MASK_FILE: "mask.png"},
            "parquet": {FILE: IMAGE, MASK_FILE: "mask"},
        }
        return ColumnNames.choose(self.manifest.columns, **usual[self.kind])

    @property
    def needs_table(self) -> bool:
        """Whether folders of classes cannot hold what is known about the images."""
        named = not self.manifest.labelled or self.class_folders == [*self.manifest.classes]
        return self.kind == "folders" and bool(self.manifest.columns or not named)

    @property
    def labels(self) -> bytes:
        """The classes as a file for `--labels`; nothing if that would not give the same ones."""
        names = self.manifest.classes
        data = to_bytes("".join(f"{name}\n" for name in names))
        plain = all(map(str.strip, names)) and not (is_renamed(names) or data.startswith(BOM_UTF8))
        return data if plain and len({*names}) == len(data.splitlines()) == len(names) else b""

    @functools.cached_property
    def files(self) -> dict[str, bytes]:
        """Files beside the images, by name."""
        # `datasets` guesses what a folder holds by the suffixes in it, so none beside Parquet.
        return {LABELS: self.labels} if self.labels and self.kind != "parquet" else {}

    def cut(self, split: str) -> list[int]:
        """Where the files of a split end: the number of the record behind the last of each."""
        info = self.manifest.splits[split]
        count = min(info.records, math.ceil(info.bytes / (self.shard_bytes or SHARD_BYTES)))
        return [(at + 1) * info.records // count for at in range(count)]

    def describe_command(self, folder: Location) -> str:
        """The command that converts the export again."""
        source = folder / TABLE if self.needs_table else folder
        words = ["shardmill", "convert", str(source), "OUT2", *self._list_flags(folder)]
        return shlex.join(words)

    def _list_flags(self, folder: Location) -> Sequence[str]:
        image = self.manifest.image
        flags = ["--resize", "none", "--encoding", "raw" if image.is_raw else "keep"]
        modes = {count: mode for mode, count in COLOR_CHANNELS.items()}
        if image.channels != COLOR_CHANNELS["rgb"]:
            flags += ["--color-mode", modes.get(image.channels, "rgb")]
        if self.manifest.options.get("color_profiles") == "ignore":  # kept images have theirs
            flags += ["--color-profiles", "ignore"]
        if image.max_height * image.max_width > MAX_PIXELS:
            flags += ["--max-pixels", str(image.max_height * image.max_width)]
        largest = max((shard.max_record_bytes for shard in self.manifest.shards), default=0)
        if largest > MAX_FILE_BYTES:
            flags += ["--max-file-bytes", str(largest)]
        if LABELS in self.files and not folder.is_remote:  # the file is read from a disk
            flags += ["--labels", str(folder / LABELS)]
        labelled = self.manifest.labelled
        if self.needs_table or self.kind != "folders":
            return [*flags, *self.names.list_flags(self.kind, labelled=labelled)]
        return flags if labelled else [*flags, "--label-from", "none"]
