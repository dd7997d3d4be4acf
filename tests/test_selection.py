"""Which records an epoch is made of: exact shares, nothing twice, the same for the same seed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reader.sampling.draws import BLOCK, KEPT_BLOCKS
from reader.sampling.orders import (
    Selection,
    ShuffledOrder,
    divide,
    select_all,
    select_chosen,
    sort_selection,
)

QUICK = settings(deadline=None, max_examples=60)
SPLITS = st.floats(0, 1, exclude_min=True, exclude_max=True)
SEEDS = st.integers(0, 2**63 - 1)


def list_records(selection: Selection) -> list[int]:
    return selection.find_records(np.arange(selection.count)).tolist()


def test_all_records_come_as_they_are_stored():
    assert list_records(select_all(5)) == [0, 1, 2, 3, 4]
    assert list_records(select_all(0)) == []


@QUICK
@given(st.integers(0, 3_000), SPLITS, SEEDS)
def test_a_division_has_exact_shares_and_each_record_in_one_of_them(total, split, seed):
    parts = divide(select_all(total), split, seed)
    assert list(parts) == ["training", "validation"]
    training, validation = map(list_records, parts.values())
    assert len(validation) == int(split * total)
    assert sorted(training + validation) == list(range(total))


def test_a_division_is_the_same_in_every_version_and_another_for_every_seed():
    parts = [divide(select_all(1_000), 0.2, seed)["validation"] for seed in range(20)]
    assert list_records(parts[0])[:8] == [552, 417, 466, 743, 881, 854, 112, 263]
    assert len({frozenset(list_records(part)) for part in parts}) == 20
    assert list_records(parts[3]) == list_records(divide(select_all(1_000), 0.2, 3)["validation"])


def test_a_division_holds_out_each_record_equally_often():
    held_out = [list_records(divide(select_all(200), 0.2, seed)["validation"])
                for seed in range(200)]  # fmt: skip
    seen = np.bincount(np.concatenate(held_out), minlength=200)
    squares = ((seen - 40) ** 2 / (200 * 0.2 * 0.8)).sum()  # each of a mean of 1
    assert abs(squares - 200) < 4.5 * math.sqrt(400)


@pytest.mark.parametrize("asked", ["training", "validation"])
def test_a_part_is_found_from_anywhere_in_it(asked):
    part = divide(select_all(3 * KEPT_BLOCKS * BLOCK), 0.3, 5)[asked]
    begin, end = (0, 9_000) if asked == "training" else (part.count - 9_000, part.count)
    whole = part.find_records(np.arange(begin, end))
    rng = np.random.default_rng(0)
    for size in (1, 3, 40, 700):
        some = rng.integers(begin, end, size)
        np.testing.assert_array_equal(part.find_records(some), whole[some - begin])


def test_the_division_and_the_order_of_the_same_seed_are_different_permutations():
    part = divide(select_all(1_000), 0.5, 7)["training"]
    held = np.array(list_records(part))
    for epoch in range(20):
        order = ShuffledOrder(records=1_000, seed=7).find_records(epoch, np.arange(500))
        assert np.count_nonzero(order == held) < 10
        assert 180 < len(np.intersect1d(order, held)) < 320


@QUICK
@given(st.sets(st.integers(0, 10**6), max_size=300), SPLITS, SEEDS)
def test_some_records_are_divided_as_all_are(numbers, split, seed):
    chosen = np.array(sorted(numbers), np.int64)
    parts = divide(select_chosen(chosen), split, seed)
    training, validation = map(list_records, parts.values())
    assert len(validation) == int(split * len(numbers))
    assert sorted(training + validation) == sorted(numbers)
    places = map(list_records, divide(select_all(len(numbers)), split, seed).values())
    assert [training, validation] == [chosen[place].tolist() for place in places]


def test_a_drawn_selection_can_be_read_as_it_is_stored():
    parts = divide(select_all(50), 0.3, seed=4)
    everything = np.arange(50)
    for part in parts.values():
        stored = sort_selection(part)
        found = stored.find_records(everything[: part.count])
        assert found.tolist() == sorted(part.find_records(everything[: part.count]).tolist())
        assert stored.count == part.count
    whole = select_all(50)
    assert sort_selection(whole) is whole
