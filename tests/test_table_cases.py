"""Tables as people have them: those of well-known competitions, and what Excel writes."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
from conftest import convert_folder, encode_image, make_image, write_image
from servers import Server, upload_tree
from test_tables import write_table

import converter
from converter.errors import UsageError
from converter.format import schema
from converter.format.manifest import read_manifest
from converter.inventory import NO_LABEL, Entry
from converter.options import ConvertOptions
from converter.sources.row_sources import IMAGE, RowSource, scan_rows
from converter.sources.scan import scan_images
from converter.storage.disk import DiskPath
from pipelines.cli.arguments import parse_arguments
from pipelines.cli.commands import main
from pipelines.cli.given_options import read_options
from pipelines.jobs.upkeep import repair, verify
from reader import load_dataset, open_shards

IN_MEMORY = "--direct_running_mode=in_memory"
TAGS = ("haze primary", "agriculture clear primary water", "clear primary", "cloudy")
FACES = {"Smiling": (1, -1, -1), "Male": (1, 1, -1), "Young": (-1, -1, -1)}

# The table, the place of its images, and the rows: the cells of image n.
CASES = {
    "aptos": ("train.csv", "train_images/{:04d}c0ff.png", lambda n: {
        "id_code": f"{n:04d}c0ff", "diagnosis": (0, 1, 2, 4)[n % 4]}),
    "planet": ("train_v2.csv", "train-jpg/train_{}.jpg", lambda n: {
        "image_name": f"train_{n}", "tags": TAGS[n % 4]}),
    "isic": ("truth.csv", "ISIC_Input/ISIC_Input/ISIC_{:07d}.jpg", lambda n: {
        "image": f"ISIC_{n:07d}",
        **{name: f"{n % 3 == k:.1f}" for k, name in enumerate(("MEL", "NV", "BCC"))}}),
    "celeba": ("list_attr_celeba.csv", "img_align_celeba/{:06d}.jpg", lambda n: {
        "image_id": f"{n:06d}.jpg", **{name: flags[n % 3] for name, flags in FACES.items()}}),
    "plant": ("train.csv", "train_images/{:x}.jpg", lambda n: {
        "image": f"{n:x}.jpg", "labels": ("scab frog_eye", "scab", "healthy")[n % 3]}),
    "dogs": ("labels.csv", "train/{:03x}ab.jpg", lambda n: {
        "id": f"{n:03x}ab", "breed": ("boston_bull", "dingo")[n % 2]}),
    "cassava": ("train.csv", "train_images/{}.jpg", lambda n: {
        "image_id": f"{n}.jpg", "label": n % 3}),
}  # fmt: skip
IMAGES = 12


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cases")
    for name, (table, place, make_row) in CASES.items():
        for number in range(IMAGES):
            path = root / name / place.format(number)
            write_image(path, number, "PNG" if path.suffix == ".png" else "JPEG")
        write_table(root / name / table, [make_row(number) for number in range(IMAGES)])
    return root


def plan(table: Path, out: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What `shardmill plan` prints, or its error."""
    code = main(["plan", str(table), str(out / "out"), "--image-size=16", *options])
    printed = capsys.readouterr()
    assert code == (2 if printed.err else 0)
    assert printed.err.count("\n") in (0, 1)
    assert not out.exists() or not (out / "out").exists()
    return printed.err or printed.out


@pytest.mark.parametrize(
    ("name", "option", "notes", "lines"),
    [
        ("aptos", "'train_images/{id_code}.png'", ["unlabelled: diagnosis"],
         ["source: table, uses id_code; leaves out diagnosis"]),
        ("planet", "'train-jpg/{image_name}.jpg'", ["unlabelled: tags"], []),
        ("isic", "'ISIC_Input/ISIC_Input/{image}.jpg'", ["unlabelled: MEL, NV, …"],
         ["source: table, uses image; leaves out MEL, NV, BCC"]),
        ("celeba", "'img_align_celeba/{image_id}'", ["unlabelled: Smiling, Male"], []),
        ("plant", "'train_images/{image}'", ["unlabelled: labels"], []),
        ("dogs", "'train/{id}.jpg'", ["unlabelled: breed"], []),
        ("cassava", "'train_images/{image_id}'", [],
         ["source: table, uses image_id, label", "    0  0                                4"]),
    ],
)  # fmt: skip
def test_the_error_has_the_option_that_finds_the_images(
    world, tmp_path, capsys, name, option, notes, lines
):
    table = world / name / CASES[name][0]
    error = plan(table, tmp_path, capsys)
    assert error.startswith(f"shardmill: error: {table} has no column 'path': there are ")
    assert error.endswith(f": give --path-format {option}\n")
    printed = plan(table, tmp_path, capsys, "--path-format", option.strip("'"))
    assert f"{IMAGES} files: {IMAGES} images in " in printed
    assert list_notes(printed) == notes
    for line in lines:
        assert line in printed


