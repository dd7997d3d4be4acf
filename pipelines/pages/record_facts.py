"""What the records say that a report looks at: labels, boxes, masks, captions, numbers, counted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from converter.format.schema import BOX_LABELS, BOXES, CAPTION, LABELS, TARGET
from converter.histograms import find_edge
from reader import Record

MAX_MASKS: Final = 256  # that are decoded, 1 ms each
MAX_CAPTIONS: Final = 6  # that are shown
_MAX_CAPTION: Final = 300  # letters

COUNT_EDGES: Final = (0, 1, 2, 3, 5, 10, 20, 50, 100)
WORD_EDGES: Final = (0, 1, 5, 10, 15, 20, 30, 50, 100)
AREA_EDGES: Final = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5)
_BINS: Final = 10


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordFacts:
    """Counts over the records that were looked at, all of them or drawn at random.

    Attributes:
        looked: how many they are.
        total: how many there are.
        damage: what is wrong with those that could not be read.
        tagged: of several labels, records by label.
        labels_per_record: records by how many labels they have; boxes_per_record likewise.
        boxed: boxes by class; box_areas by their share of the image, the lower edge of a bucket.
        masked: records by the class numbers in their masks; mask_pixels by them, in thousandths of
            all pixels of the masks.
        caption_words: records by how many words their captions have.
        captions: the first of them.
        targets: records in ten equal steps from the smallest to the largest number to predict.
        target_range: these two.
    """

    looked: int = 0
    total: int = 0
    damage: tuple[str, ...] = ()
    tagged: dict[int, int] = dataclasses.field(default_factory=dict)
    labels_per_record: dict[int, int] = dataclasses.field(default_factory=dict)
    boxes_per_record: dict[int, int] = dataclasses.field(default_factory=dict)
    boxed: dict[int, int] = dataclasses.field(default_factory=dict)
    box_areas: dict[float, int] = dataclasses.field(default_factory=dict)
    masks: int = 0
    masked: dict[int, int] = dataclasses.field(default_factory=dict)
    mask_pixels: dict[int, int] = dataclasses.field(default_factory=dict)
    caption_words: dict[int, int] = dataclasses.field(default_factory=dict)
    captions: tuple[str, ...] = ()
    targets: tuple[int, ...] = ()
    target_range: tuple[float, float] | None = None


class RecordTally:
    """Counts records, one by one."""

    def __init__(self) -> None:
        self._looked = self._masks = 0
        self._counts: dict[str, Counter[Any]] = {
            field.name: Counter()
            for field in dataclasses.fields(RecordFacts)
            if str(field.type).startswith("dict")
        }
        self._pixels: Counter[int] = Counter()
        self._captions: list[str] = []
        self._targets: list[float] = []
        self.damage: dict[str, None] = {}  # in order, each once

    def add(self, record: Record) -> None:
        """Counts a record; what its mask holds only if it can be decoded."""
        self._looked += 1
        values, counts = record.values, self._counts
        if (labels := values.get(LABELS)) is not None:
            counts["tagged"].update(set(labels))
            counts["labels_per_record"][find_edge(COUNT_EDGES, len(labels))] += 1
        if (boxes := values.get(BOXES)) is not None:
            counts["boxes_per_record"][find_edge(COUNT_EDGES, len(boxes))] += 1
            counts["boxed"].update(values.get(BOX_LABELS, ()))
            counts["box_areas"].update(_measure_boxes(boxes))
        if (caption := values.get(CAPTION)) is not None:
            counts["caption_words"][find_edge(WORD_EDGES, len(caption.split()))] += 1
            if len(self._captions) < MAX_CAPTIONS:
                self._captions.append(caption[:_MAX_CAPTION])
        if (target := values.get(TARGET)) is not None:
            self._targets.append(target)
        if record.mask is not None and self._masks < MAX_MASKS:
            self._add_mask(record)

    def describe(self, total: int) -> RecordFacts:
        """The counts, of so many records in all."""
        shares = {n: round(1000 * c / self._pixels.total()) for n, c in self._pixels.items()}
        targets = [t for t in self._targets if abs(t) < float("inf")]  # also leaves NaN out
        counts = {name: dict(sorted(counted.items())) for name, counted in self._counts.items()}
        return RecordFacts(
            looked=self._looked,
            total=total,
            damage=tuple(self.damage),
            masks=self._masks,
            captions=tuple(self._captions),
            targets=_cut_range(targets),
            target_range=(min(targets), max(targets)) if targets else None,
            **{**counts, "mask_pixels": dict(sorted(shares.items()))},
        )

    def _add_mask(self, record: Record) -> None:
        from pipelines.pages.thumbnails import count_mask_pixels  # noqa: PLC0415 (Pillow)

        self._masks += 1
        found = count_mask_pixels(record)
        self._pixels.update(found)
        self._counts["masked"].update(found.keys())


def _measure_boxes(boxes: Sequence[Sequence[float]]) -> list[float]:
    return [
        find_edge(AREA_EDGES, (bottom - top) * (right - left)) for top, left, bottom, right in boxes
    ]


def _cut_range(values: Sequence[float]) -> tuple[int, ...]:
    """How many values lie in each of ten equal steps from the smallest to the largest."""
    if not values:
        return ()
    low, span = min(values), max(values) - min(values)
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int((value - low) / span * _BINS)) if span else 0] += 1
    return tuple(counts)
