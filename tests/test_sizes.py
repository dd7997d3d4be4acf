"""Numbers of bytes: as they are written by people, and for them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import UsageError
from converter.sizes import format_bytes, format_count, parse_bytes

QUICK = settings(deadline=None, max_examples=50)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", 1000),
        ("128MB", 128_000_000),
        ("128MiB", 134_217_728),
        ("2 kib", 2048),
        (" 1.5kB ", 1500),
        ("3GB", 3_000_000_000),
        ("1GiB", 1_073_741_824),
        ("7b", 7),
    ],
)
def test_sizes_are_read_with_their_unit(text, expected):
    assert parse_bytes(text) == expected


@QUICK
@given(st.integers(0, 10**12 - 1))
def test_any_number_of_bytes_is_read_as_it_is(count):
    assert parse_bytes(str(count)) == count


@pytest.mark.parametrize("text", ["", "MB", "12 parsecs", "-1MB", "1e9", "1,5MB", "0x10", "nan"])
def test_what_is_not_a_size_is_refused(text):
    with pytest.raises(UsageError, match=f"^{re.escape(repr(text))} is not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (127_900_000, "127.9 MB"),
        (5_000_000_000, "5.0 GB"),
        (2_500_000_000_000, "2.5 TB"),
        (2_500_000_000_000_000, "2500.0 TB"),
    ],
)
def test_bytes_are_written_for_a_person(count, expected):
    assert format_bytes(count) == expected


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (0, "shard", "0 shards"),
        (1, "shard", "1 shard"),
        (1_200, "image", "1,200 images"),
        (1, "class", "1 class"),
        (3, "class", "3 classes"),
    ],
)
def test_one_thing_is_not_several(number, noun, expected):
    assert format_count(number, noun) == expected
