"""Checks and repairs a finished data set: in threads of this process, or as a Beam job."""

import contextlib
import dataclasses
import functools
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from converter import progress
from converter.commits.replacements import find_manifest, restore_folder, settle_folder
from converter.errors import DatasetError, UsageError
from converter.format.manifest import (
    Manifest,
    ShardInfo,
    read_manifest,
    read_manifest_version,
)
from converter.inventory import Entry, Inventory
from converter.options import ConvertOptions
from converter.planning.plan import Draft, Plan, digest_plan
from converter.progress import Counts
from converter.sources.inputs import locate_masks, locate_root
from converter.sources.joined import (
    Images,
    keep_labels,
    locate_images,
    locate_originals,
)
from converter.sources.patterns import is_pattern
from converter.sources.scan import Originals, scan_images
from converter.storage.files import MANIFEST, NOTES, REJECTS, Layout, name_index
from converter.storage.locate import locate, locate_output
from converter.storage.location import AnyPath, Location
from converter.storage.locks import sign_folder
from converter.upkeep.contents import OnShard
from converter.upkeep.repairs import RepairJob
from converter.upkeep.shard_reports import Fault
from converter.upkeep.verification import (
    Check,
    collect_faults,
    run_check,
    verify_dataset,
)
from pipelines.jobs.bars import follow
from pipelines.jobs.outputs import check_folders
from pipelines.jobs.preview import propose
from pipelines.jobs.request import RunSettings, make_settings


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Repair:
    """The outcome of a repair.

    Attributes:
        repaired: names of the rebuilt files.
        unknown: names of damaged shards whose originals could not be determined.
        left: the faults that remain.
    """

    repaired: tuple[str, ...]
    unknown: tuple[str, ...]
    left: tuple[Fault, ...]


def verify(
    out: AnyPath,
    *,
    quick: bool = False,
    decode: bool = True,
    sources: Images | None = None,
    beam_args: Sequence[str] | None = None,
    **settings: Any,
) -> list[Fault]:
    """Checks every byte, count, name and image of a data set against its manifest.

    Args:
        out: the data set's folder; of an unfinished conversion, the finished shards are checked.
        quick: look only at names and sizes.
        decode: decode whole images, not only their headers.
        sources: the converted images, to compare every record with its original.
        beam_args: run as a Beam job with these options; None for threads of this process. Workers
            on other machines must see `out`, and the folder it lies in, under the same path.
        **settings: `workers` and `progress` of `RunSettings`.

    Returns:
        The faults; an empty list means the data set is whole.

    Raises:
        UsageError: an option is unknown to Beam.
        DatasetError: the manifest itself is missing, damaged or of a newer format.
        ShardmillError: the Beam job failed.
    """
    run = make_settings(("workers", "progress"), beam_args or (), **settings)
    job = None if beam_args is None else run
    return run_verification(out, sources, job, quick=quick, decode=decode, shown=run.progress)[1]


def run_verification(
    out: AnyPath,
    sources: Images | None,
    job: RunSettings | None,
    *,
    quick: bool,
    decode: bool,
    shown: bool,
) -> tuple[Manifest | None, list[Fault]]:
    """Does what `verify` does, with a bar if `shown`; also returns the manifest, or None."""
    folder = locate(out)
    for images in () if sources is None else locate_images(sources):
        if not (images.exists() or is_pattern(images)):
            raise UsageError(f"{images} does not exist: give the images that were converted")
    if read_manifest_version(folder) is None:
        return None, verify_dataset(folder, quick=quick, decode=decode)

    def find_faults(manifest: Manifest) -> list[Fault]:
        originals = None
        if sources is not None:
            options = ConvertOptions.from_json(manifest.options)
            originals = Originals.locate(locate_originals(sources, options), options)
        check = Check(
            folder=folder, manifest=manifest, quick=quick, decode=decode, originals=originals
        )
        if job is None:
            return run_check(check, _count_records(manifest, progress.read_counts))
        return _run_as_job(check, job)

    with follow(shown=shown):
        return _check_current(folder, find_faults)


