"""Orders: each record once, the same from anywhere, and as good as uniform."""

import collections
import concurrent.futures
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reader.sampling.draws import (
    BLOCK,
    KEPT_BLOCKS,
    ROUNDS,
    derive_key,
    permute,
    permute_block,
    permute_blockwise,
)
from reader.sampling.orders import (
    MixedOrder,
    SequentialOrder,
    ShardwiseOrder,
    ShuffledOrder,
    WindowedOrder,
)

QUICK = settings(deadline=None, max_examples=25)
SEEDS = st.integers(0, 2**63 - 1)
HUGE = (2**31 - 1, 2**31, 2**32 + 1, 10**12 + 7, 2**62 + 3)

RECORDS = 1_000
EPOCHS = 30
EXACT = ShuffledOrder(records=RECORDS, seed=9)
WINDOWED = WindowedOrder(records=RECORDS, seed=9, run=25, window=100)


def list_epoch(order, records: int, epoch: int = 0) -> np.ndarray:
    return order.find_records(epoch, np.arange(records))


def make_orders(records: int, seed: int = 3) -> list:
    """One of each kind."""
    half = records // 2
    parts = (
        ShuffledOrder(records=half, seed=seed),
        ShuffledOrder(records=records - half, seed=seed + 1),
    )
    return [
        SequentialOrder(),
        ShuffledOrder(records=records, seed=seed),
        WindowedOrder(records=records, seed=seed, run=10, window=400),
        ShardwiseOrder(counts=(half, 0, records - half), seed=seed, run=10, window=400, shards=2),
        MixedOrder(orders=parts, begins=(0, half), shares=(50, 50), seed=seed),
    ]


def limit(freedom: int) -> float:
    """What chi-squared exceeds once in 100,000 times (Wilson and Hilferty)."""
    ninth = 2 / (9 * freedom)
    return freedom * (1 - ninth + 4.27 * math.sqrt(ninth)) ** 3


def mix(value: int) -> int:
    """The finalizer of SplitMix64, in Python's integers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % 2**64
    return value ^ (value >> 31)


def unpermute(numbers: np.ndarray, count: int, key: int) -> np.ndarray:
    """Takes a permutation back, in Python's integers: each of its rounds undoes itself."""
    positions = []
    for number in numbers.tolist():
        here = number
        for turn in reversed(range(ROUNDS)):
            salt = derive_key(key, turn)
            there = (salt % count - here) % count
            if mix(max(here, there) ^ salt) >> 63:
                here = there
        positions.append(here)
    return np.array(positions)


@QUICK
@given(st.integers(1, 3_000), st.integers(0, 10**6), SEEDS)
def test_a_shuffle_has_each_record_once(records, epoch, seed):
    numbers = list_epoch(ShuffledOrder(records=records, seed=seed), records, epoch)
    assert sorted(numbers) == list(range(records))


@QUICK
@given(st.integers(1, 500), st.integers(1, 60), st.integers(1, 9), st.integers(0, 99), SEEDS)
def test_a_windowed_shuffle_has_each_record_once(records, run, runs, epoch, seed):
    order = WindowedOrder(records=records, seed=seed, run=run, window=run * runs)
    assert sorted(list_epoch(order, records, epoch)) == list(range(records))


