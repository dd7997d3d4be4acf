"""What `pip install` would get."""

import configparser
import email
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import converter

pytest.importorskip("hatchling")
requirements = pytest.importorskip("packaging.requirements")

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("converter", "pipelines", "reader")
DIST_INFO = f"shardmill-{converter.__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from this checkout without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def metadata(wheel):
    """The `METADATA` of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"{DIST_INFO}/METADATA"))


@pytest.fixture(scope="module")
def names(wheel) -> set[str]:
    """The files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def list_sources() -> set[str]:
    """The files of the packages: those of Python, and those that git knows where there is git."""
    paths = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", *PACKAGES]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        paths |= {path for path in listed.stdout.split("\0") if path and (ROOT / path).exists()}
    return paths


def test_the_wheel_is_for_every_platform(wheel):
    assert wheel.name == f"shardmill-{converter.__version__}-py3-none-any.whl"


def test_the_top_level_is_the_three_packages(names):
    assert {name.split("/")[0] for name in names} == {*PACKAGES, DIST_INFO}


def test_the_packages_hold_every_source_file_and_nothing_else(names):
    assert {name for name in names if not name.startswith(DIST_INFO)} == list_sources()
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_console_script_can_be_called(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"{DIST_INFO}/entry_points.txt").decode()
    scripts = configparser.ConfigParser()
    scripts.read_string(text)
    assert dict(scripts["console_scripts"]) == {"shardmill": "pipelines.__main__:main"}
    # From inside the wheel, so that no file of this checkout can stand in for a missing one.
    script = (
        f"import sys; sys.path.insert(0, {str(wheel)!r})\n"
        "from pipelines.cli.commands import main\n"
        "import converter, reader; print(converter.__file__, reader.__file__)\n"
        "sys.exit(main(['--version']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=wheel.parent, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == [
        f"{wheel}/converter/__init__.py {wheel}/reader/__init__.py",
        f"shardmill {converter.__version__}",
    ]


def test_the_metadata_says_what_it_is(metadata):
    assert (metadata["Name"], metadata["Version"]) == ("shardmill", converter.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.14,>=3.10"


def test_a_worker_gets_ten_requirements_and_no_tensorflow(metadata):
    parsed = [requirements.Requirement(text) for text in metadata.get_all("Requires-Dist")]
    base = sorted(r.name for r in parsed if r.marker is None)
    assert base == [
        "apache-beam",
        "google-crc32c",
        "jinja2",
        "numpy",
        "packaging",
        "pillow",
        "protobuf",
        "pyyaml",
        "shtab",
        "tqdm",
    ]
    assert all(r.specifier for r in parsed if r.marker is None)


def test_each_extra_brings_what_it_is_for(metadata):
    assert sorted(metadata.get_all("Provides-Extra")) == [
        "aws", "dask", "dev", "gcp", "gs", "heif", "read", "s3", "train", "view",
    ]  # fmt: skip
    parsed = [requirements.Requirement(text) for text in metadata.get_all("Requires-Dist")]

    def list_extra(extra):
        return [
            f"{r.name}{''.join(f'[{e}]' for e in r.extras)}"
            for r in parsed
            if r.marker is not None and r.marker.evaluate({"extra": extra})
        ]

    assert list_extra("read") == ["simplejpeg"]
    assert list_extra("train") == ["simplejpeg", "tensorflow"]
    assert list_extra("view") == ["flask"]
    assert list_extra("heif") == ["pillow-heif"]
    assert list_extra("gcp") == ["apache-beam[gcp]"]
    assert list_extra("aws") == ["apache-beam[aws]"]
    assert {"hypothesis", "pytest", "ruff", "mypy"} <= set(list_extra("dev"))


def test_the_licence_and_the_readme_are_in_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        licence = archive.read(f"{DIST_INFO}/licenses/LICENSE")
        metadata = archive.read(f"{DIST_INFO}/METADATA")
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert metadata.endswith((ROOT / "README.md").read_bytes())
