"""Submits a conversion to Dataflow as far as that goes without an account, and runs it.

    staging    into gcp-storage-emulator, a real process with the real protocol
    request    to a stand-in for Dataflow's endpoint, and compared with what was asked for
    execution  of the pipeline and the wheel that lie in the store, in a process of their own
    outcome    byte for byte that of a local run

Once with images and output in that store, as it would be, and once on the disk that all these
processes see.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.corpora import make_photos, write_pixels
from benchmarks.measuring import report
from dataflow.standin import StandIn, list_packages
from engines.proof import find_free_port, is_open

from converter.storage.files import COMPANIONS
from converter.storage.locate import parse_address
from converter.storage.location import Location
from converter.storage.object_requests import list_objects, put_object
from converter.storage.objects import ObjectPath

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
    parser.add_argument("--work", type=Path, default=HERE.parents[2] / "build" / "dataflow")
    parser.add_argument("--count", type=int, default=200, help="images to convert")
    parser.add_argument("--pixels", action="store_true", help="of one pixel, not photographs")
    parser.add_argument("--only", choices=("store", "disk"), help="where images and output lie")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    make = write_pixels if arguments.pixels else make_photos
    images, missed = make(arguments.work, arguments.count), 0
    asked = ["--image-size=8"] * arguments.pixels
    for place in ("store", "disk"):
        if arguments.only not in (None, place):
            continue
        print(f"\nimages and output in the {place}")
        checks = prove(images, arguments.work, asked, stored=place == "store")
        missed += sum(not report(what, value, ok=ok) for what, value, ok in checks)
    print(f"\n{missed} checks failed" if missed else "\nevery check passed")
    return 1 if missed else 0


def prove(
    images: Path, work: Path, asked: Sequence[str] = (), *, stored: bool
) -> Iterator[tuple[str, str, bool]]:
    """Converts images here and by way of Dataflow; each check, its value, whether it holds."""
    here, there = work / "here", work / "there"
    for out in (here, there):
        shutil.rmtree(out, ignore_errors=True)
    convert(images, here, *asked)
    with (
        run_store() as store,
        tempfile.TemporaryDirectory() as fetched,
        StandIn(store, Path(fetched)) as stand_in,
    ):
        endpoint = f"--dataflow_endpoint={stand_in.address}"
        submitted = ("--runner=DataflowRunner", "--plan-on=runner", *ASKED, "--no_auth", endpoint)
        if stored:
            target = parse_address(f"gs://{BUCKET}/sets/there")
            convert(upload(images), target, *asked, *submitted)
        else:
            target = there
            convert(images, target, "--shared-paths", *asked, *submitted)
        *planning, job = stand_in.jobs
        *_, told = stand_in.workers.values()
        value = ", ".join(each["name"] for each in planning)
        yield "jobs that plan", value or "none", len(planning) == 1
        yield from check_request(job)
        yield from check_worker(told, fetched)
        yield compare_trees(read_tree(here), read_tree(target))


def upload(images: Path) -> ObjectPath:
    """Copies a folder of images into the store."""
    address = parse_address(f"gs://{BUCKET}/photos")
    for path in images.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                put_object(address / path.relative_to(images).as_posix(), file)
    return address


def convert(images: Location, out: Location, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pipelines", "convert", str(images), str(out), "--no-progress",
         *arguments],
        check=True,
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


def read_tree(folder: Location) -> dict[str, bytes]:
    """All files below a folder, but for those that hold times."""
    if isinstance(folder, ObjectPath):
        paths = [path for path, _ in list_objects(folder) if path.name not in COMPANIONS]
        return {path.relative_to(folder): path.read_bytes() for path in paths}
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in COMPANIONS]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def compare_trees(here: dict[str, bytes], there: dict[str, bytes]) -> tuple[str, str, bool]:
    names = here.keys() | there.keys()
    differing = sorted(name for name in names if here.get(name) != there.get(name))
    value = f"{len(differing)} of {len(names)} files differ: {differing[:3]}"
    if not differing:
        value = f"{len(names)} files are the same"
    return "the data set beside that of a local run", value, not differing


@contextlib.contextmanager
def run_store() -> Iterator[str]:
    """Runs gcp-storage-emulator, and leads this process and those that it starts there."""
    port = find_free_port()
    tool = shutil.which("gcp-storage-emulator", path=str(Path(sys.executable).parent))
    if tool is None:
        raise SystemExit("gcp-storage-emulator is missing: pip install -e '.[dev]'")
    command = [tool, "start", "--host=127.0.0.1", f"--port={port}", "--in-memory",
               f"--default-bucket={BUCKET}"]  # fmt: skip
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,
        mock.patch.dict(os.environ, {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}),
    ):
        try:
            wait_for(port)
            yield os.environ["STORAGE_EMULATOR_HOST"]
        finally:
            process.kill()


def wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if is_open(port):
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing answers on port {port}")


if __name__ == "__main__":
    sys.exit(main())
