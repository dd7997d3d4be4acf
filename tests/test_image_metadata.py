"""Folders of images with metadata: as `datasets` reads them, and every job on them."""

import csv
import io
import json
import shutil
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
from parquet_making import write_plain
from PIL import Image
from servers import Server, upload_tree

from converter.errors import UsageError
from converter.format.manifest import read_manifest
from converter.format.schema import BOX_LABELS, BOXES, CAPTION
from converter.options import ConvertOptions
from converter.sources.scan import scan_images
from pipelines.jobs.preview import plan
from pipelines.jobs.upkeep import repair, verify
from reader import open_shards

datasets = pytest.importorskip("datasets")

OPTIONS = ConvertOptions(resize="none", encoding="png", num_shards=2)
IN_MEMORY = ["--direct_running_mode=in_memory"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`datasets` asks no server, and keeps nothing."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def make_rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "file_name": f"images/{n}.png",
            "label": ("zebra", "ant")[n % 2],
            "text": f"Bild, {n} ü",
            "age": n,
            "objects": {
                "bbox": [[2.0, 3.0, 8.0 + box, 9.0] for box in range(1 + n % 2)],
                "category": ["car", "tree"][: 1 + n % 2],
            },
        }
        for n in range(first, first + count)
    ]


def write_metadata(folder: Path, rows: list[dict[str, Any]], kind: str = "jsonl") -> Path:
    """Images with their metadata; a CSV has no boxes."""
    for row in rows:
        seed = int(Path(row["file_name"]).stem)
        write_image(folder / row["file_name"], seed)
    file = folder / f"metadata.{kind}"
    flat = [{name: row[name] for name in row if name != "objects"} for row in rows]
    if kind == "jsonl":
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    elif kind == "csv":
        with open(file, "w", newline="", encoding="utf-8") as text:
            writer = csv.DictWriter(text, list(flat[0]))
            writer.writeheader()
            writer.writerows(flat)
    else:
        write_plain(file, {name: [row[name] for row in flat] for name in flat[0]})
    return folder


def read_back(out: Path) -> dict[str, Any]:
    splits = read_manifest(out).splits
    return {r.source_id: r for split in splits for r in open_shards(out).source(split)}


# `datasets` leaves a CSV open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_element_is_what_datasets_reads(tmp_path, kind):
    rows = make_rows(9)
    folder = write_metadata(tmp_path / "set", rows, kind)
    options = ConvertOptions(
        resize="none", encoding="png", caption_column="text", keep_columns=("age",)
    )
    convert_folder(folder, tmp_path / "out", options)
    found = read_back(tmp_path / "out")
    read = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
    assert len(found) == len(read) == 9
    for row, theirs in zip(rows, read, strict=True):
        record = found[row["file_name"]]
        pixels = np.asarray(Image.open(io.BytesIO(record.encoded)))
        np.testing.assert_array_equal(pixels, np.asarray(theirs["image"].convert("RGB")))
        assert record.text == theirs["label"]
        assert record.values[CAPTION] == theirs["text"]
        assert record.values["age"] == theirs["age"]


def test_boxes_come_out_of_nested_columns(tmp_path):
    rows = make_rows(6)
    folder = write_metadata(tmp_path / "set", rows)
    options = ConvertOptions(
        resize="none", encoding="png", boxes_column="objects.bbox", box_format="xywh",
        box_labels_column="objects.category",
    )  # fmt: skip
    convert_folder(folder, tmp_path / "out", options)
    classes = read_manifest(tmp_path / "out").classes
    found = read_back(tmp_path / "out")
    for row in rows:
        record, objects = found[row["file_name"]], row["objects"]
        boxes = np.reshape(record.values[BOXES], (-1, 4)) * [24, 32, 24, 32]
        expected = [[y, x, y + h, x + w] for x, y, w, h in objects["bbox"]]
        np.testing.assert_allclose(boxes, expected, atol=1e-3)
        assert [classes[label] for label in record.values[BOX_LABELS]] == objects["category"]


