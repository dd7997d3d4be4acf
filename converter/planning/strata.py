"""Splits of which each holds the same share of every class, and how splits are written down."""

import itertools
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from converter.entries import Entries
from converter.entry_columns import Numbers
from converter.errors import UsageError
from converter.inventory import NO_LABEL, SPLITS
from converter.options import ConvertOptions

Draws: TypeAlias = npt.NDArray[np.uint64]
Hints: TypeAlias = npt.NDArray[np.int8]
"""Splits as indices of `SPLITS`, or `OPEN`."""

TRAIN, VALIDATION, TEST = range(len(SPLITS))
OPEN: Final = -1  # a split that is not decided yet


def stratify(
    labels: npt.NDArray[np.int32],
    draws: Draws,
    given: Hints,
    units: Numbers | None,
    options: ConvertOptions,
) -> Hints:
    """Assigns the lowest draws of each class to `validation`, and the next ones to `test`.

    Of a class of two images or more, at least one is held out, and at least one stays in `train`.
    `given` holds the splits that are decided, or `OPEN`; all arrays have the shape (images,).
    """
    chosen: Hints = given.copy()
    units = np.arange(len(labels)) if units is None else units
    is_open = given == OPEN
    _, firsts, inverse = np.unique(units[is_open], return_index=True, return_inverse=True)
    places = np.flatnonzero(is_open)
    # Shape (units,) from here on: one element for all images that stay together.
    weights = np.bincount(inverse)
    classes = _find_commonest(labels[is_open], inverse)
    order = np.lexsort((draws[places[firsts]], classes))
    bounds = np.searchsorted(classes[order], np.arange(int(classes.max(initial=-1)) + 2))
    taken = np.zeros(len(order), np.int8)
    # At once, because looking at all images for each of 100,000 classes takes minutes.
    found = (labels, labels[given == VALIDATION], labels[given == TEST])
    images, *held = (np.bincount(each, minlength=len(bounds)) for each in found)
    for label, (begin, end) in enumerate(itertools.pairwise(bounds.tolist())):
        if begin == end:
            continue
        quotas = _share_class(int(images[label]), [int(each[label]) for each in held], options)
        sizes = weights[order[begin:end]]
        # A group across a limit goes to the side on which most of it lies.
        middles = np.cumsum(sizes) - sizes / 2
        limits = np.cumsum(quotas)
        taken[order[begin:end]] = np.where(
            middles < limits[0], VALIDATION, np.where(middles < limits[1], TEST, TRAIN)
        )
    chosen[places] = taken[inverse]
    return chosen


def _share_class(images: int, held: Sequence[int], options: ConvertOptions) -> list[int]:
    """The numbers of images of a class that `validation` and `test` still get."""
    left, quotas = images - 1, []  # one stays in `train`
    for share, taken in zip((options.validation_split, options.test_split), held, strict=True):
        wanted = min(left, max(1, round(share * images))) if share else 0
        left -= wanted
        quotas.append(max(0, wanted - taken))
    return quotas


def _find_commonest(labels: npt.NDArray[np.int32], units: Numbers) -> Numbers:
    """The commonest label of each unit, the lowest of several: int64 (units,)."""
    pairs, counts = np.unique(np.stack((units, labels), -1), axis=0, return_counts=True)
    # By unit, then from the commonest label on: the first of each unit is what is sought.
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    _, firsts = np.unique(pairs[order, 0], return_index=True)
    commonest: Numbers = pairs[order[firsts], 1].astype(np.int64)
    return commonest


def read_labels(entries: Entries) -> npt.NDArray[np.int32]:
    """The label of each image: int32 (images,); a UsageError if any has none."""
    if (entries.labels == NO_LABEL).any():
        raise UsageError(
            "stratify takes images with one label each: leave it out if they have none or several"
        )
    return entries.labels
