"""Tables: rows become entries or rejects, and records that every reader can read."""

import csv
import json
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import convert_folder, write_image

from converter.errors import ImageError, UsageError
from converter.format import schema
from converter.format.manifest import read_manifest
from converter.format.schema import Column
from converter.inventory import Note
from converter.options import ConvertOptions
from converter.sources.row_sources import normalize_path
from converter.sources.rows import find_kind, join_kinds
from converter.sources.scan import scan_images
from converter.upkeep.verification import verify_dataset
from pipelines.jobs.upkeep import repair, verify
from reader import load_dataset, open_shards
from reader.batches.batch import mark_classes, stack_column

ROWS = [
    {"path": f"{'ab'[n % 2]}/{n}.png", "label": "cd"[n % 2], "tags": ["x", "y", "z"][: n % 4],
     "price": n / 4, "caption": f"Bild {n} ü", "boxes": [[2, 3, 10 + n, 12]] * (n % 3),
     "things": ["x"] * (n % 3), "split": ("train", "valid")[n % 5 == 0], "patient": n // 4,
     "age": n, "height": n + 0.5, "name": f"n{n}", "scores": [n, 0.5], "codes": list(range(n % 3))}
    for n in range(24)
]  # fmt: skip
KEEP = ("age", "height", "name", "scores", "codes")
MULTI = {
    "labels_column": "tags",
    "target_column": "price",
    "caption_column": "caption",
    "boxes_column": "boxes",
    "box_labels_column": "things",
    "keep_columns": KEEP,
}


def write_table(path: Path, rows: list[dict]) -> Path:
    """A table in the format of its name; in CSV and TSV, lists are JSON."""
    if path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            for row in rows:
                cells = {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()}
                writer.writerow(cells)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    for seed, row in enumerate(ROWS):
        write_image(folder / row["path"], seed)
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        write_table(folder / f"t.{suffix}", ROWS)
    return folder


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_every_format_holds_the_same(root, suffix):
    scalars = {**MULTI, "keep_columns": ("age", "height", "name")}
    options = ConvertOptions(split_column="split", group_column="patient", **scalars)
    assert scan_images(root / f"t.{suffix}", options) == scan_images(root / "t.jsonl", options)


def test_rows_become_entries_in_the_order_of_their_paths(root):
    inventory = scan_images(
        root / "t.jsonl", ConvertOptions(split_column="split", group_column="patient")
    )
    assert (inventory.classes, inventory.labelled, inventory.columns) == (("c", "d"), True, ())
    assert [entry.path for entry in inventory.entries] == sorted(row["path"] for row in ROWS)
    by_path = {entry.path: entry for entry in inventory.entries}
    assert by_path["b/5.png"][:5] == (
        "b/5.png",
        1,
        by_path["b/5.png"].size_bytes,
        "validation",
        "1",
    )
    assert by_path["b/5.png"].size_bytes == (root / "b" / "5.png").stat().st_size


def test_columns_have_the_kind_of_what_they_hold(root):
    inventory = scan_images(root / "t.jsonl", ConvertOptions(**MULTI))
    assert [(column.name, column.kind) for column in inventory.columns] == [
        (schema.LABELS, "labels"), (schema.TARGET, "float"), (schema.CAPTION, "text"),
        (schema.BOXES, "boxes"), (schema.BOX_LABELS, "labels"), ("age", "int"),
        ("height", "float"), ("name", "text"), ("scores", "floats"), ("codes", "ints"),
    ]  # fmt: skip
    assert (inventory.classes, inventory.labelled) == (("x", "y", "z"), False)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2"], "int"), (["1", "2.5"], "float"), (["1", ""], "float"), (["1", "x"], "text"),
        (["1e3", "nan"], "float"), ([True, 2], "int"), ([2**63, 1], "text"),
        ([None, None], "blank"),
        ([[1], [2.5]], "floats"), ([[], [1]], "ints"), ([["a"], [1]], "texts"), (["1_0"], "text"),
        (["0012", "7"], "text"), (["12345678901234567890"], "text"), (["0", "-0.5"], "float"),
    ],
)  # fmt: skip
def test_the_kind_of_cells(cells, kind):
    found = ""
    for cell in cells:
        found = join_kinds(found, find_kind(cell))
    assert found == kind