@pytest.mark.parametrize("prefix", ["", "data/"])
def test_each_split_may_have_its_own(tmp_path, prefix):
    for number, split in enumerate(("train", "test", "validation")):
        write_metadata(tmp_path / "set" / f"{prefix}{split}", make_rows(3 + number, 10 * number))
    convert_folder(tmp_path / "set", tmp_path / "out", OPTIONS)
    read = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "set"))
    splits = read_manifest(tmp_path / "out").splits
    assert {n: split.records for n, split in splits.items()} == {n: len(s) for n, s in read.items()}
    assert f"{prefix}test/images/11.png" in read_back(tmp_path / "out")


def test_one_for_all_splits_names_their_folders(tmp_path):
    rows = [
        {**row, "file_name": f"{('train', 'test')[n % 3 == 0]}/{n}.png"}
        for n, row in enumerate(make_rows(7))
    ]
    write_metadata(tmp_path / "set", rows)
    assert {(entry.path, entry.split) for entry in scan_images(tmp_path / "set").entries} == {
        (row["file_name"], row["file_name"].partition("/")[0]) for row in rows
    }


def test_what_is_not_in_both_is_named(tmp_path):
    rows = make_rows(4)
    folder = write_metadata(tmp_path, rows[:3])
    write_image(folder / "images" / "alone.png", 50)
    (folder / "images" / "notes.txt").touch()
    (folder / "images" / "1.png").unlink()
    with open(folder / "metadata.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({**rows[0], "file_name": "../out.png"}) + "\n")
        file.write(json.dumps({"label": "ant"}) + "\n")
        file.write(json.dumps(rows[2]) + "\n")
    inventory = scan_images(folder)
    assert [(file.path, file.code) for file in inventory.skipped] == [
        ("images/alone.png", "skipped_unlisted"), ("images/notes.txt", "skipped_extension")
    ]  # fmt: skip
    assert sorted((file.path, file.code) for file in inventory.rejected) == [
        ("../out.png", "outside"), ("images/1.png", "missing"), ("images/2.png", "repeated"),
        ("metadata.jsonl row 5", "bad_row"),
    ]  # fmt: skip
    assert (len(inventory.entries), inventory.scanned) == (2, 8)


def test_other_columns_of_paths_are_used(tmp_path):
    rows = [
        {"image_file_name": f"a/{n}.png", "mask_file_name": f"b/{n}.png", "label": "x"}
        for n in range(3)
    ]
    for n in range(3):
        write_image(tmp_path / "train" / f"a/{n}.png", n)
        (tmp_path / "train" / "b").mkdir(exist_ok=True)
        mask = encode_image(make_image(n, mode="L"), "PNG")
        (tmp_path / "train" / f"b/{n}.png").write_bytes(mask)
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "train" / "metadata.jsonl").write_text(text)
    assert scan_images(tmp_path).classes == ("a", "b")  # as class folders, unless it is said
    with pytest.raises(UsageError, match="with --path-column"):
        scan_images(tmp_path, ConvertOptions(source="metadata"))
    options = ConvertOptions(source="metadata", mask_column="mask_file_name")
    inventory = scan_images(tmp_path, options)
    assert [(entry.path, entry.mask.path) for entry in inventory.entries if entry.mask] == [
        (f"train/a/{n}.png", f"train/b/{n}.png") for n in range(3)
    ]
    assert inventory.skipped == ()
    convert_folder(tmp_path, tmp_path / "out", options)
    assert all(record.mask for record in read_back(tmp_path / "out").values())


