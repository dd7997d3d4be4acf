"""Random access to records by their number."""

import concurrent.futures
import dataclasses
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from converter import DatasetError, RecordError
from converter.format.examples import encode_example
from converter.format.indexes import format_line
from converter.format.manifest import ShardInfo
from converter.format.tfrecords import FRAMING_BYTES, frame_record
from converter.storage.files import name_index
from reader import Record, Source, open_shards
from reader.records.indexed_file import RecordFile
from reader.records.record_files import RecordFiles

FEATURES = {
    "image/encoded": b"pixels",
    "image/format": b"raw",
    "image/height": 1,
    "image/width": 2,
    "image/class/label": 7,
    "image/class/text": b"bees",
    "image/source_id": b"bees/1.png",
    "image/key/sha256": b"ab",
}


@pytest.fixture
def damaged(converted, tmp_path):
    """A copy of the data set that a test may change."""
    return shutil.copytree(converted, tmp_path / "set")


def make_source(folder: Path, shards: list[ShardInfo]) -> Source:
    return Source(RecordFiles([RecordFile.of_shard(folder, shard) for shard in shards]))


def write_shard(folder: Path, payloads: list[bytes], name: str = "train-0.tfrecord") -> ShardInfo:
    """Writes a shard and its index, whatever the payloads are."""
    records = [frame_record(payload) for payload in payloads]
    data = b"".join(records)
    (folder / name).write_bytes(data)
    offsets = [sum(map(len, records[:number])) for number in range(len(records))]
    lines = [format_line(offset, len(r)) for offset, r in zip(offsets, records, strict=True)]
    index = b"".join(lines)
    (folder / name_index(name)).write_bytes(index)
    return ShardInfo(
        name=name,
        split="train",
        records=len(records),
        bytes=len(data),
        sha256="",
        index_bytes=0,
        index_sha256=hashlib.sha256(index).hexdigest(),
        max_record_bytes=max(map(len, records), default=0),
    )


def test_a_source_is_as_long_as_its_split(converted):
    shards = open_shards(converted)
    lengths = {split: len(shards.source(split)) for split in shards.splits}
    assert lengths == {split: info.records for split, info in shards.splits.items()}
    assert sum(lengths.values()) == 72


def test_a_source_is_shown_as_one_line(converted, tmp_path):
    assert repr(open_shards(converted).source("train")) == "Source(52 records in 3 shards)"
    assert repr(make_source(tmp_path, [])) == "Source(0 records in 0 shards)"
    payloads = [b""] * 1_000
    assert repr(make_source(tmp_path, [write_shard(tmp_path, payloads)])) == (
        "Source(1,000 records in 1 shard)"
    )


def test_a_record_holds_the_image_its_label_and_its_origin(image_folder, converted):
    for record in open_shards(converted).source("validation"):
        original = image_folder / record.source_id
        assert record == Record(
            encoded=record.encoded,
            format="png",
            height=16,
            width=20,
            label=("ant", "bee", "cat with hat").index(original.relative_to(image_folder).parts[0]),
            text=original.relative_to(image_folder).parts[0],
            source_id=record.source_id,
            sha256=hashlib.sha256(original.read_bytes()).hexdigest(),
        )


def test_every_number_gives_another_record_in_the_order_of_the_plan(converted):
    source = open_shards(converted).source("train")
    paths = [source[number].source_id for number in range(len(source))]
    assert len(set(paths)) == len(paths)
    assert [record.source_id for record in source] == paths
    assert [record.source_id for record in reversed(source)] == paths[::-1]


def test_a_negative_number_counts_from_the_end(converted):
    source = open_shards(converted).source("train")
    assert source[-1] == source[len(source) - 1]
    assert source[-len(source)] == source[0]


@pytest.mark.parametrize(
    "part",
    [slice(None), slice(16, 20), slice(-3, None), slice(50, 2, -7), slice(99, 199), slice(3, 3)],
    ids=str,
)
def test_a_slice_gives_the_records_that_a_list_would(converted, part):
    source = open_shards(converted).source("train")
    assert source[part] == list(source)[part]


@pytest.mark.parametrize("beyond", [0, 1, 10**30])
def test_a_number_outside_is_an_index_error(converted, beyond):
    source = open_shards(converted).source("train")
    for index in (len(source) + beyond, -len(source) - 1 - beyond):
        with pytest.raises(IndexError, match=f"^record {index} of {len(source)}$"):
            source[index]


def test_empty_shards_are_stepped_over(tmp_path):
    names = iter("abcdefg")
    shards = [
        write_shard(
            tmp_path,
            [
                encode_example(FEATURES | {"image/source_id": b"%d-%d" % (place, number)})
                for number in range(records)
            ],
            f"train-{next(names)}.tfrecord",
        )
        for place, records in enumerate([0, 0, 2, 0, 1, 0])
    ]
    source = make_source(tmp_path, shards)
    assert [record.source_id for record in source] == ["2-0", "2-1", "4-0"]
    assert source[-1].source_id == "4-0"


def test_no_shards_at_all_are_an_empty_source(tmp_path):
    source = make_source(tmp_path, [])
    assert len(source) == 0
    assert list(source) == []
    with pytest.raises(IndexError, match="record 0 of 0"):
        source[0]


def test_eight_threads_that_read_everything_at_once_agree(converted):
    expected = list(open_shards(converted).source("train"))
    source = open_shards(converted).source("train")
    # Each begins elsewhere, so that all shards and indexes are opened at the same time.
    count = len(source)
    orders = [[(start * 7 + step) % count for step in range(count)] for start in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda order: [(i, source[i]) for i in order], orders))
    assert found == [[(i, expected[i]) for i in order] for order in orders]


