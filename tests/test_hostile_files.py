"""Data sets that were made to harm: checksums are right, and nothing else is."""

import hashlib
import json
import os
import socket
import struct
import sys
import time

import pytest
from conftest import encode_image, make_image
from damaging import EXHAUSTIVE, MAX_GROWTH_MB, WAYS, Hurt, Judge, note_growth, run_apart
from forging import forge, make_payload, resign, sign

from converter import DatasetError, RecordError, UsageError
from converter.format.indexes import format_line
from converter.format.tfrecords import FRAMING_BYTES, compute_masked_crc, frame_record
from converter.storage.files import name_index
from reader import ReadOptions, open_shards, open_tfrecords
from reader.batches.batch_reader import BatchReader
from reader.plan.planning import plan_reading

LENGTHS = [0, 1, 10**9, 10**12, 2**63 - 1, 2**64 - 8, 2**64 - 1]

PICTURE = encode_image(make_image(1), "PNG")


@pytest.fixture
def forged(tmp_path):
    """Four good records in two shards, forged."""
    payloads = [make_payload(PICTURE, number) for number in range(4)]
    return forge(tmp_path / "set", {"train-0": payloads[:2], "train-1": payloads[2:]})


def make_header(length: int) -> bytes:
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", compute_masked_crc(packed))


def grow(*arguments: object) -> str:
    """What reading in a process of its own ends with, if it stays within bounds."""
    said, grown = run_apart(note_growth, *arguments)
    assert int(grown) <= MAX_GROWTH_MB
    return said


def test_a_length_that_lies_is_an_error_of_its_record_alone(forged):
    said, grown = run_apart(note_growth, try_lengths, forged)
    assert said == "gives []"
    assert int(grown) <= MAX_GROWTH_MB


def try_lengths(folder):
    judge = Judge(folder)
    shard = folder / "train-1.tfrecord"
    data = shard.read_bytes()
    (name, _, offset, _) = judge.bounds[3]
    assert name == shard.name
    problems = []
    for length in LENGTHS:
        shard.write_bytes(data[:offset] + make_header(length) + data[offset + 12 :])
        problems += judge.judge_reading(Hurt(frozenset({3})), WAYS)
    return problems


def make_sparse(folder, size):
    """A data set of one record of that size, which is a hole in its file."""
    forge(folder, {"train-0": [b""]})
    shard, index = folder / "train-0.tfrecord", format_line(0, size + FRAMING_BYTES)
    with open(shard, "r+b") as file:
        file.write(make_header(size))
        file.truncate(size + FRAMING_BYTES)
    (folder / "train-0.tfindex").write_bytes(index)
    resign(
        folder, bytes=size + FRAMING_BYTES, max_record_bytes=size + FRAMING_BYTES,
        index_bytes=len(index), index_sha256=hashlib.sha256(index).hexdigest(),
    )  # fmt: skip
    return folder


def read_source(folder):
    return open_shards(folder).source("train")[0]


def read_labels(folder):
    return open_shards(folder).source("train").labels


def read_names(folder):
    return list(open_shards(folder).source("train").file_paths)


def read_batch(folder):
    options = ReadOptions(batch_size=1, max_ram=10**12)
    plan = plan_reading(folder, open_shards(folder).manifest, "train", options)
    return BatchReader(plan).read(0, [0])


def read_batches(folder):
    return list(open_shards(folder).batches("train", batch_size=1, max_ram=10**12))


def read_foreign(folder):
    return open_tfrecords(folder / "*.tfrecord").source()[0]


@pytest.mark.parametrize(
    ("read", "size"),
    [
        (read_source, 2_000_000_000 if EXHAUSTIVE else 100_000_000),
        (read_labels, 100_000_000),
        (read_names, 100_000_000),
        (read_batch, 100_000_000),
        (read_batches, 100_000_000),
        (read_foreign, 100_000_000),
    ],
)
def test_a_file_that_is_a_hole_takes_no_memory(tmp_path, read, size):
    folder = make_sparse(tmp_path / "set", size)
    assert (folder / "train-0.tfrecord").stat().st_blocks < 100
    said = grow(read, folder)
    assert said.startswith("RecordError: train-0.tfrecord: damaged record at byte 0 (record 0): ch")


def test_a_data_set_of_records_that_do_not_fit_into_memory_is_refused(tmp_path):
    folder = make_sparse(tmp_path / "set", 2_000_000_000)
    with pytest.raises(UsageError, match=r"^max_ram 512\.0 MB is too small"):
        plan_reading(folder, open_shards(folder).manifest, "train", ReadOptions(batch_size=1))


