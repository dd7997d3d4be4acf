"""Results as plain text for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from os import cpu_count
from typing import TYPE_CHECKING, Any, Final

from converter.costs import Cost
from converter.errors import ShardmillError
from converter.format.indexing import Indexed
from converter.format.manifest import Manifest, SplitInfo, Totals, read_manifest
from converter.inventory import NO_LABEL, NOTES, SKIP_RULES, Inventory, Note
from converter.names import from_bytes
from converter.reasons import REJECT_CODES
from converter.sizes import format_bytes, format_count
from converter.storage.layout import REJECTS, Layout
from converter.storage.location import Location
from converter.upkeep.class_changes import ClassChanges
from converter.upkeep.updates import Update
from converter.upkeep.verification import Fault
from pipelines.jobs.dry_run import Proposal
from pipelines.jobs.preview import Preview

if TYPE_CHECKING:
    from pipelines.jobs.repair import Repair
    from pipelines.jobs.request import Conversion

MAX_CLASSES: Final = 20
"""How many classes are listed; the others are counted."""

_STEPS: Final = {
    "read": "reading",
    "decode": "decoding",
    "convert": "resizing",
    "encode": "encoding",
    "write": "writing",
    "other": "bookkeeping",
}


def summarize_conversion(conversion: Conversion, out: Location, seconds: float) -> Iterator[str]:
    """What `shardmill convert` prints when it is done."""
    manifest = conversion.manifest
    totals, shards = manifest.totals, len(manifest.shards)
    if conversion.unchanged:
        yield _say_unchanged(manifest, out)
        yield from summarize_notes(conversion.notes)
        return
    if conversion.update is not None:
        done = f"wrote {format_count(conversion.written, 'shard')}"
        yield f"updated {out} in {seconds:.1f} s: {done}, left {conversion.kept:,} as they were"
        yield from _summarize_changes(conversion.update, conversion.classes)
        yield from summarize_splits(manifest)
        yield from summarize_cost(conversion.cost)
        yield from summarize_notes(conversion.notes)
        return
    rate = f"{totals.written / seconds:,.0f} images/s"
    if conversion.kept:
        rate = f"{conversion.kept:,} of {format_count(shards, 'shard')} were finished before"
    yield f"wrote {format_count(totals.written, 'image')} to {out} in {seconds:.1f} s ({rate})"
    yield from summarize_splits(manifest)
    scanned = format_count(totals.scanned, "file")
    yield f"  {scanned}: {totals.written:,} written, {_describe_left_out(totals)}"
    yield from summarize_cost(conversion.cost)
    yield from summarize_notes(conversion.notes)
    if totals.rejected or totals.skipped:
        yield from _list_reasons(totals)
        yield f"  every file that was left out, and why: {out / REJECTS}"


def summarize_cost(cost: Cost) -> Iterator[str]:
    """A line with the share of each step in the time of all workers, the largest first."""
    if not cost.total_msec:
        return
    shares = sorted(
        ((msec / cost.total_msec, step) for step, msec in cost.msec.items()), reverse=True
    )
    first, *others = (f"{_STEPS[step]} {share:.0%}" for share, step in shares)
    seconds = f"{cost.total_msec / 1000:,.1f} s"
    yield f"  bottleneck: {first} of {seconds} of worker time ({', '.join(others)})"


def summarize_notes(notes: Sequence[Note]) -> Iterator[str]:
    """A line for each kind of note, with the first names."""
    by_code: dict[str, list[Note]] = {}
    for note in notes:
        by_code.setdefault(note.code, []).append(note)
    for code, group in by_code.items():
        first = group[0]
        names = ", ".join(first.names[:2]) + (", …" if first.total > 2 else "")
        total = sum(note.total for note in group)
        sets = format_count(len(group), "set")
        yield f"  note: {code} {total:,} in {sets}, {NOTES[code]}: {names}"


def summarize_splits(manifest: Manifest) -> Iterator[str]:
    """A line for each split: records, shards, bytes and the mean size of a shard."""
    for name, split in manifest.splits.items():
        yield f"  {name:<11}{_describe_split(split)}"


def summarize_preview(preview: Preview) -> Iterator[str]:
    """What `shardmill plan` prints."""
    if preview.proposal:
        yield from _summarize_proposal(preview.proposal, preview.options.shard_bytes)
    elif preview.update:
        yield from _summarize_changes(preview.update, preview.classes)
    yield from summarize_notes(preview.notes)
    if preview.action == "nothing" and preview.manifest:
        yield _say_unchanged(preview.manifest, preview.out)
        return
    written, kept = preview.shards
    done = f"would {preview.action} {preview.out}: write {format_count(written, 'shard')}"
    yield done + (f", keep {kept:,}" if kept else "")
    if preview.discards:
        yield "would give up the unfinished conversion of something else that is there"


def _summarize_proposal(proposal: Proposal, shard_bytes: int) -> Iterator[str]:
    inventory, estimate = proposal.inventory, proposal.estimate
    rows = format_count(len(inventory.rejected), "row")
    yield (
        f"{format_count(inventory.scanned, 'file')}: "
        f"{format_count(len(inventory.entries), 'image')} in "
        f"{format_count(len(inventory.classes), 'class')}, "
        f"{len(inventory.skipped):,} skipped" + (f", {rows} rejected" if inventory.rejected else "")
    )
    if inventory.labelled:
        yield from _list_classes(inventory.classes, count_labels(inventory))
    source = sum(entry.size_bytes for entry in inventory.entries)
    yield f"reads {format_bytes(source)}"
    if estimate is None:
        return
    for split, records in proposal.shard_records.items():
        total = sum(records) * estimate.record_bytes
        yield (
            f"writes {split}: {format_count(sum(records), 'record')}, about "
            f"{format_bytes(total)}, in {format_count(len(records), 'shard')} of {min(records):,} "
            f"to {max(records):,} records (about {format_bytes(total / len(records))} each; asked "
            f"for {format_bytes(shard_bytes)})"
        )
    cores = cpu_count() or 1
    seconds = estimate.seconds_per_image * len(inventory.entries)
    yield (
        f"takes about {seconds:,.0f} s of one core, {seconds / cores:,.0f} s on {cores} cores "
        f"(measured on {estimate.samples:,} images, {estimate.rejected} of them rejected)"
    )


def count_labels(inventory: Inventory) -> list[int]:
    """Returns the number of images of each class, in label order."""
    counts = Counter(entry.label for entry in inventory.entries if entry.label != NO_LABEL)
    return [counts[label] for label in range(len(inventory.classes))]


def summarize_dataset(manifest: Manifest, folder: Location) -> Iterator[str]:
    """What `shardmill inspect` prints about the data set."""
    image, totals = manifest.image, manifest.totals
    size = (
        f"{image.height}x{image.width}"
        if image.height
        else (f"of different sizes, up to {image.max_height}x{image.max_width}")
    )
    formats = ", ".join(f"{count:,} {name}" for name, count in image.formats.items())
    classes = format_count(len(manifest.classes), "class")
    yield f"{folder}: {format_count(totals.written, 'image')} in {classes}"
    yield f"  images     {size}, {image.channels} channels, {formats}"
    yield from summarize_splits(manifest)
    yield f"  left out   {_describe_left_out(totals)}"
    yield f"  written by {manifest.generator}"
    if manifest.updated:
        yield f"  updated    {manifest.updated:,} times since it was converted as a whole"
    labels = (split.labels for split in manifest.splits.values())
    sums = [sum(counts) for counts in zip(*labels, strict=True)]
    yield from _list_classes(manifest.classes, sums)


def list_faults(faults: Sequence[Fault]) -> Iterator[str]:
    """A line for each fault."""
    yield from (f"{fault.file}: {fault.detail}" for fault in faults)


def summarize_faults(faults: Sequence[Fault], folder: Location) -> str:
    """The last line of `shardmill verify`, about the whole data set."""
    whole = f"{folder}"
    if Layout(folder).manifest.is_file():
        manifest = read_manifest(folder)
        size = format_bytes(manifest.total_bytes)
        shards = format_count(len(manifest.shards), "shard")
        whole = f"{format_count(manifest.totals.written, 'record')} in {shards}, {size}"
    return f"{_count_faults(faults)} in {whole}"


def summarize_repair(repair: Repair, folder: Location) -> Iterator[str]:
    """What `shardmill repair` prints: a line for each file, and one about the data set."""
    yield from (f"repaired {name}" for name in repair.repaired)
    yield from list_faults(repair.left)
    if repair.unknown:
        yield (
            f"cannot tell which originals {', '.join(repair.unknown)} held: images were added or "
            "removed since, or a split that was updated lost several shards; copy these from a "
            "backup, or convert again with --overwrite"
        )
    if repair.left:
        yield (
            f"{_count_faults(repair.left)} left in {folder}: files that could not be made again "
            "have other originals or versions now, and --overwrite converts all of it; files that "
            "do not belong to it are left alone"
        )
    else:
        yield f"no fault in {folder}, made again: {format_count(len(repair.repaired), 'file')}"


def summarize_indexes(outcomes: Sequence[Indexed]) -> str:
    """The last line of `shardmill index`."""
    done = [outcome for outcome in outcomes if not isinstance(outcome, ShardmillError)]
    records, size = sum(file.records for file in done), sum(file.bytes for file in done)
    found = f"{format_count(records, 'record')} in {format_count(len(done), 'file')}"
    line = f"indexed {found}, {format_bytes(size)}"
    if earlier := sum(not file.written for file in done):
        line += f", {earlier:,} of them earlier"
    if failed := len(outcomes) - len(done):
        line += f"; {format_count(failed, 'file')} failed"
    return line


def summarize_record(features: Mapping[str, list[Any]]) -> Iterator[str]:
    """A line for each feature of a record, with the length of long bytes only."""
    for name, values in sorted(features.items()):
        shown = ", ".join(describe_value(value) for value in values[:8])
        yield f"  {name:<20} {shown}{' …' if len(values) > 8 else ''}"


def escape(text: str) -> str:
    """Makes names from a disk safe to print: no control characters or surrogates."""
    return "".join(char if char.isprintable() else _spell(char) for char in text)


def _spell(char: str) -> str:
    # A byte that is not UTF-8 is a surrogate in a name.
    byte = ord(char) - 0xDC00
    if 0x80 <= byte <= 0xFF:
        return f"\\x{byte:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def _count_faults(faults: Sequence[Fault]) -> str:
    if len(faults) > 1:
        return f"{len(faults):,} faults"
    return "1 fault" if faults else "no fault"


def _say_unchanged(manifest: Manifest, out: Location) -> str:
    images = format_count(manifest.totals.written, "image")
    shards = format_count(len(manifest.shards), "shard")
    return f"nothing to do: {out} is finished, {images} in {shards}"


def _summarize_changes(update: Update, changes: ClassChanges) -> Iterator[str]:
    yield (
        f"  images: {update.added:,} added, {update.changed:,} changed, {update.removed:,} removed"
    )
    lines = [f"{old} is renamed to {new}" for old, new in changes.renamed]
    lines += [f"{name} is new" for name in changes.added]
    lines += [f"{name} has no images any more" for name in changes.emptied]
    yield from (f"  class {line}" for line in lines[:MAX_CLASSES])
    if len(lines) > MAX_CLASSES:
        yield f"  … and {len(lines) - MAX_CLASSES:,} more classes"


def _describe_left_out(totals: Totals) -> str:
    rejected = _count_reasons("rejected", totals.rejected)
    return f"{rejected}, {_count_reasons('skipped', totals.skipped)}"


def _list_reasons(totals: Totals) -> Iterator[str]:
    """A table of counts, codes and their meanings."""
    meanings = {**REJECT_CODES, **SKIP_RULES}
    for reasons in (totals.rejected, totals.skipped):
        for code, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
            yield f"  {count:>9,}  {code:<18} {meanings.get(code, '')}".rstrip()


def _count_reasons(what: str, reasons: Mapping[str, int]) -> str:
    detail = ", ".join(f"{reason} {number:,}" for reason, number in reasons.items())
    return f"{sum(reasons.values()):,} {what}" + (f" ({detail})" if reasons else "")


def _describe_split(split: SplitInfo) -> str:
    held = f"{format_count(split.records, 'record')} in {format_count(split.shards, 'shard')}"
    mean = format_bytes(split.bytes / split.shards)
    return f"{held}, {format_bytes(split.bytes)} ({mean} a shard)"


def _list_classes(classes: tuple[str, ...], counts: list[int]) -> Iterator[str]:
    for label, (name, count) in enumerate(zip(classes[:MAX_CLASSES], counts, strict=False)):
        yield f"  {label:>5}  {name:<24} {count:>9,}"
    if len(classes) > MAX_CLASSES:
        yield f"         … and {len(classes) - MAX_CLASSES:,} more classes"


def describe_value(value: Any) -> str:
    """A value of a feature as text, or the length of long bytes."""
    if not isinstance(value, bytes):
        return str(value)
    return from_bytes(value) if len(value) <= 200 else f"{len(value):,} bytes"
