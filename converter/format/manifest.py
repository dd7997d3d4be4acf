"""`manifest.json`: what a data set holds, and the sign that it is complete.

    {"format": "shardmill", "format_version": "1.0", "generator": "shardmill 0.2.0",
     "options": …, "plan": …, "classes": ["cats", "dogs"],
     "image": {"height": 256, "width": 256, "max_height": 256, "max_width": 256, "channels": 3,
               "formats": {"jpeg": 5000}},
     "splits": {"train": {"records": 5000, "bytes": …, "shards": 16, "labels": [2500, 2500]}},
     "shards": [{"name": …, "split": …, "records": …, "bytes": …, "sha256": …,
                 "index_bytes": …, "index_sha256": …, "max_record_bytes": …}],
     "files": {"labels.txt": {"bytes": …, "sha256": …}},
     "totals": {"scanned": …, "written": …, "rejected": {…}, "skipped": {…}, "frames": 0},
     "updated": 0, "columns": [{"name": "image/caption", "kind": "text"}], "labelled": true,
     "digest": "…"}

`updated` counts the updates since the last full conversion: after one, shards may differ in length,
and classes need not be in the order of their names. Without `labelled`, records have no label, and
splits no counts of them. `digest` is the SHA-256 of all the rest, so that every change shows.
The same images and options give the same file: it holds no times, hosts or absolute paths.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from converter.errors import DatasetError
from converter.format.indexes import MAX_LINE_BYTES
from converter.format.schema import Column, check_columns
from converter.format.tfrecords import FRAMING_BYTES
from converter.format.typed_json import check_count, dump_json, find_reader, load_json
from converter.names import show_name, to_bytes
from converter.sizes import format_count
from converter.storage.files import MANIFEST, Layout, hash_bytes, name_index
from converter.storage.locate import locate
from converter.storage.location import AnyPath, Location

FORMAT: Final = "shardmill"
FORMAT_VERSION: Final = (1, 0)

# Enough for three splits of `options.MAX_SHARDS` each; a larger file is refused unread. Hostile
# JSON takes 17 times as much memory while it is parsed (measured).
MAX_MANIFEST_BYTES: Final = 1 << 27

MAX_SIDE: Final = 2**31 - 1
MAX_CHANNELS: Final = 4
MAX_RECORD_BYTES: Final = 2**31 - 1  # the limit of protobuf

_AGAIN: Final = "copy the data set again, or convert it again with --overwrite"

# Of a data set in one line: letters of a name, and names in a list.
_MAX_WORD: Final = 24
_MAX_LISTED: Final = 4

# How the file ends: the key that is left out of the digest, and the end of what is hashed.
_DIGEST_LINE: Final = b',\n "digest": "%b"'
_END: Final = b"\n}\n"

_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_VERSION: Final = re.compile(r"(\d{1,9})\.(\d{1,9})")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """One shard of a finished data set."""

    name: str
    split: str
    records: int
    bytes: int
    sha256: str
    index_bytes: int
    index_sha256: str
    max_record_bytes: int  # including the framing

    @property
    def file_sizes(self) -> dict[str, int]:
        """The bytes of the shard and of its index, by name."""
        return {self.name: self.bytes, name_index(self.name): self.index_bytes}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SplitInfo:
    """One split: its totals."""

    records: int
    bytes: int
    shards: int
    labels: tuple[int, ...]  # the number of records by label


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImageInfo:
    """What the stored images have in common."""

    height: int | None  # in pixels; None where images differ
    width: int | None
    max_height: int
    max_width: int
    channels: int
    formats: dict[str, int]  # the number of images by stored format

    @property
    def is_raw(self) -> bool:
        """Whether images are stored as bare pixels, without headers."""
        return "raw" in self.formats


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FileInfo:
    """Another file of the data set."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """The account of every file that was seen: scanned + frames = written + rejected + skipped."""

    scanned: int  # files
    written: int  # records
    rejected: dict[str, int]  # by code
    skipped: dict[str, int]
    frames: int = 0  # beyond the first of their file, written or rejected


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Manifest:
    """A finished data set; see the module's docstring for the file."""

    generator: str
    options: dict[str, Any]
    plan: str
    classes: tuple[str, ...]
    image: ImageInfo
    splits: dict[str, SplitInfo]
    shards: tuple[ShardInfo, ...]
    files: dict[str, FileInfo]
    totals: Totals
    updated: int = 0
    columns: tuple[Column, ...] = ()
    labelled: bool = True

    def __repr__(self) -> str:
        return f"Manifest({describe_manifest(self)})"

    @property
    def total_bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    def list_shards(self, split: str) -> tuple[ShardInfo, ...]:
        """The shards of a split, in order; raises a `DatasetError` if there is no such split."""
        if split not in list(self.splits):  # a list, as what is no name may have no hash
            raise DatasetError(f"no split {split!r:.60}: there are {', '.join(self.splits)}")
        return tuple(shard for shard in self.shards if shard.split == split)

    def count_labels(self) -> list[int]:
        """Counts the records of each class, in label order; [] if they are not counted."""
        labels = (split.labels for split in self.splits.values())
        return [sum(counts) for counts in zip(*labels, strict=True)]

    def to_bytes(self) -> bytes:
        """The content of `manifest.json`."""
        content = {
            "format": FORMAT,
            "format_version": "{}.{}".format(*FORMAT_VERSION),
            **dataclasses.asdict(self),
        }
        body = dump_json(content)
        return body[: -len(_END)] + _DIGEST_LINE % hash_bytes(body).encode("ascii") + _END


