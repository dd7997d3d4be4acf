"""Verification: whatever happens to a file of a data set is found, and the file is named."""

import dataclasses
import hashlib
import itertools
import os
import re
import shutil
import threading
from pathlib import Path

import pytest
from conftest import convert_folder, encode_image, make_image, write_folder, write_image
from damaging import EXHAUSTIVE

from converter.errors import DatasetError
from converter.format.examples import decode_example, encode_example
from converter.format.indexes import format_line
from converter.format.manifest import Manifest, parse_manifest, read_manifest
from converter.format.tfrecords import frame_record, read_records
from converter.options import ConvertOptions
from converter.sources.scan import Originals
from converter.storage.files import Layout, name_index
from converter.upkeep import verification
from converter.upkeep.contents import read_sources
from converter.upkeep.shard_reports import Fault, Report
from converter.upkeep.verification import (
    MAX_FAULTS,
    Check,
    check_shard,
    run_check,
    verify_dataset,
)
from converter.writing.shard_writer import receipt_path
from pipelines import repair, verify

FILES = [
    "dataset_info.json",
    "features.json",
    "image.class.label.labels.txt",
    "labels.txt",
    "manifest.json",
    "notes.jsonl",
    "rejects.jsonl",
    "train-00000-of-00002.tfindex",
    "train-00000-of-00002.tfrecord",
    "train-00001-of-00002.tfindex",
    "train-00001-of-00002.tfrecord",
]
EMPTY = "notes.jsonl"
LEFT_OVER = "is left over from a conversion: shardmill clean removes it"
ONE, TWO = "train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 6 images of 2x2 pixels in 2 shards; read only."""
    images = tmp_path_factory.mktemp("images")
    for seed in range(6):
        (images / "ab"[seed % 2]).mkdir(exist_ok=True)
        image = encode_image(make_image(seed, 2, 2), "PNG")
        (images / "ab"[seed % 2] / f"{seed}.png").write_bytes(image)
    (images / "skipped.png").touch()
    out = tmp_path_factory.mktemp("tiny") / "set"
    convert_folder(images, out, ConvertOptions(image_size=(2, 2), encoding="raw", num_shards=2))
    return out


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return shutil.copytree(tiny, tmp_path / "copy")


def find_files(folder: Path) -> set[str]:
    """The files that faults are reported of; a damaged manifest is an error of its own."""
    try:
        return {fault.file for fault in verify_dataset(folder)}
    except DatasetError as error:
        return {"manifest.json"} if str(error).startswith(f"{folder}/manifest.json ") else set()