def test_whole_numbers_as_labels_are_in_their_order(root, tmp_path):
    rows = [{"path": row["path"], "label": 11 - n % 12} for n, row in enumerate(ROWS)]
    table = write_table(tmp_path / "t.csv", rows)
    options = ConvertOptions(table_root=os.path.relpath(root, tmp_path))
    assert scan_images(table, options).classes == tuple(map(str, range(12)))
    pinned = ConvertOptions(table_root=options.table_root, class_names=("3", "2"))
    inventory = scan_images(table, pinned)
    assert {entry.label for entry in inventory.entries} == {0, 1}
    assert len(inventory.skipped) == 20


def test_a_label_offset_leaves_the_first_label_to_a_background(root, tmp_path):
    rows = [{"path": row["path"], "label": "ab"[n % 2]} for n, row in enumerate(ROWS)]
    table = write_table(tmp_path / "t.csv", rows)
    options = ConvertOptions(table_root=os.path.relpath(root, tmp_path), label_offset=1)
    inventory = scan_images(table, options)
    assert inventory.classes == ("background", "a", "b")
    assert {entry.label for entry in inventory.entries} == {1, 2}
    rows[0]["label"] = "background"
    with pytest.raises(UsageError, match="one of that name"):
        scan_images(write_table(tmp_path / "t.csv", rows), options)


def test_numbers_that_are_written_differently_are_classes_in_one_order(root, tmp_path):
    names = ["7", "007", "9" * 5000, "07", "x", "10"]
    rows = [{"path": row["path"], "label": names[n % 6]} for n, row in enumerate(ROWS)]
    table = write_table(tmp_path / "t.csv", rows)
    options = ConvertOptions(table_root=os.path.relpath(root, tmp_path))
    classes = ("007", "07", "7", "10", "9" * 5000, "x")
    assert scan_images(table, options).classes == classes
    backward = write_table(tmp_path / "t.csv", rows[::-1])
    assert scan_images(backward, options).classes == classes


