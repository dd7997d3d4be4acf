"""Images out of Parquet: as `datasets` reads them, and every job on them."""

import dataclasses
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import (
    convert_folder,
    encode_image,
    make_image,
    read_tree,
    run_conversion,
    write_image,
)
from parquet_making import (
    CLASSES,
    TAGS,
    THINGS,
    make_dataset,
    make_rows,
    write_plain,
    write_shards,
)
from PIL import Image
from servers import Server, upload_tree

from converter.errors import UsageError
from converter.format.manifest import read_manifest
from converter.format.schema import BOX_LABELS, BOXES, CAPTION, LABELS
from converter.inventory import Inventory
from converter.options import ConvertOptions
from converter.planning.plan import write_plan
from converter.sources import parquet_images, parquet_rows
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from converter.storage.locate import locate
from converter.writing.shard_writer import Job, write_shard
from pipelines import convert_sizes
from pipelines.cli.commands import main
from pipelines.jobs.preview import plan, propose
from pipelines.jobs.upkeep import repair, verify
from reader import open_shards

datasets = pytest.importorskip("datasets")

EVERYTHING = ConvertOptions(
    resize="none",
    encoding="png",
    num_shards=2,
    labels_column="tags",
    caption_column="text",
    boxes_column="objects.bbox",
    box_labels_column="objects.category",
    box_format="xywh",
    keep_columns=("age",),
)
OPTIONS = ConvertOptions(image_size=(16, 16), encoding="png", num_shards=3, validation_split=0.25)
IN_MEMORY = ["--direct_running_mode=in_memory"]
SHARDED = [f"data/train-{number:05d}-of-00003.parquet" for number in range(3)]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`datasets` asks no server, and keeps nothing."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet")
    write_shards(make_rows(30), [folder / name for name in SHARDED])
    return folder


def read_back(out: Path) -> dict[str, Any]:
    opened = open_shards(out)
    return {
        record.source_id: record
        for split in read_manifest(out).splits
        for record in opened.source(split)
    }


def name_rows(folder: Path, images: Path | None = None) -> list[str]:
    """The path of the image in each row, in the order in which `datasets` reads them."""
    inventory = scan_images(images or folder, ConvertOptions(dedupe="off"))
    entries = sorted(inventory.entries, key=lambda entry: (entry.file, entry.place))
    return [entry.path for entry in entries]


def check_boxes(record: Any, objects: dict[str, Any]) -> None:
    """Ours are top, left, bottom, right in fractions; theirs left, top, width, height in pixels."""
    size = np.array([record.height, record.width] * 2)
    found = np.reshape(record.values[BOXES], (-1, 4)) * size
    expected = [[y, x, y + h, x + w] for x, y, w, h in objects["bbox"]]
    np.testing.assert_allclose(found, np.reshape(expected, (-1, 4)), atol=1e-3)


def test_every_element_is_what_datasets_reads(root, tmp_path):
    convert_folder(root, tmp_path / "out", EVERYTHING)
    found = read_back(tmp_path / "out")
    read = datasets.load_dataset("parquet", data_files=str(root / "data/*.parquet"), split="train")
    names = name_rows(root)
    assert len(found) == len(read) == len(names) == 30
    manifest = read_manifest(tmp_path / "out")
    assert manifest.classes == (*TAGS, *THINGS)
    for name, row in zip(names, read, strict=True):
        record = found[name]
        pixels = np.asarray(Image.open(io.BytesIO(record.encoded)))
        np.testing.assert_array_equal(pixels, np.asarray(row["image"].convert("RGB")))
        assert record.values[CAPTION] == row["text"]
        assert record.values["age"] == row["age"]
        labels = [manifest.classes[label] for label in record.values[LABELS]]
        assert sorted(labels) == sorted(TAGS[tag] for tag in row["tags"])
        things = [manifest.classes[label] for label in record.values[BOX_LABELS]]
        assert things == [THINGS[thing] for thing in row["objects"]["category"]]
        check_boxes(record, row["objects"])


