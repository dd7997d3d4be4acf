"""From a path or an address to its place, and where each file of a data set lies."""

from pathlib import Path

import pytest

from converter.errors import DatasetError, UsageError
from converter.format.indexing import find_files
from converter.storage.disk import DiskPath
from converter.storage.files import Layout, name_shard
from converter.storage.locate import locate, locate_output, parse_location
from converter.storage.objects import ObjectPath
from pipelines import clean, convert, plan, repair, verify
from pipelines.cli.commands import main
from reader import load_dataset, open_shards, open_tfrecords


def test_every_file_has_its_place():
    layout = Layout(DiskPath("/data/out"))
    assert layout.manifest == DiskPath("/data/out/manifest.json")
    assert layout.work == DiskPath("/data/out/.shardmill")
    assert layout.plan == DiskPath("/data/out/.shardmill/plan.json")
    assert layout.entries == DiskPath("/data/out/.shardmill/entries.jsonl")
    assert layout.left_out == DiskPath("/data/out/.shardmill/left_out.jsonl")
    assert layout.receipts == DiskPath("/data/out/.shardmill/receipts")
    assert layout.costs == DiskPath("/data/out/.shardmill/costs")
    assert layout.scratch == DiskPath("/data/out/.shardmill/tmp")


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
    for address in ("s3://bucket/out", Path("s3://bucket/out"), ObjectPath("s3", "bucket", "out")):
        assert locate(address) == ObjectPath("s3", "bucket", "out")
    assert parse_location("out") == DiskPath("out")
    assert parse_location("gs://bucket/out/") == ObjectPath("gs", "bucket", "out")


def test_a_tilde_in_front_is_the_home_folder_however_a_path_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for path in ("~/out", Path("~/out"), "~/../me/out"):
        assert locate(path).resolve() == DiskPath("/home/me/out")
    assert parse_location("~/out") == DiskPath("/home/me/out")
    assert locate("~nobody-here/out") == tmp_path / "~nobody-here" / "out"
    assert locate("out/~") == tmp_path / "out" / "~"
    assert locate(parse_location("./~")) == tmp_path / "~"


def test_the_functions_take_a_tilde_as_the_command_line_does(image_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "images").symlink_to(image_folder)
    preview = plan("~/images", "~/out")
    assert preview.out == tmp_path / "out"
    (tmp_path / "a.tfrecord").touch()
    assert find_files(["~/*.tfrecord"]) == find_files(["~"]) == [tmp_path / "a.tfrecord"]
    with pytest.raises(DatasetError, match=rf"^{tmp_path}/out "):
        open_shards("~/out")
    with pytest.raises(DatasetError, match=rf"{tmp_path}/a.tfindex"):
        open_tfrecords("~/a.tfrecord")


def test_three_slashes_do_not_make_a_bucket_of_a_prefix():
    with pytest.raises(UsageError, match="a valid bucket name"):
        locate("s3:///photos")  # of s3://$UNSET/photos


def test_a_data_set_takes_a_prefix_and_not_a_whole_bucket():
    assert locate_output("gs://bucket/out") == ObjectPath("gs", "bucket", "out")
    with pytest.raises(UsageError, match=r"^gs://bucket is a whole bucket"):
        locate_output("gs://bucket/")


def test_in_a_store_the_names_are_the_same():
    layout = Layout(ObjectPath("s3", "bucket", "data/out"))
    assert str(layout.manifest) == "s3://bucket/data/out/manifest.json"
    assert str(layout.plan) == "s3://bucket/data/out/.shardmill/plan.json"
    assert str(layout.stage) == "s3://bucket/data/.out.shardmill-new"


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda out, images: convert(images, out), id="convert"),
        pytest.param(lambda out, images: convert(out, images / "out"), id="images"),
        pytest.param(lambda out, images: plan(images, out), id="plan"),
        pytest.param(lambda out, _: verify(out), id="verify"),
        pytest.param(repair, id="repair"),
        pytest.param(lambda out, _: clean(out), id="clean"),
        pytest.param(lambda out, _: open_shards(out), id="open_shards"),
        pytest.param(lambda out, _: load_dataset(out), id="load_dataset"),
    ],
)
def test_nothing_takes_an_unknown_address_for_a_folder(use, image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^hdfs:// is .* unknown"):
        use("hdfs://bucket/out", image_folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["convert", "plan", "verify", "repair", "inspect", "clean"])
def test_neither_does_the_command_line(command, image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images = {"convert": [str(image_folder)], "plan": [str(image_folder)]}.get(command, [])
    originals = ["--images", str(image_folder)] if command == "repair" else []
    assert main([command, *images, "hdfs://bucket/out", *originals]) == 2
    assert "hdfs:// is an unknown kind of address" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [None, 3, b"out", ["out"]])
def test_what_is_no_path_names_no_folder(path):
    with pytest.raises(UsageError, match=" is no path"):
        locate(path)
