"""Where each file of a data set lies."""

from pathlib import Path

from converter.layout import Layout, name_shard


def test_every_file_has_its_place():
    layout = Layout(Path("/data/out"))
    assert layout.manifest == Path("/data/out/manifest.json")
    assert layout.work == Path("/data/out/.shardmill")
    assert layout.plan == Path("/data/out/.shardmill/plan.json")
    assert layout.entries == Path("/data/out/.shardmill/entries.jsonl")
    assert layout.left_out == Path("/data/out/.shardmill/left_out.jsonl")
    assert layout.receipts == Path("/data/out/.shardmill/receipts")
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