def test_classes_are_those_of_the_schema_in_its_order(root, tmp_path):
    convert_folder(root, tmp_path / "out", OPTIONS)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.classes == CLASSES
    read = datasets.load_dataset("parquet", data_files=str(root / "data/*.parquet"), split="train")
    found = read_back(tmp_path / "out")
    labels = {name: row["label"] for name, row in zip(name_rows(root), read, strict=True)}
    assert {name: record.label for name, record in found.items()} == labels
    assert {record.text for record in found.values()} == {"zebra", "ant"}


@pytest.mark.parametrize(
    "paths",
    [
        ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
         "data/test-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"],
        ["train.parquet", "test.parquet"],
        ["train/0000.parquet", "validation/0000.parquet", "train/0001.parquet"],
        ["data/dev/a.parquet", "data/training/b.parquet"],
        ["default/train/0000.parquet", "default/test/0000.parquet"],
        ["my-train.parquet", "my_eval.parquet"],
        ["a.parquet", "b.parquet"],
    ],
)  # fmt: skip
def test_splits_are_those_of_datasets(tmp_path, paths):
    folder = tmp_path / "set"
    for number, path in enumerate(paths):
        write_shards(make_rows(3 + number, 10 * number), [folder / path])
    read = datasets.load_dataset(str(folder))
    convert_folder(folder, tmp_path / "out", ConvertOptions(image_size=(8, 8)))
    splits = read_manifest(tmp_path / "out").splits
    assert {n: split.records for n, split in splits.items()} == {n: len(s) for n, s in read.items()}


def test_files_of_no_split_beside_others_are_named(tmp_path):
    write_shards(make_rows(4), [tmp_path / "train-00000-of-00001.parquet"])
    write_shards(make_rows(4), [tmp_path / "extra-00000-of-00001.parquet"])
    (tmp_path / "README.md").write_text("a card")
    inventory = scan_images(tmp_path)
    assert [(file.path, file.code) for file in inventory.skipped] == [
        ("README.md", "skipped_extension"), ("extra-00000-of-00001.parquet", "skipped_no_split"),
    ]  # fmt: skip
    assert (len(inventory.entries), inventory.scanned) == (4, 6)


def test_links_out_of_the_folder_are_to_be_named(root, tmp_path):
    """As in the cache of Hugging Face, where files are links to blobs beside the snapshots."""
    (tmp_path / "snapshot" / "data").mkdir(parents=True)
    for name in SHARDED:
        (tmp_path / "snapshot" / name).symlink_to(root / name)
    with pytest.raises(UsageError, match="links") as caught:
        scan_images(locate(tmp_path / "snapshot"))
    pattern = str(caught.value).split("'")[-2]
    assert len(scan_images(locate(pattern)).entries) == 30


@pytest.mark.parametrize("card", [True, False])
def test_configurations_are_not_mixed(tmp_path, card):
    for name in ("default", "small"):
        write_shards(make_rows(3), [tmp_path / name / "train-00000-of-00001.parquet"])
    if card:
        (tmp_path / "README.md").touch()
    with pytest.raises(UsageError, match="several data sets"):
        scan_images(tmp_path)
    assert len(scan_images(tmp_path / "small").entries) == 3


def test_a_pattern_and_one_file_give_their_rows(root):
    assert len(scan_images(root / "data" / "train-*.parquet").entries) == 30
    assert len(scan_images(root / "data" / "train-{00000,00002}-of-00003.parquet").entries) == 20
    assert len(scan_images(root / SHARDED[1]).entries) == 10


