"""What a person is told: plain text for the terminal, from proposals, manifests and faults."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from converter.costs import Cost
from converter.format.manifest import Manifest, SplitInfo, Totals, read_manifest
from converter.inventory import NO_LABEL, NOTES, SKIP_RULES, Note
from converter.names import from_bytes
from converter.options import ConvertOptions
from converter.reasons import REJECT_CODES
from converter.sizes import format_bytes, format_count
from converter.storage.layout import REJECTS, Layout
from converter.storage.location import Location
from converter.upkeep.updates import Update
from converter.upkeep.verification import Fault
from pipelines.jobs.dry_run import Proposal

if TYPE_CHECKING:
    from pipelines.jobs.repair import Repair
    from pipelines.jobs.request import Conversion

_STEPS: Final = {
    "read": "reading",
    "decode": "decoding",
    "convert": "resizing",
    "encode": "encoding",
    "write": "writing",
    "other": "bookkeeping",
}


def summarize_conversion(conversion: Conversion, out: Location, seconds: float) -> Iterator[str]:
    """The lines that close a conversion."""
    manifest = conversion.manifest
    totals, shards = manifest.totals, len(manifest.shards)
    if conversion.unchanged:
        held = f"{format_count(totals.written, 'image')} in {format_count(shards, 'shard')}"
        yield f"nothing to do: {out} is finished, {held}"
        return
    if conversion.update is not None:
        yield from _tell_update(conversion.update, out, seconds, written=conversion.written)
        yield from summarize_splits(manifest)
        yield from tell_cost(conversion.cost)
        return
    rate = f"{totals.written / seconds:,.0f} images/s"
    if conversion.kept:
        rate = f"{conversion.kept:,} of {format_count(shards, 'shard')} were finished before"
    yield f"wrote {format_count(totals.written, 'image')} to {out} in {seconds:.1f} s ({rate})"
    yield from summarize_splits(manifest)
    scanned = format_count(totals.scanned, "file")
    yield f"  {scanned}: {totals.written:,} written, {_tell_left_out(totals)}"
    yield from tell_cost(conversion.cost)
    yield from tell_notes(conversion.notes)
    if totals.rejected or totals.skipped:
        yield from _tell_reasons(totals)
        yield f"  every file that was left out, and why: {out / REJECTS}"


def tell_cost(cost: Cost) -> Iterator[str]:
    """A line about what workers spent most of their time on, and what on the others."""
    if not cost.total_msec:
        return
    shares = sorted(
        ((msec / cost.total_msec, step) for step, msec in cost.msec.items()), reverse=True
    )
    first, *others = (f"{_STEPS[step]} {share:.0%}" for share, step in shares)
    seconds = f"{cost.total_msec / 1000:,.1f} s"
    yield f"  bottleneck: {first} of {seconds} of worker time ({', '.join(others)})"


def tell_notes(notes: Sequence[Note]) -> Iterator[str]:
    """A line for each kind of oddity, with the names of the first one."""
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
        yield f"  {name:<11}{_tell_split(split)}"


def summarize_proposal(proposal: Proposal, options: ConvertOptions, cores: int) -> Iterator[str]:
    """What `shardmill plan` prints."""
    inventory, estimate = proposal.inventory, proposal.estimate
    yield (
        f"{format_count(inventory.scanned, 'file')}: "
        f"{format_count(len(inventory.entries), 'image')} in "
        f"{format_count(len(inventory.classes), 'class')}, "
        f"{len(inventory.skipped):,} skipped"
        + (
            f", {format_count(len(inventory.rejected), 'row')} rejected"
            if inventory.rejected
            else ""
        )
    )
    counts = [0] * len(inventory.classes)
    for entry in inventory.entries:
        if entry.label != NO_LABEL:
            counts[entry.label] += 1
    if inventory.labelled:
        yield from _tell_classes(inventory.classes, counts)
    yield from tell_notes(inventory.notes)
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
            f"for {format_bytes(options.shard_bytes)})"
        )
    seconds = estimate.seconds_per_image * len(inventory.entries)
    yield (
        f"takes about {seconds:,.0f} s of one core, {seconds / cores:,.0f} s on {cores} cores "
        f"(measured on {estimate.samples:,} images, {estimate.rejected} of them rejected)"
    )


def summarize_dataset(manifest: Manifest, folder: Location) -> Iterator[str]:
    """What `shardmill inspect` prints about the whole."""
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
    yield f"  left out   {_tell_left_out(totals)}"
    yield f"  written by {manifest.generator}"
    if manifest.updated:
        yield f"  updated    {manifest.updated:,} times since it was converted as a whole"
    labels = (split.labels for split in manifest.splits.values())
    sums = [sum(counts) for counts in zip(*labels, strict=True)]
    yield from _tell_classes(manifest.classes, sums)


def summarize_faults(faults: Sequence[Fault], folder: Location) -> Iterator[str]:
    """What `shardmill verify` prints: a line for each fault, and one about the whole."""
    yield from (f"{fault.file}: {fault.detail}" for fault in faults)
    whole = f"{folder}"
    if Layout(folder).manifest.is_file():
        manifest = read_manifest(folder)
        size = format_bytes(manifest.total_bytes)
        shards = format_count(len(manifest.shards), "shard")
        whole = f"{format_count(manifest.totals.written, 'record')} in {shards}, {size}"
    yield f"{_count_faults(faults)} in {whole}"


def summarize_repair(repair: Repair, folder: Location) -> Iterator[str]:
    """What `shardmill repair` prints: a line for each file, and one about the whole."""
    yield from (f"repaired {name}" for name in repair.repaired)
    yield from (f"{fault.file}: {fault.detail}" for fault in repair.left)
    if repair.unknown:
        yield (
            f"nothing tells which originals were in {', '.join(repair.unknown)}: images came or "
            "went since, or several shards of an updated split are lost with their indexes; copy "
            "these from a backup, or convert all of it with --overwrite"
        )
    if repair.left:
        yield (
            f"{_count_faults(repair.left)} left in {folder}: what could not be made again has "
            "other originals or other versions by now, and --overwrite converts all of it; what "
            "does not belong to it is left alone"
        )
    else:
        yield f"no fault in {folder}, made again: {format_count(len(repair.repaired), 'file')}"


def dump_faults(faults: Sequence[Fault], folder: Location) -> str:
    """The same for a program: one JSON object in ASCII."""
    found = {"folder": str(folder), "whole": not faults}
    return json.dumps({**found, "faults": [fault._asdict() for fault in faults]})


def summarize_record(features: Mapping[str, list[Any]]) -> Iterator[str]:
    """A line for each feature of a record; long bytes are only measured."""
    for name, values in sorted(features.items()):
        shown = ", ".join(_tell_value(value) for value in values[:8])
        yield f"  {name:<20} {shown}{' …' if len(values) > 8 else ''}"


def escape(text: str) -> str:
    """Makes text from somebody's disk safe to print: no control characters or surrogates."""
    return "".join(char if char.isprintable() else _spell(char) for char in text)


