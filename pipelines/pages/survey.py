"""What is known of a data set, gathered for its report: facts alone, without a judgement.

`survey_dataset` is pure: it reads nothing, and gives the same facts for the same manifest, rejects,
notes, runs and samples.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from converter.commits.run_log import Run
from converter.format.manifest import Manifest, ShardInfo
from converter.format.schema import BOXES, CAPTION, LABELS, MASK, TARGET
from converter.histograms import Histograms
from converter.inventory import FILTERS, NOTES, REJECT_CODES, SKIP_RULES, Note
from converter.options import ConvertOptions
from converter.sizes import format_count
from converter.spelling import list_changed, spell_command
from pipelines.pages.record_facts import RecordFacts
from pipelines.pages.texts import name_class

MAX_EXAMPLES: Final = 12  # rejects that are named for each reason
MAX_BARS: Final = 120  # shards of a split, each or several as one bar

_KINDS: Final = {
    LABELS: "several labels", TARGET: "a number", BOXES: "boxes", MASK: "a mask",
    CAPTION: "a caption",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SplitFacts:
    """A split: `bars` are the mean bytes of neighbouring shards, `labels` the records by class."""

    name: str
    records: int
    bytes: int
    shards: int
    smallest: int  # shard, in bytes
    largest: int
    bars: tuple[int, ...]
    labels: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """Files that were left out for one reason; the first of them with a detail."""

    code: str
    meaning: str
    count: int
    asked: bool  # by a filter or a rule, so that nothing is wrong with the files
    examples: tuple[tuple[str, str], ...] = ()  # path and detail


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """All facts about a data set.

    Attributes:
        folder: its folder or address.
        generator: the versions that wrote it.
        updated: how often it was updated.
        contents: what each record holds beside its image, in words.
        command: repeats its last conversion.
        options: those that are not the default.
        image: height and width of all images or None, largest height and width, and channels.
        formats: images by stored format.
        classes: names in label order.
        labelled: whether each record has exactly one class.
        splits: in order.
        scanned, written: files and records.
        left_out: by reason, the commonest first.
        notes: code, meaning, first names and total of what is odd.
        runs: the log, the oldest run first.
        unread: what is wrong with files that cannot be read.
        originals: what the originals of the last whole conversion were like, or None.
        records: what records say that were looked at.
    """

    folder: str
    generator: str
    updated: int
    contents: tuple[str, ...]
    command: str
    options: dict[str, Any]
    image: dict[str, int | None]
    formats: dict[str, int]
    classes: tuple[str, ...]
    labelled: bool
    splits: tuple[SplitFacts, ...]
    scanned: int
    written: int
    left_out: tuple[LeftOut, ...]
    notes: tuple[tuple[str, str, tuple[str, ...], int], ...]
    runs: tuple[Run, ...]
    unread: tuple[str, ...]
    originals: Histograms | None
    records: RecordFacts

    @property
    def total_bytes(self) -> int:
        return sum(split.bytes for split in self.splits)

    @property
    def label_counts(self) -> list[int]:
        """Records of each class in all splits, in label order; [] if classes are not counted."""
        return [sum(counts) for counts in zip(*(s.labels for s in self.splits), strict=True)]

    @property
    def failed(self) -> int:
        """How many files or rows were rejected because something is wrong with them."""
        return sum(each.count for each in self.left_out if not each.asked)


def survey_dataset(
    folder: str,
    manifest: Manifest,
    *,
    rejects: Mapping[str, Sequence[tuple[str, str]]],
    notes: Sequence[Note] = (),
    runs: Sequence[Run] = (),
    records: RecordFacts,
    unread: Sequence[str] = (),
) -> Survey:
    """Gathers the facts.

    Args:
        folder: the name to show.
        manifest: of the data set.
        rejects: path and detail of the first files that were left out, by code.
        notes: what is odd about its images.
        runs: its log, the oldest run first.
        records: what records say.
        unread: what is wrong with files that cannot be read.
    """
    options = ConvertOptions.from_json(manifest.options)
    names = [column.name for column in manifest.columns]
    image = manifest.image
    sizes = {name: getattr(image, name) for name in ("height", "width", "max_height", "max_width")}
    return Survey(
        folder=folder,
        generator=manifest.generator,
        updated=manifest.updated,
        contents=_list_contents(manifest.labelled, names),
        command=runs[-1].command if runs else spell_command(["IMAGES"], folder, options),
        options=list_changed(options),
        image={**sizes, "channels": image.channels},
        formats=image.formats,
        classes=manifest.classes,
        labelled=manifest.labelled,
        splits=tuple(
            _describe_split(manifest, name, manifest.list_shards(name)) for name in manifest.splits
        ),
        scanned=manifest.totals.scanned,
        written=manifest.totals.written,
        left_out=tuple(_list_left_out(manifest, rejects)),
        notes=tuple(
            (note.code, NOTES.get(note.code, ""), note.names, note.total) for note in notes
        ),
        runs=tuple(runs),
        unread=tuple(unread),
        originals=_find_originals(runs),
        records=records,
    )


def cut_bars(sizes: Sequence[int], most: int = MAX_BARS) -> tuple[int, ...]:
    """Sizes as at most so many bars: each the mean of neighbours.

    >>> cut_bars([10, 20, 30, 40], 2)
    (15, 35)
    """
    count = min(most, len(sizes))
    bounds = [len(sizes) * place // count for place in range(count + 1)] if count else [0]
    pairs = itertools.pairwise(bounds)
    return tuple(round(sum(sizes[low:high]) / (high - low)) for low, high in pairs)


def _list_contents(labelled: bool, names: Iterable[str]) -> tuple[str, ...]:  # noqa: FBT001
    named = [_KINDS.get(name, "") for name in names]
    others = named.count("")
    found = ["a label"] if labelled else []
    found += [name for name in named if name]
    if others:
        found.append(format_count(others, "more column"))
    return tuple(found)


def _describe_split(manifest: Manifest, name: str, shards: Sequence[ShardInfo]) -> SplitFacts:
    info, sizes = manifest.splits[name], [shard.bytes for shard in shards]
    return SplitFacts(
        name=name,
        records=info.records,
        bytes=info.bytes,
        shards=info.shards,
        smallest=min(sizes, default=0),
        largest=max(sizes, default=0),
        bars=cut_bars(sizes),
        labels=info.labels,
    )


def _list_left_out(
    manifest: Manifest, examples: Mapping[str, Sequence[tuple[str, str]]]
) -> list[LeftOut]:
    totals = manifest.totals
    found = [
        LeftOut(
            code=code,
            meaning=meanings.get(code, ""),
            count=count,
            asked=meanings is SKIP_RULES or code in FILTERS,
            examples=tuple(sorted(examples.get(code, ())[:MAX_EXAMPLES])),
        )
        for counts, meanings in ((totals.rejected, REJECT_CODES), (totals.skipped, SKIP_RULES))
        for code, count in counts.items()
    ]
    return sorted(found, key=lambda each: (each.asked, -each.count, each.code))


def _find_originals(runs: Sequence[Run]) -> Histograms | None:
    """Those of the last run that converted all of the images."""
    whole = [run.originals for run in runs if run.kind == "convert" and run.originals.images]
    return whole[-1] if whole else None


def share_labels(counts: Mapping[int, int], classes: Sequence[str]) -> list[tuple[str, int]]:
    """Counts by class name, the commonest first; numbers stand for classes without a name."""
    named = Counter({name_class(label, classes): count for label, count in counts.items()})
    return sorted(named.items(), key=lambda item: (-item[1], item[0]))
