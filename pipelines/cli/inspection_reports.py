"""What `shardmill inspect` prints: tables of splits, classes, features and statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from converter.format.examples import ENCODED
from converter.format.manifest import Manifest
from converter.names import MAX_SHOWN, escape, from_bytes
from converter.sizes import format_bytes, format_count
from converter.storage.location import Location
from pipelines.cli import omissions
from pipelines.cli.inspection import ClassCounts, FoundRecord
from pipelines.cli.reports import MAX_CLASSES
from pipelines.cli.text_layout import cut_text, format_table

if TYPE_CHECKING:  # it imports numpy
    from reader.batches.pixel_statistics import PixelStatistics

_MAX_VALUES: Final = 8  # of a list that are shown
_MAX_LETTERS: Final = 200  # of a text
_CHANNELS: Final = {1: ("gray",), 3: ("red", "green", "blue"), 4: ("red", "green", "blue", "alpha")}


def summarize_dataset(manifest: Manifest, folder: Location) -> Iterator[str]:
    """What all records have in common, in a few lines."""
    image, totals = manifest.image, manifest.totals
    size = f"of different sizes, up to {image.max_height}x{image.max_width}"
    if image.height:
        size = f"{image.height}x{image.width}"
    formats = ", ".join(f"{count:,} {name}" for name, count in image.formats.items())
    classes = format_count(len(manifest.classes), "class")
    held = f"{format_count(totals.written, 'image')} in {classes}"
    yield f"{folder}: {held}, {format_bytes(manifest.total_bytes)}"
    yield f"  images      {size}, {image.channels} channels, {formats}"
    yield f"  left out    {omissions.describe_left_out(totals)}"
    yield f"  written by  {manifest.generator}"
    if manifest.updated:
        yield f"  updated     {manifest.updated:,} times since it was converted as a whole"


def list_splits(manifest: Manifest) -> Iterator[str]:
    """A table of the splits."""
    rows = [
        (
            name,
            f"{split.records:,}",
            f"{split.shards:,}",
            format_bytes(split.bytes),
            f"{format_bytes(split.bytes / max(1, split.shards))} a shard",
        )
        for name, split in manifest.splits.items()
    ]
    yield from format_table(("split", "records", "shards", "bytes", ""), rows, left=1)


def list_classes(
    manifest: Manifest, counts: ClassCounts, *, every: bool = False, width: int | None = None
) -> Iterator[str]:
    """A table of the classes in label order, all or the first."""
    if not manifest.classes:
        return
    counted = counts.boxes or counts.images
    several = len(counted) > 1
    sums = [sum(each) for each in zip(*counted.values(), strict=True)]
    head = ["label", *(counted if several else ()), "boxes" if counts.boxes else "images"]
    columns = [*(counted.values() if several else ()), sums]
    if counts.boxes:
        head.append("images")
        columns.append([sum(each) for each in zip(*counts.images.values(), strict=True)])
    shown = manifest.classes if every else manifest.classes[:MAX_CLASSES]
    rows = [
        (
            str(label),
            *(f"{column[label]:,}" for column in columns if column),
            cut_text(escape(name), MAX_SHOWN),
        )
        for label, name in enumerate(shown)
    ]
    yield from format_table((*head, "class"), rows, width=width)
    if hidden := len(manifest.classes) - len(shown):
        yield f"  … and {hidden:,} more classes: --classes lists all"
    if not counts.whole:
        yield _describe_limit(manifest, counts)
    yield from (f"  not counted to its end: {error}" for error in counts.errors)


def _describe_limit(manifest: Manifest, counts: ClassCounts) -> str:
    looked, written = sum(counts.looked.values()), manifest.totals.written
    what = "boxes" if counts.boxes else "labels"
    return f"  {what} were counted in {looked:,} of {format_count(written, 'record')}"


def list_features(found: FoundRecord, manifest: Manifest, width: int | None) -> Iterator[str]:
    """A table of what a record holds: names, kinds and values, never the bytes of images."""
    yield f"record {found.number:,} of {found.split}, number {found.row:,} in {found.shard}:"
    kinds = {column.name: column.kind for column in manifest.columns}
    rows = []
    for name, values in sorted(found.features.items()):
        kind = kinds.get(name) or _name_kind(name, values)
        rows.append((name, kind, _describe_values(kind, values, manifest.classes)))
    yield from format_table(("feature", "kind", "value"), rows, left=2, width=width)


def _name_kind(name: str, values: Sequence[Any]) -> str:
    if name == ENCODED:
        return "image"
    kinds = {bytes: "text", int: "int", float: "float"}
    return f"{kinds[type(values[0])]}{'s' * (len(values) > 1)}" if values else "empty"


def _describe_values(kind: str, values: Sequence[Any], classes: Sequence[str]) -> str:
    """The first values of a feature, escaped; of images and masks only how long they are."""
    if kind == "boxes":
        values = [values[at : at + 4] for at in range(0, len(values), 4)]
    shown = ", ".join(_describe_value(kind, value, classes) for value in values[:_MAX_VALUES])
    more = len(values) - _MAX_VALUES
    return f"{shown}, … {more:,} more" if more > 0 else shown


def _describe_value(kind: str, value: Any, classes: Sequence[str]) -> str:
    if isinstance(value, bytes):
        size = f"{len(value):,} bytes"
        if kind in ("image", "mask"):
            return size
        text = escape(from_bytes(value[:_MAX_LETTERS]))
        return f"{text}… ({size})" if len(value) > _MAX_LETTERS else text
    if kind == "labels" and isinstance(value, int) and 0 <= value < len(classes):
        return f"{value} {escape(classes[value][:_MAX_LETTERS])}"
    if kind == "boxes":
        return f"({' '.join(f'{side:.3g}' for side in value)})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def list_statistics(found: Mapping[str, PixelStatistics], manifest: Manifest) -> Iterator[str]:
    """A table of the mean and the standard deviation of each channel, by split."""
    names = _CHANNELS.get(manifest.image.channels, ())
    rows: list[tuple[str, ...]] = []
    for split, each in found.items():
        for channel, mean, std in zip(names, each.mean, each.std, strict=True):
            numbers = (f"{mean:.3f}", f"{std:.3f}", f"{mean / 255:.5f}", f"{std / 255:.5f}")
            rows.append((split, channel, *numbers, f"of {_count_records(each, manifest, split)}"))
    yield "pixels from 0 to 255, and the same from 0 to 1:"
    yield from format_table(
        ("split", "channel", "mean", "std", "mean/255", "std/255", ""), rows, left=2
    )


def _count_records(found: PixelStatistics, manifest: Manifest, split: str) -> str:
    total = manifest.splits[split].records
    if found.records == total:
        return format_count(total, "record")
    damaged = f", {found.damaged:,} damaged" if found.damaged else ""
    return f"{found.records:,} of {format_count(total, 'record')}{damaged}"


def join_blocks(blocks: Iterable[Iterable[str]]) -> Iterator[str]:
    """Lines with an empty one between blocks, of those that have any."""
    first = True
    for block in blocks:
        for number, line in enumerate(block):
            if number == 0 and not first:
                yield ""
            yield line
            first = False