def test_plan_says_which_columns_are_used_and_proposes_others(tmp_path):
    folder = write_metadata(tmp_path / "set", make_rows(3))
    preview = plan(folder, tmp_path / "out", OPTIONS)
    assert preview.options.source == "metadata"
    assert preview.recognized == (
        "metadata.jsonl: uses file_name, label; leaves out text (--caption-column text?), age, "
        "objects (--boxes-column objects.bbox?)"
    )
    used = ConvertOptions(caption_column="text", boxes_column="objects.bbox")
    assert plan(folder, tmp_path / "out", used).recognized.endswith("; leaves out age")


def test_folders_of_classes_stay_what_they_are(image_folder, tmp_path):
    folder = shutil.copytree(image_folder, tmp_path / "images")
    before = scan_images(folder)
    (folder / "metadata.csv").write_text("file_name,label\nant/x.png,ant\n")
    after = scan_images(folder)
    assert (after.entries, after.classes) == (before.entries, before.classes)
    assert [file.path for file in after.skipped] == ["metadata.csv"]
    with pytest.raises(UsageError, match="no image in any"):
        scan_images(folder, ConvertOptions(source="metadata"))
    for split in ("train", "test"):
        shutil.copytree(image_folder, tmp_path / "split" / split)
        (tmp_path / "split" / split / "metadata.csv").write_text("file_name,label\nant/x.png,a\n")
    assert scan_images(tmp_path / "split").classes == before.classes


def test_metadata_of_something_else_is_none(tmp_path):
    write_image(tmp_path / "cats" / "1.png", 1)
    for text in ("key,value\na,b\n", "", "a,b\n1\n"):
        (tmp_path / "metadata.csv").write_text(text)
        assert scan_images(tmp_path).classes == ("cats",)


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ({}, {"source": "metadata"}, "has no metadata.csv"),
        ({"metadata.csv": "x\n1\n"}, {"source": "metadata"}, "and has none"),
        ({"metadata.csv": "file_name\n1.png\n", "metadata.jsonl": "{}\n"}, {}, "leave one of"),
        ({"metadata.csv": "file_name\n1.png\n"}, {"table_root": "x"}, "relative to"),
        ({"metadata.csv": "file_name,Label\n1.png,x\n"}, {}, "not taken for labels"),
        ({"metadata.csv": "file_name\n1.png\n"}, {"caption_column": "text"}, "no column 'text'"),
        ({"metadata.csv": "file_name\n1.png\n"}, {}, "no image in any"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, files, options, words):
    (tmp_path / "x").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        scan_images(tmp_path, ConvertOptions(**options))
    assert "\n" not in str(caught.value)


def test_every_job_works_on_it(tmp_path):
    folder, out = write_metadata(tmp_path / "set" / "train", make_rows(8)).parent, tmp_path / "out"
    convert_folder(folder, out, OPTIONS)
    before = read_tree(out)
    assert verify(out, sources=folder) == []
    (out / "train-00001-of-00002.tfrecord").unlink()
    repair(out, folder, IN_MEMORY)
    assert read_tree(out) == before
    assert run_conversion(folder, out, None, IN_MEMORY, mode="update").written == 0
    write_metadata(folder / "train", make_rows(10))
    write_image(folder / "train" / "images" / "3.png", 77)
    assert [fault.file for fault in verify(out, sources=folder)] == ["train/images/3.png"]
    run_conversion(folder, out, None, IN_MEMORY, mode="update")
    assert len(read_back(out)) == 10
    assert verify(out, sources=folder) == []


def test_a_store_gives_the_data_set_that_a_disk_gives(server: Server, tmp_path):
    for split in ("train", "test"):
        write_metadata(tmp_path / "set" / split, make_rows(4, 10 * (split == "test")))
    write_image(tmp_path / "set" / "train" / "alone.png", 50)
    far = upload_tree(tmp_path / "set", server.path("metadata"))
    assert scan_images(far) == scan_images(tmp_path / "set")
    convert_folder(far, tmp_path / "far", OPTIONS)
    convert_folder(tmp_path / "set", tmp_path / "near", OPTIONS)
    assert read_tree(tmp_path / "far") == read_tree(tmp_path / "near")
