"""Runners on other machines: what their workers can see, and what Dataflow and its workers get."""

import base64
import contextlib
import hashlib
import importlib
import importlib.metadata
import re
import tempfile
import zipfile
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
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import converter
from converter.errors import UsageError
from converter.storage.location import Location

DISTRIBUTION: Final = "shardmill"
PACKAGES: Final = ("converter", "pipelines", "reader")
DATAFLOW_RUNNERS: Final = ("dataflowrunner", "testdataflowrunner")

# Shards at a time in each worker process, one process per core: one shard is written while another
# waits for storage. Dataflow's default is higher, and each shard holds an image.
DATAFLOW_THREADS: Final = 2

# Beam's internal names of the options that name a cluster; `address` is Dask's.
ADDRESSES: Final = ("flink_master", "spark_master_url", "address", "job_endpoint")

# Workers also get these extras if the launcher has them: stores and image formats.
EXTRAS: Final = ("gs", "s3", "heif")

# Decoders and encoders whose versions decide the bytes of a data set.
EXACT: Final = ("pillow", "pillow-heif")

# `[auto]` and `[local]` are Flink's words for this machine, `local[4]` is Spark's.
_HERE: Final = re.compile(
    r"(\w+://)?(\[?(auto|local)\]?|local\[.*\]|localhost|127\..*|\[::1\])(:.*)?"
)
_OWN_WHEEL: Final = re.compile(rf"{DISTRIBUTION}-[^/]*$")
_WHEEL: Final = (
    "Wheel-Version: 1.0\nGenerator: shardmill\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
)


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
    runner = options.view_as(StandardOptions).runner or ""
    return runner.rpartition(".")[2].lower() in DATAFLOW_RUNNERS


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
    runner = create_runner(options.view_as(StandardOptions).runner)
    validator = PipelineOptionsValidator(options, runner)
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
            "pip install 'apache-beam[gcp]'"
        ) from None


@contextlib.contextmanager
def complete_options(options: PipelineOptions, given: frozenset[str], job: str) -> Iterator[None]:
    """Sets the options that Dataflow needs and that are not given; leaves other runners alone."""
    if not is_dataflow(options):
        yield
        return
    setup, cloud = options.view_as(SetupOptions), options.view_as(GoogleCloudOptions)
    # Beam would pickle everything this command has imported; workers import by name.
    if not {"save_main_session", "no_save_main_session"} & given:
        setup.save_main_session = False
    if "number_of_worker_harness_threads" not in given:
        options.view_as(DebugOptions).number_of_worker_harness_threads = DATAFLOW_THREADS
    # Dataflow refuses a second job of the same name, so no shard is written twice while the job of
    # a killed launcher still runs.
    if "job_name" not in given:
        cloud.job_name = job
    packages = setup.extra_packages or []
    # Beam stages the wheel when it submits the job, that is within the block.
    with tempfile.TemporaryDirectory(prefix="shardmill-") as folder:
        installed = options.view_as(WorkerOptions).sdk_container_image or setup.setup_file
        if not installed and not any(map(_OWN_WHEEL.search, packages)):
            setup.extra_packages = [*packages, str(write_wheel(Path(folder)))]
        yield
    setup.extra_packages = packages  # the next job gets a wheel of its own


def describe_job(result: Any, options: PipelineOptions) -> str | None:
    """Says where to watch a submitted job, if its runner has a page for it."""
    if not is_dataflow(options) or not getattr(result, "has_job", False):
        return None
    cloud = options.view_as(GoogleCloudOptions)
    page = f"https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{result.job_id()}"
    return f"Dataflow job {cloud.job_name}: {page}?project={cloud.project}"


def write_wheel(folder: Path) -> Path:
    """Packs shardmill into a wheel for workers with only Beam; the same code, the same bytes."""
    # Written from the imported modules, so workers run the very code of the launcher. `pip wheel`
    # cannot replace this: it needs the source tree and hatchling, which an installed shardmill does
    # not have, and it knows neither the launcher's version of Pillow nor its extras.
    name = f"{DISTRIBUTION}-{converter.__version__}"
    info = f"{name}.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {DISTRIBUTION}",
        f"Version: {converter.__version__}",
        f"Requires-Python: {_read_metadata()['Requires-Python']}",
        *(f"Requires-Dist: {requirement}" for requirement in list_requirements()),
    ]
    root = Path(converter.__file__).parents[1]
    sources = (path for package in PACKAGES for path in sorted((root / package).rglob("*")))
    files = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sources
        if path.suffix == ".py" or path.name == "py.typed"
    }
    files[f"{info}/METADATA"] = ("\n".join(metadata) + "\n").encode()
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    # PEP 376: the name, the hash in Base64 without padding, and the size of each file.
    record = [f"{file},sha256={_digest(data)},{len(data)}\n" for file, data in files.items()]
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in files.items():
            # A bare `ZipInfo` is dated 1980, whenever the wheel is written.
            archive.writestr(zipfile.ZipInfo(file), data, zipfile.ZIP_DEFLATED)
    return path


def list_requirements() -> list[Requirement]:
    """What a worker needs: the base install, and those of `EXTRAS` that are installed here."""
    parsed = [Requirement(text) for text in _read_metadata().get_all("Requires-Dist", [])]
    chosen: list[Requirement] = []
    for extra in ("", *EXTRAS):
        more = [
            requirement
            for requirement in parsed
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        ]
        if not extra or all(_find_version(requirement.name) for requirement in more):
            chosen += [requirement for requirement in more if requirement not in chosen]
    for requirement in chosen:
        # A worker's pip is asked for no extras, so what is chosen is required.
        requirement.marker = None
        if requirement.name in EXACT:
            requirement.specifier = SpecifierSet(f"=={_find_version(requirement.name)}")
    return chosen


def _read_metadata() -> importlib.metadata.PackageMetadata:
    try:
        return importlib.metadata.metadata(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(
            f"{DISTRIBUTION} is not installed here, so no wheel of it can be made for workers: "
            "pip install it, or give --sdk_container_image or --extra_package"
        ) from None


def _find_version(name: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _find_cluster(options: PipelineOptions) -> str | None:
    if is_dataflow(options):
        return "Dataflow"
    given = options.get_all_options(drop_default=True)
    addresses = (str(given[name]) for name in ADDRESSES if given.get(name))
    return next((address for address in addresses if not _HERE.fullmatch(address)), None)
