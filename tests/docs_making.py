"""The folders that pages of the docs speak of: `photos`, `photos-256`, and more for some."""

import csv
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

from conftest import convert_folder, encode_image, make_image, write_image
from docs_sources import make_sources
from PIL import Image, ImageDraw

from converter.format.examples import encode_example
from converter.format.tfrecords import frame_record
from converter.options import ConvertOptions

CLASSES = {"birds": 12, "cats": 48, "dogs": 36}


def make_photos(folder: Path) -> None:
    """`photos`: 96 pictures in folders of three classes."""
    names = [(label, number) for label, count in CLASSES.items() for number in range(count)]
    for seed, (label, number) in enumerate(names):
        name, kind = (f"{number}.png", "PNG") if seed % 4 == 3 else (f"{number}.jpg", "JPEG")
        write_image(folder / "photos" / label / name, seed, kind)


def make_converted(folder: Path) -> None:
    """`photos-256`: them, converted with a validation split."""
    options = ConvertOptions(validation_split=0.2)
    convert_folder(folder / "photos", folder / "photos-256", options)


def make_drawings(folder: Path) -> None:
    """`drawings-256`: others of the same classes, converted."""
    for seed in range(30):
        name = folder / "drawings" / [*CLASSES][seed % 3] / f"{seed}.png"
        write_image(name, 200 + seed, "PNG")
    options = ConvertOptions(validation_split=0.2)
    convert_folder(folder / "drawings", folder / "drawings-256", options)


def make_masks(folder: Path) -> None:
    """`scenes` and `masks`: a disk of class 1 or 2 before a background of class 0."""
    for seed in range(24):
        image, mask, _ = draw_things(seed, 1)
        _save(image, folder / "scenes" / f"{seed}.jpg")
        _save(mask, folder / "masks" / f"{seed}.png")


def make_coco(folder: Path) -> None:
    """`coco`: annotations of boxes as of 2017, with one to three things in a picture."""
    for split, count in (("train", 24), ("val", 8)):
        images, annotations = [], []
        for seed in range(count):
            image, _, boxes = draw_things(seed + 100 * (split == "val"), 1 + seed % 3)
            _save(image, folder / "coco" / f"{split}2017" / f"{seed:012}.jpg")
            images.append({"id": seed, "file_name": f"{seed:012}.jpg", "width": 96, "height": 64})
            for category, box in boxes:
                annotations.append({
                    "id": len(annotations), "image_id": seed, "category_id": category, "bbox": box,
                    "area": box[2] * box[3], "iscrowd": 0,
                })  # fmt: skip
        named = [{"id": 1, "name": "ball"}, {"id": 2, "name": "plate"}]
        content = {"images": images, "annotations": annotations, "categories": named}
        path = folder / "coco" / "annotations" / f"instances_{split}2017.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def make_tags(folder: Path) -> None:
    """`tags.csv`: any number of labels for the pictures in `photos`."""
    rows = [
        {"path": path, "tags": "|".join(tags[seed % 3 : 3 if seed % 2 else seed % 3 + 1])}
        for seed, path in enumerate(_list_photos(folder))
        for tags in [("indoor", "furry", "small")]
    ]
    _write_table(folder / "tags.csv", rows)


def make_captions(folder: Path) -> None:
    """`captions.csv`: a sentence about each picture in `photos`."""
    words = ("sleeps", "runs", "sits on a chair", "looks at the camera")
    rows = [
        {"path": path, "caption": f"a {path.split('/')[1].rstrip('s')} {words[seed % 4]}"}
        for seed, path in enumerate(_list_photos(folder))
    ]
    _write_table(folder / "captions.csv", rows)


def make_tfrecords(folder: Path) -> None:
    """`data`: two TFRecord files of images and labels, as a script would write them."""
    (folder / "data").mkdir()
    for number in range(2):
        with (folder / "data" / f"train-{number:05}-of-00002.tfrecord").open("wb") as file:
            for seed in range(number * 12, number * 12 + 12):
                image = encode_image(make_image(seed))
                payload = encode_example({"image_raw": image, "label": seed % 3})
                file.write(frame_record(payload))


