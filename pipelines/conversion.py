"""From a folder of images to a finished data set: the whole conversion as one function."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from converter.commit import commit, list_finished, remove_leftovers
from converter.manifest import Manifest
from converter.options import ConvertOptions
from converter.plan import Plan, write_plan
from pipelines import runners
from pipelines.preflight import check_folders, check_import_names
from pipelines.progress import ReceiptWatch
from pipelines.proposals import propose
from pipelines.transforms import MillShards
from pipelines.workers import LocalWorkers


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
        beam_args: Beam's own options, as on a command line, such as `["--direct_num_workers=4"]`.
        workers: processes of a local run; 0 for one a core. Each takes about 150 MB and the
            pixels of one image.
        progress: draw a bar on standard error.

    Returns:
        the manifest of the finished data set.

    Raises:
        UsageError: an argument makes no sense; no data was written.
        WorkerError: a local worker process died; finished shards are kept.
        ShardmillError: the pipeline failed, the output cannot be written, or not one image could
            be converted; finished shards are kept.
    """
    options = options or ConvertOptions()
    source, target = Path(images).absolute(), Path(out).absolute()
    remove_leftovers(target)
    check_folders(source, target)
    check_import_names()
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
    plan: Plan, beam_options: runners.RunnerOptions, pool: LocalWorkers | None, *, progress: bool
) -> None:
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
