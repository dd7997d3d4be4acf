"""Chooses the Beam runner and its options, and runs a pipeline on it.

Local runs use FnApiRunner, with worker processes of our own (`pipelines.beam.workers`).
"""

import contextlib
import dataclasses
import importlib.util
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners import create_runner
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineState

from converter import progress
from converter.errors import ShardmillError, UsageError
from converter.option_fields import suggest
from converter.storage.location import Location
from pipelines.beam import clusters
from pipelines.beam.workers import LocalWorkers

# All of them mean FnApiRunner: `DirectRunner` of Beam 2.77 first tries to download the Prism
# binary, at every run, and hangs on a network that accepts and never answers.
LOCAL_RUNNERS: Final = ("", "directrunner", "fnapirunner")

POLL_S: Final = 0.2
# How often files of workers in an object store are listed, which takes a request each time.
STORE_INTERVAL_S: Final = 2.0
# How long a runner may take to end after one of its workers has died.
ABORT_TIMEOUT_S: Final = 5.0
# How long Ctrl-C waits until a job on other machines is cancelled, which would cost money.
CANCEL_S: Final = 20.0

# Beam knows this runner only by its full name.
DASK_RUNNER: Final = "apache_beam.runners.dask.dask_runner.DaskRunner"

# A running mode that FnApiRunner does not know, so that it uses the environment it is given.
_OWN_PROCESSES: Final = "own_processes"

_LOGGER: Final = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunnerOptions:
    """Beam's options, and the names of those that were given, such as `direct_num_workers`."""

    pipeline: PipelineOptions
    # Beam itself cannot tell an option that was given its default from one that was not given.
    given: frozenset[str]

    @property
    def local(self) -> bool:
        """Whether the pipeline runs on this machine, by FnApiRunner."""
        runner = self.pipeline.view_as(StandardOptions).runner or ""
        return runner.lower() in LOCAL_RUNNERS

    @property
    def own_processes(self) -> bool:
        """Whether it runs in worker processes of ours, the default for local runs."""
        mode = self.pipeline.view_as(DirectOptions).direct_running_mode
        asked = "direct_running_mode" in self.given
        return self.local and (not asked or mode in ("multi_processing", _OWN_PROCESSES))


def parse_options(beam_args: Sequence[str], *, also_known: Iterable[str] = ()) -> RunnerOptions:
    """Parses Beam's command-line options; a misspelt one may have meant one of `also_known`."""
    given = frozenset(re.findall(r"^--(\w+)", "\n".join(beam_args), re.MULTILINE))
    options = RunnerOptions(pipeline=PipelineOptions(list(beam_args)), given=given)
    if not options.local:
        _load_runner(options)
    # `PipelineOptions` keeps unknown flags without a word, and has no list of the known ones.
    parser = pipeline_options._BeamArgumentParser(allow_abbrev=False, add_help=False)  # noqa: SLF001
    for group in _list_groups(PipelineOptions):
        group._add_argparse_args(parser)  # noqa: SLF001
    parser.error = _refuse  # argparse would end this process
    _, unknown = parser.parse_known_args(list(beam_args))
    if unknown:
        known = {option for action in parser._actions for option in action.option_strings}  # noqa: SLF001
        name = unknown[0].split("=", 1)[0]
        near = suggest(name, {*known, *also_known})
        hint = f": did you mean {near}?" if near else ", neither by shardmill nor by Beam"
        raise UsageError(f"{name} is not known{hint}")
    clusters.check_dataflow(options.pipeline)
    return options


@contextlib.contextmanager
def start_workers(
    options: RunnerOptions, count: int, *places: Location
) -> Iterator[LocalWorkers | None]:
    """Starts `count` workers that use `places`, 0 for one a core; None if a runner has its own."""
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
    """Runs a pipeline of one transform to its end, with the workers that `start_workers` gave.

    A shared cluster shows it as `job`. While it runs, `on_poll` is called several times a second.
    Raises WorkerError at most 10 seconds after a local worker process died.
    """
    end: Future[Any] = Future()
    with clusters.complete_options(options.pipeline, options.given, job):
        pipeline, result = build_pipeline(transform, options, workers), None
        try:
            if not options.local:
                # Here, because only the main thread may handle signals, as Beam does where it
                # starts Prism or Flink's job server.
                result = _submit(pipeline)
                progress.get_phase().cancel_s = CANCEL_S
                # Only now, when Ctrl-C can cancel the job.
                if where := clusters.describe_job(result, options.pipeline):
                    _LOGGER.info(where)
            # A daemon, so that a runner that hangs does not keep this process alive.
            threading.Thread(
                target=_finish, args=(pipeline, result, end), name="run_pipeline", daemon=True
            ).start()
            _wait_for(end, workers, on_poll)
        except BaseException:
            if result is not None:
                # What ends this command matters more than a runner that cannot cancel.
                with contextlib.suppress(Exception):
                    result.cancel()
            raise
    _raise_failure(end)


def _submit(pipeline: beam.Pipeline) -> Any:
    try:
        return pipeline.run()
    except Exception as error:
        raise ShardmillError(summarize_error(error)) from error


