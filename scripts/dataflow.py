"""Submits a conversion to Dataflow as far as that goes without an account, and runs it.

    staging    into gcp-storage-emulator, a real process with the real protocol
    request    to a stand-in for Dataflow's endpoint, and compared with what was asked for
    execution  of the pipeline and the wheel that lie in the store, in a process of their own
    outcome    byte for byte that of a local run

Both "machines" are this one, so images and output lie on its disk.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpora import make_photos
from dataflow_standin import StandIn, list_packages
from measuring import report

HERE = Path(__file__).resolve()
BUCKET = "shardmill-staging"
ASKED = (
    "--project=shardmill-proof",
    "--region=europe-west1",
    f"--temp_location=gs://{BUCKET}/temp",
    "--machine_type=e2-standard-4",
    "--disk_size_gb=30",
    "--num_workers=3",
    "--max_num_workers=3",
    "--autoscaling_algorithm=NONE",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "build" / "dataflow")
    parser.add_argument("--count", type=int, default=200, help="photographs to convert")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    missed = sum(
        not report(what, value, ok=ok)
        for what, value, ok in prove(make_photos(arguments.work, arguments.count), arguments.work)
    )
    print(f"\n{missed} checks failed" if missed else "\nevery check passed")
    return 1 if missed else 0


def prove(images: Path, work: Path) -> Iterator[tuple[str, str, bool]]:
    """Converts images here and by way of Dataflow; each check, its value, whether it holds."""
    here, there = work / "here", work / "there"
    for out in (here, there):
        shutil.rmtree(out, ignore_errors=True)
    convert(images, here)
    with (
        run_store() as store,
        tempfile.TemporaryDirectory() as fetched,
        StandIn(store, Path(fetched)) as stand_in,
    ):
        submit(images, there, store, stand_in)
        (job,) = stand_in.jobs
        (told,) = stand_in.workers.values()
        yield from check_request(job)
        yield from check_worker(told, fetched)
    yield compare_trees(here, there)


def convert(images: Path, out: Path, *arguments: str, **variables: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pipelines", "convert", str(images), str(out), "--no-progress",
         *arguments],
        env={**os.environ, **variables},
        check=True,
    )  # fmt: skip


def submit(images: Path, out: Path, store: str, stand_in: StandIn) -> None:
    convert(
        images, out, "--runner=DataflowRunner", "--shared-paths", *ASKED, "--no_auth",
        f"--dataflow_endpoint={stand_in.address}", STORAGE_EMULATOR_HOST=store,
    )  # fmt: skip


def check_request(job: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Whether the job that was sent is the one that was asked for, and what was added to it."""
    (pool,) = job["environment"]["workerPools"]
    (image,) = pool["sdkHarnessContainerImages"]
    options = job["environment"]["sdkPipelineOptions"]["options"]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    scaling = pool["autoscalingSettings"]
    for what, value, expected in (
        ("machine type", pool["machineType"], "e2-standard-4"),
        ("disk, GB", pool["diskSizeGb"], 30),
        ("workers", pool["numWorkers"], 3),
        ("most workers", scaling["maxNumWorkers"], 3),
        ("autoscaling", scaling["algorithm"], "AUTOSCALING_ALGORITHM_NONE"),
        ("threads in a process", pool["numThreadsPerWorker"], 2),
        ("a process for each core", image["useSingleCorePerContainer"], True),
        ("region", options["region"], "europe-west1"),
        ("main session saved", options["save_main_session"], False),
    ):
        yield what, str(value), value in (expected, NUMBERS.get(expected))
    name = image["containerImage"]
    yield "container image", name, f"python{python}" in name
    yield "job", job["name"], job["name"].startswith("shardmill-")
    packages = sorted(package["name"] for package in list_packages(job))
    yield (
        "staged for workers",
        ", ".join(packages),
        any(name.startswith("shardmill-") and name.endswith(".whl") for name in packages),
    )


NUMBERS: dict[object, object] = {"AUTOSCALING_ALGORITHM_NONE": 1}
"""Beam asks the REST interface for numbers in place of names."""


def check_worker(told: dict[str, Any], folder: str) -> Iterator[tuple[str, str, bool]]:
    """Whether what was staged is what ran, and what it counted."""
    code = Path(told["code"])
    yield "code that ran", code.parents[1].name, code.is_relative_to(Path(folder).resolve())
    yield "TensorFlow loaded by the worker", str(told["tensorflow"]), not told["tensorflow"]
    names = sorted(told["counters"])
    yield "counters", ", ".join(names), {"images-written", "bytes-written"} <= set(names)


def compare_trees(one: Path, other: Path) -> tuple[str, str, bool]:
    trees = [
        {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for out in (one, other)
    ]
    differing = sorted(
        name for name in trees[0].keys() | trees[1].keys()
        if trees[0].get(name) != trees[1].get(name)
    )  # fmt: skip
    value = f"{len(differing)} of {len(trees[0])} files differ: {differing[:3]}"
    if not differing:
        value = f"{len(trees[0])} files are the same"
    return "the data set beside that of a local run", value, not differing


@contextlib.contextmanager
def run_store() -> Iterator[str]:
    """Runs gcp-storage-emulator; its address."""
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        port = line.getsockname()[1]
    tool = shutil.which("gcp-storage-emulator", path=str(Path(sys.executable).parent))
    if tool is None:
        raise SystemExit("gcp-storage-emulator is missing: pip install -e '.[dev]'")
    command = [tool, "start", "--host=127.0.0.1", f"--port={port}", "--in-memory",
               f"--default-bucket={BUCKET}"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing answers on port {port}")


if __name__ == "__main__":
    sys.exit(main())
