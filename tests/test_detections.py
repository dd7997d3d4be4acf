"""Boxes of COCO, VOC and YOLO: where they land, what is read back, and what data sets can do."""

import dataclasses
import io
import json
import re
import uuid

import numpy as np
import pytest
from annotating import (
    CLASSES,
    SHOTS,
    WRITERS,
    Shot,
    Thing,
    describe_coco,
    describe_voc,
    describe_yolo,
    draw,
    expect_boxes,
    find_shot,
    paint,
    write_coco,
    write_files,
    write_voc,
)
from conftest import (
    convert_folder,
    encode_image,
    read_tree,
    run_conversion,
    write_folder,
    write_image,
)
from PIL import Image, ImageOps
from servers import upload_tree

from converter.commits.commit import list_finished, read_notes
from converter.errors import UsageError
from converter.format import schema
from converter.format.manifest import read_manifest
from converter.inventory import Note
from converter.options import RESIZES, ConvertOptions
from converter.planning.plan import read_plan
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from converter.upkeep.verification import verify_dataset
from pipelines import convert_sizes, plan
from pipelines.cli.commands import main
from pipelines.jobs.upkeep import repair, verify
from reader import load_dataset, open_shards

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=3)
IN_MEMORY = ["--direct_running_mode=in_memory"]
FLAGS = {"coco": "is_crowd", "voc": "difficult", "yolo": None}


@pytest.fixture(params=WRITERS)
def kind(request):
    return request.param


@pytest.fixture
def root(kind, tmp_path):
    return WRITERS[kind](tmp_path / "data")


def test_all_of_them_give_the_same_boxes(root, kind, tmp_path):
    convert_folder(root, tmp_path / "out", OPTIONS)
    shards = open_shards(tmp_path / "out")
    assert shards.class_names == [*CLASSES]
    for record in (*shards.source("train"), *shards.source("validation")):
        shot, values, flag = find_shot(record.source_id), record.values, FLAGS[kind]
        flags = values[f"image/object/{flag}"] if flag else [thing.flag for thing in shot.things]
        labels = [CLASSES[label] for label in values[schema.BOX_LABELS]]
        found = sorted(zip(values[schema.BOXES], labels, flags, strict=True))
        things = zip(expect_boxes(shot), shot.things, strict=True)
        expected = sorted((box, thing.name, thing.flag) for box, thing in things)
        assert [each[1:] for each in found] == [each[1:] for each in expected]
        boxes = [np.reshape([box for box, *_ in each], (-1, 4)) for each in (found, expected)]
        np.testing.assert_allclose(*boxes, atol=1e-6)


def test_what_is_cut_off_takes_its_flag_along(kind, tmp_path):
    things = (Thing("kite", (0, 2, 3, 9), 1), Thing("cat", (10, 2, 10, 9), 0),
              Thing("dog ü", (26, 2, 6, 9), 1))  # fmt: skip
    root = WRITERS[kind](tmp_path / "data", [SHOTS[1], Shot("odd", "train", 24, 32, things, 999)])
    options = ConvertOptions(image_size=(16, 16), resize="crop")
    convert_folder(root, tmp_path / "out", options)
    [record] = open_shards(tmp_path / "out").source("train")
    values = record.values
    # Columns 4 to 28 are kept.
    expected = [(2 / 24, 6 / 24, 11 / 24, 16 / 24), (2 / 24, 22 / 24, 11 / 24, 1)]
    order = [0, 1] if values[schema.BOX_LABELS] == [0, 1] else [1, 0]
    np.testing.assert_allclose(np.array(values[schema.BOXES])[order], expected, atol=1e-6)
    assert [CLASSES[values[schema.BOX_LABELS][n]] for n in order] == ["cat", "dog ü"]
    if flag := FLAGS[kind]:
        assert [values[f"image/object/{flag}"][n] for n in order] == [0, 1]
    assert read_notes(tmp_path / "out") == ()


