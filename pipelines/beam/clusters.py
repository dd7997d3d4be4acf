"""Runners on other machines: what their workers can see, and the options that Dataflow needs."""

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
"""Shards at a time in each worker process, one process per core: one shard is written while
another waits for storage. Dataflow's default is higher, and each shard holds an image."""

ADDRESSES: Final = ("flink_master", "spark_master_url", "address", "job_endpoint")
"""Beam's internal names of the options that name a cluster; `address` is Dask's."""

_HERE: Final = re.compile(
    r"(\w+://)?(\[?(auto|local)\]?|local\[.*\]|localhost|127\..*|\[::1\])(:.*)?"
)
_OWN_WHEEL: Final = re.compile(rf"{DISTRIBUTION}-[^/]*$")


class ShardmillOptions(PipelineOptions):  # type: ignore[misc]  # Beam has no types
    """The options that shardmill adds to Beam's."""

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
    """Refuses a path of this machine if workers run on others, unless `--shared_paths` is set."""
    cluster = _find_cluster(options)
    if cluster is None or options.view_as(ShardmillOptions).shared_paths:
        return
    for path in paths:
        if path is not None and not path.is_remote:
            raise UsageError(
                f"{path} lies on this machine, where workers on {cluster} do not see it: give an "
                "address such as gs://bucket/folder, or say with --shared-paths that they have "
                "the same folder under this path"
            )


def check_dataflow(options: PipelineOptions) -> None:
    """Refuses missing or impossible options for Dataflow, before anything is listed."""
    if not is_dataflow(options):
        return
    validator = PipelineOptionsValidator(options, create_runner(_name_runner(options)))
    faults = list(validator.validate_num_workers(options.view_as(WorkerOptions)))
    if validator.is_service_runner():  # and not a stand-in on this machine
        faults += validator.validate_cloud_options(options.view_as(GoogleCloudOptions))
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
    """Sets the options that Dataflow needs and that are not given; leaves other runners alone.

    The files to stage exist as long as the block runs. The job has a name unique to the data set:
    Dataflow refuses a second one of the same name, so no shard is written twice while the job of a
    killed launcher still runs.
    """
    if not is_dataflow(options):
        yield
        return
    setup, cloud = options.view_as(SetupOptions), options.view_as(GoogleCloudOptions)
    # Beam would pickle everything this command has imported; workers import by name.
    if not {"save_main_session", "no_save_main_session"} & given:
        setup.save_main_session = False
    if "number_of_worker_harness_threads" not in given:
        options.view_as(DebugOptions).number_of_worker_harness_threads = DATAFLOW_THREADS
    cloud.job_name = cloud.job_name or job
    with tempfile.TemporaryDirectory(prefix="shardmill-") as folder:
        packages = setup.extra_packages or []
        installed = options.view_as(WorkerOptions).sdk_container_image or setup.setup_file
        if not installed and not any(map(_OWN_WHEEL.search, packages)):
            setup.extra_packages = [*packages, str(write_wheel(Path(folder)))]
        yield


def describe_job(result: Any, options: PipelineOptions) -> str | None:
    """Says where to watch a submitted job, if its runner has a page for it."""
    if not is_dataflow(options) or not getattr(result, "has_job", False):
        return None
    cloud = options.view_as(GoogleCloudOptions)
    page = f"https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{result.job_id()}"
    return f"Dataflow job {cloud.job_name}: {page}?project={cloud.project}"


def _find_cluster(options: PipelineOptions) -> str | None:
    if is_dataflow(options):
        return "Dataflow"
    given = options.get_all_options(drop_default=True)
    addresses = (str(given[name]) for name in ADDRESSES if given.get(name))
    return next((address for address in addresses if not _HERE.fullmatch(address)), None)


def _name_runner(options: PipelineOptions) -> str:
    return options.view_as(StandardOptions).runner or ""
