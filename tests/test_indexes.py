"""The index of a shard: read back as written, and refused where it does not cover the shard."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import DatasetError
from converter.indexes import format_line, name_index, parse_index

QUICK = settings(deadline=None, max_examples=50)

INDEX = b"0 30\n30 16\n46 104\n"


def parse(data: bytes, shard_bytes: int = 150) -> list[tuple[int, int]]:
    return parse_index(data, index="s.tfindex", shard_bytes=shard_bytes)


@pytest.mark.parametrize(
    ("shard", "index"),
    [
        ("train-00003-of-00016.tfrecord", "train-00003-of-00016.tfindex"),
        ("a.b.tfrecord", "a.b.tfindex"),
    ],
)
def test_an_index_is_named_after_its_shard(shard, index):
    assert name_index(shard) == index


@QUICK
@given(st.lists(st.integers(16, 10**9)))
def test_an_index_reads_back(sizes):
    spans = [(sum(sizes[:number]), size) for number, size in enumerate(sizes)]
    data = b"".join(format_line(*span) for span in spans)
    assert parse(data, sum(sizes)) == spans


def test_the_lines_are_plain_numbers():
    assert parse(INDEX) == [(0, 30), (30, 16), (46, 104)]


def test_every_flipped_bit_is_refused():
    for bit in range(8 * len(INDEX)):
        damaged = bytearray(INDEX)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DatasetError, match=r"^s\.tfindex: "):
            parse(bytes(damaged))


def test_every_cut_is_refused():
    for size in range(len(INDEX)):
        with pytest.raises(DatasetError, match=r"^s\.tfindex: "):
            parse(INDEX[:size])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"0 30\n30 16\n46 104", "the last line is cut off"),
        (b"0 30\n\n30 120\n", "b'' is not a line of an index"),
        (b"0 30\r30 120\n", "b'0 30\\r30 120' is not a line of an index"),
        (b"0 30\n30 +120\n", "b'30 +120' is not a line of an index"),
        (b"0 030\n30 120\n", "b'0 030' is not a line of an index"),
        (b"0 30 \n30 120\n", "b'0 30 ' is not a line of an index"),
        (b"9" * 100 + b" 5\n", f"{b'9' * 40!r} is not a line of an index"),
        (b"0 30\n31 119\n", "record 1 is at 31 with 119 bytes, expected at 30"),
        (b"0 30\n29 121\n", "record 1 is at 29 with 121 bytes, expected at 30"),
        (b"0 15\n15 135\n", "record 0 is at 0 with 15 bytes, expected at 0"),
        (b"0 149\n", "ends at byte 149 of a shard of 150 bytes"),
        (b"0 151\n", "ends at byte 151 of a shard of 150 bytes"),
        (b"", "ends at byte 0 of a shard of 150 bytes"),
    ],
)
def test_an_index_that_does_not_describe_the_shard_is_refused(data, message):
    with pytest.raises(DatasetError, match=f"^{re.escape(f's.tfindex: {message}')}$"):
        parse(data)
