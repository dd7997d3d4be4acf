"""Whatever the records of a data set call their originals, an export stays inside, and is whole."""

import json
import tarfile
from pathlib import Path

import forging
import pytest
from conftest import encode_image, make_image
from exported import convert_again, describe_dataset, list_tree
from forging import forge, make_payload
from test_safe_names import HOSTILE, check_path

from converter.names import from_bytes, to_bytes
from pipelines import export

MORE = [
    "Cat.png",
    "cat.png",
    "CAT.PNG",
    "ä.png",
    "a\u0308.png",
    "x.png",
    "x.gif",
    "x.jpg",
    "x",
    "X",
]
KINDS = ("folders", "webdataset", "parquet")
SOURCES = [*HOSTILE, *MORE, *(f"ant/{name}" for name in MORE), "x.png", "x.png", "dir.png/x.png"]


def forge_sources(folder: Path, sources: list[str], **changes: object) -> tuple[Path, list[bytes]]:
    """A data set with originals of these names, and its images."""
    images = [encode_image(make_image(seed), "PNG") for seed in range(len(sources))]
    payloads = [
        make_payload(image, number, source_id=to_bytes(source), **changes)
        for number, (image, source) in enumerate(zip(images, sources, strict=True))
    ]
    half = len(payloads) // 2
    shards = {"train-00000-of-00002": payloads[:half], "train-00001-of-00002": payloads[half:]}
    return forge(folder, shards), images


def test_folders_hold_every_image_and_nothing_lies_outside(tmp_path):
    out, images = forge_sources(tmp_path / "out", SOURCES)
    before = list_tree(tmp_path)
    result = export(out, tmp_path / "export")
    tree = list_tree(tmp_path / "export")
    assert {n: d for n, d in list_tree(tmp_path).items() if not n.startswith("export/")} == before
    written = {name: data for name, data in tree.items() if name != "labels.txt"}
    assert sorted(written.values()) == sorted(images)
    assert len({name.lower() for name in written}) == len(images) == result.splits["train"].images
    for name in written:
        check_path(name)
        assert name.startswith(("train/ant/", "train/bee/"))


# WebDataset leaves the closing of files to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tars_hold_every_image_under_a_key_of_its_own(tmp_path):
    wds = pytest.importorskip("webdataset")
    out, images = forge_sources(tmp_path / "out", SOURCES)
    export(out, tmp_path / "export", kind="webdataset")
    tar = tmp_path / "export" / "train-000000.tar"
    with tarfile.open(tar) as file:
        for name in file.getnames():
            check_path(name)
    samples = list(wds.WebDataset([str(tar)], shardshuffle=False))
    assert [sample["png"] for sample in samples] == images
    assert len({sample["__key__"].lower() for sample in samples}) == len(images)
    assert [json.loads(sample["json"])["source_id"] for sample in samples] == SOURCES


def test_parquet_holds_every_image(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out, images = forge_sources(tmp_path / "out", SOURCES)
    export(out, tmp_path / "export", kind="parquet")
    (file,) = (tmp_path / "export").glob("*.parquet")
    cells = parquet.read_table(file)["image"].to_pylist()
    assert [cell["bytes"] for cell in cells] == images
    assert len({cell["path"] for cell in cells}) == len(images)
    for cell in cells:
        check_path(cell["path"])


@pytest.mark.parametrize("kind", KINDS)
def test_originals_of_any_name_convert_again(kind, tmp_path):
    out, _ = forge_sources(tmp_path / "out", SOURCES)
    result = export(out, tmp_path / "export", kind=kind)
    again = convert_again(result.command, tmp_path / "again")
    assert describe_dataset(again) == describe_dataset(out)


@pytest.mark.parametrize(
    "classes",
    [
        ("..", "."), ("a/b", "/c"), ("Cat", "cat"), (".hidden", "nul"), ("a.png", "metadata.jsonl"),
        ("é", "e\u0301"), (from_bytes(b"\xff"), "x" * 400), ("a\x1b[0m", " "), ("train", "test"),
        ("a", "b -> c"), ("a->a", "->"), ("\ufeffa", "a"), ("1", "01"), ("true", "null"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_classes_of_any_name_come_back(kind, classes, tmp_path, monkeypatch):
    monkeypatch.setattr(forging, "CLASSES", classes)
    images = [encode_image(make_image(number), "PNG") for number in range(8)]
    payloads = [
        make_payload(image, number, source_id=b"%d.png" % number)
        for number, image in enumerate(images)
    ]
    out = forge(tmp_path / "out", {"train-00000-of-00001": payloads})
    result = export(out, tmp_path / "export", kind=kind)
    for name in list_tree(tmp_path / "export"):
        check_path(name)
    if kind == "folders":
        names = {path.name.lower() for path in (tmp_path / "export" / "train").iterdir()}
        assert len(names - {"metadata.jsonl"}) == 2
    again = convert_again(result.command, tmp_path / "again")
    assert describe_dataset(again) == describe_dataset(out)


def test_classes_that_folders_can_have_need_no_table(tmp_path):
    out, _ = forge_sources(tmp_path / "out", ["a.png", "b.png"])
    assert "metadata.jsonl" not in export(out, tmp_path / "export").command
    assert not (tmp_path / "export" / "metadata.jsonl").exists()
