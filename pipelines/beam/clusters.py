"""Runners on other machines: what their workers can see, and what Dataflow is told unasked."""

from __future__ import annotations

import contextlib
import importlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners import create_runner

from converter.errors import UsageError
from converter.storage.location import Location
from pipelines.beam.wheel import DISTRIBUTION, write_wheel

DATAFLOW_RUNNERS: Final = ("dataflowrunner", "testdataflowrunner")

DATAFLOW_THREADS: Final = 2
"""Shards at a time in each of a worker's processes, of which there is one a core: one is written
while another waits for storage. More, as Dataflow chooses by itself, would hold as many images."""

ADDRESSES: Final = (
    "flink_master", "spark_master_url", "address", "job_endpoint",
)  # fmt: skip
"""Options of Beam that name a cluster, as Beam calls them inside: `address` is Dask's."""

_HERE: Final = re.compile(
    r"(\w+://)?(\[?(auto|local)\]?|local\[.*\]|localhost|127\..*|\[::1\])(:.*)?"
)
_OWN_WHEEL: Final = re.compile(rf"{DISTRIBUTION}-[^/]*$")


class ShardmillOptions(PipelineOptions):  # type: ignore[misc]  # Beam has no types
    """What shardmill itself wants to know of a runner, among Beam's options."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument(
            "--shared_paths",
            action="store_true",
            help="Workers on other machines have IMAGES and OUT under the same paths.",
        )


def is_dataflow(options: PipelineOptions) -> bool:
    """Whether the pipeline runs on Google Cloud Dataflow."""
    return _name_runner(options).rpartition(".")[2].lower() in DATAFLOW_RUNNERS


def check_paths(options: PipelineOptions, *paths: Location | None) -> None:
    """Refuses folders of this machine where workers run on others.

    Args:
        options: Beam's; `--shared_paths` says that the workers have them, too.
        paths: what workers read and write.

    Raises:
        UsageError: names the first one that workers will not find.
    """
    where = _find_cluster(options)
    if where is None or options.view_as(ShardmillOptions).shared_paths:
        return
    for path in paths:
        if path is not None and not path.is_remote:
            raise UsageError(
                f"{path} lies on this machine, where workers on {where} do not see it: give an "
                "address such as gs://bucket/folder, or say with --shared-paths that they have "
                "the same folder under this path"
            )


def check_dataflow(options: PipelineOptions) -> None:
    """Finds out, before anything is listed, whether Dataflow is told what it has to know.

    Raises:
        UsageError: an option is missing or makes no sense.
    """
    if not is_dataflow(options):
        return
    cloud, workers = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
    validator = PipelineOptionsValidator(options, create_runner(_name_runner(options)))
    faults = list(validator.validate_num_workers(workers))
    if validator.is_service_runner():  # and not something on this machine that stands for it
        faults += validator.validate_cloud_options(cloud)
    if faults:
        raise UsageError(f"Dataflow: {faults[0].rstrip('.')}")
    try:
        importlib.import_module("google.cloud.dataflow")
    except ImportError:
        raise UsageError(
            "Dataflow needs Google's client libraries, which are not installed: "
            "pip install 'shardmill[gcp]'"
        ) from None


@contextlib.contextmanager
def complete_options(options: PipelineOptions, given: frozenset[str], job: str) -> Iterator[None]:
    """Gives Dataflow what it has to know, as far as nobody gave it; other runners are left alone.

    What is to be staged lies in a temporary folder for as long as the context.

    Args:
        options: completed in place.
        given: names of those that were given.
        job: a name that no other data set has: Dataflow refuses a second job of the same name, so
            nobody writes the same shards while a killed launcher's job still runs.

    Raises:
        UsageError: no wheel of shardmill can be made.
    """
    if not is_dataflow(options):
        yield
        return
    setup, cloud = options.view_as(SetupOptions), options.view_as(GoogleCloudOptions)
    # Beam would stage all that this command has imported; workers import what they need by name.
    if not {"save_main_session", "no_save_main_session"} & given:
        setup.save_main_session = False
    if "number_of_worker_harness_threads" not in given:
        options.view_as(DebugOptions).number_of_worker_harness_threads = DATAFLOW_THREADS
    cloud.job_name = cloud.job_name or job
    with tempfile.TemporaryDirectory(prefix="shardmill-") as folder:
        if not _brings_shardmill(options):
            wheel = str(write_wheel(Path(folder)))
            setup.extra_packages = [*(setup.extra_packages or ()), wheel]
        yield


def describe_job(result: Any, options: PipelineOptions) -> str | None:
    """Where a job can be watched that has been submitted, if it is one that has such a place."""
    if not is_dataflow(options) or not getattr(result, "has_job", False):
        return None
    cloud = options.view_as(GoogleCloudOptions)
    page = f"https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{result.job_id()}"
    return f"Dataflow job {cloud.job_name}: {page}?project={cloud.project}"


def _brings_shardmill(options: PipelineOptions) -> bool:
    setup = options.view_as(SetupOptions)
    if options.view_as(WorkerOptions).sdk_container_image or setup.setup_file:
        return True
    return any(_OWN_WHEEL.search(package) for package in setup.extra_packages or ())


def _find_cluster(options: PipelineOptions) -> str | None:
    if is_dataflow(options):
        return "Dataflow"
    return next((address for address in _list_addresses(options) if not _is_here(address)), None)


def _list_addresses(options: PipelineOptions) -> Iterator[str]:
    for name, value in options.get_all_options(drop_default=True).items():
        if name in ADDRESSES and value:
            yield str(value)


def _is_here(address: str) -> bool:
    return _HERE.fullmatch(address) is not None


def _name_runner(options: PipelineOptions) -> str:
    return options.view_as(StandardOptions).runner or ""
