"""From images to finished data sets: the whole conversion as one function.

One size is the usual case of several: their images are read and decoded once for all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

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
from converter.inventory import Inventory
from converter.options import ConvertOptions
from converter.planning.plan import Draft, Plan, write_plan
from converter.sources.scan import scan_images
from converter.storage.layout import Layout
from converter.storage.locate import locate, locate_output
from converter.storage.location import AnyPath, Location
from converter.upkeep.updates import carry_shards
from pipelines.beam import runners
from pipelines.beam.run_shards import follow_shards, write_remaining
from pipelines.beam.workers import LocalWorkers
from pipelines.jobs.preflight import check_import_names, locate_sizes
from pipelines.jobs.preview import compare, compare_update, has_plan
from pipelines.jobs.request import Conversion, Request, RunSettings, check_update, prepare


def convert(
    images: AnyPath,
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
            archive of such folders; or a table of images. Here or in an object store.
        out: folder for the data set: new, empty, or with a conversion of the same images. Here or
            in an object store.
        options: size, encoding, shards and splits. An update takes those of the data set, and no
            others.
        beam_args: Beam's own options, as on a command line, such as `["--direct_num_workers=4"]`.
        **settings: the other fields of `RunSettings`: `workers`, `progress`, `mode`, `break_lock`.

    Returns:
        The manifest of the finished data set.

    Raises:
        UsageError: an argument makes no sense; no data was written.
        LockedError: somebody else is writing to `out`; no data was written.
        WorkerError: a local worker process died; finished shards are kept.
        ShardmillError: the pipeline failed, the output cannot be written, or no image could be
            converted; finished shards are kept.
    """
    return run_conversion(images, out, options, beam_args, **settings).manifest


