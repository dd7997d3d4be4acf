"""Checks a data set, here in threads or anywhere as a Beam job."""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence

from tqdm import tqdm

from converter.errors import DatasetError
from converter.format.manifest import Manifest, ShardInfo, read_manifest
from converter.options import ConvertOptions
from converter.sources.inputs import locate_root
from converter.storage.files import read_files
from converter.storage.layout import Layout
from converter.storage.locate import locate
from converter.storage.location import AnyPath, Location
from converter.storage.locks import sign_folder
from converter.upkeep.verification import (
    Check,
    Fault,
    Report,
    collect_faults,
    make_check,
    verify_dataset,
)


def verify(
    out: AnyPath,
    *,
    quick: bool = False,
    decode: bool = True,
    sources: AnyPath | None = None,
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
    images = None if sources is None else locate(sources)
    while True:
        manifest = read_manifest(folder) if Layout(folder).manifest.is_file() else None
        originals = images
        if images is not None and manifest is not None:
            originals = locate_root(images, ConvertOptions.from_json(manifest.options))
        with _draw_bar(manifest, shown=progress) as on_shard:
            if manifest is None or beam_args is None:
                faults = verify_dataset(
                    folder, quick=quick, decode=decode, originals=originals, on_shard=on_shard
                )
            else:
                check = make_check(
                    folder, manifest, quick=quick, decode=decode, originals=originals
                )
                faults = _verify_there(manifest, check, beam_args, workers, on_shard)
        if not faults or not _is_replaced(folder, manifest):
            return faults


def _is_replaced(folder: Location, manifest: Manifest | None) -> bool:
    """Whether there is another data set by now, so that faults may be of neither."""
    if manifest is None or not Layout(folder).manifest.is_file():
        return False
    return read_manifest(folder) != manifest


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


def _verify_there(
    manifest: Manifest,
    check: Check,
    beam_args: Sequence[str],
    workers: int,
    on_shard: Callable[[ShardInfo], object],
) -> list[Fault]:
    """Runs the check as a Beam job."""
    # Beam: a second to import, which threads do without.
    from pipelines.beam import runners  # noqa: PLC0415
    from pipelines.beam.transforms import VerifyShards, report_path  # noqa: PLC0415

    options = runners.parse_options(beam_args)
    runners.check_paths(options, check.folder, check.originals)
    with (
        _open_reports(check.folder, local=options.local) as reports,
        runners.start_workers(options, workers, check.folder) as pool,
    ):
        unseen = {report_path(reports, shard).name: shard for shard in manifest.shards}

        def poll() -> None:
            for name in sorted(unseen.keys() & reports.list_sizes().keys()):
                on_shard(unseen.pop(name))

        transform = VerifyShards(manifest.shards, check, reports)
        job = f"shardmill-verify-{manifest.plan[:20]}"
        runners.run_pipeline(transform, options, pool, job=job, on_poll=poll)
        poll()
        if unseen:
            name = next(iter(unseen.values())).name
            raise DatasetError(f"no report on {name}: the job ended without checking it")
        paths = [report_path(reports, shard) for shard in manifest.shards]
        found = [Report.from_json(json.loads(data)) for data in read_files(paths)]
    return collect_faults(manifest, check, found)


@contextlib.contextmanager
def _open_reports(folder: Location, *, local: bool) -> Iterator[Location]:
    """A place that all workers see, with nothing but whose it is, as long as the block lasts."""
    if local:
        with tempfile.TemporaryDirectory(prefix="shardmill-") as here:
            yield locate(here)
        return
    # Workers elsewhere share with this machine what holds the data set, if anything.
    reports = folder.with_name(f"{Layout(folder).reports}{uuid.uuid4().hex}")
    try:
        reports.make_folder()
        sign_folder(reports)
        yield reports
    finally:
        reports.remove_folder()