def test_names_are_unique_and_stay_when_rows_and_files_come(tmp_path):
    rows = make_rows(20)
    write_shards(rows[:12], [tmp_path / "train-00000-of-00001.parquet"])
    before = scan_images(tmp_path)
    names = {entry.place: entry.path.removeprefix("train-00000/") for entry in before.entries}
    assert [names[row] for row in (0, 1, 2, 3, 4, 5, 7)] == [
        "0", "1.png", "2.png", "3", "0.png", "5-1.png", "3.png"
    ]  # fmt: skip
    (tmp_path / "train-00000-of-00001.parquet").unlink()
    write_shards(rows[:16], [tmp_path / "train-00000-of-00002.parquet"])
    write_shards(rows[:4], [tmp_path / "train-00001-of-00002.parquet"])
    after = scan_images(tmp_path)
    assert len({entry.path for entry in after.entries}) == 20
    assert {entry.path for entry in before.entries} < {entry.path for entry in after.entries}


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("cats/1.jpg", "cats/1.jpg"), ("/home/me/1.jpg", "1.jpg"), ("../../1.jpg", "1.jpg"),
        ("./a//b.png", "a/b.png"), ("hf://x@1/a/b.png", "b.png"), ("..", "0"), ("", "0"),
        ("a\nb", "0"), ("x" * 300, "0"), ("long/" * 99 + "b.png", "b.png"), ("1:3.png", "1:3.png"),
    ],
)  # fmt: skip
def test_a_name_in_a_row_never_leads_anywhere(tmp_path, given, path):
    rows = [{"bytes": encode_image(make_image(1)), "path": given}]
    file = write_plain(tmp_path / "a.parquet", {"image": rows})
    (entry,) = scan_images(file).entries
    assert (entry.path, entry.file, entry.place) == (f"a/{path}", "a.parquet", 0)


def test_update_writes_what_changed(root, tmp_path):
    images, out = shutil.copytree(root, tmp_path / "images"), tmp_path / "out"
    convert_folder(images, out, OPTIONS)
    assert run_conversion(images, out, None, IN_MEMORY, mode="update").written == 0
    before = {name: record.sha256 for name, record in read_back(out).items()}
    rows = make_rows(10, 20)
    rows[4]["image"]["bytes"] = encode_image(make_image(99))
    write_shards([*rows, *make_rows(2, 50)], [images / SHARDED[2]])
    write_shards(make_rows(3, 60), [images / "data" / "train-00003-of-00003.parquet"])
    run_conversion(images, out, None, IN_MEMORY, mode="update")
    after = {name: record.sha256 for name, record in read_back(out).items()}
    assert len(after) == 35
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {name_rows(images)[24]}
    splits = [split for split in ("train", "validation") if read_manifest(out).splits[split]]
    assert splits == ["train", "validation"]
    assert verify(out, sources=images) == []
    (images / SHARDED[0]).unlink()
    (images / "data" / "train-00003-of-00003.parquet").unlink()
    run_conversion(images, out, None, IN_MEMORY, mode="update")
    assert sorted(read_back(out)) == sorted(name_rows(images))


def test_update_reads_row_groups_in_their_order(tmp_path, monkeypatch):
    rows = [{**row, "mask": {"bytes": row["mask"]["bytes"], "path": None}} for row in make_rows(60)]
    write_shards(rows, [tmp_path / "images" / "a.parquet"])
    whole = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "images" / "a.parquet")
    pytest.importorskip("pyarrow.parquet").write_table(
        whole, tmp_path / "images" / "a.parquet", row_group_size=6
    )
    options = dataclasses.replace(EVERYTHING, labels_column=None, mask_column="mask")
    convert_folder(tmp_path / "images", tmp_path / "out", options)
    begun = []
    read = parquet_images.read_batches
    monkeypatch.setattr(
        parquet_images, "read_batches", lambda *given: begun.append(given[1]) or read(*given)
    )
    parquet_images.MEASURED.forget_others([])
    assert run_conversion(tmp_path / "images", tmp_path / "out", None, [], mode="update").unchanged
    # All once for the digests, and images once for each shard: boxes are fractions of their sizes.
    assert begun.count(["mask.bytes"]) == 10
    assert 10 < begun.count(["image.bytes"]) <= 10 + 2 * 10


def test_labels_that_change_are_seen(tmp_path):
    rows = make_rows(12)
    write_shards(rows, [tmp_path / "images" / "a.parquet"])
    convert_folder(tmp_path / "images", tmp_path / "out", OPTIONS)
    rows[5]["label"] = 2
    write_shards(rows, [tmp_path / "images" / "a.parquet"])
    run_conversion(tmp_path / "images", tmp_path / "out", None, IN_MEMORY, mode="update")
    record = read_back(tmp_path / "out")[name_rows(tmp_path / "images")[5]]
    assert (record.label, record.text) == (2, "never used")


