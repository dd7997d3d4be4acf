"""The wheel that workers are given."""

import importlib.metadata
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import PIL
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import converter
from converter.errors import UsageError
from pipelines.beam import clusters
from pipelines.cli.commands import main

ROOT = Path(__file__).resolve().parents[1]


def test_the_same_code_gives_the_same_wheel(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    one, other = clusters.write_wheel(tmp_path), clusters.write_wheel(tmp_path / "again")
    assert one.name == f"shardmill-{converter.__version__}-py3-none-any.whl"
    assert one.read_bytes() == other.read_bytes()


def test_it_holds_every_source_file_and_nothing_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(clusters.write_wheel(tmp_path)) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == {
        path.relative_to(ROOT).as_posix()
        for package in clusters.PACKAGES
        for pattern in ("*.py", "py.typed")
        for path in (ROOT / package).rglob(pattern)
    }


def test_pip_takes_it_and_what_is_installed_runs(tmp_path: Path) -> None:
    wheel = clusters.write_wheel(tmp_path)
    target = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", target, wheel], check=True, timeout=120)
    run = subprocess.run(
        [sys.executable, "-c", "import pipelines.beam.transforms as t; print(t.__file__)"],
        cwd=target, env={"PYTHONPATH": str(target)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(run.stdout.strip()) == target / "pipelines" / "beam" / "transforms.py"


def test_workers_need_the_pillow_of_the_launcher_and_no_tensorflow() -> None:
    names = {requirement.name: requirement for requirement in clusters.list_requirements()}
    assert names["pillow"] == Requirement(f"pillow=={PIL.__version__}")
    assert {"apache-beam", "google-crc32c", "numpy", "tqdm"} <= names.keys()
    assert not {"tensorflow", "pytest", "ruff"} & names.keys()


def test_extras_that_the_launcher_has_are_for_workers_too(monkeypatch) -> None:
    texts = [
        "pillow>=12.3",
        "pillow-heif>=1.1; extra == 'heif'",
        "pytest>=8; extra == 's3'",
        "no-such-package-1; extra == 'gs'",
        "ruff; extra == 'dev'",
    ]
    versions = {"pillow": "12.3.0", "pytest": "8"}

    def find_version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "metadata", lambda _: _Metadata(texts))
    monkeypatch.setattr(importlib.metadata, "version", find_version)
    assert [str(found) for found in clusters.list_requirements()] == ["pillow==12.3.0", "pytest>=8"]
    versions["pillow-heif"] = "1.2"
    assert "pillow-heif==1.2" in [str(found) for found in clusters.list_requirements()]


class _Metadata:
    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def get_all(self, _name: str, _default: object) -> list[str]:
        return self._texts


def test_without_an_installation_the_error_says_what_to_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(clusters, "DISTRIBUTION", "shardmill-that-is-not-there")
    with pytest.raises(UsageError, match=r"is not installed here.*--sdk_container_image"):
        clusters.write_wheel(tmp_path)


def test_an_environment_of_the_base_requirements_alone_converts(
    image_folder: Path, tmp_path: Path
) -> None:
    """A venv that sees nothing but what the wheel requires, and what that requires in turn."""
    wheel, out = clusters.write_wheel(tmp_path), tmp_path / "out"
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    linked = link_distributions(clusters.list_requirements(), tmp_path / "base")
    assert {"apache-beam", "pillow"} <= linked
    assert "tensorflow" not in linked
    run = subprocess.run(
        [python, "-m", "pipelines", "convert", image_folder, out, "--workers=1", "--no-progress"],
        cwd=tmp_path, env={"PYTHONPATH": f"{wheel}:{tmp_path / 'base'}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert main(["verify", str(out), "--no-progress"]) == 0


def link_distributions(requirements: list[Requirement], folder: Path) -> set[str]:
    """Links what a few distributions consist of, and all that they require; their names."""
    folder.mkdir()
    names, remaining = set(), [requirement.name for requirement in requirements]
    while remaining:
        name = canonicalize_name(remaining.pop())
        if name in names:
            continue
        names.add(name)
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if ".." not in file.parts}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
        remaining += [
            requirement.name
            for requirement in map(Requirement, distribution.requires or ())
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ]
    return names
