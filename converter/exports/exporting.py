"""Exports a data set: `run_export`."""

import contextlib
import re
from collections.abc import Callable
from typing import Any, Final

import converter
from converter.errors import DatasetError
from converter.exports.export_job import DamageList, Export, ExportJob, SplitFiles
from converter.exports.image_folders import open_table, write_folders
from converter.exports.items import read_items
from converter.exports.parquet_shards import import_arrow, write_parquet
from converter.exports.safe_names import TABLE
from converter.exports.tar_shards import write_tars
from converter.exports.targets import MARKER, Target
from converter.format.manifest import read_manifest_version
from converter.storage.files import Layout, hash_file, write_file
from converter.storage.location import Location

_SHARDED: Final = {"webdataset": write_tars, "parquet": write_parquet}
_SHARD_NAMES: Final = {
    "webdataset": re.compile(r"-\d{6,}\.tar"),
    "parquet": re.compile(r"-\d{5,}-of-\d{5,}\.parquet"),
}


def run_export(
    job: ExportJob,
    folder: Location,
    *,
    break_lock: bool = False,
    on_bytes: Callable[[int], object] = lambda _: None,
) -> Export:
    """Exports a data set to a new or empty folder, as `pipelines.export` describes it.

    Calls `on_bytes` with the bytes of each record that is done.
    """
    if job.kind == "parquet":
        import_arrow()
    damage = DamageList(job.on_damage)
    target = Target(folder=folder, note=_describe_job(job), owns=lambda name: _owns(job, name))
    with target.open(break_lock=break_lock):
        splits = _write_splits(job, target, damage, on_bytes)
        for name, content in job.files.items():
            write_file(target.stage / name, content, target.scratch)
        if read_manifest_version(job.out) != job.version:
            raise DatasetError(
                f"{job.out} was replaced while it was exported: run the same command again"
            )
        counts = {split: files._asdict() for split, files in splits.items()}
        target.publish({**target.note, "splits": counts, "damaged": damage.count})
    return Export(
        kind=job.kind,
        splits=splits,
        damaged=damage.count,
        errors=tuple(damage.errors),
        command=job.describe_command(folder),
    )


def _write_splits(
    job: ExportJob, target: Target, damage: DamageList, on_bytes: Callable[[int], object]
) -> dict[str, SplitFiles]:
    splits: dict[str, SplitFiles] = {}
    with open_table(job, target.stage, target.scratch) as table:
        for split in job.splits:
            items = read_items(job.out, job.manifest, split, damage.report, on_bytes)
            with contextlib.closing(items):
                if job.kind == "folders":
                    splits[split] = write_folders(job, target, split, items, table)
                else:
                    splits[split] = _SHARDED[job.kind](job, target, split, items)
    return splits


def _describe_job(job: ExportJob) -> dict[str, Any]:
    return {
        "manifest": hash_file(Layout(job.out).manifest),
        "generator": f"shardmill {converter.__version__}",
        "kind": job.kind,
        "split": job.split,
        "shard_bytes": job.shard_bytes,
    }


def _owns(job: ExportJob, name: str) -> bool:
    """Whether a file or folder of the export may have this name."""
    if name == MARKER or name in job.files:
        return True
    folders = [job.split_folders[split] for split in job.splits]
    if job.kind == "folders":
        return name in folders or (name == TABLE and job.needs_table)
    pattern = _SHARD_NAMES[job.kind]
    return any(
        name.startswith(folder) and pattern.fullmatch(name, len(folder)) for folder in folders
    )
