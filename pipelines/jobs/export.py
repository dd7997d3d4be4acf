"""Exports a finished data set: `pipelines.export`."""

from typing import Any

from converter import progress
from converter.errors import UsageError
from converter.exports.export_job import Export, ExportJob
from converter.exports.exporting import run_export
from converter.storage.locate import locate, locate_output
from converter.storage.location import AnyPath, Location
from pipelines.jobs.bars import follow
from pipelines.jobs.outputs import (
    check_place,
    check_writable,
    refuse_file,
    refuse_inside_dataset,
)
from pipelines.jobs.request import make_settings


def export(
    out: AnyPath,
    folder: AnyPath,
    *,
    kind: str = "folders",
    split: str | None = None,
    shard_bytes: int | None = None,
    on_damage: str = "raise",
    **settings: Any,
) -> Export:
    """Writes the images of a finished data set to files that other programs read.

    Stored images are written byte for byte; `raw` pixels become PNG. Converted again, by the
    command in the result, they give the same pixels, labels, splits and columns. The same data set
    gives the same bytes. Memory is bounded by 4 records and images a core (32 at least for a
    folder in a store), 100 bytes for each image of a split, and for Parquet 90 MB.

    Args:
        out: the data set's folder, on a disk or in an object store.
        folder: where the export appears, once it is complete: a new or an empty folder, or one
            where the same export was interrupted, which starts over. Neither may hold the other.
        kind: `folders` has a folder for each split and class, and `metadata.jsonl` if there are
            columns; `webdataset` tars, and `parquet` files as Hugging Face's `datasets` has them.
        split: export this one alone; None for all.
        shard_bytes: the size of a tar or Parquet file to aim at, in bytes; by default 500 MB.
        on_damage: `raise` an error at a damaged record, or `skip` it.
        **settings: `progress` and `break_lock` of `RunSettings`.

    Raises:
        UsageError: an argument makes no sense, or `folder` is not empty.
        DatasetError: the data set is unfinished or damaged, or replaced meanwhile; RecordError for
            a damaged record.
        LockedError: someone else is writing to `folder`.
        OutputError: `folder` cannot be written.
    """
    run = make_settings(("progress", "break_lock"), **settings)
    place, target = locate(out), locate_output(folder)
    job = ExportJob.read(
        place, kind=kind, split=split, shard_bytes=shard_bytes, on_damage=on_damage
    )
    _check_places(place, target)
    with follow(shown=run.progress):
        phase = progress.begin("export", job.total_records)

        def count(size_bytes: int) -> None:
            phase.done += 1
            phase.bytes += size_bytes

        return run_export(job, target, break_lock=run.break_lock, on_bytes=count)


def _check_places(out: Location, folder: Location) -> None:
    source, target = out.resolve(), folder.resolve()  # one may be a link to the other
    if source.contains(target):
        raise UsageError(f"{folder} lies inside the data set {out}: choose a folder elsewhere")
    if target.contains(source):
        raise UsageError(f"the data set {out} lies inside {folder}: choose a folder elsewhere")
    refuse_file(folder)
    check_place(folder)
    refuse_inside_dataset(folder)
    check_writable(folder)
