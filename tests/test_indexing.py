"""Indexes for files that anything wrote: right, or not written, whatever the file holds."""

import dataclasses
import gzip
import os
import re
import struct
import subprocess
import sys
import zlib
from itertools import pairwise

import pytest

from converter.errors import DatasetError, OutputError, RecordError, UsageError
from converter.format import indexing
from converter.format.indexes import parse_index
from converter.format.indexing import IndexedFile, find_files, index_files, index_shard
from converter.format.manifest import read_manifest
from converter.format.tfrecords import PIECE_BYTES, compute_masked_crc, frame_record
from converter.storage.files import name_index

PAYLOADS = [b"first", b"", b"the third record"]
RECORDS = [frame_record(payload) for payload in PAYLOADS]
SHARD = b"".join(RECORDS)
BOUNDS = [0, 21, 37, 69]
INDEX = b"0 21\n21 16\n37 32\n"


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "s.tfrecord"
    path.write_bytes(SHARD)
    return path


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


def make_header(length: int) -> bytes:
    data = struct.pack("<Q", length)
    return data + struct.pack("<I", compute_masked_crc(data))


@pytest.mark.parametrize("payloads", [True, False])
@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("s.tfrecord", "s.tfindex"),
        ("mnist-train.tfrecord-00000-of-00001", "mnist-train.tfrecord-00000-of-00001.tfindex"),
        ("bare ü", "bare ü.tfindex"),
    ],
)
def test_a_file_is_indexed_beside_it(tmp_path, name, index, payloads):
    path = tmp_path / name
    path.write_bytes(SHARD)
    done = index_shard(path, payloads=payloads)
    assert done == IndexedFile(path, tmp_path / index, records=3, bytes=69, written=True)
    assert (tmp_path / index).read_bytes() == INDEX
    assert list_names(tmp_path) == sorted([name, index])


def test_an_empty_file_has_an_empty_index(tmp_path):
    (tmp_path / "s.tfrecord").touch()
    assert index_shard(tmp_path / "s.tfrecord").records == 0
    assert (tmp_path / "s.tfindex").read_bytes() == b""


def test_the_index_of_a_converted_shard_is_the_one_that_lies_there(converted):
    paths = find_files([str(converted)])
    assert len(paths) == len(read_manifest(converted).shards)
    assert not any(outcome.written for outcome in index_files(paths))


