"""`scripts/docs`: it takes the Python that is active if that can build the site, else .venv."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import docs as site  # scripts/docs.py

EXTENSIONS = ("furo", "myst_parser", "sphinx_copybutton", "sphinx_design")


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """The script, with a setup and Pythons beside it that say that they were started."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(site.ROOT / "scripts" / "docs", tmp_path / "scripts" / "docs")
    write_program(tmp_path / "scripts" / "setup", 'echo "setup $*"')
    return tmp_path / "scripts"


def run(scripts: Path, *arguments: str, **environment: str) -> str:
    path = f"{scripts.parent / 'bin'}:/usr/bin:/bin"
    clean = {"PATH": path, "HOME": os.environ.get("HOME", "/"), **environment}
    command = [str(scripts / "docs"), *arguments]
    return subprocess.run(command, env=clean, capture_output=True, text=True, check=True).stdout


def test_the_active_python_builds_if_it_can_import_all_that_is_needed(scripts):
    answer = 'case $1 in -c) exit 0;; *) echo "$0 $*";; esac'
    write_program(scripts.parent / "bin" / "python", answer)
    said = run(scripts, "--out", "a b")
    assert said == f"{scripts.parent}/bin/python {scripts}/docs.py --out a b\n"


def test_python3_does_where_there_is_no_python(scripts):
    write_program(scripts.parent / "bin" / "python", "exit 1")
    write_program(scripts.parent / "bin" / "python3", '[ "$1" = -c ] || echo "third"')
    assert run(scripts) == "third\n"
    assert run(scripts, PYTHON="none") == f"setup python {scripts}/docs.py\n"


@pytest.mark.parametrize("name", ["python", "python3"])
def test_another_python_is_left_alone(scripts, name):
    for each in ("python", "python3"):
        write_program(scripts.parent / "bin" / each, "exit 1")
    write_program(scripts.parent / "bin" / name, "echo wrong; exit 1")
    assert run(scripts, "--external") == f"wrong\nsetup python {scripts}/docs.py --external\n"


def test_a_python_that_lacks_one_of_the_packages_is_left_alone(scripts):
    python = scripts.parent / "bin" / "python"
    write_program(
        python, f'[ "$1" = -c ] || {{ echo built; exit; }}; exec {sys.executable} -S "$@"'
    )
    packages = scripts.parent / "packages"
    text = (scripts / "docs").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("needed=")]
    for name in line.partition("=")[2].strip('"').split():
        assert run(scripts, PYTHON=str(python), PYTHONPATH=str(packages)).startswith("setup")
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").touch()
    assert run(scripts, PYTHON=str(python), PYTHONPATH=str(packages)) == "built\n"


def test_it_asks_for_what_the_site_is_configured_with():
    asked = (site.ROOT / "scripts" / "docs").read_text()
    configured = (site.ROOT / "docs" / "conf.py").read_text()
    for name in EXTENSIONS:
        assert f'"{name}"' in configured
        assert name in asked
