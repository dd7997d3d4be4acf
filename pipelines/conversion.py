"""From a folder of images to a finished data set: the whole conversion as one function."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converter.commit import commit, list_finished
from converter.estimates import Estimate, bound_record_bytes, estimate_records
from converter.manifest import Manifest
from converter.options import ConvertOptions
from converter.plan import MIN_SHARDS, Plan, assign_splits, plan_shards, write_plan
from converter.scan import Entry, Scan, scan_folder
from pipelines.preflight import check_folders, check_import_names
from pipelines.progress import ReceiptWatch

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipelines.workers import LocalWorkers


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """What a conversion would do; nothing is written yet.

    Attributes:
        scan: the images, and what is left out.
        splits: the entries of each split, in record order.
        shard_records: how many records each shard of each split would hold.
        estimate: what a sample says about sizes, or None where no sample was needed.
    """

    scan: Scan
    splits: dict[str, list[Entry]]
    shard_records: dict[str, list[int]]
    estimate: Estimate | None


def propose(
    images: str | os.PathLike[str],
    options: ConvertOptions | None = None,
    *,
    always_sample: bool = True,
) -> Proposal:
    """Finds out what converting a folder would give, without writing anything.

    Args:
        images: folder with a folder of images for each class.
        options: what the conversion would be asked for.
        always_sample: convert a sample even where the number of shards does not depend on it.

    Raises:
        UsageError: there is nothing to convert, or not as asked.
    """
    options = options or ConvertOptions()
    folder = Path(images)
    scan = scan_folder(folder)
    splits = assign_splits(scan.entries, options)
    estimate = None
    bound = bound_record_bytes(options)
    if always_sample or not _is_decided(splits, options, bound):
        sample = max(splits.values(), key=len)
        estimate = estimate_records(sample, scan.classes, folder, options)
    record_bytes = estimate.record_bytes if estimate else bound
    return Proposal(
        scan=scan,
        splits=splits,
        shard_records=plan_shards(splits, options, record_bytes),
        estimate=estimate,
    )


def convert(
    images: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: ConvertOptions | None = None,
    beam_args: Sequence[str] = (),
    *,
    workers: int = 0,
    progress: bool = False,
) -> Manifest:
    """Converts a folder of images into a data set.

    The same call again goes on where an interrupted one ended.

    Args:
        images: folder with a folder of images for each class.
        out: folder for the data set: new, empty, or with an unfinished conversion of the same.
        options: size, encoding, shards and splits.
        beam_args: Beam's own options, as on a command line, such as `["--runner=DataflowRunner"]`.
        workers: processes of a local run; 0 for one a core. Each takes about 150 MB and the
            pixels of one image.
        progress: draw a bar on standard error.

    Returns:
        the manifest of the finished data set.

    Raises:
        UsageError: an argument makes no sense; nothing was written.
        WorkerError: a local worker process died; finished shards are kept.
        ShardmillError: the pipeline failed; finished shards are kept.
    """
    options = options or ConvertOptions()
    source, target = Path(images).absolute(), Path(out).absolute()
    check_folders(source, target)
    check_import_names()
    from pipelines import runners  # Beam: not before the folders are known to make sense

    beam_options = runners.parse_options(beam_args)
    with runners.start_workers(beam_options, workers) as pool:
        proposal = propose(source, options, always_sample=False)
        plan = write_plan(
            proposal.scan,
            proposal.splits,
            proposal.shard_records,
            options,
            images=source,
            out=target,
        )
        _run(plan, beam_options, pool, progress=progress)
    return commit(plan)


def _run(
    plan: Plan, beam_options: PipelineOptions, pool: LocalWorkers | None, *, progress: bool
) -> None:
    from pipelines import runners
    from pipelines.transforms import MillShards

    finished = {shard.name for shard in list_finished(plan)}
    remaining = [shard for shard in plan.shards if shard.name not in finished]
    watch = ReceiptWatch(plan, bar=progress)
    try:
        watch.poll()
        if remaining:
            transform = MillShards(plan, remaining)
            runners.run_pipeline(transform, beam_options, pool, on_poll=watch.poll)
        watch.poll()
    finally:
        watch.close()


def _is_decided(
    splits: dict[str, list[Entry]], options: ConvertOptions, record_bytes: float
) -> bool:
    """Whether the number of shards is known without knowing how large the records are.

    It is where even records of the largest possible size would not fill the shards that a split
    gets anyway.
    """
    if options.num_shards is not None:
        return True
    largest = max(map(len, splits.values()))
    return largest * record_bytes <= MIN_SHARDS * options.shard_bytes
