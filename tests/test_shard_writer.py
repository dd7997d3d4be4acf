"""Writing one shard: what the receipt says is what lies there, however often it is written."""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import re
import resource
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import encode_image, make_image, make_record, write_folder, write_image
from PIL import Image

from converter.errors import DatasetError, ImageError, OutputError
from converter.format.examples import decode_example
from converter.format.indexes import parse_index
from converter.format.tfrecords import read_records
from converter.images.conversion import convert_image
from converter.inventory import Entry
from converter.options import ConvertOptions
from converter.planning.plan import Plan, read_entries
from converter.sources.originals import read_source
from converter.storage.files import Layout, name_index
from converter.writing.shard_writer import (
    Job,
    Receipt,
    read_receipt,
    receipt_path,
    write_shard,
)

OTHERS = {"empty", "not_an_image", "other_format", "decode_error", "unsupported_mode", "too_large"}

OPTIONS = ConvertOptions(image_size=(8, 10), encoding="png", num_shards=2)


def write_bad_images(folder: Path) -> None:
    """An image for each reason to refuse one that needs neither a race nor an option."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_bytes(b"no image\n")
    (folder / "cut.png").write_bytes(encode_image(make_image(1), "PNG")[:100])
    Image.new("F", (8, 8), float("nan")).save(folder / "float.tif")
    (folder / "inventory.jpg").write_bytes(encode_image(make_image(1), "PPM"))
    small = encode_image(make_image(1), "GIF")
    (folder / "vast.gif").write_bytes(small[:6] + b"\xff" * 4 + small[10:])


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two shards, with good and bad images."""
    for seed in range(10):
        write_image(tmp_path / "images" / "ab"[seed % 2] / f"{seed} ü.png", seed)
    write_image(tmp_path / "images" / "a" / "photo.jpg", 3, "JPEG")
    write_bad_images(tmp_path / "images" / "b")
    return write_folder(tmp_path / "images", tmp_path / "out", OPTIONS)


def read_tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def read_shard(plan: Plan, name: str) -> list[dict[str, list]]:
    data = (plan.out / name).read_bytes()
    with open(plan.out / name, "rb") as file:
        return [decode_example(payload) for _, payload in read_records(file, name, len(data))]


def test_a_receipt_describes_what_was_written(plan):
    for shard in plan.shards:
        receipt = read_receipt(receipt_path(Layout(plan.out), shard))
        data = (plan.out / shard.name).read_bytes()
        index = (plan.out / name_index(shard.name)).read_bytes()
        offsets = parse_index(index, index="index", shard_bytes=len(data))
        records = read_shard(plan, shard.name)
        labels = [record["image/class/label"][0] for record in records]
        assert receipt == Receipt(
            name=shard.name,
            split="train",
            records=len(records),
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            index_bytes=len(index),
            index_sha256=hashlib.sha256(index).hexdigest(),
            max_record_bytes=max(np.diff(offsets)),
            min_image_size=(8, 10),
            max_image_size=(8, 10),
            formats={"png": len(records)},
            labels=[(label, labels.count(label)) for label in sorted(set(labels))],
            rejects=receipt.rejects,
            frames=0,
            notes=[],
            plan=plan.digest,
        )
        assert len(offsets) == len(records) + 1
        assert receipt.images == shard.records


def test_every_image_is_written_or_rejected_in_plan_order(plan):
    for shard in plan.shards:
        planned = [entry.path for entry, _ in read_entries(plan.out, shard)]
        written = [record["image/source_id"][0].decode() for record in read_shard(plan, shard.name)]
        receipt = read_receipt(receipt_path(Layout(plan.out), shard))
        rejected = [reject["path"] for reject in receipt.rejects]
        assert written == [path for path in planned if path in written]
        assert rejected == [path for path in planned if path in rejected]
        assert sorted(written + rejected) == sorted(planned)


def test_a_record_holds_every_feature(plan):
    source = (plan.images / "b" / "3 ü.png").read_bytes()
    entry = Entry("b/3 ü.png", 1, len(source))
    payload = make_record(entry, "b", plan.images, OPTIONS).payload
    assert decode_example(payload) == {
        "image/encoded": [convert_image(source, OPTIONS).data],
        "image/format": [b"png"],
        "image/height": [8],
        "image/width": [10],
        "image/channels": [3],
        "image/colorspace": [b"RGB"],
        "image/filename": ["3 ü.png".encode()],
        "image/source_id": ["b/3 ü.png".encode()],
        "image/key/sha256": [hashlib.sha256(source).hexdigest().encode()],
        "image/class/label": [1],
        "image/class/text": [b"b"],
    }


def test_names_that_are_not_utf8_are_stored_as_they_are(tmp_path):
    folder, path = os.fsdecode(b"caf\xe9"), os.fsdecode(b"caf\xe9/\xff.png")
    write_image(tmp_path / path, 1)
    size = (tmp_path / path).stat().st_size
    record = make_record(Entry(path, 0, size), folder, tmp_path, OPTIONS)
    features = decode_example(record.payload)
    assert features["image/source_id"] == [b"caf\xe9/\xff.png"]
    assert features["image/filename"] == [b"\xff.png"]
    assert features["image/class/text"] == [b"caf\xe9"]


def test_bad_images_are_rejected_with_their_code(plan):
    receipts = [read_receipt(receipt_path(Layout(plan.out), shard)) for shard in plan.shards]
    rejects = [reject for receipt in receipts for reject in receipt.rejects]
    assert {reject["path"]: reject["code"] for reject in rejects} == {
        "b/cut.png": "decode_error",
        "b/empty.png": "empty",
        "b/float.tif": "unsupported_mode",
        "b/inventory.jpg": "other_format",
        "b/text.png": "not_an_image",
        "b/vast.gif": "too_large",
    }
    details = {reject["code"]: reject["detail"] for reject in rejects}
    assert details["empty"] == "the file has no bytes"
    assert details["not_an_image"] == r"begins with b'no image'"


