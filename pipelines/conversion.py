"""From a folder of images to a finished data set: the whole conversion as one function."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from converter.commits.commit import commit, read_notes
from converter.commits.replacements import (
    discard_dataset,
    is_staged,
    replace_dataset,
    settle_folder,
)
from converter.costs import Cost
from converter.entries import Scan
from converter.errors import DatasetError, UsageError
from converter.format.manifest import Manifest, read_manifest
from converter.options import ConvertOptions
from converter.planning.plan import Draft, Plan, digest_plan, read_plan, write_plan
from converter.planning.strictness import check_scan
from converter.sources.scan import scan_images
from converter.sources.streams import is_compressed
from converter.storage.files import list_sizes
from converter.storage.layout import SHARD_SUFFIX, AnyPath, Layout, Location, locate, locate_output
from converter.storage.locks import lock_folder, lock_stage
from converter.upkeep.updates import carry_shards, check_kind, plan_update
from pipelines import runners
from pipelines.milling import follow_shards, mill_plan
from pipelines.preflight import check_import_names, check_room, find_room
from pipelines.proposals import propose
from pipelines.requests import Conversion, Request, confirm, is_at_rest, prepare
from pipelines.workers import LocalWorkers


def convert(
    images: AnyPath,
    out: AnyPath,
    options: ConvertOptions | None = None,
    beam_args: Sequence[str] = (),
    *,
    workers: int = 0,
    progress: bool = False,
    overwrite: bool = False,
    update: bool = False,
    break_lock: bool = False,
) -> Manifest:
    """Converts a folder of images into a data set.

    The same call again goes on where an interrupted one ended, and does nothing where the data set
    is finished.

    Args:
        images: folder with a folder of images for each class, or with folders of splits, here or
            in an object store; or a table of images.
        out: folder for the data set: new, empty, or with a conversion of the same; here or in an
            object store.
        options: size, encoding, shards and splits. An update takes those of the data set, and no
            other ones.
        beam_args: Beam's own options, as on a command line, such as `["--direct_num_workers=4"]`.
        workers: processes of a local run; 0 for one a core. Each takes about 150 MB and the
            pixels of one image.
        progress: draw a bar on standard error.
        overwrite: replace the data set that lies there, once the new one is complete; give up an
            unfinished conversion of something else.
        update: take into the data set that lies there what was added, changed or removed, and
            leave shards alone in which nothing is different.
        break_lock: take the lock of a process on another machine for stale.

    Returns:
        the manifest of the finished data set.

    Raises:
        UsageError: an argument makes no sense; no data was written.
        LockedError: somebody else is writing to `out`; no data was written.
        WorkerError: a local worker process died; finished shards are kept.
        ShardmillError: the pipeline failed, the output cannot be written, or not one image could
            be converted; finished shards are kept.
    """
    conversion = run_conversion(
        images,
        out,
        options,
        beam_args,
        workers=workers,
        progress=progress,
        overwrite=overwrite,
        update=update,
        break_lock=break_lock,
    )
    return conversion.manifest


def run_conversion(
    images: AnyPath,
    out: AnyPath,
    options: ConvertOptions | None = None,
    beam_args: Sequence[str] = (),
    *,
    workers: int = 0,
    progress: bool = False,
    overwrite: bool = False,
    update: bool = False,
    break_lock: bool = False,
) -> Conversion:
    """Does what `convert` does, and tells more about it."""
    check_import_names()
    request = prepare(
        locate(images),
        locate_output(out),
        options,
        runners.parse_options(beam_args),
        workers=workers,
        progress=progress,
        overwrite=overwrite,
        update=update,
        break_lock=break_lock,
    )
    if is_at_rest(request.out) and not (overwrite or update):
        return confirm(request)
    with lock_folder(request.out, break_lock=break_lock):
        ended = settle_folder(request.out)
        if update:
            scan = scan_images(request.images, request.options)
            check_update(request, scan)
            return run_update(request, scan)
        if not Layout(request.out).manifest.is_file():
            return _build(request, discard=overwrite)
        if overwrite and ended:
            # What was killed after the replacement need not be done once more.
            with contextlib.suppress(UsageError):
                return confirm(request)
        return _overwrite(request) if overwrite else confirm(request)


def _overwrite(request: Request) -> Conversion:
    stage = Layout(request.out).stage
    with lock_stage(request.out):
        conversion = _build(dataclasses.replace(request, out=stage), discard=True, staged=True)
        replace_dataset(request.out)
    return conversion


def check_update(request: Request, scan: Scan) -> None:
    """Refuses images that cannot be taken into the finished data set.

    Raises:
        UsageError: says why not.
    """
    check_scan(scan, request.options)
    check_kind(read_manifest(request.out), scan)
    _refuse_replacement(request.out)


def _refuse_replacement(out: Location) -> None:
    stage = Layout(out).stage
    if not is_staged(stage):
        return
    with contextlib.suppress(DatasetError):  # of what is damaged, nothing is lost
        if read_plan(stage).base is None:
            raise UsageError(
                f"{out} is about to be replaced: go on with --overwrite and the options of that, "
                "or give it up with shardmill clean --unfinished, and then update"
            )


def run_update(request: Request, scan: Scan) -> Conversion:
    """Takes what is new, changed or gone into a finished data set; its lock is held.

    Args:
        request: what is asked for.
        scan: what lies in the folder of images now.
    """
    out = request.out
    old = read_manifest(out)
    stage = Layout(out).stage
    with request.start_workers() as pool:
        with follow_shards(len(old.shards), "comparing", shown=request.progress) as count:
            update = plan_update(
                out,
                old,
                request.root,
                scan,
                on_shard=count,
            )
        if not update.needed:
            return Conversion(
                manifest=old, milled=0, kept=len(old.shards), unchanged=True, update=update
            )
        check_room(out, update.records * old.total_bytes / old.totals.written)
        with lock_stage(out):
            discard_other(stage, update.draft, request.options)
            plan = write_plan(update.draft, request.options, images=request.root, out=stage)
            plan = carry_shards(update, out, plan)
            conversion = _finish(plan, request, pool, staged=True)
            replace_dataset(out)
    return dataclasses.replace(conversion, update=update)


def _build(request: Request, *, discard: bool, staged: bool = False) -> Conversion:
    """Converts into a folder without a finished data set, or goes on with it.

    Args:
        request: what is asked for.
        discard: remove what another plan left there.
        staged: the folder is to replace another, and its plan says so as long as it lies there.
    """
    with request.start_workers() as pool:
        plan = _write_plan(request, discard=discard)
        return _finish(plan, request, pool, staged=staged)


def _write_plan(request: Request, *, discard: bool) -> Plan:
    """Scans and plans; the list of all images, which takes memory, ends with this function."""
    # Records of an archive that is compressed as a whole wait until all of it is read.
    copies = 2 if is_compressed(request.root) else 1
    room = find_room(request.out) / copies
    proposal = propose(request.images, request.options, always_sample=False, room=room)
    draft = proposal.draft
    if discard:
        discard_other(request.out, draft, request.options)
    check_room(request.out, copies * (proposal.bytes - measure_shards(request.out)))
    return write_plan(draft, request.options, images=request.root, out=request.out)


def _finish(plan: Plan, request: Request, pool: LocalWorkers | None, *, staged: bool) -> Conversion:
    """Mills what is not milled yet, and commits what is not committed."""
    kept, cost = mill_plan(plan, request.beam, pool, progress=request.progress)
    return complete(plan, kept=kept, cost=cost, staged=staged)


def complete(plan: Plan, *, kept: int, cost: Cost, staged: bool) -> Conversion:
    """Commits what is milled, if it is not committed; see `_build`.

    Args:
        plan: whose shards are all there.
        kept: how many of them were found finished.
        cost: of those that were milled.
        staged: as in `_build`.
    """
    if Layout(plan.out).manifest.is_file():
        manifest = read_manifest(plan.out)
    else:
        manifest = commit(plan, keep_work=staged)
    return Conversion(
        manifest=manifest,
        milled=len(plan.shards) - kept,
        kept=kept,
        notes=read_notes(plan.out),
        cost=cost,
    )


def discard_other(out: Location, draft: Draft, options: ConvertOptions) -> None:
    """Gives up an unfinished conversion that follows another plan."""
    if Layout(out).plan.is_file() and not has_plan(out, draft, options):
        discard_dataset(out)


def has_plan(out: Location, draft: Draft, options: ConvertOptions) -> bool:
    """Whether the plan of a draft lies in an output."""
    try:
        return Layout(out).plan.is_file() and read_plan(out).digest == digest_plan(draft, options)
    except DatasetError:
        return False


def measure_shards(out: Location) -> int:
    """How many bytes the shards take that are there."""
    return sum(size for name, size in list_sizes(out).items() if name.endswith(SHARD_SUFFIX))
