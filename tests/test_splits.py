"""Splits: what belongs together stays together, and what is there stays where it is."""

import dataclasses
import re
import time
from collections import Counter

import numpy as np
import pytest
from conftest import draw_split
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from converter.errors import UsageError
from converter.inventory import NO_LABEL, Entry
from converter.options import ConvertOptions
from converter.planning.splits import assign_splits, may_stay
from converter.planning.strata import OPEN, VALIDATION, stratify

QUICK = settings(deadline=None, max_examples=30)
SEEDS = st.integers(0, 2**63 - 1)
SPLIT = ConvertOptions(validation_split=0.2, test_split=0.1)
STRATIFIED = dataclasses.replace(SPLIT, stratify=True)


def make_entries(count: int, classes: int = 3) -> list[Entry]:
    return [
        Entry(f"c{number % classes}/p{number // 5}-{number}.png", number % classes, number)
        for number in range(count)
    ]


def find_splits(members: dict[str, list[Entry]]) -> dict[str, str]:
    return {entry.path: split for split, group in members.items() for entry in group}


def test_given_splits_are_kept(tmp_path):
    entries = [
        Entry(f"{number}.png", 0, 1, split=("train", "test", "validation")[number % 3])
        for number in range(30)
    ]
    members = assign_splits(entries, ConvertOptions())
    assert list(members) == ["train", "validation", "test"]
    for split, group in members.items():
        assert {entry.split for entry in group} == {split}


def test_only_given_splits_are_made():
    entries = [Entry(f"{number}.png", 0, 1, split="test") for number in range(3)]
    assert list(assign_splits(entries, ConvertOptions())) == ["test"]


def test_a_fraction_is_of_what_is_given_to_train():
    entries = [
        Entry(f"{number}.png", 0, 1, split=("train", "test")[number % 2]) for number in range(2000)
    ]
    members = assign_splits(entries, ConvertOptions(validation_split=0.3))
    assert len(members["test"]) == 1000
    assert len(members["validation"]) == pytest.approx(300, abs=75)
    assert all(draw_split(e.path, ConvertOptions(validation_split=0.3)) == "validation"
               for e in members["validation"])  # fmt: skip


def test_a_split_is_not_given_and_drawn_at_once():
    entries = [Entry("1.png", 0, 1, split="test"), Entry("2.png", 0, 1, split="train")]
    with pytest.raises(UsageError, match="split 'test' is given"):
        assign_splits(entries, ConvertOptions(test_split=0.5))


@pytest.mark.parametrize("copies", [1, 2, 8])
def test_copies_do_not_change_the_share_of_a_split(copies):
    entries = [Entry(f"{n}-{copy}.png", 0, 1) for n in range(2000) for copy in range(copies)]
    sets = [range(at, at + copies) for at in range(0, len(entries), copies)]
    members = assign_splits(entries, SPLIT, sets if copies > 1 else ())
    assert len(members["validation"]) / len(entries) == pytest.approx(0.2, abs=0.03)
    assert len(members["test"]) / len(entries) == pytest.approx(0.1, abs=0.03)


def test_another_copy_moves_few_images():
    entries = [Entry(f"{n}-{copy}.png", 0, 1) for n in range(1000) for copy in range(8)]
    fewer = [entry for entry in entries if "-7" not in entry.path]
    before = assign_splits(fewer, SPLIT, [range(at, at + 7) for at in range(0, 7000, 7)])
    after = assign_splits(entries, SPLIT, [range(at, at + 8) for at in range(0, 8000, 8)])
    found, later = find_splits(before), find_splits(after)
    # One in eight has a new first, and that one agrees by chance in half of all cases.
    assert sum(later[path] != split for path, split in found.items()) / len(found) < 0.09


@QUICK
@given(SEEDS)
def test_a_group_is_never_divided(seed):
    options = dataclasses.replace(SPLIT, seed=seed, group_by=r"p(\d+)-")
    splits = find_splits(assign_splits(make_entries(1000), options))
    by_group: dict[str, set[str]] = {}
    for path, split in splits.items():
        by_group.setdefault(re.search(r"p(\d+)-", path)[1], set()).add(split)
    assert len(by_group) == 200
    assert all(len(found) == 1 for found in by_group.values())


