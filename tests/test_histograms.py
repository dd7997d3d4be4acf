"""Originals in buckets: each goes into one of every kind, and counts add up."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.format.typed_json import find_reader
from converter.histograms import RATIOS, Histograms, OriginalTally, SizedOriginal, name_ratio

SIDES = st.integers(1, 100_000)


def count(*originals: tuple[str, tuple[int, int], int, bool]) -> Histograms:
    tally = OriginalTally()
    for file_format, size, size_bytes, enlarged in originals:
        tally.add(f"{size}", file_format, size, size_bytes, enlarged=enlarged)
    return tally.describe()


SMALL = SizedOriginal(path="(100, 100)", height=100, width=100)
LARGE = SizedOriginal(path="(480, 640)", height=480, width=640)


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
        smallest=(SMALL, LARGE),
        largest=(LARGE, SMALL),
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
        tally.add(f"{number}.jpg", "jpeg", (100 + number, 200), 1_000, enlarged=False)
        tally.add("x.jpg", "jpeg", (64, 64), 1_000, enlarged=False)
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


def tally_squares(sides: list[int]) -> Histograms:
    tally = OriginalTally()
    for side in sides:
        tally.add(f"{side:05d}.jpg", "jpeg", (side, side), 1_000, enlarged=False)
    return tally.describe()


@given(st.lists(SIDES, min_size=1, max_size=40), st.integers(0, 40))
def test_the_smallest_and_largest_are_kept_wherever_they_are_cut(sides, cut):
    found = tally_squares(sides[:cut]) + tally_squares(sides[cut:])
    assert [each.width for each in found.smallest] == sorted(sides)[:3]
    assert [each.width for each in found.largest] == sorted(sides, reverse=True)[:3]


@given(st.lists(SIDES, min_size=1, max_size=40))
def test_the_median_lies_between_its_two_bounds(sides):
    low, high = tally_squares(sides).median_pixels
    pixels = [side * side for side in sides]
    assert 2 * sum(each >= low for each in pixels) >= len(pixels)
    assert 2 * sum(each < high for each in pixels) >= len(pixels)


@pytest.mark.parametrize(
    ("sides", "small", "large"),
    [
        ([500] * 20, [], []),
        ([500] * 20 + [200], [], []),
        ([500] * 20 + [100], ["00100.jpg"], []),
        ([500] * 20 + [1, 2, 3, 4], ["00001.jpg", "00002.jpg", "00003.jpg"], []),
        ([500] * 20 + [1500], [], []),
        ([500] * 20 + [9, 3000], ["00009.jpg"], ["03000.jpg"]),
        ([10] * 10 + [500] * 20, ["00010.jpg"] * 3, []),
    ],
)
def test_outliers_have_a_tenth_or_ten_times_the_usual_pixels(sides, small, large):
    found = tally_squares(sides).list_outliers()
    assert [[each.path for each in kind] for kind in found] == [small, large]


def test_a_long_path_is_cut_so_that_a_line_of_the_log_stays_short():
    tally = OriginalTally()
    for number in range(5):
        path = "\U0001f600" * 5_000 + str(number)
        tally.add(path, "jpeg", (number + 1, 1), 10, enlarged=False)
    assert len(json.dumps(dataclasses.asdict(tally.describe()))) < 32_000


def test_histograms_without_names_are_of_an_earlier_version():
    content = dataclasses.asdict(count(("jpeg", (480, 640), 70_000, True)))
    del content["smallest"], content["largest"]
    found = find_reader(Histograms)(content)
    assert (found.images, found.smallest, found.list_outliers()) == (1, (), ([], []))
