"""Converts images to several sizes in one pass: a data set of each, as if it had been alone."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from converter.commits.replacements import replace_dataset, settle_folder
from converter.costs import Cost, read_costs
from converter.errors import UsageError
from converter.format.manifest import Manifest
from converter.milling.resolutions import choose_leader, plan_work
from converter.options import ConvertOptions
from converter.planning.plan import Draft, Plan, digest_plan, refuse_other_plan, write_plan
from converter.sources.scan import scan_images
from converter.sources.streams import is_compressed
from converter.storage.layout import AnyPath, Layout, Location, locate, locate_output, name_size
from converter.storage.locks import lock_folder, lock_stage
from pipelines import runners
from pipelines.conversion import (
    check_update,
    complete,
    discard_other,
    has_plan,
    measure_shards,
    run_update,
)
from pipelines.milling import list_remaining, mill_plan, run_milling
from pipelines.preflight import check_import_names, check_room, check_sizes, find_room
from pipelines.proposals import propose
from pipelines.requests import Conversion, Request, confirm, is_at_rest, prepare
from pipelines.transforms import MillSizes
from pipelines.workers import LocalWorkers


def convert_sizes(
    images: AnyPath,
    out: AnyPath,
    sizes: Sequence[ConvertOptions],
    beam_args: Sequence[str] = (),
    *,
    workers: int = 0,
    progress: bool = False,
    overwrite: bool = False,
    update: bool = False,
    break_lock: bool = False,
) -> dict[str, Manifest]:
    """Converts a folder of images to several sizes, reading and decoding each image once.

    Nothing is written before all sizes are known to be possible. An update takes one size after the
    other, each with the few shards of its own that change.

    Args:
        images: as in `convert`.
        out: folder for the data sets, each in a folder of its own that is called by its size, such
            as `224x320`. Each is, byte for byte, what a conversion to that size alone writes.
        sizes: options that differ in nothing but `image_size`.
        beam_args: as in `convert`.
        workers: as in `convert`.
        progress: as in `convert`.
        overwrite: as in `convert`, of each data set.
        update: as in `convert`, of each data set.
        break_lock: as in `convert`.

    Returns:
        the manifest of each data set, by the name of its folder.

    Raises:
        UsageError: the sizes make no sense together, or as in `convert`; no data was written.
        ShardmillError: as in `convert`; finished shards are kept.
    """
    conversions = run_sizes(
        images,
        out,
        sizes,
        beam_args,
        workers=workers,
        progress=progress,
        overwrite=overwrite,
        update=update,
        break_lock=break_lock,
    )
    return {name: conversion.manifest for name, conversion in conversions.items()}


def run_sizes(
    images: AnyPath,
    out: AnyPath,
    sizes: Sequence[ConvertOptions],
    beam_args: Sequence[str] = (),
    *,
    workers: int = 0,
    progress: bool = False,
    overwrite: bool = False,
    update: bool = False,
    break_lock: bool = False,
) -> dict[str, Conversion]:
    """Does what `convert_sizes` does, and tells more about it."""
    target, originals = locate_output(out), locate(images)
    check_sizes(target, sizes)
    check_import_names()
    beam = runners.parse_options(beam_args)
    requests = {
        (name := name_size(*options.image_size)): prepare(
            originals,
            target / name,
            options,
            beam,
            workers=workers,
            progress=progress,
            overwrite=overwrite,
            update=update,
            break_lock=break_lock,
        )
        for options in sizes
    }
    with contextlib.ExitStack() as stack:
        ended = False
        for request in requests.values():
            if overwrite or update or not is_at_rest(request.out):
                stack.enter_context(lock_folder(request.out, break_lock=break_lock))
                ended |= settle_folder(request.out)
        return (
            _update(requests)
            if update
            else _convert(requests, stack, overwrite=overwrite, ended=ended)
        )


def _update(requests: Mapping[str, Request]) -> dict[str, Conversion]:
    first = next(iter(requests.values()))
    scan = scan_images(first.images, first.options)
    for request in requests.values():
        check_update(request, scan)
    return {name: run_update(request, scan) for name, request in requests.items()}


def _convert(
    requests: Mapping[str, Request], stack: contextlib.ExitStack, *, overwrite: bool, ended: bool
) -> dict[str, Conversion]:
    """Confirms what is finished, and converts to the other sizes; see `_plan`."""
    first = next(iter(requests.values()))
    is_done = all(Layout(request.out).manifest.is_file() for request in requests.values())
    with contextlib.ExitStack() as workers:
        pool = None
        if overwrite or not is_done:
            pool = workers.enter_context(first.start_workers())
        done, plans = _plan(requests, stack, overwrite=overwrite, ended=ended)
        milled = mill_plans([*plans.values()], first.beam, pool, progress=first.progress)
    staged = [name for name, plan in plans.items() if plan.out != requests[name].out]
    for (name, plan), (kept, cost) in zip(plans.items(), milled, strict=True):
        done[name] = complete(plan, kept=kept, cost=cost, staged=name in staged)
    for name in staged:  # only now, when all of them are complete
        replace_dataset(requests[name].out)
    return {name: done[name] for name in requests}


def _plan(
    requests: Mapping[str, Request], stack: contextlib.ExitStack, *, overwrite: bool, ended: bool
) -> tuple[dict[str, Conversion], dict[str, Plan]]:
    """Scans once and plans each size; the list of all images ends with this function.

    Args:
        requests: by name; the lock of each is held.
        stack: for the locks of what is to replace something.
        overwrite: replace what is finished.
        ended: what a killed run had left open was ended just now.

    Returns:
        what is finished as it is asked for, and plans of the others, written to where they go.
    """
    first = next(iter(requests.values()))
    drafts, needed = _draft(requests)
    done = _confirm(requests, drafts, overwrite=overwrite, ended=ended)
    left = {name: request for name, request in requests.items() if name not in done}
    targets = {name: _find_target(request) for name, request in left.items()}
    for name, request in left.items():
        target, draft = targets[name], drafts[name]
        if target != request.out:
            stack.enter_context(lock_stage(request.out))
        if overwrite:
            discard_other(target, draft, request.options)
        refuse_other_plan(target, digest_plan(draft, request.options), request.options)
    if targets:
        _check_room(first, targets, needed)
    return done, {
        name: write_plan(drafts[name], request.options, images=request.root, out=targets[name])
        for name, request in left.items()
    }


def _check_room(
    request: Request, targets: Mapping[str, Location], needed: Mapping[str, float]
) -> None:
    """Warns of a full disk: what waits for shards of other sizes takes as much as these."""
    shards = [needed[name] for name in targets]
    there = sum(measure_shards(target) for target in targets.values())
    waiting = sum(shards) - max(shards)
    if is_compressed(request.root):
        waiting += sum(shards)  # until all of the archive is read
    check_room(next(iter(targets.values())), sum(shards) - there + waiting)


def _confirm(
    requests: Mapping[str, Request], drafts: Mapping[str, Draft], *, overwrite: bool, ended: bool
) -> dict[str, Conversion]:
    """What is finished, and need not be made again."""
    finished = {
        n: request for n, request in requests.items() if _find_target(request) != request.out
    }
    # What was replaced before a kill need not be replaced once more.
    ended |= any(
        has_plan(_find_target(request), drafts[name], request.options)
        for name, request in finished.items()
    )
    done = {}
    for name, request in finished.items():
        if overwrite and not ended:
            continue
        try:
            done[name] = confirm(request, drafts[name])
        except UsageError:
            if not overwrite:
                raise
    return done


def _find_target(request: Request) -> Location:
    """Where a data set is made: beside the one that it replaces, if there is one."""
    layout = Layout(request.out)
    return layout.stage if layout.manifest.is_file() else request.out


def _draft(requests: Mapping[str, Request]) -> tuple[dict[str, Draft], dict[str, float]]:
    """What a conversion to each size would be, and about how many bytes its shards take."""
    first = next(iter(requests.values()))
    scan = scan_images(first.images, first.options)
    room = find_room(first.out) / (3 * len(requests))
    proposals = {
        name: propose(request.images, request.options, always_sample=False, room=room, scan=scan)
        for name, request in requests.items()
    }
    return (
        {name: proposal.draft for name, proposal in proposals.items()},
        {name: proposal.bytes for name, proposal in proposals.items()},
    )


def mill_plans(
    plans: Sequence[Plan],
    beam: runners.RunnerOptions,
    pool: LocalWorkers | None,
    *,
    progress: bool,
) -> list[tuple[int, Cost]]:
    """Mills the shards of all plans that are not finished.

    Returns:
        of each plan how many were, and what the others cost; all of it is the leader's.
    """
    if len(plans) < 2:
        return [mill_plan(plan, beam, pool, progress=progress) for plan in plans]
    remaining = [list_remaining(plan, progress=progress) for plan in plans]
    kept = [len(plan.shards) - len(left) for plan, left in zip(plans, remaining, strict=True)]
    work = plan_work(plans, remaining)
    leader = choose_leader(plans)
    place = next(place for place, plan in enumerate(plans) if plan is leader)
    transform = None
    if work.shards or work.assemblies:
        transform = MillSizes(work, pool.count if pool else 0)
    run_milling(transform, leader, beam, pool, kept=kept[place], progress=progress)
    costs = [Cost()] * len(plans)
    costs[place] = read_costs(Layout(leader.out), (shard.name for shard in work.shards))
    return list(zip(kept, costs, strict=True))
