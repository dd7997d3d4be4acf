"""A conversion submitted to Dataflow, of which a stand-in is all that can be started here."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_environment, start_process

pytest.importorskip("google.cloud.dataflow", reason="needs pip install 'apache-beam[gcp]'")
pytest.importorskip("gcp_storage_emulator", reason="needs pip install gcp-storage-emulator")

from dataflow import submit
from dataflow.standin import StandIn


@pytest.mark.parametrize("stored", [True, False])
def test_what_is_staged_writes_what_a_local_run_writes(
    image_folder: Path, tmp_path: Path, *, stored: bool
) -> None:
    if stored:
        pytest.importorskip("gcsfs", reason="needs pip install gcsfs")
    checks = list(submit.prove(image_folder, tmp_path, stored=stored))
    assert [check for check in checks if not check[2]] == []
    assert len(checks) == 17


def start(
    images: Path, out: Path, stand_in: StandIn
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """A conversion whose job goes on until it is cancelled; it ends with the block."""
    arguments = [*submit.ASKED, "--no_auth", f"--dataflow_endpoint={stand_in.address}"]
    return start_process(
        [sys.executable, "-m", "pipelines", "convert", images, out, "--no-progress",
         "--runner=DataflowRunner", "--shared-paths", *arguments],
        env=make_environment(),
        stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_killed_launcher_leaves_its_job_alone_and_an_interrupted_one_cancels_it(
    image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with submit.run_store() as store, StandIn(store, tmp_path, hold=True) as stand_in:
        with start(image_folder, out, stand_in) as process:
            assert process.stderr is not None
            assert "/dataflow/jobs/europe-west1/job-0?" in process.stderr.readline()
            process.kill()
        with start(image_folder, out, stand_in) as process:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 1
            assert said.startswith("shardmill: error: a job of this name still runs, that of an ")
        assert stand_in.describe("job-0")["currentState"] == "JOB_STATE_RUNNING"
        stand_in.update("job-0", {})
        with start(image_folder, out, stand_in) as process:
            assert process.stderr is not None
            assert "/dataflow/jobs/europe-west1/job-1?" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=120)
        assert process.returncode == 130
        assert said.startswith("shardmill: interrupted: finished shards are kept, run the same ")
        assert stand_in.describe("job-1")["currentState"] == "JOB_STATE_CANCELLED"
