"""YOLO: its files read by hand say what the records do, however images and classes are named."""

import json
import time

import numpy as np
import pytest
from annotating import CLASSES, SHOTS, SPLITS, describe_yolo, draw, write_files, write_yolo
from conftest import convert_folder, limit_memory, write_image

from converter.errors import UsageError
from converter.format import schema
from converter.inventory import Note
from converter.options import ConvertOptions
from converter.sources.detections import MAX_TEXT_BYTES
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from converter.sources.yolo import locate_labels, parse_line
from converter.sources.yolo_configs import read_config
from reader import open_shards

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=2)
NAME = SHOTS[3].name  # of an image with three objects
IMAGE, LABELS = f"images/train/{NAME}.jpg", f"labels/train/{NAME}.txt"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_yolo(tmp_path_factory.mktemp("yolo"))


def test_records_hold_what_the_files_say(root, tmp_path):
    convert_folder(root, tmp_path / "out", OPTIONS)
    shards, count = open_shards(tmp_path / "out"), 0
    assert shards.class_names == [*CLASSES]
    for split, folder in (("train", "train"), ("validation", "val")):
        source = shards.source(split)
        paths = sorted(path.name for path in (root / "images" / folder).iterdir())
        assert sorted(record.source_id for record in source) == [
            f"images/{folder}/{name}" for name in paths
        ]
        for record in source:
            path = root / locate_labels(record.source_id)
            lines = path.read_text().splitlines() if path.exists() else []
            things = np.array([line.split() for line in lines], float).reshape(-1, 5)
            count += len(things)
            label, x, y, width, height = things.T
            expected = np.stack((y - height / 2, x - width / 2, y + height / 2, x + width / 2), -1)
            boxes = np.reshape(record.values[schema.BOXES], (-1, 4))
            np.testing.assert_allclose(boxes, expected, rtol=1e-5)
            assert record.values[schema.BOX_LABELS] == label.astype(int).tolist()
    assert count == sum(len(shot.things) for shot in SHOTS)


def rewrite(root, config: str | None, *, images="images/{split}", labels="labels/{split}", **more):
    """The scene with another YAML file, other folders and more files."""
    files = dict(more.pop("files", {}))
    if config is not None:
        files[more.pop("name", "data.yaml")] = config
    for shot in SHOTS:
        split = {"train": "train", "val": "valid"}[shot.split]
        files[f"{images.format(split=split)}/{shot.name}.jpg"] = draw(shot)
        files[f"{labels.format(split=split)}/{shot.name}.txt"] = describe_yolo(shot)
    return write_files(root, files)


def list_boxes(inventory) -> dict[str, tuple]:
    """Split, boxes and names of classes, by the name of the image."""
    found = {}
    for entry in inventory.entries:
        boxes, labels = json.loads(entry.values)
        names = [inventory.classes[label] for label in labels]
        found[entry.path.rpartition("/")[2]] = entry.split, boxes, names
    return found


NAMES = "names: [cat, dog ü, kite]\nnc: 3\n"
FIRST, SECOND = (
    "".join(f"{begin}{shot.name}.jpg\n" for shot in SHOTS if shot.split == split)
    for begin, split in (("../images/train/", "train"), ("./../images/valid/", "val"))
)
LISTS = {"lists/a.txt": FIRST, "lists/b.txt": SECOND}


@pytest.mark.parametrize(
    ("config", "traits"),
    [
        (f"train: images/train\nval: images/valid\n{NAMES}", {}),
        (f"train: ./images/train/\nval: [images/valid]\n{NAMES}", {}),
        (f"path: images\ntrain: train\nval: valid\n{NAMES}", {}),
        (f"path: /data/coco8\ntrain: images/train\nval: images/valid\n{NAMES}", {}),
        (f"train: ../train/images\nval: ../valid/images\n{NAMES}",
         {"images": "{split}/images", "labels": "{split}/labels"}),
        (f"train: train/images\nval: valid/images\n{NAMES}",
         {"images": "{split}/images", "labels": "{split}/labels"}),
        (f"train: lists/a.txt\nval: lists/b.txt\n{NAMES}", {"files": LISTS}),
        (f"train: data/train\nval: data/valid\n{NAMES}",
         {"images": "data/{split}", "labels": "data/{split}"}),
        (f"train: images/train\nval: images/valid\n{NAMES}", {"name": "coco8.yml"}),
        ("train: images/train\nval: images/valid\nnames:\n  2: kite\n  0: cat\n  1: dog ü\n", {}),
    ],
)  # fmt: skip
def test_every_way_to_name_splits_and_classes_gives_the_same(root, tmp_path, config, traits):
    rewrite(tmp_path, config, **traits)
    assert resolve_options(tmp_path, ConvertOptions()).source == "yolo"
    inventory = scan_images(tmp_path)
    assert (inventory.classes, inventory.notes, inventory.rejected) == (CLASSES, (), ())
    assert inventory.skipped == ()
    assert list_boxes(inventory) == list_boxes(scan_images(root))


