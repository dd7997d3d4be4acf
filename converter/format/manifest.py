"""`manifest.json`: what a data set holds, and the sign that it is complete.

    {"format": "shardmill", "format_version": "1.0", "generator": "shardmill 0.1.0",
     "options": …, "plan": …, "classes": ["cats", "dogs"],
     "image": {"height": 256, "width": 256, "max_height": 256, "max_width": 256, "channels": 3,
               "formats": {"jpeg": 5000}},
     "splits": {"train": {"records": 5000, "bytes": …, "shards": 16, "labels": [2500, 2500]}},
     "shards": [{"name": …, "split": …, "records": …, "bytes": …, "sha256": …,
                 "index_bytes": …, "index_sha256": …, "max_record_bytes": …}],
     "columns": [{"name": "image/caption", "kind": "text"}], "labelled": true,
     "files": {"labels.txt": {"bytes": …, "sha256": …}},
     "totals": {"scanned": …, "written": …, "rejected": {…}, "skipped": {…}, "frames": 0},
     "updated": 0, "digest": "…"}

`height` and `width` are null where images differ. `updated` counts the updates since the last
conversion as a whole: after one, shards may differ in length, and classes need not be in the
order of their names. Without `labelled`, records have
no label, and splits no counts of them. `digest` is the SHA-256 of the file without it,
so that a change of any byte shows. Times, hosts and absolute paths are not in it: the same images
and options give the same file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from converter.errors import DatasetError
from converter.format.descriptions import describe_manifest
from converter.format.indexes import MAX_LINE_BYTES
from converter.format.schema import Column, check_columns
from converter.format.tfrecords import FRAMING_BYTES
from converter.names import to_bytes
from converter.storage.layout import MANIFEST
from converter.storage.locate import locate
from converter.storage.location import AnyPath

T = TypeVar("T")

FORMAT: Final = "shardmill"
FORMAT_VERSION: Final = (1, 0)

MAX_MANIFEST_BYTES: Final = 1 << 27
"""Three splits of `options.MAX_SHARDS` each; a larger file is refused unread. Of hostile JSON, 17
times as much memory is taken meanwhile (measured)."""

MAX_SIDE: Final = 2**31 - 1
MAX_CHANNELS: Final = 4
MAX_RECORD_BYTES: Final = 2**31 - 1
"""What protobuf can parse."""

_MAX_REASON: Final = 300

_KINDS: Final[dict[type, str]] = {
    str: "string",
    list: "list",
    dict: "JSON object",
    bool: "truth value",
}
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_VERSION: Final = re.compile(r"(\d{1,9})\.(\d{1,9})")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """One shard of a finished data set.

    Attributes:
        name: its file name.
        split: the split it belongs to.
        records: how many it holds.
        bytes: its size.
        sha256: of its content, in hexadecimal.
        index_bytes: the size of its index.
        index_sha256: of the index.
        max_record_bytes: its largest record, framing included.
    """

    name: str
    split: str
    records: int
    bytes: int
    sha256: str
    index_bytes: int
    index_sha256: str
    max_record_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SplitInfo:
    """One split: its totals, and its number of records by label."""

    records: int
    bytes: int
    shards: int
    labels: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImageInfo:
    """What the stored images have in common.

    Attributes:
        height: in pixels, or None where images differ.
        width: likewise.
        max_height: the largest height.
        max_width: the largest width.
        channels: of every pixel.
        formats: number of images by stored format.
    """

    height: int | None
    width: int | None
    max_height: int
    max_width: int
    channels: int
    formats: dict[str, int]

    @property
    def is_raw(self) -> bool:
        """Whether images are stored without any encoding, so without headers."""
        return "raw" in self.formats


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FileInfo:
    """Another file of the data set: its size and its SHA-256."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """The account of every file that was seen: scanned + frames = written + rejected + skipped.

    Attributes:
        scanned: files.
        written: records.
        rejected: of what no record was made, by code.
        skipped: files that were not looked at, by code.
        frames: of a file of several, those beyond the first one, written or rejected.
    """

    scanned: int
    written: int
    rejected: dict[str, int]
    skipped: dict[str, int]
    frames: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Manifest:
    """A finished data set; see the module's text for the file."""

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
        """The size of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def list_shards(self, split: str) -> tuple[ShardInfo, ...]:
        """The shards of one split, in order.

        Raises:
            DatasetError: there is no such split.
        """
        if split not in self.splits:
            raise DatasetError(f"no split {split!r}: there are {', '.join(self.splits)}")
        return tuple(shard for shard in self.shards if shard.split == split)

    def to_bytes(self) -> bytes:
        """The content of `manifest.json`."""
        content = {
            "format": FORMAT,
            "format_version": "{}.{}".format(*FORMAT_VERSION),
            **dataclasses.asdict(self),
        }
        return dump_json({**content, "digest": hashlib.sha256(dump_json(content)).hexdigest()})


def read_manifest(folder: AnyPath) -> Manifest:
    """Reads and checks the manifest of a data set.

    Raises:
        DatasetError: there is none, it is damaged or of a newer major version, or what it says
            contradicts itself or leads out of the folder.
    """
    path = locate(folder) / MANIFEST
    try:
        size = path.measure()
        if (size or 0) > MAX_MANIFEST_BYTES or (size is None and path.exists()):
            raise DatasetError(f"{path} is no file of up to {MAX_MANIFEST_BYTES:,} bytes")
        data = path.read_range(0, size or 1)
    except FileNotFoundError:
        raise DatasetError(
            f"{folder} is no finished data set: there is no {MANIFEST} in it"
        ) from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    return parse_manifest(data, str(path))


def parse_manifest(data: bytes, path: str = MANIFEST) -> Manifest:
    """The inverse of `Manifest.to_bytes`, for data that nobody vouches for.

    Raises:
        DatasetError: as `read_manifest` does; `path` is named in it.
    """
    try:
        content = json.loads(data, object_pairs_hook=_refuse_duplicates, parse_constant=_refuse)
        _check_version(content, path)
        digest = content.pop("digest")
        _check_digest(content, digest, data)
        return _build(content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DatasetError(f"{path} is damaged: {reason[:_MAX_REASON]}") from error


def _check_digest(content: dict[str, Any], digest: Any, data: bytes) -> None:
    whole = {**content, "digest": digest}
    if dump_json(whole) != data or hashlib.sha256(dump_json(content)).hexdigest() != digest:
        raise ValueError("the content does not match its digest: it was changed or damaged")


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


def _build(content: dict[str, Any]) -> Manifest:
    manifest = Manifest(
        generator=_text(content["generator"]),
        options=_of(dict, content["options"]),
        plan=_text(content["plan"]),
        classes=tuple(_class(name) for name in _of(list, content["classes"])),
        image=_pick(ImageInfo, content["image"]),
        splits={
            name: _pick(SplitInfo, {**split, "labels": tuple(_of(list, split["labels"]))})
            for name, split in content["splits"].items()
        },
        shards=tuple(_pick(ShardInfo, shard) for shard in _of(list, content["shards"])),
        files={_name(name): _pick(FileInfo, file) for name, file in content["files"].items()},
        totals=_pick(Totals, {"frames": 0, **content["totals"]}),
        updated=content.get("updated", 0),
        columns=tuple(_pick(Column, column) for column in _of(list, content.get("columns", []))),
        labelled=_of(bool, content.get("labelled", True)),
    )
    _check(manifest)
    return manifest


def _pick(kind: Callable[..., T], content: Mapping[str, Any]) -> T:
    """Builds a dataclass from the keys that it has: a newer minor version may write more."""
    # That a callable is a dataclass, no type says that Python 3.10 has.
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: content[name] for name in names})


def _check(manifest: Manifest) -> None:
    totals = manifest.totals
    _check_image(manifest.image)
    _counts(
        totals.scanned,
        totals.written,
        totals.frames,
        *totals.rejected.values(),
        *totals.skipped.values(),
    )
    _counts(manifest.updated)
    check_columns(manifest.columns)
    for file in manifest.files.values():
        _counts(file.bytes)
        _text(file.sha256)
    for shard in manifest.shards:
        _check_shard(shard)
    if len({shard.name for shard in manifest.shards}) != len(manifest.shards):
        raise ValueError("a shard is listed twice")
    for name, split in manifest.splits.items():
        classes = len(manifest.classes) if manifest.labelled else None
        _check_split(name, split, manifest.list_shards(name), classes)
    if {shard.split for shard in manifest.shards} != set(manifest.splits):
        raise ValueError("shards and splits do not match")
    accounted = totals.written + sum(totals.rejected.values()) + sum(totals.skipped.values())
    if totals.scanned + totals.frames != accounted or totals.written != _sum(
        manifest.splits, "records"
    ):
        raise ValueError("its totals do not add up")


def _check_image(image: ImageInfo) -> None:
    sides = [side for side in (image.height, image.width) if side is not None]
    _counts(*image.formats.values())
    _counts(image.max_height, image.max_width, *sides, limit=MAX_SIDE)
    _counts(image.channels, limit=MAX_CHANNELS)
    for side, most in ((image.height, image.max_height), (image.width, image.max_width)):
        if side is not None and most not in (0, side):
            raise ValueError(f"images of {side} pixels that have up to {most}")


def _check_shard(shard: ShardInfo) -> None:
    """Says no to what no shard can be; readers take memory for as much as these numbers say."""
    _name(shard.name)
    _text(shard.sha256)
    _text(shard.index_sha256)
    _counts(shard.records, shard.bytes)
    _counts(shard.index_bytes, limit=MAX_LINE_BYTES * shard.records)
    _counts(shard.max_record_bytes, limit=min(shard.bytes, MAX_RECORD_BYTES))
    if shard.records * FRAMING_BYTES > shard.bytes:
        raise ValueError(f"{shard.records} records do not fit into {shard.bytes} bytes")


def _check_split(
    name: str, split: SplitInfo, shards: Sequence[ShardInfo], classes: int | None
) -> None:
    _name(name)
    _counts(split.records, split.bytes, split.shards, *split.labels)
    counted = (sum(s.records for s in shards), sum(s.bytes for s in shards), len(shards))
    if (split.records, split.bytes, split.shards) != counted:
        raise ValueError(f"the shards of split {name} do not add up to it")
    if classes is None:
        fits = not split.labels
    else:
        fits = len(split.labels) == classes and sum(split.labels) == split.records
    if not fits:
        raise ValueError(f"the labels of split {name} do not add up to it")


def _sum(splits: Mapping[str, SplitInfo], field: str) -> int:
    return sum(getattr(split, field) for split in splits.values())


def _counts(*values: int, limit: int = 2**63 - 1) -> None:
    for value in values:
        if type(value) is not int or not 0 <= value < 2**63:
            raise ValueError(f"{value!r} is not a count")
        if value > limit:
            raise ValueError(f"{value} is out of range: up to {limit}")


def _text(value: Any) -> str:
    return _of(str, value)


def _of(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not a {_KINDS[kind]}")
    return value


def _class(value: Any) -> str:
    """The name of a class, which stands for the bytes of a folder's name."""
    to_bytes(_text(value))  # not of any surrogates: a ValueError
    return str(value)


def _name(value: Any) -> str:
    """A file name that cannot lead out of the data set's folder."""
    if _SAFE_NAME.fullmatch(_text(value)) is None:
        raise ValueError(f"{value!r} is not a safe file name")
    return str(value)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return dict(pairs)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def dump_json(content: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file of a data set: ASCII, in the order of the keys."""
    return json.dumps(content, indent=1).encode("ascii") + b"\n"