def make_lists(folder: Path) -> None:
    """Lists of classes, for `--classes`."""
    (folder / "classes.txt").write_text("dogs\nbirds -> cats\ncats\n")
    (folder / "names.txt").write_text("cats\ndogs\n")
    (folder / "numbers.txt").write_text("0\n1\n2\n3\n")


def make_tfds(folder: Path) -> None:
    """`tensorflow_datasets/flowers/1.0.0`: the pictures as TensorFlow Datasets stores them."""
    out = folder / "tensorflow_datasets" / "flowers" / "1.0.0"
    out.mkdir(parents=True)
    paths = _list_photos(folder)
    splits = {"train": [p for n, p in enumerate(paths) if n % 5], "test": paths[::5]}
    for split, names in splits.items():
        records = (_pack_photo(folder / name) for name in names)
        path = out / f"flowers-{split}.tfrecord-00000-of-00001"
        path.write_bytes(b"".join(map(frame_record, records)))
    lengths = [{"name": name, "shardLengths": [str(len(p))]} for name, p in splits.items()]
    info = {"name": "flowers", "version": "1.0.0", "fileFormat": "tfrecord", "splits": lengths}
    (out / "dataset_info.json").write_text(json.dumps(info))
    kinds = "tensorflow_datasets.core.features"
    features = {
        "image": {"pythonClassName": f"{kinds}.image_feature.Image",
                  "image": {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", "3"]}}},
        "label": {"pythonClassName": f"{kinds}.class_label_feature.ClassLabel",
                  "classLabel": {"numClasses": str(len(CLASSES))}},
    }  # fmt: skip
    described = {"pythonClassName": f"{kinds}.features_dict.FeaturesDict",
                 "featuresDict": {"features": features}}  # fmt: skip
    (out / "features.json").write_text(json.dumps(described))
    (out / "label.labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))


def make_img2dataset(folder: Path) -> None:
    """`img2dataset-out`: two tars as img2dataset writes them."""
    (folder / "img2dataset-out").mkdir()
    paths = [folder / path for path in _list_photos(folder) if path.endswith(".jpg")]
    for shard in range(2):
        with tarfile.open(folder / "img2dataset-out" / f"{shard:05}.tar", "w") as tar:
            for number, path in enumerate(paths[shard::2]):
                key = f"{shard:05}{number:04}"
                about = {"key": key, "url": f"https://a.b/{key}", "original_width": 640}
                _add_file(tar, f"{key}.jpg", path.read_bytes())
                _add_file(tar, f"{key}.json", json.dumps(about).encode())
                _add_file(tar, f"{key}.txt", f"picture {number}".encode())


NEEDS: dict[str, Callable[[Path], None]] = {
    "drawings": make_drawings,
    "masks": make_masks,
    "coco": make_coco,
    "tags": make_tags,
    "captions": make_captions,
    "lists": make_lists,
    "tfds": make_tfds,
    "img2dataset": make_img2dataset,
    "tfrecords": make_tfrecords,
    "sources": make_sources,
}
"""What a page may ask for with `<!-- needs: NAME -->`; tests/test_docs.py adds stores."""


def draw_things(
    seed: int, count: int
) -> tuple[Image.Image, Image.Image, list[tuple[int, list[int]]]]:
    """A picture with disks (1) and squares (2), its mask, and their boxes of COCO."""
    chance = random.Random(seed)
    image, mask = Image.new("RGB", (96, 64), (40, 60, 80)), Image.new("L", (96, 64), 0)
    boxes = []
    for _ in range(count):
        side, kind = chance.randint(12, 24), chance.randint(1, 2)
        left, top = chance.randint(0, 96 - side - 1), chance.randint(0, 64 - side - 1)
        for picture, color in ((image, (230, 40 + 150 * (kind - 1), 60)), (mask, kind)):
            pen = ImageDraw.Draw(picture)
            (pen.ellipse if kind == 1 else pen.rectangle)(
                (left, top, left + side, top + side), fill=color
            )
        boxes.append((kind, [left, top, side + 1, side + 1]))
    return image, mask, boxes


def _pack_photo(path: Path) -> bytes:
    return encode_example({"image": path.read_bytes(), "label": [*CLASSES].index(path.parent.name)})


def _add_file(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _list_photos(folder: Path) -> list[str]:
    photos = sorted((folder / "photos").rglob("*.*"))
    return [path.relative_to(folder).as_posix() for path in photos]


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
