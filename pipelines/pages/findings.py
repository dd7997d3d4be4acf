"""What a person should know about a data set, in words: facts -> sentences, the gravest first.

Each function looks at one thing and yields nothing if that is as it should be.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from converter.histograms import SizedOriginal
from converter.planning.shares import Skew, find_skewed, find_uneven
from converter.sizes import format_count
from pipelines.pages.survey import Survey
from pipelines.pages.texts import format_percent, show_path, show_text

LEVELS: Final = ("bad", "warn", "info")

NEAR_EMPTY: Final = 10
"""A class with fewer images can hardly be learned."""

UNBALANCED: Final = 10
"""From this many times the images of the smallest class on, the largest drowns it."""

_SMALL_SPLIT: Final = 100
_MANY_REJECTS: Final = 0.01
_MANY_ENLARGED: Final = 0.1
_LONG: Final = ("1:8", "1:4", "1:3", "1:2", "2:1", "3:1", "4:1", "8:1")
_MAX_NAMES: Final = 5

_LEAKS: Final = {
    "duplicate_split": "bad", "duplicate_class": "bad", "duplicate": "info",
    "twin_class": "warn", "twin_path": "warn", "truncated": "warn", "range": "warn",
    "transparent": "warn", "palette": "warn", "one_hot": "warn", "unsure_label": "warn",
    "several_labels": "warn", "unlabelled": "warn", "box_class": "warn", "box_size": "warn",
    "unused_mask": "warn",
}  # fmt: skip

# With which nothing is wrong, and nothing is lost that was asked for.
_HARMLESS: Final = (
    "profile", "wrong_extension", "inks", "unused_folder", "unused_part", "trimmed_labels",
)  # fmt: skip

_SAID: Final = {
    "duplicate_split": (
        "The same image is in several splits",
        "What you measure on the held-out images is too good, because training has seen some of "
        "them. Convert again with --split-folders no to draw splits that keep such images "
        "together, or remove the copies.",
    ),
    "duplicate_class": (
        "The same image is in several classes",
        "One of the labels is wrong, or the images have several labels. Look at the files, and "
        "remove the wrong ones.",
    ),
    "duplicate": (
        "Some images are stored more than once",
        "They stay in one split together. To keep only the first of each, convert with --dedupe "
        "drop.",
    ),
    "transparent": (
        "Nothing is visible in some images",
        "Their alpha is 0 everywhere, so they are stored as plain background; BMP, ICO and TGA are "
        "stored opaque. Look at the files, and mend or remove them.",
    ),
}


class Finding(NamedTuple):
    """A thing to know: how grave it is, what it is in a few words, and what to do."""

    level: str  # one of `LEVELS`
    title: str
    text: str


def list_findings(survey: Survey) -> list[Finding]:
    """All that is worth a word, the gravest first; [] if everything is as it should be."""
    found = [finding for look in _LOOKS for finding in look(survey)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _find_damage(survey: Survey) -> Iterator[Finding]:
    damage = survey.records.damage
    if damage:
        count = f"At least {format_count(len(damage), 'fault')}"
        yield Finding(
            "bad",
            "Records are damaged",
            f"{count} came up where records were looked at: {damage[0]}. shardmill verify lists "
            "all of them, and shardmill repair rebuilds files from the originals.",
        )


def _find_rejects(survey: Survey) -> Iterator[Finding]:
    if not survey.failed:
        return
    share = survey.failed / (survey.written + survey.failed)
    main = max((each for each in survey.left_out if not each.asked), key=lambda each: each.count)
    yield Finding(
        "warn" if share >= _MANY_REJECTS else "info",
        f"{format_count(survey.failed, 'image')} could not be converted",
        f"That is {format_percent(share)} of all. Most often ({main.count:,}): {main.meaning}. "
        "They are listed below and in rejects.jsonl. Mend or replace them, and take them in: the "
        "same command with --update.",
    )


def _find_small_classes(survey: Survey) -> Iterator[Finding]:
    counts = survey.label_counts
    if len(counts) < 2:
        if len(counts) == 1:
            text = "A classifier has nothing to tell apart. Are the folders of the classes one "
            yield Finding("warn", "There is only one class", text + "level further down?")
        return
    empty = [name for name, n in zip(survey.classes, counts, strict=True) if not n]
    few = [name for name, n in zip(survey.classes, counts, strict=True) if 0 < n < NEAR_EMPTY]
    if empty:
        yield Finding(
            "warn",
            f"{format_count(len(empty), 'class')} without an image: {_list_names(empty)}",
            "A model has an output for each of them that it can never learn.",
        )
    if few:
        yield Finding(
            "warn",
            f"{format_count(len(few), 'class')} with fewer than {NEAR_EMPTY} images: "
            f"{_list_names(few)}",
            "Add images, merge these classes with others, or leave them out (--classes).",
        )


def _find_balance(survey: Survey) -> Iterator[Finding]:
    counts = {name: n for name, n in zip(survey.classes, survey.label_counts, strict=False) if n}
    if len(counts) < 2:
        return
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    ratio = counts[most] / counts[least]
    if ratio >= UNBALANCED:
        middle = statistics.median(counts.values())
        yield Finding(
            "warn",
            "The classes are unbalanced",
            f"{_name(most)} has {counts[most]:,} images, {_name(least)} {counts[least]:,}: "
            f"{ratio:,.0f} times as many. Half of the classes have {middle:,.0f} or fewer. Weigh "
            "them in training: model.fit(class_weight=open_shards(OUT).class_weight()).",
        )


def _find_gaps(survey: Survey) -> Iterator[Finding]:
    """Classes that a split lacks and another has."""
    totals = survey.label_counts
    for split in survey.splits:
        pairs = zip(survey.classes, totals, split.labels, strict=False)
        lacks = [name for name, total, here in pairs if total and not here]
        if lacks and split.records:
            trained = split.name == "train"
            yield Finding(
                "bad" if trained else "warn",
                f"{format_count(len(lacks), 'class')} missing in {split.name}: "
                f"{_list_names(lacks)}",
                "A model never sees them in training."
                if trained
                else f"Nothing is measured for {'it' if len(lacks) == 1 else 'them'} there. "
                "--stratify draws the same share of each class.",
            )


def _find_splits(survey: Survey) -> Iterator[Finding]:
    for split in survey.splits:
        if not split.records:
            text = "It has shards, but no record is in them."
            yield Finding("warn", f"The split {split.name} is empty", text)
        elif split.name != "train" and split.records < _SMALL_SPLIT:
            step = 100 / split.records
            yield Finding(
                "info",
                f"{split.name} has only {format_count(split.records, 'image')}",
                f"One of them more or less changes the accuracy by {step:.1f} points.",
            )
    if len(survey.splits) == 1:
        yield Finding(
            "info",
            "Nothing is held out for validation",
            "Convert again with --validation-split 0.2, or let load_dataset draw a part: "
            "validation_split=0.2, seed=7, subset='both'.",
        )


def _find_uneven(survey: Survey) -> Iterator[Finding]:
    records = {split.name: split.records for split in survey.splits}
    asked = {name: survey.options.get(f"{name}_split", 0.0) for name in ("validation", "test")}
    for split, share, wish in find_uneven(records, asked):
        yield Finding(
            "warn",
            f"{split} has {format_percent(share)} of the images, not {format_percent(wish)}",
            "Images with the same content, or of a group, stay together, and where one of them is "
            "held out, all are. --stratify comes closer, and so does --dedupe drop.",
        )


def _find_skew(survey: Survey) -> Iterator[Finding]:
    """Classes of which a split has more or fewer than chance explains."""
    if not survey.labelled or not survey.label_counts:
        return
    skewed: dict[str, list[Skew]] = {}
    for skew in find_skewed({split.name: split.labels for split in survey.splits}):
        skewed.setdefault(skew.split, []).append(skew)
    for split, found in skewed.items():
        counts = [
            f"{_name(survey.classes[each.label])} has {each.images:,} images there, not about "
            f"{each.expected:,.0f}"
            for each in sorted(found, key=lambda each: -abs(each.images - each.expected))
        ]
        more = f", and {len(counts) - 3:,} more" if len(counts) > 3 else ""
        asked = survey.options.get(f"{split}_split", 0)
        flags = "" if asked else f"--split-folders no --{split}-split 0.2 "
        advice = (
            "Images that stay together decide it."
            if survey.options.get("stratify")
            else f"To draw the same share of each class, convert with {flags}--stratify."
        )
        yield Finding(
            "warn",
            f"Classes have other shares in {split} than in the whole",
            f"{'; '.join(counts[:3])}{more}. A score on {split} weighs them differently. {advice}",
        )


def _find_notes(survey: Survey) -> Iterator[Finding]:
    # A note for each set of duplicates: one finding for all of them.
    groups: dict[str, list[tuple[str, str, tuple[str, ...], int]]] = {}
    for note in survey.notes:
        groups.setdefault(note[0], []).append(note)
    for code, notes in groups.items():
        if code == "empty_class" and survey.label_counts:
            continue  # it is said with the counts of classes
        title, advice = _SAID.get(code, ("", "Nothing to do." if code in _HARMLESS else ""))
        title = title or _capitalize(notes[0][1]) or code
        total = sum(note[3] for note in notes)
        counted = f"{total:,} in {len(notes):,} sets" if len(notes) > 1 else f"{total:,}"
        first = _list_names([name for note in notes for name in note[2]], total)
        text = f"{first}. {advice}".strip() if first else advice
        yield Finding(_LEAKS.get(code, "info"), f"{title} ({counted})", text)


def _find_sizes(survey: Survey) -> Iterator[Finding]:
    seen = survey.originals
    if seen is None or not seen.images:
        return
    share = seen.enlarged / seen.images
    if share >= _MANY_ENLARGED:
        most = " A smaller --image-size keeps all there is." if share > 0.5 else ""
        yield Finding(
            "info",
            f"{format_percent(seen.enlarged, seen.images)} of the originals are smaller than what "
            "is stored",
            f"They were enlarged, which adds bytes but no detail.{most}",
        )
    long = sum(seen.ratios.get(name, 0) for name in _LONG)
    if survey.options.get("resize", "stretch") == "stretch" and long / seen.images >= 0.05:
        yield Finding(
            "info",
            f"{format_percent(long, seen.images)} of the originals are about twice as long as "
            "wide, or more",
            "Stretching them to the stored size distorts them. --resize pad or crop does not.",
        )


def _find_outliers(survey: Survey) -> Iterator[Finding]:
    if survey.originals is None or not survey.originals.images:
        return
    small, large = survey.originals.list_outliers()
    low, high = survey.originals.median_pixels
    if small:
        yield Finding(
            "info",
            "Some originals are far smaller than most",
            f"Half of them have {low:,} pixels or more. The smallest: {_list_sizes(small)}. Look "
            "whether they belong here; --min-side leaves small ones out.",
        )
    if large:
        yield Finding(
            "info",
            "Some originals are far larger than most",
            f"Half of them have fewer than {high:,} pixels. The largest: {_list_sizes(large)}. "
            "Look whether they belong here. If they do, there is nothing to do.",
        )


def _list_sizes(originals: Sequence[SizedOriginal]) -> str:
    return ", ".join(
        f"{show_path(each.path, 80)} ({each.width} \u00d7 {each.height})" for each in originals
    )


def _find_log(survey: Survey) -> Iterator[Finding]:
    for error in survey.unread:
        yield Finding("warn", "A file cannot be read", error)
    if survey.updated:
        yield Finding(
            "info",
            f"Updated {format_count(survey.updated, 'time')} since the whole was converted",
            "Shards may differ in length, and new classes come last. A new conversion restores "
            "the regular order.",
        )


_LOOKS: Final[Sequence[Callable[[Survey], Iterator[Finding]]]] = (
    _find_damage, _find_gaps, _find_splits, _find_uneven, _find_skew, _find_small_classes,
    _find_balance, _find_notes, _find_rejects, _find_sizes, _find_outliers, _find_log,
)  # fmt: skip


def _list_names(names: Sequence[str], total: int | None = None) -> str:
    more = (len(names) if total is None else total) - _MAX_NAMES
    shown = ", ".join(map(_name, names[:_MAX_NAMES]))
    return f"{shown} and {more:,} more" if more > 0 and shown else shown


def _name(name: str) -> str:
    return show_path(name, 80) if "/" in name else show_text(name, 40)


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]
