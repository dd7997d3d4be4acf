"""The same images with the same objects, as COCO, VOC and YOLO have them."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from conftest import encode_image, make_image
from PIL import Image

CLASSES = ("cat", "dog ü", "kite")


class Thing(NamedTuple):
    """An object: its class, its box as left, top, width and height in pixels, and a flag."""

    name: str
    box: tuple[float, float, float, float]
    flag: int = 0


class Shot(NamedTuple):
    """An image: its name without a suffix, its split, its size and what is in it."""

    name: str
    split: str
    height: int
    width: int
    things: tuple[Thing, ...]
    id: int


def _make_shot(number: int) -> Shot:
    height, width = 24 + number % 5, 32 + number % 7
    things = tuple(
        Thing(CLASSES[(number + n) % 3], (2 + n * 5, 1 + n * 3, 6 + number % 4, 5 + n), n % 2)
        for n in range(number % 4)
    )
    return Shot(
        f"{number:06} ü", ("train", "val")[number % 4 == 1], height, width, things, 7 * number
    )


SHOTS = tuple(map(_make_shot, range(24)))
SPLITS = {"train": "train", "val": "validation"}


def find_shot(path: str) -> Shot:
    """The one whose image lies at a path."""
    return next(shot for shot in SHOTS if path.rpartition("/")[2] == f"{shot.name}.jpg")


def draw(shot: Shot) -> bytes:
    """A picture that no other shot has, as JPEG."""
    return encode_image(make_image(shot.id + 1, shot.height, shot.width), "JPEG")


def write_files(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        (folder / name).write_bytes(data)
    return folder


def describe_coco(shots=SHOTS, *, names=CLASSES) -> dict:
    """The content of a JSON file; ids have gaps and stand in no order, annotations neither."""
    ids = {name: 5 + 10 * place for place, name in enumerate(names)}
    boxes = [
        {"id": 1000 * shot.id + n, "image_id": shot.id, "category_id": ids[thing.name],
         "bbox": list(thing.box), "area": thing.box[2] * thing.box[3], "iscrowd": thing.flag,
         "segmentation": [[1, 2, 3, 4, 5, 6]]}
        for shot in shots for n, thing in enumerate(shot.things)
    ]  # fmt: skip
    return {
        "info": {"year": 2017}, "licenses": [{"id": 1, "name": "none"}],
        "images": [
            {"license": 1, "file_name": f"{shot.name}.jpg", "height": shot.height,
             "width": shot.width, "id": shot.id}
            for shot in shots[::-1]
        ],
        # The first object of each image, then the second of each, and so on.
        "annotations": sorted(boxes, key=lambda box: box["id"] % 1000),
        "categories": [
            {"supercategory": "thing", "id": key, "name": name}
            for name, key in reversed(ids.items())
        ],
    }  # fmt: skip


def write_coco(root: Path, shots=SHOTS, *, folder: str = "{}2017") -> Path:
    files = {}
    for split in SPLITS:
        chosen = [shot for shot in shots if shot.split == split]
        files |= {f"{folder.format(split)}/{shot.name}.jpg": draw(shot) for shot in chosen}
        files[f"annotations/instances_{split}2017.json"] = json.dumps(describe_coco(chosen))
    return write_files(root, files)


def write_own(root: Path, shots=SHOTS) -> Path:
    files = {f"images/{shot.name}.jpg": draw(shot) for shot in shots}
    return write_files(root, {**files, "annotations.json": json.dumps(describe_coco(shots))})


def write_roboflow(root: Path, shots=SHOTS) -> Path:
    files = {}
    for split, folder in (("train", "train"), ("val", "valid")):
        chosen = [shot for shot in shots if shot.split == split]
        files |= {f"{folder}/{shot.name}.jpg": draw(shot) for shot in chosen}
        files[f"{folder}/_annotations.coco.json"] = json.dumps(describe_coco(chosen))
    return write_files(root, files)


def describe_voc(shot: Shot) -> str:
    objects = ""
    for thing in shot.things:
        left, top, width, height = thing.box
        corners = {"xmax": left + width, "xmin": left + 1, "ymax": top + height, "ymin": top + 1}
        box = "".join(f"<{name}>{value}</{name}>" for name, value in corners.items())
        objects += (
            f"<object><name>{thing.name}</name><pose>Left</pose><truncated>{1 - thing.flag}"
            f"</truncated><difficult>{thing.flag}</difficult><bndbox>{box}</bndbox>"
            "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        )
    return (
        f"<annotation><folder>x</folder><filename>{shot.name}.jpg</filename><size><width>"
        f"{shot.width}</width><height>{shot.height}</height><depth>3</depth></size>{objects}"
        "</annotation>"
    )


def write_voc(root: Path, shots=SHOTS) -> Path:
    files = {}
    for shot in shots:
        files[f"JPEGImages/{shot.name}.jpg"] = draw(shot)
        if shot.things:
            files[f"Annotations/{shot.name}.xml"] = describe_voc(shot)
    for name, splits in (("train", "train"), ("val", "val"), ("trainval", "train val")):
        chosen = (shot.name for shot in shots if shot.split in splits.split())
        files[f"ImageSets/Main/{name}.txt"] = "\n".join(chosen)
    return write_files(root, files)


def describe_yolo(shot: Shot) -> str:
    lines = []
    for thing in shot.things:
        left, top, width, height = thing.box
        x, y = (left + width / 2) / shot.width, (top + height / 2) / shot.height
        sides = (x, y, width / shot.width, height / shot.height)
        lines.append(f"{CLASSES.index(thing.name)} {' '.join(map(str, sides))}\n")
    return "".join(lines)


def write_yolo(root: Path, shots=SHOTS) -> Path:
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    files = {
        "data.yaml": f"path: ../somewhere\ntrain: images/train\nval: images/val\nnames:\n{names}"
    }
    for shot in shots:
        files[f"images/{shot.split}/{shot.name}.jpg"] = draw(shot)
        if shot.id % 8 or shot.things:
            files[f"labels/{shot.split}/{shot.name}.txt"] = describe_yolo(shot)
    return write_files(root, files)


WRITERS = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}


def expect_boxes(shot: Shot) -> list[tuple[float, float, float, float]]:
    """Top, left, bottom and right of each object, in fractions of the image."""
    sides = [
        (top, left, top + height, left + width) for _, (left, top, width, height), _ in shot.things
    ]
    size = (shot.height, shot.width) * 2
    return [tuple(side / whole for side, whole in zip(box, size, strict=True)) for box in sides]


def paint(height: int, width: int, box: tuple[int, int, int, int]) -> Image.Image:
    """A black image with a white box: left, top, width, height."""
    pixels = np.zeros((height, width, 3), np.uint8)
    left, top, wide, high = box
    pixels[top : top + high, left : left + wide] = 255
    return Image.fromarray(pixels)
