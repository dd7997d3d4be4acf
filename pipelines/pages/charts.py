"""Counts as bars: what a page draws of histograms, records and times."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from converter.commits.run_log import Run
from converter.costs import STEPS
from converter.histograms import RATIOS, SIDE_EDGES, STEP_EDGES, Histograms
from converter.sizes import format_bytes
from pipelines.pages.record_facts import AREA_EDGES, COUNT_EDGES, WORD_EDGES
from pipelines.pages.survey import Survey, share_labels
from pipelines.pages.texts import format_time
from pipelines.pages.thumbnails import choose_color

_MAX_BARS: Final = 12  # of what has no order
_MAX_SIZES: Final = 8
_MAX_CLASSES: Final = 40
_MAX_GAP: Final = 3  # empty buckets, as between one tiny image and all others

_T = TypeVar("_T")


class Bar(NamedTuple):
    """A count, and what it is of."""

    label: str
    value: float
    shown: str = ""  # instead of the value
    color: str = ""  # in which pictures show it


class Chart(NamedTuple):
    """Bars with a title; `note` says what they count."""

    title: str
    bars: Sequence[Bar]
    note: str = ""
    of: float | None = None  # what is 100%; None for the sum of all, 0 for no share

    @property
    def most(self) -> float:
        return max((bar.value for bar in self.bars), default=0) or 1

    @property
    def total(self) -> float:
        return sum(bar.value for bar in self.bars) if self.of is None else self.of


def chart_formats(seen: Histograms) -> Chart:
    """Originals by format."""
    return Chart("Formats", _rank(seen.formats.items()))


def chart_sizes(seen: Histograms) -> Chart:
    """The commonest sizes of originals."""
    ordered = sorted(seen.sizes.items(), key=lambda item: (-item[1], item[0]))[:_MAX_SIZES]
    bars = [Bar(name.replace("x", " \u00d7 "), count) for name, count in ordered]
    # Not of those that were counted: of sizes that all differ, only some are kept.
    rest = seen.images - sum(count for _, count in ordered)
    others = [Bar("other sizes", rest)] if rest > 0 else []
    return Chart("Commonest sizes", [*bars, *others], "width and height in pixels")


def chart_sides(seen: Histograms) -> Chart:
    """Originals by their shorter side."""

    def label(low: int) -> str:
        return f"{low:,} to {2 * low - 1:,}" if low > 1 else "1"

    return Chart("Shorter side", _fill(_by_number(seen.sides), SIDE_EDGES, label), "pixels")


def chart_pixels(seen: Histograms) -> Chart:
    """Originals by their pixels."""

    def label(low: int) -> str:
        return f"from {low / 1e6:,g} MP" if low >= 10_000 else f"from {low:,} pixels"

    return Chart("Pixels", _fill(_by_number(seen.pixels), STEP_EDGES, label), "width times height")


def chart_ratios(seen: Histograms) -> Chart:
    """Originals by their shape."""
    bars = _fill(seen.ratios, RATIOS, str)
    return Chart("Aspect ratio", bars, "width to height, the nearest of these")


def chart_bytes(seen: Histograms) -> Chart:
    """Originals by the size of their file."""

    def label(low: int) -> str:
        return f"from {format_bytes(low)}"

    return Chart("File size", _fill(_by_number(seen.bytes), STEP_EDGES, label), "bytes")


ORIGINAL_CHARTS: Final[Sequence[Callable[[Histograms], Chart]]] = (
    chart_formats, chart_sizes, chart_sides, chart_pixels, chart_ratios, chart_bytes,
)  # fmt: skip


def chart_records(survey: Survey) -> list[Chart]:
    """What records say beside one label: several labels, boxes, masks, captions, numbers."""
    facts, classes = survey.records, survey.classes
    charts = [
        _chart_classes("Labels", facts.tagged, classes, "records that have each", facts.looked),
        _chart_counts("Labels a record", facts.labels_per_record, COUNT_EDGES),
        _color(_chart_classes("Classes of boxes", facts.boxed, classes, "boxes"), classes),
        _chart_counts("Boxes a record", facts.boxes_per_record, COUNT_EDGES),
        _chart_areas(facts.box_areas),
        _chart_classes("Classes in masks", facts.masked, classes, "masks with each", facts.masks),
        _color(_chart_mask_pixels(facts.mask_pixels, classes), classes),
        _chart_counts("Words a caption", facts.caption_words, WORD_EDGES),
        _chart_targets(facts.targets, facts.target_range),
    ]
    return [chart for chart in charts if chart.bars]


def chart_phases(run: Run | None) -> list[Chart]:
    """Where the time of a run went, as a whole and in its workers."""
    if run is None:
        return []
    phases = [Bar(name, msec, format_time(msec)) for name, msec in run.phases_msec.items()]
    steps = sorted(run.steps_msec.items(), key=lambda item: -item[1])
    works = [Bar(STEPS.get(name, name), msec, format_time(msec)) for name, msec in steps if msec]
    charts = [Chart("Phases", phases, "by the clock"), Chart("Steps", works, "of all workers")]
    return [chart for chart in charts if chart.bars]


def _rank(items: Iterable[tuple[str, int]], most: int = _MAX_BARS) -> list[Bar]:
    """The largest counts, and the sum of all others."""
    ordered = sorted(items, key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[most:])
    bars = [Bar(name, count) for name, count in ordered[:most]]
    return [*bars, Bar(f"{len(ordered) - most:,} others", rest)] if rest else bars


def _fill(counts: Mapping[_T, int], edges: Sequence[_T], label: Callable[[_T], str]) -> list[Bar]:
    """Buckets from the first to the last that is not empty; a long gap between two is one bar."""
    filled = [place for place, edge in enumerate(edges) if counts.get(edge)]
    bars: list[Bar] = []
    for before, place in zip([*filled[:1], *filled], filled, strict=False):
        gap = [Bar(label(edge), 0) for edge in edges[before + 1 : place]]
        bars += gap if len(gap) <= _MAX_GAP else [Bar("\u2026", 0)]
        bars.append(Bar(label(edges[place]), counts[edges[place]]))
    return bars


def _by_number(counts: Mapping[str, int]) -> dict[int, int]:
    return {int(edge): count for edge, count in counts.items()}


def _chart_classes(
    title: str, counts: Mapping[int, int], classes: Any, note: str, of: float | None = None
) -> Chart:
    return Chart(title, _rank(share_labels(counts, classes), _MAX_CLASSES), note, of)


def _color(chart: Chart, classes: Sequence[str]) -> Chart:
    """With the colours that boxes and masks of these classes are drawn in."""
    colors = {name: bytes(choose_color(label)).hex() for label, name in enumerate(classes)}
    bars = [bar._replace(color=colors.get(bar.label, "")) for bar in chart.bars]
    return chart._replace(bars=bars)


def _chart_mask_pixels(counts: Mapping[int, int], classes: Sequence[str]) -> Chart:
    bars = _rank(share_labels(counts, classes), _MAX_CLASSES)
    bars = [bar._replace(shown=f"{bar.value / 10:.1f}%") for bar in bars]
    return Chart("Area of classes", bars, "share of all pixels of the masks", 0)


def _chart_counts(title: str, counts: Mapping[int, int], edges: Sequence[int]) -> Chart:
    """Buckets that begin at these edges, from the first to the last that is not empty."""
    ends = {low: high - 1 for low, high in itertools.pairwise(edges)}

    def label(edge: int) -> str:
        if (end := ends.get(edge)) is None:
            return f"{edge} or more"
        return str(edge) if end == edge else f"{edge} to {end}"

    return Chart(title, _fill(counts, edges, label), "records")


def _chart_areas(counts: Mapping[float, int]) -> Chart:
    bars = [
        Bar(f"from {100 * edge:g}%" if edge else f"under {100 * AREA_EDGES[1]:g}%", counts[edge])
        for edge in AREA_EDGES
        if edge in counts
    ]
    return Chart("Size of boxes", bars, "share of the image")


def _chart_targets(counts: Sequence[int], limits: tuple[float, float] | None) -> Chart:
    if limits is None:
        return Chart("Number to predict", ())
    low, step = limits[0], (limits[1] - limits[0]) / len(counts)
    bars = [Bar(f"from {low + place * step:,.4g}", count) for place, count in enumerate(counts)]
    return Chart("Number to predict", bars if step else bars[:1], f"up to {limits[1]:,.4g}")
