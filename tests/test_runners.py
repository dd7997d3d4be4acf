"""Which runner is chosen, and which options get through to it."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineResult, PipelineRunner, PipelineState

from converter.errors import OutputError, ShardmillError, UsageError
from pipelines.beam import runners


def test_beam_options_are_read() -> None:
    options = runners.parse_options(["--project=mine", "--direct_num_workers=3"])
    assert options.pipeline.view_as(GoogleCloudOptions).project == "mine"
    assert options.pipeline.view_as(DirectOptions).direct_num_workers == 3
    assert options.given == {"project", "direct_num_workers"}


@pytest.mark.parametrize("runner", [[], ["--runner=FlinkRunner"]])
def test_what_is_passed_on_to_workers_is_what_beam_reads(runner: list[str]) -> None:
    given = runners.parse_options(runner).pipeline.get_all_options(drop_default=True)
    again = PipelineOptions.from_dictionary(given)
    assert again.get_all_options(drop_default=True) == given


def test_a_runner_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^runner 'SpeedyRunner' is not available"):
        runners.parse_options(["--runner=SpeedyRunner"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--projct=mine", r"^--projct is not known: did you mean --project\?$"),
        ("--image-sise=3", r"^--image-sise is not known: did you mean --image-size\?$"),
        ("--qqq", r"^--qqq is not known, neither by shardmill nor by Beam$"),
    ],
)
def test_unknown_options_are_refused_with_the_nearest_spelling(argument: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        runners.parse_options([argument], also_known=["--image-size"])


@pytest.mark.parametrize(
    ("arguments", "local", "own"),
    [
        ([], True, True),
        (["--runner=DirectRunner"], True, True),
        (["--runner=FnApiRunner"], True, True),
        (["--direct_running_mode=multi_processing"], True, True),
        (["--direct_running_mode=in_memory"], True, False),
        (["--direct_running_mode=multi_threading"], True, False),
        (["--runner=FlinkRunner"], False, False),
    ],
)
def test_where_it_runs(arguments: list[str], local: bool, own: bool) -> None:  # noqa: FBT001
    options = runners.parse_options(arguments)
    assert (options.local, options.own_processes) == (local, own)


def test_a_local_run_never_looks_for_prism() -> None:
    options = runners.parse_options(["--runner=DirectRunner"])
    assert type(runners.build_pipeline(beam.Create([1]), options, None).runner) is FnApiRunner


@pytest.mark.parametrize(
    ("arguments", "asked", "count"),
    [
        ([], 2, 2),
        (["--direct_num_workers=3"], 0, 3),
        (["--direct_num_workers=1"], 0, 1),
        (["--direct_num_workers=3"], 1, 1),
    ],
)
def test_the_number_of_processes(arguments: list[str], asked: int, count: int) -> None:
    with runners.start_workers(runners.parse_options(arguments), asked) as workers:
        assert workers is not None
        assert workers.count == count


@pytest.mark.parametrize(
    "argument",
    ["--direct_running_mode=in_memory", "--direct_running_mode=multi_threading"],
)
def test_no_process_is_started_where_none_is_needed(argument: str) -> None:
    with runners.start_workers(runners.parse_options([argument]), 0) as workers:
        assert workers is None


def test_a_negative_number_of_processes_is_refused() -> None:
    with (
        pytest.raises(UsageError, match=r"^workers -2 .*: 1 or more"),
        runners.start_workers(runners.parse_options([]), -2),
    ):
        pass


def test_processes_without_a_use_are_refused() -> None:
    options = runners.parse_options(["--direct_running_mode=in_memory"])
    with (
        pytest.raises(UsageError, match=r"^workers 4 is for local"),
        runners.start_workers(options, 4),
    ):
        pass


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RuntimeError(
                'Traceback (most recent call last):\n  File "x.py", line 1, in y\n'
                "RuntimeError: converter.errors.OutputError: /out/a cannot be written: No space "
                "left on device [while running 'MillShards/MillShard']\n\n"
            ),
            "/out/a cannot be written: No space left on device",
        ),
        (RuntimeError("Beam is\nconfused"), "Beam is"),
        (ValueError("odd\nand long"), "the pipeline failed: ValueError: odd"),
        (OutputError("/out/a is full"), "/out/a is full"),
        (
            Exception("The job failed. State: FAILED, Error:\nno such machine type\nand more"),
            "the pipeline failed: Exception: The job failed. State: FAILED, Error: no such machine "
            "type",
        ),
    ],
)
def test_an_error_is_cut_down_to_one_line(error: Exception, line: str) -> None:
    assert runners.summarize_error(error) == line


class OtherRunner(PipelineRunner):
    """Starts a pipeline as those do that handle signals, and fails when it is waited for."""

    def run_pipeline(self, pipeline: beam.Pipeline, options: PipelineOptions) -> OtherResult:
        signal.signal(signal.SIGUSR2, signal.getsignal(signal.SIGUSR2))
        if options.view_as(StandardOptions).streaming:
            raise ValueError("no streams here\nnor elsewhere")
        return OtherResult(PipelineState.RUNNING)


class OtherResult(PipelineResult):
    def wait_until_finish(self, duration: int | None = None) -> None:
        raise RuntimeError("the engine is gone")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the engine is gone"),
        (["--streaming"], "the pipeline failed: ValueError: no streams here"),
    ],
)
def test_another_runner_starts_in_this_thread_and_is_waited_for_in_another(
    arguments: list[str], message: str
) -> None:
    options = runners.parse_options([f"--runner={__name__}.OtherRunner", *arguments])
    with pytest.raises(ShardmillError, match=f"^{message}$"):
        runners.run_pipeline(beam.Create([1]), options, None, job="", on_poll=lambda: None)


def test_nothing_is_left_in_the_temporary_folder_for_a_kill_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    transform = beam.Create([1])
    pipeline = runners.build_pipeline(transform, runners.parse_options([]), None)
    assert list(tmp_path.iterdir()) == []
    assert pipeline.run().wait_until_finish() == "DONE"


class CancelledRunner(PipelineRunner):
    def run_pipeline(self, pipeline: beam.Pipeline, options: PipelineOptions) -> PipelineResult:
        return CancelledResult(PipelineState.CANCELLED)


class CancelledResult(PipelineResult):
    def wait_until_finish(self, duration: int | None = None) -> None:
        pass


def test_a_job_that_was_cancelled_is_no_success() -> None:
    options = runners.parse_options([f"--runner={__name__}.CancelledRunner"])
    with pytest.raises(ShardmillError, match="job ended as CANCELLED"):
        runners.run_pipeline(beam.Create([1]), options, None, job="", on_poll=lambda: None)
