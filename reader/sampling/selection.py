"""The records of a split that make up an epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reader.arrays import Numbers
from reader.sampling.orders import derive_key, permute_blockwise


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
    """Divides records at random into `training` and `validation`; the seed decides which.

    The fraction is exact, rounded down for validation as by Keras. It takes no memory: the selected
    records are a range of a permutation.
    """
    held_out = int(validation_split * selection.count)
    kept = selection.count - held_out
    key = derive_key(seed, -2)
    training = dataclasses.replace(selection, count=kept, key=key)
    return {
        "training": training,
        "validation": dataclasses.replace(training, begin=kept, count=held_out),
    }


def count_selected(selection: Selection, counts: Sequence[int]) -> tuple[int, ...]:
    """Counts the selected records of each shard, in a sorted selection."""
    if selection.chosen is None:
        return tuple(counts)
    ends = np.searchsorted(selection.chosen, np.cumsum(counts)).tolist()
    return tuple(np.diff(ends, prepend=0).tolist())


def choose_labels(labels: npt.NDArray[np.int32], wanted: npt.NDArray[np.bool_]) -> Numbers:
    """Finds the records whose label is wanted; `wanted` is by label."""
    return np.flatnonzero(wanted[labels]).astype(np.int64)
