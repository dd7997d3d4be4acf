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
    is_staged,
    replace_dataset,
    settle_folder,
)
from converter.costs import Cost
from converter.errors import DatasetError, UsageError
from converter.format.manifest import Manifest, read_manifest
from converter.inventory import Inventory
from converter.options import ConvertOptions
from converter.planning.plan import (
    Draft,
    Plan,
    digest_plan,
    read_plan,
    refuse_other_plan,
    write_plan,
)
from converter.planning.strict_checks import check_scan
from converter.sources.scan import scan_images
from converter.sources.streams import is_compressed
from converter.storage.layout import SHARD_SUFFIX, Layout, name_size
from converter.storage.locate import locate, locate_output
from converter.storage.location import AnyPath, Location
from converter.storage.locks import lock_stage
from converter.upkeep.updates import carry_shards, check_kind, plan_update
from pipelines.beam import runners
from pipelines.beam.run_shards import follow_shards, write_remaining
from pipelines.jobs.dry_run import Proposal, propose
from pipelines.jobs.preflight import check_import_names, check_room, check_sizes
from pipelines.jobs.request import (
    Conversion,
    Request,
    RunSettings,
    check_images,
    check_options,
    prepare,
)


def convert(
    images: AnyPath,
    out: AnyPath,
    options: ConvertOptions | None = None,
    beam_args: Sequence[str] = (),
    **settings: Any,
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
        **settings: any other of `RunSettings`: `workers`, `progress`, `mode`, `break_lock`.

    Returns:
        the manifest of the finished data set.

    Raises:
        UsageError: an argument makes no sense; no data was written.
        LockedError: somebody else is writing to `out`; no data was written.
        WorkerError: a local worker process died; finished shards are kept.
        ShardmillError: the pipeline failed, the output cannot be written, or not one image could
            be converted; finished shards are kept.
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
        out: folder for the data sets, each in a folder of its own that is called by its size, such
            as `224x320`. Each is, byte for byte, what a conversion to that size alone writes.
        sizes: options that differ in nothing but `image_size`.
        beam_args: as in `convert`.
        **settings: as in `convert`, for each data set.

    Returns:
        the manifest of each data set, by the name of its folder.

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
    """Does what `convert` does, and tells more about it."""
    run = RunSettings(beam_args=tuple(beam_args), **settings)
    return _run(locate(images), [locate_output(out)], [options], run)[0]


def run_sizes(
    images: AnyPath,
    out: AnyPath,
    sizes: Sequence[ConvertOptions],
    beam_args: Sequence[str] = (),
    **settings: Any,
) -> dict[str, Conversion]:
    """Does what `convert_sizes` does, and tells more about it."""
    run, target = RunSettings(beam_args=tuple(beam_args), **settings), locate_output(out)
    check_sizes(target, sizes)
    names = [name_size(*options.image_size) for options in sizes]
    outs = [target / name for name in names]
    return dict(zip(names, _run(locate(images), outs, sizes, run), strict=True))


def _run(
    images: Location,
    outs: Sequence[Location],
    options: Sequence[ConvertOptions | None],
    run: RunSettings,
) -> list[Conversion]:
    """Converts to each of some outputs, by the options of each."""
    check_import_names()
    beam = runners.parse_options(run.beam_args)
    requests = [
        prepare(images, out, asked, beam, run) for out, asked in zip(outs, options, strict=True)
    ]
    with contextlib.ExitStack() as locks:
        ended = False
        for request in requests:
            if run.mode != "new" or not request.is_at_rest:
                locks.enter_context(request.out.lock(break_lock=run.break_lock))
                ended |= settle_folder(request.out)
        return _update(requests) if run.mode == "update" else _convert(requests, locks, ended=ended)


def _convert(
    requests: Sequence[Request], locks: contextlib.ExitStack, *, ended: bool
) -> list[Conversion]:
    """Makes sure that what is finished is what is asked for, and converts to the rest.

    Args:
        requests: the locks of all that is written are held.
        locks: for those of what is to replace something.
        ended: what a killed run had left open was ended just now.
    """
    first = requests[0]
    with contextlib.ExitStack() as workers:
        pool = None
        if first.run.mode == "overwrite" or not all(request.is_finished for request in requests):
            pool = workers.enter_context(first.start_workers())
        done, plans = _plan(requests, locks, ended=ended)
        written = write_remaining([*plans.values()], first.beam, pool, progress=first.run.progress)
    staged = [out for out, plan in plans.items() if plan.out != out]
    for (out, plan), (kept, cost) in zip(plans.items(), written, strict=True):
        done[out] = complete(plan, kept=kept, cost=cost, staged=out in staged)
    for out in staged:  # only now, when all of them are complete
        replace_dataset(out)
    return [done[request.out] for request in requests]


def _plan(
    requests: Sequence[Request], locks: contextlib.ExitStack, *, ended: bool
) -> tuple[dict[Location, Conversion], dict[Location, Plan]]:
    """Scans once and plans each data set; the list of all images ends with this function.

    Args:
        requests: as in `_convert`.
        locks: as in `_convert`.
        ended: as in `_convert`.

    Returns:
        by output: what is finished as it is asked for, and the plans of the others, written to
        where they are made.
    """
    overwrite = requests[0].run.mode == "overwrite"
    finished = {request.out: request for request in requests if request.is_finished}
    manifests = {} if overwrite else {out: check_options(finished[out]) for out in finished}
    proposals = _propose(requests)
    if overwrite:
        done = _find_replaced(finished, proposals, ended=ended)
    else:
        done = {
            out: check_images(finished[out], manifest, proposals[out].draft)
            for out, manifest in manifests.items()
        }
    left = [request for request in requests if request.out not in done]
    targets = {request.out: request.target for request in left}
    for request in left:
        target, draft = targets[request.out], proposals[request.out].draft
        if target != request.out:
            locks.enter_context(lock_stage(request.out))
        if overwrite:
            discard_other(target, draft, request.options)
        refuse_other_plan(target, digest_plan(draft, request.options), request.options)
    if left:
        needed = [proposals[out].bytes for out in targets]
        _check_room([*targets.values()], needed, compressed=is_compressed(left[0].root))
    return done, {
        request.out: write_plan(
            proposals[request.out].draft,
            request.options,
            images=request.root,
            out=targets[request.out],
        )
        for request in left
    }


def _propose(requests: Sequence[Request]) -> dict[Location, Proposal]:
    """What a conversion to each output would be."""
    first = requests[0]
    inventory = scan_images(first.images, first.options)
    # A record may lie there three times: in its shard, and while it waits for two others.
    room = first.out.measure_room() / (3 * len(requests))
    return {
        request.out: propose(
            request.images, request.options, always_sample=False, room=room, inventory=inventory
        )
        for request in requests
    }


def _find_replaced(
    finished: dict[Location, Request], proposals: dict[Location, Proposal], *, ended: bool
) -> dict[Location, Conversion]:
    """What an `--overwrite` that was killed has replaced already, and need not replace again.

    Args:
        finished: what lies there, by output.
        proposals: what is to lie there.
        ended: something was in the middle of being replaced.
    """
    begun = [
        out
        for out, request in finished.items()
        if has_plan(request.target, proposals[out].draft, request.options)
    ]
    done = {}
    for out, request in finished.items() if ended or begun else ():
        if out not in begun:
            with contextlib.suppress(UsageError):
                done[out] = check_images(request, check_options(request), proposals[out].draft)
    return done


def _check_room(targets: Sequence[Location], needed: Sequence[float], *, compressed: bool) -> None:
    """Warns of a full disk.

    Records of all sizes but one wait for the shards of that one. Those of an archive that is
    compressed as a whole wait until all of it is read.
    """
    there = sum(map(measure_shards, targets))
    waiting = sum(needed) - max(needed) + compressed * sum(needed)
    check_room(targets[0], sum(needed) + waiting - there)


def _update(requests: Sequence[Request]) -> list[Conversion]:
    inventory = scan_images(requests[0].images, requests[0].options)
    for request in requests:
        check_update(request, inventory)
    return [run_update(request, inventory) for request in requests]


def check_update(request: Request, inventory: Inventory) -> None:
    """Refuses images that cannot be taken into the finished data set.

    Raises:
        UsageError: says why not.
    """
    check_scan(inventory, request.options)
    check_kind(read_manifest(request.out), inventory)
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


def run_update(request: Request, inventory: Inventory) -> Conversion:
    """Takes what is new, changed or gone into a finished data set; its lock is held.

    Args:
        request: what is asked for.
        inventory: what lies in the folder of images now.
    """
    out, old, progress = request.out, read_manifest(request.out), request.run.progress
    stage = Layout(out).stage
    with request.start_workers() as pool:
        with follow_shards(len(old.shards), "comparing", shown=progress) as count:
            update = plan_update(out, old, request.root, inventory, on_shard=count)
        if not update.needed:
            return Conversion(
                manifest=old, written=0, kept=len(old.shards), unchanged=True, update=update
            )
        check_room(out, update.records * old.total_bytes / old.totals.written)
        with lock_stage(out):
            discard_other(stage, update.draft, request.options)
            plan = write_plan(update.draft, request.options, images=request.root, out=stage)
            plan = carry_shards(update, out, plan)
            ((kept, cost),) = write_remaining([plan], request.beam, pool, progress=progress)
            conversion = complete(plan, kept=kept, cost=cost, staged=True)
            replace_dataset(out)
    return dataclasses.replace(conversion, update=update)


def complete(plan: Plan, *, kept: int, cost: Cost, staged: bool) -> Conversion:
    """Commits what is written, if it is not committed.

    Args:
        plan: whose shards are all there.
        kept: how many of them were found finished.
        cost: of those that were written.
        staged: the folder is to replace another, and its plan says so as long as it lies there.
    """
    if Layout(plan.out).manifest.is_file():
        manifest = read_manifest(plan.out)
    else:
        manifest = commit(plan, keep_work=staged)
    return Conversion(
        manifest=manifest,
        written=len(plan.shards) - kept,
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
    return sum(size for name, size in out.list_sizes().items() if name.endswith(SHARD_SUFFIX))