def test_a_yaml_file_can_be_given_itself(root, tmp_path):
    path = write_yolo(tmp_path) / "data.yaml"
    assert resolve_options(path, ConvertOptions()).source == "yolo"
    assert scan_images(path).entries == scan_images(root).entries
    apart = write_files(tmp_path / "apart", {"x.yaml": path.read_bytes()}) / "x.yaml"
    with pytest.raises(UsageError, match="looked for images/train, images/val; see --table-root"):
        scan_images(apart)
    options = ConvertOptions(table_root="..")
    assert scan_images(apart, options).entries == scan_images(root).entries


@pytest.mark.parametrize("place", ["images/{split}", "{split}/images"])
def test_without_a_yaml_file_folders_say_the_splits(root, tmp_path, place):
    rewrite(tmp_path, None, images=place, labels=place.replace("images", "labels"))
    assert resolve_options(tmp_path, ConvertOptions()).source == "yolo"
    inventory = scan_images(tmp_path)
    assert inventory.classes == ("0", "1", "2")
    assert inventory.notes == (Note("class_numbers", ("0", "1", "2"), 3),)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES), "utf-8")
    inventory = scan_images(tmp_path)
    assert (inventory.notes, inventory.skipped) == ((), ())
    assert list_boxes(inventory) == list_boxes(scan_images(root))
    assert "3 classes as named in classes.txt" in inventory.recognized


def test_classes_may_be_listed_beside_the_labels_of_labelimg(tmp_path):
    files = {"images/classes.jpg": draw(SHOTS[0]), "images/a.jpg": draw(SHOTS[1])}
    files |= {"labels/classes.txt": "cat\nno\n", "labels/a.txt": "1 .5 .5 .1 .1\n"}
    inventory = scan_images(write_files(tmp_path, files))
    assert inventory.classes == ("cat", "no")
    assert list_boxes(inventory)["classes.jpg"] == ("", [], [])


def test_classes_are_named_as_they_are_written(tmp_path):
    config = "train: images/train\nnames: {0: no, 5: 007, 9: 2020-01-01, 7: 1.0, 3: ~x}\n"
    inventory = scan_images(rewrite(tmp_path, config))
    assert inventory.classes == ("no", "~x", "007", "1.0", "2020-01-01")


def test_an_image_without_a_file_has_no_boxes(root):
    boxes = list_boxes(scan_images(root))
    empty = [shot for shot in SHOTS if not shot.things]
    assert {(root / locate_labels(f"images/{s.split}/{s.name}.jpg")).exists() for s in empty} == {
        True,
        False,
    }
    assert [boxes[f"{shot.name}.jpg"] for shot in empty] == [
        (SPLITS[shot.split], [], []) for shot in empty
    ]


def test_what_is_no_part_is_counted(tmp_path):
    write_yolo(tmp_path)
    write_image(tmp_path / "images" / "test" / "a.png", 1)
    write_files(tmp_path, {"labels/train/gone.txt": "", "labels/train.cache": "x"})
    assert {skip.path: skip.code for skip in scan_images(tmp_path).skipped} == {
        "images/test/a.png": "skipped_unlisted",
        "labels/train.cache": "skipped_extension",
        "labels/train/gone.txt": "skipped_extension",
    }


