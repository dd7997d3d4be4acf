"""Ranges of paths: together all of them, each one once, and large prefixes are divided."""

import bisect
import itertools
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.names import to_bytes
from converter.planning.key_ranges import RANGES, cut_images, cut_prefix, make_ranges
from converter.sources.folders import Keys, list_folder, list_keys

PAGE = 1_000


class Bucket:
    """Keys in order, a page of them at a time."""

    def __init__(self, keys, *, inclusive=False):
        self.keys = sorted(keys, key=to_bytes)
        self.ordered = [*map(to_bytes, self.keys)]
        self.find = bisect.bisect_left if inclusive else bisect.bisect_right
        self.asked = self.listed = 0

    def probe(self, prefix, after, most):
        self.asked += 1
        self.listed += most
        begin = max(
            self.find(self.ordered, to_bytes(after)),
            bisect.bisect_left(self.ordered, to_bytes(prefix)),
        )
        page = self.keys[begin : begin + most + 1]
        found = [key for key in page if key.startswith(prefix)]
        return found[:most], len(found) > most


def count_keys(bucket, ranges):
    ends = [bisect.bisect_right(bucket.ordered, keys.after) for keys in ranges]
    return [end - begin for begin, end in itertools.pairwise([*ends, len(bucket.ordered)])]


@pytest.mark.parametrize("inclusive", [False, True], ids=["s3", "gs"])
def test_a_folder_without_folders_is_divided_by_few_requests(inclusive):
    bucket = Bucket((f"img_{n:08d}.jpg" for n in range(300_000)), inclusive=inclusive)
    cut = cut_prefix(bucket.probe)
    assert 100_000 <= cut.known <= 300_000
    assert bucket.asked < 700
    assert bucket.listed < 400_000
    counts = count_keys(bucket, make_ranges(cut.bounds))
    assert sum(counts) == 300_000
    assert max(counts) <= 10_000


def test_random_names_and_one_heavy_folder_are_divided():
    rng = random.Random(4)
    light = (f"{name}/{n}.png" for name in "abcdefgh" for n in range(300))
    heavy = (f"heavy/{rng.getrandbits(64):016x}.png" for _ in range(200_000))
    bucket = Bucket([*light, *heavy])
    cut = cut_prefix(bucket.probe)
    counts = count_keys(bucket, make_ranges(cut.bounds))
    assert sum(counts) == 202_400
    assert max(counts) < 6_000
    assert bucket.asked < 700


def test_no_key_is_counted_twice_where_a_page_ends_within_a_letter():
    bucket = Bucket([*(f"a{n:03d}" for n in range(700)), *(f"b{n:04d}" for n in range(1_400))])
    assert cut_prefix(bucket.probe).known == 2_100


@pytest.mark.parametrize(("first", "following"), [("\ufffd", "\U00010000"), ("\ud7ff", "\ue000")])
def test_letters_that_no_answer_may_hold_are_no_bounds(first, following):
    bucket = Bucket(f"{first}{n:04d}.png" for n in range(PAGE + 100))
    cut = cut_prefix(bucket.probe)
    assert cut.known == PAGE + 100
    assert cut.bounds[-1] == following


def test_few_keys_are_one_range_after_one_request():
    bucket = Bucket(f"{n}.png" for n in range(PAGE))
    assert cut_prefix(bucket.probe) == ([], PAGE)
    assert bucket.asked == 1


def test_a_store_that_ignores_where_to_begin_is_one_range_and_no_endless_loop():
    keys = [f"{n:04d}" for n in range(PAGE)]
    cut = cut_prefix(lambda _prefix, _after, _most: (keys, True))
    assert cut.known >= PAGE
    assert len(cut.bounds) < 20


NAMES = st.text("ab/-\udcff\ud7ff\ue000\U0010ffffé", min_size=1, max_size=4)


@given(st.sets(NAMES, max_size=30), st.lists(NAMES, max_size=8), st.integers(1, 5))
def test_each_key_is_in_one_range(keys, bounds, most):
    ordered = sorted({*bounds}, key=to_bytes)
    ranges = make_ranges(ordered, most)
    assert len(ranges) <= most
    for key in map(to_bytes, keys):
        assert sum(each.holds(key) for each in ranges) == 1


@given(st.binary(min_size=1, max_size=3), st.binary(max_size=3), st.binary(max_size=3), NAMES)
def test_a_folder_is_left_out_only_if_no_path_in_it_is_wanted(after, until, rest, folder):
    keys, folder = Keys(after, until), to_bytes(folder) + b"/"
    if keys.holds(folder + rest):
        assert keys.meets(folder)


def test_folders_of_a_disk_give_bounds_and_their_ranges_all_files(tmp_path):
    for name in ("a/1.png", "a-b/x.png", "a.png", "b/c/2.png", "b/.hid/3.png", ".git/4.png",
                 "b/c.png", "z/", "t.txt"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(b"x")
    (tmp_path / os.fsdecode(b"b/\xff.png")).write_bytes(b"xy")
    bounds = cut_images(tmp_path).bounds
    assert bounds == ["a-b/", "a/", "b/", "b/c/", "z/"]
    expected_skipped = []
    expected, _ = list_folder(tmp_path, expected_skipped)
    for most in range(1, 8):
        entries, skipped, versions = [], [], []
        for keys in make_ranges(bounds, most):
            found, _ = list_keys(tmp_path, keys, skipped, versions.append)
            entries += found
        assert entries == expected
        assert skipped == expected_skipped
        assert len(versions) == len(entries)


def test_folders_are_divided_by_those_in_them_until_there_are_enough(tmp_path, monkeypatch):
    monkeypatch.setattr("converter.planning.key_ranges.RANGES", 12)
    for name in ("data/a/1/deep", "data/b/2"):
        (tmp_path / name).mkdir(parents=True)
    assert cut_images(tmp_path).bounds == ["data/", "data/a/", "data/b/"]


def test_many_folders_are_no_more_ranges_than_files_may_be_open():
    bounds = [f"{n:05d}/" for n in range(20_000)]
    assert 128 < len(make_ranges(bounds)) <= RANGES