def test_what_is_not_called_like_a_table_is_one_line(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(UsageError, match=r"has to end in \.csv"):
        scan_images(tmp_path / "a.tar", ConvertOptions(source="table"))


def test_rows_without_an_image_are_rejects(tmp_path):
    root = tmp_path / "root"
    for name in ("a/1.png", "a/2.png"):
        write_image(root / name, 1 if name == "a/1.png" else 2)
    write_image(tmp_path / "secret.png", 3)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "inside.png").symlink_to(root / "a" / "2.png")
    (root / "up").symlink_to(tmp_path)
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe.png")
    bad = {
        "../secret.png": "outside",
        "/etc/passwd": "outside",
        "a/../../secret.png": "outside",
        "https://a/b.png": "outside",
        "link.png": "outside",
        "up/secret.png": "outside",
        "loop/1.png": "outside",
        "\ud800.png": "bad_row",
        "a\0.png": "outside",
        "pipe.png": "unreadable",
        "a": "unreadable",
        "gone.png": "missing",
        "a/1.png/x": "unreadable",
        "./a//1.png": "repeated",
        "": "bad_row",
    }
    rows = [{"path": path} for path in ("a/1.png", *bad, "inside.png")]
    inventory = scan_images(write_table(root / "t.jsonl", rows), ConvertOptions(dedupe="off"))
    assert [entry.path for entry in inventory.entries] == ["a/1.png", "inside.png"]
    assert {reject.path: reject.code for reject in inventory.rejected} == {
        **{path: code for path, code in bad.items() if path not in ("", "./a//1.png")},
        "a/1.png": "repeated",
        "row 16": "bad_row",
    }
    assert inventory.rejected[0] == (
        "../secret.png",
        "outside",
        "row 2: its path leads out of the folder",
    )
    assert inventory.scanned == len(rows)
    assert inventory.entries[0].label == -1


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({"label": ""}, "'' is not a name"),
        ({"price": "dear"}, "'dear' is not a number"),
        ({"price": math.nan}, "nan is not a number"),
        ({"boxes": [[1, 2, 3]]}, "box [1, 2, 3] is not a list of four numbers"),
        ({"boxes": [[1, 2, 1, 4]]}, "box [1, 2, 1, 4] has no area, read as xyxy"),
        ({"boxes": "[1"}, "'[1' is not a list in JSON"),
        ({"things": ["x", "y"]}, "1 boxes with 2 labels"),
        ({"split": "holdout"}, "'holdout' is not a split"),
        ({"price": 1e39}, "1e+39 is not a number"),
        ({"caption": ["one", "two"]}, "['one', 'two'] is not a text"),
        ({"caption": "half \ud83d"}, "'half \\ud83d' has half of a character in it"),
        ({"label": "\ud83d"}, "'\\ud83d' has half of a character in it"),
    ],
)
def test_values_that_make_no_sense_cost_their_row_alone(root, tmp_path, row, detail):
    rows = [{**ROWS[0], "tags": None}, {**ROWS[1], "tags": None, "path": "a/0.png"} | row]
    rows[0]["path"] = "a/2.png"
    table = write_table(tmp_path / "t.jsonl", rows)
    inventory = scan_images(
        table,
        ConvertOptions(
            table_root=os.path.relpath(root, tmp_path), label_column="label", target_column="price",
            boxes_column="boxes", box_labels_column="things", split_column="split",
            caption_column="caption",
        ),
    )  # fmt: skip
    assert len(inventory.entries) == 1
    [reject] = inventory.rejected
    assert reject[:2] == ("a/0.png", "bad_row")
    assert reject.detail.startswith(f"row 2: {detail}")


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("t.csv", b"", {}, "t.csv is empty: its first line has to name the columns"),
        ("t.csv", b"path,label\n", {}, "t.csv has no rows: give it one for each image"),
        ("t.jsonl", b"\n", {}, "t.jsonl has no rows: give it one for each image"),
        ("t.csv", b"path,path\n", {}, "column 'path' stands twice in the first line"),
        ("t.csv", b"path,x\na.png\n", {}, "the row that ends in line 2 has more or fewer"),
        ("t.csv", b'path\n"a', {}, "t.csv cannot be read as a table: unexpected end of data"),
        ("t.csv", b"name\na.png\n", {}, "t.csv has no column 'path': there are name"),
        ("t.csv", b"path\na.png\n", {}, "no image in any row; of 'a.png': row 1"),
        ("t.csv", b"path,a b\nx,1\n", {"keep_columns": ("a b",)}, "column 'a b' cannot be"),
        ("t.jsonl", b"[1]\n", {}, "t.jsonl: line 1 is not a JSON object"),
        ("t.jsonl", b"{\n", {}, "t.jsonl: line 1 is not JSON: "),
        ("t.jsonl", b"[" * 100_000, {}, "t.jsonl: line 1 is not JSON: "),
        ("t.jsonl", b'{"path": "a", "b": {}}', {"keep_columns": ("b",)}, "dict {} is neither"),
        ("t.parquet", b"PAR1", {}, "t.parquet cannot be read as Parquet: "),
        ("t.csv", b"path, label\nx,y\n", {}, "column ' label' is not taken for labels, as the"),
        ("t.jsonl", b'{"path": "x"}\n{"path": "y", "label": "z"}', {}, "column 'label' is not"),
    ],
)  # fmt: skip
def test_tables_that_are_none_are_refused(tmp_path, name, content, options, message):
    if name == "t.parquet":
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(message)):
        scan_images(tmp_path / name, ConvertOptions(**options))


