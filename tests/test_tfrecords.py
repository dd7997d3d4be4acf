"""Record framing: what goes in comes out, and whatever is damaged is found."""

import io
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import RecordError
from converter.format.tfrecords import (
    FRAMING_BYTES,
    compute_masked_crc,
    frame_record,
    read_records,
    unframe_record,
)

QUICK = settings(deadline=None, max_examples=50)

PAYLOADS = [b"first", b"", b"the third record"]
SHARD = b"".join(map(frame_record, PAYLOADS))
STARTS = [0, 21, 37]


def read(data: bytes, file_bytes: int | None = None) -> list[tuple[int, bytes]]:
    size = len(data) if file_bytes is None else file_bytes
    return list(read_records(io.BytesIO(data), "s.tfrecord", size))


def flip_bits(data: bytes):
    """Every copy of `data` with one bit changed, and the number of the changed byte."""
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bit // 8, bytes(damaged)


def test_checksums_are_those_of_the_format():
    # 0xE3069283 is the check value that the CRC-32C catalogue gives for these digits.
    rotated = (0xE3069283 >> 15) | (0xE3069283 << 17) & 0xFFFFFFFF
    assert compute_masked_crc(b"123456789") == (rotated + 0xA282EAD8) % 2**32


def test_a_record_has_the_documented_layout():
    length = struct.pack("<Q", 3)
    assert frame_record(b"abc") == b"".join(
        (
            length,
            struct.pack("<I", compute_masked_crc(length)),
            b"abc",
            struct.pack("<I", compute_masked_crc(b"abc")),
        )
    )


@QUICK
@given(st.lists(st.binary(max_size=200), max_size=6))
def test_records_read_back_with_their_offsets(payloads):
    records = [frame_record(payload) for payload in payloads]
    offsets = [sum(map(len, records[:number])) for number in range(len(records))]
    assert read(b"".join(records)) == list(zip(offsets, payloads, strict=True))


@QUICK
@given(st.binary(max_size=200))
def test_one_record_reads_back(payload):
    record = frame_record(payload)
    assert len(record) == len(payload) + FRAMING_BYTES
    assert unframe_record(record, shard="s", offset=0) == payload


def test_every_flipped_bit_is_found_in_its_record():
    for position, damaged in flip_bits(SHARD):
        with pytest.raises(RecordError) as caught:
            read(damaged)
        number = sum(start <= position for start in STARTS) - 1
        error = caught.value
        assert (error.shard, error.record, error.offset) == ("s.tfrecord", number, STARTS[number])


def test_every_flipped_bit_of_a_single_record_is_found():
    for _, damaged in flip_bits(frame_record(b"payload")):
        with pytest.raises(RecordError, match=r"^s: .* byte 50 \(record 3\): "):
            unframe_record(damaged, shard="s", offset=50, number=3)


def test_every_cut_inside_a_record_is_found():
    for size in set(range(len(SHARD))) - set(STARTS):
        with pytest.raises(RecordError) as caught:
            read(SHARD[:size])
        assert caught.value.offset == max(start for start in STARTS if start <= size)


@pytest.mark.parametrize("records", [0, 1, 2])
def test_a_cut_between_records_leaves_the_records_before(records):
    cut = SHARD[: STARTS[records]]
    assert read(cut) == list(zip(STARTS, PAYLOADS, strict=True))[:records]


def test_every_cut_of_a_single_record_is_found():
    record = frame_record(b"payload")
    for size in range(len(record)):
        with pytest.raises(RecordError, match=r"^s: damaged record at byte 0: "):
            unframe_record(record[:size], shard="s", offset=0)


def test_a_file_that_shrinks_while_it_is_read_is_found():
    with pytest.raises(RecordError, match=r"^s.tfrecord: .* byte 37 \(record 2\): payload cut"):
        read(SHARD[:-6], file_bytes=len(SHARD))


@pytest.mark.parametrize("length", [40, 2**31, 2**63, 2**64 - 1])
def test_a_length_that_lies_is_refused_before_memory_is_asked_for(length):
    header = struct.pack("<Q", length)
    header += struct.pack("<I", compute_masked_crc(header))
    with pytest.raises(RecordError, match=rf"byte 0 \(record 0\): length {length} "):
        read(header + bytes(30))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"short", "s: damaged record at byte 9: only 5 bytes"),
        (frame_record(b"abc") + b"x", "s: damaged record at byte 9: length 3, expected 4"),
        (bytes(20), "s: damaged record at byte 9: checksum of the length does not match"),
        (
            frame_record(b"abc")[:-1] + b"x",
            "s: damaged record at byte 9: checksum of the payload does not match",
        ),
    ],
)
def test_an_error_says_what_is_wrong_and_where(record, message):
    with pytest.raises(RecordError, match=f"^{re.escape(message)}$"):
        unframe_record(record, shard="s", offset=9)


def test_tensorflow_reads_what_is_framed_here(tmp_path):
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "ours.tfrecord"
    path.write_bytes(SHARD)
    assert list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == PAYLOADS


def test_what_tensorflow_writes_is_the_same_bytes(tmp_path):
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "theirs.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
    assert path.read_bytes() == SHARD
    assert read(path.read_bytes()) == list(zip(STARTS, PAYLOADS, strict=True))
