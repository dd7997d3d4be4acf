"""A conversion submitted to Dataflow, of which a stand-in is all that can be started here."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_environment

pytest.importorskip("google.cloud.dataflow", reason="needs pip install 'apache-beam[gcp]'")
pytest.importorskip("gcp_storage_emulator", reason="needs pip install gcp-storage-emulator")

import dataflow
from dataflow_standin import StandIn


def test_what_is_staged_writes_what_a_local_run_writes(image_folder: Path, tmp_path: Path) -> None:
    checks = list(dataflow.prove(image_folder, tmp_path))
    assert [check for check in checks if not check[2]] == []
    assert len(checks) == 16


def test_an_interrupted_launcher_cancels_its_job(image_folder: Path, tmp_path: Path) -> None:
    with dataflow.run_store() as store, StandIn(store, tmp_path, hold=True) as stand_in:
        arguments = [*dataflow.ASKED, "--no_auth", f"--dataflow_endpoint={stand_in.address}"]
        with subprocess.Popen(
            [sys.executable, "-m", "pipelines", "convert", image_folder, tmp_path / "out",
             "--runner=DataflowRunner", "--shared-paths", *arguments, "--no-progress"],
            env=make_environment(STORAGE_EMULATOR_HOST=store),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:  # fmt: skip
            assert process.stderr is not None
            assert "/dataflow/jobs/europe-west1/job-0?" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert said == "shardmill: interrupted; run the same command again to go on\n"
        assert stand_in.describe("job-0")["currentState"] == "JOB_STATE_CANCELLED"
