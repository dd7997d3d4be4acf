"""Converts on a Dask cluster of a scheduler and two workers, and once more while one is killed."""

import json
import sys
from pathlib import Path

from engines.proof import PLANNED, WORK, Cluster, Proof, make_images, run_script

WORKERS = ("worker 1", "worker 2")


def main() -> int:
    return prove_dask(make_images(), WORK / "dask").conclude()


def prove_dask(images: Path, work: Path) -> Proof:
    with Cluster(work) as cluster:
        proof = Proof(images, work)
        arguments = ("--runner=DaskRunner", f"--dask_client_address={start_dask(cluster)}")
        proof.convert("Dask, two workers", arguments, cluster=cluster, workers=WORKERS)
        planned = (*arguments, PLANNED)
        proof.convert("Dask, which plans, too", planned, cluster=cluster, workers=WORKERS)
        proof.convert("Dask, one is killed", arguments, cluster=cluster, victim=WORKERS[1])
    return proof


def start_dask(cluster: Cluster) -> str:
    """Starts a scheduler and its workers; returns the address."""
    file = cluster.folder / "scheduler.json"
    common = ("--scheduler-file", file, "--no-dashboard")
    command = (sys.executable, "-m", "distributed.cli.dask_scheduler")
    cluster.start("scheduler", [*command, "--host=127.0.0.1", "--port=0", *common])
    cluster.wait_until("scheduler", lambda: bool(file.exists() and file.read_text().endswith("}")))
    command = (sys.executable, "-m", "distributed.cli.dask_worker")
    for name in WORKERS:
        place = ("--local-directory", cluster.folder / name)
        cluster.start(name, [*command, "--nthreads=1", "--nworkers=1", *place, *common])
        cluster.wait_for_text(name, "Registered to:")
    return str(json.loads(file.read_text())["address"])


if __name__ == "__main__":
    run_script(main)