def list_turns():
    for orientation in range(1, 9):
        for stated in ("file", "upright", "none"):
            # What is stated of a file that is turned in other ways says nothing.
            if stated != "upright" or orientation >= 5:
                yield orientation, stated


@pytest.mark.parametrize(("orientation", "stated"), [*list_turns()])
@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_boxes_are_turned_with_their_file(tmp_path, kind, orientation, stated):
    height, width, box = 60, 100, (40, 15, 25, 10)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode_image(paint(height, width, box), "PNG", exif=exif)
    if stated == "upright":
        turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))[..., 0]
        rows, columns = np.flatnonzero(turned.any(axis=1)), np.flatnonzero(turned.any(axis=0))
        box = (columns[0], rows[0], len(columns), len(rows))
        height, width = turned.shape
    box = tuple(map(int, box))
    shot = Shot(
        "a", "train", *((0, 0) if stated == "none" else (height, width)), (Thing("cat", box),), 1
    )
    write_one(tmp_path / "data", kind, shot, data)
    sizes = RESIZES if orientation == 6 else ("crop",)
    check_pixels(tmp_path, scan_images(tmp_path / "data"), expected_notes=(), sizes=sizes)


def write_one(root, kind: str, shot: Shot, data: bytes):
    files = {
        "coco": {"train/a.jpg": data, "annotations/train.json": json.dumps(describe_coco([shot]))},
        "voc": {"JPEGImages/a.jpg": data, "Annotations/a.xml": describe_voc(shot)},
    }
    return write_files(root, files[kind])


def check_pixels(tmp_path, inventory, *, expected_notes, sizes) -> None:
    """Converts one image in each way: its box has to be around what is white."""
    assert len(inventory.entries) == 1
    for resize in sizes:
        side = (40, 40) if resize in ("shorter", "longer") else (40, 48)
        out = tmp_path / resize
        options = ConvertOptions(image_size=side, resize=resize, encoding="raw")
        convert_folder(tmp_path / "data", out, options)
        [record] = open_shards(out).source("train")
        pixels = np.frombuffer(record.encoded, np.uint8)
        white = pixels.reshape(record.height, record.width, 3)[..., 0] > 127
        rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
        found = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        boxes = np.array(record.values[schema.BOXES]) * (white.shape * 2)
        np.testing.assert_allclose([found], boxes, atol=1.01)
        assert {note.code for note in read_notes(out)} - {"wrong_extension"} == {*expected_notes}


def test_another_size_is_noted_and_boxes_are_pixels_of_the_file(tmp_path):
    shot = Shot("a", "train", 120, 200, (Thing("cat", (40, 15, 25, 10)),), 1)
    write_one(
        tmp_path / "data", "coco", shot, encode_image(paint(60, 100, shot.things[0].box), "PNG")
    )
    inventory = scan_images(tmp_path / "data")
    check_pixels(tmp_path, inventory, expected_notes={"box_size"}, sizes=("stretch",))


def test_boxes_outside_are_left_out_and_counted_and_others_cut(tmp_path, capsys):
    things = (Thing("cat", (-5, -5, 10, 10), 1), Thing("kite", (500, 1, 5, 5), 1),
              Thing("dog ü", (2, 2, 900, 4)), Thing("kite", (1, -9, 5, 9)))  # fmt: skip
    shots = [*SHOTS[:5], Shot("odd", "train", 24, 32, things, 999)]
    root = write_coco(tmp_path / "data", shots)
    flags = ["--image-size=16", "--no-progress", *IN_MEMORY]
    assert main(["convert", str(root), str(tmp_path / "out"), *flags]) == 0
    assert "note: box_outside (2): boxes that lie outside" in capsys.readouterr().out
    assert read_notes(tmp_path / "out") == (Note("box_outside", ("train2017/odd.jpg",), 2),)
    record = open_shards(tmp_path / "out").source("train").by_id("train2017/odd.jpg")
    boxes = record.values[schema.BOXES]
    np.testing.assert_allclose(boxes, [(0, 0, 5 / 24, 5 / 32), (2 / 24, 2 / 32, 6 / 24, 1)])
    assert record.values["image/object/is_crowd"] == [1, 0]
    assert [CLASSES[label] for label in record.values[schema.BOX_LABELS]] == ["cat", "dog ü"]


