"""Which positions of an epoch are a step's batch, here and on the other hosts; pure arithmetic."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from converter.errors import UsageError
from reader.orders import Numbers

REMAINDERS: Final = ("keep", "drop", "pad")

NOTHING: Final = -1
"""Stands where a batch has no record."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """The steps of an epoch on one host of several.

    Every host takes an equal range of the epoch's positions, up to one, and as many steps as all
    others; so together they see each record once, however few shards there are.

    Attributes:
        records: of the epoch, on all hosts together.
        batch_size: records a step, on one host.
        remainder: `keep` makes the last batch smaller, `drop` leaves it out, on all hosts; `pad`
            fills it up with nothing.
        shard_index: number of this host.
        shard_count: of hosts.

    Raises:
        UsageError: with `keep`, some host would have a step without any record.
    """

    records: int
    batch_size: int
    remainder: str = "keep"
    shard_index: int = 0
    shard_count: int = 1

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
        """How many steps there are, the same on every host."""
        if self.remainder == "drop":
            return self.records // self.shard_count // self.batch_size
        return -(-self.records // (self.shard_count * self.batch_size))

    @property
    def range(self) -> tuple[int, int]:
        """The positions of this host, from and up to."""
        return (
            self.shard_index * self.records // self.shard_count,
            (self.shard_index + 1) * self.records // self.shard_count,
        )

    def find_positions(self, step: int) -> Numbers:
        """The positions of a step: int64 (batch_size,), `NOTHING` at the end where there are none.

        >>> Steps(records=5, batch_size=2).find_positions(2)
        array([ 4, -1])
        """
        begin, end = self.range
        first = begin + min(step * self.batch_size, self._leave(end - begin, step))
        last = begin + min((step + 1) * self.batch_size, self._leave(end - begin, step + 1))
        positions = np.full(self.batch_size, NOTHING, np.int64)
        positions[: last - first] = np.arange(first, last)
        return positions

    def _leave(self, records: int, step: int) -> int:
        """How many of this host's records may be used up before a step.

        With `keep` one is left for each step to come: without it, a host whose share is smaller by
        one could end up with nothing to show in the last.
        """
        return records - (self.count - step) if self.remainder == "keep" else records
