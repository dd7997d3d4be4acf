"""Where each file of a data set lies."""

from pathlib import Path

import pytest

from converter.errors import UsageError
from converter.layout import Layout, locate, name_shard
from pipelines import clean, convert, propose, repair, verify
from pipelines.commands import main
from reader import load_dataset, open_shards


def test_every_file_has_its_place():
    layout = Layout(Path("/data/out"))
    assert layout.manifest == Path("/data/out/manifest.json")
    assert layout.work == Path("/data/out/.shardmill")
    assert layout.plan == Path("/data/out/.shardmill/plan.json")
    assert layout.entries == Path("/data/out/.shardmill/entries.jsonl")
    assert layout.left_out == Path("/data/out/.shardmill/left_out.jsonl")
    assert layout.receipts == Path("/data/out/.shardmill/receipts")
    assert layout.costs == Path("/data/out/.shardmill/costs")
    assert layout.scratch == Path("/data/out/.shardmill/tmp")


def test_work_folders_may_be_there_already(tmp_path):
    layout = Layout(tmp_path / "new" / "out")
    layout.make_work_folders()
    (layout.receipts / "kept").touch()
    layout.make_work_folders()
    assert (layout.receipts / "kept").exists()
    assert layout.scratch.is_dir()


def test_names_of_shards_sort_in_their_order():
    names = [name_shard("train", index, 99_999) for index in range(99_999)]
    assert names == sorted(names)
    assert names[3] == "train-00003-of-99999.tfrecord"


def test_a_folder_is_located_and_an_address_is_not_taken_for_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate("out") == tmp_path / "out"
    assert locate(tmp_path / "s3:" / "out") == tmp_path / "s3:" / "out"
    for address in ("s3://bucket/out", "gs://bucket/out", "file:///data", Path("hdfs://a/b")):
        with pytest.raises(UsageError, match=r"is an address and no folder: .* mount the bucket"):
            locate(address)


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda out, images: convert(images, out), id="convert"),
        pytest.param(lambda out, images: convert(out, images / "out"), id="images"),
        pytest.param(lambda out, _: propose(out), id="propose"),
        pytest.param(lambda out, _: verify(out), id="verify"),
        pytest.param(lambda out, images: verify(images, sources=out), id="sources"),
        pytest.param(repair, id="repair"),
        pytest.param(lambda out, _: clean(out), id="clean"),
        pytest.param(lambda out, _: open_shards(out), id="open_shards"),
        pytest.param(lambda out, _: load_dataset(out), id="load_dataset"),
    ],
)
def test_nothing_takes_an_address_for_a_folder(use, image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^s3://bucket/out is an address"):
        use("s3://bucket/out", image_folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["convert", "plan", "verify", "repair", "inspect", "clean"])
def test_neither_does_the_command_line(command, image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images = {"convert": [str(image_folder)], "plan": [str(image_folder)]}.get(command, [])
    originals = ["--images", str(image_folder)] if command == "repair" else []
    assert main([command, *images, "s3://bucket/out", *originals]) == 2
    assert "shardmill: error: s3:/" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