def convert_sizes(
    images: AnyPath,
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
        **settings: as in `convert`, for each data set.

    Returns:
        The manifest of each data set, by the name of its folder.

    Raises:
        UsageError: the sizes make no sense together, or as in `convert`; no data was written.
        ShardmillError: as in `convert`; finished shards are kept.
    """
    conversions = run_sizes(images, out, sizes, beam_args, **settings)
    return {name: conversion.manifest for name, conversion in conversions.items()}


def run_conversion(
    images: AnyPath,
    out: AnyPath,
    options: ConvertOptions | None = None,
    beam_args: Sequence[str] = (),
    **settings: Any,
) -> Conversion:
    """Does what `convert` does, and returns all there is to say about it."""
    run = RunSettings(beam_args=tuple(beam_args), **settings)
    return _run(locate(images), [locate_output(out)], [options], run)[0]


def run_sizes(
    images: AnyPath,
    out: AnyPath,
    sizes: Sequence[ConvertOptions],
    beam_args: Sequence[str] = (),
    **settings: Any,
) -> dict[str, Conversion]:
    """Does what `convert_sizes` does, and returns all there is to say about it."""
    run = RunSettings(beam_args=tuple(beam_args), **settings)
    outs = locate_sizes(locate_output(out), sizes)
    return dict(zip(outs, _run(locate(images), [*outs.values()], sizes, run), strict=True))


def _run(
    images: Location,
    outs: Sequence[Location],
    options: Sequence[ConvertOptions | None],
    run: RunSettings,
) -> list[Conversion]:
    check_import_names()
    beam = runners.parse_options(run.beam_args)
    for out in outs:
        restore_folder(out, break_lock=run.break_lock)
    requests = [prepare(images, out, asked, run) for out, asked in zip(outs, options, strict=True)]
    for request in requests:
        runners.check_paths(beam, *request.places)
    with contextlib.ExitStack() as locks:
        ended = False
        for request in requests:
            if run.mode != "new" or not request.is_at_rest:
                locks.enter_context(request.out.lock(break_lock=run.break_lock))
                ended |= settle_folder(request.out)
        if run.mode == "update":
            return _update(requests, beam)
        return _convert(requests, beam, locks, ended=ended)


def _convert(
    requests: Sequence[Request],
    beam: runners.RunnerOptions,
    locks: contextlib.ExitStack,
    *,
    ended: bool,
) -> list[Conversion]:
    run = requests[0].run
    with contextlib.ExitStack() as workers:
        pool = None
        if run.mode == "overwrite" or not all(request.is_finished for request in requests):
            pool = workers.enter_context(_start_workers(requests[0], beam))
        done, plans = _plan(requests, locks, ended=ended)
        written = write_remaining([*plans.values()], beam, pool, progress=run.progress)
    staged = [out for out, plan in plans.items() if plan.out != out]
    for (out, plan), (kept, cost) in zip(plans.items(), written, strict=True):
        done[out] = _complete(plan, kept=kept, cost=cost, staged=out in staged)
    for out in staged:  # only now, when all of them are complete
        replace_dataset(out)
    return [done[request.out] for request in requests]


def _start_workers(
    request: Request, beam: runners.RunnerOptions
) -> contextlib.AbstractContextManager[LocalWorkers | None]:
    return runners.start_workers(beam, request.run.workers, *request.places)


def _plan(
    requests: Sequence[Request], locks: contextlib.ExitStack, *, ended: bool
) -> tuple[dict[Location, Conversion], dict[Location, Plan]]:
    """Compares requests with outputs and writes the plans of those that are not finished.

    The list of all images ends with this function, before any of them is converted.
    """
    done, proposals = compare(requests, ended=ended)
    left = [request for request in requests if request.out in proposals]
    drafts = {out: proposal.draft for out, proposal in proposals.items()}
    for request in left:
        if request.target != request.out:
            locks.enter_context(lock_stage(request.out))
        if request.run.mode == "overwrite":
            _discard_other(request.target, drafts[request.out], request.options)
    return done, {
        request.out: write_plan(
            drafts[request.out], request.options, images=request.root, out=request.target
        )
        for request in left
    }


def _update(requests: Sequence[Request], beam: runners.RunnerOptions) -> list[Conversion]:
    inventory = scan_images(requests[0].images, requests[0].options)
    for request in requests:
        check_update(request, inventory)
    return [_update_one(request, inventory, beam) for request in requests]


def _update_one(request: Request, inventory: Inventory, beam: runners.RunnerOptions) -> Conversion:
    out, progress = request.out, request.run.progress
    stage, total = Layout(out).stage, len(read_manifest(out).shards)
    with _start_workers(request, beam) as pool:
        with follow_shards(total, "comparing", shown=progress) as count:
            old, update, classes = compare_update(request, inventory, count)
        if not update.needed:
            return Conversion(
                manifest=old, written=0, kept=total, unchanged=True, update=update,
                notes=update.draft.inventory.notes,
            )  # fmt: skip
        with lock_stage(out):
            _discard_other(stage, update.draft, request.options)
            plan = write_plan(update.draft, request.options, images=request.root, out=stage)
            plan = carry_shards(update, out, plan)
            ((kept, cost),) = write_remaining([plan], beam, pool, progress=progress)
            conversion = _complete(plan, kept=kept, cost=cost, staged=True)
            replace_dataset(out)
    return dataclasses.replace(conversion, update=update, classes=classes)


def _complete(plan: Plan, *, kept: int, cost: Cost, staged: bool) -> Conversion:
    """Commits a plan whose shards are all written, unless it is committed already."""
    if Layout(plan.out).manifest.is_file():
        manifest = read_manifest(plan.out)
    else:
        # The plan marks a staged folder as one that is to replace another.
        manifest = commit(plan, keep_work=staged)
    return Conversion(
        manifest=manifest,
        written=len(plan.shards) - kept,
        kept=kept,
        notes=read_notes(plan.out),
        cost=cost,
    )


def _discard_other(out: Location, draft: Draft, options: ConvertOptions) -> None:
    """Gives up an unfinished conversion that follows another plan."""
    if Layout(out).plan.is_file() and not has_plan(out, draft, options):
        discard_dataset(out)