def test_groups_may_be_folders_a_column_or_nothing():
    entries = [Entry(f"c{number % 40}/{number}.png", 0, 1) for number in range(400)]
    folders = find_splits(assign_splits(entries, dataclasses.replace(SPLIT, group_by="folder")))
    assert len({(path.split("/")[0], split) for path, split in folders.items()}) == 40
    grouped = [entry._replace(group=f"g{number % 40}") for number, entry in enumerate(entries)]
    columns = find_splits(assign_splits(grouped, SPLIT))
    assert len({(path.split("/")[0], split) for path, split in columns.items()}) == 40
    alone = find_splits(assign_splits(entries, SPLIT))
    one = find_splits(assign_splits(entries, dataclasses.replace(SPLIT, group_by="^c7/")))
    assert len({split for path, split in one.items() if path.startswith("c7/")}) == 1
    assert {path for path in one if one[path] != alone[path]} <= {f"c7/{n}.png" for n in range(400)}


def test_a_pattern_of_groups_that_matches_nothing_is_a_mistake():
    entries = [Entry(f"{number}.png", 0, 1) for number in range(40)]
    options = dataclasses.replace(SPLIT, group_by="patient")
    with pytest.raises(UsageError, match=r"group by 'patient' .* '0"):
        assign_splits(entries, options)
    # Of what is in the splits of an earlier conversion, none may be left that it matches.
    assert assign_splits(entries, options, kept={}) == assign_splits(entries, SPLIT)


@QUICK
@given(SEEDS, st.lists(st.lists(st.integers(0, 199), min_size=2, max_size=5), max_size=20))
def test_duplicates_never_straddle_splits_nor_divide_groups(seed, sets):
    duplicates, seen = [], set()
    for group in sets:
        fresh = sorted(set(group) - seen)
        seen |= set(fresh)
        if len(fresh) > 1:
            duplicates.append(fresh)
    entries = make_entries(200)
    for group_by in (None, r"p(\d+)-"):
        options = dataclasses.replace(SPLIT, seed=seed, group_by=group_by)
        try:
            splits = find_splits(assign_splits(entries, options, duplicates))
        except UsageError:  # so few groups may leave a split without any
            assume(False)
        for group in duplicates:
            assert len({splits[entries[place].path] for place in group}) == 1
        if group_by:
            groups = {(path.split("/")[1].split("-")[0], split) for path, split in splits.items()}
            assert len(groups) == 40


@QUICK
@given(SEEDS)
def test_each_class_has_its_share(seed):
    entries = [
        Entry(f"{label}/{number}.png", label, 1)
        for label, count in enumerate((1000, 100, 10, 2, 1))
        for number in range(count)
    ]
    members = assign_splits(entries, dataclasses.replace(STRATIFIED, seed=seed))
    counts = {split: Counter(entry.label for entry in group) for split, group in members.items()}
    assert counts["validation"] == {0: 200, 1: 20, 2: 2, 3: 1}
    assert counts["test"] == {0: 100, 1: 10, 2: 1}
    assert counts["train"] == {0: 700, 1: 70, 2: 7, 3: 1, 4: 1}


