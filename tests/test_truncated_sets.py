"""Data sets with JPEGs that end early: every record says how much of it is real."""

import dataclasses
import json
from pathlib import Path

import pytest
from conftest import (
    convert_folder,
    drop_companions,
    encode_image,
    make_image,
    run_conversion,
    write_image,
)
from making import read_golden

from converter.commits.commit import read_notes
from converter.errors import UsageError
from converter.format.manifest import read_manifest
from converter.format.schema import DECODED_ROWS, ORIGINAL_ROWS, Column
from converter.inventory import REJECT_CODES
from converter.options import ConvertOptions
from converter.storage.files import REJECTS
from converter.upkeep import contents
from converter.upkeep.verification import verify_dataset
from pipelines.cli.commands import main
from pipelines.jobs.convert import convert_sizes
from pipelines.jobs.upkeep import repair
from reader import load_dataset, open_shards

OPTIONS = ConvertOptions(image_size=(8, 10), encoding="png", num_shards=2, truncated="fill")
IN_MEMORY = ["--direct_running_mode=in_memory", "--direct_num_workers=1"]
HEIGHT = 96


def make_jpeg(seed: int, share: float, **options: object) -> bytes:
    """A JPEG of which that share of the bytes of its image is there."""
    image = make_image(seed, HEIGHT, 64).convert("L").resize((64, HEIGHT)).convert("RGB")
    data = encode_image(image, "JPEG", quality=95, **options)
    begin = data.index(b"\xff\xda")
    return data[: begin + int((len(data) - begin) * share)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty whole pictures; some that end early, with enough rows and with too few."""
    images = tmp_path / "images"
    for seed in range(10):
        write_image(images / "a" / f"{seed}.png", seed)
        write_image(images / "b" / f"{seed}.jpg", seed + 10, "JPEG")
    for name, data in {
        "a/most.jpg": make_jpeg(31, 0.93),
        "b/more.jpg": make_jpeg(32, 0.75),
        "b/coarse.jpg": make_jpeg(33, 0.5, progressive=True),
        "a/few.jpg": make_jpeg(34, 0.2),
        "b/none.jpg": make_jpeg(35, 0.0),
        "b/other.png": encode_image(make_image(36), "PNG")[:-30],
    }.items():
        (images / name).write_bytes(data)
    return tmp_path


def read_rows(out: Path) -> dict[str, tuple[int, int]]:
    """How many rows of each original are real, and how many there are."""
    records = [*open_shards(out).source("train")]
    return {
        record.source_id: (record.values[DECODED_ROWS], record.values[ORIGINAL_ROWS])
        for record in records
    }


def read_rejects(out: Path) -> dict[str, str]:
    lines = map(json.loads, (out / REJECTS).read_bytes().splitlines())
    return {line["path"]: line["code"] for line in lines}


def read_tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".shardmill" not in str(path))
    return drop_companions({str(path.relative_to(folder)): path.read_bytes() for path in files})


def test_every_record_says_how_much_of_it_is_real(root: Path):
    convert_folder(root / "images", root / "out", OPTIONS)
    rows = read_rows(root / "out")
    assert len(rows) == 23
    short = {path: row for path, row in rows.items() if row[0] < row[1]}
    assert short.keys() == {"a/most.jpg", "b/more.jpg"}
    assert HEIGHT / 2 < short["b/more.jpg"][0] < short["a/most.jpg"][0] < HEIGHT
    assert rows["b/coarse.jpg"] == (HEIGHT, HEIGHT)
    assert {rows[f"a/{seed}.png"] for seed in range(10)} == {(24, 24)}
    bad = dict.fromkeys(("a/few.jpg", "b/none.jpg", "b/other.png"), "decode_error")
    assert read_rejects(root / "out") == bad
    totals = read_manifest(root / "out").totals
    assert totals.scanned == totals.written + sum(totals.rejected.values()) == 26


def test_they_are_noted_and_told(root: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["convert", str(root / "images"), str(root / "out"), "--image-size=8"]
    arguments += ["--truncated=fill", "--min-decoded=0.75", "--no-progress", *IN_MEMORY]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "note: truncated (1)" in told
    notes = {note.code: note.names for note in read_notes(root / "out")}
    assert notes == {"coarse": ("b/coarse.jpg",), "truncated": ("a/most.jpg",)}
    assert read_rejects(root / "out")["b/more.jpg"] == "decode_error"


@pytest.mark.parametrize("share", ["1", "-0.1", "nan", "half"])
def test_a_share_that_is_none_is_refused(root: Path, share: str, capsys):
    command = ["convert", str(root / "images"), str(root / "out"), "--truncated=fill"]
    assert main([*command, f"--min-decoded={share}"]) == 2
    assert "min-decoded" in (told := capsys.readouterr().err) or "min decoded" in told
    with pytest.raises(UsageError, match="truncated 'grey' is unknown"):
        ConvertOptions(truncated="grey")


def test_other_data_sets_are_as_before(root: Path):
    """Without the option there is neither a column nor a feature, and all of them are refused."""
    usual = dataclasses.replace(OPTIONS, truncated="reject")
    convert_folder(root / "images", root / "out", usual)
    manifest = read_manifest(root / "out")
    assert manifest.columns == ()
    assert len(read_rejects(root / "out")) == 6
    payloads = b"".join((root / "out" / shard.name).read_bytes() for shard in manifest.shards)
    assert b"_rows" not in payloads


def test_the_reader_gives_them_as_columns(root: Path):
    convert_folder(root / "images", root / "out", OPTIONS)
    rows = read_rows(root / "out")
    columns = ("decoded_rows", ORIGINAL_ROWS)
    dataset = load_dataset(
        root / "out", "train", batch_size=8, columns=columns, with_filename=True, shuffle=False
    )
    found = {}
    for *_, names, given in dataset:
        decoded, whole = (given[name].numpy() for name in columns)
        assert decoded.dtype == whole.dtype == "int64"
        for name, one, other in zip(names.numpy(), decoded, whole, strict=True):
            found[name.decode()] = (one, other)
    assert found == rows


def test_isolated_and_several_sizes_are_the_same(root: Path):
    convert_folder(root / "images", root / "out", OPTIONS)
    isolated = dataclasses.replace(OPTIONS, isolate=True)
    convert_folder(root / "images", root / "apart", isolated)
    assert read_tree(root / "apart") == read_tree(root / "out")
    larger = dataclasses.replace(OPTIONS, image_size=(20, 12))
    convert_sizes(str(root / "images"), str(root / "both"), [OPTIONS, larger], IN_MEMORY)
    assert read_tree(root / "both" / "8x10") == read_tree(root / "out")
    assert read_rows(root / "both" / "20x12") == read_rows(root / "out")


def test_verify_finds_nothing_and_finds_rows_that_cannot_be(root: Path):
    convert_folder(root / "images", root / "out", OPTIONS)
    assert verify_dataset(root / "out", originals=root / "images") == []
    manifest = read_manifest(root / "out")
    assert manifest.columns == (Column(ORIGINAL_ROWS, "int"), Column(DECODED_ROWS, "int"))
    source = open_shards(root / "out").source("train")
    for decoded in (0, 25, -1):
        forged = source[0].encoded, decoded
        with pytest.raises(ValueError, match="decoded_rows is"):
            contents.check_content(_forge(root / "out", *forged), manifest, decode=False)


def test_repair_brings_them_back(root: Path):
    run_conversion(root / "images", root / "out", OPTIONS, IN_MEMORY)
    whole = read_tree(root / "out")
    shard = read_manifest(root / "out").shards[0].name
    (root / "out" / shard).write_bytes(b"")
    (root / "out" / "notes.jsonl").write_bytes(b"")
    assert repair(root / "out", root / "images", IN_MEMORY).left == ()
    assert read_tree(root / "out") == whole


def test_an_update_reads_what_changed(root: Path):
    run_conversion(root / "images", root / "out", OPTIONS, IN_MEMORY)
    before = read_tree(root / "out")
    run_conversion(root / "images", root / "out", None, IN_MEMORY, mode="update")
    assert read_tree(root / "out").keys() == before.keys()
    rows = read_rows(root / "out")
    (root / "images" / "a" / "most.jpg").write_bytes(make_jpeg(31, 1.0))
    (root / "images" / "b" / "new.jpg").write_bytes(make_jpeg(40, 0.8))
    run_conversion(root / "images", root / "out", None, IN_MEMORY, mode="update")
    now = read_rows(root / "out")
    assert now.keys() == {*rows, "b/new.jpg"}
    assert now["a/most.jpg"] == (HEIGHT, HEIGHT)
    assert now["b/new.jpg"][0] < HEIGHT
    notes = {note.code: set(note.names) for note in read_notes(root / "out")}
    assert notes == {"coarse": {"b/coarse.jpg"}, "truncated": {"b/more.jpg", "b/new.jpg"}}


def test_masks_and_columns_of_a_table_go_with_them(root: Path):
    for path in (root / "images").rglob("*.*"):
        name = path.relative_to(root / "images").with_suffix(".png")
        height = HEIGHT if "." in path.stem or not path.stem.isdigit() else 24
        mask = make_image(1, height, 64 if height == HEIGHT else 32, "L")
        (root / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "masks" / name).write_bytes(encode_image(mask, "PNG"))
    lines = [f"{path.relative_to(root / 'images').as_posix()},{len(path.stem)}"
             for path in sorted((root / "images").rglob("*.*"))]  # fmt: skip
    (root / "images" / "t.csv").write_text("\n".join(["path,size", *lines]))
    options = dataclasses.replace(OPTIONS, mask_dir="../masks", keep_columns=("size",))
    convert_folder(root / "images" / "t.csv", root / "out", options)
    records = {record.source_id: record for record in open_shards(root / "out").source("train")}
    assert len(records) == 23
    assert all(record.mask for record in records.values())
    assert records["b/more.jpg"].values["size"] == 4
    assert 0 < records["b/more.jpg"].values[DECODED_ROWS] < HEIGHT
    names = [column.name for column in read_manifest(root / "out").columns]
    assert names[-2:] == [ORIGINAL_ROWS, DECODED_ROWS]


@pytest.mark.parametrize(("count", "truncated"), [(31, "fill"), (33, "reject")])
def test_more_columns_than_a_manifest_may_have_are_refused_before_the_conversion(
    root: Path, count: int, truncated: str
):
    names = [f"c{number}" for number in range(count)]
    row = ",".join(["a/1.png", *"1" * count])
    (root / "images" / "t.csv").write_text(f"{','.join(['path', *names])}\n{row}\n")
    given = {"truncated": truncated, "keep_columns": tuple(names), "num_shards": None}
    options = dataclasses.replace(OPTIONS, **given)
    with pytest.raises(UsageError, match="33 columns, at most 32"):
        convert_folder(root / "images" / "t.csv", root / "out", options)
    assert not (root / "out").exists()
    fewer = dataclasses.replace(options, keep_columns=tuple(names[1:]))
    convert_folder(root / "images" / "t.csv", root / "out", fewer)
    assert len(read_manifest(root / "out").columns) == 32


def test_hostile_images_have_the_outcome_in_the_table_or_are_filled(tmp_path: Path):
    from making import describe_outcome, make_images

    options = ConvertOptions(resize="none", encoding="png", truncated="fill", min_decoded=0)
    golden, filled = read_golden(), set()
    for name, data in make_images():
        found = describe_outcome(data, options)
        if found != golden[name]:
            assert golden[name] in REJECT_CODES
            filled.add(name)
    assert all(name.endswith((".jpeg", ".mpo")) for name in filled)
    assert "cut at 0.9.jpeg" in filled


def _forge(out: Path, encoded: bytes, decoded: int) -> bytes:
    from converter.format import examples

    record = open_shards(out).source("train")[0]
    features: dict[str, examples.Value] = {
        examples.ENCODED: encoded, examples.FORMAT: b"png", examples.HEIGHT: 8, examples.WIDTH: 10,
        examples.CHANNELS: 3, examples.COLORSPACE: b"RGB", examples.FILENAME: b"x",
        examples.SOURCE_ID: b"x", examples.SHA256: record.sha256.encode(),
        examples.LABEL: record.label, examples.TEXT: record.text.encode(),
        ORIGINAL_ROWS: 24, DECODED_ROWS: decoded,
    }  # fmt: skip
    return examples.encode_example(features)