def list_notes(printed: str) -> list[str]:
    """The code and the names of each note in what is printed."""
    lines = [line[8:] for line in printed.splitlines() if line.startswith("  note: ")]
    return [f"{line.split()[0]}: {line.rpartition(': ')[2]}" for line in lines]


@pytest.mark.parametrize(
    ("name", "options", "classes", "notes"),
    [
        ("aptos", ["--label-column=diagnosis"], 4, ["class_number: 4 is label 3"]),
        ("planet", ["--label-column=tags"], 4,
         ["several_labels: agriculture clear primary water, clear primary, …"]),
        ("planet", ["--labels-column=tags"], 4,
         ["several_labels: agriculture clear primary water, clear primary, …"]),
        ("planet", ["--labels-column=tags", "--labels-separator= "], 6, []),
        ("isic", ["--labels-columns", "MEL", "NV", "BCC"], 3, []),
        ("celeba", ["--labels-columns", "Young", "Smiling", "--labels-columns=Male"], 3, []),
        ("plant", ["--label-column=labels"], 3, ["several_labels: scab frog_eye"]),
        ("plant", ["--labels-column=labels", "--labels-separator= "], 3, []),
        ("dogs", ["--label-column=breed"], 2, []),
        ("cassava", [], 3, []),
    ],
)  # fmt: skip
def test_the_notes_have_the_options_that_read_the_labels(
    world, tmp_path, capsys, name, options, classes, notes
):
    table = world / name / CASES[name][0]
    *_, found = plan(table, tmp_path, capsys).split("--path-format ")
    printed = plan(table, tmp_path, capsys, "--path-format", found.strip("'\n"), *options)
    assert f"{IMAGES} images in {classes} classes" in printed
    assert list_notes(printed) == notes


def test_a_file_with_all_numbers_keeps_them(world, tmp_path, capsys):
    (tmp_path / "numbers.txt").write_text("0\n1\n2\n3\n4\n")
    printed = plan(
        world / "aptos" / "train.csv", tmp_path, capsys, "--label-column=diagnosis",
        "--path-format=train_images/{id_code}.png", f"--classes={tmp_path}/numbers.txt",
    )  # fmt: skip
    assert "    4  4                                3" in printed
    assert list_notes(printed) == ["empty_class: 3"]


def test_what_excel_writes_in_europe_is_read(tmp_path, capsys):
    for number in range(4):
        write_image(tmp_path / f"bild{number}.jpg", number, "JPEG")
    lines = ["Dateiname;filename;Klasse;Gewicht"]
    lines += [f"x;bild{n}.jpg;{('Hund', 'Käse')[n % 2]};{n},5" for n in range(4)]
    table = tmp_path / "Mappe1.csv"
    table.write_text("\r\n".join(lines), "utf-8-sig", newline="")
    proposal = "--path-column filename\n"
    assert plan(table, tmp_path, capsys).endswith(f"'filename' holds paths: give {proposal}")
    options = ("--path-column=filename", "--label-column=Klasse")
    printed = plan(table, tmp_path, capsys, *options, "--keep-column=Gewicht")
    assert "uses filename, Klasse, Gewicht; leaves out Dateiname" in printed
    assert "    1  Käse                             2" in printed
    assert list_notes(printed) == ["decimal_comma: Gewicht"]
    error = plan(table, tmp_path, capsys, *options, "--target-column=Gewicht")
    assert error.endswith("row 1: '0,5' is not a number: write it with a point\n")
    text = "\r\n".join(lines).replace(";", "\t")
    (tmp_path / "Mappe2.csv").write_text(text, "utf-16", newline="")
    again = plan(tmp_path / "Mappe2.csv", tmp_path, capsys, *options, "--keep-column=Gewicht")
    assert drop_measured(again) == drop_measured(printed)


def drop_measured(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if not line.startswith("takes about")]