@pytest.mark.parametrize(
    ("place", "detail"),
    [
        (0, "checksum of the length does not match"),
        (8, "checksum of the length does not match"),
        (12, "checksum of the payload does not match"),
        (-1, "checksum of the payload does not match"),
    ],
)
def test_a_flipped_bit_is_named_by_shard_record_and_offset(damaged, place, detail):
    shards = open_shards(damaged)
    source = shards.source("train")
    whole = list(source)
    first, second, _ = shards.manifest.list_shards("train")
    shard = damaged / second.name
    lines = shard.with_suffix(".tfindex").read_text().splitlines()
    offset, size = map(int, lines[3].split())
    data = bytearray(shard.read_bytes())
    data[offset + place % size] ^= 0x10
    shard.write_bytes(data)
    with pytest.raises(
        RecordError,
        match=rf"^{shard.name}: .* byte {offset} \(record 3.*\): {detail}$",
    ) as caught:
        source[first.records + 3]
    error = caught.value
    assert (error.shard, error.offset, error.record) == (shard.name, offset, 3)
    # All others can still be read.
    del whole[first.records + 3]
    assert source[: first.records + 3] + source[first.records + 4 :] == whole


def test_a_shard_that_was_cut_since_it_was_opened_is_a_record_error(damaged):
    source = open_shards(damaged).source("train")
    shard = damaged / "train-00002-of-00003.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(
        RecordError, match=r"^train-00002-of-00003.tfrecord: .* byte \d+ \(record \d+\): "
    ):
        source[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"0 50\n40 60\n", ": record 1 is at 40 with 60 bytes, expected at 50"),
        (lambda data: b"0 99999\n", ": ends at byte 99999 of a shard of "),
        (lambda data: b"zero 50\n", ": b'zero 50' is not a line of an index"),
        (lambda data: data[:-1], ": the last line is cut off"),
        (lambda data: b"", ": ends at byte 0 of a shard of "),
    ],
)
def test_a_damaged_index_is_named(damaged, change, message):
    source = open_shards(damaged).source("train")
    index = damaged / "train-00000-of-00003.tfindex"
    index.write_bytes(change(index.read_bytes()))
    with pytest.raises(DatasetError, match=f"^{re.escape(str(index) + message)}"):
        source[0]


def test_an_index_that_fits_but_is_another_one_is_named(damaged):
    source = open_shards(damaged).source("train")
    index = damaged / "train-00000-of-00003.tfindex"
    size = index.with_suffix(".tfrecord").stat().st_size
    index.write_bytes(b"0 %d\n" % size)
    with pytest.raises(DatasetError, match=f"^{re.escape(str(index))} is not the index"):
        source[0]


@pytest.mark.parametrize("promised", [1, 3])
def test_another_number_of_records_than_promised_is_an_error(tmp_path, promised):
    payloads = [encode_example(FEATURES | {"image/height": height}) for height in (1, 2)]
    shard = dataclasses.replace(write_shard(tmp_path, payloads), records=promised)
    # A bare IndexError would end a loop over the source as if there were no more records.
    message = rf"train-0\.tfindex lists 2 records, expected {promised}$"
    with pytest.raises(DatasetError, match=message):
        list(make_source(tmp_path, [shard]))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xff\xff",
        encode_example({"image/encoded": b""}),
        encode_example(FEATURES | {"image/height": []}),
        encode_example(FEATURES | {"image/format": b"\xff"}),
        encode_example(FEATURES | {"image/encoded": 7}),
        encode_example(FEATURES | {"image/format": 7}),
        encode_example(FEATURES | {"image/source_id": 7}),
        encode_example(FEATURES | {"image/class/text": 1.5}),
        encode_example(FEATURES | {"image/class/label": b"bees"}),
        encode_example(FEATURES | {"image/width": 2.5}),
    ],
    ids=[
        "empty",
        "no message",
        "features missing",
        "no height",
        "format not UTF-8",
        "image an int",
        "format an int",
        "path an int",
        "class a float",
        "label bytes",
        "width a float",
    ],
)
def test_a_record_that_is_no_image_is_a_record_error(tmp_path, payload):
    good = encode_example(FEATURES)
    source = make_source(tmp_path, [write_shard(tmp_path, [good, payload])])
    assert source[0].source_id == "bees/1.png"
    offset = len(good) + FRAMING_BYTES
    with pytest.raises(
        RecordError, match=rf"^train-0.tfrecord: .* {offset} \(record 1.*\): not an image"
    ):
        source[1]


def test_a_source_works_where_tensorflow_cannot_be_imported(converted):
    script = """if True:
        import sys
        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("tensorflow", "keras"):
                    raise ImportError(f"{name} is blocked")
        sys.meta_path.insert(0, Blocker())
        from reader import open_shards
        source = open_shards(sys.argv[1]).source("train")
        print(len(source), len({record.source_id for record in source}), source[-1].format)
    """
    run = subprocess.run(
        [sys.executable, "-c", script, converted], capture_output=True, text=True, check=False
    )
    count = open_shards(converted).splits["train"].records
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{count} {count} png\n", "")


def test_a_record_is_shown_without_its_bytes(converted):
    record = open_shards(converted).source("train")[0]
    assert len(repr(record)) < 500
    assert record.source_id in repr(record)
    assert str(record.encoded[:4]) not in repr(record)
