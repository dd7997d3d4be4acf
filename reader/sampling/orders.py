"""The orders in which records are read: pure functions of (seed, epoch, position).

An order maps positions of an epoch to numbers of records. Nothing is kept between calls, so any
number of hosts and threads can enter an epoch anywhere, with the same result. Each record comes
once an epoch.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from reader.arrays import Numbers

# Of swap-or-not: over 2 to 6 elements all permutations came out equally often (chi-squared).
ROUNDS: Final = 72
# Positions permuted at once: batch by batch, numpy's overhead would be 1 ms each.
BLOCK: Final = 4_096
KEPT_BLOCKS: Final = 32  # 1 MB
_GOLDEN: Final = 0x9E3779B97F4A7C15
_MASK: Final = 0xFFFFFFFFFFFFFFFF


class Order(Protocol):
    """An order of records."""

    def find_records(self, epoch: int, positions: Numbers) -> Numbers:
        """Finds the records at some positions of an epoch, int64 of the same shape."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class SequentialOrder:
    """The order in which the records are stored, in every epoch."""

    def find_records(self, epoch: int, positions: Numbers) -> Numbers:
        del epoch
        return positions


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShuffledOrder:
    """An order as good as uniform, fresh in every epoch."""

    records: int
    seed: int

    def find_records(self, epoch: int, positions: Numbers) -> Numbers:
        return permute_blockwise(positions, self.records, derive_key(self.seed, epoch))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WindowedOrder:
    """Long reads in a random order: for storage with slow random access.

    Runs of neighbours come in a random order and are shuffled within windows of several runs. A
    window has to be held in memory; the smaller it is, the more an order depends on how the records
    are stored. The last, shorter run stays at the end.
    """

    records: int
    seed: int
    run: int  # neighbours read at once
    window: int  # records shuffled together, a multiple of `run`

    def find_records(self, epoch: int, positions: Numbers) -> Numbers:
        key = derive_key(self.seed, epoch)
        places = _shuffle_windows(positions, self.records, self.window, key)
        runs, offsets = places // self.run, places % self.run
        whole = self.records // self.run
        moved = runs < whole
        runs[moved] = permute_blockwise(runs[moved], whole, derive_key(key, -1))
        return runs * self.run + offsets


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardwiseOrder:
    """The same, shard by shard: for storage from which whole shards are fetched.

    The shards come in a random order, and a few at a time are mixed as `WindowedOrder` mixes all of
    them. No run goes beyond its shard.
    """

    counts: tuple[int, ...]  # records of each shard
    seed: int
    run: int
    window: int
    shards: int  # how many are mixed

    def find_records(self, epoch: int, positions: Numbers) -> Numbers:
        key = derive_key(self.seed, epoch)
        order, ends = _arrange_shards(self.counts, self.shards, key)
        groups = np.searchsorted(ends, positions, side="right")
        numbers = np.empty_like(positions)
        for group in np.unique(groups).tolist():
            chosen = groups == group
            begin = int(ends[group - 1]) if group else 0
            inner = derive_key(key, group)
            mixed = order[group * self.shards : (group + 1) * self.shards]
            firsts, stops = _arrange_runs(self.counts, mixed, self.run, derive_key(inner, -1))
            size = int(ends[group]) - begin
            places = _shuffle_windows(positions[chosen] - begin, size, self.window, inner)
            runs = np.searchsorted(stops, places, side="right")
            numbers[chosen] = firsts[runs] + places - np.concatenate(([0], stops))[runs]
        return numbers


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MixedOrder:
    """Several data sets, one after the other in number, mixed in fixed proportions.

    Each block of positions holds a fixed number of records of each, in a random sequence. So a
    position alone tells how far each of them has been read.
    """

    orders: tuple[Order, ...]  # of each data set
    begins: tuple[int, ...]  # number of each one's first record
    shares: tuple[int, ...]  # records of each in a block
    seed: int
    is_fresh: bool = True  # whether the sequence changes with every epoch

    def find_records(self, epoch: int, positions: Numbers) -> Numbers:
        size = sum(self.shares)
        ends = np.cumsum(self.shares)
        blocks = positions // size
        key = derive_key(self.seed, epoch if self.is_fresh else 0)
        slots = _shuffle_windows(positions, 1 << 62, size, key) % size
        numbers = np.empty_like(positions)
        for index, which in enumerate(self.orders):
            share, begin = self.shares[index], int(ends[index]) - self.shares[index]
            chosen = (slots >= begin) & (slots < ends[index])
            taken = blocks[chosen] * share + slots[chosen] - begin
            numbers[chosen] = self.begins[index] + which.find_records(epoch, taken)
        return numbers