def read_manifest(folder: AnyPath) -> Manifest:
    """Reads and checks the manifest of a data set.

    Raises DatasetError if there is none, it is damaged or of a newer major version, or what it says
    contradicts itself or leads out of the folder.
    """
    path = locate(folder) / MANIFEST
    try:
        size = path.measure()
        if size is None and path.exists():
            raise DatasetError(f"{path} is not a file: {_AGAIN}")
        if (size or 0) > MAX_MANIFEST_BYTES:
            most = f"at most {MAX_MANIFEST_BYTES:,}"
            raise DatasetError(f"{path} has {size:,} bytes, {most}: {_AGAIN}")
        data = path.read_range(0, size or 1)
    except FileNotFoundError:
        raise DatasetError(_explain_missing(folder)) from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    return parse_manifest(data, str(path))


def _explain_missing(folder: AnyPath) -> str:
    if Layout(locate(folder)).work.exists():
        return (
            f"{folder} is no finished data set: its conversion was interrupted or is still "
            "running; the same convert command goes on with it"
        )
    return f"{folder} is no finished data set: there is no {MANIFEST} in it"


def read_manifest_version(folder: Location) -> tuple[int, str] | None:
    """A token that changes whenever a manifest is written; None if there is no manifest."""
    # Not the manifest itself: one of 100,000 shards takes seconds to read.
    path = folder / MANIFEST
    return path.read_version() if path.is_file() else None


