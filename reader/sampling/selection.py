"""Which records of a split an epoch is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reader.arrays import Numbers
from reader.sampling.orders import derive_key, permute_blockwise


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Some of the records of a split, counted from 0.

    Attributes:
        count: how many are selected.
        total: how many there are to select from.
        begin: where, in the order that `key` decides, the selected ones begin.
        key: which permutation that order is; None for the order on disk.
        chosen: int64 (total,), numbers of the records to select from; None for all.
    """

    count: int
    total: int
    begin: int = 0
    key: int | None = None
    chosen: Numbers | None = None

    def find_records(self, numbers: Numbers) -> Numbers:
        """The numbers within the split of some selected records, int64 of the same shape."""
        numbers = numbers + self.begin
        if self.key is not None:
            numbers = permute_blockwise(numbers, self.total, self.key)
        return numbers if self.chosen is None else self.chosen[numbers]


def select_all(total: int) -> Selection:
    """All records of a split of that size."""
    return Selection(count=total, total=total)


def select_chosen(chosen: Numbers) -> Selection:
    """The records of these numbers."""
    return Selection(count=len(chosen), total=len(chosen), chosen=chosen)


def sort_selection(selection: Selection) -> Selection:
    """The same records in the order in which they are stored; takes 8 bytes for each."""
    if selection.key is None:
        return selection
    return select_chosen(np.sort(selection.find_records(np.arange(selection.count))))


def divide(selection: Selection, validation_split: float, seed: int) -> dict[str, Selection]:
    """Divides records at random into `training` and `validation`.

    The share is exact, rounded down for validation as by Keras; the same seed always gives the
    same division. It takes no memory: the selected records are a range of a permutation.
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
    """How many records of each shard are selected, of a selection that is sorted."""
    if selection.chosen is None:
        return tuple(counts)
    ends = np.searchsorted(selection.chosen, np.cumsum(counts)).tolist()
    return tuple(np.diff(ends, prepend=0).tolist())


def choose_labels(labels: npt.NDArray[np.int32], wanted: npt.NDArray[np.bool_]) -> Numbers:
    """The numbers of the records whose label is wanted, in order; `wanted` is by label."""
    return np.flatnonzero(wanted[labels]).astype(np.int64)