@pytest.mark.parametrize(
    ("line", "pose", "expected"),
    [
        ("0 .5 .5 .2 .4", False, (0, [0.5, 0.5, 0.2, 0.4])),
        ("2.0 .5 .5 .2 .4 .99", False, (2, [0.5, 0.5, 0.2, 0.4])),
        ("1 .1 .2 .3 .2 .3 .8", False, (1, [0.2, 0.5, 0.2, 0.6])),
        ("1 .1 .2 .3 .2 .3 .8 .1 .8", False, (1, [0.2, 0.5, 0.2, 0.6])),
        ("1 .5 .5 .2 .4 .1 .2 2", True, (1, [0.5, 0.5, 0.2, 0.4])),
        ("1 .5 .5 .2", False, (1, None)),
        ("1 .1 .2 .3 .4 .5 .6 .7", False, (1, None)),
        ("1", False, (1, None)),
        ("cat .5 .5 .2 .4", False, (-1, None)),
        ("nan .5 .5 .2 .4", False, (-1, None)),
        ("1 .5 .5 inf .4", False, (-1, None)),
        ("1 .5 .5 1e999 .4", False, (-1, None)),
    ],
)
def test_a_line_is_a_box_or_a_polygon(line, pose, expected):
    label, box = parse_line(line.split(), is_pose=pose)
    assert (label, box and [round(side, 9) for side in box]) == expected


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("0 .5 .5 0 .1", "box_invalid"),
        ("0 .5 .5 .1 -.1", "box_invalid"),
        ("0 .5 .5 .1 nan", "box_invalid"),
        ("0 .5 .5 .1", "box_invalid"),
        ("cat .5 .5 .1 .1", "box_invalid"),
        ("\x00\xff", "box_invalid"),
        ("3 .5 .5 .1 .1", "box_class"),
        ("-1 .5 .5 .1 .1", "box_class"),
        ("1.5 .5 .5 .1 .1", "box_class"),
        ("1e300 .5 .5 .1 .1", "box_class"),
    ],
)
def test_a_box_that_makes_no_sense_is_left_out_and_counted(root, tmp_path, line, code):
    write_yolo(tmp_path)
    with open(tmp_path / LABELS, "a", encoding="latin-1") as file:
        file.write(f"{line}\n\n{line}\n")
    inventory = scan_images(tmp_path)
    assert inventory.notes == (Note(code, (IMAGE,), 2),)
    assert list_boxes(inventory) == list_boxes(scan_images(root))


def test_numbers_without_names_end_somewhere(tmp_path):
    files = {"images/a.jpg": draw(SHOTS[0]), "labels/a.txt": "9999 .5 .5 .1 .1\n10000 .5 .5 1 1\n"}
    inventory = scan_images(write_files(tmp_path, files))
    assert len(inventory.classes) == 10_000
    assert Note("box_class", ("images/a.jpg",), 1) in inventory.notes


