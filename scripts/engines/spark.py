"""Converts on Spark, within Beam's job server, with two Python workers."""

import sys
from pathlib import Path

from engines.parts import find_job_server, find_spark
from engines.proof import (
    OPENED,
    PLANNED,
    WORK,
    Cluster,
    Proof,
    find_free_port,
    is_open,
    parse_images,
    run_script,
)

DRIVER = "org.apache.beam.runners.spark.SparkJobServerDriver"


def main() -> int:
    photos, pixels = parse_images(__doc__)
    job_server, spark = find_job_server("spark-3"), find_spark()
    with Cluster(WORK / "spark") as cluster:
        proof = Proof(cluster.folder)
        pool = f"127.0.0.1:{find_free_port()}"
        arguments = (
            "--runner=PortableRunner",
            f"--job_endpoint=127.0.0.1:{start_spark(cluster, spark, job_server, pool)}",
            "--environment_type=EXTERNAL",
            f"--environment_config={pool}",
            "--sdk_worker_parallelism=2",
        )
        proof.convert(photos, "Spark, two Python workers", arguments)
        proof.convert(pixels, "Spark, which plans, too", (*arguments, PLANNED))
    return proof.conclude()


def start_spark(cluster: Cluster, spark: Path, job_server: Path, pool: str) -> int:
    """Starts a pool of workers, and a job server with Spark in it; returns the port of that."""
    port = find_free_port()
    cluster.start("pool", [sys.executable, Path(__file__).with_name("worker_pool.py"), pool])
    places = ("--job-host=127.0.0.1", f"--artifacts-dir={cluster.folder}")
    ports = (f"--job-port={port}", "--artifact-port=0", "--expansion-port=0")
    java = ("java", *OPENED, "-Xmx1g", "-cp", f"{job_server}/*:{spark}/*")
    cluster.start("job server", [*java, DRIVER, "--spark-master-url=local[2]", *places, *ports])
    cluster.wait_for_text("pool", "listening")
    cluster.wait_until("job server", lambda: is_open(port))
    return port


if __name__ == "__main__":
    run_script(main)
