"""Checks a data set: in threads of this process, or as a Beam job."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence

from tqdm import tqdm

from converter.errors import DatasetError
from converter.format.manifest import Manifest, ShardInfo, read_manifest
from converter.options import ConvertOptions
from converter.sources.inputs import locate_root
from converter.storage.files import Layout
from converter.storage.locate import locate
from converter.storage.location import AnyPath, Location
from converter.storage.locks import sign_folder
from converter.upkeep.verification import (
    Check,
    Fault,
    Report,
    collect_faults,
    run_check,
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
        out: the data set's folder; of an unfinished conversion, the finished shards are checked.
        quick: look only at names and sizes.
        decode: decode whole images, not only their headers.
        sources: the converted images, to compare every record with its original.
        beam_args: run as a Beam job with these options; None for threads of this process. Workers
            on other machines must see `out`, and the folder it lies in, under the same path.
        workers: processes of a local Beam job; 0 for one per core.
        progress: draw a bar on standard error.

    Returns:
        The faults; an empty list means the data set is whole.

    Raises:
        UsageError: an option is unknown to Beam.
        DatasetError: the manifest itself is missing, damaged or of a newer format.
        ShardmillError: the Beam job failed.
    """
    folder, images = locate(out), None if sources is None else locate(sources)
    if read_manifest_version(folder) is None:
        return verify_dataset(folder, quick=quick, decode=decode, originals=images)

    def find_faults(manifest: Manifest) -> list[Fault]:
        originals = None
        if images is not None:
            originals = locate_root(images, ConvertOptions.from_json(manifest.options))
        check = Check(
            folder=folder, manifest=manifest, quick=quick, decode=decode, originals=originals
        )
        with draw_bar(manifest, shown=progress) as on_shard:
            if beam_args is None:
                return run_check(check, on_shard)
            return _run_as_job(check, beam_args, workers, on_shard)

    _, faults = check_current(folder, find_faults)
    return faults


def check_current(
    folder: Location, find_faults: Callable[[Manifest], list[Fault]]
) -> tuple[Manifest, list[Fault]]:
    """Checks a data set, again if it is replaced meanwhile; returns its manifest and the faults."""
    while True:
        version = read_manifest_version(folder)
        manifest = read_manifest(folder)
        faults = find_faults(manifest)
        if not faults or read_manifest_version(folder) in (version, None):
            return manifest, faults


def read_manifest_version(folder: Location) -> tuple[int, str] | None:
    """A token that changes whenever a manifest is written; None if there is no manifest."""
    # A manifest of 100,000 shards takes seconds to read.
    manifest = Layout(folder).manifest
    return manifest.read_version() if manifest.is_file() else None


@contextlib.contextmanager
def draw_bar(manifest: Manifest, *, shown: bool) -> Iterator[Callable[[ShardInfo], object]]:
    """Draws a bar over bytes on standard error; yields the function to call with each shard."""
    with tqdm(
        total=manifest.total_bytes, unit="B", unit_scale=True, desc="verifying", disable=not shown
    ) as bar:
        yield lambda shard: bar.update(shard.bytes)


def _run_as_job(
    check: Check, beam_args: Sequence[str], workers: int, on_shard: Callable[[ShardInfo], object]
) -> list[Fault]:
    # Beam takes a second to import, which threads do not need.
    from pipelines.beam import runners  # noqa: PLC0415
    from pipelines.beam.transforms import VerifyShards, report_path  # noqa: PLC0415

    options = runners.parse_options(beam_args)
    runners.check_paths(options, check.folder, check.originals)
    with (
        _open_reports(check.folder, local=options.local) as reports,
        runners.start_workers(options, workers, check.folder) as pool,
    ):
        shards = check.manifest.shards
        unseen = {report_path(reports, shard).name: shard for shard in shards}

        def poll() -> None:
            for name in sorted(unseen.keys() & reports.list_sizes().keys()):
                on_shard(unseen.pop(name))

        transform = VerifyShards(shards, check, reports)
        job = f"shardmill-verify-{check.manifest.plan[:20]}"
        runners.run_pipeline(transform, options, pool, job=job, on_poll=poll)
        poll()
        if unseen:
            name = next(iter(unseen.values())).name
            raise DatasetError(f"no report on {name}: the job ended without checking it")
        names = [report_path(reports, shard).name for shard in shards]
        found = [Report.from_json(data) for data in reports.read_files(names)]
    return collect_faults(check, found)


@contextlib.contextmanager
def _open_reports(folder: Location, *, local: bool) -> Iterator[Location]:
    """Makes a temporary folder that all workers see."""
    if local:
        with tempfile.TemporaryDirectory(prefix="shardmill-") as here:
            yield locate(here)
        return
    # Workers elsewhere may share only the storage of the data set with this machine.
    reports = folder.with_name(f"{Layout(folder).reports}{uuid.uuid4().hex}")
    try:
        reports.make_folder()
        sign_folder(reports)
        yield reports
    finally:
        reports.remove_folder()
