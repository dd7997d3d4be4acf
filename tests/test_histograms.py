"""Originals in buckets: each goes into one of every kind, and counts add up."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.format.typed_json import find_reader
from converter.histograms import RATIOS, Histograms, OriginalTally, name_ratio

SIDES = st.integers(1, 100_000)


def count(*originals: tuple[str, tuple[int, int], int, bool]) -> Histograms:
    tally = OriginalTally()
    for file_format, size, size_bytes, enlarged in originals:
        tally.add(file_format, size, size_bytes, enlarged=enlarged)
    return tally.describe()


def test_an_original_is_counted_by_format_size_shape_and_bytes():
    found = count(("jpeg", (480, 640), 70_000, False), ("png", (100, 100), 999, True))
    assert found == Histograms(
        images=2,
        enlarged=1,
        formats={"jpeg": 1, "png": 1},
        sizes={"640x480": 1, "100x100": 1},
        sides={"256": 1, "64": 1},
        pixels={"200000": 1, "10000": 1},
        ratios={"4:3": 1, "1:1": 1},
        bytes={"50000": 1, "500": 1},
    )


@pytest.mark.parametrize(
    ("height", "width", "ratio"),
    [(1, 1, "1:1"), (1080, 1920, "16:9"), (1920, 1080, "9:16"), (2, 3, "3:2"), (1, 1000, "8:1"),
     (1000, 1, "1:8"), (0, 0, "1:1"), (240, 255, "1:1")],
)  # fmt: skip
def test_a_shape_has_the_name_of_the_nearest_ratio(height, width, ratio):
    assert name_ratio(height, width) == ratio


@given(SIDES, SIDES)
def test_no_ratio_is_nearer_than_the_one_that_is_named(height, width):
    def distance(ratio: str) -> float:
        wide, high = map(int, ratio.split(":"))
        return abs(math.log(width / height) - math.log(wide / high))

    named = distance(name_ratio(height, width))
    assert all(named <= distance(ratio) + 1e-9 for ratio in RATIOS)


@given(st.lists(st.tuples(SIDES, SIDES, st.integers(0, 10**12)), max_size=40), st.integers(0, 40))
def test_counts_add_up_wherever_they_are_cut(originals, cut):
    made = [("jpeg", (height, width), size, False) for height, width, size in originals]
    assert count(*made[:cut]) + count(*made[cut:]) == count(*made)


@given(st.lists(st.tuples(SIDES, SIDES, st.integers(0, 10**15)), min_size=1, max_size=20))
def test_each_original_is_in_one_bucket_of_each_kind(originals):
    found = count(*(("jpeg", (height, width), size, False) for height, width, size in originals))
    for name in ("formats", "sides", "pixels", "ratios", "bytes"):
        assert sum(getattr(found, name).values()) == len(originals)
    assert min(map(int, found.sides)) <= min(min(height, width) for height, width, _ in originals)


def test_a_million_sizes_take_no_more_room_than_the_commonest():
    tally = OriginalTally()
    for number in range(5_000):
        tally.add("jpeg", (100 + number, 200), 1_000, enlarged=False)
        tally.add("jpeg", (64, 64), 1_000, enlarged=False)
    found = tally.describe()
    assert found.images == 10_000
    assert len(found.sizes) <= 64
    assert found.sizes["64x64"] == 5_000
    both = found + found
    assert (len(both.sizes), both.sizes["64x64"]) == (len(found.sizes), 10_000)
    assert len(json.dumps(dataclasses.asdict(found))) < 3_000


def test_histograms_come_back_from_json():
    found = count(("jpeg", (480, 640), 70_000, True))
    assert find_reader(Histograms)(json.loads(json.dumps(dataclasses.asdict(found)))) == found
