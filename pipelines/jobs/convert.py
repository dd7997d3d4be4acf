"""From images to finished data sets: the whole conversion as one function.

One size is the usual case of several: their images are read and decoded once for all of them.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from converter import progress
from converter.commits.commit import commit, read_notes
from converter.commits.replacements import (
    discard_dataset,
    lock_stage,
    replace_dataset,
    restore_folder,
    settle_folder,
)
from converter.costs import Cost
from converter.format.manifest import Manifest, read_manifest
from converter.inventory import Inventory, Note
from converter.options import ConvertOptions
from converter.planning.plan import Draft, Plan, write_plan
from converter.planning.planning_job import clear
from converter.sources.joined import Images
from converter.sources.scan import scan_images
from converter.storage.files import Layout
from converter.storage.locate import locate_output
from converter.storage.location import AnyPath, Location
from converter.upkeep.comparisons import ClassChanges
from converter.upkeep.updates import Update, carry_shards
from pipelines.beam import clusters, runners
from pipelines.beam.remaining import write_remaining
from pipelines.jobs.bars import Progress, follow
from pipelines.jobs.outputs import locate_sizes
from pipelines.jobs.planners import choose_planner
from pipelines.jobs.preview import Planner, compare, compare_update
from pipelines.jobs.reporting import write_report
from pipelines.jobs.request import SETTINGS, ReportWarning, Request, make_requests, make_settings
from pipelines.jobs.run_records import Work, make_works, note_run


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """The outcome of a conversion."""

    manifest: Manifest  # of the data set as it is now
    written: int = 0  # shards
    kept: int  # shards that an earlier run finished, or an update left alone
    unchanged: bool = False  # it was already finished as requested
    update: Update | None = None  # the difference, if an update was requested
    classes: ClassChanges = dataclasses.field(default_factory=ClassChanges)  # by the update
    notes: tuple[Note, ...] = ()  # what is odd about images that were converted
    cost: Cost = dataclasses.field(default_factory=Cost)  # of the shards written
    report_error: str = ""  # why there is no report, if there is none


def convert(
    images: Images,
    out: AnyPath,
    options: ConvertOptions | None = None,
    beam_args: Sequence[str] = (),
    **settings: Any,
) -> Manifest:
    """Converts a folder of images into a data set.

    The same call again resumes an interrupted conversion, and does nothing if the data set is
    finished.

    Args:
        images: folder with a folder of images for each class, or with folders of splits; an
            archive of such folders; a table; or another source of images (docs/sources.md). Here
            or in an object store. A list of them becomes one data set.
        out: folder for the data set: new, empty, or with a conversion of the same images. Here or
            in an object store.
        options: size, encoding, shards and splits. An update takes those of the data set, and no
            others.
        beam_args: Beam's own options, as on a command line, such as `["--direct_num_workers=4"]`.
        **settings: the other fields of `RunSettings`: `workers`, `progress`, `mode`, `break_lock`,
            `plan_on`.

    Returns:
        The manifest of the finished data set.

    Raises:
        UsageError: an argument makes no sense; no data was written.
        LockedError: someone else is writing to `out`; no data was written.
        WorkerError: a local worker process died; finished shards are kept.
        ShardmillError: the pipeline failed, the output cannot be written, or no image could be
            converted; finished shards are kept.
    """
    place = locate_output(out)
    return run_conversions(images, {place: options}, beam_args, **settings)[place].manifest


def convert_sizes(
    images: Images,
    out: AnyPath,
    sizes: Sequence[ConvertOptions],
    beam_args: Sequence[str] = (),
    **settings: Any,
) -> dict[str, Manifest]:
    """Converts a folder of images to several sizes, reading and decoding each image once.

    Nothing is written before all sizes are known to be possible. An update takes one size after the
    other, each with the few shards of its own that change.

    Args:
        images: as in `convert`.
        out: folder for the data sets, each in a folder named after its size, such as `224x320`.
            Each is, byte for byte, what a conversion to that size alone writes.
        sizes: options that differ only in `image_size`.
        beam_args: as in `convert`.
        **settings: as in `convert`.

    Returns:
        The manifest of each data set, by the name of its folder.

    Raises:
        UsageError: the sizes make no sense together; no data was written.
        ShardmillError: as in `convert`.
    """
    outs = locate_sizes(locate_output(out), sizes)
    done = run_conversions(images, outs, beam_args, **settings)
    return {place.name: conversion.manifest for place, conversion in done.items()}


def run_conversions(
    images: Images,
    outs: Mapping[Location, ConvertOptions | None],
    beam_args: Sequence[str] = (),
    **settings: Any,
) -> dict[Location, Conversion]:
    """Does what `convert` and `convert_sizes` do, and returns the whole outcome by output."""
    run = make_settings(SETTINGS, beam_args, **settings)
    beam = runners.parse_options(run.beam_args)
    requests = make_requests(images, outs, run)
    for request in requests:
        clusters.check_paths(beam.pipeline, *request.places)
    # Only now, so that a refusal touches nothing.
    for out in outs:
        restore_folder(out, break_lock=run.break_lock)
    # Before the scan, so that no other run writes what this one has compared.
    with follow(shown=run.progress) as followed, contextlib.ExitStack() as locks:
        ended = False
        for request in requests:
            if request.needs_lock:
                locks.enter_context(request.out.lock(break_lock=run.break_lock))
                ended |= settle_folder(request.out)
        if run.mode == "update":
            return _update(requests, beam, followed)
        return _convert(requests, beam, locks, followed, ended=ended)


def _convert(
    requests: Sequence[Request],
    beam: runners.RunnerOptions,
    locks: contextlib.ExitStack,
    followed: Progress,
    *,
    ended: bool,
) -> dict[Location, Conversion]:
    run = requests[0].run
    # Nothing to start if all that is left is to find out that nothing has changed.
    needed = run.mode == "overwrite" or not all(request.is_finished for request in requests)
    planner = choose_planner(requests, beam)
    if planner is not None:  # its workers end before those that convert start
        done, plans = _plan(requests, locks, ended=ended, planner=planner)
    # Processes start here and import Beam (1.1 s) while this one scans and plans.
    workers = runners.start_workers(beam, run.workers, *requests[0].places)
    with workers if needed else contextlib.nullcontext() as pool:
        if planner is None:
            done, plans = _plan(requests, locks, ended=ended)
        written = write_remaining([*plans.values()], beam, pool)
    asked = {request.out: request for request in requests}
    works = make_works([*plans.values()], written)
    for (out, plan), work in zip(plans.items(), works, strict=True):
        done[out] = _complete(plan, asked[out], work, followed, {})
    for out, plan in plans.items():
        if plan.out != out:  # only now, when all of them are complete
            replace_dataset(out)
        done[out] = _report(done[out], asked[out])
    return {request.out: done[request.out] for request in requests}


def _plan(
    requests: Sequence[Request],
    locks: contextlib.ExitStack,
    *,
    ended: bool,
    planner: Planner | None = None,
) -> tuple[dict[Location, Conversion], dict[Location, Plan]]:
    """Finds out what is finished, and writes the plans of the others."""
    # The entries of a million images end with this function, before any image is converted.
    finished, proposals = compare(requests, ended=ended, planner=planner)
    left = [request for request in requests if request.out in proposals]
    for request in left:
        if request.target != request.out:
            locks.enter_context(lock_stage(request.out))
        if request.run.mode == "overwrite":
            _discard_other(request, proposals[request.out].draft)
    plans = {
        request.out: write_plan(
            proposals[request.out].draft, request.options, images=request.root, out=request.target
        )
        for request in left
    }
    if planner is not None:
        clear(Layout(requests[0].out).planning)
    done = {
        out: Conversion(manifest=manifest, kept=len(manifest.shards), unchanged=True)
        for out, manifest in finished.items()
    }
    return done, plans


def _update(
    requests: Sequence[Request], beam: runners.RunnerOptions, followed: Progress
) -> dict[Location, Conversion]:
    inventory = scan_images(requests[0].images, requests[0].options)
    # All of them before any is written.
    for request in requests:
        request.check_update(inventory)
    return {request.out: _update_one(request, inventory, beam, followed) for request in requests}


def _update_one(
    request: Request, inventory: Inventory, beam: runners.RunnerOptions, followed: Progress
) -> Conversion:
    out, run, stage = request.out, request.run, Layout(request.out).stage
    earlier = {**followed.seconds, "scan": 0.0}  # of other sizes, which share the scan
    old = read_manifest(request.current)
    total = len(old.shards)
    # As above, the processes start while this one compares.
    with runners.start_workers(beam, run.workers, *request.places) as pool:
        progress.begin("compare", total, "shards")
        update, classes = compare_update(request, old, inventory, lambda _: progress.advance())
        if not update.needed:
            notes = update.draft.inventory.notes
            return Conversion(manifest=old, kept=total, unchanged=True, update=update, notes=notes)
        with lock_stage(out):
            _discard_other(request, update.draft)
            plan = write_plan(update.draft, request.options, images=request.root, out=stage)
            plan = carry_shards(update, out, plan)
            (work,) = make_works([plan], write_remaining([plan], beam, pool))
            conversion = _complete(plan, request, work, followed, earlier)
            replace_dataset(out)
            conversion = _report(conversion, request)  # the lock ends with this block
    return dataclasses.replace(conversion, update=update, classes=classes)


def _complete(
    plan: Plan, request: Request, work: Work, followed: Progress, earlier: Mapping[str, float]
) -> Conversion:
    """Commits a plan whose shards are all written, unless it is committed already."""
    if Layout(plan.out).manifest.is_file():
        manifest = read_manifest(plan.out)
    else:
        # The plan marks a staged folder as one that is to replace another.
        manifest = commit(plan, keep_work=plan.out != request.out)
    note_run(request, manifest, work, followed, earlier, folder=plan.out)
    return Conversion(
        manifest=manifest,
        written=work.written,
        kept=work.kept,
        notes=read_notes(plan.out),
        cost=work.cost,
    )


def _report(conversion: Conversion, request: Request) -> Conversion:
    """Writes the report; the data set is whole without it."""
    if error := write_report(request.out, request.images):
        warnings.warn(error, ReportWarning, stacklevel=2)
    return dataclasses.replace(conversion, report_error=error)


def _discard_other(request: Request, draft: Draft) -> None:
    """Gives up an unfinished conversion that follows another plan."""
    if Layout(request.target).plan.is_file() and not request.has_plan(draft):
        discard_dataset(request.target, keep=(Layout(request.target).planning.name,))