def test_binary_columns_of_parquet_are_text_and_none_stands_twice(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write_image(tmp_path / "a.png", 1)
    columns = [pa.array([b"a.png"]), pa.array([b"cat"]), pa.array([b"\xff"])]
    table = tmp_path / "t.parquet"
    parquet.write_table(pa.Table.from_arrays(columns, names=["path", "label", "text"]), table)
    inventory = scan_images(table, ConvertOptions(caption_column="text"))
    assert (inventory.classes, inventory.entries[0].values) == (("cat",), '["\\udcff"]')
    parquet.write_table(pa.Table.from_arrays(columns, names=["path", "label", "label"]), table)
    with pytest.raises(UsageError, match="column 'label' stands twice"):
        scan_images(table, ConvertOptions())


def test_names_that_are_not_utf8_can_be_rows(tmp_path):
    name = os.fsdecode(b"caf\xe9 \n.png")
    write_image(tmp_path / name, 1)
    inventory = scan_images(write_table(tmp_path / "t.csv", [{"path": name}]), ConvertOptions())
    assert [os.fsencode(entry.path) for entry in inventory.entries] == [b"caf\xe9 \n.png"]
    assert inventory.notes == ()


@pytest.fixture(scope="module")
def detected(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All columns there are, as PNG of 16x20 in two splits."""
    out = tmp_path_factory.mktemp("detected") / "set"
    options = ConvertOptions(
        image_size=(16, 20), encoding="png", num_shards=2, split_column="split", **MULTI
    )
    convert_folder(root / "t.jsonl", out, options)
    return out


def test_a_record_holds_what_its_row_says(detected):
    manifest = read_manifest(detected)
    assert (manifest.labelled, manifest.classes) == (False, ("x", "y", "z"))
    assert Column("scores", "floats") in manifest.columns
    assert manifest.splits["train"].labels == ()
    assert [split.records for split in manifest.splits.values()] == [19, 5]
    record = open_shards(detected).source("train").by_id("b/11.png")
    assert (record.label, record.text) == (-1, "")
    assert record.values == {
        schema.LABELS: [0, 1, 2],
        schema.TARGET: 2.75,
        schema.CAPTION: "Bild 11 ü",
        # Of an image of 24x32: (2, 3, 21, 12) is left, top, right, bottom.
        schema.BOXES: [pytest.approx((3 / 24, 2 / 32, 12 / 24, 21 / 32))] * 2,
        schema.BOX_LABELS: [0, 0],
        "age": 11,
        "height": 11.5,
        "name": "n11",
        "scores": [11.0, 0.5],
        "codes": [0, 1],
    }


def test_it_verifies_with_its_sources_and_is_repaired(root, detected, tmp_path):
    copy = shutil.copytree(detected, tmp_path / "copy")
    assert verify(copy, sources=root / "t.jsonl") == []
    shard = read_manifest(copy).shards[0]
    (copy / shard.name).write_bytes(b"damaged")
    (copy / "features.json").unlink()
    result = repair(copy, root / "t.jsonl", ["--direct_running_mode=in_memory"])
    assert set(result.repaired) == {shard.name, "features.json"}
    assert verify_dataset(copy) == []


def test_batches_hold_several_labels_and_columns(detected):
    columns = ("target", "caption", "boxes", "box_labels", "age", "name", "codes")
    dataset = load_dataset(detected, "train", batch_size=8, shuffle=False, columns=columns)
    source = open_shards(detected).source("train")
    begin = 0
    for images, labels, values in dataset:
        records = source[begin : begin + len(images)]
        begin += len(images)
        assert labels.shape[1:] == (3,)
        for row, record in enumerate(records):
            assert np.flatnonzero(labels[row]).tolist() == record.values[schema.LABELS]
            boxes = np.reshape(record.values[schema.BOXES], (-1, 4))
            np.testing.assert_allclose(values["boxes"][row].numpy(), boxes)
            assert values["box_labels"][row].numpy().tolist() == record.values[schema.BOX_LABELS]
            assert values["codes"][row].numpy().tolist() == record.values["codes"]
            assert values["caption"][row].numpy().decode() == record.values[schema.CAPTION]
            assert values["target"][row] == record.values[schema.TARGET]
            assert values["age"][row] == record.values["age"]
    assert begin == len(source)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": None}, {"remainder": "pad", "with_filename": True}, {"cache": True}],
    ids=["single", "padded", "cached"],
)
def test_every_way_of_reading_gives_columns(detected, options):
    options = {"batch_size": 16, "shuffle": False, "columns": ("boxes", "caption"), **options}
    elements = list(load_dataset(detected, "train", **options))
    values = [element[-1] for element in elements]
    captions = np.concatenate([np.atleast_1d(value["caption"]) for value in values]).tolist()
    source = open_shards(detected).source("train")
    expected = [record.values[schema.CAPTION].encode() for record in source]
    assert captions[: len(expected)] == expected
    assert set(captions[len(expected) :]) <= {b""}
    if "with_filename" in options:
        names = np.concatenate([element[-2] for element in elements])[: len(expected)]
        assert [name.decode() for name in names] == [record.source_id for record in source]


def test_a_sequence_gives_columns(detected):
    sequence = open_shards(detected).sequence(
        "validation", batch_size=5, shuffle=False, columns=["boxes", "age"]
    )
    images, labels, values = sequence[0]
    assert (images.shape, labels.shape) == ((5, 16, 20, 3), (5, 3))
    ages = [record.values["age"] for record in open_shards(detected).source("validation")]
    assert (len(values["boxes"]), values["age"].tolist()) == (5, ages)


def test_a_target_is_a_label_of_its_own(root, tmp_path):
    options = ConvertOptions(image_size=(8, 8), encoding="raw", target_column="price")
    table = write_table(
        tmp_path / "t.jsonl", [{k: row[k] for k in ("path", "price")} for row in ROWS]
    )
    options = ConvertOptions(
        image_size=(8, 8), encoding="raw", target_column="price",
        table_root=os.path.relpath(root, tmp_path),
    )  # fmt: skip
    convert_folder(table, tmp_path / "out", options)
    source = open_shards(tmp_path / "out").source("train")
    _, labels = next(iter(load_dataset(tmp_path / "out", batch_size=24, shuffle=False)))
    assert labels.dtype == "float32"
    assert labels.numpy().tolist() == [record.values[schema.TARGET] for record in source]
    assert read_manifest(tmp_path / "out").classes == ()
    with pytest.raises(UsageError, match="label_mode 'categorical' needs one class"):
        load_dataset(tmp_path / "out", label_mode="categorical")
    with pytest.raises(UsageError, match="column 'caption' is none"):
        load_dataset(tmp_path / "out", columns=["caption"])
    with pytest.raises(UsageError, match="no labels that weights"):
        open_shards(tmp_path / "out").class_weight()


def test_images_without_labels_are_given_alone(root, tmp_path):
    options = ConvertOptions(image_size=(8, 8), encoding="raw", label_from="none")
    folder = tmp_path / "flat"
    for seed in range(9):
        write_image(folder / f"{seed}.png", seed)
    convert_folder(folder, tmp_path / "out", options)
    assert verify_dataset(tmp_path / "out") == []
    [batch] = load_dataset(tmp_path / "out", batch_size=9)
    assert batch.shape == (9, 8, 8, 3)
    _, labels = next(
        iter(load_dataset(tmp_path / "out", batch_size=9, labels=list(range(9)), order="path"))
    )
    assert sorted(labels.numpy().tolist()) == list(range(9))
    assert not (tmp_path / "out" / "labels.txt").exists()
    assert len(open_shards(tmp_path / "out").source("train").file_paths[:]) == 9


def test_equal_images_with_other_labels_are_noted(tmp_path):
    for name in ("1.png", "2.png"):
        write_image(tmp_path / name, 1)
    rows = [{"path": "1.png", "label": "a"}, {"path": "2.png", "label": "b"}]
    inventory = scan_images(write_table(tmp_path / "t.csv", rows), ConvertOptions())
    assert inventory.notes == (Note("duplicate_class", ("1.png", "2.png"), 2),)


@pytest.mark.filterwarnings("ignore:label.. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_tensorflow_datasets_reads_all_columns(detected):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(detected)
    features = builder.info.features
    assert features[schema.LABELS].feature.names == ["x", "y", "z"]
    assert isinstance(features[schema.BOXES].feature, tfds.features.BBoxFeature)
    source = open_shards(detected).source("train")
    examples = list(builder.as_dataset(split="train", shuffle_files=False))
    by_path = {example["image/source_id"].numpy().decode(): example for example in examples}
    for record in source:
        example = by_path[record.source_id]
        assert example[schema.LABELS].numpy().tolist() == record.values[schema.LABELS]
        boxes = np.reshape(record.values[schema.BOXES], (-1, 4))
        np.testing.assert_allclose(example[schema.BOXES].numpy().reshape(-1, 4), boxes)
        assert example[schema.CAPTION].numpy().decode() == record.values[schema.CAPTION]
        assert example["codes"].numpy().tolist() == record.values["codes"]
        assert example["age"] == record.values["age"]
    image, labels = next(iter(builder.as_dataset(split="validation", as_supervised=True)))
    assert (image.shape, labels.dtype) == ((16, 20, 3), "int64")


@pytest.mark.parametrize(
    "path", ["/a", "..", "a/../b", "../a", "a/..", "file://a", "gs://a/b", "a\0b", ".", "//", "./"]
)
def test_a_path_that_leads_out_is_told_by_its_text(path):
    with pytest.raises(ImageError) as caught:
        normalize_path(path)
    assert caught.value.code == "outside"


def test_a_path_loses_what_means_nothing():
    assert normalize_path("./a//b/./..c.png") == "a/b/..c.png"


def test_a_batch_without_any_label_is_all_zeros():
    numbers = stack_column(Column(schema.LABELS, "labels"), [[], []])
    assert mark_classes(numbers, 3).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_table_of_parquet_without_paths_says_what_it_has(tmp_path):
    table = write_table(tmp_path / "t.parquet", [{"secret": "x" * 500, "number": 1}])
    with pytest.raises(UsageError) as caught:
        scan_images(table)
    found = "'secret' (string), 'number' (int64), none of which holds images"
    assert f"has no column 'path': there are {found}" in str(caught.value)
