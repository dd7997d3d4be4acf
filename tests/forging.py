"""Forges data sets: with right sizes, checksums and digest, and whatever else one likes in them."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converter.format import examples
from converter.format.indexes import format_line
from converter.format.manifest import ImageInfo, Manifest, ShardInfo, SplitInfo, Totals
from converter.format.tfrecords import frame_record
from converter.names import to_bytes
from converter.storage.files import name_index

CLASSES = ("ant", "bee")


def make_payload(
    encoded: bytes, number: int = 0, height: int = 24, width: int = 32, **changes: object
) -> bytes:
    """The payload of an image's record; `source_id=…` or `class_label=…` change its features."""
    name = f"{number}.png"
    features: dict[str, object] = {
        examples.ENCODED: encoded,
        examples.FORMAT: b"png",
        examples.HEIGHT: height,
        examples.WIDTH: width,
        examples.CHANNELS: 3,
        examples.COLORSPACE: b"RGB",
        examples.LABEL: number % 2,
        examples.TEXT: to_bytes(CLASSES[number % 2]),
        examples.FILENAME: name.encode(),
        examples.SOURCE_ID: to_bytes(f"{CLASSES[number % 2]}/{name}"),
        examples.SHA256: hashlib.sha256(encoded).hexdigest().encode(),
    }
    changed = {f"image/{key.replace('class_', 'class/')}": value for key, value in changes.items()}
    return examples.encode_example(features | changed)


def forge(
    folder: Path,
    shards: Mapping[str, Sequence[bytes]],
    image_format: str = "png",
    size: tuple[int, int] = (24, 32),
    **changes: object,
) -> Path:
    """Writes shards that hold these payloads, by their names, and a manifest that says so.

    Args:
        folder: where to; it is made.
        shards: payloads by name, without suffix.
        image_format: of all images, as the manifest has it.
        size: height and width of all images, as the manifest has them.
        **changes: other values of every `ShardInfo`.
    """
    folder.mkdir()
    infos = [_write_shard(folder, f"{name}.tfrecord", held) for name, held in shards.items()]
    infos = [dataclasses.replace(info, **changes) for info in infos]
    write_manifest(folder, infos, image_format, size)
    return folder


def write_manifest(
    folder: Path, shards: Sequence[ShardInfo], image_format: str, size: tuple[int, int]
) -> None:
    records = sum(shard.records for shard in shards)
    labels = (-(-records // 2), records // 2)
    split = SplitInfo(
        records=records, bytes=sum(s.bytes for s in shards), shards=len(shards), labels=labels
    )
    height, width = size
    manifest = Manifest(
        generator="forged",
        options={},
        plan="",
        classes=CLASSES,
        image=ImageInfo(
            height=height, width=width, max_height=height, max_width=width, channels=3,
            formats={image_format: records},
        ),
        splits={"train": split},
        shards=tuple(shards),
        files={},
        totals=Totals(scanned=records, written=records, rejected={}, skipped={}),
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(manifest.to_bytes())


def _write_shard(folder: Path, name: str, payloads: Sequence[bytes]) -> ShardInfo:
    records = [frame_record(payload) for payload in payloads]
    bounds = [0, *itertools.accumulate(map(len, records))]
    index = b"".join(format_line(a, b - a) for a, b in itertools.pairwise(bounds))
    (folder / name).write_bytes(b"".join(records))
    (folder / name_index(name)).write_bytes(index)
    return ShardInfo(
        name=name,
        split="train",
        records=len(records),
        bytes=bounds[-1],
        sha256=hashlib.sha256(b"".join(records)).hexdigest(),
        index_bytes=len(index),
        index_sha256=hashlib.sha256(index).hexdigest(),
        max_record_bytes=max(map(len, records), default=0),
    )


def resign(folder: Path, **changes: Any) -> None:
    """Changes what the manifest says of the first shard, and its digest."""
    path = folder / "manifest.json"
    content = json.loads(path.read_bytes())
    del content["digest"]
    shard, (split,) = content["shards"][0], content["splits"].values()
    for name in ("bytes", "records"):
        split[name] += changes.get(name, shard[name]) - shard[name]
    split["labels"] = [split["records"], 0]
    content["totals"] |= {"scanned": split["records"], "written": split["records"]}
    shard |= changes
    sign(path, content)


def sign(path: Path, content: dict[str, Any]) -> None:
    """Writes a manifest of that content, with the digest that belongs to it."""
    digest = hashlib.sha256(dump(content)).hexdigest()
    path.write_bytes(dump({**content, "digest": digest}))


def dump(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"
