"""What is noted of a run of a conversion, for its log and its report: times, memory, originals."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from converter.commits.run_log import Run, append_run
from converter.costs import Cost, read_costs
from converter.errors import ShardmillError
from converter.format.manifest import Manifest
from converter.histograms import Histograms
from converter.planning.plan import Plan
from converter.sources.inputs import locate_masks
from converter.spelling import list_changed, spell_command
from converter.storage.files import Layout
from converter.storage.location import Location
from converter.usage import measure_peak_memory
from converter.writing.multi_size import choose_leader
from pipelines.jobs.bars import Progress
from pipelines.jobs.request import Request

# What a log calls the phases of `converter.progress`.
_PHASES: Final = {
    "scan": ("scan", "plan", "compare"), "convert": ("check", "convert"), "commit": ("commit",),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a run did for one data set."""

    cost: Cost
    written: int  # shards
    kept: int
    originals: Histograms


def make_works(plans: Sequence[Plan], written: Sequence[tuple[int, Cost]]) -> list[Work]:
    """What a run did for each of some plans, whose shards are all written; before their commit.

    The plans are of the same images, which the run read for one of them, and earlier runs, too.
    """
    if not plans:
        return []
    leader = choose_leader(plans)
    kept, cost = written[plans.index(leader)]
    if kept and not leader.base:  # of an update, kept shards are not of an earlier run of it
        names = (shard.name for shard in leader.shards)
        originals = read_costs(Layout(leader.out), names).originals
    else:
        originals = cost.originals
    return [
        Work(cost=cost, written=len(plan.shards) - kept, kept=kept, originals=originals)
        for plan, (kept, cost) in zip(plans, written, strict=True)
    ]


def note_run(
    request: Request,
    manifest: Manifest,
    work: Work,
    followed: Progress,
    earlier: Mapping[str, float],
    *,
    folder: Location,
) -> None:
    """Appends a run to the log of a data set in `folder`; the data set is whole without it.

    `earlier` are the seconds of each phase that were spent on other data sets.
    """
    seconds = followed.seconds
    out, update = request.out, request.run.mode == "update"
    run = Run(
        command=describe_command(request),
        kind="update" if update else "convert",
        started=followed.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        generator=manifest.generator,
        runner=_name_runner(request.run.beam_args),
        workers=len(work.cost.peaks),
        options=list_changed(request.options),
        phases_msec={
            name: round(
                1000 * sum(seconds.get(part, 0.0) - earlier.get(part, 0.0) for part in parts)
            )
            for name, parts in _PHASES.items()
        },
        steps_msec={step: round(msec) for step, msec in work.cost.msec.items()},
        launcher_peak_bytes=measure_peak_memory(),
        worker_peak_bytes=max(work.cost.peaks.values(), default=0),
        shards_written=work.written,
        shards_kept=work.kept,
        images_read=work.cost.images_read,
        bytes_read=work.cost.bytes_read,
        originals=work.originals,
    )
    with contextlib.suppress(ShardmillError, OSError):
        append_run(folder, run, before=out if update else folder)


def describe_command(request: Request) -> str:
    """The command that repeats a conversion, with absolute paths."""
    options, places = request.options, {}
    if options.mask_dir is not None:
        places["mask_dir"] = str(locate_masks(request.root, options))
    if options.table_root != ".":
        places["table_root"] = str(request.root)
    flags = ["--update"] if request.run.mode == "update" else []
    members = [member.partition(":")[2] for member in options.members]
    images = [request.images.join(path) for path in members] or [request.images]
    return spell_command([*map(str, images)], str(request.out), options, *flags, **places)


def _name_runner(beam_args: Sequence[str]) -> str:
    """The Beam runner that was asked for."""
    given = [arg.partition("=")[2] for arg in beam_args if arg.startswith("--runner=")]
    return given[-1][:100] if given else "local"
