"""Converts on a Dask cluster of a scheduler and two workers, and once more while one is killed."""

import json
import sys
from pathlib import Path

from engines.proof import PLANNED, WORK, Cluster, Images, Proof, parse_images, run_script

WORKERS = ("worker 1", "worker 2")
SCHEDULER = "scheduler.json"


def main() -> int:
    return prove_dask(*parse_images(__doc__), WORK / "dask").conclude()


def prove_dask(photos: Images, pixels: Images, work: Path) -> Proof:
    proof = Proof(work)
    with Cluster(work) as cluster:
        arguments = ("--runner=DaskRunner", f"--dask_client_address={start_dask(cluster)}")
        proof.convert(photos, "Dask, two workers", arguments, cluster=cluster, workers=WORKERS)
        proof.convert(photos, "Dask, one is killed", arguments, cluster=cluster, victim=WORKERS[1])
        start_worker(cluster, WORKERS[1])
        what, planned = "Dask, one is killed while it plans", (*arguments, PLANNED)
        proof.convert(pixels, what, planned, cluster=cluster, victim=WORKERS[1])
    return proof


def start_dask(cluster: Cluster) -> str:
    """Starts a scheduler and its workers; returns the address."""
    command = (sys.executable, "-m", "distributed.cli.dask_scheduler", "--host=127.0.0.1")
    cluster.start("scheduler", [*command, "--port=0", *find_scheduler(cluster)])
    file = cluster.folder / SCHEDULER
    cluster.wait_until("scheduler", lambda: bool(file.exists() and file.read_text().endswith("}")))
    for name in WORKERS:
        start_worker(cluster, name)
    return str(json.loads(file.read_text())["address"])


def start_worker(cluster: Cluster, name: str) -> None:
    command = (sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads=1", "--nworkers=1")
    place = ("--local-directory", cluster.folder / name)
    cluster.start(name, [*command, *place, *find_scheduler(cluster)])
    cluster.wait_for_text(name, "Registered to:")


def find_scheduler(cluster: Cluster) -> tuple[object, ...]:
    """The arguments by which the processes find each other."""
    return "--scheduler-file", cluster.folder / SCHEDULER, "--no-dashboard"


if __name__ == "__main__":
    run_script(main)
