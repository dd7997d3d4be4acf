"""Which Beam runner runs a pipeline, with which options.

`DirectRunner` of Beam 2.77 first tries to download the Prism binary, at every run, and hangs on a
network that accepts and never answers. So a local run is pinned to FnApiRunner, on processes of
our own (`pipelines.beam.workers`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.util
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners import create_runner
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineState

from converter.errors import ShardmillError, UsageError
from converter.storage.location import Location
from pipelines.beam import clusters
from pipelines.beam.workers import LocalWorkers

LOCAL_RUNNERS: Final = ("", "directrunner", "fnapirunner")

POLL_S: Final = 0.2
ABORT_TIMEOUT_S: Final = 5.0
"""How long a runner may take to end once one of its workers has died."""

DASK_RUNNER: Final = "apache_beam.runners.dask.dask_runner.DaskRunner"
"""Beam knows it by its full name only."""
_UNFINISHED: Final = (PipelineState.CANCELLED, PipelineState.DRAINED, PipelineState.FAILED)
_LOGGER: Final = logging.getLogger(__name__)

_OWN_PROCESSES: Final = "own_processes"
"""A running mode that FnApiRunner does not know: it then takes the environment it is given."""

_DASK_PARTITIONS: Final = {"dask_npartitions", "dask_partition_size"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunnerOptions:
    """Beam's options, and which of them somebody asked for.

    Beam itself cannot tell: an option that was given its default looks like one that was not.

    Attributes:
        pipeline: what Beam reads.
        given: names of the options that were given, such as `direct_num_workers`.
    """

    pipeline: PipelineOptions
    given: frozenset[str]

    @property
    def local(self) -> bool:
        """Whether the pipeline runs on this machine, by FnApiRunner."""
        runner = self.pipeline.view_as(StandardOptions).runner or ""
        return runner.lower() in LOCAL_RUNNERS

    @property
    def own_processes(self) -> bool:
        """Whether it runs in processes of ours: unless threads or none at all are asked for."""
        mode = self.pipeline.view_as(DirectOptions).direct_running_mode
        asked = "direct_running_mode" in self.given
        return self.local and (not asked or mode in ("multi_processing", _OWN_PROCESSES))


def parse_options(beam_args: Sequence[str], *, also_known: Iterable[str] = ()) -> RunnerOptions:
    """Reads Beam's command-line options, all of which have to be ones that Beam knows.

    Args:
        beam_args: as on a command line.
        also_known: options of somebody else, which a misspelt one may have meant.

    Raises:
        UsageError: an option is unknown, which Beam itself would ignore without a word, or the
            runner is.
    """
    given = frozenset(re.findall(r"^--(\w+)", "\n".join(beam_args), re.MULTILINE))
    options = RunnerOptions(pipeline=PipelineOptions(list(beam_args)), given=given)
    if not options.local:
        _choose_runner(options)
    parser = pipeline_options._BeamArgumentParser(allow_abbrev=False, add_help=False)  # noqa: SLF001
    for group in _list_groups(PipelineOptions):
        group._add_argparse_args(parser)  # noqa: SLF001
    known = {option for action in parser._actions for option in action.option_strings}  # noqa: SLF001
    parser.error = _refuse
    _, unknown = parser.parse_known_args(list(beam_args))
    if unknown:
        raise _describe_unknown(unknown[0], {*known, *also_known})
    clusters.check_dataflow(options.pipeline)
    return options


def check_paths(options: RunnerOptions, *paths: Location | None) -> None:
    """Refuses folders of this machine where workers run on others; see `clusters.check_paths`."""
    clusters.check_paths(options.pipeline, *paths)


@contextlib.contextmanager
def start_workers(
    options: RunnerOptions, count: int, *places: Location
) -> Iterator[LocalWorkers | None]:
    """Starts the worker processes that a pipeline with these options needs, if any.

    Args:
        options: `--direct_running_mode` other than multi_processing needs none.
        count: number of processes; 0 for one a core.
        places: what they will read and write.

    Raises:
        UsageError: the number is negative, or asked for where no process of ours runs.
    """
    if count < 0:
        raise UsageError(f"workers {count} is out of range: 1 or more, or 0 for one a core")
    if not options.own_processes:
        if count:
            raise UsageError(
                f"workers {count} is for local processes: leave it out, or use the runner's own"
            )
        yield None
        return
    if not count and "direct_num_workers" in options.given:
        count = options.pipeline.view_as(DirectOptions).direct_num_workers
    schemes = (place.scheme for place in places if place.is_remote)
    with LocalWorkers(count or os.cpu_count() or 1, schemes) as workers:
        yield workers


def run_pipeline(
    transform: beam.PTransform,
    options: RunnerOptions,
    workers: LocalWorkers | None,
    *,
    job: str,
    on_poll: Callable[[], object],
) -> None:
    """Runs a pipeline of one transform to its end.

    Args:
        transform: applied to the pipeline's root.
        options: Beam's options.
        workers: what `start_workers` gave.
        job: what it is called on runners of which others see the jobs.
        on_poll: called several times a second meanwhile.

    Raises:
        UsageError: the runner refuses its options.
        WorkerError: a local worker process died; at most 10 seconds later.
        ShardmillError: the pipeline failed.
    """
    run = _Run()
    with clusters.complete_options(options.pipeline, options.given, job):
        pipeline = _build_pipeline(transform, options, workers)
        thread = threading.Thread(
            target=run.follow, args=(pipeline, options.pipeline), name="run_pipeline", daemon=True
        )
        try:
            if not options.local:
                # Here, because Beam handles signals if it starts Prism, or Flink's job server.
                run.start(pipeline, options.pipeline)
            thread.start()
            _wait_for(thread, workers, on_poll)
        except BaseException:
            run.cancel()
            raise
    run.check()


def _wait_for(
    thread: threading.Thread, workers: LocalWorkers | None, on_poll: Callable[[], object]
) -> None:
    while thread.is_alive():
        thread.join(POLL_S)
        on_poll()
        if workers is not None and workers.death is not None:
            thread.join(ABORT_TIMEOUT_S)
            raise workers.death


class _Run:
    """A pipeline on its way, in a thread that nobody has to wait for."""

    def __init__(self) -> None:
        self._result: Any = None
        self._failure: BaseException | None = None

    def start(self, pipeline: beam.Pipeline, options: PipelineOptions) -> None:
        """Submits it; local runners run it meanwhile.

        Raises:
            ShardmillError: it was not taken.
        """
        try:
            self._result = pipeline.run()
        except Exception as error:
            raise ShardmillError(_shorten(error)) from error
        if told := clusters.describe_job(self._result, options):
            _LOGGER.info(told)

    def follow(self, pipeline: beam.Pipeline, options: PipelineOptions) -> None:
        """Waits for its end, and starts it before if nobody has."""
        try:
            if self._result is None:
                self.start(pipeline, options)
            self._result.wait_until_finish()
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            self._failure = error

    def cancel(self) -> None:
        """Ends a job on other machines, which would else go on without anybody who waits for it."""
        if self._result is not None:
            # What ends this command matters more than that a runner cannot cancel.
            with contextlib.suppress(Exception):
                self._result.cancel()

    def check(self) -> None:
        """Raises what went wrong."""
        if isinstance(self._failure, ShardmillError):
            raise self._failure
        if self._failure is not None:
            raise ShardmillError(_shorten(self._failure)) from self._failure
        if self._result.state in _UNFINISHED:
            raise ShardmillError(
                f"the job ended as {self._result.state}: finished shards are kept, run the same "
                "command again to go on"
            )


def _build_pipeline(
    transform: beam.PTransform, options: RunnerOptions, workers: LocalWorkers | None
) -> beam.Pipeline:
    try:
        pipeline = beam.Pipeline(runner=_make_runner(options, workers), options=options.pipeline)
    except ValueError as error:
        raise UsageError("; ".join(line.strip(" .") for line in str(error).splitlines())) from error
    # Only transforms of other languages need it, and it would outlive this process, if killed.
    with contextlib.suppress(OSError):
        Path(pipeline.local_tempdir).rmdir()
    _ = pipeline | transform
    return pipeline


def _make_runner(options: RunnerOptions, workers: LocalWorkers | None) -> Any:
    if not options.local:
        return options.pipeline.view_as(StandardOptions).runner
    if "default_sdk_harness_log_level" not in options.given:
        options.pipeline.view_as(WorkerOptions).default_sdk_harness_log_level = "ERROR"
    # Without this, workers would not see the options, credentials' locations among them.
    given = options.pipeline.get_all_options(drop_default=True)
    given.pop("direct_running_mode", None)  # an earlier pipeline with the same options set our own
    provision = beam_provision_api_pb2.ProvisionInfo(
        pipeline_options=JobServiceHandle.encode_pipeline_options(given),
        retrieval_token="unused",  # noqa: S106 (what Beam passes itself)
    )
    info = fn_runner.ExtendedProvisionInfo(provision)
    if workers is None:
        return fn_runner.FnApiRunner(provision_info=info)
    direct = options.pipeline.view_as(DirectOptions)
    direct.direct_num_workers = workers.count
    direct.direct_running_mode = _OWN_PROCESSES
    return fn_runner.FnApiRunner(default_environment=workers.environment, provision_info=info)


def _choose_runner(options: RunnerOptions) -> None:
    """Imports the runner, which makes its options known, and finds out whether it is there."""
    standard = options.pipeline.view_as(StandardOptions)
    if standard.runner.rpartition(".")[2].lower() == "daskrunner":
        standard.runner = DASK_RUNNER
        if importlib.util.find_spec("distributed") is None:
            raise UsageError(f"runner {DASK_RUNNER} is not to be had: install shardmill[dask]")
    try:
        create_runner(standard.runner)
    except (ImportError, ValueError) as error:
        raise UsageError(f"runner {standard.runner!r} is not to be had: {error}") from error
    # Dask would give 128 shards at a time to a worker.
    if standard.runner == DASK_RUNNER and not options.given & _DASK_PARTITIONS:
        dask: Any = importlib.import_module(DASK_RUNNER.rpartition(".")[0])
        options.pipeline.view_as(dask.DaskOptions).partition_size = 1


def _list_groups(group: type[PipelineOptions]) -> Iterator[type[PipelineOptions]]:
    for subgroup in group.__subclasses__():
        if "_add_argparse_args" in vars(subgroup):
            yield subgroup
        yield from _list_groups(subgroup)


def _describe_unknown(argument: str, known: Iterable[str]) -> UsageError:
    name = argument.split("=", 1)[0]
    near = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f": did you mean {near[0]}?" if near else ", neither by shardmill nor by Beam"
    return UsageError(f"{name} is not known{hint}")


def _refuse(message: str) -> None:
    raise UsageError(message)


def _shorten(error: BaseException) -> str:
    """What went wrong, in one line: the last of the worker's traceback, where Beam shows one."""
    if isinstance(error, ShardmillError):
        return str(error).split(" [while running", 1)[0]  # which Beam writes behind it
    if type(error).__name__ == "DataflowJobAlreadyExistsError":
        return (
            "a job of this name still runs, that of an earlier launcher: wait for its end, or "
            "cancel it, and run the same command again"
        )
    if not isinstance(error, RuntimeError) and "Traceback" not in str(error):
        first, *rest = f"the pipeline failed: {type(error).__name__}: {error}".splitlines()
        return f"{first} {rest[0]}" if rest and first.endswith(":") else first
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next(
        (line for line in reversed(lines) if "Error: " in line), lines[0] if lines else ""
    )
    reason = reason.split(" [while running", 1)[0].removeprefix("RuntimeError: ")
    return re.sub(r"^converter\.errors\.\w+: ", "", reason)
