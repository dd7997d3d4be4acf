"""Receipts merged into fewer files: every one counts once, whatever is killed or damaged."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from benchmarks.folder_store import serve_folder
from conftest import limit_memory, read_tree, write_folder, write_image

from converter.commits import receipts
from converter.commits.commit import commit, list_finished
from converter.commits.receipts import ReceiptReader, open_receipts, remove_receipts
from converter.errors import DatasetError, OutputError, StoreError
from converter.options import ConvertOptions
from converter.planning.plan import Plan, read_plan
from converter.storage import requests
from converter.storage.disk import DiskPath
from converter.storage.files import Layout
from converter.storage.locate import locate
from converter.upkeep.verification import verify_dataset
from converter.writing.shard_writer import (
    Job,
    dump_receipt,
    read_receipt,
    receipt_path,
    write_receipt,
    write_shard,
)

OPTIONS = ConvertOptions(image_size=(8, 8), encoding="png", num_shards=10, validation_split=0.2)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> DiskPath:
    """A conversion of a dozen shards, finished but for the commit; two images are none."""
    root = tmp_path_factory.mktemp("receipts")
    for seed in range(40):
        write_image(root / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    for name in ("x.png", "y.png"):
        (root / "images" / "a" / name).write_bytes(b"none")
    write_folder(root / "images", root / "out", OPTIONS)
    return root


@pytest.fixture
def plan(written: DiskPath, tmp_path: DiskPath, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A copy of it, with merges of four receipts."""
    monkeypatch.setattr(receipts, "MERGED_RECEIPTS", 4)
    return read_plan(DiskPath(shutil.copytree(written / "out", tmp_path / "out")))


