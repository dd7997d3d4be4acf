"""Planning as a pipeline: the steps of `converter.planning.planning_steps`, one after another."""

import functools
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

import apache_beam as beam
from apache_beam.options.pipeline_options import StandardOptions
from apache_beam.pvalue import PBegin, PCollection

from converter import progress
from converter.planning.planning_job import PlanningJob, read_found
from converter.planning.planning_steps import STEPS, begin_step
from converter.storage.files import hash_bytes
from pipelines.beam import runners
from pipelines.beam.remaining import STORE_INTERVAL_S

# In the place of parts where a step has none: no elements would give no sum, and end the pipeline.
_NO_PART: Final = -1


class PlanParts(beam.PTransform):  # type: ignore[misc]  # Beam has no types
    """Takes some steps of a planning; what they find lies in files.

    Elements are the numbers of parts. A step begins with the sum of those that the step before has
    done. Applied to a pipeline, gives that of the last step.

    Args:
        job: what to plan; `converter.planning.listing_parts.list_top` has begun its listing.
        first: the number of the first step; the steps before are done.
        stop: the number of the step to stop at.
    """

    def __init__(self, job: PlanningJob, first: int = 0, stop: int = len(STEPS)) -> None:
        super().__init__()
        self._job, self._steps = job, range(first, stop)
        self._parts = [*list_parts(None, job, first)]

    def expand(self, begin: PBegin) -> PCollection[tuple[int, int]]:
        parts = begin | "CreateParts" >> beam.Create(self._parts, reshuffle=False)
        for number in self._steps:
            name = STEPS[number].name
            if number > self._steps.start:
                parts |= f"Begin{name}" >> beam.FlatMap(list_parts, self._job, number)
            work = beam.Map(take_step, self._job, number).with_output_types(tuple[int, int])
            parts = (
                parts
                | f"Spread{name}" >> beam.Reshuffle()
                | name >> work
                | f"Await{name}" >> beam.CombinePerKey(sum)
            )
        return parts


def list_parts(_done: object, job: PlanningJob, number: int) -> Iterator[int]:
    """The parts of a step, once all of the step before are done."""
    yield from range(begin_step(job, STEPS[number])) or (_NO_PART,)


def take_step(part: int, job: PlanningJob, number: int) -> tuple[int, int]:
    """Takes a step for one part; gives one key for all parts, and a count of one."""
    if part != _NO_PART:
        STEPS[number].work(job, part)
    return 0, 1


def run_planning(job: PlanningJob, options: runners.RunnerOptions, count: int) -> None:
    """Runs all steps, with `count` local processes if the runner is a local one."""
    phase = progress.begin("plan", unit="parts", note="listing")
    watch = functools.partial(_count_files, job, phase, _Clock())
    # The same name for the same output: Dataflow refuses a second job while the first still runs.
    name = f"shardmill-plan-{hash_bytes(str(job.folder).encode('utf-8', 'replace'))[:20]}"
    for first, stop in _divide(options):
        with runners.start_workers(options, count, job.images, job.folder) as workers:
            runners.run_pipeline(
                PlanParts(job, first, stop), options, workers, job=f"{name}-{first}", on_poll=watch
            )


def _divide(options: runners.RunnerOptions) -> list[tuple[int, int]]:
    """Which steps share a pipeline: all of them, as each may take minutes to start."""
    runner = options.pipeline.view_as(StandardOptions).runner or ""
    # To Dask, `Reshuffle` means nothing: what follows one element is done by one worker.
    single = runner == runners.DASK_RUNNER
    return [(n, n + 1) for n in range(len(STEPS))] if single else [(0, len(STEPS))]


class _Clock:
    next = 0.0


def _count_files(job: PlanningJob, phase: progress.Phase, clock: _Clock) -> None:
    if time.monotonic() < clock.next:
        return
    names = job.listing.list_names()
    if job.classes.name in names:
        names += (job.folder / read_found(job).key).list_names()
        phase.total = phase.total or sum(step.count(job) for step in STEPS)
    done = Counter(name.partition("-")[0] for name in names if "-" in name)
    phase.done = done.total()
    phase.note = next((step.doing for step in reversed(STEPS) if done[step.file]), phase.note)
    clock.next = time.monotonic() + STORE_INTERVAL_S
