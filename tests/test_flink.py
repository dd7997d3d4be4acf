"""The same command line on a real Flink cluster, also while one of its parts is killed."""

import os
import subprocess
import sys

import pytest
from engines import proof


@pytest.mark.timeout(900)  # the first time, it fetches Flink: 400 MB
def test_a_cluster_leaves_the_trees_of_local_runs_though_a_task_manager_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engines.flink", "--photos=160"],
        env=proof.make_environment(PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == proof.UNAVAILABLE:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
