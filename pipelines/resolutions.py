"""Converts images to several sizes in one pass: a data set of each, as if it had been alone."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

from converter.commits.replacements import settle_folder
from converter.costs import Cost, read_costs
from converter.errors import UsageError
from converter.format.manifest import Manifest
from converter.milling.resolutions import choose_leader, plan_work
from converter.options import ConvertOptions
from converter.planning.plan import Plan, write_plan
from converter.sources.inputs import locate_root
from converter.sources.scan import scan_images
from converter.sources.streams import is_compressed
from converter.storage.layout import Layout, Location, Place, locate, locate_output, name_size
from converter.storage.locks import lock_folder
from converter.storage.objects import ObjectPath
from pipelines import runners
from pipelines.conversion import (
    Conversion,
    Request,
    build,
    check_places,
    complete,
    confirm,
    list_remaining,
    run_conversion,
    run_milling,
)
from pipelines.preflight import check_folders, check_import_names, check_room
from pipelines.proposals import propose
from pipelines.transforms import MillSizes
from pipelines.workers import LocalWorkers


def convert_sizes(
    images: Place,
    out: Place,
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

    What lies there already, what is compressed as a whole, and what goes into a store, is converted
    to one size after the other.

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
    images: Place,
    out: Place,
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
    named = {name_size(*options.image_size): options for options in sizes}
    is_compressed_whole = is_compressed(locate_root(originals, sizes[0]))
    if overwrite or update or is_compressed_whole or isinstance(target, ObjectPath):
        return {
            name: run_conversion(
                originals,
                target / name,
                options,
                beam_args,
                workers=workers,
                progress=progress,
                overwrite=overwrite,
                update=update,
                break_lock=break_lock,
            )
            for name, options in named.items()
        }
    requests = {
        name: Request(
            images=originals,
            out=target / name,
            options=options,
            beam=runners.parse_options(beam_args),
            workers=workers,
            progress=progress,
        )
        for name, options in named.items()
    }
    for request in requests.values():
        check_folders(originals, request.out)
        check_places(request)
    with contextlib.ExitStack() as stack:
        for request in requests.values():
            stack.enter_context(lock_folder(request.out, break_lock=break_lock))
            settle_folder(request.out)
        return _run(requests)


def check_sizes(out: Location, sizes: Sequence[ConvertOptions]) -> None:
    """Refuses sizes that make no sense together.

    Raises:
        UsageError: says which.
    """
    names = [name_size(*options.image_size) for options in sizes]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"image size {double} stands twice")
    if sizes[0].resize == "none":
        raise UsageError("resize none ignores the image size: leave all of them out")
    if Layout(out).manifest.exists() or Layout(out).plan.exists():
        raise UsageError(
            f"output {out} holds a data set itself, and several sizes need a folder that holds one "
            "for each: choose another folder"
        )


def _run(requests: Mapping[str, Request]) -> dict[str, Conversion]:
    """Confirms what is finished, and converts to the other sizes."""
    done = {
        name: confirm(request)
        for name, request in requests.items()
        if Layout(request.out).manifest.exists()
    }
    left = {name: request for name, request in requests.items() if name not in done}
    if len(left) == 1:
        ((name, request),) = left.items()
        done[name] = build(request, discard=False)
    elif left:
        done |= zip(left, _build_together([*left.values()]), strict=True)
    return {name: done[name] for name in requests}


def _build_together(requests: Sequence[Request]) -> Iterator[Conversion]:
    first = requests[0]
    with runners.start_workers(first.beam, first.workers) as pool:
        plans = _write_plans(requests)
        milled = mill_plans(plans, first.beam, pool, progress=first.progress)
    for plan, (kept, cost) in zip(plans, milled, strict=True):
        yield complete(plan, kept=kept, cost=cost, staged=False)


def _write_plans(requests: Sequence[Request]) -> list[Plan]:
    """Scans once and plans each size; the list of all images ends with this function."""
    scan = scan_images(requests[0].images, requests[0].options)
    proposals = [
        # Its size is asked for, whatever the shards: whether all of them fit is to be known.
        propose(request.images, request.options, always_sample=False, room=math.inf, scan=scan)
        for request in requests
    ]
    check_room(requests[0].out, sum(proposal.bytes for proposal in proposals))
    return [
        write_plan(proposal.draft, request.options, images=request.root, out=request.out)
        for proposal, request in zip(proposals, requests, strict=True)
    ]


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
    remaining = [list_remaining(plan, progress=progress) for plan in plans]
    kept = [len(plan.shards) - len(left) for plan, left in zip(plans, remaining, strict=True)]
    work = plan_work(plans, remaining)
    leader = choose_leader(plans)
    place = next(place for place, plan in enumerate(plans) if plan is leader)
    transform = MillSizes(work) if work.shards or work.assemblies else None
    run_milling(transform, leader, beam, pool, kept=kept[place], progress=progress)
    costs = [Cost()] * len(plans)
    costs[place] = read_costs(Layout(leader.out), (shard.name for shard in work.shards))
    return list(zip(kept, costs, strict=True))