def test_a_conversion_that_was_killed_goes_on(root, tmp_path):
    options = resolve_options(locate(root), OPTIONS)
    out = tmp_path / "out"
    begun = write_plan(propose(root, options).draft, options, images=root, out=out)
    write_shard(begun.shards[0], Job.of_plan(begun))
    done = (out / begun.shards[0].name).stat().st_mtime_ns
    conversion = run_conversion(root, out, OPTIONS, IN_MEMORY)
    assert conversion.kept == 1
    assert (out / begun.shards[0].name).stat().st_mtime_ns == done
    convert_folder(root, tmp_path / "whole", OPTIONS)
    assert read_tree(out) == read_tree(tmp_path / "whole")


def test_workers_and_the_order_of_files_do_not_show(root, tmp_path):
    copied = tmp_path / "copied"
    for name in reversed(SHARDED):
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, copied / name)
    arguments = ["--image-size=16", "--encoding=png", "--num-shards=3", "--no-progress"]
    trees = []
    for images, run in ((root, *IN_MEMORY), (root, "--workers=2"), (copied, *IN_MEMORY)):
        out = tmp_path / f"out {len(trees)}"
        assert main(["convert", str(images), str(out), run, *arguments]) == 0
        trees.append(read_tree(out))
    assert trees[0] == trees[1] == trees[2]


def test_verify_names_originals_that_changed(root, tmp_path):
    images, out = shutil.copytree(root, tmp_path / "images"), tmp_path / "out"
    convert_folder(images, out, OPTIONS)
    assert verify(out, sources=images) == []
    names = name_rows(images)
    rows = make_rows(10, 10)
    rows[3]["image"]["bytes"] = encode_image(make_image(99))
    write_shards(rows[:9], [images / SHARDED[1]])
    faults = verify(out, sources=images)
    assert {(fault.file, fault.original) for fault in faults} == {
        (names[13], True), (names[19], True)
    }  # fmt: skip


@pytest.mark.parametrize("name", ["train-00001-of-00003.tfrecord", "train-00000-of-00003.tfindex"])
def test_repair_makes_lost_files_again(root, tmp_path, name):
    convert_folder(root, tmp_path / "out", OPTIONS)
    before = read_tree(tmp_path / "out")
    (tmp_path / "out" / name).unlink()
    repair(tmp_path / "out", root, IN_MEMORY)
    assert read_tree(tmp_path / "out") == before


def test_several_sizes_are_those_of_each_alone(root, tmp_path):
    sizes = [dataclasses.replace(OPTIONS, image_size=(side, side)) for side in (8, 16)]
    convert_sizes(root, tmp_path / "both", sizes, IN_MEMORY)
    for options in sizes:
        side = options.image_size[0]
        convert_folder(root, tmp_path / str(side), options)
        assert read_tree(tmp_path / "both" / f"{side}x{side}") == read_tree(tmp_path / str(side))


def test_a_store_gives_the_data_set_that_a_disk_gives(server: Server, root, tmp_path):
    far = upload_tree(root, server.path("parquet"))
    options = dataclasses.replace(EVERYTHING, mask_column="mask", labels_column=None)
    inventory = scan_images(far, options)
    assert inventory == scan_images(root, options)
    convert_folder(far, tmp_path / "far", options)
    convert_folder(root, tmp_path / "near", options)
    assert read_tree(tmp_path / "far") == read_tree(tmp_path / "near")
    assert verify(tmp_path / "far", sources=far) == []
    assert len(scan_images(far / SHARDED[0]).entries) == 10


def test_masks_are_in_another_column(root, tmp_path):
    options = ConvertOptions(resize="none", encoding="png", mask_column="mask")
    convert_folder(root, tmp_path / "out", options)
    read = datasets.load_dataset("parquet", data_files=str(root / "data/*.parquet"), split="train")
    found = read_back(tmp_path / "out")
    for name, row in zip(name_rows(root), read, strict=True):
        mask = np.asarray(Image.open(io.BytesIO(found[name].mask or b"")))
        np.testing.assert_array_equal(mask, np.asarray(row["mask"]))
    assert run_conversion(root, tmp_path / "out", None, IN_MEMORY, mode="update").written == 0
    with pytest.raises(UsageError, match="are no images"):
        scan_images(root, ConvertOptions(mask_column="text"))


