"""Which records an epoch has, in which order and step: pure functions of (seed, epoch, position).

Only a `Position` is kept between calls, so any number of hosts and threads can enter an epoch
anywhere, with the same result. Each record comes once an epoch.
"""

import dataclasses
import functools
import operator
import threading
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np

from converter.errors import UsageError
from reader.arrays import Numbers
from reader.sampling.draws import derive_key, permute, permute_blockwise

REMAINDERS: Final = ("keep", "drop", "pad")
NOTHING: Final = -1  # position of a place in a batch without a record


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
        # Without an end: an epoch has only whole blocks.
        slots = _shuffle_windows(positions, 1 << 62, size, key) % size
        numbers = np.empty_like(positions)
        for index, which in enumerate(self.orders):
            share, begin = self.shares[index], int(ends[index]) - self.shares[index]
            chosen = (slots >= begin) & (slots < ends[index])
            taken = blocks[chosen] * share + slots[chosen] - begin
            numbers[chosen] = self.begins[index] + which.find_records(epoch, taken)
        return numbers


def _shuffle_windows(positions: Numbers, records: int, window: int, key: int) -> Numbers:
    places = np.empty_like(positions)
    windows = positions // window
    for number in np.unique(windows).tolist():
        begin = number * window
        size = min(window, records - begin)
        chosen = windows == number
        inner = derive_key(key, number)
        places[chosen] = begin + permute_blockwise(positions[chosen] - begin, size, inner)
    return places


@functools.lru_cache(maxsize=4)
def _arrange_shards(
    counts: tuple[int, ...], shards: int, key: int
) -> tuple[tuple[int, ...], Numbers]:
    """Returns the shards in a random order, and where each group of them ends."""
    order = permute(np.arange(len(counts)), len(counts), derive_key(key, -1))
    ends = np.cumsum(np.array(counts, np.int64)[order])
    return tuple(order.tolist()), np.append(ends[shards - 1 : -1 : shards], ends[-1:])