def _run_as_job(check: Check, run: RunSettings) -> list[Fault]:
    from pipelines.beam import clusters, runners  # noqa: PLC0415
    from pipelines.beam.remaining import choose_counter  # noqa: PLC0415
    from pipelines.beam.report_watch import ReportWatch  # noqa: PLC0415
    from pipelines.beam.transforms import VerifyShards  # noqa: PLC0415

    options = runners.parse_options(run.beam_args)
    originals = check.originals and check.originals.root
    clusters.check_paths(options.pipeline, check.folder, originals)
    with (
        _open_reports(check.folder, local=options.local) as reports,
        runners.start_workers(options, run.workers, check.folder) as pool,
    ):
        on_shard = _count_records(check.manifest, choose_counter(options, pool))
        watch = ReportWatch(check.manifest, reports, on_shard)
        transform = VerifyShards(check.manifest.shards, check, reports)
        job = f"shardmill-verify-{check.manifest.plan[:20]}"
        runners.run_pipeline(transform, options, pool, job=job, on_poll=watch.poll)
        return collect_faults(check, watch.finish())


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


def repair(out: AnyPath, images: Images, beam_args: Sequence[str] = (), **settings: Any) -> Repair:
    """Checks a data set, and rebuilds damaged or missing files byte for byte.

    A rebuilt file is used only if it has the SHA-256 that the manifest states. So the originals
    must not have changed, nor the versions of shardmill and Pillow.

    Args:
        out: the data set's folder, on a disk or in an object store.
        images: what was converted, on a disk or in an object store.
        beam_args: Beam's own options.
        **settings: `workers`, `progress` and `break_lock` of `RunSettings`.

    Raises:
        UsageError: an argument makes no sense.
        LockedError: someone else is writing to `out`.
        DatasetError: the manifest itself is missing, damaged or of a newer format.
        ShardmillError: the pipeline failed, or a file cannot be written.
    """
    from pipelines.beam import clusters, runners  # noqa: PLC0415
    from pipelines.beam.remaining import write_remaining  # noqa: PLC0415

    run = make_settings(("workers", "progress", "break_lock"), beam_args, **settings)
    folder = locate_output(out)

    def find_faults(manifest: Manifest) -> list[Fault]:
        on_shard = _count_records(manifest, progress.read_counts)
        return run_check(Check(folder=folder, manifest=manifest), on_shard)

    restore_folder(folder, break_lock=run.break_lock)
    beam, manifest = runners.parse_options(beam_args), None
    # Without options for Beam, workers run here and see all folders. Then the manifest, which takes
    # seconds to read for 100,000 shards, is only read under the lock.
    if beam_args or read_manifest_version(folder) is None:
        with _explain_manifest_errors():
            manifest = find_manifest(folder) or read_manifest(folder)
    for place in locate_images(images):
        check_folders(place, folder)
    if manifest is not None:
        options = ConvertOptions.from_json(manifest.options)
        root = locate_root(locate_originals(images, options), options)
        clusters.check_paths(beam.pipeline, root, locate_masks(root, options), folder)
    with follow(shown=run.progress), folder.lock(break_lock=run.break_lock):
        with _explain_manifest_errors():
            settle_folder(folder)
            manifest, faults = _check_current(folder, find_faults)
        options = ConvertOptions.from_json(manifest.options)
        originals = locate_originals(images, options)
        root = locate_root(originals, options)
        job = RepairJob(folder=folder, manifest=manifest, images=root)
        damaged = {fault.file for fault in faults if not fault.original}

        def convert(plan: Plan) -> None:
            with runners.start_workers(beam, run.workers, originals, folder) as pool:
                write_remaining([plan], beam, pool)

        repaired, unknown = _rebuild(job, originals, damaged, convert)
        left = [fault for fault in faults if fault.file not in repaired]
        if repaired and MANIFEST in {fault.file for fault in left}:
            left = find_faults(manifest)  # the counts were those of damaged shards
    return Repair(repaired=repaired, unknown=unknown, left=tuple(left))


