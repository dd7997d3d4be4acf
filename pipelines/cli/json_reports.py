"""Results as JSON for programs; `reports` has them as lines of text for people."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from converter.errors import ShardmillError
from converter.format.examples import ENCODED
from converter.format.manifest import Manifest
from converter.format.schema import MASK
from converter.names import fit_message, from_bytes
from converter.storage.files import REPORT
from converter.storage.locate import locate
from converter.storage.location import Location
from pipelines.cli import omissions
from pipelines.cli.inspection import ClassCounts, FoundRecord

if TYPE_CHECKING:  # `inspect` does without the jobs
    from converter.commits.replacements import Leftover
    from converter.exports.export_job import Export
    from converter.format.indexing import Indexed
    from converter.upkeep.shard_reports import Fault
    from pipelines.jobs.convert import Conversion
    from pipelines.jobs.preview import Preview, Proposal
    from pipelines.jobs.upkeep import Repair
    from reader.batches.pixel_statistics import PixelStatistics


def describe_conversion(conversion: Conversion, folder: Location) -> dict[str, Any]:
    """What `shardmill convert --json` prints about a data set."""
    result = "updated" if conversion.update else "written"
    page = locate(folder) / REPORT
    return {
        **describe_dataset(conversion.manifest, folder),
        "result": "unchanged" if conversion.unchanged else result,
        "shards": {"written": conversion.written, "kept": conversion.kept},
        "report": str(page) if page.is_file() and not conversion.report_error else None,
        **_describe_findings(conversion),
    }


def describe_preview(preview: Preview) -> dict[str, Any]:
    """What `shardmill plan --json` prints about a data set."""
    written, kept = preview.shards
    return {
        "folder": str(preview.out),
        "action": preview.action,
        "source": preview.options.source,
        "recognized": preview.recognized,
        "shards": {"written": written, "kept": kept},
        "discards": preview.discards,
        "proposal": _describe_proposal(preview.proposal) if preview.proposal else None,
        **_describe_findings(preview),
    }


def describe_dataset(manifest: Manifest, folder: Location) -> dict[str, Any]:
    """What `shardmill convert --json` and `inspect --json` print about a finished data set."""
    return {
        "folder": str(locate(folder)),
        "generator": manifest.generator,
        "updated": manifest.updated,
        "options": manifest.options,
        "image": dataclasses.asdict(manifest.image),
        "columns": {column.name: column.kind for column in manifest.columns},
        "classes": dict(zip(manifest.classes, manifest.count_labels(), strict=False)),
        "splits": {
            name: {"records": split.records, "shards": split.shards, "bytes": split.bytes}
            for name, split in manifest.splits.items()
        },
        "totals": dataclasses.asdict(manifest.totals),
    }


def describe_inspection(
    manifest: Manifest,
    folder: Location,
    counts: ClassCounts,
    record: FoundRecord | None,
    statistics: Mapping[str, PixelStatistics],
) -> dict[str, Any]:
    """What `shardmill inspect --json` prints."""
    return {
        **describe_dataset(manifest, folder),
        "classes": {name: _add_counts(counts.images, n) for n, name in enumerate(manifest.classes)},
        "boxes": {
            name: _add_counts(counts.boxes, n)
            for n, name in enumerate(manifest.classes)
            if counts.boxes
        },
        "counted": {"records": sum(counts.looked.values()), "all": counts.whole},
        "record": _describe_record(record) if record else None,
        "statistics": {
            name: {"records": each.records, "mean": [*each.mean], "std": [*each.std]}
            for name, each in statistics.items()
        },
    }


def _add_counts(counts: Mapping[str, Sequence[int]], label: int) -> int:
    return sum(each[label] for each in counts.values() if each)


def _describe_record(record: FoundRecord) -> dict[str, Any]:
    features = {
        name: [_show_value(name, value) for value in values]
        for name, values in sorted(record.features.items())
    }
    place = {name: getattr(record, name) for name in ("split", "number", "shard", "row")}
    error = fit_message(str(record.error)) if record.error else None
    return {**place, "features": features, "error": error}


def _show_value(name: str, value: Any) -> Any:
    """Of images and masks the length alone; text as text, and NaN, which JSON lacks, as null."""
    if name in (ENCODED, MASK):
        return {"bytes": len(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return from_bytes(value) if isinstance(value, bytes) else value


def describe_export(result: Export, folder: Location) -> dict[str, Any]:
    """What `shardmill export --json` prints."""
    return {
        "folder": str(locate(folder)),
        "kind": result.kind,
        "splits": {name: files._asdict() for name, files in result.splits.items()},
        "damaged": {"records": result.damaged, "errors": [*map(str, result.errors)]},
        "command": result.command,
    }


def describe_faults(faults: Sequence[Fault], folder: Location) -> dict[str, Any]:
    """What `shardmill verify --json` prints."""
    found = [fault._replace(detail=fit_message(fault.detail))._asdict() for fault in faults]
    return {"folder": str(locate(folder)), "whole": not faults, "faults": found}


def describe_repair(repair: Repair, folder: Location) -> dict[str, Any]:
    """What `shardmill repair --json` prints: what `verify` would say now, and what was done."""
    done = {"repaired": [*repair.repaired], "unknown": [*repair.unknown]}
    return {**describe_faults(repair.left, folder), **done}


def describe_leftovers(found: Sequence[Leftover], folder: Location) -> dict[str, Any]:
    """What `shardmill clean --json` prints."""
    removed = [{"path": str(path), "what": what} for path, what in found]
    return {"folder": str(locate(folder)), "removed": removed}


def describe_indexes(outcomes: Sequence[Indexed]) -> dict[str, Any]:
    """What `shardmill index --json` prints."""
    done = [outcome for outcome in outcomes if not isinstance(outcome, ShardmillError)]
    failed = [outcome for outcome in outcomes if isinstance(outcome, ShardmillError)]
    paths = ({"path": str(file.path), "index": str(file.index)} for file in done)
    files = [{**dataclasses.asdict(file), **path} for file, path in zip(done, paths, strict=True)]
    return {"files": files, "failed": [fit_message(str(error)) for error in failed]}


def _describe_findings(found: Conversion | Preview) -> dict[str, Any]:
    notes, update = [note._asdict() for note in found.notes], None
    if found.update is not None:
        images = {name: getattr(found.update, name) for name in ("added", "changed", "removed")}
        left_out = omissions.count_left_out(found.update.draft.inventory)
        update = {"images": images, "classes": found.classes._asdict(), "left_out": left_out}
    return {"update": update, "notes": notes}


def _describe_proposal(proposal: Proposal) -> dict[str, Any]:
    inventory, estimate = proposal.draft.inventory, proposal.estimate
    images = len(inventory.entries)
    return {
        "files": inventory.scanned,
        "images": images,
        "skipped": len(inventory.skipped),
        "rejected": len(inventory.rejected),
        "left_out": omissions.count_left_out(inventory),
        "source_bytes": proposal.source_bytes,
        "classes": dict(zip(inventory.classes, proposal.count_labels(), strict=True)),
        "splits": {
            name: {
                "records": sum(records),
                "shards": len(records),
                "bytes": round(sum(records) * estimate.record_bytes) if estimate else None,
            }
            for name, records in proposal.draft.shard_records.items()
        },
        "sizes": dataclasses.asdict(estimate.sizes) if estimate and estimate.sizes else None,
        "core_seconds": round(estimate.seconds_per_image * images, 3) if estimate else None,
    }