def vouch(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest` with the hashes of the current files, as an attacker would."""
    shards = []
    for shard in manifest.shards:
        data, index = ((folder / n).read_bytes() for n in (shard.name, name_index(shard.name)))
        shards.append(
            dataclasses.replace(
                shard,
                sha256=hashlib.sha256(data).hexdigest(),
                index_bytes=len(index),
                index_sha256=hashlib.sha256(index).hexdigest(),
            )
        )
    manifest = dataclasses.replace(manifest, shards=tuple(shards))
    (folder / "manifest.json").write_bytes(manifest.to_bytes())


def test_a_whole_data_set_has_no_fault(tiny, converted):
    assert sorted(path.name for path in tiny.iterdir()) == FILES
    assert verify_dataset(tiny) == []
    assert verify_dataset(converted) == []


def test_shards_are_announced_in_order(converted):
    announced, manifest = [], read_manifest(converted)
    assert run_check(Check(folder=converted, manifest=manifest), announced.append) == []
    assert announced == list(manifest.shards)


@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_are_found_in_their_file(copy, name):
    path = copy / name
    data = path.read_bytes()
    # Else every byte of the short files, every seventh of the others, each bit of a byte in turn.
    step = 1 if EXHAUSTIVE or len(data) < 300 else 7
    for number, position in enumerate(range(0, len(data), step)):
        for bit in range(8) if EXHAUSTIVE else [number % 8]:
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            assert find_files(copy) == {name}, (position, bit)


@pytest.mark.parametrize(
    "name", [name for name in FILES if name != "notes.jsonl"]
)  # there is nothing in it
def test_cuts_and_additions_are_found_in_their_file(copy, name):
    path = copy / name
    data = path.read_bytes()
    for size in range(len(data)) if EXHAUSTIVE else (0, 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        assert find_files(copy) == {name}, size
    path.write_bytes(data + b"\n")
    assert find_files(copy) == {name}


@pytest.mark.parametrize("name", sorted(set(FILES) - {"manifest.json"}))
def test_a_missing_file_is_found(copy, name):
    (copy / name).unlink()
    assert verify_dataset(copy) == [Fault(name, "is missing")]


def test_a_missing_manifest_is_an_error(copy):
    (copy / "manifest.json").unlink()
    with pytest.raises(DatasetError, match=r"no finished data set: .* manifest\.json"):
        verify_dataset(copy)


@pytest.mark.parametrize(
    "name", ["train-00002-of-00003.tfrecord", "notes.txt", "manifest.json.bak", ".hidden", "ü"]
)
def test_an_extra_file_is_found(copy, name):
    (copy / name).touch()
    assert verify_dataset(copy) == [Fault(name, "does not belong to the data set")]


def test_a_left_over_work_folder_is_found(copy):
    (copy / ".shardmill").mkdir()
    assert verify_dataset(copy) == [Fault(".shardmill", LEFT_OVER)]


@pytest.mark.parametrize("suffixes", [(".tfrecord",), (".tfrecord", ".tfindex")])
def test_swapped_shards_are_found(copy, suffixes):
    for suffix in suffixes:
        one, two = (Path(copy / name).with_suffix(suffix) for name in (ONE, TWO))
        one.rename(copy / "aside")
        two.rename(one)
        (copy / "aside").rename(two)
    assert {ONE, TWO} <= find_files(copy)


def test_the_index_of_another_shard_is_found(copy):
    source = copy / name_index(TWO)
    source.write_bytes(source.read_bytes().replace(b"0 ", b"1 ", 1))
    shutil.copy(source, copy / name_index(ONE))
    assert find_files(copy) == {name_index(ONE), name_index(TWO)}


def test_a_file_of_another_run_is_found(copy, tiny):
    (copy / "labels.txt").write_bytes(b"b\na\n")
    detail = "its checksum does not match: bytes were changed"
    assert verify_dataset(copy) == [Fault("labels.txt", detail)]
    shutil.copy(tiny / "labels.txt", copy / "labels.txt")
    assert verify_dataset(copy) == []


def test_a_folder_in_place_of_a_file_is_found(copy):
    (copy / ONE).unlink()
    (copy / ONE).mkdir()
    assert find_files(copy) == {ONE}


def test_a_damaged_record_is_named(copy):
    path = copy / ONE
    data = bytearray(path.read_bytes())
    source = read_path(copy, 1)
    start, size = map(int, (copy / name_index(ONE)).read_bytes().splitlines()[1].split())
    data[start + size - 5] ^= 1  # the width: the name of the original can still be read
    path.write_bytes(data)
    assert verify_dataset(copy) == [
        Fault(ONE, "its checksum does not match: bytes were changed"),
        Fault(
            ONE,
            f"damaged record at byte {start} (from {source!r}): "
            "checksum of the payload does not match",
            record=1,
        ),
    ]


def read_path(folder, number):
    """The original of a record, as an untouched copy of the shard names it."""
    (shard,) = [shard for shard in read_manifest(folder).shards if shard.name == ONE]
    return read_sources(folder, shard)[number].path


def flip_payloads(folder, numbers):
    data = bytearray((folder / ONE).read_bytes())
    starts = [int(line.split()[0]) for line in (folder / name_index(ONE)).read_bytes().splitlines()]
    for number in numbers:
        data[starts[number] + 20] ^= 1
    (folder / ONE).write_bytes(data)
    return starts


def test_every_damaged_record_is_named_with_its_original(copy):
    paths = [read_path(copy, number) for number in (0, 2)]
    starts = flip_payloads(copy, (0, 2))
    _, *named = verify_dataset(copy)
    assert named == [
        Fault(
            ONE,
            f"damaged record at byte {starts[number]} (from {path!r}): "
            "checksum of the payload does not match",
            record=number,
        )
        for number, path in zip((0, 2), paths, strict=True)
    ]


def test_without_a_whole_index_the_first_damaged_record_is_named(copy):
    flip_payloads(copy, (0, 2))
    (copy / name_index(ONE)).unlink()
    found = [(fault.detail, fault.record) for fault in verify_dataset(copy)]
    assert found == [
        ("its checksum does not match: bytes were changed", None),
        ("is missing", None),
        ("damaged record at byte 0: checksum of the payload does not match", 0),
    ]


def test_an_index_that_the_manifest_vouches_for_is_compared_all_the_same(copy):
    lines = (copy / name_index(ONE)).read_bytes().splitlines()
    sizes = [int(line.split()[1]) for line in lines]
    wrong = [sizes[0] + 1, sizes[1] - 1, *sizes[2:]]
    offsets = [sum(wrong[:number]) for number in range(len(wrong))]
    (copy / name_index(ONE)).write_text(
        "".join(f"{offset} {size}\n" for offset, size in zip(offsets, wrong, strict=True))
    )
    vouch(copy, read_manifest(copy))
    assert verify_dataset(copy) == [
        Fault(name_index(ONE), "does not match the records of its shard")
    ]
    (copy / name_index(ONE)).write_bytes(b"no index\n")
    vouch(copy, read_manifest(copy))
    assert verify_dataset(copy) == [Fault(name_index(ONE), "b'no index' is not a line of an index")]


def test_records_that_the_manifest_vouches_for_are_checked_all_the_same(copy):
    data = bytearray((copy / ONE).read_bytes())
    data[-1] ^= 1
    (copy / ONE).write_bytes(data)
    vouch(copy, read_manifest(copy))
    [fault] = verify_dataset(copy)
    assert (fault.file, fault.record) == (ONE, 2)
    assert fault.detail.endswith("(from 'a/0.png'): checksum of the payload does not match")


def test_records_are_counted(copy):
    manifest = read_manifest(copy)
    one, two = manifest.shards
    shards = (dataclasses.replace(one, records=2), dataclasses.replace(two, records=4))
    vouch(copy, dataclasses.replace(manifest, shards=shards))
    assert verify_dataset(copy) == [
        Fault(ONE, "holds 3 records, expected 2"),
        Fault(TWO, "holds 3 records, expected 4"),
    ]


def test_every_fault_is_listed_in_the_order_of_the_manifest(copy):
    (copy / ONE).unlink()
    (copy / name_index(TWO)).write_bytes(b"")
    (copy / "labels.txt").unlink()
    (copy / "extra").touch()
    assert [fault.file for fault in verify_dataset(copy)] == [
        ONE, name_index(TWO), "labels.txt", "extra",
    ]  # fmt: skip


def test_a_quick_look_finds_sizes_and_names_and_reads_nothing(copy):
    (copy / ONE).write_bytes(bytes((copy / ONE).stat().st_size))
    assert verify_dataset(copy, quick=True) == []
    (copy / ONE).write_bytes(b"short")
    (copy / TWO).unlink()
    (copy / "labels.txt").write_bytes(b"x")
    (copy / "extra").touch()
    assert {fault.file for fault in verify_dataset(copy, quick=True)} == {
        ONE, TWO, "labels.txt", "extra",
    }  # fmt: skip


def rewrite(folder: Path, number: int = 1, **changes: object) -> None:
    """Changes features of one record of the first shard, checksums, index and manifest with it."""
    manifest = read_manifest(folder)
    shard = manifest.shards[0]
    with open(folder / shard.name, "rb") as file:
        records = [decode_example(payload) for _, payload in read_records(file, "s", shard.bytes)]
    for name, value in changes.items():
        assert f"image/{name}" in records[number]
        records[number][f"image/{name}"] = [value]
    framed = [frame_record(encode_example(record)) for record in records]
    bounds = [0, *itertools.accumulate(map(len, framed))]
    lines = (format_line(start, len(record)) for start, record in zip(bounds, framed, strict=False))
    (folder / shard.name).write_bytes(b"".join(framed))
    (folder / name_index(shard.name)).write_bytes(b"".join(lines))
    new = dataclasses.replace(shard, bytes=bounds[-1], max_record_bytes=max(map(len, framed)))
    grown = new.bytes - shard.bytes
    split = manifest.splits[shard.split]
    vouch(
        folder,
        dataclasses.replace(
            manifest,
            shards=(new, *manifest.shards[1:]),
            splits={
                **manifest.splits,
                shard.split: dataclasses.replace(split, bytes=split.bytes + grown),
            },
        ),
    )


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"class/label": 7}, "label 7 is out of range: there are 2 classes"),
        ({"class/text": b"z"}, r"label \d does not go with class b'z'"),
        ({"height": 3}, "image of 3x2x3, where the manifest states 2x2x3"),
        ({"channels": 1}, "image of 2x2x1, where the manifest states 2x2x3"),
        ({"encoded": b"123"}, "image does not decode: 3 raw bytes, expected 12"),
        ({"format": b"gif"}, "image does not decode: stored as 'gif', which is unsupported"),
        ({"format": b"jpeg"}, "image does not decode: UnidentifiedImageError: .*"),
        ({"key/sha256": 1}, "image/key/sha256 is not one value of type bytes"),
        ({"width": b"2"}, "image/width is not one value of type int"),
    ],
)
def test_a_record_that_does_not_fit_the_manifest_is_named(copy, changes, detail):
    rewrite(copy, **changes)
    [fault] = verify_dataset(copy)
    assert (fault.file, fault.record) == (ONE, 1)
    assert re.fullmatch(rf"record at byte \d+: {detail}", fault.detail), fault


def test_an_image_that_does_not_decode_is_found_unless_only_headers_are_asked_for(
    converted, tmp_path
):
    copy = shutil.copytree(converted, tmp_path / "copy")
    shard = read_manifest(copy).shards[0]
    with open(copy / shard.name, "rb") as file:
        _, payload = next(read_records(file, shard.name, shard.bytes))
    image = bytearray(decode_example(payload)["image/encoded"][0])
    image[-20] ^= 1
    rewrite(copy, 0, encoded=bytes(image))
    [fault] = verify_dataset(copy)
    assert fault.record == 0
    assert "record at byte 0: image does not decode: SyntaxError: broken PNG" in fault.detail
    assert verify_dataset(copy, decode=False) == []
    rewrite(copy, 0, encoded=encode_image(make_image(1, 16, 21), "PNG"))
    [fault] = verify_dataset(copy, decode=False)
    assert fault.detail.endswith("image does not decode: 16x21 pixels, stated are 16x20")


def test_counts_are_compared_with_the_records(copy):
    manifest = read_manifest(copy)
    split = dataclasses.replace(manifest.splits["train"], labels=(2, 4))
    image = dataclasses.replace(manifest.image, formats={"png": 6})
    vouch(copy, dataclasses.replace(manifest, splits={"train": split}, image=image))
    assert verify_dataset(copy) == [
        Fault("manifest.json", "split train: label 0 is on 3 records, stated are 2"),
        Fault("manifest.json", "split train: label 1 is on 3 records, stated are 4"),
        Fault("manifest.json", "formats are {'raw': 6}, stated are {'png': 6}"),
    ]
    image = dataclasses.replace(manifest.image, height=None, max_height=5)
    vouch(copy, dataclasses.replace(manifest, image=image))
    assert verify_dataset(copy) == [Fault("manifest.json", "images are up to 2x2, stated is 5x2")]


def test_many_damaged_records_are_counted_and_not_all_named(tmp_path):
    for seed in range(30):
        write_image(tmp_path / "images" / "a" / f"{seed}.png", seed)
    options = ConvertOptions(image_size=(2, 2), encoding="raw", num_shards=1)
    convert_folder(tmp_path / "images", tmp_path / "out", options)
    manifest = read_manifest(tmp_path / "out")
    vouch(tmp_path / "out", dataclasses.replace(manifest, classes=("b",)))
    faults = verify_dataset(tmp_path / "out")
    assert len(faults) == MAX_FAULTS + 1
    assert faults[-1].detail == "10 more records do not fit the manifest"


def test_originals_are_compared_with_what_was_read(tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    for seed in range(8):
        write_image(images / "ab"[seed % 2] / f"{seed} ü.png", seed)
    options = ConvertOptions(image_size=(2, 2), encoding="raw", num_shards=2)
    convert_folder(images, out, options)
    assert verify_dataset(out, originals=images) == []
    (images / "a" / "2 ü.png").unlink()
    write_image(images / "b" / "3 ü.png", 4)
    write_image(images / "b" / "new.png", 4)
    assert verify_dataset(out) == []
    assert sorted(verify_dataset(out, originals=images)) == [
        Fault("a/2 ü.png", "the original is gone", original=True),
        Fault("b/3 ü.png", "the original has other content", original=True),
    ]


def test_of_an_unfinished_conversion_several_shards_are_checked_at_once(tmp_path, monkeypatch):
    for seed in range(4):
        write_image(tmp_path / "images" / "a" / f"{seed}.png", seed)
    options = ConvertOptions(image_size=(2, 2), encoding="raw", num_shards=2)
    plan = write_folder(tmp_path / "images", tmp_path / "out", options)
    both, real = threading.Barrier(2, timeout=10), verification.hash_file

    def meet(path):
        if path.suffix == ".tfrecord":
            both.wait()
        return real(path)

    monkeypatch.setattr(verification, "hash_file", meet)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert [fault.file for fault in verify_dataset(plan.out)] == ["manifest.json"]


def test_of_an_unfinished_conversion_what_is_finished_is_checked(tmp_path):
    for seed in range(8):
        write_image(tmp_path / "images" / "a" / f"{seed}.png", seed)
    options = ConvertOptions(image_size=(2, 2), encoding="raw", num_shards=4)
    plan = write_folder(tmp_path / "images", tmp_path / "out", options)
    receipts = [receipt_path(Layout(plan.out), shard) for shard in plan.shards]
    receipts[0].unlink()
    unfinished = Fault(
        "manifest.json",
        "is missing: the conversion is not finished, 3 of 4 shards are; run the same convert "
        "command again to go on",
    )
    assert verify_dataset(plan.out) == [unfinished]
    (plan.out / plan.shards[1].name).write_bytes(b"short")
    path = plan.out / plan.shards[2].name
    path.write_bytes(bytes(path.stat().st_size))
    receipts[3].write_bytes(b"{")
    faults = verify_dataset(plan.out)
    assert [fault.file for fault in faults] == [
        plan.shards[1].name, plan.shards[2].name, receipts[3].name, "manifest.json",
    ]  # fmt: skip
    assert len(verify_dataset(plan.out, quick=True)) == 3


def test_the_lock_of_a_running_replacement_is_no_fault(copy):
    with copy.lock():
        assert verify_dataset(copy) == []


def test_a_report_survives_json(tiny):
    manifest = read_manifest(tiny)
    check = Check(folder=tiny, manifest=manifest, originals=Originals(tiny, ConvertOptions()))
    for shard in manifest.shards:
        report = check_shard(shard, check)
        assert report.faults
        assert Report.from_json(report.to_json()) == report


def test_a_data_set_that_is_replaced_meanwhile_is_checked_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest is read, and then its shards are those of another one."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(tiny, old)
    for seed in range(9):
        write_image(tmp_path / "images" / "a" / f"{seed}.png", seed)
    convert_folder(tmp_path / "images", new, ConvertOptions(image_size=(4, 4), num_shards=1))
    left = [new]

    def read(folder: Path) -> Manifest:
        manifest = read_manifest(folder)
        if left:
            shutil.rmtree(folder)
            shutil.copytree(left.pop(), folder)
        return manifest

    monkeypatch.setattr("pipelines.jobs.upkeep.read_manifest", read)
    assert verify(old) == []
    assert not left
    (old / "labels.txt").unlink()
    assert [fault.file for fault in verify(old)] == ["labels.txt"]


def test_the_manifest_is_read_once_for_a_check(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 100,000 shards takes seconds."""
    reads = []

    def parse(data: bytes, path: str) -> Manifest:
        reads.append(path)
        return parse_manifest(data, path)

    monkeypatch.setattr("converter.format.manifest.parse_manifest", parse)
    assert verify(copy) == []
    assert len(reads) == 1
    (copy / "labels.txt").unlink()
    assert [fault.file for fault in verify(copy)] == ["labels.txt"]
    assert len(reads) == 2
    (copy.parent / "images").mkdir()
    assert repair(copy, copy.parent / "images").repaired == ("labels.txt",)
    assert len(reads) == 3