def _spell(char: str) -> str:
    """An escape sequence; of a byte that is not UTF-8, and so a surrogate, that byte's."""
    byte = ord(char) - 0xDC00
    if 0x80 <= byte <= 0xFF:
        return f"\\x{byte:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def _count_faults(faults: Sequence[Fault]) -> str:
    if len(faults) > 1:
        return f"{len(faults):,} faults"
    return "1 fault" if faults else "no fault"


def _tell_update(update: Update, out: Location, seconds: float, *, written: int) -> Iterator[str]:
    kept = len(update.kept)
    done = f"wrote {format_count(written, 'shard')}, left {kept:,} as they were"
    yield f"updated {out} in {seconds:.1f} s: {done}"
    yield (
        f"  images: {update.added:,} added, {update.changed:,} changed, {update.removed:,} removed"
    )


def _tell_left_out(totals: Totals) -> str:
    return f"{_tell('rejected', totals.rejected)}, {_tell('skipped', totals.skipped)}"


def _tell_reasons(totals: Totals) -> Iterator[str]:
    """A table: how many, the code, what it means."""
    meanings = {**REJECT_CODES, **SKIP_RULES}
    for reasons in (totals.rejected, totals.skipped):
        for code, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
            yield f"  {count:>9,}  {code:<18} {meanings.get(code, '')}".rstrip()


def _tell(what: str, reasons: Mapping[str, int]) -> str:
    detail = ", ".join(f"{reason} {number:,}" for reason, number in reasons.items())
    return f"{sum(reasons.values()):,} {what}" + (f" ({detail})" if reasons else "")


def _tell_split(split: SplitInfo) -> str:
    held = f"{format_count(split.records, 'record')} in {format_count(split.shards, 'shard')}"
    mean = format_bytes(split.bytes / split.shards)
    return f"{held}, {format_bytes(split.bytes)} ({mean} a shard)"


def _tell_classes(classes: tuple[str, ...], counts: list[int], most: int = 20) -> Iterator[str]:
    for label, (name, count) in enumerate(zip(classes[:most], counts, strict=False)):
        yield f"  {label:>5}  {name:<24} {count:>9,}"
    if len(classes) > most:
        yield f"         … and {len(classes) - most:,} more classes"


def _tell_value(value: Any) -> str:
    if not isinstance(value, bytes):
        return str(value)
    return from_bytes(value) if len(value) <= 200 else f"{len(value):,} bytes"