def test_a_file_of_boxes_that_is_too_large_costs_its_image(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / LABELS).write_text("0 .5 .5 .1 .1\n" * (MAX_TEXT_BYTES // 14 + 1))
    inventory = scan_images(tmp_path)
    [reject] = inventory.rejected
    assert (reject.path, reject.code) == (IMAGE, "bad_row")
    assert f"{LABELS} has more than 2,097,152 bytes" in reject.detail


def test_paths_that_lead_out_are_not_followed(tmp_path):
    root = write_yolo(tmp_path / "yolo")
    secret = write_files(tmp_path / "secret", {"images/a.jpg": draw(SHOTS[0])})
    for path in (f"{secret}/images", "../secret/images", "images/../../secret/images"):
        (root / "data.yaml").write_text(f"path: ..\ntrain: images/train\nval: {path}\n{NAMES}")
        inventory = scan_images(root)
        assert {entry.split for entry in inventory.entries} == {"train"}
        assert inventory.notes == (Note("missing_list", (path,), 1),)
    lines = (f"{secret}/images/a.jpg", "../secret/images/a.jpg", "https://a/b.jpg", "gone.jpg",
             f"./{IMAGE}", f"{root}/{IMAGE}", "a\0b.jpg")  # fmt: skip
    (root / "train.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(f"train: train.txt\nval: images/val\n{NAMES}")
    inventory = scan_images(root)
    codes = {reject.path: reject.code for reject in inventory.rejected}
    assert codes == {
        f"{secret}/images/a.jpg": "outside",
        "../secret/images/a.jpg": "outside",
        "https:/a/b.jpg": "missing",
        "gone.jpg": "missing",
        IMAGE: "repeated",
        "a\0b.jpg": "outside",
    }


def test_one_folder_for_two_splits_is_taken_once(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(f"train: images/train\nval: images/train\n{NAMES}")
    inventory = scan_images(tmp_path)
    assert {entry.split for entry in inventory.entries} == {"train"}
    assert {reject.code for reject in inventory.rejected} == {"repeated"}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)
HOSTILE = {
    "bomb": (BOMB + NAMES, r"alias \*a stands for a value"),
    "a loop": ("names: &a [*a]\n", r"alias \*a stands for a value"),
    "merged": (f"x: &x {{train: images/train}}\n<<: *x\n{NAMES}", r"alias \*x stands"),
    "deep": ("names: " + "[" * 100_000, "more than 10 deep in each other"),
    "deep blocks": (
        "".join(f"{' ' * n}a:\n" for n in range(1400)),
        "more than 10 deep in each other",
    ),
    "large": ("names: [" + "x, " * 400_000 + "]", "has more than 1,048,576 bytes"),
    "an object": ("!!python/object/apply:os.system [touch pwned]", "holds no keys with values"),
    "no yaml": ("names: [a\ntrain: b", "is not YAML that can be read"),
    "binary": ("\0\x01", "is not YAML that can be read"),
    "no keys": ("[1, 2]", "holds no keys with values"),
    "empty": ("", "holds no keys with values"),
    "a key twice": (f"train: a\ntrain: b\n{NAMES}", "a key is no text, or stands twice"),
    "an odd key": ("[a]: b", "a key is no text, or stands twice"),
    "nc": ("train: images/train\nnames: [a, b]\nnc: 3", "nc is 3, and there are 2 names"),
    "no number": ("names: {a: b}", "'a' is no number of a class"),
    "a large number": ("names: {99999999999999999999: b}", "is no number of a class"),
    "a list": ("names: [a, [b]]", "a name in names is empty, or a list"),
    "an empty name": ("names: {0: ''}", "'0' is no number of a class with a name"),
    "a name twice": ("names: [a, b, a]", "'a' stands twice"),
    "a long name": (f"names: {{{'x' * 1000}: b}}", "is no number of a class"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_yaml_file_that_is_none_is_refused(tmp_path, name):
    content, message = HOSTILE[name]
    write_files(tmp_path, {"data.yaml": content, "images/train/a.jpg": draw(SHOTS[0])})
    begun = time.monotonic()
    with limit_memory(60 << 20), pytest.raises(UsageError, match=message) as caught:
        scan_images(tmp_path, ConvertOptions(source="yolo"))
    assert "\n" not in str(caught.value)
    assert "data.yaml" in str(caught.value)
    assert len(str(caught.value)) <= 500
    assert time.monotonic() - begun < 20
    assert not (tmp_path / "pwned").exists()


def test_a_tagged_value_is_text(tmp_path):
    config = write_files(
        tmp_path, {"data.yaml": "train: !!python/name:os.system x\nnames: [!!int 1]"}
    )
    found = read_config(config / "data.yaml")
    assert (found.splits, found.names) == ({"train": ["x"]}, {0: "1"})


def test_what_is_not_of_yolo_is_refused(tmp_path):
    with pytest.raises(UsageError, match="YOLO: looked for images/ beside"):
        scan_images(tmp_path, ConvertOptions(source="yolo"))
    with pytest.raises(UsageError, match=r"none\.yaml does not exist"):
        scan_images(tmp_path / "none.yaml", ConvertOptions(source="yolo"))


def test_many_boxes_take_little_memory(tmp_path):
    text = "0 .5 .5 .1 .1\n" * 5_000
    files = {f"images/{n}.jpg": draw(SHOTS[n]) for n in range(4)}
    write_files(tmp_path, {**files, **{f"labels/{n}.txt": text for n in range(4)}})
    with limit_memory(600 * 20_000):
        inventory = scan_images(tmp_path)
    assert sum(len(json.loads(entry.values)[1]) for entry in inventory.entries) == 20_000
