"""Shards in series: each is what it is alone, and the next one does not wait until it is sent."""

import contextlib
import dataclasses
import itertools
import sys
import tarfile
import tempfile
import threading
import time
import uuid
from pathlib import Path

import pytest
from conftest import write_folder, write_image
from servers import KilledError, kill_at, upload_tree

from converter import costs
from converter.commits.commit import commit, list_finished
from converter.costs import read_costs
from converter.errors import OutputError, ShardmillError, StoreError
from converter.options import ConvertOptions
from converter.planning.plan import read_entries, write_plan
from converter.storage import disk, object_requests
from converter.storage.files import Layout, name_index
from converter.storage.objects import ObjectPath
from converter.writing import shard_groups, shard_writer
from converter.writing.shard_groups import uses_store, write_pipelined
from converter.writing.shard_writer import Job, read_receipt, receipt_path
from pipelines.jobs.preview import propose

OPTIONS = ConvertOptions(
    source="folders", image_size=(8, 8), encoding="png", num_shards=4, validation_split=0.25
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for seed in range(24):
        write_image(root / "ab"[seed % 2] / f"{seed}.png", seed)
    (root / "a" / "bad.png").write_bytes(b"no image")
    return root


@pytest.fixture
def plan(images, tmp_path):
    draft = propose(images, OPTIONS, always_sample=False).draft
    return write_plan(draft, OPTIONS, images=images, out=tmp_path / "out")


def test_each_shard_and_receipt_is_what_it_is_alone(images, plan, tmp_path):
    alone = write_folder(images, tmp_path / "alone", OPTIONS)
    told = list(write_pipelined(plan.shards, Job.of_plan(plan)))
    assert [receipt.name for receipt, _ in told] == [shard.name for shard in plan.shards]
    for shard, (receipt, _) in zip(plan.shards, told, strict=True):
        assert receipt == read_receipt(receipt_path(Layout(plan.out), shard))
        assert receipt == read_receipt(receipt_path(Layout(alone.out), shard))
    assert commit(plan) == commit(alone)
    for path in plan.out.iterdir():
        assert path.read_bytes() == (alone.out / path.name).read_bytes()


def test_each_shard_has_a_cost_of_its_own(plan):
    told = list(write_pipelined(plan.shards, Job.of_plan(plan)))
    assert [cost.images_read for _, cost in told] == [shard.records for shard in plan.shards]
    for shard, (_, cost) in zip(plan.shards, told, strict=True):
        assert read_costs(Layout(plan.out), [shard.name]) == cost


def test_no_shards_are_no_work(plan):
    assert list(write_pipelined([], Job.of_plan(plan))) == []


def test_a_shard_is_sent_while_the_next_one_is_converted(plan, monkeypatch):
    """Each waits for the other, so that one after the other would never end."""
    converting, sending = threading.Event(), threading.Event()
    compose, publish = shard_writer.compose_shard, disk.publish
    numbers = itertools.count()

    def compose_later(*arguments):
        if next(numbers) == 1:
            converting.set()
            assert sending.wait(30)
        return compose(*arguments)

    def publish_later(temporary, path, *, exclusive):
        if path.name == plan.shards[0].name:
            assert converting.wait(30)
            sending.set()
        publish(temporary, path, exclusive=exclusive)

    monkeypatch.setattr(shard_groups, "compose_shard", compose_later)
    monkeypatch.setattr(disk, "publish", publish_later)
    assert len(list(write_pipelined(plan.shards, Job.of_plan(plan)))) == len(plan.shards)


def test_no_more_than_two_shards_are_open(plan, monkeypatch):
    compose, publish, lock = shard_writer.compose_shard, disk.publish, threading.Lock()
    states = {"open": 0, "most": 0}

    def compose_counted(*arguments):
        with lock:
            states["open"] += 1
            states["most"] = max(states["most"], states["open"])
        return compose(*arguments)

    def publish_slowly(temporary, path, *, exclusive):
        time.sleep(0.02)
        publish(temporary, path, exclusive=exclusive)
        if path.suffix == ".tfrecord":
            with lock:
                states["open"] -= 1

    monkeypatch.setattr(shard_groups, "compose_shard", compose_counted)
    monkeypatch.setattr(disk, "publish", publish_slowly)
    list(write_pipelined(plan.shards, Job.of_plan(plan)))
    assert states == {"open": 0, "most": 2}


def test_the_entries_and_originals_of_the_next_shard_are_asked_for_early(
    s3_server, images, tmp_path
):
    stored = upload_tree(images, s3_server.path(uuid.uuid4().hex))
    draft = propose(stored, OPTIONS, always_sample=False).draft
    plan = write_plan(draft, OPTIONS, images=stored, out=tmp_path / "out")
    s3_server.set_faults()
    told = write_pipelined(plan.shards, Job.of_plan(plan))
    next(told)
    # There are few, and so all of them are on their way.
    assert s3_server.set_faults()["GET"] == sum(shard.records for shard in plan.shards)
    told.close()


def test_an_empty_shard_ends_nothing(images, tmp_path):
    draft = propose(images, OPTIONS, always_sample=False).draft
    counts = {"train": [3, 0, 5, len(draft.splits["train"]) - 8]}
    counts["validation"] = [len(draft.splits["validation"])]
    draft = dataclasses.replace(draft, shard_records=counts)
    plan = write_plan(draft, OPTIONS, images=images, out=tmp_path / "out")
    told = [receipt.images for receipt, _ in write_pipelined(plan.shards, Job.of_plan(plan))]
    assert told == [shard.records for shard in plan.shards]
    assert [receipt.frames for receipt in map(read_again, plan.shards, [plan] * 5)] == [0] * 5


def read_again(shard, plan):
    return read_receipt(receipt_path(Layout(plan.out), shard))


def test_entries_that_cannot_be_read_end_the_series(plan, monkeypatch):
    fetch, failed = shard_groups.fetch_entries, plan.shards[2]

    def fail(out, shard):
        if shard == failed:
            raise StoreError("no answer")
        return fetch(out, shard)

    with monkeypatch.context() as patch:
        patch.setattr(shard_groups, "fetch_entries", fail)
        with pytest.raises(StoreError, match="no answer"):
            list(write_pipelined(plan.shards, Job.of_plan(plan)))
    finished = list_finished(plan)
    assert finished == list(plan.shards[: len(finished)])
    assert 1 <= len(finished) <= 2
    list(write_pipelined(plan.shards[len(finished) :], Job.of_plan(plan)))
    assert list_finished(plan) == list(plan.shards)


@pytest.mark.parametrize("number", range(1, 21, 3))
def test_a_series_that_is_killed_in_a_store_is_gone_on_with(
    s3_server, images, tmp_path, monkeypatch, number
):
    alone = write_folder(images, tmp_path / "alone", OPTIONS)
    out = s3_server.path(uuid.uuid4().hex)
    draft = propose(images, OPTIONS, always_sample=False).draft
    plan = write_plan(draft, OPTIONS, images=images, out=out)
    with monkeypatch.context() as patch:
        kill_at(patch, number)
        with contextlib.suppress(KilledError):
            list(write_pipelined(plan.shards, Job.of_plan(plan)))
    finished = list_finished(plan)
    list(write_pipelined([s for s in plan.shards if s not in finished], Job.of_plan(plan)))
    assert commit(plan) == commit(alone)
    for path in alone.out.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


def open_full(**_):
    return Path("/dev/full").open("r+b")


@pytest.mark.parametrize("size", [(8, 8), (256, 256)])  # left in a buffer, or not
def test_a_full_disk_is_told_where_images_are_read_in_order(images, tmp_path, monkeypatch, size):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(images, ".")
    options = dataclasses.replace(OPTIONS, source="archive", image_size=size)
    draft = propose(tmp_path / "a.tar.gz", options, always_sample=False).draft
    plan = write_plan(draft, options, images=tmp_path / "a.tar.gz", out=tmp_path / "out")
    monkeypatch.setattr(tempfile, "TemporaryFile", open_full)
    with pytest.raises(OutputError, match="No space left"):
        shard_groups.write_together(plan.shards[:1], Job.of_plan(plan))


def test_what_sending_takes_is_counted(plan, monkeypatch):
    publish = disk.publish

    def publish_slowly(temporary, path, *, exclusive):
        time.sleep(0.05)
        publish(temporary, path, exclusive=exclusive)

    monkeypatch.setattr(disk, "publish", publish_slowly)
    for _, cost in write_pipelined(plan.shards, Job.of_plan(plan)):
        assert cost.msec["write"] > 100


@pytest.mark.parametrize("broken", [0, 2, 4])
def test_a_shard_that_cannot_be_sent_ends_the_series_and_costs_none_before_it(
    images, plan, monkeypatch, broken
):
    publish = disk.publish

    def fail(temporary, path, *, exclusive):
        if path.name == plan.shards[broken].name:
            raise OSError(28, "No space left on device", str(path))
        publish(temporary, path, exclusive=exclusive)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "publish", fail)
        with pytest.raises(OutputError, match="No space left"):
            list(write_pipelined(plan.shards, Job.of_plan(plan)))
    finished = list_finished(plan)
    # The next one was converted by then.
    expected = [*plan.shards[:broken], *plan.shards[broken + 1 : broken + 2]]
    assert finished == expected
    assert list(Layout(plan.out).scratch.iterdir()) == []
    left = [shard for shard in plan.shards if shard not in finished]
    list(write_pipelined(left, Job.of_plan(plan)))
    assert list_finished(plan) == list(plan.shards)