@pytest.mark.parametrize("size", [PIECE_BYTES - 16, PIECE_BYTES, 2 * PIECE_BYTES + 1])
def test_payloads_of_several_pieces_are_checked(shard, size):
    record = frame_record(bytes(range(256)) * (size // 256) + bytes(size % 256))
    shard.write_bytes(record + SHARD)
    assert index_shard(shard).records == 4
    for position in (12, len(record) // 2, len(record) - 1):
        damaged = bytearray(record + SHARD)
        damaged[position] ^= 4
        shard.write_bytes(damaged)
        with pytest.raises(RecordError, match=r"record 0\): .* payload"):
            index_shard(shard)


def test_every_flipped_bit_is_found_in_its_record(shard):
    for bit in range(8 * len(SHARD)):
        damaged = bytearray(SHARD)
        damaged[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(damaged)
        with pytest.raises(RecordError) as caught:
            index_shard(shard)
        number = sum(begin <= bit // 8 for begin in BOUNDS) - 1
        error = caught.value
        assert (error.shard, error.record, error.offset) == (str(shard), number, BOUNDS[number])
    assert list_names(shard.parent) == ["s.tfrecord"]


def test_without_payloads_every_flipped_bit_of_a_length_is_found(shard):
    for bit in range(8 * 12):
        damaged = bytearray(SHARD)
        damaged[37 + bit // 8] ^= 1 << bit % 8
        shard.write_bytes(damaged)
        with pytest.raises(RecordError, match=r"byte 37 \(record 2\): .* length"):
            index_shard(shard, payloads=False)
    shard.write_bytes(SHARD[:-1] + b"x")
    assert index_shard(shard, payloads=False).records == 3


@pytest.mark.parametrize("payloads", [True, False])
def test_every_cut_is_found_or_leaves_whole_records(shard, payloads):
    for size in range(len(SHARD)):
        shard.write_bytes(SHARD[:size])
        if size in BOUNDS:
            done = index_shard(shard, payloads=payloads, overwrite=True)
            assert done.records == BOUNDS.index(size)
            bounds = parse_index(done.index.read_bytes(), index="i", shard_bytes=size)
            assert bounds.tolist() == BOUNDS[: done.records + 1]
            continue
        with pytest.raises(RecordError) as caught:
            index_shard(shard, payloads=payloads)
        assert caught.value.offset == max(begin for begin in BOUNDS if begin <= size)


@pytest.mark.parametrize("length", [54, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("payloads", [True, False])
def test_a_length_that_lies_is_refused(shard, length, payloads):
    shard.write_bytes(make_header(length) + bytes(57))
    with pytest.raises(
        RecordError, match=rf"^{re.escape(str(shard))}: .* byte 0 \(record 0\): length {length} "
    ):
        index_shard(shard, payloads=payloads)


def test_a_hostile_length_does_not_decide_the_memory(shard):
    """A record of 1 GB that its file has room for, and whose length has the right checksum."""
    size = 10**9
    with open(shard, "wb") as file:
        file.write(make_header(size))
        file.truncate(size + 16)
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from converter.errors import RecordError\n"
        "from converter.format.indexing import index_shard\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: index_shard(Path(sys.argv[1]))\n"
        "except RecordError as error: print(error.detail)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(shard)], capture_output=True, text=True, check=True
    )
    detail, grown_kb = run.stdout.splitlines()
    assert detail == "checksum of the payload does not match"
    assert int(grown_kb) < 20_000
    done = index_shard(shard, payloads=False)
    assert done.index.read_bytes() == b"0 1000000016\n"


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("data", [SHARD, b"", frame_record(os.urandom(50_000))])
def test_a_compressed_file_is_named_as_such(shard, compress, data):
    shard.write_bytes(compress(data))
    with pytest.raises(DatasetError, match=f"^{re.escape(str(shard))} is compressed"):
        index_shard(shard)
    assert list_names(shard.parent) == ["s.tfrecord"]


@pytest.mark.parametrize("length", [0x8B1F, 0x088B1F, 0x9C78, 0x0178, 0xDA78])
def test_a_length_that_looks_like_a_compressed_file_is_a_length(shard, length):
    record = frame_record(bytes(length))
    shard.write_bytes(record)
    assert index_shard(shard).records == 1
    shard.write_bytes(record[:-1] + b"x")
    with pytest.raises(RecordError, match="checksum of the payload"):
        index_shard(shard)


def test_a_file_that_grows_while_it_is_read_is_refused(shard, monkeypatch):
    scan = indexing.scan_records

    def scan_and_append(*arguments, **options):
        yield from scan(*arguments, **options)
        with open(shard, "ab") as file:
            file.write(RECORDS[0])

    monkeypatch.setattr(indexing, "scan_records", scan_and_append)
    with pytest.raises(DatasetError, match="changed while"):
        index_shard(shard)
    assert list_names(shard.parent) == ["s.tfrecord"]


def test_an_index_that_is_right_is_left_alone(shard):
    first = index_shard(shard)
    before = first.index.stat()
    assert index_shard(shard, overwrite=True) == dataclasses.replace(first, written=False)
    after = first.index.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("other", [b"", INDEX[:-1] + b"x", INDEX[:-1], bytes(100)])
def test_another_index_is_replaced_only_when_asked_for(shard, other):
    index = shard.with_name("s.tfindex")
    index.write_bytes(other)
    with pytest.raises(
        OutputError, match=f"^{re.escape(str(index))} exists already .* --overwrite"
    ):
        index_shard(shard)
    assert index.read_bytes() == other
    assert index_shard(shard, overwrite=True).written
    assert index.read_bytes() == INDEX
    assert list_names(shard.parent) == ["s.tfindex", "s.tfrecord"]


def test_what_cannot_be_read_or_written_is_one_line(tmp_path, shard):
    with pytest.raises(DatasetError, match=r"missing .*: No such file"):
        index_shard(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(DatasetError, match=r"is not a file$"):
            index_shard(tmp_path / name)
    (tmp_path / "s.tfindex").mkdir()
    with pytest.raises(OutputError, match=r"s\.tfindex exists already"):
        index_shard(shard)
    with pytest.raises(OutputError, match=": Is a directory"):
        index_shard(shard, overwrite=True)


def test_many_files_are_indexed_in_order_and_one_that_fails_stops_none(tmp_path):
    paths = [tmp_path / f"{number}.tfrecord" for number in range(9)]
    for number, path in enumerate(paths):
        path.write_bytes(SHARD * number)
    paths[4].write_bytes(SHARD[:-1])
    told = []
    outcomes = index_files(paths, on_file=lambda *told_of: told.append(told_of))
    assert told == list(zip(paths, outcomes, strict=True))
    assert isinstance(outcomes.pop(4), RecordError)
    assert [done.records for done in outcomes] == [0, 3, 6, 9, 15, 18, 21, 24]
    assert all(done.index.exists() for done in outcomes)
    assert index_files([]) == []


def test_files_that_would_share_an_index_are_refused(tmp_path):
    paths = [tmp_path / "s", tmp_path / "s.tfrecord"]
    with pytest.raises(
        UsageError,
        match=f"^{re.escape(str(paths[0]))} and {re.escape(str(paths[1]))} .* same index",
    ):
        index_files(paths)
    with pytest.raises(UsageError, match=r"^workers 0 .* at least 1$"):
        index_files([], workers=0)


def test_files_are_found_by_name_folder_and_pattern(tmp_path, monkeypatch):
    names = [
        "b.tfrecord", "a.tfrecord", "a.tfindex", "c.tfrecord-00000-of-00001", "a.tfrecord.idx",
        "c.tfrecord-00000-of-00001.tfindex", "c.tfrecord-00000-of-00001.tfindex.0f", "labels.txt",
        "[x].tfrecord", "more/d.tfrecord",
    ]  # fmt: skip
    (tmp_path / "more").mkdir()
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)

    def find(*patterns):
        return [str(path) for path in find_files(patterns)]

    folder = ["[x].tfrecord", "a.tfrecord", "b.tfrecord", "c.tfrecord-00000-of-00001"]
    assert find(".") == folder
    assert find("b.tfrecord", "./b.tfrecord", ".") == ["b.tfrecord", *folder[:2], folder[3]]
    assert find("*.tfrecord") == folder[:3]
    assert find("c*") == folder[3:]
    assert find("**/*.tfrecord") == [*folder[:3], "more/d.tfrecord"]
    assert find("m*e") == ["more/d.tfrecord"]
    assert find("[x].tfrecord") == ["[x].tfrecord"]
    assert find("labels.txt") == ["labels.txt"]


def test_what_means_no_file_is_said(tmp_path):
    (tmp_path / "s.tfindex").touch()
    for name, message in (
        ("", "holds no file named *.tfrecord*: name the files, or a pattern"),
        ("s.tfindex", "is an index: name the file of records that it belongs to"),
        ("*.gone", "does not exist, and no file matches it as a pattern"),
    ):
        pattern = str(tmp_path / name)
        with pytest.raises(UsageError, match=f"^{re.escape(f'{pattern} {message}')}$"):
            find_files([pattern])


def test_what_tensorflow_writes_is_indexed(tmp_path):
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "theirs.tfrecord-00000-of-00001"
    examples = [
        tf.train.Example(
            features=tf.train.Features(
                feature={"x": tf.train.Feature(int64_list=tf.train.Int64List(value=[0] * number))}
            )
        ).SerializeToString()
        for number in range(50)
    ]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)
    done = index_shard(path)
    data = path.read_bytes()
    bounds = parse_index(done.index.read_bytes(), index="i", shard_bytes=len(data))
    found = [data[begin + 12 : end - 4] for begin, end in pairwise(bounds)]
    assert found == examples


@pytest.mark.parametrize("kind", ["GZIP", "ZLIB"])
def test_what_tensorflow_compresses_is_refused(tmp_path, kind):
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "theirs.tfrecord"
    with tf.io.TFRecordWriter(str(path), kind) as writer:
        writer.write(b"payload")
    with pytest.raises(DatasetError, match="is compressed"):
        index_shard(path)
    assert not (tmp_path / name_index(path.name)).exists()
