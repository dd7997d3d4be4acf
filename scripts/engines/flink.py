"""Converts on a Flink cluster of a JobManager and two TaskManagers, one of which is killed then.

Each TaskManager has a pool of Python workers of its own, as on machines of their own: both look for
it at `pool`, a name that means another loopback address for each of them.
"""

import json
import socket
import sys
import urllib.request
from pathlib import Path

from engines.parts import find_flink, find_job_server
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

MANAGERS = ("TaskManager 1", "TaskManager 2")
POOLS = ("pool 1", "pool 2")
ADDRESSES = ("127.0.0.11", "127.0.0.12")  # of the pools

RUNTIME = "org.apache.flink.runtime"
JAVA = ("java", *OPENED, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx384m")
DRIVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"

SETTINGS = """
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {rpc_port}
jobmanager.bind-host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: {rest_port}
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.numberOfTaskSlots: 2
taskmanager.cpu.cores: 2.0
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: 256m
taskmanager.memory.task.off-heap.size: 0m
taskmanager.memory.managed.size: 128m
taskmanager.memory.network.min: 64m
taskmanager.memory.network.max: 64m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
cluster.evenly-spread-out-slots: true
heartbeat.interval: 1000
heartbeat.timeout: 5000
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 5
restart-strategy.fixed-delay.delay: 1 s
io.tmp.dirs: {folder}
"""
"""Flink's own scripts work out the memory of a TaskManager; without them all has to be said."""


def main() -> int:
    photos, pixels = parse_images(__doc__)
    job_server, flink = find_job_server("flink-1.19"), find_flink()
    work = WORK / "flink"
    proof, port = Proof(work), find_free_port()
    with Cluster(work) as cluster:
        arguments = (
            "--runner=PortableRunner",
            f"--job_endpoint=127.0.0.1:{start_flink(cluster, flink, job_server, port)}",
            "--environment_type=EXTERNAL",
            f"--environment_config=pool:{port}",
            "--parallelism=2",
        )
        proof.convert(photos, "Flink, two TaskManagers", arguments, cluster=cluster, workers=POOLS)
        what = "Flink, one is killed"
        proof.convert(photos, what, arguments, cluster=cluster, victim=MANAGERS[1])
        start_manager(cluster, 1, flink)
        planned = (*arguments, PLANNED)
        what = "Flink, one is killed while it plans"
        proof.convert(pixels, what, planned, cluster=cluster, victim=MANAGERS[1])
    return proof.conclude()


def start_flink(cluster: Cluster, flink: Path, job_server: Path, pool_port: int) -> int:
    """Starts all of it; returns the port of Beam's job server."""
    rest_port, job_port = find_free_port(), find_free_port()
    settings = SETTINGS.format(
        rpc_port=find_free_port(), rest_port=rest_port, folder=cluster.folder
    )
    (cluster.folder / "config.yaml").write_text(settings)
    here = (f"{flink}/*", f"{RUNTIME}.entrypoint.StandaloneSessionClusterEntrypoint")
    cluster.start("JobManager", [*JAVA, "-cp", *here, "--configDir", cluster.folder])
    for number, name in enumerate(POOLS):
        script = Path(__file__).with_name("worker_pool.py")
        cluster.start(name, [sys.executable, script, f"{ADDRESSES[number]}:{pool_port}"])
        cluster.wait_for_text(name, "listening")
        start_manager(cluster, number, flink)
    cluster.wait_until("JobManager", lambda: count_slots(rest_port) == 2 * len(MANAGERS))
    places = (f"--flink-master=127.0.0.1:{rest_port}", f"--artifacts-dir={cluster.folder}")
    ports = (f"--job-port={job_port}", "--artifact-port=0", "--expansion-port=0")
    here = (f"{job_server}/*", DRIVER, "--job-host=127.0.0.1")
    cluster.start("job server", [*JAVA, "-cp", *here, *places, *ports])
    cluster.wait_until("job server", lambda: is_open(job_port))
    return job_port


def start_manager(cluster: Cluster, number: int, flink: Path) -> None:
    """Starts a TaskManager, which finds a pool of workers of its own under the name `pool`."""
    hosts = cluster.folder / f"hosts {number + 1}"
    hosts.write_text(f"127.0.0.1 localhost {socket.gethostname()}\n{ADDRESSES[number]} pool\n")
    here = (f"{flink}/*", f"{RUNTIME}.taskexecutor.TaskManagerRunner")
    names = f"-Djdk.net.hosts.file={hosts}"
    cluster.start(MANAGERS[number], [*JAVA, names, "-cp", *here, "--configDir", cluster.folder])


def count_slots(rest_port: int) -> int:
    """How many slots the JobManager knows of; 0 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}/overview", timeout=1) as answer:
            return int(json.load(answer)["slots-total"])
    except OSError:
        return 0


if __name__ == "__main__":
    run_script(main)
