"""The same bytes in any locale, time zone, year, hash seed, and order of a directory."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import convert_folder, write_image
from faults.experiment import BEAM, LOOP, Tree, finish, read_tree, start

from converter.options import ConvertOptions

OPTIONS = ConvertOptions(image_size=(16, 16), num_shards=3, validation_split=0.3, seed=7)
ARGUMENTS = (
    "--image-size=16", "--num-shards=3", "--validation-split=0.3", "--seed=7", "--no-progress"
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes and files whose order and case depend on the language that is asked."""
    root = tmp_path_factory.mktemp("images")
    for number in range(36):
        label = ("I", "i", "\u0131", "Z", "ä", "a")[number % 6]
        name = f"{('İ', 'ç', 'z', 'B')[number % 4]} {number}"
        write_image(root / label / f"{name}{('.GIF', '.png')[number % 2]}", number)
    (root / "Z" / "not an image.TIF").write_bytes(b"TIF")
    (root / "Z" / os.fsdecode(b"\xff.png")).write_bytes(b"name is not UTF-8")
    return root


@pytest.fixture(scope="module")
def reference(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    out = tmp_path_factory.mktemp("reference") / "out"
    convert_folder(images, out, OPTIONS)
    return read_tree(out)


@pytest.fixture
def convert(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tree]:
    """Converts in a process with other variables, perhaps started by another command."""

    def run(folder: Path = images, *prefix: str, **variables: str) -> Tree:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        command = [*prefix, *LOOP, "convert", str(folder), str(tmp_path / "out"), *ARGUMENTS]
        assert finish(start(command)) == (0, [])
        return read_tree(tmp_path / "out")

    return run


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({"LC_ALL": "C"}, id="C"),
        pytest.param({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, id="ASCII"),
        pytest.param({"TZ": "Pacific/Kiritimati"}, id="time zone"),
        pytest.param({"PYTHONHASHSEED": "1"}, id="hash seed 1"),
        pytest.param({"PYTHONHASHSEED": "2"}, id="hash seed 2"),
        # Not 2: beside pandas, Beam 2.77 reads docstrings while it is imported.
        pytest.param({"PYTHONOPTIMIZE": "1"}, id="optimized"),
    ],
)
def test_surroundings_do_not_show(
    convert: Callable[..., Tree], reference: Tree, variables: dict[str, str]
) -> None:
    assert convert(**variables) == reference


def test_a_turkish_locale_does_not_show(
    convert: Callable[..., Tree], reference: Tree, tmp_path: Path
) -> None:
    target = tmp_path / "locales" / "tr_TR.UTF-8"
    target.parent.mkdir()
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales/tr_TR").exists():
        pytest.skip("making a locale takes localedef and the sources of locales")
    subprocess.run(["localedef", "-i", "tr_TR", "-f", "UTF-8", target], check=True)
    variables = {"LOCPATH": str(target.parent), "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"}
    code = "import locale, sys; sys.exit(locale.setlocale(locale.LC_ALL, '') != 'tr_TR.UTF-8')"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **variables})
    assert convert(**variables) == reference


def test_the_year_2038_does_not_show(
    convert: Callable[..., Tree], reference: Tree, images: Path
) -> None:
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    # By then Google's libraries warn that this Python is old.
    quiet = {"PYTHONWARNINGS": "ignore::FutureWarning"}
    assert convert(images, "faketime", "2038-01-20 03:14:08", **quiet) == reference


def test_the_order_of_a_directory_does_not_show(
    convert: Callable[..., Tree], reference: Tree, images: Path, tmp_path: Path
) -> None:
    if os.geteuid() or shutil.which("disorderfs") is None or not Path("/dev/fuse").exists():
        pytest.skip("shuffling a directory takes disorderfs, /dev/fuse and root")
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    options = ["--shuffle-dirents=yes", "--multi-user=no", "--quiet"]
    subprocess.run(["disorderfs", *options, images, shuffled], check=True)
    try:
        orders = {tuple((shuffled / "Z").iterdir()) for _ in range(9)}
        assert len(orders) > 1
        assert convert(shuffled) == reference
    finally:
        subprocess.run(["umount", shuffled], check=True)


def test_hash_seeds_of_workers_do_not_show(images: Path, tmp_path: Path, reference: Tree) -> None:
    command = [*BEAM, "convert", str(images), str(tmp_path / "out"), *ARGUMENTS, "--workers=2"]
    assert finish(start(command)) == (0, [])
    assert read_tree(tmp_path / "out") == reference
