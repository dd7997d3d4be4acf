"""Results as JSON values for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from converter.format.manifest import Manifest
from converter.inventory import Note
from converter.storage.locate import locate
from converter.storage.location import Location
from converter.upkeep.class_changes import ClassChanges
from converter.upkeep.updates import Update
from converter.upkeep.verification import Fault
from pipelines.cli.reports import count_labels, describe_value
from pipelines.jobs.preview import Preview

if TYPE_CHECKING:
    from pipelines.jobs.request import Conversion


def describe_conversion(conversion: Conversion, folder: Location) -> dict[str, Any]:
    """What `shardmill convert --json` prints about a data set."""
    result = "updated" if conversion.update else "written"
    return {
        **describe_dataset(conversion.manifest, folder),
        "result": "unchanged" if conversion.unchanged else result,
        "shards": {"written": conversion.written, "kept": conversion.kept},
        "update": _describe_update(conversion.update, conversion.classes),
        "notes": _describe_notes(conversion.notes),
    }


def describe_preview(preview: Preview) -> dict[str, Any]:
    """What `shardmill plan --json` prints about a data set."""
    written, kept = preview.shards
    return {
        "folder": str(preview.out),
        "action": preview.action,
        "shards": {"written": written, "kept": kept},
        "discards": preview.discards,
        "proposal": _describe_proposal(preview),
        "update": _describe_update(preview.update, preview.classes),
        "notes": _describe_notes(preview.notes),
    }


def describe_dataset(manifest: Manifest, folder: Location) -> dict[str, Any]:
    """What `shardmill inspect --json` prints, but for the record."""
    labels = (split.labels for split in manifest.splits.values())
    counts = [sum(counts) for counts in zip(*labels, strict=True)]
    return {
        "folder": str(locate(folder)),
        "generator": manifest.generator,
        "updated": manifest.updated,
        "options": manifest.options,
        "image": dataclasses.asdict(manifest.image),
        "classes": dict(zip(manifest.classes, counts, strict=False)),
        "splits": {
            name: {"records": split.records, "shards": split.shards, "bytes": split.bytes}
            for name, split in manifest.splits.items()
        },
        "totals": dataclasses.asdict(manifest.totals),
    }


def describe_record(shard: str, features: Mapping[str, list[Any]]) -> dict[str, Any]:
    """A record as JSON values: bytes as text, long ones as their length."""
    values = {
        name: [describe_value(value) if isinstance(value, bytes) else value for value in found]
        for name, found in sorted(features.items())
    }
    return {"shard": shard, "features": values}


def describe_faults(faults: Sequence[Fault], folder: Location) -> dict[str, Any]:
    """What `shardmill verify --json` prints."""
    found = [fault._asdict() for fault in faults]
    return {"folder": str(locate(folder)), "whole": not faults, "faults": found}


def _describe_proposal(preview: Preview) -> dict[str, Any] | None:
    if preview.proposal is None:
        return None
    inventory, estimate = preview.proposal.inventory, preview.proposal.estimate
    images = len(inventory.entries)
    return {
        "files": inventory.scanned,
        "images": images,
        "skipped": len(inventory.skipped),
        "rejected": len(inventory.rejected),
        "source_bytes": sum(entry.size_bytes for entry in inventory.entries),
        "classes": dict(zip(inventory.classes, count_labels(inventory), strict=True)),
        "splits": {
            name: {
                "records": sum(records),
                "shards": len(records),
                "bytes": round(sum(records) * estimate.record_bytes) if estimate else None,
            }
            for name, records in preview.proposal.shard_records.items()
        },
        "core_seconds": round(estimate.seconds_per_image * images, 3) if estimate else None,
    }


def _describe_update(update: Update | None, changes: ClassChanges) -> dict[str, Any] | None:
    if update is None:
        return None
    counts = {"added": update.added, "changed": update.changed, "removed": update.removed}
    return {"images": counts, "classes": changes._asdict()}


def _describe_notes(notes: Sequence[Note]) -> list[dict[str, Any]]:
    return [note._asdict() for note in notes]