def test_a_plan_says_what_was_found(root, kind, tmp_path, capsys):
    assert main(["plan", str(root), str(tmp_path / "out"), "--image-size=16"]) == 0
    out = capsys.readouterr().out
    assert f"source: {kind}, " in out
    assert f"{sum(len(shot.things) for shot in SHOTS)} boxes" in out


@pytest.mark.parametrize("serializable", [False, True])
def test_flags_are_read_with_their_boxes(tmp_path, serializable):
    root = write_coco(tmp_path / "data")
    options = dataclasses.replace(OPTIONS, resize="crop", encoding="jpeg")
    convert_folder(root, tmp_path / "out", options)
    columns = ("boxes", "box_labels", "is_crowd")
    dataset = load_dataset(
        tmp_path / "out", "train", batch_size=5, shuffle=False, columns=columns,
        with_filename=True, serializable=serializable,
    )  # fmt: skip
    source, seen = open_shards(tmp_path / "out").source("train"), 0
    for images, paths, values in dataset:
        assert values["boxes"].shape.as_list()[:2] == [len(images), None]
        for row, path in enumerate(paths.numpy()):
            record = source.by_id(path.decode())
            crowd = values["is_crowd"][row].numpy().tolist()
            assert crowd == record.values["image/object/is_crowd"]
            assert values["box_labels"][row].numpy().tolist() == record.values[schema.BOX_LABELS]
            boxes = np.reshape(record.values[schema.BOXES], (-1, 4))
            np.testing.assert_allclose(values["boxes"][row].numpy().reshape(-1, 4), boxes)
            assert len(crowd) == len(boxes)
            seen += len(crowd)
    assert seen > 10


@pytest.mark.filterwarnings("ignore:label.. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_tensorflow_datasets_reads_flags(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    convert_folder(write_voc(tmp_path / "data"), tmp_path / "out", OPTIONS)
    builder = tfds.builder_from_directory(tmp_path / "out")
    source = open_shards(tmp_path / "out").source("train")
    for example in builder.as_dataset(split="train", shuffle_files=False):
        record = source.by_id(example["image/source_id"].numpy().decode())
        for name in ("image/object/difficult", "image/object/truncated"):
            assert example[name].numpy().tolist() == record.values[name]


def annotate(root, kind: str, shot: Shot) -> None:
    """Writes what is said about one image again."""
    if kind == "voc":
        write_files(root, {f"Annotations/{shot.name}.xml": describe_voc(shot)})
    elif kind == "yolo":
        path = root / "labels" / shot.split / f"{shot.name}.txt"
        path.write_text(describe_yolo(shot))
    else:
        path = root / "annotations" / f"instances_{shot.split}2017.json"
        names = ALL if ALL[-1] in {thing.name for thing in shot.things} else CLASSES
        shots = [shot if other.id == shot.id else other for other in SHOTS]
        content = describe_coco([s for s in shots if s.split == shot.split], names=names)
        path.write_text(json.dumps(content))


ALL = (*CLASSES, "zebra")


def test_an_update_takes_changed_annotations_and_new_classes(root, kind, tmp_path):
    out = tmp_path / "out"
    options = dataclasses.replace(OPTIONS, num_shards=8)
    run_conversion(root, out, options, IN_MEMORY)
    update = run_conversion(root, out, options, IN_MEMORY, mode="update").update
    assert update is None or not update.needed
    shot = SHOTS[3]
    annotate(root, kind, shot._replace(things=(shot.things[0]._replace(box=(3, 3, 9, 9)),)))
    done = run_conversion(root, out, options, IN_MEMORY, mode="update")
    assert (done.update.added, done.update.changed, done.update.removed) == (0, 1, 0)
    record = next(r for r in open_shards(out).source("train") if shot.name in r.source_id)
    assert len(record.values[schema.BOXES]) == 1
    assert verify(out, sources=root) == []
    if kind == "yolo":
        text = (root / "data.yaml").read_text()
        (root / "data.yaml").write_text(f"{text}  3: zebra\n")
        with open(root / "labels" / "train" / f"{shot.name}.txt", "a") as file:
            file.write("3 .5 .5 .2 .2\n")
    else:
        annotate(root, kind, shot._replace(things=(*shot.things, Thing("zebra", (1, 1, 9, 9)))))
    done = run_conversion(root, out, options, IN_MEMORY, mode="update")
    assert done.update.changed == 1
    assert read_manifest(out).classes == ALL
    assert done.classes.added == ("zebra",)
    assert verify(out, sources=root) == []


def test_an_interrupted_conversion_goes_on(root, tmp_path):
    convert_folder(root, tmp_path / "whole", OPTIONS)
    plan = write_folder(root, tmp_path / "out", OPTIONS)
    (tmp_path / "out" / plan.shards[1].name).unlink()
    assert plan.shards[1] not in list_finished(read_plan(tmp_path / "out"))
    run_conversion(root, tmp_path / "out", OPTIONS, IN_MEMORY)
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "whole")