@pytest.fixture(scope="module")
def committed(written: DiskPath, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The data set that the receipts give as they were written."""
    out = DiskPath(shutil.copytree(written / "out", tmp_path_factory.mktemp("committed") / "out"))
    commit(read_plan(out))
    return read_tree(out)


def merge(plan: Plan) -> list[str]:
    """Reads all receipts as the launcher does; the names of the shards that were read."""
    reader = ReceiptReader(Layout(plan.out), plan.shards)
    return [receipt.name for receipt in reader.read_new()]


def list_kinds(plan: Plan) -> tuple[int, int]:
    """How many files there are of one receipt, and of several."""
    names = Layout(plan.out).receipts.list_names()
    return sum(name.endswith(".json") for name in names), sum(
        name.endswith(".jsonl") for name in names
    )


def test_merged_receipts_say_what_single_ones_said(plan, committed):
    layout, count = Layout(plan.out), len(plan.shards)
    single = [read_receipt(receipt_path(layout, shard)) for shard in plan.shards]
    assert sorted(merge(plan)) == sorted(shard.name for shard in plan.shards)
    assert list_kinds(plan) == (count % 4, count // 4)
    with open_receipts(layout) as found:
        assert len(found) == count
        assert [found[shard] for shard in plan.shards] == single
    assert list_finished(plan) == list(plan.shards)
    commit(plan)
    assert read_tree(plan.out) == committed


def test_a_reader_gives_each_receipt_once_as_they_come(plan):
    layout = Layout(plan.out)
    late = [receipt_path(layout, shard) for shard in plan.shards[:3]]
    contents = [path.read_bytes() for path in late]
    for path in late:
        path.unlink()
    reader = ReceiptReader(layout, plan.shards)
    seen = [receipt.name for receipt in reader.read_new()]
    assert len(seen) == len(plan.shards) - 3
    assert list(reader.read_new()) == []
    late[0].write_bytes(contents[0][:50])  # half written
    late[1].write_bytes(contents[1])
    assert [receipt.name for receipt in reader.read_new()] == [plan.shards[1].name]
    late[0].write_bytes(contents[0])
    late[2].write_bytes(contents[2])
    late[1].write_bytes(contents[1])  # of a worker that wrote the shard once more
    seen += [receipt.name for receipt in reader.read_new()]
    assert sorted([*seen, plan.shards[1].name]) == sorted(shard.name for shard in plan.shards)


def test_another_launcher_finds_what_one_has_merged(plan):
    merge(plan)
    assert sorted(merge(plan)) == sorted(shard.name for shard in plan.shards)


@pytest.mark.parametrize("step", ["write", "remove"])
@pytest.mark.parametrize("number", range(2))
def test_a_kill_while_merging_loses_and_doubles_nothing(plan, committed, monkeypatch, step, number):
    calls = iter(range(9))

    def die(*arguments):
        if next(calls) == number:
            raise KeyboardInterrupt
        return original(*arguments)

    owner, name = {
        "write": (receipts, "write_file"),
        "remove": (DiskPath, "remove_files"),
    }[step]
    original = getattr(owner, name)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die)
        with pytest.raises(KeyboardInterrupt):
            merge(plan)
    own, merged = list_kinds(plan)
    assert merged == number + (step == "remove")
    assert own == len(plan.shards) - 4 * number
    assert list_finished(plan) == list(plan.shards)
    assert sorted(merge(plan)) == sorted(shard.name for shard in plan.shards)
    commit(plan)
    assert read_tree(plan.out) == committed


def test_the_own_file_of_a_shard_counts_before_a_merged_one(plan):
    layout, shard = Layout(plan.out), plan.shards[0]
    merge(plan)
    with open_receipts(layout) as found:
        receipt = found[shard]
    write_receipt(dataclasses.replace(receipt, tag="newer"), layout, shard)
    with open_receipts(layout) as found:
        assert (found[shard].tag, len(found)) == ("newer", len(plan.shards))


def test_receipts_of_shards_that_are_not_finished_go_from_merged_files_too(plan, committed):
    layout, stale = Layout(plan.out), [*plan.shards[1:3], plan.shards[-1]]
    merge(plan)
    remove_receipts(layout, stale)
    with open_receipts(layout) as found:
        assert [shard for shard in plan.shards if shard not in found] == stale
    with pytest.raises(DatasetError, match=f"^{stale[0].name} has no receipt"):
        commit(plan)
    for shard in stale:
        write_shard(shard, Job.of_plan(plan))
    commit(plan)
    assert read_tree(plan.out) == committed


def test_a_merged_file_of_stale_receipts_alone_goes(plan):
    merge(plan)
    remove_receipts(Layout(plan.out), plan.shards)
    assert list_kinds(plan) == (0, 0)
    remove_receipts(Layout(plan.out), plan.shards)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\n\n", b"{}\n", b'{"name": "\xff"}\n', b'{"name": "train-00000-of-00001"', b"\0" * 99],
)
def test_a_damaged_merged_file_costs_its_shards_alone(plan, garbage):
    layout = Layout(plan.out)
    merge(plan)
    file = min(layout.receipts.glob("*.jsonl"))
    names = {line.split(b'"')[3].decode() for line in file.read_bytes().splitlines()}
    file.write_bytes(garbage)
    assert {shard.name for shard in plan.shards} - {s.name for s in list_finished(plan)} == names
    with pytest.raises(DatasetError, match="has no receipt"):
        commit(plan)


def test_a_flipped_bit_in_a_merged_file_costs_one_shard(plan):
    layout = Layout(plan.out)
    merge(plan)
    file = min(layout.receipts.glob("*.jsonl"))
    data = bytearray(file.read_bytes())
    data[data.index(b'"records"') + 12] ^= 1
    file.write_bytes(data)
    assert len(list_finished(plan)) == len(plan.shards) - 1
    with pytest.raises(DatasetError, match="cannot be read"):
        commit(plan)


def test_long_receipts_are_merged_sooner(plan, monkeypatch):
    size = receipt_path(Layout(plan.out), plan.shards[0]).stat().st_size
    monkeypatch.setattr(receipts, "MERGED_BYTES", 2 * size)
    merge(plan)
    assert list_kinds(plan)[1] >= len(plan.shards) // 3


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (receipts, "write_file", OutputError("no room")),
        (DiskPath, "remove_files", StoreError("access is denied")),
    ],
)
def test_where_nothing_can_be_merged_each_keeps_its_file(
    plan, committed, monkeypatch, owner, name, error
):
    def fail(*_arguments):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        assert len(merge(plan)) == len(plan.shards)
    assert list_kinds(plan)[0] == len(plan.shards)
    assert list_finished(plan) == list(plan.shards)
    commit(plan)
    assert read_tree(plan.out) == committed


def test_a_receipt_in_the_file_of_another_is_not_counted(plan):
    one, two = (receipt_path(Layout(plan.out), shard) for shard in plan.shards[:2])
    shutil.copy(one, two)
    assert plan.shards[1].name not in merge(plan)
    with pytest.raises(DatasetError, match=f"^{plan.shards[1].name} has the receipt of"):
        commit(plan)


def test_a_job_of_a_plan_that_was_given_up_gets_nothing_into_the_next(plan, committed):
    shard, other = plan.shards[2], dataclasses.replace(OPTIONS, image_size=(16, 16))
    earlier = dataclasses.replace(Job.of_plan(plan), options=other, digest="0" * 64)
    write_shard(shard, earlier)  # its launcher was killed, and the job went on
    assert shard.name in merge(plan)
    assert shard not in list_finished(plan)
    with pytest.raises(DatasetError, match=f"^{shard.name} .* another plan: end"):
        commit(plan)
    write_shard(shard, Job.of_plan(plan))
    commit(plan)
    assert read_tree(plan.out) == committed


def test_a_receipt_that_cannot_be_read_is_no_receipt(plan):
    path = receipt_path(Layout(plan.out), plan.shards[3])
    path.unlink()
    path.mkdir()  # not even root can read it
    (path.parent / "train-99999-of-99999.json").symlink_to(path)
    assert list_finished(plan) == [*plan.shards[:3], *plan.shards[4:]]


def test_receipts_that_are_merged_while_they_are_read_are_not_damaged(plan, monkeypatch):
    original = Layout(plan.out).receipts.list_sizes()
    merge(plan)
    monkeypatch.setattr(DiskPath, "list_sizes", lambda _self, _prefix="": original)
    with open_receipts(Layout(plan.out)) as found:
        assert len(found) == len(plan.shards) % 4
    (fault,) = verify_dataset(plan.out)
    assert "the conversion is not finished" in fault.detail


def test_verify_of_an_unfinished_data_set_finds_merged_receipts(plan):
    merge(plan)
    (fault,) = verify_dataset(plan.out)
    count = len(plan.shards)
    assert f"{count} of {count} shards are" in fault.detail


def test_many_receipts_take_no_memory(plan, monkeypatch):
    monkeypatch.setattr(receipts, "_SPOOL_BYTES", 1 << 16)
    layout = Layout(plan.out)
    receipt = read_receipt(receipt_path(layout, plan.shards[0]))
    rejects = [{"path": "x" * 1000, "code": "empty", "detail": ""}] * 100
    for first in range(0, 120, 10):
        with open(layout.receipts / f"{first}.jsonl", "wb") as file:
            for number in range(first, first + 10):
                name = f"train-{number:05d}-of-00120.tfrecord"
                named = dataclasses.replace(receipt, name=name, rejects=rejects)
                file.write(dump_receipt(named) + b"\n")
    with limit_memory(4_000_000), open_receipts(layout) as found:  # of 12 MB
        assert len(found) == 120 + len(plan.shards)


def test_the_receipts_of_an_earlier_version_have_no_tags(plan):
    layout, shard = Layout(plan.out), plan.shards[0]
    receipt = read_receipt(receipt_path(layout, shard))
    assert (receipt.tag, receipt.index_tag) == ("", "")


def test_the_store_of_the_benchmarks_lists_as_others_do(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(requests, "S3Store", None)
    monkeypatch.setattr(requests, "opened", {})
    counts = serve_folder(tmp_path)
    (tmp_path / "bucket" / "out").mkdir(parents=True)
    (tmp_path / "bucket" / "out" / "a").write_bytes(b"one")
    assert locate("s3://bucket/out").list_sizes() == {"a": 3}
    assert counts == {"list": 1}


def test_a_folder_without_receipts_has_none(tmp_path: Path):
    with open_receipts(Layout(tmp_path)) as found:
        assert len(found) == 0
