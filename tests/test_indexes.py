"""The index of a shard: read back as written, and refused where it does not cover the shard."""

import contextlib
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import DatasetError
from converter.format.indexes import format_line, parse_index, parse_offsets
from converter.storage.files import name_index

QUICK = settings(deadline=None, max_examples=50)
MANY = settings(deadline=None, max_examples=500)

INDEX = b"0 30\n30 16\n46 104\n"


# Pieces of which an index that is nearly right is made.
PARTS = [b"0", b"16", b"30", b"46", b"150", b"9" * 18, b"1" + b"0" * 17, b" ", b" ", b"\n", b"\n"]
ODD_PARTS = [b"\r", b"+", b"-", b"/", b":", b"\0", b"\xff", b"\t", b"x", b"00", b"9" * 19]


def parse(data: bytes, shard_bytes: int = 150) -> list[int]:
    offsets = parse_index(data, index="s.tfindex", shard_bytes=shard_bytes)
    assert offsets.dtype == np.int64
    assert offsets.ndim == 1
    return offsets.tolist()


def parse_slowly(data: bytes, shard_bytes: int) -> list[int] | str:
    """What `parse_index` returns or says, found line by line."""
    if data and not data.endswith(b"\n"):
        return "the last line is cut off"
    lines = data.split(b"\n")[:-1]
    for line in lines:
        if not re.fullmatch(rb"(0|[1-9][0-9]{0,17}) [1-9][0-9]{0,17}", line):
            return f"{line[:40]!r} is not a line of an index"
    end, offsets = 0, [0]
    for number, line in enumerate(lines):
        offset, size = map(int, line.split())
        if offset != end or size < 16:
            return f"record {number} is at {offset} with {size} bytes, expected at {end}"
        end += size
        offsets.append(end)
    return (
        offsets if end == shard_bytes else f"ends at byte {end} of a shard of {shard_bytes} bytes"
    )


def compare(data: bytes, shard_bytes: int) -> None:
    expected = parse_slowly(data, shard_bytes)
    if isinstance(expected, list):
        assert parse(data, shard_bytes) == expected
    else:
        with pytest.raises(DatasetError) as caught:
            parse(data, shard_bytes)
        assert str(caught.value) == f"s.tfindex: {expected}"


@pytest.mark.parametrize(
    ("shard", "index"),
    [
        ("train-00003-of-00016.tfrecord", "train-00003-of-00016.tfindex"),
        ("a.b.tfrecord", "a.b.tfindex"),
        ("mnist-train.tfrecord-00000-of-00001", "mnist-train.tfrecord-00000-of-00001.tfindex"),
        ("x.tfrecords", "x.tfrecords.tfindex"),
        ("bare", "bare.tfindex"),
    ],
)
def test_an_index_is_named_after_its_shard(shard, index):
    assert name_index(shard) == index


@QUICK
@given(st.lists(st.integers(16, 10**9) | st.integers(16, 10**17), max_size=9))
def test_an_index_reads_back(sizes):
    offsets = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    data = b"".join(format_line(begin, end - begin) for begin, end in pairwise(offsets))
    assert parse(data, sum(sizes)) == offsets


@pytest.mark.parametrize("digits", range(1, 19))
def test_numbers_of_every_length_are_read(digits):
    size = int("987654321987654321"[:digits]) + 16
    line = format_line(0, size) + format_line(size, 10**17)
    assert parse(line, size + 10**17) == [0, size, size + 10**17]


def test_a_long_index_reads_back():
    sizes = np.random.default_rng(0).integers(16, 10**6, 20_000)
    offsets = [0, *np.cumsum(sizes).tolist()]
    data = b"".join(format_line(begin, end - begin) for begin, end in pairwise(offsets))
    assert parse(data, offsets[-1]) == offsets


@MANY
@given(st.lists(st.sampled_from(PARTS), max_size=16).map(b"".join), st.sampled_from([0, 16, 150]))
def test_what_is_nearly_an_index_is_judged_as_line_by_line(data, shard_bytes):
    compare(data, shard_bytes)
    compare(data + b"\n", shard_bytes)


@MANY
@given(st.lists(st.sampled_from(PARTS + ODD_PARTS) | st.binary(max_size=3)).map(b"".join))
def test_any_bytes_are_judged_as_line_by_line(data):
    compare(data, 150)
    compare(data + b"\n", 150)


@MANY
@given(st.integers(0, len(INDEX)), st.integers(0, len(INDEX)), st.binary(max_size=3))
def test_a_changed_index_is_judged_as_line_by_line(begin, end, data):
    compare(INDEX[:begin] + data + INDEX[end:], 150)


def test_the_lines_are_plain_numbers():
    assert parse(INDEX) == [0, 30, 46, 150]


def test_an_empty_index_is_that_of_an_empty_shard():
    assert parse(b"", 0) == [0]


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
        (b"0 30\n30 1234567890123456789\n", "b'30 1234567890123456789' is not a line of an index"),
        (b"00 30\n30 120\n", "b'00 30' is not a line of an index"),
        (b"0 0\n30 120\n", "b'0 0' is not a line of an index"),
        (b"0 30\n30\n", "b'30' is not a line of an index"),
        (b"0 30\n30 120 \n", "b'30 120 ' is not a line of an index"),
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


def parse_known(data: bytes, shard_bytes: int, piece: int = 1 << 18) -> list[int]:
    pieces = (data[at : at + piece] for at in range(0, len(data), piece))
    return parse_offsets(pieces, index="s.tfindex", shard_bytes=shard_bytes).tolist()


@QUICK
@given(st.lists(st.integers(16, 10**9) | st.integers(16, 10**16), max_size=9), st.integers(1, 99))
def test_a_known_index_reads_the_same_in_pieces_of_any_size(sizes, piece):
    offsets = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    data = b"".join(format_line(begin, end - begin) for begin, end in pairwise(offsets))
    assert parse_known(data, offsets[-1], piece) == offsets


@MANY
@given(st.lists(st.sampled_from(PARTS + ODD_PARTS), max_size=12).map(b"".join))
def test_a_forged_index_never_leads_out_of_its_shard(data):
    with contextlib.suppress(DatasetError):
        bounds = parse_known(data, 150)
        assert bounds[0] == 0
        assert bounds[-1] == 150
        assert all(end - begin >= 16 for begin, end in pairwise(bounds))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        INDEX[:-1],
        INDEX + b"200 16\n",
        b"0 30\n10 140\n",
        b"1 149\n",
        b"0\n",
        b"9" * 60 + b" 1\n",
    ],
)
def test_a_forged_index_is_refused(data):
    with pytest.raises(DatasetError, match=r"^s\.tfindex(: | does not belong to)"):
        parse_known(data, 150)