def test_it_verifies_with_its_originals_and_is_repaired(root, kind, tmp_path):
    things = (Thing("cat", (500, 1, 5, 5), 1),)
    annotate(root, kind, SHOTS[0]._replace(things=things))
    out = tmp_path / "out"
    convert_folder(root, out, OPTIONS)
    before = read_tree(out)
    assert read_notes(out)[0].code == "box_outside"
    assert verify(out, sources=root) == []
    for name in (read_manifest(out).shards[0].name, "features.json", "notes.jsonl"):
        (out / name).write_bytes(b"damaged")
    repair(out, root, IN_MEMORY)
    assert read_tree(out) == before
    assert verify_dataset(out) == []
    victim = next(root.rglob(f"{SHOTS[2].name}.jpg"))
    victim.write_bytes(draw(SHOTS[4]))
    [fault] = verify(out, sources=root)
    assert fault.file.endswith(f"{SHOTS[2].name}.jpg")


def test_a_store_gives_the_same(s3_server, root, kind, tmp_path):
    s3_server.set_faults()
    write_image(root / "extra" / "a.png", 1)
    far = upload_tree(root, s3_server.path(uuid.uuid4().hex))
    near = scan_images(root)
    assert scan_images(far) == near
    assert ("extra/a.png", "skipped_unlisted") in [skip[:2] for skip in near.skipped]
    convert_folder(root, tmp_path / "near", OPTIONS)
    convert_folder(far, tmp_path / "far", OPTIONS)
    assert read_tree(tmp_path / "far") == read_tree(tmp_path / "near")
    assert verify(tmp_path / "far", sources=far) == []
    single = {"coco": "annotations/instances_val2017.json", "yolo": "data.yaml"}.get(kind)
    if single:
        assert resolve_options(far / single, ConvertOptions()).source == kind
        assert scan_images(far / single) == scan_images(root / single)


def test_several_sizes_have_the_bytes_of_each_alone(root, tmp_path):
    sizes = [dataclasses.replace(OPTIONS, image_size=size) for size in ((8, 10), (16, 20))]
    convert_sizes(root, tmp_path / "out", sizes, IN_MEMORY)
    for options in sizes:
        name = "{}x{}".format(*options.image_size)
        convert_folder(root, tmp_path / name, options)
        assert read_tree(tmp_path / "out" / name) == read_tree(tmp_path / name)


def test_the_order_of_files_changes_nothing(kind, tmp_path):
    one = WRITERS[kind](tmp_path / "one")
    other = WRITERS[kind](tmp_path / "other", SHOTS[::-1])
    convert_folder(one, tmp_path / "a", OPTIONS)
    convert_folder(other, tmp_path / "b", OPTIONS)
    trees = (read_tree(tmp_path / name) for name in "ab")
    a, b = ({name: data for name, data in tree.items() if ".tf" in name} for tree in trees)
    assert a == b


