"""Orders: each record once, the same from anywhere, and as good as uniform."""

import collections
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reader.orders import MixedOrder, ShuffledOrder, WindowedOrder, derive_key, permute


def make_orders(records: int, seed: int = 3) -> list:
    return [
        ShuffledOrder(records=records, seed=seed),
        WindowedOrder(records=records, seed=seed, run=7, window=42),
    ]


@given(records=st.integers(1, 3_000), epoch=st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_each_record_comes_once_an_epoch(records, epoch):
    for order in make_orders(records):
        numbers = order.find_records(epoch, np.arange(records))
        assert sorted(numbers) == list(range(records))


def test_an_order_is_the_same_from_anywhere():
    positions = np.arange(10_000)
    for order in make_orders(10_000):
        whole = order.find_records(5, positions)
        assert list(order.find_records(5, positions[9_000:])) == list(whole[9_000:])
        assert list(order.find_records(5, positions[::-3])) == list(whole[::-3])
        assert list(order.find_records(6, positions)) != list(whole)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_all_permutations_of_a_small_domain_are_equally_likely(count):
    drawn = 20 * math.factorial(count)
    seen = collections.Counter(
        tuple(permute(np.arange(count), count, derive_key(11, key)).tolist())
        for key in range(drawn)
    )
    every = itertools.permutations(range(count))
    squares = sum((seen[permutation] - 20) ** 2 / 20 for permutation in every)
    freedom = math.factorial(count) - 1
    assert squares < freedom + 4 * math.sqrt(2 * freedom) + 8  # about one in 100,000


def measure_locality(order, records: int) -> float:
    """How far apart former neighbours are, as a share of what a uniform order gives."""
    distances = [
        np.abs(np.diff(np.argsort(order.find_records(epoch, np.arange(records))))).mean()
        for epoch in range(10)
    ]
    return float(np.mean(distances) / (records / 3))


def test_an_exact_shuffle_is_uniform_and_a_windowed_one_is_not():
    exact, windowed = make_orders(2_000)
    assert 0.97 < measure_locality(exact, 2_000) < 1.03
    assert measure_locality(windowed, 2_000) < 0.5


def test_positions_of_a_record_are_uniform_over_many_epochs():
    order = ShuffledOrder(records=1_000, seed=9)
    epochs = [np.argsort(order.find_records(epoch, np.arange(1_000))) for epoch in range(40)]
    counts, _ = np.histogram(np.concatenate([epoch[:50] for epoch in epochs]), 20, (0, 1_000))
    assert ((counts - 100) ** 2 / 100).sum() < 19 + 4 * math.sqrt(38) + 8


def test_a_mixture_has_its_shares_in_every_block_and_no_record_twice():
    parts = (ShuffledOrder(records=700, seed=1), ShuffledOrder(records=900, seed=1))
    mixed = MixedOrder(orders=parts, begins=(0, 700), shares=(70, 30), seed=1)
    numbers = mixed.find_records(2, np.arange(1_000))
    assert len(set(numbers.tolist())) == 1_000
    assert all((block < 700).sum() == 70 for block in numbers.reshape(10, 100))
    assert list(mixed.find_records(2, np.arange(550, 600))) == list(numbers[550:600])