def parse_manifest(data: bytes, path: str = MANIFEST) -> Manifest:
    """The inverse of `Manifest.to_bytes`; trusts nothing, and raises what `read_manifest` does."""
    try:
        content = load_json(data)
        _check_version(content, path)
        _check_digest(content["digest"], data)
        manifest: Manifest = find_reader(Manifest)(content)
        _check_consistency(manifest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DatasetError(f"{path} is damaged: {reason}; {_AGAIN}") from error
    return manifest


def describe_manifest(manifest: Manifest) -> str:
    """The splits, classes, columns and images of a data set in one line, the first of each."""
    parts = [_describe_splits(manifest.splits)]
    if manifest.classes or manifest.labelled:
        parts.append(format_count(len(manifest.classes), "class"))
    if manifest.columns:
        parts.append(format_count(len(manifest.columns), "column"))
    return "; ".join(filter(None, [*parts, _describe_image(manifest.image)]))


def _check_version(content: Any, path: str) -> None:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DatasetError(f"{path} is not the manifest of a shardmill data set")
    version = content["format_version"]
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if match is None:
        raise ValueError(f"format_version {version!r} is not like 1.0")
    if int(match[1]) != FORMAT_VERSION[0]:
        raise DatasetError(
            f"{path} has format version {match[0]}; this shardmill reads "
            f"{FORMAT_VERSION[0]}.x: install the version that wrote it, or a newer one"
        )


def _check_digest(digest: Any, data: bytes) -> None:
    # Not by writing it again, which would take longer than all the rest, and twice the memory.
    end = _DIGEST_LINE % str(digest).encode("ascii", "replace") + _END
    body = hashlib.sha256(memoryview(data)[: -len(end)])
    body.update(_END)
    if not data.endswith(end) or body.hexdigest() != digest:
        raise ValueError("the content does not match its digest: it was changed or damaged")


def _check_name(name: str) -> None:
    """Refuses the name of a file that could lead out of the data set's folder."""
    if _SAFE_NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a safe file name")


def _check_consistency(manifest: Manifest) -> None:
    for label in manifest.classes:
        to_bytes(label)  # raises a ValueError for surrogates that stand for no byte
    for name in (*manifest.files, *manifest.splits):
        _check_name(name)
    _check_image(manifest.image)
    check_columns(manifest.columns)
    # Grouped once: a forged manifest may have as many splits as shards.
    groups: dict[str, list[ShardInfo]] = {}
    for shard in manifest.shards:
        _check_shard(shard)
        groups.setdefault(shard.split, []).append(shard)
    if len({shard.name for shard in manifest.shards}) != len(manifest.shards):
        raise ValueError("a shard is listed twice")
    for name in manifest.splits:
        _check_split(manifest, name, groups.get(name, []))
    if groups.keys() != manifest.splits.keys():
        raise ValueError("shards and splits do not match")
    totals = manifest.totals
    accounted = totals.written + sum(totals.rejected.values()) + sum(totals.skipped.values())
    records = sum(split.records for split in manifest.splits.values())
    if totals.scanned + totals.frames != accounted or totals.written != records:
        raise ValueError("its totals do not add up")


def _check_image(image: ImageInfo) -> None:
    check_count(image.channels, MAX_CHANNELS)
    for side, most in ((image.height, image.max_height), (image.width, image.max_width)):
        check_count(most, MAX_SIDE)
        if side is not None and most not in (0, check_count(side, MAX_SIDE)):
            raise ValueError(f"images of {side} pixels that have up to {most}")


def _check_shard(shard: ShardInfo) -> None:
    _check_name(shard.name)
    # Readers allocate as much memory as these numbers say.
    check_count(shard.index_bytes, MAX_LINE_BYTES * shard.records)
    check_count(shard.max_record_bytes, min(shard.bytes, MAX_RECORD_BYTES))
    if shard.records * FRAMING_BYTES > shard.bytes:
        raise ValueError(f"{shard.records} records do not fit into {shard.bytes} bytes")


def _check_split(manifest: Manifest, name: str, shards: Sequence[ShardInfo]) -> None:
    split = manifest.splits[name]
    counted = (sum(s.records for s in shards), sum(s.bytes for s in shards), len(shards))
    if (split.records, split.bytes, split.shards) != counted:
        raise ValueError(f"the shards of split {name} do not add up to it")
    labels = len(manifest.classes) if manifest.labelled else 0
    if len(split.labels) != labels or sum(split.labels) != split.records * manifest.labelled:
        raise ValueError(f"the labels of split {name} do not add up to it")


def _describe_splits(splits: Mapping[str, SplitInfo]) -> str:
    counts = (
        # Only the first count is followed by its noun.
        f"{split.records:,}" if number else format_count(split.records, "record")
        for number, split in enumerate(splits.values())
    )
    names = (show_name(name, _MAX_WORD) for name in splits)
    return _list_some(map(" ".join, zip(names, counts, strict=True)), len(splits))


def _describe_image(image: ImageInfo) -> str:
    formats = _list_some((show_name(name, _MAX_WORD) for name in image.formats), len(image.formats))
    size = ""
    if image.height is not None and image.width is not None:
        size = f"{image.height}x{image.width}"
    elif image.max_height and image.max_width:
        size = f"up to {image.max_height}x{image.max_width}"
    return f"{size} {formats}".strip()


def _list_some(words: Iterable[str], count: int) -> str:
    some = ", ".join(itertools.islice(words, _MAX_LISTED))
    return some if count <= _MAX_LISTED else f"{some} and {count - _MAX_LISTED:,} more"
