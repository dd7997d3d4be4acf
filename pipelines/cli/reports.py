"""Results as lines of text for people; `json_reports` has them for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import cpu_count
from typing import TYPE_CHECKING, Final

from converter.commits.run_log import recall_images
from converter.costs import STEPS, Cost
from converter.errors import ShardmillError
from converter.format.manifest import Manifest, Totals
from converter.inventory import FILTERS, NOTES, Note
from converter.names import fit_message
from converter.options import ConvertOptions
from converter.planning.shares import find_uneven
from converter.sizes import format_bytes, format_count
from converter.storage.files import REJECTS, REPORT
from converter.storage.locate import locate
from converter.storage.location import Location
from pipelines.cli import omissions

if TYPE_CHECKING:  # `inspect` does without the jobs
    from converter.exports.export_job import Export
    from converter.format.indexing import Indexed
    from converter.upkeep.comparisons import ClassChanges
    from converter.upkeep.shard_reports import Fault
    from converter.upkeep.updates import Update
    from converter.writing.estimates import SampledSizes
    from pipelines.jobs.convert import Conversion
    from pipelines.jobs.preview import Preview, Proposal
    from pipelines.jobs.upkeep import Repair
    from pipelines.pages.report import Report

MAX_CLASSES: Final = 20  # that are listed; the others are counted


def summarize_conversion(conversion: Conversion, out: Location, seconds: float) -> Iterator[str]:
    """What `shardmill convert` prints when it is done."""
    manifest, totals, update = conversion.manifest, conversion.manifest.totals, conversion.update
    if conversion.unchanged:
        yield _say_unchanged(manifest, out)
        yield from _list_notes(conversion.notes)
        if not (locate(out) / REPORT).is_file():  # the run before was killed while it wrote it
            yield f"  there is no {REPORT}: shardmill report {out} writes it"
        return
    if update is not None:
        done = f"wrote {format_count(conversion.written, 'shard')}"
        yield f"updated {out} in {seconds:.1f} s: {done}, left {conversion.kept:,} as they were"
        yield from omissions.list_renames(manifest.options.get("class_names"))
        yield from _summarize_changes(update, conversion.classes)
    else:
        rate = f"{totals.written / seconds:,.0f} images/s"
        if conversion.kept:
            shards = format_count(len(manifest.shards), "shard")
            rate = f"{conversion.kept:,} of {shards} were finished before"
        yield f"wrote {format_count(totals.written, 'image')} to {out} in {seconds:.1f} s ({rate})"
    yield from _list_splits(manifest)
    if update is None:
        held = {name: split.records for name, split in manifest.splits.items()}
        yield from _list_uneven(held, ConvertOptions.from_json(manifest.options))
        scanned = format_count(totals.scanned, "file")
        rejected, skipped = (sum(codes.values()) for codes in (totals.rejected, totals.skipped))
        yield f"  {scanned}: {totals.written:,} written, {rejected:,} rejected, {skipped:,} skipped"
        yield from _list_left_out(totals, out)
        yield from omissions.list_renames(manifest.options.get("class_names"))
    elif totals.rejected:
        yield f"  still left out: {omissions.describe_left_out(totals)}"
        yield f"  every file that was left out, and why: {out / REJECTS}"
    yield from summarize_cost(conversion.cost)
    yield from _list_notes(conversion.notes)
    if not conversion.report_error:
        yield f"  report: {out / REPORT}"


def summarize_cost(cost: Cost) -> Iterator[str]:
    """A line with the share of each step in the time of all workers, the largest first."""
    if not cost.total_msec:
        return
    steps = sorted(((msec, step) for step, msec in cost.msec.items()), reverse=True)
    first, *others = (f"{STEPS[step]} {msec / cost.total_msec:.0%}" for msec, step in steps)
    seconds = f"{cost.total_msec / 1000:,.1f} s"
    yield f"  bottleneck: {first} of {seconds} of worker time ({', '.join(others)})"


def summarize_preview(preview: Preview) -> Iterator[str]:
    """What `shardmill plan` prints."""
    if preview.proposal:
        members = [member.replace(":", " ", 1) for member in preview.options.members]
        found = [*(members or [preview.options.source]), preview.recognized]
        yield f"source: {', '.join(filter(None, found))}"
        yield from _summarize_proposal(preview.proposal, preview.options)
    elif preview.update:
        yield from omissions.list_renames(preview.options.class_names)
        yield from _summarize_changes(preview.update, preview.classes)
    yield from _list_notes(preview.notes)
    if preview.action == "nothing" and preview.manifest:
        yield _say_unchanged(preview.manifest, preview.out)
        return
    written, kept = preview.shards
    action = "make" if preview.action == "write" else preview.action
    done = f"would {action} {preview.out}: write {format_count(written, 'shard')}"
    yield done + (f", keep {kept:,}" if kept else "")
    if preview.discards:
        yield "would give up the unfinished conversion of something else that is there"


def _summarize_proposal(proposal: Proposal, options: ConvertOptions) -> Iterator[str]:
    inventory, estimate = proposal.draft.inventory, proposal.estimate
    images, classes = len(inventory.entries), len(inventory.classes)
    found = f"{format_count(images, 'image')} in {format_count(classes, 'class')}"
    rows = format_count(len(inventory.rejected), "row")
    yield (
        f"{format_count(inventory.scanned, 'file')}: {found}, {len(inventory.skipped):,} skipped"
        + (f", {rows} rejected" if inventory.rejected else "")
    )
    yield from omissions.list_skipped(inventory)
    yield from omissions.list_renames(options.class_names)
    if inventory.labelled:
        yield from _list_classes(inventory.classes, proposal.count_labels())
    yield f"reads {format_bytes(proposal.source_bytes)}"
    if estimate is None:
        return
    if estimate.sizes:
        yield from _describe_sizes(estimate.sizes, options)
    for split, records in proposal.draft.shard_records.items():
        total = sum(records) * estimate.record_bytes
        yield (
            f"writes {split}: {format_count(sum(records), 'record')}, about "
            f"{format_bytes(total)}, in {format_count(len(records), 'shard')} of "
            f"{_describe_range(records)} (about {format_bytes(total / len(records))} each)"
        )
    held = {split: sum(records) for split, records in proposal.draft.shard_records.items()}
    yield from _list_uneven(held, options)
    cores = cpu_count() or 1
    seconds = estimate.seconds_per_image * images
    yield (
        f"takes about {_seconds(seconds)} of one core, {_seconds(seconds / cores)} on {cores} "
        "cores, and some seconds to start "
        f"(measured on {estimate.samples:,} images, {estimate.rejected} of them rejected)"
    )


def _describe_sizes(sizes: SampledSizes, options: ConvertOptions) -> Iterator[str]:
    original, stored = ("{}x{}".format(*size) for size in (sizes.original, sizes.stored))
    read = f"{sizes.read:,} read" if sizes.alike else f"median of {sizes.read:,} read"
    about = "" if sizes.alike else "about "
    if options.resize == "none":
        yield f"originals {about}{original} ({read}), height x width, stored as they are"
        return
    wanted = stored if options.fixed_size else f"{about}{stored}"
    yield (
        f"originals {about}{original} ({read}), height x width, stored as {wanted} "
        f"({options.resize})"
    )
    if 2 * sizes.enlarged > sizes.read:
        side = {"shorter": min, "longer": max}.get(options.resize)
        height, width = (side(sizes.original),) * 2 if side else sizes.original
        smaller = height if height == width else f"{height}x{width}"
        yield (
            f"  note: most originals are {about}{original}: {stored} enlarges them; try "
            f"--image-size {smaller}"
        )


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _describe_range(records: Sequence[int]) -> str:
    least, most = min(records), max(records)
    return f"{least:,} to {most:,} records" if least < most else format_count(most, "record")


def summarize_report(made: Report, place: Location) -> Iterator[str]:
    """What `shardmill report` prints: where the page is, and the gravest of what it says."""
    from pipelines.pages.findings import list_findings  # noqa: PLC0415 (NumPy)

    yield f"report: {place}"
    for finding in list_findings(made.survey):
        if finding.level != "info":
            yield fit_message(f"  {finding.title}")


def name_fault(fault: Fault) -> str:
    """The line about a fault; a record as `inspect --record` takes it."""
    place = fault.file if fault.record is None else f"{fault.file}:{fault.record}"
    return fit_message(f"{place}: {fault.detail}")


def summarize_faults(
    faults: Sequence[Fault], manifest: Manifest | None, folder: Location
) -> Iterator[str]:
    """The last lines of `shardmill verify`: about the whole data set, and what to do."""
    whole = str(folder)
    if manifest is not None:
        size = format_bytes(manifest.total_bytes)
        shards = format_count(len(manifest.shards), "shard")
        whole = f"{format_count(manifest.totals.written, 'record')} in {shards}, {size}"
    yield f"{_count_faults(faults)} in {whole}"
    if manifest is None:
        return
    stated = {name for shard in manifest.shards for name in shard.file_sizes} | {*manifest.files}
    images = (faults and recall_images(locate(folder))) or "IMAGES"
    if any(fault.file in stated for fault in faults):
        line = f"to rebuild what is damaged: shardmill repair {folder} --images {images}"
        yield fit_message(line)
    if any(fault.original for fault in faults):
        line = f"to take in originals that changed: shardmill convert {images} {folder} --update"
        yield fit_message(line)


def summarize_repair(repair: Repair, folder: Location) -> Iterator[str]:
    """What `shardmill repair` prints: a line for each file, and one about the data set."""
    yield from (f"repaired {name}" for name in repair.repaired)
    yield from map(name_fault, repair.left)
    if repair.unknown:
        yield (
            f"cannot tell which originals {', '.join(repair.unknown)} held: images were added or "
            "removed since, or a split that was updated lost several shards; copy these from a "
            "backup, or convert again with --overwrite; to see which are gone or changed: "
            f"shardmill verify {folder} --sources IMAGES"
        )
    if repair.left:
        yield (
            f"{_count_faults(repair.left)} left in {folder}: files that could not be rebuilt have "
            "other originals or versions now, and --overwrite converts all of it; files that do "
            "not belong to it are left alone"
        )
    else:
        yield f"no fault in {folder}, rebuilt: {format_count(len(repair.repaired), 'file')}"


def summarize_export(result: Export, folder: Location) -> Iterator[str]:
    """What `shardmill export` prints."""
    from converter.exports.export_job import SplitFiles  # noqa: PLC0415 (as above)

    total = SplitFiles(*map(sum, zip(*result.splits.values(), strict=True)))
    for name, files in (("", total), *result.splits.items()):
        held = f"{format_count(files.images, 'image')} in {format_count(files.files, 'file')}"
        line = f"{held}, {format_bytes(files.bytes)}"
        yield f"  {name:<11}{line}" if name else f"exported {line} to {folder}"
    if result.damaged:
        yield f"  left out   {format_count(result.damaged, 'damaged record')}"
        yield from (f"    {error}" for error in result.errors[:MAX_CLASSES])
    yield f"  to convert it again: {result.command}"


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


def _count_faults(faults: Sequence[Fault]) -> str:
    return format_count(len(faults), "fault") if faults else "no fault"


def _say_unchanged(manifest: Manifest, out: Location) -> str:
    images = format_count(manifest.totals.written, "image")
    shards = format_count(len(manifest.shards), "shard")
    return f"nothing to do: {out} is finished, {images} in {shards}"


def _summarize_changes(update: Update, changes: ClassChanges) -> Iterator[str]:
    changed = f"{update.changed:,} changed, {update.removed:,} removed"
    yield f"  images: {update.added:,} added, {changed}"
    yield from omissions.list_choices(update.draft.inventory)
    labels = {name: f"{name} (label {n})" for n, name in enumerate(update.draft.inventory.classes)}
    lines = [f"{labels[old]} is renamed to {labels[new]}" for old, new in changes.renamed]
    lines += [f"{labels[name]} is new" for name in changes.added]
    lines += [f"{labels[name]} has no images any more" for name in changes.emptied]
    yield from (fit_message(f"  class {line}") for line in lines[:MAX_CLASSES])
    if len(lines) > MAX_CLASSES:
        yield f"  … and {len(lines) - MAX_CLASSES:,} more classes"
    if changes.renamed or changes.emptied:
        yield (
            "  empty classes keep their labels; to drop them, convert again with --overwrite, and "
            "with --classes without them"
        )


def _list_left_out(totals: Totals, out: Location) -> Iterator[str]:
    if totals.rejected or totals.skipped:
        yield from omissions.list_reasons(totals)
        yield f"  every file that was left out, and why: {out / REJECTS}"
    if totals.rejected.keys() - FILTERS:
        yield "  mend or replace them, and take them in: the same command with --update"


def _list_notes(notes: Iterable[Note]) -> Iterator[str]:
    by_code: dict[str, list[Note]] = {}
    for note in notes:
        by_code.setdefault(note.code, []).append(note)
    for code, group in by_code.items():
        first = group[0]
        names = ", ".join(first.names[:2]) + (", …" if first.total > 2 else "")
        total = f"{sum(note.total for note in group):,}"
        if len(group) > 1:
            total += f" in {len(group):,} sets"
        yield fit_message(f"  note: {code} ({total}): {NOTES[code]}: {names}")


def _list_splits(manifest: Manifest) -> Iterator[str]:
    for name, split in manifest.splits.items():
        held = f"{format_count(split.records, 'record')} in {format_count(split.shards, 'shard')}"
        mean = format_bytes(split.bytes / split.shards)
        yield f"  {name:<11}{held}, {format_bytes(split.bytes)} ({mean} a shard)"


def _list_uneven(records: Mapping[str, int], options: ConvertOptions) -> Iterator[str]:
    for split, share, wish in find_uneven(records, options.held_out):
        yield (
            f"  note: {split} has {share:.0%} of the images, not {wish:.0%}: those with the same "
            "content, or of a group, stay together; --stratify or --dedupe drop come closer"
        )


def _list_classes(classes: Sequence[str], counts: Sequence[int]) -> Iterator[str]:
    for label, (name, count) in enumerate(zip(classes[:MAX_CLASSES], counts, strict=False)):
        yield fit_message(f"  {label:>5}  {name:<24} {count:>9,}")
    if len(classes) > MAX_CLASSES:
        yield f"         … and {len(classes) - MAX_CLASSES:,} more classes"
