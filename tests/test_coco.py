"""COCO: what pycocotools reads is in the records, and what makes no sense is counted."""

import contextlib
import dataclasses
import io
import json
import os
import shutil

import numpy as np
import pytest
from annotating import (
    CLASSES,
    SHOTS,
    describe_coco,
    draw,
    expect_boxes,
    find_shot,
    write_coco,
    write_files,
    write_roboflow,
)
from conftest import convert_folder, limit_memory, write_image

from converter.errors import UsageError
from converter.format import schema
from converter.inventory import Note
from converter.options import ConvertOptions
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from reader import open_shards

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=2)
CROWD = "image/object/is_crowd"


def read_records(out) -> dict:
    """All records of a data set, by the path of their original, each with its split."""
    shards = open_shards(out)
    return {
        record.source_id: (split, record)
        for split in shards.splits
        for record in shards.source(split)
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco"))


def test_records_hold_what_pycocotools_reads(root, tmp_path):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    convert_folder(root, tmp_path / "out", OPTIONS)
    records, count = read_records(tmp_path / "out"), 0
    names = open_shards(tmp_path / "out").class_names
    for split, folder in (("train", "train2017"), ("validation", "val2017")):
        with contextlib.redirect_stdout(io.StringIO()):
            theirs = COCO(root / "annotations" / f"instances_{folder}.json")
        assert names == [theirs.cats[key]["name"] for key in sorted(theirs.cats)]
        for image in theirs.loadImgs(theirs.getImgIds()):
            found, record = records[f"{folder}/{image['file_name']}"]
            things = theirs.loadAnns(theirs.getAnnIds(imgIds=image["id"]))
            count += len(things)
            expected = [
                (y / image["height"], x / image["width"],
                 (y + high) / image["height"], (x + wide) / image["width"])
                for x, y, wide, high in (thing["bbox"] for thing in things)
            ]  # fmt: skip
            boxes = np.reshape(record.values[schema.BOXES], (-1, 4))
            np.testing.assert_allclose(boxes, np.reshape(expected, (-1, 4)), rtol=1e-6)
            labels = [names[label] for label in record.values[schema.BOX_LABELS]]
            assert labels == [theirs.cats[thing["category_id"]]["name"] for thing in things]
            assert record.values[CROWD] == [thing["iscrowd"] for thing in things]
            assert found == split
    assert (count, len(records)) == (sum(len(shot.things) for shot in SHOTS), len(SHOTS))


LAYOUTS = {
    "beside": ("{}2017/{}", "annotations/instances_{}2017.json"),
    "images with the split": ("images/{}2017/{}", "annotations/instances_{}2017.json"),
    "images without the year": ("images/{}/{}", "annotations/instances_{}2017.json"),
    "one folder": ("images/{1}", "annotations/instances_{}2017.json"),
    "plain": ("{}/{}", "annotations/{}.json"),
    "in the root": ("{1}", "annotations/my_{}.json"),
    "roboflow": ("{}/{}", "{}/_annotations.coco.json"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_found_where_they_may_lie(tmp_path, layout):
    image, file = LAYOUTS[layout]
    for split in ("train", "val"):
        chosen = [shot for shot in SHOTS if shot.split == split]
        files = {image.format(split, f"{shot.name}.jpg"): draw(shot) for shot in chosen}
        write_files(tmp_path, {**files, file.format(split): json.dumps(describe_coco(chosen))})
    assert resolve_options(tmp_path, ConvertOptions()).source == "coco"
    inventory = scan_images(tmp_path)
    assert (len(inventory.entries), inventory.rejected, inventory.skipped) == (len(SHOTS), (), ())
    splits = {"train": "train", "val": "validation"}
    by_name = {entry.path.rpartition("/")[2]: entry.split for entry in inventory.entries}
    assert by_name == {f"{shot.name}.jpg": splits[shot.split] for shot in SHOTS}
    assert inventory.classes == CLASSES
    assert inventory.labelled is False


@pytest.mark.parametrize("image", ["images/{}", "{}", "photos/{}"])
def test_a_folder_with_annotations_json_needs_no_more(tmp_path, image):
    content = describe_coco(SHOTS[:4])
    folder = image.removesuffix("{}") if image.startswith("photos") else ""
    for each in content["images"]:
        each["file_name"] = folder + each["file_name"]
    files = {image.format(f"{shot.name}.jpg"): draw(shot) for shot in SHOTS[:4]}
    write_files(tmp_path, {**files, "annotations.json": json.dumps(content), "tags.csv": "a,b"})
    assert resolve_options(tmp_path, ConvertOptions()).source == "coco"
    inventory = scan_images(tmp_path)
    assert (len(inventory.entries), inventory.rejected) == (4, ())
    assert {entry.split for entry in inventory.entries} == {""}


def test_annotations_json_of_something_else_is_no_source(tmp_path):
    files = {f"cats/{shot.name}.jpg": draw(shot) for shot in SHOTS[:2]}
    write_files(tmp_path, {**files, "annotations.json": json.dumps({"cats": []})})
    assert resolve_options(tmp_path, ConvertOptions()).source == "folders"


@pytest.mark.parametrize(
    ("file", "image", "implied"),
    [
        ("annotations/instances_train2017.json", "train2017/{}", "../train2017"),
        ("annotations/instances_train2017.json", "images/train2017/{}", "../images/train2017"),
        ("annotations/instances_train2017.json", "images/{}", "../images"),
        ("annotations/instances_train2017.json", "annotations/images/{}", "images"),
        ("all.json", "{}", "."),
        ("all.json", "images/{}", "images"),
        ("x/all.json", "{}", ".."),
    ],
)
def test_a_single_file_finds_its_images(tmp_path, file, image, implied):
    files = {image.format(f"{shot.name}.jpg"): draw(shot) for shot in SHOTS[:4]}
    write_files(tmp_path, {**files, file: json.dumps(describe_coco(SHOTS[:4]))})
    options = resolve_options(tmp_path / file, ConvertOptions())
    assert (options.source, options.table_root, options.box_format) == ("coco", implied, "xywh")
    assert resolve_options(tmp_path / file, options) == options
    inventory = scan_images(tmp_path / file, options)
    assert [entry.path for entry in inventory.entries] == [f"{s.name}.jpg" for s in SHOTS[:4]]
    assert {entry.split for entry in inventory.entries} == {"train" if "train" in file else ""}


def test_the_folder_of_images_can_be_named(tmp_path):
    files = {f"pixels/{shot.name}.jpg": draw(shot) for shot in SHOTS[:4]}
    write_files(tmp_path, {**files, "a/all.json": json.dumps(describe_coco(SHOTS[:4]))})
    with pytest.raises(UsageError, match="no image in any"):
        scan_images(tmp_path / "a" / "all.json")
    options = ConvertOptions(table_root="../pixels")
    assert len(scan_images(tmp_path / "a" / "all.json", options).entries) == 4


def test_names_may_have_folders_in_them(tmp_path):
    content = describe_coco(SHOTS[:4])
    for image in content["images"]:
        image["file_name"] = f"deep/er/{image['file_name']}"
    files = {f"train2017/deep/er/{shot.name}.jpg": draw(shot) for shot in SHOTS[:4]}
    write_files(tmp_path, {**files, "annotations/instances_train2017.json": json.dumps(content)})
    inventory = scan_images(tmp_path)
    assert inventory.entries[0].path == f"train2017/deep/er/{SHOTS[0].name}.jpg"


def test_files_without_an_entry_are_counted(tmp_path):
    write_coco(tmp_path)
    write_image(tmp_path / "train2017" / "extra.png", 1)
    write_files(tmp_path, {"test2017/a.jpg": draw(SHOTS[0]), "readme.txt": "x", ".hidden": "y"})
    (tmp_path / "annotations" / "captions_train2017.json").write_text("{}")
    inventory = scan_images(tmp_path)
    assert {skip.path: skip.code for skip in inventory.skipped} == {
        ".hidden": "skipped_hidden",
        "annotations/captions_train2017.json": "skipped_extension",
        "readme.txt": "skipped_extension",
        "test2017/a.jpg": "skipped_unlisted",
        "train2017/extra.png": "skipped_unlisted",
    }
    assert "segmentations and keypoints are left out" in inventory.recognized


def change(tmp_path, **lists):
    """A file with changed lists beside its images; `{image}` is the first one."""
    content = describe_coco(SHOTS[:6])
    for key, items in lists.items():
        content[key] = items(content[key]) if callable(items) else items
    files = {f"{shot.name}.jpg": draw(shot) for shot in SHOTS[:6]}
    write_files(tmp_path, {**files, "all.json": json.dumps(content)})
    return tmp_path / "all.json"


def list_values(inventory) -> dict[str, list]:
    return {entry.path: json.loads(entry.values)[0] for entry in inventory.entries}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"bbox": [1, 2, 3]}, "box_invalid"),
        ({"bbox": [1, 2, 3, 4, 5]}, "box_invalid"),
        ({"bbox": [1, 2, 0, 4]}, "box_invalid"),
        ({"bbox": [1, 2, 3, -4]}, "box_invalid"),
        ({"bbox": [1, 2, 3, float("nan")]}, "box_invalid"),
        ({"bbox": [1, float("inf"), 3, 4]}, "box_invalid"),
        ({"bbox": [1, 2, 3, 10**400]}, "box_invalid"),
        ({"bbox": ["1", 2, 3, 4]}, "box_invalid"),
        ({"bbox": [True, 2, 3, 4]}, "box_invalid"),
        ({"bbox": {"x": 1}}, "box_invalid"),
        ({"bbox": None}, "box_invalid"),
        ({"category_id": 999}, "box_class"),
        ({"category_id": None}, "box_class"),
        ({"category_id": [1]}, "box_class"),
        ({"image_id": 999}, "unknown_image"),
        ({"image_id": None}, "unknown_image"),
        ({"image_id": {"a": 1}}, "unknown_image"),
        ({"image_id": 999, "bbox": None}, "unknown_image"),
    ],
)  # fmt: skip
def test_a_box_that_makes_no_sense_is_left_out_and_counted(tmp_path, changed, code):
    good = list_values(scan_images(change(tmp_path / "good")))
    path = change(tmp_path / "bad", annotations=lambda items: [items[0] | changed, *items[1:]])
    inventory = scan_images(path)
    owner = next(s for s in SHOTS if s.id == describe_coco(SHOTS[:6])["annotations"][0]["image_id"])
    name = f"{owner.name}.jpg"
    shown = "999" if changed.get("image_id") == 999 else f"{changed.get('image_id', name)}"
    assert inventory.notes == (Note(code, (shown if code == "unknown_image" else name,), 1),)
    assert inventory.rejected == ()
    found = list_values(inventory)
    assert found.pop(name) == good.pop(name)[1:]
    assert found == good


