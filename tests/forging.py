"""Forges data sets: with right sizes, checksums and digest, and whatever else one likes in them."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from converter import examples
from converter.indexes import format_line, name_index
from converter.manifest import ImageInfo, Manifest, ShardInfo, SplitInfo, Totals
from converter.tfrecords import frame_record

CLASSES = ("ant", "bee")


def make_payload(
    encoded: bytes, number: int = 0, height: int = 24, width: int = 32, **changes: object
) -> bytes:
    """The payload of an image's record; `label=…` and so on change its features."""
    features = {
        examples.ENCODED: encoded,
        examples.FORMAT: b"png",
        examples.HEIGHT: height,
        examples.WIDTH: width,
        examples.LABEL: number % 2,
        examples.TEXT: CLASSES[number % 2].encode(),
        examples.SOURCE_ID: b"%s/%d.png" % (CLASSES[number % 2].encode(), number),
        examples.SHA256: b"ab",
    }
    return examples.encode_example(features | {f"image/{k}": v for k, v in changes.items()})


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
        sha256="",
        index_bytes=len(index),
        index_sha256=hashlib.sha256(index).hexdigest(),
        max_record_bytes=max(map(len, records), default=0),
    )