@functools.lru_cache(maxsize=4)
def _arrange_runs(
    counts: tuple[int, ...], shards: tuple[int, ...], run: int, key: int
) -> tuple[Numbers, Numbers]:
    """Returns where the runs of some shards begin, in a random order, and where they end in it."""
    begins = np.concatenate(([0], np.cumsum(counts)))
    firsts = np.concatenate([np.arange(begins[s], begins[s + 1], run) for s in shards])
    lasts = np.concatenate([np.full(-(-counts[s] // run), begins[s + 1]) for s in shards])
    order = permute(np.arange(len(firsts)), len(firsts), key)
    sizes = np.minimum(run, lasts - firsts)
    return firsts[order], np.cumsum(sizes[order])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Some of the records of a split, counted from 0."""

    count: int  # number of records selected
    total: int  # number to select from
    begin: int = 0  # of the selected records in the permutation `key`
    key: int | None = None  # of a permutation; None for the order on disk
    chosen: Numbers | None = None  # int64 (total,), the records to select from; None for all

    def find_records(self, numbers: Numbers) -> Numbers:
        """Finds selected records' numbers within the split, int64 of the same shape."""
        numbers = numbers + self.begin
        if self.key is not None:
            numbers = permute_blockwise(numbers, self.total, self.key)
        return numbers if self.chosen is None else self.chosen[numbers]


def select_all(total: int) -> Selection:
    """Selects all records of a split."""
    return Selection(count=total, total=total)


def select_chosen(chosen: Numbers) -> Selection:
    """Selects the records with these numbers."""
    return Selection(count=len(chosen), total=len(chosen), chosen=chosen)


def sort_selection(selection: Selection) -> Selection:
    """Puts the same records in the order on disk; takes 8 bytes for each."""
    if selection.key is None:
        return selection
    return select_chosen(np.sort(selection.find_records(np.arange(selection.count))))


def divide(selection: Selection, validation_split: float, seed: int) -> dict[str, Selection]:
    """Divides records at random into `training` and `validation`; the seed decides which."""
    held_out = int(validation_split * selection.count)  # rounded down, as by Keras
    kept = selection.count - held_out
    # Both are ranges of one permutation, which takes no memory.
    training = dataclasses.replace(selection, count=kept, key=derive_key(seed, -2))
    validation = dataclasses.replace(training, begin=kept, count=held_out)
    return {"training": training, "validation": validation}


def count_selected(selection: Selection, counts: Sequence[int]) -> tuple[int, ...]:
    """Counts the selected records of each shard, in a sorted selection."""
    if selection.chosen is None:
        return tuple(counts)
    ends = np.searchsorted(selection.chosen, np.cumsum(counts)).tolist()
    return tuple(np.diff(ends, prepend=0).tolist())


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """The steps of an epoch on one host of several.

    All hosts take as many steps, and together see each record once, however few shards there are.
    They divide the positions of each step among them, so another number of hosts sees the same
    records in the same steps, if the total batch size stays the same. With `contiguous` they divide
    the epoch instead, for the sake of long reads.
    """

    records: int  # in the epoch, on all hosts together
    batch_size: int  # records per step on one host
    remainder: str = "keep"  # as in `ReadOptions`; `keep` and `drop` do the same on all hosts
    shard_index: int = 0  # number of this host
    shard_count: int = 1  # number of hosts
    contiguous: bool = False  # whether each host takes one range of the epoch

    def __post_init__(self) -> None:
        least = self.records // self.shard_count
        if self.remainder == "keep" and least < self.count:
            raise UsageError(
                f"remainder 'keep' would leave a host without a record in a step: {self.records:,} "
                f"records in batches of {self.batch_size} on {self.shard_count} hosts; choose "
                "'drop' or 'pad'"
            )

    @property
    def count(self) -> int:
        """Number of steps, the same on every host."""
        if self.remainder == "drop":
            return self.records // self.shard_count // self.batch_size
        return -(-self.records // (self.shard_count * self.batch_size))

    def find_positions(self, step: int) -> Numbers:
        """The positions of a step, int64 (batch_size,), filled up with `NOTHING`.

        >>> Steps(records=5, batch_size=2).find_positions(2)
        array([ 4, -1])
        """
        if self.contiguous:
            begin, end = self._share(0, self.records)
            first, last = (begin + self._use_up(n, end - begin, 1) for n in (step, step + 1))
        else:
            used = (self._use_up(n, self.records, self.shard_count) for n in (step, step + 1))
            first, last = self._share(*used)
        positions = np.full(self.batch_size, NOTHING, np.int64)
        positions[: last - first] = np.arange(first, last)
        return positions

    def join_positions(self, steps: Sequence[int], stride: int = 1) -> Numbers:
        """The positions of several steps, or every `stride`th of each step, in one array."""
        found = [self.find_positions(step)[::stride] for step in steps]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def _share(self, begin: int, end: int) -> tuple[int, int]:
        """This host's part of a range of positions; parts differ by one at most."""
        size, hosts = end - begin, self.shard_count
        first, last = (index * size // hosts for index in (self.shard_index, self.shard_index + 1))
        return begin + first, begin + last

    def _use_up(self, step: int, records: int, hosts: int) -> int:
        """How many records of some hosts are used up before a step."""
        # With `keep`, one is left for each host and step to come, or a host could end up with
        # nothing in the last step.
        left = hosts * (self.count - step) if self.remainder == "keep" else 0
        return min(step * self.batch_size * hosts, records - left)


class Position:
    """The epoch and step where the next iterator begins.

    Every iterator that gives a first element takes an epoch, so a look at the data takes one too.
    Epochs after the first begin with their first step.

    Attributes:
        start: the epoch and step it was made with, whatever has been read since.
        epoch: the next one.
        step: its first step.
    """

    def __init__(self, epoch: int = 0, step: int = 0) -> None:
        self._lock = threading.Lock()
        self.start: Final = (epoch, step)
        self.seek(epoch, step)

    def seek(self, epoch: int, step: int = 0) -> None:
        """Makes the next iterator begin there; `start` stays. A `UsageError` if it is no place."""
        try:
            place = operator.index(epoch), operator.index(step)
        except TypeError:
            place = -1, -1
        if min(place) < 0:
            raise UsageError(
                f"epoch {epoch!r:.60}, step {step!r:.60} are not two whole numbers from 0 on"
            )
        with self._lock:
            self.epoch, self.step = place

    def take(self) -> tuple[int, int]:
        """Takes an epoch: its number, and its first step. The next one begins with its first."""
        with self._lock:
            epoch, step = self.epoch, self.step
            self.epoch, self.step = epoch + 1, 0
        return epoch, step


def list_blocks(epoch: int, step: int, count: int, block: int = 1, most: int = 1 << 62) -> Numbers:
    """Divides an epoch of `count` steps into blocks, from a step on, and lists `most` of them.

    Returns the epoch, begin and end of each, int64 (blocks, 3).
    """
    begins = np.arange(step, min(count, step + most * block), block, dtype=np.int64)
    ends = np.minimum(begins + block, count)
    return np.stack((np.full_like(begins, epoch), begins, ends), axis=-1)
