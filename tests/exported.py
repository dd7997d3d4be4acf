"""Data sets to export, of every kind, and what is in a data set, to compare it with another."""

import io
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from conftest import convert_folder, encode_image, write_image
from PIL import Image

from converter.format import examples
from converter.format.manifest import Manifest, read_manifest
from converter.format.tfrecords import read_records
from converter.options import ConvertOptions
from converter.storage.disk import DiskPath
from converter.storage.locate import locate
from pipelines.cli.arguments import parse_arguments
from pipelines.cli.given_options import read_options
from pipelines.jobs.export import export

COUNT = 24
SIZE = (24, 32)

ENCODINGS = {
    "jpeg": {"encoding": "jpeg"},
    "png": {"encoding": "png"},
    "webp": {"encoding": "webp"},
    "raw": {"encoding": "raw"},
    "keep": {"encoding": "keep"},
    "grey": {"encoding": "png", "color_mode": "grayscale"},
    "grey jpeg": {"encoding": "jpeg", "color_mode": "grayscale"},
    "grey raw": {"encoding": "raw", "color_mode": "grayscale"},
    "rgba": {"encoding": "png", "color_mode": "rgba"},
    "rgba raw": {"encoding": "raw", "color_mode": "rgba"},
    "kept size": {"encoding": "keep", "resize": "none"},
}

TABLE = {
    "label_column": "kind",
    "target_column": "price",
    "caption_column": "caption",
    "boxes_column": "boxes",
    "box_labels_column": "things",
    "mask_column": "mask",
    "split_column": "split",
    "box_columns": ("is_crowd", "weights"),
    "keep_columns": ("age", "height", "name", "scores", "codes", "words", "file_name", "label"),
}


def make_folder(root: Path, **options: Any) -> DiskPath:
    """A data set of a folder with formats of every kind, in two classes and two splits."""
    for seed in range(COUNT):
        form = ("JPEG", "PNG", "WEBP", "GIF", "BMP")[seed % 5]
        write_image(root / "images" / ("a cat", "dog")[seed % 2] / f"{seed}.v1.{form}", seed, form)
    settings = {"image_size": SIZE, "validation_split": 0.3, "num_shards": 3, **options}
    convert_folder(root / "images", root / "out", ConvertOptions(**settings))
    return DiskPath(root / "out")


def make_table(root: Path, **options: Any) -> DiskPath:
    """A data set of a table with columns of every kind."""
    images = root / "images"
    with open(root / "table.jsonl", "w", encoding="utf-8") as file:
        for seed in range(COUNT):
            write_image(images / f"{seed}.png", seed, "PNG")
            mask = Image.fromarray(np.full(SIZE, seed % 7, np.uint8))
            write_mask(images / "masks" / f"{seed}.png", mask)
            file.write(json.dumps(make_row(seed)) + "\n")
    settings = {"image_size": (12, 16), "encoding": "png", "num_shards": 2, **TABLE, **options}
    convert_folder(root / "table.jsonl", root / "out", ConvertOptions(**settings))
    return DiskPath(root / "out")


def write_mask(path: Path, mask: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(mask, "PNG"))


def make_row(seed: int) -> dict[str, Any]:
    return {
        "path": f"images/{seed}.png", "mask": f"images/masks/{seed}.png",
        "kind": ("c/d", "10", "9", "ü")[seed % 4], "tags": ["x", "y", "z"][: seed % 4],
        "price": seed / 7, "caption": f"Bild {seed} ü\n", "split": ("train", "test")[seed % 3 == 0],
        "boxes": [[2, 3, 10 + seed, 12], [0.5, 1, 9, 9.7]][: seed // 3 % 3],
        "things": ["x", "y"][: seed // 3 % 3], "age": seed,
        "height": seed + 0.1 if seed % 4 else None, "name": f"n{seed}",
        "is_crowd": [seed % 2, 1][: seed // 3 % 3], "weights": [0.5, seed][: seed // 3 % 3],
        "scores": [seed, 0.3], "codes": list(range(seed % 3)),
        "words": ["w", str(seed)], "file_name": f"f{seed}", "label": f"l{seed}",
    }  # fmt: skip


def convert_again(command: str, out: Path) -> DiskPath:
    """Runs the command of an export, but writes to `out`."""
    program, *words = shlex.split(command)
    assert program == "shardmill"
    arguments = parse_arguments(words)
    assert str(arguments.out) == "OUT2"
    convert_folder(locate(arguments.images[0]), out, read_options(arguments)[0])
    return DiskPath(out)


def bring_back(out: Path, root: Path, **settings: Any) -> DiskPath:
    """Exports a data set, and converts what it gave by the command that it printed."""
    result = export(out, root / "export", **settings)
    return convert_again(result.command, root / "again")


def describe_dataset(out: Path, *splits: str) -> list[tuple]:
    """What is in each record, ordered; labels by name."""
    manifest = read_manifest(DiskPath(out))
    found = [
        describe_record(features, split, manifest)
        for split, features in read_features(out)
        if not splits or split in splits
    ]
    assert len({record[0] for record in found}) == len(found)
    return sorted(found)


def describe_record(features: dict[str, list], split: str, manifest: Manifest) -> tuple:
    """Pixels, split, class and columns of a record."""
    values = []
    for column in sorted(manifest.columns, key=lambda column: column.name):
        value = features[column.name]
        if column.kind == "labels":
            value = [manifest.classes[label] for label in value]
        if column.kind == "mask":
            value = np.asarray(Image.open(io.BytesIO(value[0]))).tolist()
        values.append((column.name, column.kind, repr(value)))
    label = manifest.classes[features[examples.LABEL][0]] if manifest.labelled else ""
    return decode_pixels(features), split, label, tuple(values)


def decode_pixels(features: dict[str, list]) -> bytes:
    """The pixels of a record, with their shape in front."""
    shape = tuple(
        features[name][0] for name in (examples.HEIGHT, examples.WIDTH, examples.CHANNELS)
    )
    data = features[examples.ENCODED][0]
    if features[examples.FORMAT] != [b"raw"]:
        data = np.asarray(Image.open(io.BytesIO(data))).tobytes()
    return repr(shape).encode() + data


def read_features(out: Path) -> Iterator[tuple[str, dict[str, list]]]:
    """The split and the features of each record, in order."""
    for shard in read_manifest(DiskPath(out)).shards:
        with open(Path(out, shard.name), "rb") as file:
            for _, payload in read_records(file, shard.name, shard.bytes):
                yield shard.split, examples.decode_example(payload)


def read_stored(out: Path, split: str) -> list[bytes]:
    """The stored images of a split, in order."""
    found = read_features(out)
    return [features[examples.ENCODED][0] for name, features in found if name == split]


def list_tree(folder: Path) -> dict[str, bytes]:
    """The content of every file of an export but its marker."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".shardmill-export.json"
    }