def test_ids_may_be_text_or_whole_floats(tmp_path):
    def spell(items):
        return [item | {"image_id": (str, float)[n % 2](item["image_id"]),
                        "category_id": (float, str)[n % 2](item["category_id"])}
                for n, item in enumerate(items)]  # fmt: skip

    plain = scan_images(change(tmp_path / "plain"))
    odd = scan_images(change(tmp_path / "odd", annotations=spell))
    assert (odd.entries, odd.notes, odd.classes) == (plain.entries, plain.notes, plain.classes)


def test_images_that_make_no_sense_are_rejected(tmp_path):
    def spoil(items):
        names = ["../x.jpg", "/etc/passwd", "s3://b/x.jpg", "gone.jpg", "", None, 7, "a\0b.jpg",
                 "\ud800.jpg", "x" * (1 << 20) + ".jpg"]  # fmt: skip
        odd = [{"id": 900 + n, "file_name": name} for n, name in enumerate(names)]
        again = [{"id": 950, "file_name": items[0]["file_name"]}]
        return [*items, *odd, *again, items[1] | {"file_name": "other.jpg"}, {"file_name": "y.jpg"}]

    path = change(tmp_path, images=spoil)
    (tmp_path / "x.jpg").write_bytes(b"secret")
    inventory = scan_images(path)
    assert len(inventory.entries) == 6
    codes = [(reject.path[:20], reject.code) for reject in inventory.rejected]
    assert sorted(codes) == sorted([
        ("../x.jpg", "outside"), ("/etc/passwd", "outside"), ("s3://b/x.jpg", "outside"),
        ("gone.jpg", "missing"), ("all.json image 904", "bad_row"),
        ("all.json image 905", "bad_row"), ("7", "bad_row"), ("a\0b.jpg", "outside"),
        ("\ud800.jpg", "bad_row"), ("x" * 20, "unreadable"), ("other.jpg", "bad_row"),
        ("y.jpg", "bad_row"), (f"{SHOTS[5].name}.jpg", "repeated"),
    ])  # fmt: skip
    details = {reject.path: reject.detail for reject in inventory.rejected}
    assert details["other.jpg"].startswith(f"all.json image {SHOTS[4].id}: its id stands twice")
    assert inventory.scanned == 6 + len(codes)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"images": [1]}, r"all.json: images\[0\] is not an object"),
        ({"annotations": [[]]}, r"all.json: annotations\[0\] is not an object"),
        ({"categories": [{"id": 1}]}, "id or name of a category: None"),
        ({"categories": [{"id": None, "name": "x"}]}, "id or name of a category: None"),
        ({"categories": lambda c: [*c, c[0] | {"name": "z"}]}, "has the id or name of another"),
        ({"categories": lambda c: [*c, c[0] | {"id": 99}]}, "has the id or name of another"),
        ({"categories": lambda c: [*c, {"id": 99, "name": "a\nb"}]}, "line break"),
        ({"images": []}, "has no rows"),
    ],
)
def test_a_file_that_is_none_of_coco_is_refused(tmp_path, lists, message):
    with pytest.raises(UsageError, match=message) as caught:
        scan_images(change(tmp_path, **lists))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_list_that_is_missing_is_named(tmp_path, key):
    content = describe_coco(SHOTS[:2])
    del content[key]
    (tmp_path / "all.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=f"no '{key}': there is"):
        scan_images(tmp_path / "all.json", ConvertOptions(source="coco"))


def test_other_json_is_not_coco(tmp_path):
    for text in ('{"a": 1}', "[]", "", "{", '{"version": 1, "images": []}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(UsageError, match="is a file: give"):
            scan_images(tmp_path / "a.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UsageError, match=r"pipe\.json"):
        scan_images(tmp_path / "pipe.json")
    with pytest.raises(UsageError, match=r"none\.json does not exist"):
        scan_images(tmp_path / "none.json", ConvertOptions(source="coco"))
    with pytest.raises(UsageError, match="COCO: looked for"):
        scan_images(tmp_path, ConvertOptions(source="coco"))


def test_classes_are_those_asked_for(root):
    every = scan_images(root).entries
    options = ConvertOptions(class_names=("kite", "cat"))
    inventory = scan_images(root, options)
    assert inventory.classes == ("kite", "cat")
    dogs = {shot.name for shot in SHOTS for thing in shot.things if thing.name == "dog ü"}
    left_out = {path.rpartition("/")[2][:-4] for path, code, _ in inventory.skipped}
    assert left_out == dogs
    trimmed = scan_images(root, dataclasses.replace(options, trim_labels=True))
    assert {note.code for note in trimmed.notes} == {"trimmed_labels"}
    by_path = {entry.path: json.loads(entry.values) for entry in trimmed.entries}
    for entry in every:
        boxes, labels, crowd, size = json.loads(entry.values)
        kept = [n for n, label in enumerate(labels) if label != CLASSES.index("dog ü")]
        if kept or not labels:
            assert by_path[entry.path] == [
                [boxes[n] for n in kept], [{0: 1, 2: 0}[labels[n]] for n in kept],
                [crowd[n] for n in kept], size,
            ]  # fmt: skip
        else:
            assert entry.path not in by_path


def test_conditions_may_name_flags(root):
    inventory = scan_images(root, ConvertOptions(where="is_crowd = 1"))
    crowded = {shot.name for shot in SHOTS if any(thing.flag for thing in shot.things)}
    assert {entry.path.rpartition("/")[2][:-4] for entry in inventory.entries} == crowded


def test_files_may_number_their_classes_differently(tmp_path):
    write_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    chosen = [shot for shot in SHOTS if shot.split == "val"]
    path.write_text(json.dumps(describe_coco(chosen, names=("kite", "zebra", "dog ü", "cat"))))
    inventory = scan_images(tmp_path)
    assert inventory.classes == (*CLASSES, "zebra")
    for shot in chosen:
        [entry] = [e for e in inventory.entries if e.path.endswith(f"{shot.name}.jpg")]
        labels = json.loads(entry.values)[1]
        assert [inventory.classes[label] for label in labels] == [t.name for t in shot.things]


def test_other_columns_come_if_asked_for(tmp_path):
    write_coco(tmp_path)
    for split in ("train", "val"):
        chosen = [shot for shot in SHOTS if shot.split == split]
        texts = [{"image_id": s.id, "caption": f"{s.name} {n}"} for s in chosen[1:] for n in (2, 1)]
        content = {"images": [], "annotations": texts}
        path = tmp_path / "annotations" / f"captions_{split}2017.json"
        path.write_text(json.dumps(content))
    options = ConvertOptions(
        image_size=(8, 8), encoding="raw", keep_columns=("image_id", "captions"),
        caption_column="caption", labels_column="box_labels",
    )  # fmt: skip
    convert_folder(tmp_path, tmp_path / "out", options)
    for _, record in read_records(tmp_path / "out").values():
        shot = find_shot(record.source_id)
        texts = [f"{shot.name} 2", f"{shot.name} 1"] if shot not in SHOTS[:2] else []
        assert record.values["image_id"] == shot.id
        assert record.values["captions"] == texts
        assert record.values[schema.CAPTION] == [*texts, ""][0]
        assert record.values[schema.LABELS] == sorted({CLASSES.index(t.name) for t in shot.things})
    shutil.move(path, tmp_path / "captions")
    with pytest.raises(UsageError, match="no file captions_"):
        scan_images(tmp_path, options)
    with pytest.raises(UsageError, match="no column 'area'"):
        scan_images(tmp_path, ConvertOptions(keep_columns=("area",)))


def test_roboflow_gives_the_same(root, tmp_path):
    inventory = scan_images(write_roboflow(tmp_path))
    plain = scan_images(root)
    values = {entry.path.rpartition("/")[2]: entry[3:6] for entry in inventory.entries}
    assert values == {entry.path.rpartition("/")[2]: entry[3:6] for entry in plain.entries}


def test_memory_grows_with_boxes_and_not_with_the_file(tmp_path):
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 9, "height": 9} for n in range(200)]
    polygon = json.dumps([[n / 7 for n in range(1000)]])
    with open(tmp_path / "all.json", "w") as file:
        file.write(f'{{"images": {json.dumps(images)}, "categories": [{{"id": 1, "name": "x"}}],')
        file.write('"annotations": [')
        item = '{{"image_id": {}, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": {}}}'
        file.write(",".join(item.format(n % 200, polygon) for n in range(2000)))
        file.write("]}")
    write_files(tmp_path, {"0.jpg": draw(SHOTS[0])})
    assert (tmp_path / "all.json").stat().st_size > 35e6
    with limit_memory(12 << 20):
        inventory = scan_images(tmp_path / "all.json")
    assert len(json.loads(inventory.entries[0].values)[0]) == 10


def test_boxes_are_those_of_the_scene(root):
    for entry in scan_images(root).entries:
        shot = find_shot(entry.path)
        boxes, labels, crowd, size = json.loads(entry.values)
        assert [CLASSES[label] for label in labels] == [thing.name for thing in shot.things]
        assert crowd == [thing.flag for thing in shot.things]
        assert size == [shot.height, shot.width]
        boxes = np.reshape(boxes, (-1, 4)) / (size * 2)
        np.testing.assert_allclose(boxes, np.reshape(expect_boxes(shot), (-1, 4)))