def permute(positions: Numbers, count: int, key: int) -> Numbers:
    """Applies one of the permutations of 0 … `count` - 1 to some positions.

    This is the swap-or-not shuffle of Hoang, Morris and Rogaway ("An Enciphering Scheme Based on a
    Card Shuffle", 2012). It works on a domain of any size, in memory of the positions alone: in
    each round a random reflection pairs the positions, and a coin for each pair swaps it or not.
    """
    here = positions.astype(np.uint64)
    size = np.uint64(count)
    for turn in range(ROUNDS):
        salt = np.uint64(derive_key(key, turn))
        axis = np.uint64(int(salt) % count)
        there = np.where(here <= axis, axis - here, axis + size - here)
        coin = _mix(np.maximum(here, there) ^ salt) >> np.uint64(63)
        here = np.where(coin.astype(bool), there, here)
    return here.astype(np.int64)


def _shuffle_windows(positions: Numbers, records: int, window: int, key: int) -> Numbers:
    places = np.empty_like(positions)
    windows = positions // window
    for number in np.unique(windows).tolist():
        begin = number * window
        size = min(window, records - begin)
        chosen = windows == number
        places[chosen] = begin + permute_blockwise(
            positions[chosen] - begin, size, derive_key(key, number)
        )
    return places


@functools.lru_cache(maxsize=4)
def _arrange_shards(
    counts: tuple[int, ...], shards: int, key: int
) -> tuple[tuple[int, ...], Numbers]:
    """Returns the shards in a random order, and where each group of them ends."""
    order = permute(np.arange(len(counts), dtype=np.int64), len(counts), derive_key(key, -1))
    ends = np.cumsum(np.array(counts, np.int64)[order])
    return tuple(order.tolist()), np.append(ends[shards - 1 : -1 : shards], ends[-1:])


@functools.lru_cache(maxsize=4)
def _arrange_runs(
    counts: tuple[int, ...], shards: tuple[int, ...], run: int, key: int
) -> tuple[Numbers, Numbers]:
    """Returns where the runs of some shards begin, in a random order, and where they end in it."""
    begins = np.concatenate(([0], np.cumsum(counts)))
    firsts = np.concatenate([np.arange(begins[shard], begins[shard + 1], run) for shard in shards])
    lasts = np.concatenate([np.full(-(-counts[s] // run), begins[s + 1]) for s in shards])
    order = permute(np.arange(len(firsts), dtype=np.int64), len(firsts), key)
    sizes = np.minimum(run, lasts - firsts)
    return firsts[order], np.cumsum(sizes[order])


def derive_key(key: int, number: int) -> int:
    """Derives another key of 64 bits for each number: a step of SplitMix64 from each."""
    mixed = _mix_integer((key + _GOLDEN) & _MASK)
    return _mix_integer((mixed ^ (number * _GOLDEN)) & _MASK)


def permute_blockwise(positions: Numbers, count: int, key: int) -> Numbers:
    """Does the same as `permute`, faster for small batches of neighbouring positions."""
    permuted = np.empty_like(positions)
    blocks = positions // BLOCK
    touched = np.unique(blocks).tolist()
    if count > KEPT_BLOCKS // 2 * BLOCK and 4 * positions.size < (len(touched) - 2) * BLOCK:
        return permute(positions, count, key)  # scattered: each would cost a block of its own
    for block in touched:
        chosen = blocks == block
        whole = _permute_block(block, count, key)
        permuted[chosen] = whole[positions[chosen] - block * BLOCK]
    return permuted


@functools.lru_cache(maxsize=KEPT_BLOCKS)  # steps go through a block one after another
def _permute_block(block: int, count: int, key: int) -> Numbers:
    begin = block * BLOCK
    return permute(np.arange(begin, min(begin + BLOCK, count), dtype=np.int64), count, key)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014), which spreads every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _mix_integer(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