def test_groups_are_stratified_by_the_label_of_most():
    entries = [
        Entry(f"{number}.png", (number // 5) % 2, 1, group=f"g{number // 5}")
        for number in range(1000)
    ]
    entries[0] = entries[0]._replace(label=1 - entries[0].label)
    members = assign_splits(entries, STRATIFIED)
    splits = find_splits(members)
    assert len({(entry.group, splits[entry.path]) for entry in entries}) == 200
    for label in (0, 1):
        held_out = sum(entry.label == label for entry in members["validation"])
        assert held_out == pytest.approx(100, abs=5)


def test_the_label_of_most_decides_in_which_class_a_group_counts():
    # In each group one image of class 0 and two of class 1.
    entries = [
        Entry(f"g{number}/{place}.png", int(place > 0), 1, group=f"g{number}")
        for number in range(100)
        for place in range(3)
    ]
    members = assign_splits(entries, dataclasses.replace(STRATIFIED, test_split=0.0))
    # All groups count in class 1. A fifth of its 200 images is 40: 13 groups of 3.
    assert len({entry.group for entry in members["validation"]}) == 13


def test_a_group_keeps_its_split_when_images_join_or_leave_it():
    groups = [
        [Entry(f"g{number}/{place}.png", 0, 1, group=f"g{number}") for place in range(20)]
        for number in range(60)
    ]
    few = assign_splits([group[7] for group in groups], SPLIT)
    all_of_them = find_splits(assign_splits([entry for group in groups for entry in group], SPLIT))
    assert all(all_of_them[path] == split for path, split in find_splits(few).items())


def test_a_hundred_thousand_classes_are_stratified_in_seconds():
    classes, options = 100_000, dataclasses.replace(STRATIFIED, validation_split=0.5)
    labels, order = np.repeat(np.arange(classes, dtype=np.int32), 4), np.random.default_rng(0)
    begun = time.process_time()
    chosen = stratify(
        labels,
        order.integers(0, 2**63, len(labels)).astype(np.uint64),
        np.full(len(labels), OPEN, np.int8),
        None,
        options,
    )
    assert time.process_time() - begun < 6
    assert (np.bincount(labels[chosen == VALIDATION]) == 2).all()


def test_stratify_takes_one_label_for_each_image():
    entries = [Entry("1.png", NO_LABEL, 1), Entry("2.png", 0, 1)]
    with pytest.raises(UsageError, match=r"^stratify .* one label each"):
        assign_splits(entries, STRATIFIED)


@pytest.mark.parametrize(("options", "most"), [(SPLIT, 0), (STRATIFIED, 40)])
def test_few_images_move_when_a_tenth_is_added(options, most):
    entries = make_entries(11_000)
    before = find_splits(assign_splits(entries[:10_000], options))
    after = find_splits(assign_splits(entries, options))
    assert sum(after[path] != split for path, split in before.items()) <= most


@pytest.mark.parametrize(
    "options",
    [SPLIT, STRATIFIED, dataclasses.replace(SPLIT, group_by=r"p(\d+)-")],
)
def test_nothing_moves_that_is_kept(options):
    entries = make_entries(1100)
    kept = find_splits(assign_splits(entries[:1000], options))
    after = find_splits(assign_splits(entries, options, kept=kept))
    assert {path: after[path] for path in kept} == kept
    new = Counter(after[entry.path] for entry in entries[1000:])
    assert new["validation"] > 0
    assert sum(new.values()) == 100


def test_what_is_new_joins_its_group_and_its_duplicates():
    options = dataclasses.replace(SPLIT, group_by=r"p(\d+)-")
    old = [Entry(f"a/p{number}-old.png", 0, 1) for number in range(50)]
    new = [Entry(f"a/p{number}-new.png", 0, 1) for number in range(50)]
    kept = {
        entry.path: ("train", "validation", "test")[place % 3] for place, entry in enumerate(old)
    }
    after = find_splits(assign_splits([*old, *new], options, kept=kept))
    assert all(after[n.path] == kept[o.path] for o, n in zip(old, new, strict=True))
    pairs = [(place, place + 50) for place in range(50)]
    after = find_splits(assign_splits([*old, *new], SPLIT, pairs, kept))
    assert all(after[n.path] == kept[o.path] for o, n in zip(old, new, strict=True))


def test_an_image_of_train_stays_there_though_its_like_is_in_test():
    entries = [
        Entry(f"{place}.png", 0, 1, split=split)
        for place, split in enumerate(("train", "test") * 50)
    ]
    pairs = [(place, place + 1) for place in range(0, 100, 2)]
    entries += [Entry(f"free {number}.png", 0, 1) for number in range(10)]
    splits = find_splits(assign_splits(entries, ConvertOptions(validation_split=0.9), pairs))
    assert {splits[f"{place}.png"] for place in range(0, 100, 2)} == {"train"}


@pytest.mark.parametrize(
    ("given_split", "split", "stays"),
    [
        ("", "test", True),
        ("test", "test", True),
        ("train", "validation", True),
        ("test", "train", False),
        ("validation", "test", False),
    ],
)
def test_an_image_leaves_a_split_that_it_is_not_given_to(given_split, split, stays):
    entry = Entry("1.png", 0, 1, split=given_split)
    assert may_stay(entry, split, SPLIT) == stays