def test_an_image_that_ends_the_conversion_leaves_the_shards_before_it_finished(plan):
    job = dataclasses.replace(
        Job.of_plan(plan), options=dataclasses.replace(OPTIONS, on_error="fail")
    )
    threads = threading.active_count()
    with pytest.raises(ShardmillError, match=r"a/bad\.png cannot be converted"):
        list(write_pipelined(plan.shards, job))
    finished = {shard.name for shard in list_finished(plan)}
    bad = next(
        number
        for number, shard in enumerate(plan.shards)
        if any("bad" in entry.path for entry, _ in read_entries(plan.out, shard))
    )
    assert finished == {shard.name for shard in plan.shards[:bad]}
    assert threading.active_count() <= threads


def test_the_interpreter_is_given_back_soon_and_only_meanwhile(plan):
    usual = sys.getswitchinterval()
    told = write_pipelined(plan.shards, Job.of_plan(plan))
    next(told)
    assert sys.getswitchinterval() < usual / 10
    told.close()
    assert sys.getswitchinterval() == usual


def test_what_is_told_of_costs_costs_no_shard(plan, monkeypatch):
    def fail(*_):
        raise OutputError("no room")

    monkeypatch.setattr(costs, "write_file", fail)
    list(write_pipelined(plan.shards, Job.of_plan(plan)))
    assert list_finished(plan) == list(plan.shards)


