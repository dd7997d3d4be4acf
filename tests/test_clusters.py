"""Options of runners on other machines, checked and completed before anything is submitted."""

import tempfile
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
)

from converter.errors import UsageError
from converter.storage.disk import DiskPath
from converter.storage.locate import locate
from pipelines.beam import clusters, runners
from pipelines.cli.commands import main

DATAFLOW = ("--runner=DataflowRunner", "--project=mine-1234", "--region=europe-west1")


def parse(*arguments: str) -> PipelineOptions:
    """Options without any checks."""
    return PipelineOptions(list(arguments))


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (DATAFLOW, "Dataflow"),
        (("--runner=FlinkRunner", "--flink_master=cluster:8081"), "cluster:8081"),
        (("--runner=PortableRunner", "--job_endpoint=10.0.0.7:8099"), "10.0.0.7:8099"),
        (("--runner=SparkRunner", "--spark_master_url=spark://boss:7077"), "spark://boss:7077"),
    ],
)
def test_a_folder_here_is_refused_where_workers_run_elsewhere(
    arguments: tuple[str, ...], where: str
) -> None:
    with pytest.raises(UsageError, match=rf"^/photos .* workers on {where} "):
        clusters.check_paths(parse(*arguments), DiskPath("/photos"))
    clusters.check_paths(parse(*arguments, "--shared_paths"), DiskPath("/photos"))
    clusters.check_paths(parse(*arguments), locate("gs://bucket/photos"))


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--runner=FlinkRunner",),
        ("--runner=FlinkRunner", "--flink_master=[auto]"),
        ("--runner=FlinkRunner", "--flink_master=localhost:8081"),
        ("--runner=SparkRunner", "--spark_master_url=local[4]"),
        ("--runner=PortableRunner", "--job_endpoint=127.0.0.1:8099"),
    ],
)
def test_a_folder_here_is_fine_where_workers_run_here(arguments: tuple[str, ...]) -> None:
    clusters.check_paths(parse(*arguments), DiskPath("/photos"))


def test_the_command_refuses_before_it_looks_at_an_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("google.cloud.dataflow", reason="needs pip install 'apache-beam[gcp]'")
    assert main(["convert", str(tmp_path), str(tmp_path / "out"), *DATAFLOW]) == 2
    (tmp_path / "in").mkdir()
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / "out"), *DATAFLOW]) == 2
    assert "/in lies on this machine, where workers on Dataflow do" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("left_out", "message"),
    [("--project", "^Dataflow: Missing required option: project$"),
     ("--region", "^Dataflow: Missing required option: region$")],
)  # fmt: skip
def test_what_dataflow_has_to_know_is_asked_for_at_once(
    left_out: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLOUDSDK_COMPUTE_REGION", raising=False)
    arguments = [argument for argument in DATAFLOW if not argument.startswith(left_out)]
    with pytest.raises(UsageError, match=message):
        runners.parse_options(arguments)


def complete(*arguments: str) -> tuple[PipelineOptions, list[bool]]:
    """Completed options, and whether each package was there to be staged."""
    options = parse(*DATAFLOW, *arguments)
    given = frozenset(argument.lstrip("-").partition("=")[0] for argument in arguments)
    with clusters.complete_options(options, given, "shardmill-abc"):
        packages = options.view_as(SetupOptions).extra_packages or []
        return options, [Path(package).exists() for package in packages]


def test_missing_options_of_dataflow_are_set(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    options, packages = complete()
    assert packages == [True]
    assert list(tmp_path.iterdir()) == []
    assert options.view_as(GoogleCloudOptions).job_name == "shardmill-abc"
    assert options.view_as(SetupOptions).save_main_session is False
    assert options.view_as(DebugOptions).number_of_worker_harness_threads == 2


def test_given_options_stay() -> None:
    options, packages = complete(
        "--job_name=mine",
        "--save_main_session",
        "--number_of_worker_harness_threads=5",
        "--sdk_container_image=gcr.io/mine/shardmill:1",
    )
    assert packages == []
    assert options.view_as(GoogleCloudOptions).job_name == "mine"
    assert options.view_as(SetupOptions).save_main_session is True
    assert options.view_as(DebugOptions).number_of_worker_harness_threads == 5


@pytest.mark.parametrize(
    ("package", "count"), [("dist/shardmill-9.whl", 1), ("dist/other-1.whl", 2)]
)
def test_a_wheel_of_ones_own_takes_the_place_of_ours(package: str, count: int) -> None:
    _, packages = complete(f"--extra_package={package}")
    assert len(packages) == count


def test_other_runners_are_left_alone() -> None:
    options = parse("--runner=FlinkRunner")
    before = options.get_all_options()
    with clusters.complete_options(options, frozenset(), "shardmill-abc"):
        assert options.get_all_options() == before
