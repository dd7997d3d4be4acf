"""The steps of an epoch, divided among hosts; and the step where a reader is."""

import dataclasses
import operator
import threading
from collections.abc import Sequence
from typing import Final

import numpy as np

from converter.errors import UsageError
from reader.arrays import Numbers

REMAINDERS: Final = ("keep", "drop", "pad")
NOTHING: Final = -1  # position of a place in a batch without a record


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
            raise UsageError(f"epoch {epoch!r:.60}, step {step!r:.60}: give two numbers from 0")
        with self._lock:
            self.epoch, self.step = place

    def begin(self, count: int, block: int = 1) -> Numbers:
        """Takes an epoch of `count` steps: the epoch, begin and end of each block, (blocks, 3)."""
        with self._lock:
            epoch, step = self.epoch, self.step
            self.epoch, self.step = epoch + 1, 0
        begins = np.arange(step, count, block, dtype=np.int64)
        ends = np.minimum(begins + block, count)
        return np.stack((np.full_like(begins, epoch), begins, ends), axis=-1)