def test_one_column_of_a_one_hot_label_becomes_no_classes_0_and_1(world, tmp_path, capsys):
    table = world / "isic" / "truth.csv"
    options = ("--path-format=ISIC_Input/ISIC_Input/{image}.jpg", "--label-column=NV")
    error = plan(table, tmp_path, capsys, *options)
    assert "3 columns of 0 and 1, and each row has one 1: give --labels-columns MEL NV BCC" in error
    # With a row of none of them, the column may well be a label of its own.
    rows = table.read_text().splitlines()
    blank = [*rows[:-1], ",".join([rows[-1].split(",")[0], "0.0", "0.0", "0.0"])]
    (table.parent / "some.csv").write_text("\n".join(blank) + "\n")
    printed = plan(table.parent / "some.csv", tmp_path, capsys, *options)
    assert f"{IMAGES} images in 2 classes" in printed
    assert list_notes(printed) == ["one_hot: MEL, NV, …"]


def test_notes_are_in_the_data_set_and_in_what_convert_and_plan_print(world, tmp_path, capsys):
    table, out = world / "isic" / "truth.csv", tmp_path / "out"
    (tmp_path / "both.txt").write_text("0.0\n1.0\n")
    options = ["--path-format=ISIC_Input/ISIC_Input/{image}.jpg", "--label-column=MEL"]
    options += [f"--classes={tmp_path}/both.txt"]
    command = [str(table), str(out), *options, "--image-size=8"]
    assert main(["convert", *command, "--no-progress", IN_MEMORY]) == 0
    assert list_notes(capsys.readouterr().out) == ["one_hot: MEL, NV, …"]
    [note] = map(json.loads, (out / "notes.jsonl").read_text().splitlines())
    assert note == {"code": "one_hot", "names": ["MEL", "NV", "BCC"], "total": 3}
    assert main(["plan", *command, "--overwrite", "--json"]) == 0
    [printed] = json.loads(capsys.readouterr().out)["datasets"]
    assert printed["notes"] == [note]
    assert printed["recognized"] == "uses image, MEL; leaves out NV, BCC"


def test_every_command_in_the_docs_is_one(tmp_path, monkeypatch):
    page = Path(converter.__file__).parents[1] / "docs" / "sources.md"
    section = page.read_text().split("### Tables as people have them")[1].split("\n\n**")[0]
    lines = section.replace("\\\n", "").splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("shardmill")]
    monkeypatch.chdir(tmp_path)
    Path("numbers.txt").write_text("0\n1\n2\n3\n")
    given = [read_options(parse_arguments(command))[0] for command in commands]
    assert len(given) == len(CASES) + 1
    assert {options.path_format for options in given} > {
        None, "train_images/{id_code}.png", "img_align_celeba/{image_id}"
    }  # fmt: skip
    assert {options.labels_columns for options in given} == {
        (), ("MEL", "NV", "BCC"), ("Smiling", "Male", "Young")
    }  # fmt: skip


FACE_OPTIONS = ConvertOptions(
    image_size=(16, 20), encoding="png", num_shards=2, labels_columns=("Young", "Smiling", "Male"),
    path_format="img_align_celeba/{image_id}",
)  # fmt: skip


@pytest.fixture
def faces(world: Path, tmp_path: Path) -> Path:
    """A copy of the table of faces and its images, to change."""
    return shutil.copytree(world / "celeba", tmp_path / "celeba") / CASES["celeba"][0]


def test_columns_of_flags_are_labels_in_the_order_of_the_columns(faces, tmp_path):
    convert_folder(faces, tmp_path / "out", FACE_OPTIONS)
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.labelled, manifest.classes) == (False, ("Young", "Smiling", "Male"))
    assert manifest.totals.written == IMAGES
    records = {record.source_id: record for record in open_shards(tmp_path / "out").source("train")}
    labels = [records[f"img_align_celeba/{n:06d}.jpg"].values[schema.LABELS] for n in range(3)]
    assert labels == [[1, 2], [2], []]  # one without any is kept
    [(_, batch)] = load_dataset(tmp_path / "out", batch_size=IMAGES, order="path", shuffle=False)
    np.testing.assert_array_equal(batch[:3], [[0, 1, 1], [0, 0, 1], [0, 0, 0]])


