"""Checks a data set, here in threads or anywhere as a Beam job."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from converter.errors import DatasetError
from converter.inputs import locate_root
from converter.layout import Layout, locate
from converter.manifest import Manifest, ShardInfo, read_manifest
from converter.options import ConvertOptions
from converter.verification import (
    Check,
    Fault,
    Report,
    collect_faults,
    make_check,
    verify_dataset,
)


def verify(
    out: str | os.PathLike[str],
    *,
    quick: bool = False,
    decode: bool = True,
    sources: str | os.PathLike[str] | None = None,
    beam_args: Sequence[str] | None = None,
    workers: int = 0,
    progress: bool = False,
) -> list[Fault]:
    """Checks every byte, count, name and image of a data set against its manifest.

    Args:
        out: the data set's folder. Of an unfinished conversion, what is finished is checked.
        quick: look at names and sizes only.
        decode: decode every image, and not its header alone.
        sources: also compare every record with its original: the images that were converted.
        beam_args: run as a Beam job with these options; None for threads of this process. Workers
            on other machines have to see `out`, and the folder beside it, under the same path.
        workers: processes of a local Beam job; 0 for one a core.
        progress: draw a bar on standard error.

    Returns:
        the faults; none means the data set is whole.

    Raises:
        UsageError: an option is unknown to Beam.
        DatasetError: the manifest itself is missing, damaged or of a newer format.
        ShardmillError: the Beam job failed.
    """
    folder = locate(out)
    originals = None if sources is None else locate(sources)
    manifest = read_manifest(folder) if Layout(folder).manifest.exists() else None
    if originals is not None and manifest is not None:
        originals = locate_root(originals, ConvertOptions.from_json(manifest.options))
    with _draw_bar(manifest, shown=progress) as on_shard:
        if manifest is None or beam_args is None:
            return verify_dataset(
                folder, quick=quick, decode=decode, originals=originals, on_shard=on_shard
            )
        check = make_check(folder, manifest, quick=quick, decode=decode, originals=originals)
        reports = _run_job(manifest, check, beam_args, workers, on_shard)
    return collect_faults(manifest, check, reports)


@contextlib.contextmanager
def _draw_bar(manifest: Manifest | None, *, shown: bool) -> Iterator[Callable[[ShardInfo], object]]:
    with tqdm(
        total=manifest.total_bytes if manifest else 0,
        unit="B",
        unit_scale=True,
        desc="verifying",
        disable=not (shown and manifest),
    ) as bar:
        yield lambda shard: bar.update(shard.bytes)


def _run_job(
    manifest: Manifest,
    check: Check,
    beam_args: Sequence[str],
    workers: int,
    on_shard: Callable[[ShardInfo], object],
) -> list[Report]:
    # Beam: a second to import, which threads do without.
    from pipelines import runners  # noqa: PLC0415
    from pipelines.transforms import VerifyShards, report_path  # noqa: PLC0415

    options = runners.parse_options(beam_args)
    runners.check_paths(options, check.folder)
    # Workers elsewhere share with this machine what holds the data set, if anything.
    beside = None if options.local else check.folder.parent
    with (
        tempfile.TemporaryDirectory(prefix=f".{check.folder.name}.shardmill-", dir=beside) as name,
        runners.start_workers(options, workers) as pool,
    ):
        reports, unseen = Path(name), list(manifest.shards)

        def poll() -> None:
            for shard in [s for s in unseen if report_path(reports, s).exists()]:
                unseen.remove(shard)
                on_shard(shard)

        transform = VerifyShards(manifest.shards, check, reports)
        job = f"shardmill-verify-{manifest.plan[:20]}"
        runners.run_pipeline(transform, options, pool, job=job, on_poll=poll)
        poll()
        if unseen:
            raise DatasetError(f"no report on {unseen[0].name}: the job ended without checking it")
        return [
            Report.from_json(json.loads(report_path(reports, shard).read_bytes()))
            for shard in manifest.shards
        ]