def test_an_index_that_is_a_hole_takes_neither_memory_nor_time(tmp_path):
    folder = forge(tmp_path / "set", {"train-0": [b""]})
    records = 10**10
    os.truncate(folder / "train-0.tfrecord", 16 * records)
    os.truncate(folder / "train-0.tfindex", 38 * records)
    resign(folder, records=records, bytes=16 * records, index_bytes=38 * records)
    begun = time.monotonic()
    said = grow(read_source, folder)
    assert "train-0.tfindex: b'0 16\\n\\x00\\x00\\x00" in said or "is not a line" in said
    assert time.monotonic() - begun < 20


SIZES = [100, 200, 300]


@pytest.mark.parametrize(
    "lines",
    [
        [(0, 100), (300, 300), (100, 200)],
        [(0, 100), (0, 100), (100, 500)],
        [(0, 100), (100, 200), (300, 300), (600, 16)],
        [(0, 300), (300, 300)],
        [(0, 600)],
        [(-100, 100), (0, 200), (200, 300)],
        [(0, 100), (100, -200), (-100, 700)],
        [(0, 100), (100, 0), (100, 500)],
    ],
    ids=str,
)
def test_an_index_that_lies_is_refused_though_its_checksum_is_right(tmp_path, lines):
    payloads = [bytes(size - FRAMING_BYTES) for size in SIZES]
    folder = forge(tmp_path / "set", {"train-0": payloads})
    index = b"".join(b"%d %d\n" % line for line in lines)
    (folder / "train-0.tfindex").write_bytes(index)
    resign(folder, index_bytes=len(index), index_sha256=hashlib.sha256(index).hexdigest())
    with pytest.raises(DatasetError, match=r"train-0\.tfindex"):
        read_source(folder)
    with pytest.raises(DatasetError):
        read_labels(folder)


@pytest.mark.parametrize("line", [(301, 300), (299, 301)], ids=str)
def test_an_index_that_moves_a_record_never_gives_another(tmp_path, line):
    folder = forge(tmp_path / "set", {"train-0": [bytes(size - FRAMING_BYTES) for size in SIZES]})
    index = b"0 100\n100 200\n%d %d\n" % line
    (folder / "train-0.tfindex").write_bytes(index)
    resign(folder, index_bytes=len(index), index_sha256=hashlib.sha256(index).hexdigest())
    with pytest.raises(DatasetError, match=r"train-0\.tf(index|record)"):
        read_source(folder)


def test_the_index_of_another_shard_is_refused(tmp_path):
    payloads = [bytes(size - FRAMING_BYTES) for size in SIZES]
    folder = forge(tmp_path / "set", {"train-0": payloads, "train-1": payloads[::-1]})
    (folder / "train-0.tfindex").write_bytes((folder / "train-1.tfindex").read_bytes())
    with pytest.raises(DatasetError, match="is not the index"):
        read_source(folder)


def test_opening_reads_the_manifest_and_not_one_byte_more(forged):
    assert run_apart(watch_opening, forged) == []


def watch_opening(at, folder):
    opened = []
    sys.addaudithook(lambda event, arguments: event == "open" and opened.append(arguments[0]))
    before = count_bytes_read()
    open_shards(folder)
    read = count_bytes_read() - before
    manifest = folder / "manifest.json"
    opened = [str(path) for path in opened if str(path) != "/proc/self/io"]
    # What it says of itself is read too.
    few = read - manifest.stat().st_size < 500
    return [] if few and opened == [str(manifest)] else [f"{read} bytes of {opened}"]


def count_bytes_read():
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])


@pytest.mark.parametrize("file", ["train-0.tfrecord", "train-1.tfindex"])
@pytest.mark.parametrize("size", [None, -1, 1])
def test_a_missing_or_shorter_or_longer_file_is_found_when_it_is_opened(forged, file, size):
    path = forged / file
    if size is None:
        path.unlink()
        message = f"^{path} is missing$"
    else:
        found = path.stat().st_size
        os.truncate(path, found + size)
        message = f"^{path} has {found + size} bytes, expected {found}: "
    with pytest.raises(DatasetError, match=message):
        open_shards(forged)


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def make_folder(path):
    path.mkdir()


def link_device(path):
    path.symlink_to("/dev/zero")


def link_nothing(path):
    path.symlink_to("/nonexistent/file")


def link_itself(path):
    path.symlink_to(path.name)


def link_log(path):
    path.symlink_to("/proc/self/environ")


ODDITIES = [
    make_pipe, make_socket, make_folder, link_device, link_nothing, link_itself, link_log,
]  # fmt: skip


@pytest.mark.parametrize("file", ["train-0.tfrecord", "train-0.tfindex", "manifest.json"])
def test_what_is_no_file_is_refused_and_not_waited_for(forged, file):
    assert run_apart(try_oddities, forged, file, read_source) == []


@pytest.mark.parametrize("file", ["train-0.tfrecord", "train-0.tfindex"])
def test_neither_is_it_waited_for_once_the_data_set_is_open(forged, file):
    assert run_apart(try_oddities, forged, file, None) == []