def test_in_a_store_a_receipt_comes_after_its_shard_and_index(server, images, monkeypatch):
    out = server.path(uuid.uuid4().hex)
    draft = propose(images, OPTIONS, always_sample=False).draft
    plan = write_plan(draft, OPTIONS, images=images, out=out)
    put, sent = object_requests.put_object, []

    def note(path, stream):
        put(path, stream)
        sent.append(path)

    monkeypatch.setattr(object_requests, "put_object", note)
    list(write_pipelined(plan.shards, Job.of_plan(plan)))
    for shard in plan.shards:
        names = (shard.name, name_index(shard.name))
        receipt = sent.index(receipt_path(Layout(out), shard))
        assert all(sent.index(out / name) < receipt for name in names)
    assert list_finished(plan) == list(plan.shards)


@pytest.mark.parametrize(
    ("far", "expected"),
    [({}, False), ({"images": 1}, True), ({"out": 1}, True), ({"masks": 1}, True)],
)
def test_far_is_what_lies_in_a_store(tmp_path, far, expected):
    address = ObjectPath("s3", "bucket", "a")
    options = dataclasses.replace(OPTIONS, mask_dir=str(address) if "masks" in far else None)
    job = Job(
        images=address if "images" in far else tmp_path / "a",
        out=ObjectPath("s3", "bucket", "b") if "out" in far else tmp_path / "b",
        options=options,
    )
    assert uses_store(job) == expected