def test_splits_that_are_given_are_kept_and_others_drawn(root, tmp_path):
    options = dataclasses.replace(OPTIONS, test_split=0.3, num_shards=None)
    convert_folder(root, tmp_path / "out", options)
    splits = read_manifest(tmp_path / "out").splits
    assert [*splits] == ["train", "validation", "test"]
    assert splits["validation"].records == 6


def test_splits_that_are_given_may_be_left(root):
    inventory = scan_images(root, ConvertOptions(split_folders="no"))
    assert {entry.split for entry in inventory.entries} == {""}


def test_options_for_folders_are_refused(root):
    with pytest.raises(UsageError, match="for folders alone"):
        scan_images(root, ConvertOptions(label_from="none"))


@pytest.mark.parametrize(
    "folders", [("images", "labels"), ("JPEGImages", "Annotations"), ("annotations", "images")]
)
def test_a_layout_is_never_taken_for_classes(tmp_path, folders):
    for seed, folder in enumerate(folders):
        write_image(tmp_path / folder / "a.png", seed)
    if "JPEGImages" in folders:
        with pytest.raises(UsageError, match="has no rows"):
            scan_images(tmp_path)
        return
    names = re.escape(" and ".join(sorted(folders, key=lambda name: name != "images")))
    with pytest.raises(UsageError, match=f"has the folders {names}") as caught:
        scan_images(tmp_path)
    assert "--source" in str(caught.value)
    inventory = scan_images(tmp_path, ConvertOptions(source="folders"))
    assert inventory.classes == tuple(sorted(folders))


def test_folders_that_are_no_classes_are_noted(tmp_path):
    write_image(tmp_path / "cats" / "1.png", 1)
    write_image(tmp_path / "masks" / "1.png", 2)
    for name in ("labels", "ImageSets", "empty"):
        write_files(tmp_path, {f"{name}/a.txt": "x"})
    notes = {note.code: note for note in scan_images(tmp_path).notes}
    assert notes["unused_folder"] == Note("unused_folder", ("ImageSets", "labels"), 2)
    assert plan(tmp_path, tmp_path.parent / "out").notes[0].code == "unused_folder"


@pytest.mark.parametrize("name", ["images", "labels", "annotations", "train", "Annotations"])
def test_class_folders_stay_what_they_are(tmp_path, name):
    for seed, folder in enumerate((name, "cats", "dogs")):
        write_image(tmp_path / folder / "a.png", seed)
    options = ConvertOptions(split_folders="no")
    assert resolve_options(tmp_path, options).source == "folders"
    assert scan_images(tmp_path, options).classes == tuple(sorted((name, "cats", "dogs")))
    write_files(tmp_path, {f"{name}/notes.txt": "x", "data.yaml": "a: b", "cats/a.json": "{}"})
    assert resolve_options(tmp_path, options).source == "folders"


