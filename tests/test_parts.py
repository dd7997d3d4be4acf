"""What a script does about parts of an engine that are not to be had, or are not the right ones."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engines import parts, proof


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(parts, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def put_on_path(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name which does what a shell script says."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), "/usr/bin", "/bin"]))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("sleep 60", "go took longer than 300 s"),
        ("echo fetching; echo 'ERROR: no such module' >&2; exit 3",
         "go failed: ERROR: no such module"),
        ("exit 3", "go failed: no word"),
    ],
)  # fmt: skip
def test_what_is_not_to_be_had_has_a_reason_and_leaves_nothing(
    script: str, message: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_path(tmp_path / "bin", "go", script, monkeypatch)
    soon = time.monotonic() + 0.5
    monkeypatch.setattr(parts, "find_deadline", lambda: soon)
    with pytest.raises(parts.Unavailable, match=f"^{message}$"):
        parts.find_prism()
    assert list(cache.iterdir()) == []


def test_a_tool_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(parts.Unavailable, match=r"^go is not installed$"):
        parts.find_prism()
    with pytest.raises(parts.Unavailable, match=r"^java is not installed$"):
        parts.find_job_server("flink-1.19")


def test_what_was_fetched_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'echo once >> {tmp_path}/calls; touch "$GOBIN/prism"'
    put_on_path(tmp_path / "bin", "go", script, monkeypatch)
    assert parts.find_prism() == parts.find_prism()
    assert parts.find_prism().exists()
    assert (tmp_path / "calls").read_text() == "once\n"


def test_jars_that_are_others_than_were_tried_are_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if parts.shutil.which("java") is None:
        pytest.skip("java is not installed")
    folder = cache / "job-server-flink-1.19"
    folder.mkdir(parents=True)
    (folder / "a.jar").write_bytes(b"a")
    listed = f"{hashlib.sha256(b'a').hexdigest()} a.jar\n"
    assert parts.list_files(folder) == listed
    digest = hashlib.sha256(listed.encode()).hexdigest()
    monkeypatch.setitem(parts.JARS, "job-server-flink-1.19", digest)
    assert parts.find_job_server("flink-1.19") == folder
    (folder / "a.jar").write_bytes(b"b")
    with pytest.raises(SystemExit, match="holds other jars"):
        parts.find_job_server("flink-1.19")


def test_the_exit_code_tells_an_engine_that_is_not_to_be_had_from_a_proof_that_failed(
    tmp_path: Path,
) -> None:
    code = (
        "from engines import parts, proof\n"
        "def main(): raise parts.Unavailable('mvn is not installed')\n"
        "proof.run_script(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path,
        env=proof.make_environment(PYTHONPATH=os.pathsep.join(sys.path)),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (69, "not to be had: mvn is not installed\n")