@pytest.mark.parametrize("count", [*range(1, 20), BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_a_permutation_reaches_every_number_of_its_domain(count):
    for key in (0, 1, 2**64 - 1):
        assert sorted(permute_blockwise(np.arange(count), count, key)) == list(range(count))


@pytest.mark.parametrize("count", HUGE)
def test_a_permutation_of_a_huge_domain_can_be_taken_back(count):
    rng = np.random.default_rng(count)
    positions = np.concatenate([rng.integers(0, count, 100), [0, 1, count // 2, count - 1]])
    numbers = permute(positions, count, 17)
    assert numbers.min() >= 0
    assert numbers.max() < count
    assert list(unpermute(numbers, count, 17)) == list(positions)
    assert list(permute_blockwise(positions, count, 17)) == list(numbers)


@pytest.mark.parametrize("count", HUGE)
def test_neighbours_in_a_huge_domain_do_not_collide_and_are_spread_over_it(count):
    begin = count - 3 * BLOCK
    numbers = permute_blockwise(np.arange(begin, count), count, 4)
    assert len(np.unique(numbers)) == 3 * BLOCK
    seen, _ = np.histogram(numbers, 64, (0, count))
    expected = 3 * BLOCK / 64
    assert ((seen - expected) ** 2 / expected).sum() < limit(63)


def test_nothing_asked_for_gives_nothing():
    for order in make_orders(100):
        assert order.find_records(0, np.empty(0, np.int64)).tolist() == []
    for records in (0, 1):
        assert list_epoch(ShuffledOrder(records=records, seed=1), records).tolist() == [0] * records


def test_an_order_is_the_same_from_anywhere():
    positions = np.arange(5_000)
    rng = np.random.default_rng(0)
    asked = [
        positions[4_000:],
        positions[::-3],
        rng.permutation(positions),
        rng.integers(0, 5_000, 50),  # some of them twice
        positions.reshape(50, 5, 20),
        *np.array_split(positions, 77),
    ]
    for order in make_orders(5_000):
        whole = order.find_records(5, positions)
        assert (whole.dtype, whole.shape) == (np.int64, (5_000,))
        for some in asked:
            kept = some.copy()
            np.testing.assert_array_equal(order.find_records(5, some), whole[some], strict=True)
            np.testing.assert_array_equal(some, kept)


def test_what_a_caller_does_to_a_result_does_not_come_back():
    for order in make_orders(100)[1:]:
        first = list_epoch(order, 100)
        expected = first.tolist()
        first[:] = -1
        assert list_epoch(order, 100).tolist() == expected


def test_scattered_positions_of_many_records_are_permuted_as_neighbours_are():
    count = KEPT_BLOCKS * BLOCK + 1
    whole = permute_blockwise(np.arange(count), count, 8)
    assert len(np.unique(whole)) == count
    rng = np.random.default_rng(1)
    for size in (1, 2, 3, 32, 5_000, 50_000):
        some = rng.integers(0, count, size)
        np.testing.assert_array_equal(permute_blockwise(some, count, 8), whole[some])
    # A batch of them costs less than one block.
    permute_block.cache_clear()
    permute_blockwise(rng.integers(0, count, 32), count, 8)
    assert permute_block.cache_info().misses == 0
    permute_blockwise(np.arange(BLOCK - 16, BLOCK + 16), count, 8)
    assert permute_block.cache_info().misses == 2


def test_threads_see_the_same_orders():
    ranges = np.array_split(np.arange(5_000), 40)
    jobs = [(order, epoch, some) for order in make_orders(5_000) for epoch in (0, 1)
            for some in ranges]  # fmt: skip
    expected = [order.find_records(epoch, some).tolist() for order, epoch, some in jobs]
    permute_block.cache_clear()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda job: job[0].find_records(*job[1:]).tolist(), jobs))
    assert found == expected


def test_every_epoch_and_every_seed_has_an_order_of_its_own():
    for kind in (1, 2, 3):
        seen = {
            tuple(list_epoch(make_orders(300, seed)[kind], 300, epoch).tolist())
            for seed in (0, 1, 2, 2**62, 2**63 - 2)
            for epoch in (0, 1, 2, 10**6)
        }
        assert len(seen) == 20


def test_an_order_is_the_same_in_every_version():
    shuffled, windowed = (
        ShuffledOrder(records=10, seed=0),
        WindowedOrder(records=11, seed=0, run=2, window=4),
    )
    assert list_epoch(shuffled, 10).tolist() == [3, 4, 6, 7, 1, 0, 8, 9, 2, 5]
    assert list_epoch(windowed, 11, 1).tolist() == [9, 6, 8, 7, 5, 3, 4, 2, 0, 1, 10]


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_all_permutations_of_a_small_domain_are_equally_likely(count):
    each = max(20, 400 // math.factorial(count))
    seen = collections.Counter(
        tuple(permute(np.arange(count), count, derive_key(11, key)).tolist())
        for key in range(each * math.factorial(count))
    )
    every = itertools.permutations(range(count))
    squares = sum((seen[permutation] - each) ** 2 / each for permutation in every)
    assert squares < limit(math.factorial(count) - 1)


def test_every_record_is_at_every_place_equally_often():
    places = np.array([np.argsort(list_epoch(EXACT, RECORDS, epoch)) for epoch in range(EPOCHS)])
    seen = np.array([np.bincount(record * 10 // RECORDS, minlength=10) for record in places.T])
    squares = ((seen - EPOCHS / 10) ** 2 / (EPOCHS / 10)).sum()
    # What is more even than chance is no chance either.
    freedom = RECORDS * 9
    assert abs(squares - freedom) < 4.5 * math.sqrt(2 * freedom)


def measure_classes(order) -> float:
    """Chi-squared with 81 degrees of freedom, a mean over epochs: 10 classes in 10 parts of them.

    The records are sorted by class.
    """
    parts = np.arange(RECORDS) * 10 // RECORDS
    squares = []
    for epoch in range(EPOCHS):
        classes = list_epoch(order, RECORDS, epoch) * 10 // RECORDS
        seen = np.bincount(parts * 10 + classes, minlength=100)
        squares.append(((seen - 10) ** 2 / 10).sum() * (RECORDS - 1) / RECORDS)
    return float(np.mean(squares))


def test_classes_that_are_stored_sorted_are_mixed_by_an_exact_shuffle_alone():
    allowed = 4.5 * math.sqrt(2 * 81 / EPOCHS)
    assert abs(measure_classes(EXACT) - 81) < allowed
    assert measure_classes(WINDOWED) > 81 + 100 * allowed


def measure_neighbours(order) -> tuple[float, int]:
    """How far apart former neighbours are, and how many of them still are neighbours."""
    places = [np.argsort(list_epoch(order, RECORDS, epoch)) for epoch in range(EPOCHS)]
    distances = np.abs(np.diff(places, axis=1))
    return float(distances.mean()), int((distances == 1).sum())


def test_neighbours_are_kept_together_by_a_windowed_shuffle_alone():
    # The mean of 30 epochs deviates by 1.5; the number is one of Poisson's.
    distance, adjacent = measure_neighbours(EXACT)
    assert abs(distance - (RECORDS + 1) / 3) < 7
    assert abs(adjacent - 2 * EPOCHS) < 4.5 * math.sqrt(2 * EPOCHS)
    distance, adjacent = measure_neighbours(WINDOWED)
    assert distance < (RECORDS + 1) / 6
    assert adjacent > 6 * EPOCHS


def test_orders_of_two_seeds_or_epochs_have_nothing_in_common():
    other = ShuffledOrder(records=RECORDS, seed=10)
    for epoch in range(EPOCHS):
        one = list_epoch(EXACT, RECORDS, epoch)
        for two in (list_epoch(other, RECORDS, epoch), list_epoch(EXACT, RECORDS, epoch + 1)):
            assert abs(np.corrcoef(one, two)[0, 1]) < 4.5 / math.sqrt(RECORDS)
            assert np.count_nonzero(one == two) < 10  # a Poisson number of mean 1


@pytest.mark.parametrize(
    ("records", "run", "window"),
    [(100, 5, 20), (103, 5, 20), (95, 5, 20), (99, 5, 20), (41, 20, 40), (7, 5, 20), (3, 5, 20)],
)
def test_a_window_reads_as_many_runs_as_fit_in_it(records, run, window):
    order = WindowedOrder(records=records, seed=4, run=run, window=window)
    for epoch in range(20):
        numbers = list_epoch(order, records, epoch)
        read = [set(numbers[begin : begin + window] // run) for begin in range(0, records, window)]
        assert all(len(runs) <= window // run for runs in read)
        assert sum(map(len, read)) == -(-records // run)  # none is read for two windows
        if records % run:
            assert records // run in read[-1]


def test_the_runs_of_a_window_are_others_in_every_epoch():
    order = WindowedOrder(records=1_000, seed=4, run=10, window=50)
    first = {frozenset(list_epoch(order, 1_000, epoch)[:50] // 10) for epoch in range(20)}
    assert len(first) == 20


def make_mixture(*shares: int, blocks: int = 20, **changes) -> tuple[MixedOrder, list[int]]:
    """A mixture, each part with more records than an epoch takes; and where those begin."""
    counts = [share * blocks + 3 for share in shares]
    begins = [sum(counts[:index]) for index in range(len(counts))]
    parts = [ShuffledOrder(records=count, seed=index) for index, count in enumerate(counts)]
    mixed = MixedOrder(orders=tuple(parts), begins=tuple(begins), shares=shares, seed=1, **changes)
    return mixed, begins


@pytest.mark.parametrize("shares", [(70, 30), (1, 1), (5,), (1, 98, 1), (33, 33, 34)])
def test_a_mixture_has_its_shares_in_every_block_and_no_record_twice(shares):
    mixed, begins = make_mixture(*shares)
    size = sum(shares)
    for epoch in (0, 1):
        numbers = list_epoch(mixed, 20 * size, epoch)
        assert len(np.unique(numbers)) == len(numbers)
        for block in numbers.reshape(20, size):
            part = np.searchsorted(begins, block, side="right") - 1
            assert np.bincount(part, minlength=len(shares)).tolist() == list(shares)


def test_a_mixture_goes_on_from_any_position():
    mixed, _ = make_mixture(70, 30)
    whole = list_epoch(mixed, 2_000, 3)
    for begin in (0, 1, 99, 100, 101, 555, 1_999):
        assert mixed.find_records(3, np.arange(begin, 2_000)).tolist() == whole[begin:].tolist()


def test_a_mixture_is_in_each_part_as_far_as_its_order_says():
    mixed, begins = make_mixture(70, 30)
    numbers = list_epoch(mixed, 2_000, 3)
    for part, begin, share in zip(mixed.orders, begins, mixed.shares, strict=True):
        taken = [number for number in numbers - begin if 0 <= number < part.records]
        expected = list_epoch(part, share * 20, 3)
        for block in range(20):
            blocked = slice(block * share, (block + 1) * share)
            assert sorted(taken[blocked]) == sorted(expected[blocked])


def test_the_sequence_of_a_mixture_is_another_in_every_block_and_epoch():
    def list_sequences(mixed: MixedOrder) -> list[tuple[bool, ...]]:
        return [
            tuple((block >= 1_403).tolist())
            for epoch in (0, 1)
            for block in list_epoch(mixed, 2_000, epoch).reshape(20, 100)
        ]

    fresh, steady = make_mixture(70, 30)[0], make_mixture(70, 30, is_fresh=False)[0]
    assert len(set(list_sequences(fresh))) == 40
    sequences = list_sequences(steady)
    assert len(set(sequences)) == 20
    assert sequences[:20] == sequences[20:] == list_sequences(fresh)[:20]


@settings(deadline=None, max_examples=100)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    run=st.integers(1, 20),
    window=st.integers(1, 100),
    shards=st.integers(1, 13),
    epoch=st.integers(0, 3),
)
def test_a_few_shards_at_a_time_are_mixed(counts, run, window, shards, epoch):
    order = ShardwiseOrder(counts=tuple(counts), seed=4, run=run, window=window, shards=shards)
    records = sum(counts)
    numbers = list_epoch(order, records, epoch)
    assert sorted(numbers.tolist()) == list(range(records))
    which = np.searchsorted(np.cumsum(counts), numbers, side="right")
    ended: set[int] = set()
    begin = 0
    while begin < records:
        # The next group: its shards come together, and never again.
        group = list(dict.fromkeys(which[begin:].tolist()))[:shards]
        size = sum(counts[shard] for shard in group)
        assert set(which[begin : begin + size].tolist()) == set(group)
        assert not ended & set(group)
        ended |= set(group)
        begin += size


def test_runs_lie_within_shards_and_are_shuffled_within_windows():
    order = ShardwiseOrder(counts=(95, 100, 30), seed=4, run=10, window=40, shards=2)
    numbers = list_epoch(order, 225)
    shard = np.searchsorted([95, 195, 225], numbers, side="right")
    runs = {(s, (n - (0, 95, 195)[s]) // 10) for s, n in zip(shard, numbers, strict=True)}
    assert len(runs) == 10 + 10 + 3
    size = int(np.isin(shard, shard[:60]).sum())
    for begin in range(0, size - 40, 40):
        held = numbers[begin : begin + 40]
        which = shard[begin : begin + 40]
        starts = np.array([0, 95, 195])[which]
        # Four whole runs, and parts of those at both ends, of which the last of a shard is shorter.
        assert len(set(zip(which, (held - starts) // 10, strict=True))) <= 7


def test_the_groups_of_shards_differ_from_epoch_to_epoch():
    order = ShardwiseOrder(counts=(10,) * 8, seed=4, run=5, window=10, shards=2)
    firsts = {tuple(sorted(set((list_epoch(order, 80, e)[:20] // 10).tolist()))) for e in range(9)}
    assert len(firsts) > 4
