"""Planning as a pipeline: the steps of `converter.planning.planning_steps`, one after another."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import apache_beam as beam
from apache_beam.options.pipeline_options import StandardOptions
from apache_beam.pvalue import PBegin, PCollection

from converter import progress
from converter.planning.planning_job import PlanningJob, read_found
from converter.planning.planning_steps import STEPS, begin_step
from converter.storage.files import hash_bytes
from pipelines.beam import runners

# In the place of parts where a step has none: no elements would give no sum, and end the pipeline.
_NO_PART: Final = -1


class PlanParts(beam.PTransform):  # type: ignore[misc]  # Beam has no types
    """Takes some steps of a planning; what they find lies in files.

    Elements are the numbers of parts. A step begins with the sum of those that the step before has
    done. Applied to a pipeline, gives that of the last step.

    Args:
        job: what to plan; `converter.planning.listing_parts.list_top` has begun its listing.
        parts: of the first of these steps, as `list_parts` gives them.
        steps: their numbers in `STEPS`; those before are done.
    """

    def __init__(
        self, job: PlanningJob, parts: Iterable[int], steps: range = range(len(STEPS))
    ) -> None:
        super().__init__()
        self._job, self._parts, self._steps = job, [*parts], steps

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
    watch = PartWatch(job)
    # The same name for the same output: Dataflow refuses a second job while the first still runs.
    name = f"shardmill-plan-{hash_bytes(str(job.folder).encode('utf-8', 'replace'))[:20]}"
    for steps in _divide(options):
        transform = PlanParts(job, list_parts(None, job, steps.start), steps)
        with runners.start_workers(options, count, job.images, job.folder) as workers:
            runners.run_pipeline(
                transform, options, workers, job=f"{name}-{steps.start}", on_poll=watch.poll
            )


def _divide(options: runners.RunnerOptions) -> list[range]:
    """Which steps share a pipeline: all of them, as each may take minutes to start."""
    runner = options.pipeline.view_as(StandardOptions).runner or ""
    # To Dask, `Reshuffle` means nothing: what follows one element is done by one worker.
    single = runner == runners.DASK_RUNNER
    return [range(n, n + 1) for n in range(len(STEPS))] if single else [range(len(STEPS))]


class PartWatch:
    """Counts the files that steps have left, in the phase `plan`."""

    def __init__(self, job: PlanningJob) -> None:
        self.phase = progress.begin("plan", unit="parts", note="listing")
        self._job, self._next = job, 0.0

    def poll(self) -> None:
        """Lists the files, if it is time to."""
        if time.monotonic() < self._next:
            return
        job, phase = self._job, self.phase
        names = job.listing.list_names()
        if job.classes.name in names:
            names += (job.folder / read_found(job).key).list_names()
            phase.total = phase.total or sum(step.count(job) for step in STEPS)
        done = Counter(name.partition("-")[0] for name in names if "-" in name)
        phase.done = done.total()
        phase.note = next((step.doing for step in reversed(STEPS) if done[step.file]), phase.note)
        self._next = time.monotonic() + runners.STORE_INTERVAL_S
