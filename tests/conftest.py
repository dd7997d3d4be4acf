"""Fixtures shared by all tests.

Images: `image_folder`, a class-per-folder tree with every trait that matters; made once.
Data sets: `converted`, that tree as a data set; read only.
Object stores: `server`, each kind in turn; processes that live until the last test.
Both are made here from arithmetic, so the tests need no file from elsewhere.
"""

import contextlib
import gc
import io
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import hypothesis
import numpy as np
import proofs
import pytest
from browser import chromium  # noqa: F401 (a fixture)
from PIL import Image, ImageCms
from servers import run_server

from converter.commits.commit import commit
from converter.errors import ImageError
from converter.format.schema import Column
from converter.inventory import Entry
from converter.options import ConvertOptions
from converter.planning.plan import Plan, write_plan
from converter.planning.splits import draw
from converter.sources.inputs import locate_root
from converter.sources.recognition import resolve_options
from converter.storage.disk import DiskPath
from converter.storage.files import COMPANIONS
from converter.storage.locate import locate_output
from converter.writing.records import Record, make_records
from converter.writing.shard_writer import Job, write_shard
from pipelines.jobs.preview import propose
from reader.records.record_files import RecordFiles

KINDS = {
    "proof": (
        "dask dataflow determinism faults flink grain gs_tensorflow hostile hostile_files "
        "hostile_images hostile_messages hostile_records installs notebook parts planning_scale "
        "processes resume_callback site soak torch wheel wheel_building "
    ),
    "system": (
        "archives bars batch batches bench cache clusters coco commands commit completion "
        "contact_sheet conversion costs damage dataset decoding detections docs docs_script "
        "duplicates export export_names export_readers export_stores export_targets frames "
        "frameworks hosts image_choice image_decoders image_metadata image_notes indexing "
        "input_stats inspection isolation joined keras layers leftovers locks masks mixing "
        "multi_size object_files object_repairs object_updates objects open_remote own_sets "
        "parquet parquet_headers patterns pipeline pixel_statistics placement planned_parts "
        "planning_steps preprocessing preview public_api range_reads read_plan readahead "
        "reading_masks remote_reading repairs replacements report_page reporting reports "
        "request resume roundtrip runners scan sequence serializable shard_cache shard_groups "
        "shardset source stored_records stored_sources stores table_cases tables terminal tfds "
        "tfds_sets tfds_written tfrecord_sets threads train transforms truncated_sets updates "
        "verification view view_page voc webdataset workers yolo "
    ),
}
"""The files of tests that are not `unit`. Those of `system` start processes, servers, Beam or
TensorFlow; those of `proof` show on the whole what others show of parts: see CONTRIBUTING.md."""

Content = TypeVar("Content")

# On a busy machine any example may take long: of time, tests say themselves what they hold to.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

SHARED = DiskPath(__file__).resolve().parents[2] / "shared"


def make_image(seed: int, height: int = 24, width: int = 32, mode: str = "RGB") -> Image.Image:
    """A smooth picture that no other seed gives: a gradient in each channel."""
    x, y = (np.arange(side).astype(np.uint8) for side in (width, height))
    bands = []
    for band in range(len(mode)):
        step = 1 + (seed * 7 + band * 3) % 11
        bands.append(Image.fromarray(x * step + y[:, None] * (band + 2) + seed * 13 % 256))
    return bands[0] if len(bands) == 1 else Image.merge(mode, bands)