def _check_current(
    folder: Location, find_faults: Callable[[Manifest], list[Fault]]
) -> tuple[Manifest, list[Fault]]:
    """Checks a data set, again if it is replaced meanwhile; returns its manifest and the faults."""
    # Files of the old one vanish under a reader, which would look like damage.
    while True:
        version = read_manifest_version(folder)
        manifest = read_manifest(folder)
        faults = find_faults(manifest)
        if not faults or read_manifest_version(folder) in (version, None):
            return manifest, faults


def _count_records(manifest: Manifest, count: Callable[[], Counts] | None) -> OnShard:
    """Begins the phase `verify`; gives the function to call with each shard that is checked."""
    phase = progress.begin("verify", manifest.totals.written, "records")
    read = count or Counts
    start, records, size = read(), 0, 0

    def look() -> None:
        live = read().minus(start)
        done = min(live.images, manifest.totals.written)  # a damaged one may have more
        phase.done, phase.bytes = max(records, done), max(size, live.bytes)

    def count_shard(shard: ShardInfo) -> None:
        nonlocal records, size
        records, size = records + shard.records, size + shard.bytes
        look()

    phase.poll = look
    return count_shard


@contextlib.contextmanager
def _explain_manifest_errors() -> Iterator[None]:
    try:
        yield
    except DatasetError as error:
        if str(error).endswith("--overwrite"):
            raise  # it says what to do
        raise DatasetError(
            f"{error}; without it nothing says what has to be in the data set: convert it again, "
            "with --overwrite if it lies in the way"
        ) from error


def _rebuild(
    job: RepairJob, originals: Location, damaged: Collection[str], convert: Callable[[Plan], object]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Rebuilds files; returns their names, and those of shards with unknown originals."""
    shards = [shard for shard in job.manifest.shards if shard.name in damaged]
    repaired = [
        index
        for shard in job.manifest.shards
        if (index := name_index(shard.name)) in damaged and job.rebuild_index(shard)
    ]
    # Of all originals, which an index or a list of classes does without.
    scan = functools.cache(functools.partial(scan_images, originals, job.options))
    again = shards or {REJECTS, NOTES} & {*damaged}
    draft = _plan_again(job, originals, scan) if again else None
    members, likely = _find_members(job, shards, draft, scan)
    if members:
        Layout(job.folder).repair.remove_folder()  # of a repair that was killed
        convert(job.write_plan(members))
        for shard in shards:
            if shard.name in members:
                repaired += job.take_shard(shard, damaged)
        Layout(job.folder).repair.remove_folder()
    for name in job.manifest.files:
        if name in damaged and job.rebuild_file(name, draft):
            repaired.append(name)
    known = {*repaired, *members.keys() - likely}
    unknown = (shard.name for shard in shards if shard.name not in known)
    return tuple(dict.fromkeys(repaired)), tuple(unknown)


def _plan_again(job: RepairJob, originals: Location, scan: Callable[[], Inventory]) -> Draft | None:
    """The plan of the conversion, if planning it again gives the same."""
    if job.manifest.updated:  # its shards are not those of a first conversion
        return None
    try:
        found = propose(originals, job.options, always_sample=False, inventory=scan())
    except UsageError:  # the remaining images would not make this data set
        return None
    return found.draft if digest_plan(found.draft, job.options) == job.manifest.plan else None


def _find_members(
    job: RepairJob, shards: Sequence[ShardInfo], draft: Draft | None, scan: Callable[[], Inventory]
) -> tuple[dict[str, list[Entry]], frozenset[str]]:
    """The known originals of each shard, and the names of the shards where they are a guess."""
    if draft is not None:
        planned = job.list_members(draft)
        return {shard.name: planned[shard.name] for shard in shards}, frozenset()
    recalled = {shard.name: job.recall_members(shard) for shard in shards}
    found = {name: entries for name, entries in recalled.items() if entries is not None}
    likely: dict[str, list[Entry]] = {}
    if lost := [shard for shard in shards if shard.name not in found]:
        inventory = keep_labels(scan(), job.manifest.classes)
        with contextlib.suppress(DatasetError):
            likely = job.deduce_members(lost, inventory)
    return found | likely, frozenset(likely)
