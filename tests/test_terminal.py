"""The reader of a command's output may leave, and the command still does its work."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import make_environment
from faults.experiment import LOOP

from converter.upkeep.verification import verify_dataset
from pipelines.cli.terminal import PipeFile, outlast_readers

ASKED = ("--image-size=16", "--num-shards=3")


def run(command: list[str], *, left: str = "", closed: int | None = None) -> int:
    """Runs a command with one stream unread (`left`) or closed; gives the exit code."""
    read, write = os.pipe()
    os.close(read)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, left: write}
    streams.pop("", None)
    close = None if closed is None else lambda: os.close(closed)
    try:
        process = subprocess.run(
            command,
            check=False,
            env=make_environment(),
            timeout=120,
            preexec_fn=close,
            **streams,
        )
    finally:
        os.close(write)
    return process.returncode


@pytest.mark.parametrize(
    "how", [{"left": "stdout"}, {"left": "stderr"}, {"closed": 0}, {"closed": 1}, {"closed": 2}]
)
def test_a_conversion_without_a_reader_is_completed(
    image_folder: Path, tmp_path: Path, how: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    assert run([*LOOP, "convert", str(image_folder), str(out), *ASKED], **how) == 0
    assert verify_dataset(out) == []


def test_a_loop_in_the_place_of_beam_does_not_load_it() -> None:
    """It would take 2 s of CPU, in each of the hundreds of processes in which faults are tried."""
    script = (
        "import sys\n"
        "from faults import loop_runner\n"
        "loop_runner.replace_beam()\n"
        "import pipelines.jobs.convert\n"
        "sys.exit('apache_beam' in sys.modules)\n"
    )
    assert run([sys.executable, "-c", script]) == 0


def test_the_exit_code_of_a_check_does_not_depend_on_the_reader(
    converted: Path, tmp_path: Path
) -> None:
    verify = [sys.executable, "-m", "pipelines", "verify", "--no-progress"]
    assert run([*verify, str(converted)], left="stdout") == 0
    assert run([*verify, str(tmp_path)], left="stderr") == 1


def test_a_stream_without_a_reader_takes_whatever_comes() -> None:
    read, write = os.pipe()
    stream = io.TextIOWrapper(io.BufferedWriter(PipeFile(write, "w")), encoding="utf-8")
    assert stream.write("read") == 4
    stream.flush()
    assert os.read(read, 9) == b"read"
    os.close(read)
    for _ in range(3):
        assert stream.write("x" * 100_000) == 100_000
        stream.flush()
    stream.close()


def test_a_block_leaves_the_streams_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", seen)
    monkeypatch.setattr(sys, "stderr", None)
    with outlast_readers():
        print("here")
        print("nowhere", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == (seen, None)
    assert seen.getvalue() == "here\n"
