"""The same command line on a real Dask cluster, also while one of its workers is killed."""

import importlib.util
from pathlib import Path

import pytest

from converter.errors import UsageError
from pipelines.beam import clusters, runners


def test_a_cluster_leaves_the_tree_of_a_local_run_though_a_worker_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(
        "distributed", reason="Dask is not installed: pip install 'apache-beam[dask]'"
    )
    from engines.dask import prove_dask
    from engines.proof import make_images

    proof = prove_dask(*make_images(tmp_path, 160, 10_000), tmp_path / "dask")
    assert not proof.missed, capsys.readouterr().out


@pytest.mark.parametrize("name", ["DaskRunner", "daskrunner", runners.DASK_RUNNER])
@pytest.mark.parametrize(
    ("argument", "size"), [("--dask_client_name=a", 1), ("--dask_npartitions=4", None)]
)
def test_each_shard_is_a_task_unless_asked_otherwise(
    name: str, argument: str, size: int | None
) -> None:
    pytest.importorskip(
        "distributed", reason="Dask is not installed: pip install 'apache-beam[dask]'"
    )
    options = runners.parse_options([f"--runner={name}", argument])
    assert not options.local
    assert options.pipeline.get_all_options()["partition_size"] == size


def test_without_dask_its_runner_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'apache-beam\[dask\]'$"):
        runners.parse_options(["--runner=DaskRunner"])


def test_a_folder_of_this_machine_is_refused_where_the_scheduler_is_on_another(
    tmp_path: Path,
) -> None:
    pytest.importorskip(
        "distributed", reason="Dask is not installed: pip install 'apache-beam[dask]'"
    )
    here, there = (
        ["--runner=DaskRunner", f"--dask_client_address=tcp://{host}:8786"]
        for host in ("127.0.0.1", "10.0.0.1")
    )
    for arguments in (here, [*there, "--shared_paths"]):
        clusters.check_paths(runners.parse_options(arguments).pipeline, tmp_path)
    with pytest.raises(UsageError, match=r"workers on tcp://10\.0\.0\.1:8786 "):
        clusters.check_paths(runners.parse_options(there).pipeline, tmp_path)