def test_columns_of_flags_are_chosen_and_renamed_like_other_classes(faces):
    chosen = dataclasses.replace(FACE_OPTIONS, class_names=("Male -> man", "Smiling"))
    trimmed = dataclasses.replace(chosen, trim_labels=True)
    inventory = scan_images(faces, trimmed)
    assert inventory.classes == ("man", "Smiling")
    assert {entry.values for entry in inventory.entries} == {"[[0,1]]", "[[0]]", "[[]]"}
    rows = [CASES["celeba"][2](number) | {"Young": 1} for number in range(IMAGES)]
    write_table(faces, rows)
    assert len(scan_images(faces, trimmed).entries) == IMAGES - IMAGES // 3
    with pytest.raises(UsageError, match="no row left"):
        scan_images(faces, chosen)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_labels_and_paths(faces, suffix):
    make_row = CASES["celeba"][2]
    rows = [make_row(number) for number in range(IMAGES)]
    if suffix in ("jsonl", "parquet"):  # which have numbers and booleans of their own
        rows = [{**row, "Young": None, "Male": row["Male"] == 1} for row in rows]
    table = write_table(faces.with_name(f"t.{suffix}"), rows)
    assert scan_images(table, FACE_OPTIONS) == scan_images(faces, FACE_OPTIONS)


@pytest.mark.parametrize(
    ("cells", "code"),
    [
        ({"Male": "2"}, "column 'Male': '2' is none of 0, 1 and -1"),
        ({"Young": "yes"}, "column 'Young': 'yes' is none of"),
        ({"image_id": ""}, "'' is not a name"),
        ({"image_id": "../celeba/img_align_celeba/000001.jpg"}, "its path leads out"),
        ({"image_id": "none.jpg"}, "it is named, and there is no such file"),
        ({"image_id": "{Male}.jpg"}, "it is named, and there is no such file"),
    ],
)
def test_a_cell_that_makes_no_sense_costs_its_row_alone(faces, cells, code):
    rows = [CASES["celeba"][2](number) for number in range(IMAGES)]
    rows[1] |= cells
    inventory = scan_images(write_table(faces, rows), FACE_OPTIONS)
    assert (len(inventory.entries), len(inventory.rejected)) == (IMAGES - 1, 1)
    assert inventory.rejected[0].detail.startswith(f"row 2: {code}")
    shown = f"img_align_celeba/{cells.get('image_id', '000001.jpg')}"
    assert inventory.rejected[0].path == (shown if cells.get("image_id") != "" else "row 2")


def test_an_update_takes_new_and_changed_rows_with_the_options_of_the_data_set(faces, tmp_path):
    out = tmp_path / "out"
    options = ["--path-format=img_align_celeba/{image_id}", "--image-size=8", "--seed=3"]
    labels = ["--labels-columns", "Young", "Smiling", "Male"]
    command = ["convert", str(faces), str(out), "--no-progress", IN_MEMORY]
    assert main([*command, *options, *labels]) == 0
    rows = [CASES["celeba"][2](number) for number in range(IMAGES)]
    rows[0] |= {"Young": 1}
    write_image(faces.parent / "img_align_celeba" / "new.jpg", 99, "JPEG")
    write_table(faces, [*rows, {**rows[1], "image_id": "new.jpg"}])
    assert main([*command, "--update"]) == 0
    manifest = read_manifest(out)
    assert (manifest.totals.written, manifest.classes) == (IMAGES + 1, ("Young", "Smiling", "Male"))
    assert manifest.options["labels_columns"] == ["Young", "Smiling", "Male"]
    records = {record.source_id: record for record in open_shards(out).source("train")}
    assert records["img_align_celeba/000000.jpg"].values[schema.LABELS] == [0, 1, 2]
    assert records["img_align_celeba/new.jpg"].values[schema.LABELS] == [2]
    assert verify(out, sources=faces) == []
    (out / manifest.shards[0].name).write_bytes(b"damaged")
    assert repair(out, faces, [IN_MEMORY]).repaired == (manifest.shards[0].name,)


def test_a_table_in_a_store_is_read_and_proposed_like_one_here(server: Server, world, tmp_path):
    far = upload_tree(world / "celeba", server.path(f"celeba {uuid.uuid4().hex}"))
    table = far / CASES["celeba"][0]
    with pytest.raises(UsageError, match=re.escape("'img_align_celeba/{image_id}'")):
        scan_images(table)
    near = world / "celeba" / CASES["celeba"][0]
    assert scan_images(table, FACE_OPTIONS) == scan_images(near, FACE_OPTIONS)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "t.csv").write_bytes(b"")
    with pytest.raises(UsageError, match="is empty"):
        scan_images(upload_tree(empty, server.path(f"empty {uuid.uuid4().hex}")) / "t.csv")