@pytest.mark.parametrize(
    ("file", "promise"),
    [
        ("train-0.tfrecord", {"bytes": 32, "max_record_bytes": 32}),
        ("train-0.tfindex", {"index_bytes": 0}),
    ],
)
def test_neither_is_it_where_a_manifest_promises_next_to_nothing(forged, file, promise):
    resign(forged, **promise)
    assert run_apart(try_oddities, forged, file, read_source) == []


def try_oddities(at, folder, file, read):
    source = None if read else open_shards(folder).source("train")
    problems = []
    for at.value, make in enumerate(ODDITIES):
        (folder / file).rename(folder / "aside")
        make(folder / file)
        said, _ = note_growth(at, read, folder) if read else note_growth(at, read_first, source)
        if not said.startswith(("DatasetError: ", "RecordError: ")):
            problems.append(f"{make.__name__}: {said}")
        (folder / file).rmdir() if make is make_folder else (folder / file).unlink()
        (folder / "aside").rename(folder / file)
    return problems


def read_first(source):
    return source[0]


def test_a_shard_may_be_a_link_to_a_file_wherever_it_is(forged, tmp_path):
    expected = list(open_shards(forged).source("train"))
    for name in ("train-0.tfrecord", "train-0.tfindex", "manifest.json"):
        (forged / name).rename(tmp_path / name)
        (forged / name).symlink_to(tmp_path / name)
    assert list(open_shards(forged).source("train")) == expected


def test_nothing_is_told_of_a_file_that_holds_no_records(forged, tmp_path):
    shard = forged / "train-0.tfrecord"
    secret = tmp_path / "secret"
    secret.write_bytes((b"a secret " * 1000)[: shard.stat().st_size])
    shard.unlink()
    shard.symlink_to(secret)
    source = open_shards(forged).source("train")
    for read in (lambda: source[0], lambda: source.labels, lambda: list(source.file_paths)):
        with pytest.raises(RecordError) as caught:
            read()
        assert "secret" not in str(caught.value)


TRAPS = {
    "nested lists": b"[" * 10**6,
    "nested objects": b'{"format": ' + b'{"a":' * 10**5,
    "5000 digits": b'{"format": "shardmill", "format_version": ' + b"9" * 5000 + b"}",
    "not a number": b'{"format": "shardmill", "format_version": NaN}',
    "infinity": b'{"format": "shardmill", "format_version": 1e400}',
    "duplicates": b'{"format": "shardmill", "format_version": "1.0", "format_version": "1.0"}',
    "surrogates": b'{"format": "shardmill", "format_version": "\\ud800.0"}',
    "zeros": bytes(10**7),
    "byte order mark": b"\xef\xbb\xbf{}",
    "nothing": b"",
}


def test_a_manifest_that_is_a_trap_is_refused(forged):
    said, grown = run_apart(note_growth, try_traps, forged)
    assert said == "gives []"
    assert int(grown) <= MAX_GROWTH_MB


def try_traps(folder):
    problems = []
    for name, data in TRAPS.items():
        (folder / "manifest.json").write_bytes(data)
        try:
            problems.append(f"{name}: {open_shards(folder)}")
        except DatasetError as error:
            if not str(error).startswith(f"{folder}/manifest.json is "):
                problems.append(f"{name}: {error}")
    return problems


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("classes", 0), "\ud800"),
        (("options",), {"seed": float("inf")}),
        (("shards", 0, "name"), "../secret.tfrecord"),
        (("shards", 0, "name"), "/etc/passwd"),
        (("shards", 0, "name"), "train-0.tfrecord\0"),
        (("shards", 0, "name"), "..\\secret.tfrecord"),
        (("shards", 0, "name"), "gs://bucket/train.tfrecord"),
        (("image", "channels"), 10**12),
        (("image", "max_height"), 2**62),
        (("image", "max_height"), 25),
        (("image", "width"), 33),
        (("shards", 0, "max_record_bytes"), 2**62),
        (("shards", 0, "records"), 2**62),
        (("splits", "train", "labels"), [2**62, 4 - 2**62]),
    ],
    ids=str,
)
def test_a_manifest_that_lies_is_refused_though_its_digest_is_right(forged, path, value):
    content = json.loads((forged / "manifest.json").read_bytes())
    del content["digest"]
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    sign(forged / "manifest.json", content)
    with pytest.raises(DatasetError, match=r"manifest\.json is damaged: "):
        open_shards(forged)


@pytest.mark.parametrize("link", [False, True])
def test_the_index_of_a_foreign_file_is_not_waited_for_either(tmp_path, link):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frame_record(b"abc"))
    index = tmp_path / name_index(path.name)
    link_device(index) if link else make_pipe(index)
    said, _ = run_apart(note_growth, read_foreign, tmp_path)
    assert said == f"DatasetError: {index} cannot be read: not a regular file"