def _finish(pipeline: beam.Pipeline, result: Any, end: Future[Any]) -> None:
    try:
        if result is None:
            result = pipeline.run()
        result.wait_until_finish()
        end.set_result(result.state)
    except BaseException as error:  # noqa: BLE001 (raised again in the main thread)
        end.set_exception(error)


def _wait_for(
    end: Future[Any], workers: LocalWorkers | None, on_poll: Callable[[], object]
) -> None:
    # In short waits, so that the bar moves, Ctrl-C gets through, and a dead worker is noticed.
    while not end.done():
        wait([end], POLL_S)
        on_poll()
        if workers is not None and workers.death is not None:
            wait([end], ABORT_TIMEOUT_S)  # FnApiRunner may hang for ever
            raise workers.death


def _raise_failure(end: Future[Any]) -> None:
    if (failure := end.exception()) is not None:
        raise ShardmillError(summarize_error(failure)) from failure
    if end.result() in (PipelineState.CANCELLED, PipelineState.DRAINED, PipelineState.FAILED):
        raise ShardmillError(
            f"the job ended as {end.result()}: finished shards are kept, run the same command "
            "again to go on"
        )


def build_pipeline(
    transform: beam.PTransform, options: RunnerOptions, workers: LocalWorkers | None
) -> beam.Pipeline:
    """Builds a pipeline of one transform for the runner of these options."""
    try:
        pipeline = beam.Pipeline(runner=_make_runner(options, workers), options=options.pipeline)
    except ValueError as error:
        raise UsageError("; ".join(line.strip(" .") for line in str(error).splitlines())) from error
    # Only cross-language transforms need this folder, and a kill would leave it behind.
    with contextlib.suppress(OSError):
        Path(pipeline.local_tempdir).rmdir()
    with _label_plainly():
        _ = pipeline | transform
    return pipeline


@contextlib.contextmanager
def _label_plainly() -> Iterator[None]:
    """Keeps Beam from putting the number of a notebook's cell into labels."""
    # For that it imports its data frames, which takes seconds, and fails with pandas 3 (2.77).
    module: Any = importlib.import_module("apache_beam.pipeline")
    alter, module.alter_label_if_ipython = module.alter_label_if_ipython, lambda *_: None
    try:
        yield
    finally:
        module.alter_label_if_ipython = alter


def _make_runner(options: RunnerOptions, workers: LocalWorkers | None) -> Any:
    if not options.local:
        return options.pipeline.view_as(StandardOptions).runner
    # Otherwise the workers of one run write about 47 lines to standard error.
    if "default_sdk_harness_log_level" not in options.given:
        worker = options.pipeline.view_as(pipeline_options.WorkerOptions)
        worker.default_sdk_harness_log_level = "ERROR"
    # FnApiRunner does not pass the options on by itself, credentials' locations among them.
    given = options.pipeline.get_all_options(drop_default=True)
    given.pop("direct_running_mode", None)  # set to ours by an earlier pipeline
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


def _load_runner(options: RunnerOptions) -> None:
    # The import makes the runner's options known to Beam.
    standard = options.pipeline.view_as(StandardOptions)
    if standard.runner.rpartition(".")[2].lower() == "daskrunner":
        standard.runner = DASK_RUNNER
        if importlib.util.find_spec("distributed") is None:
            raise UsageError(
                f"runner {DASK_RUNNER} is not available: pip install 'apache-beam[dask]'"
            )
    try:
        create_runner(standard.runner)
    except (ImportError, ValueError) as error:
        raise UsageError(f"runner {standard.runner!r} is not available: {error}") from error
    partitions = {"dask_npartitions", "dask_partition_size"}
    if standard.runner == DASK_RUNNER and not options.given & partitions:
        # By default a Dask worker gets 128 shards at a time: 64 of them all went to one worker.
        dask: Any = importlib.import_module(DASK_RUNNER.rpartition(".")[0])
        options.pipeline.view_as(dask.DaskOptions).partition_size = 1


def _list_groups(group: type[PipelineOptions]) -> Iterator[type[PipelineOptions]]:
    for subgroup in group.__subclasses__():
        if "_add_argparse_args" in vars(subgroup):
            yield subgroup
        yield from _list_groups(subgroup)


def _refuse(message: str) -> None:
    raise UsageError(message)


def summarize_error(error: BaseException) -> str:
    """One line that says what went wrong: of a worker's traceback, the last line with an error."""
    step = " [while running"  # Beam appends it to a message, with the name of the step
    if isinstance(error, ShardmillError):
        return str(error).partition(step)[0]
    if type(error).__name__ == "DataflowJobAlreadyExistsError":
        return (
            "a job of this name still runs, that of an earlier launcher: wait for its end, or "
            "cancel it, and run the same command again"
        )
    if not isinstance(error, RuntimeError) and "Traceback" not in str(error):
        first, *rest = f"the pipeline failed: {type(error).__name__}: {error}".splitlines()
        return f"{first} {rest[0]}" if rest and first.endswith(":") else first
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    reason = next((line for line in reversed(lines) if "Error: " in line), lines[0])
    reason = reason.partition(step)[0].removeprefix("RuntimeError: ")
    return re.sub(r"^converter\.errors\.\w+: ", "", reason)