def test_ids_keep_their_zeros_and_parquet_its_digits(tmp_path):
    for seed, name in enumerate(("007", "7", "12")):
        write_image(tmp_path / "a{}" / f"{name}.png", seed)
    options = ConvertOptions(path_format="a{{}}/{id}.png", label_column="id")
    table = write_table(tmp_path / "t.csv", [{"id": "007"}, {"id": "12"}])
    assert [entry.path for entry in scan_images(table, options).entries] == [
        "a{}/007.png", "a{}/12.png"
    ]  # fmt: skip
    table = write_table(tmp_path / "t.parquet", [{"id": 7}, {"id": 12}, {"id": None}])
    inventory = scan_images(table, options)
    assert [entry.path for entry in inventory.entries] == ["a{}/12.png", "a{}/7.png"]
    assert inventory.rejected[0].detail == "row 3: None is not a name"


def test_a_format_is_relative_to_the_table_root_and_names_columns_that_exist(world, tmp_path):
    table = tmp_path / "t.csv"
    shutil.copy(world / "dogs" / "labels.csv", table)
    root = os.path.relpath(world / "dogs" / "train", tmp_path)
    options = ConvertOptions(path_format="{id}.jpg", table_root=root, label_column="breed")
    assert len(scan_images(table, options).entries) == IMAGES
    with pytest.raises(UsageError, match=re.escape("'id.real': there are breed, id")):
        scan_images(table, ConvertOptions(path_format="{id.real}.jpg", table_root=root))
    with pytest.raises(UsageError, match=re.escape("--path-format '{id}.jpg'")):
        scan_images(table, ConvertOptions(path_column="id", table_root=root))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"path_format": ""}, "path format '' names no column"),
        ({"path_format": "a.png"}, "path format 'a.png' names no column"),
        ({"path_format": "{}"}, "path format '{}' cannot be read"),
        ({"path_format": "{id!r}"}, "braces hold the name"),
        ({"path_format": "{id:05d}"}, "braces hold the name"),
        ({"path_format": "{id:{x}}"}, "braces hold the name"),
        ({"path_format": "{id"}, "expected '}'"),
        ({"path_format": "id}"}, "path format 'id}' cannot be read"),
        ({"path_format": "{id}", "path_column": "id"}, "exclude each other"),
        ({"labels_separator": ""}, "labels separator '' is empty"),
        ({"labels_columns": ("a", "a")}, "'a' is given twice"),
        ({"labels_columns": "ab"}, "labels columns 'ab' are not"),
        ({"labels_columns": ("a",), "label_column": "b"}, "label column and labels columns"),
        ({"labels_columns": ("a",), "labels_column": "b"}, "labels column and labels columns"),
    ],
)
def test_options_that_make_no_sense_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        ConvertOptions(**values)


def test_flags_are_labels_of_images_in_parquet_too(tmp_path):
    images = [{"bytes": encode_image(make_image(n), "PNG"), "path": f"{n}.png"} for n in range(3)]
    flags = zip(images, (1, 0, 1), (True, None, False), strict=True)
    rows = [{"image": image, "label": "x", "a": a, "b": b} for image, a, b in flags]
    inventory = scan_images(
        write_table(tmp_path / "t.parquet", rows), ConvertOptions(labels_columns=("b", "a"))
    )
    assert (inventory.classes, inventory.labelled) == (("b", "a"), False)
    assert [entry.values for entry in inventory.entries] == ["[[0,1]]", "[[]]", "[[1]]"]


def test_a_format_is_refused_where_rows_hold_their_images(tmp_path):
    row = {IMAGE: Entry("a.png", NO_LABEL, 1, file="x.tar"), "id": "7"}
    source = RowSource(
        images=DiskPath(tmp_path), root=DiskPath(tmp_path),
        options=ConvertOptions(path_format="{id}.png"), read_rows=lambda: iter([("row 1", row)]),
    )  # fmt: skip
    with pytest.raises(UsageError, match="holds its images"):
        scan_rows(source)


@pytest.mark.parametrize("values", [{"path_format": "{id}"}, {"labels_columns": ("a",)},
                                    {"labels_separator": " "}])  # fmt: skip
def test_they_are_for_tables_alone(world, values):
    with pytest.raises(UsageError, match="for a table alone"):
        scan_images(world / "dogs", ConvertOptions(**values))