def scan_columns(
    folder: Path, options: ConvertOptions | None = None, /, **columns: Any
) -> Inventory:
    return scan_images(write_plain(folder / "a.parquet", columns), options or ConvertOptions())


PNG = encode_image(make_image(1), "PNG")


@pytest.mark.parametrize(
    ("columns", "column"),
    [
        ({"img": [PNG]}, "img"),
        ({"PNG": [PNG], "other": [b"x"]}, "PNG"),
        ({"thing": [PNG], "n": [1]}, "thing"),
        ({"other": [PNG], "image": [PNG]}, "image"),
        ({"a": [{"bytes": PNG}]}, "a"),
    ],
)  # fmt: skip
def test_a_column_of_images_is_found(tmp_path, columns, column):
    (entry,) = scan_columns(tmp_path, **columns).entries
    assert (entry.part, entry.path) == (column, "a/0")


def test_a_column_can_be_named(tmp_path):
    images = {"one": [PNG], "two": [encode_image(make_image(2))]}
    with pytest.raises(UsageError, match="column 'path'"):
        scan_columns(tmp_path, **images)
    (entry,) = scan_columns(tmp_path, ConvertOptions(image_column="two"), **images).entries
    assert entry.part == "two"
    with pytest.raises(UsageError, match="no column of images"):
        scan_columns(tmp_path, ConvertOptions(image_column="three"), **images)


def test_what_is_declared_to_be_images_may_be_too_much(tmp_path):
    features = {name: {"_type": "Image"} for name in ("left", "right")}
    columns = {name: [{"bytes": PNG, "path": None}] for name in features}
    file = write_plain(tmp_path / "a.parquet", columns, features=features)
    with pytest.raises(UsageError, match="several columns"):
        scan_images(file)


def test_sounds_are_no_images(tmp_path):
    columns = {"image": [{"bytes": PNG, "path": "a"}]}
    file = write_plain(tmp_path / "a.parquet", columns, features={"image": {"_type": "Audio"}})
    with pytest.raises(UsageError, match="no column of images"):
        scan_images(file, ConvertOptions(source="parquet"))


@pytest.mark.parametrize("names", [{"path": ["1.png"]}, {"file_name": ["1.png"]}])
def test_a_table_of_paths_stays_one(tmp_path, names):
    write_image(tmp_path / "1.png", 1)
    inventory = scan_columns(tmp_path, image=[PNG], label=["x"], **names)
    assert [entry[:3] for entry in inventory.entries] == [
        ("1.png", 0, (tmp_path / "1.png").stat().st_size)
    ]
    assert scan_columns(tmp_path, image=[b"1.png"], path=["1.png"]).classes == ()


def test_a_folder_of_class_folders_stays_one(image_folder, tmp_path):
    folder = shutil.copytree(image_folder, tmp_path / "images")
    before = scan_images(folder).entries
    write_plain(folder / "cache.parquet", {"image": [PNG]})
    assert scan_images(folder).entries == before


def test_labels_without_names_keep_their_numbers(tmp_path):
    inventory = scan_columns(tmp_path, image=[PNG] * 3, label=[10, 9, 7], fine_label=[0, 1, 1])
    assert inventory.classes == ("7", "9", "10")
    options = ConvertOptions(label_column="fine_label")
    assert scan_columns(tmp_path, options, image=[PNG] * 2, fine_label=[3, 0]).classes == ("0", "3")


def test_a_list_of_labels_is_one(tmp_path):
    inventory = scan_columns(tmp_path, image=[PNG] * 2, labels=[[1], [1, 0]])
    assert (inventory.classes, inventory.labelled) == (("0", "1"), False)


def test_several_columns_of_classes_are_a_question(tmp_path):
    names = {"_type": "ClassLabel", "names": ["a", "b"]}
    columns = {"image": [PNG], "fine_label": [0], "coarse_label": [1]}
    features = {"fine_label": names, "coarse_label": names}
    file = write_plain(tmp_path / "a.parquet", columns, features=features)
    with pytest.raises(UsageError, match="hold classes"):
        scan_images(file)
    assert scan_images(file, ConvertOptions(keep_columns=("coarse_label",))).labelled
    del features["coarse_label"]
    write_plain(tmp_path / "a.parquet", columns, features=features)
    assert scan_images(file).classes == ("a", "b")


