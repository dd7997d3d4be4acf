"""Whether splits hold what they should: their share of all images, and of each class."""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

_CHANCE: Final = 4.5
"""Standard deviations, of which chance gives as many to one class in 100,000."""


class Skew(NamedTuple):
    """A class of which a split holds far more or fewer images than of the others."""

    split: str
    label: int
    images: int  # of the class in the split
    expected: float


def find_uneven(
    records: Mapping[str, int], asked: Mapping[str, float]
) -> list[tuple[str, float, float]]:
    """Splits, by their records, that hold far from the share asked for: name, share, wish.

    Far is half as much again or half; splits that should hold fewer than 20 vary as much by chance.
    """
    wishes = {split: share for split, share in asked.items() if share}
    drawn = sum(records.get(split, 0) for split in {"train", *wishes})
    uneven = []
    for split, wish in wishes.items():
        share = records.get(split, 0) / max(1, drawn)
        if wish * drawn >= 20 and not 0.5 < share / wish < 1.5:
            uneven.append((split, share, wish))
    return uneven


def find_skewed(labels: Mapping[str, Sequence[int]]) -> list[Skew]:
    """Classes whose share in a held-out split is less than half or more than twice that in all.

    What may be chance is left out, and so are classes that the split lacks.

    Args:
        labels: images of each class, in label order, by split.
    """
    totals = [sum(counts) for counts in zip(*labels.values(), strict=True)]
    images = sum(totals)
    skewed = []
    for split, counts in labels.items():
        held = sum(counts)
        if split == "train" or held == images:
            continue
        for label, (count, total) in enumerate(zip(counts, totals, strict=True)):
            expected = total * held / images
            # Of drawing `held` of all images, without putting them back.
            spread = math.sqrt(expected * (1 - total / images) * (1 - held / images))
            if (
                count
                and not expected / 2 <= count <= 2 * expected
                and abs(count - expected) > _CHANCE * spread
            ):
                skewed.append(Skew(split, label, count, expected))
    return skewed
