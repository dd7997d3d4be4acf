"""Everything that docs/sources.md converts: tables, annotations, tars, Parquet, TFRecords."""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from annotating import write_coco, write_own, write_roboflow, write_voc, write_yolo
from conftest import convert_folder, encode_image, make_image, write_image
from parquet_making import make_rows, write_plain

from converter.format.examples import encode_example
from converter.format.tfrecords import frame_record
from converter.options import ConvertOptions

IMAGES = 12  # of each table

# The table of each folder, the place of its images, and the cells of image n.
_TABLES: dict[str, tuple[str, str, Callable[[int], dict[str, Any]]]] = {
    "aptos": ("train.csv", "train_images/{}.png", lambda n: {"id_code": n, "diagnosis": n % 5}),
    "dogs": ("labels.csv", "train/{}.jpg", lambda n: {"id": n, "breed": ("pug", "dingo")[n % 2]}),
    "cassava": (
        "train.csv", "train_images/{}.jpg", lambda n: {"image_id": f"{n}.jpg", "label": n % 3}
    ),
    ".": ("Mappe1.csv", "{}.png", lambda n: {"filename": f"{n}.png", "Klasse": "AB"[n % 2]}),
    "planet": (
        "train.csv", "train-jpg/{}.jpg",
        lambda n: {"image_name": n, "tags": ("haze primary", "clear", "clear water")[n % 3]},
    ),
    "isic": (
        "truth.csv", "input/{}.jpg",
        lambda n: {"image": n, "MEL": n % 2, "NV": int(n % 3 == 0), "BCC": 0.0},
    ),
    "celeba": (
        "list_attr_celeba.csv", "img_align_celeba/{}.jpg",
        lambda n: {"image_id": f"{n}.jpg", "Smiling": 1, "Male": n % 2 * 2 - 1, "Young": -1},
    ),
    "numbers": (
        "train.csv", "{}.png", lambda n: {"path": f"{n}.png", "label": (0, 1, 3)[n % 3]}
    ),
}  # fmt: skip


def make_sources(folder: Path) -> None:
    """All of them, and `old`, a data set of Shardmill."""
    for name, (table, place, make_row) in _TABLES.items():
        _write_table(folder / name, table, place, [make_row(n) for n in range(IMAGES)])
    _write_boxes(folder)
    _write_pictures(folder / "pictures")
    write_coco(folder / "coco")
    _write_captions(folder / "coco" / "annotations")
    write_own(folder / "mine")
    write_roboflow(folder / "roboflow")
    write_voc(folder / "VOCdevkit" / "VOC2012")
    write_yolo(folder / "yolo")
    _write_tars(folder)
    _write_parquet(folder)
    _write_records(folder)
    convert_folder(folder / "photos", folder / "old", ConvertOptions(validation_split=0.2))


def _write_table(folder: Path, table: str, place: str, rows: list[dict[str, Any]]) -> None:
    for n in range(IMAGES):
        path = folder / place.format(n)
        write_image(path, n, "PNG" if path.suffix == ".png" else "JPEG")
    with (folder / table).open("w", newline="") as file:
        writer = csv.DictWriter(
            file, list(rows[0]), delimiter=";" if table == "Mappe1.csv" else ","
        )
        writer.writeheader()
        writer.writerows(rows)


def _write_boxes(folder: Path) -> None:
    rows = [
        {"path": f"{n}.png", "boxes": [[1, 2, 8, 9]], "things": ["car"], "text": f"car {n}",
         "age": n, "split": ("train", "test")[n % 2]}
        for n in range(IMAGES)
    ]  # fmt: skip
    (folder / "boxes.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _write_pictures(folder: Path) -> None:
    for split in ("train", "test"):
        rows = []
        for n in range(IMAGES):
            write_image(folder / split / f"{n}.png", n + 50 * (split == "test"))
            boxes = {"bbox": [[1, 2, 9, 11]], "category": ["car"]}
            rows.append({"file_name": f"{n}.png", "label": "ab"[n % 2], "text": f"picture {n}"})
            rows[-1]["objects"] = boxes
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / split / "metadata.jsonl").write_text(lines)


def _write_captions(folder: Path) -> None:
    for split in ("train", "val"):
        content = json.loads((folder / f"instances_{split}2017.json").read_text())
        content["annotations"] = [
            {"id": n, "image_id": image["id"], "caption": f"picture {n}"}
            for n, image in enumerate(content["images"])
        ]
        (folder / f"captions_{split}2017.json").write_text(json.dumps(content))


def _write_tars(folder: Path) -> None:
    for number in range(4):
        parts = {}
        for n in range(number * 5, number * 5 + 5):
            parts[f"{n:04}.jpg"] = encode_image(make_image(n), "JPEG")
            parts[f"{n:04}.cls"] = b"%d" % (n % 3)
            parts[f"{n:04}.json"] = json.dumps({"category": "ab"[n % 2], "age": n}).encode()
        _write_tar(folder / "shards" / f"train-{number:06}.tar", parts)
    pairs = {}
    for n in range(IMAGES):
        pairs[f"{n:04}.left.jpg"] = pairs[f"{n:04}.right.jpg"] = encode_image(make_image(n), "JPEG")
        pairs[f"{n:04}.cls"] = b"%d" % (n % 3)
        pairs[f"{n:04}.seg.png"] = encode_image(make_image(n, mode="L"), "PNG")
    _write_tar(folder / "pairs" / "000000.tar", pairs)


def _write_tar(path: Path, parts: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _write_parquet(folder: Path) -> None:
    rows = make_rows(IMAGES)
    columns = {name: [row[name] for row in rows] for name in ("image", "label", "text", "objects")}
    for number in range(2):
        part = {name: values[number::2] for name, values in columns.items()}
        name = f"train-{number:05}-of-00002.parquet"
        write_plain(folder / "imagenet-1k" / "data" / name, part)
        write_plain(folder / "data" / name, part)
    for row in columns["objects"]:
        row["category"] = [("car", "tree")[kind] for kind in row["category"]]
    write_plain(folder / "coco.parquet", columns)


def _write_records(folder: Path) -> None:
    def frame(features: Callable[[int, bytes], dict[str, Any]]) -> Iterator[bytes]:
        for n in range(IMAGES):
            yield frame_record(encode_example(features(n, encode_image(make_image(n), "JPEG"))))

    (folder / "records").mkdir()
    kinds = {
        "records/train-00000-of-00001": lambda n, image: {
            "image_raw": image, "label": n % 3, "height": 24},
        "stories.tfrecord": lambda n, image: {
            "photo": image, "city": (b"Rome", b"Oslo")[n % 2], "story": b"story %d" % n},
    }  # fmt: skip
    for name, features in kinds.items():
        (folder / name).write_bytes(b"".join(frame(features)))