def test_labels_that_are_no_class_are_rejected(tmp_path):
    names = {"_type": "ClassLabel", "names": ["a", "b"]}
    columns = {"image": [PNG] * 4, "label": [0, -1, 2, None]}
    file = write_plain(tmp_path / "a.parquet", columns, features={"label": names})
    inventory = scan_images(file)
    assert [(file.path, file.code) for file in inventory.rejected] == [
        (f"a/{row}", "bad_row") for row in (1, 2, 3)
    ]
    assert "label -1 is none of 2 classes" in inventory.rejected[0].detail


def test_plan_says_what_is_used_and_what_not(root, tmp_path):
    preview = plan(root, tmp_path / "out", OPTIONS)
    assert preview.recognized == (
        "3 files of Parquet, 3 classes by name, image 'image', label 'label'; "
        "leaves out text, tags, objects, age, mask"
    )
    assert (preview.options.source, preview.options.image_column) == ("parquet", "image")


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"a": [1], "b": ["secret"]}, {"source": "parquet"}, "no column of images"),
        ({"image": [PNG]}, {"caption_column": "text"}, "has no column 'text'"),
        ({"image": [PNG], "t": [{"x": 1}]}, {"caption_column": "t.y"}, "has no column 't.y'"),
        ({"image": [PNG]}, {"table_root": "x"}, "for tables of paths"),
        ({"image": [None, None]}, {"image_column": "image"}, "is no column of images"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, columns, options, words):
    with pytest.raises(UsageError, match=words) as caught:
        scan_columns(tmp_path, ConvertOptions(**options), **columns)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def write_nulls(path: Path, images: Sequence[bytes | None]) -> Path:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"image": pa.array(images, pa.binary())}), path)
    return path


def test_rows_without_an_image_are_rejected(tmp_path):
    inventory = scan_images(write_nulls(tmp_path / "a.parquet", [PNG, None, b"", PNG[:-9]]))
    assert [(file.path, file.code) for file in inventory.rejected] == [("a/1", "missing")]
    convert_folder(tmp_path / "a.parquet", tmp_path / "out", ConvertOptions(dedupe="off"))
    totals = read_manifest(tmp_path / "out").totals
    assert totals.rejected == {"decode_error": 1, "empty": 1, "missing": 1}
    assert (totals.written, totals.scanned) == (1, 4)


@pytest.mark.parametrize("batches", [0, 1, 2])
@pytest.mark.parametrize("module", [parquet_images, parquet_rows])
def test_a_row_group_of_another_length_than_stated_loses_no_row(
    tmp_path, monkeypatch, module, batches
):
    file = write_plain(tmp_path / "a.parquet", {"image": [PNG] * 3, "label": ["x", "y", "x"]})
    read = module.read_batches

    def repeat(*given):
        for batch in read(*given):
            yield from [batch] * batches

    monkeypatch.setattr(module, "read_batches", repeat)
    if batches == 0 and module is parquet_images:
        with pytest.raises(UsageError, match="null or damaged"):
            scan_images(file, ConvertOptions(image_column="image"))
        return
    if batches == 0:
        with pytest.raises(UsageError, match="fewer rows"):
            scan_images(file)
        return
    inventory = scan_images(file)
    assert (len(inventory.entries), inventory.rejected) == (3, ())


def test_ten_million_nulls_take_a_moment(tmp_path):
    file = write_nulls(tmp_path / "a.parquet", [None] * 10_000_000)
    with pytest.raises(UsageError, match="all 10,000,000"):
        scan_images(file, ConvertOptions(source="parquet", image_column="image"))