def encode_image(image: Image.Image, file_format: str = "JPEG", **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def write_image(path: Path, seed: int, file_format: str = "PNG", **options: object) -> None:
    """Writes one picture, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(make_image(seed), file_format, **options))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collects tests without looks for garbage in between: 13 s of CPU a process, not 21."""
    gc.disable()
    try:
        return (yield)
    finally:
        # A look at all that tests and libraries consist of would take 0.7 s again and again.
        gc.freeze()
        gc.enable()


def pytest_report_header() -> str:
    """Says which third of the proofs runs, and how to run the same again."""
    return proofs.describe_choice()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test by its file, and leaves out the proofs that are not asked for."""
    kinds = {f"test_{name}": kind for kind, names in KINDS.items() for name in names.split()}
    for item in items:
        item.add_marker(kinds.get(item.path.stem, "unit"))
    if (third := proofs.read_third()) is not None:
        items[:] = [
            item
            for item in items
            if not item.get_closest_marker("proof") or proofs.is_in(item.nodeid, third)
        ]


class _Folders:
    """Temporary folders as locations."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory

    def mktemp(self, name: str, **options: bool) -> DiskPath:
        return DiskPath(self._factory.mktemp(name, **options))

    def __getattr__(self, name: str) -> object:
        return getattr(self._factory, name)


@pytest.fixture(scope="session")
def tmp_path_factory(tmp_path_factory: pytest.TempPathFactory) -> _Folders:
    """Makes `tmp_path` a location, too."""
    return _Folders(tmp_path_factory)


def make_record(
    entry: Entry, text: str, images: Path, options: ConvertOptions, columns: Sequence[Column] = ()
) -> Record:
    """The record of an image that is alone in its file."""
    ((_, (outcome,)),) = make_records(entry, text, images, [options], columns)
    if isinstance(outcome, ImageError):
        raise outcome
    return outcome


def make_profile() -> bytes:
    """An ICC profile of RGB that is not sRGB: its red and blue have changed places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.index(b"rXYZ", 128), data.index(b"bXYZ", 128)
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def write_folder(images: Path, out: Path, options: ConvertOptions) -> Plan:
    """Plans and writes a folder in this process: all of a conversion but Beam and the commit."""
    options = resolve_options(images, options)
    draft = propose(images, options, always_sample=False).draft
    root = locate_root(images, options)
    plan = write_plan(draft, options, images=root, out=out)
    job = Job.of_plan(plan)
    for shard in plan.shards:
        write_shard(shard, job)
    return plan


def convert_folder(images: Path, out: Path, options: ConvertOptions) -> Plan:
    """`write_folder` and the commit: a finished data set without Beam."""
    plan = write_folder(images, out, options)
    commit(plan)
    return plan


def run_conversion(images: Path, out: Path, options=None, *beam_args, **settings):
    """Takes what `convert` takes, and returns the whole outcome."""
    from pipelines.jobs.convert import run_conversions  # loads Beam

    place = locate_output(out)
    return run_conversions(images, {place: options}, *beam_args, **settings)[place]


def read_tree(out: Path) -> dict[str, bytes]:
    """The content of each file in a folder, by its name, but for `COMPANIONS`."""
    files = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    return drop_companions(files)


def drop_companions(tree: dict[str, Content]) -> dict[str, Content]:
    """A tree without the log and the report, which hold times and so are no part of a data set."""
    return {name: data for name, data in tree.items() if name.split("/")[-1] not in COMPANIONS}


@contextlib.contextmanager
def limit_memory(most: int) -> Iterator[None]:
    """Holds what runs in it to fewer bytes of Python's memory at once."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most


def list_states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What changes when a file is written or replaced, by its path."""
    states = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*")}
    return {name: (s.st_ino, s.st_mtime_ns, s.st_size) for name, s in states.items()}


@pytest.fixture(scope="session")
def s3_server():
    """Amazon S3, as moto plays it."""
    with run_server("s3") as server:
        yield server


@pytest.fixture(scope="session")
def gs_server():
    """Google Cloud Storage, as its emulator plays it."""
    with run_server("gs") as server:
        yield server


@pytest.fixture(params=["s3", "gs"])
def server(request):
    """Each kind of store in turn, without faults at first."""
    running = request.getfixturevalue(f"{request.param}_server")
    running.set_faults()
    yield running
    running.set_faults()


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 small images in 3 classes: PNG and JPEG, names with spaces and beyond ASCII, nested."""
    root = tmp_path_factory.mktemp("images")
    for seed in range(72):
        label = ("ant", "bee", "cat with hat")[seed % 3]
        suffix, file_format = ((".png", "PNG"), (".JPG", "JPEG"))[seed % 2]
        nested = "deep/er" if seed % 5 == 0 else "."
        write_image(root / label / nested / f"bild {seed} ü{suffix}", seed, file_format)
    return root


@pytest.fixture(scope="session")
def converted(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`image_folder` as PNG of 16x20 in 3 shards a split, with a validation split."""
    out = tmp_path_factory.mktemp("converted") / "set"
    options = ConvertOptions(
        image_size=(16, 20), encoding="png", num_shards=3, validation_split=0.25
    )
    convert_folder(image_folder, out, options)
    return out


@pytest.fixture(scope="session")
def shared_images() -> Path:
    """Real photographs and drawings, where the machine has them."""
    if not (SHARED / "images").is_dir():
        pytest.skip(f"no real images at {SHARED / 'images'}")
    return SHARED / "images"


def read_record(files: RecordFiles, number: int) -> memoryview:
    """The payload of one record."""
    ((_, _, payload),) = files.read_many(np.array([number]))
    assert isinstance(payload, memoryview)
    return payload


def draw_split(path: str, options: ConvertOptions) -> str:
    """The split of an image that is in no group, where no split is given and none stratified."""
    share = draw(path, options).draw / 2**64
    limits = options.validation_split, options.validation_split + options.test_split
    return "validation" if share < limits[0] else "test" if share < limits[1] else "train"


@contextlib.contextmanager
def start_process(
    command: Sequence[object], *, env: Mapping[str, str], **streams: int
) -> Iterator[subprocess.Popen[str]]:
    """A process that Ctrl-C ends, and that is killed with the block."""
    with subprocess.Popen(
        [*map(str, command)],
        env=env,
        text=True,
        # A shell starts its background jobs, and so their children, with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        **streams,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def make_environment(**variables: str) -> dict[str, str]:
    """The environment of a process that imports what this one can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