def test_a_table_may_have_more_columns_of_boxes(tmp_path):
    boxes = [[0, 0, 10, 10], [20, 0, 32, 10], [900, 0, 901, 5]]
    rows = [
        {
            "path": "a.png",
            "boxes": boxes,
            "is_crowd": [0, 1, 1],
            "pose": ["x", "y", "z"],
            "sure": [1, 0.5, 0],
        },
        {"path": "b.png", "boxes": [], "is_crowd": [], "pose": [], "sure": []},
        {"path": "c.png", "boxes": boxes, "is_crowd": [1], "pose": [], "sure": []},
    ]  # fmt: skip
    for seed, row in enumerate(rows):
        write_image(tmp_path / row["path"], seed)
    (tmp_path / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    lines = ["\t".join(rows[0])]
    for row in rows:
        cells = (json.dumps(v) if isinstance(v, list) else v for v in row.values())
        lines.append("\t".join(cells).replace('["x", "y", "z"]', "x|y|z"))
    (tmp_path / "t.tsv").write_text("".join(f"{line}\n" for line in lines))
    options = ConvertOptions(
        image_size=(8, 8), boxes_column="boxes", box_columns=("is_crowd", "sure")
    )
    inventory = scan_images(tmp_path / "t.jsonl", options)
    assert scan_images(tmp_path / "t.tsv", options) == inventory
    assert [(column.name, column.kind) for column in inventory.columns[1:]] == [
        ("image/object/is_crowd", "ints"), ("image/object/sure", "floats"),
    ]  # fmt: skip
    [reject] = inventory.rejected
    assert (reject.path, reject.code) == ("c.png", "bad_row")
    assert "3 boxes with 1 values of image/object/is_crowd" in reject.detail
    options = dataclasses.replace(options, box_columns=("pose", "is_crowd"))
    convert_folder(tmp_path / "t.jsonl", tmp_path / "out", options)
    record = open_shards(tmp_path / "out").source("train").by_id("a.png")
    assert record.values["image/object/pose"] == ["x", "y"]
    assert record.values["image/object/is_crowd"] == [0, 1]
    assert read_notes(tmp_path / "out") == (Note("box_outside", ("a.png",), 1),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_columns": ("a",)}, "box columns are given without a boxes column"),
        ({"boxes_column": "boxes", "box_columns": ("a", "a")}, "'a' is given twice"),
        (
            {"boxes_column": "b", "box_columns": ("a",), "keep_columns": ("a",)},
            "'a' is given twice",
        ),
    ],
)
def test_columns_of_boxes_go_with_boxes(options, message):
    with pytest.raises(UsageError, match=message):
        ConvertOptions(**options)


def test_a_column_cannot_be_called_like_that_of_boxes(tmp_path):
    write_image(tmp_path / "a.png", 1)
    (tmp_path / "t.jsonl").write_text('{"path": "a.png", "boxes": [], "bbox": []}\n')
    options = ConvertOptions(boxes_column="boxes", box_columns=("bbox",))
    with pytest.raises(UsageError, match="box column 'bbox'"):
        scan_images(tmp_path / "t.jsonl", options)


def test_images_of_one_source_may_all_be_without_boxes(tmp_path):
    shots = [shot._replace(things=()) for shot in SHOTS]
    for write in (write_coco, write_voc):
        root = write(tmp_path / write.__name__, shots)
        (root / "Annotations").mkdir(exist_ok=True)
        out = tmp_path / f"out {write.__name__}"
        convert_folder(root, out, OPTIONS)
        kinds = {column.kind for column in read_manifest(out).columns}
        assert kinds == {"boxes", "labels", "ints"}


def test_a_data_set_of_ours_keeps_flags_with_their_boxes(tmp_path):
    convert_folder(write_voc(tmp_path / "data"), tmp_path / "one", OPTIONS)
    assert resolve_options(tmp_path / "one", ConvertOptions()).box_columns == (
        "image/object/difficult",
        "image/object/truncated",
    )
    options = ConvertOptions(image_size=(12, 12), encoding="png", num_shards=2)
    convert_folder(tmp_path / "one", tmp_path / "two", options)
    before = {r.source_id: r.values for r in open_shards(tmp_path / "one").source("train")}
    after = {r.source_id: r.values for r in open_shards(tmp_path / "two").source("train")}
    assert after == before
    assert before


def test_several_sources_of_a_kind_are_joined(tmp_path):
    one = write_coco(tmp_path / "one", SHOTS[:8])
    other = write_coco(tmp_path / "other", SHOTS[8:])
    flags = ["--image-size=16", "--no-progress", *IN_MEMORY]
    assert main(["convert", str(one), str(other), str(tmp_path / "out"), *flags]) == 0
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.totals.written, manifest.classes) == (len(SHOTS), CLASSES)
    for record in open_shards(tmp_path / "out").source("train"):
        shot = find_shot(record.source_id)
        boxes = np.reshape(record.values[schema.BOXES], (-1, 4))
        np.testing.assert_allclose(boxes, np.reshape(expect_boxes(shot), (-1, 4)), atol=1e-6)