def test_an_image_that_is_only_named_is_looked_up_beside_its_file(tmp_path):
    for seed in range(3):
        write_image(tmp_path / "set" / "train" / "images" / f"{seed}.png", seed)
    names = [f"images/{seed}.png" for seed in range(3)] + ["images/no.png", "../../x.png", "/x.png"]
    made = datasets.Dataset.from_dict(
        {"image": [{"bytes": None, "path": name} for name in names], "label": range(6)},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
    )
    pa_table = made.with_format("arrow")[:]
    pytest.importorskip("pyarrow.parquet").write_table(
        pa_table.replace_schema_metadata(made.data.schema.metadata or {}),
        tmp_path / "set" / "train" / "0000.parquet",
    )
    inventory = scan_images(tmp_path / "set")
    assert [entry[:4] for entry in inventory.entries] == [
        (
            f"train/images/{seed}.png", seed,
            (tmp_path / f"set/train/images/{seed}.png").stat().st_size, "train",
        )
        for seed in range(3)
    ]  # fmt: skip
    assert [file.code for file in inventory.rejected] == ["missing", "outside", "outside"]
    convert_folder(tmp_path / "set", tmp_path / "out", ConvertOptions(num_shards=1))
    assert read_manifest(tmp_path / "out").totals.written == 3
    assert verify(tmp_path / "out", sources=tmp_path / "set") == []


def test_duplicates_are_found_across_files(tmp_path):
    for number in range(2):
        rows = [{"bytes": encode_image(make_image(n)), "path": None} for n in (number, 7)]
        write_plain(tmp_path / f"{number}.parquet", {"image": rows})
    (note,) = scan_images(tmp_path).notes
    assert (note.code, note.names) == ("duplicate", ("0/1", "1/1"))
    assert len(scan_images(tmp_path, ConvertOptions(dedupe="drop")).entries) == 3
    assert scan_images(tmp_path, ConvertOptions(dedupe="off")).notes == ()


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_every_compression_is_read(tmp_path, compression, dictionary):
    images = [encode_image(make_image(n)) for n in range(40)]
    rows = [{"bytes": image, "path": None} for image in images]
    write_plain(
        tmp_path / "a.parquet", {"image": rows, "label": ["x"] * 40}, compression=compression,
        use_dictionary=dictionary, row_group_size=15, data_page_size=4_000,
        write_batch_size=4, data_page_version="2.0",
    )  # fmt: skip
    options = ConvertOptions(encoding="keep", resize="none")
    convert_folder(tmp_path / "a.parquet", tmp_path / "out", options)
    found = read_back(tmp_path / "out")
    assert [found[f"a/{row}"].encoded for row in range(40)] == images


def test_a_row_group_is_never_in_memory_whole(tmp_path):
    pa = pytest.importorskip("pyarrow")
    image = os.urandom(100_000)
    rows = [image + bytes([n]) for n in range(250)] * 4
    write_plain(tmp_path / "a.parquet", {"image": rows}, use_dictionary=False, write_batch_size=8)
    options = ConvertOptions(source="parquet", image_column="image")
    before = pa.default_memory_pool().max_memory()
    assert len(scan_images(tmp_path / "a.parquet", options).entries) == 1000
    # Writing held all of it; the pool counts the most at any time, so a new one would be needed.
    assert before >= 100_000_000
    assert pa.total_allocated_bytes() < 1_000_000


def test_dataset_dict_of_splits_is_read(tmp_path):
    """As `push_to_hub` lays it out, with the files of a real card beside the data."""
    whole = make_dataset(make_rows(12)).train_test_split(test_size=0.25, seed=0)
    for split, part in whole.items():
        path = tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        part.to_parquet(str(path))
    (tmp_path / "set" / "README.md").write_text("---\nconfigs: []\n---\n")
    (tmp_path / "set" / ".gitattributes").write_text("*.parquet filter=lfs\n")
    inventory = scan_images(tmp_path / "set")
    assert [(file.path, file.code) for file in inventory.skipped] == [
        (".gitattributes", "skipped_hidden"), ("README.md", "skipped_extension"),
    ]  # fmt: skip
    convert_folder(tmp_path / "set", tmp_path / "out", OPTIONS)
    splits = read_manifest(tmp_path / "out").splits
    assert (splits["test"].records, splits["train"].records + splits["validation"].records) == (
        3, 9,
    )  # fmt: skip
