"""Where a conversion is planned: in the launcher, or by the workers that convert."""

import functools
import uuid
from collections.abc import Sequence
from typing import Final

from converter.errors import UsageError
from converter.images.openers import register_formats
from converter.inventory import Inventory
from converter.options import ConvertOptions
from converter.planning.key_ranges import Cut, cut_images, make_ranges
from converter.planning.listing_parts import list_top
from converter.planning.planning_job import PlanningJob, remove_run
from converter.planning.staged_drafts import check_splits, read_draft
from converter.sources.image_choice import choose_part
from converter.storage.files import Layout
from converter.storage.location import Location
from converter.writing.records import check_scan
from pipelines.beam import runners
from pipelines.beam.planned_parts import run_planning
from pipelines.jobs.preview import Planner, Proposal, cut_shards
from pipelines.jobs.request import Request

MANY_IMAGES: Final = 100_000
"""So many objects in a store are planned by the runner, unless asked otherwise."""

# Each needs all images at once, or another order than that of their paths.
_GLOBAL: Final = ("take", "stratify", "group_by", "trim_labels", "mask_dir", "mask_column")


def choose_planner(requests: Sequence[Request], beam: runners.RunnerOptions) -> Planner | None:
    """What plans on the runner; None for the launcher.

    Raises UsageError if the runner is asked for and cannot.
    """
    request = requests[0]
    asked = request.run.plan_on
    fault = _find_fault(request, len(requests))
    if asked == "runner" and fault:
        raise UsageError(f"plan on runner: {fault}: plan on the launcher, or leave it out")
    is_compared = request.is_finished and request.run.mode == "new"  # nothing may be written
    if fault or is_compared or asked == "launcher":
        return None
    if asked is None and not request.images.is_remote:
        return None
    cut = cut_images(request.images)
    if asked is None and cut.known < MANY_IMAGES:
        return None
    return functools.partial(_propose, beam=beam, cut=cut)


def _find_fault(request: Request, sizes: int) -> str | None:
    """Why the launcher has to plan, or None."""
    options = request.options
    needs_all = next((name for name in _GLOBAL if getattr(options, name)), "")
    faults = {
        f"{sizes} image sizes are planned together": sizes > 1,
        "update compares all images with the data set": request.run.mode == "update",
        f"{len(options.members)} IMAGES become one data set": bool(options.members),
        f"{needs_all.replace('_', ' ')} needs all images at once": bool(needs_all),
        f"it divides folders, and {request.images} is a source {options.source!r}": (
            options.source != "folders"
        ),
    }
    return next((fault for fault, holds in faults.items() if holds), None)


def _propose(
    requests: Sequence[Request], room: float, *, beam: runners.RunnerOptions, cut: Cut
) -> dict[Location, Proposal]:
    (request,) = requests
    register_formats(request.options.formats)  # a missing extra shows here, not in every worker
    _check_condition(request.options)
    job = make_job(request.images, request.out, request.options, cut)
    try:
        run_planning(job, beam, request.run.workers)
        draft = read_draft(job)
        check_scan(draft.inventory, request.options)
        check_splits(draft)
        options = request.options
        proposal = cut_shards(draft, request.images, options, always_sample=False, room=room)
    except UsageError:
        remove_run(job)  # of no use to other options or images, and no part of a data set there
        raise
    return {request.out: proposal}


def make_job(images: Location, out: Location, options: ConvertOptions, cut: Cut) -> PlanningJob:
    """Begins a planning in the work folder of an output, whose lock has to be held."""
    layout = Layout(out)
    layout.scratch.make_folder()
    job = PlanningJob(
        images=images,
        folder=layout.planning,
        scratch=layout.scratch,
        options=options,
        parts=len(make_ranges(cut.bounds)),
        run=f"-{uuid.uuid4().hex[:16]}",
    )
    list_top(job, cut.bounds)
    return job


def _check_condition(options: ConvertOptions) -> None:
    """Raises UsageError for a condition that fits no image, before any is listed."""
    nothing = Inventory(classes=(), entries=(), skipped=(), labelled=options.label_from != "none")
    choose_part(nothing, options)