def test_an_image_that_is_not_what_was_planned_is_rejected(plan):
    folder = plan.images / "a"
    for number in (0, 2, 4):
        (folder / f"{number} ü.png").unlink()
    (folder / "0 ü.png").mkdir()
    os.mkfifo(folder / "4 ü.png")
    size = (folder / "6 ü.png").stat().st_size
    write_image(folder / "6 ü.png", 6, "BMP")
    receipts = [write_shard(shard, Job.of_plan(plan)) for shard in plan.shards]
    rejects = [reject for receipt in receipts for reject in receipt.rejects]
    assert {r["path"]: (r["code"], r["detail"]) for r in rejects if r["path"][0] == "a"} == {
        "a/0 ü.png": ("unreadable", "not a file"),
        "a/2 ü.png": ("vanished", "the file is gone since the images were listed"),
        "a/4 ü.png": ("unreadable", "not a file"),
        "a/6 ü.png": ("changed", f"{size} bytes when planned, 2358 now"),
    }
    assert sum(receipt.images for receipt in receipts) == plan.records


def test_an_image_that_changes_while_it_is_read_is_rejected(plan, monkeypatch):
    path = plan.images / "a" / "0 ü.png"
    real, calls = os.fstat, []

    def touch_between(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            os.utime(path, ns=(0, 0))
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", touch_between)
    with pytest.raises(ImageError, match=r"^changed: .* while"):
        read_source("a/0 ü.png", plan.images)


def test_a_file_that_may_not_be_read_is_rejected(plan):
    secret = plan.images / "a" / "0 ü.png"
    secret.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read every file
    try:
        with pytest.raises(ImageError, match=r"^unreadable: Permission denied$"):
            read_source("a/0 ü.png", plan.images)
    finally:
        os.seteuid(user)


def test_a_shard_without_a_single_good_image_is_an_empty_file(tmp_path):
    write_bad_images(tmp_path / "images" / "bad")
    plan = write_folder(tmp_path / "images", tmp_path / "out", ConvertOptions(num_shards=1))
    receipt = read_receipt(receipt_path(Layout(plan.out), plan.shards[0]))
    nothing = hashlib.sha256(b"").hexdigest()
    assert dataclasses.replace(receipt, rejects=[]) == Receipt(
        name="train-00000-of-00001.tfrecord", split="train", records=0,
        bytes=0, sha256=nothing, index_bytes=0, index_sha256=nothing,
        max_record_bytes=0, min_image_size=(0, 0), max_image_size=(0, 0), formats={}, labels=[],
        rejects=[], frames=0, notes=[], plan=plan.digest,
    )  # fmt: skip
    assert {reject["code"] for reject in receipt.rejects} == OTHERS
    assert (plan.out / receipt.name).read_bytes() == b""


def test_milling_again_gives_the_same_bytes(plan):
    before = read_tree(plan.out)
    for shard in plan.shards:
        write_shard(shard, Job.of_plan(plan))
    assert read_tree(plan.out) == before


def test_milling_in_two_processes_at_once_gives_the_same_bytes(plan):
    before = read_tree(plan.out)
    job = Job.of_plan(plan)
    context = multiprocessing.get_context("spawn")
    both_are_up = context.Barrier(2)
    with ProcessPoolExecutor(2, context, initializer=both_are_up.wait) as pool:
        futures = [pool.submit(write_shard, shard, job) for shard in plan.shards for _ in range(10)]
        receipts = [future.result() for future in futures]
    assert receipts[::10] == [
        read_receipt(receipt_path(Layout(plan.out), shard)) for shard in plan.shards
    ]
    assert all(receipts[n] == receipts[n - n % 10] for n in range(20))
    assert read_tree(plan.out) == before


def test_out_of_file_handles_is_no_reason_to_reject_an_image(plan):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = os.dup(0)
    os.close(opened)
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            make_record(Entry("a/0 ü.png", 0, 0), "a", plan.images, OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_an_output_that_cannot_be_written_is_an_error(plan):
    shard = plan.shards[0]
    (plan.out / shard.name).unlink()
    (plan.out / shard.name).mkdir()
    with pytest.raises(OutputError, match=": Is a directory; finished"):
        write_shard(shard, Job.of_plan(plan))


def test_the_receipt_is_the_last_file_of_a_shard(plan):
    shard = plan.shards[0]
    index, receipt = plan.out / name_index(shard.name), receipt_path(Layout(plan.out), shard)
    receipt.unlink()
    index.unlink()
    index.mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        write_shard(shard, Job.of_plan(plan))
    assert not receipt.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b'{"min_image_size": [1, 1], "max_image_size": [1], "labels": []}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_damaged_receipt_is_refused(tmp_path, content):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"^{re.escape(str(path))}: .* as a receipt: "):
        read_receipt(path)


def test_a_receipt_with_a_missing_value_is_refused(plan):
    path = receipt_path(Layout(plan.out), plan.shards[0])
    content = json.loads(path.read_bytes())
    for key in content:
        rest = {name: value for name, value in content.items() if name != key}
        path.write_text(json.dumps(rest))
        with pytest.raises(DatasetError, match=r"as a receipt: .*digest"):
            read_receipt(path)


@pytest.mark.parametrize(
    "change", [{"labels": [[99, 20]]}, {"formats": 5}, {"records": 7}, {"rejects": [[]]}]
)
def test_a_receipt_that_says_something_else_is_refused(plan, change):
    path = receipt_path(Layout(plan.out), plan.shards[0])
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(DatasetError, match=r"as a receipt: .*digest"):
        read_receipt(path)
