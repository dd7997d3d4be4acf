"""Which runner is chosen, and which options get through to it."""

from __future__ import annotations

import pytest
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from converter.errors import ShardmillError, UsageError
from pipelines import runners


def test_beam_options_are_read() -> None:
    options = runners.parse_options(["--project=mine", "--direct_num_workers=3"])
    assert options.view_as(GoogleCloudOptions).project == "mine"
    assert options.view_as(DirectOptions).direct_num_workers == 3


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
    ("argument", "local"),
    [
        ("--runner=DirectRunner", True),
        ("--runner=FnApiRunner", True),
        ("--runner=local", True),
        ("--project=none", True),
        ("--runner=DataflowRunner", False),
        ("--runner=FlinkRunner", False),
    ],
)
def test_local_runners_are_told_from_remote_ones(argument: str, local: bool) -> None:  # noqa: FBT001
    assert runners.is_local(runners.parse_options([argument])) is local


def test_a_local_run_never_looks_for_prism() -> None:
    options = runners.parse_options(["--runner=DirectRunner"])
    assert type(runners._make_runner(options, None)) is FnApiRunner


@pytest.mark.parametrize(
    ("arguments", "asked", "count"),
    [([], 2, 2), (["--direct_num_workers=3"], 0, 3), (["--direct_num_workers=3"], 1, 1)],
)
def test_the_number_of_processes(arguments: list[str], asked: int, count: int) -> None:
    with runners.start_workers(runners.parse_options(arguments), asked) as workers:
        assert workers is not None
        assert workers.count == count


@pytest.mark.parametrize(
    "argument",
    ["--direct_running_mode=in_memory", "--direct_running_mode=multi_threading", "--runner=Flink"],
)
def test_no_process_is_started_where_none_is_needed(argument: str) -> None:
    with runners.start_workers(runners.parse_options([argument]), 0) as workers:
        assert workers is None


def test_a_negative_number_of_processes_is_refused() -> None:
    with (
        pytest.raises(
            UsageError, match=r"^workers -2 is out of range: 1 or more, or 0 for one a core$"
        ),
        runners.start_workers(runners.parse_options([]), -2),
    ):
        pass


def test_beams_error_is_cut_down_to_its_reason() -> None:
    beam_error = RuntimeError(
        'Traceback (most recent call last):\n  File "x.py", line 1, in y\n'
        "RuntimeError: converter.errors.OutputError: /out/a cannot be written: No space left on "
        "device [while running 'MillShards/MillShard']\n\n"
    )
    short = runners._shorten(beam_error)
    assert type(short) is ShardmillError
    assert str(short) == "/out/a cannot be written: No space left on device"


def test_an_error_that_is_not_beams_stays_as_it_is() -> None:
    error = ValueError("mine")
    assert runners._shorten(error) is error
