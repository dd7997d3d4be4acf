"""Bars on a pseudo-terminal, in a pipe and in a notebook, and signals: real processes."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest
from conftest import encode_image, make_image

COMMAND = [sys.executable, "-m", "pipelines"]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images, one of which is damaged, that take a second or two to convert."""
    root = tmp_path_factory.mktemp("photos")
    data = encode_image(make_image(1, 600, 800), "JPEG")
    for number in range(200):
        path = root / f"class{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if number else b"bad")
    return Path(root)


def run_on_terminal(command: list[str], columns: int, *, stop: bytes = b"") -> tuple[int, str]:
    """Runs a command on a terminal; gives its exit code and all that was sent there.

    Once `stop` is seen there, Ctrl-C is pressed.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))

    def prepare() -> None:  # a shell starts what runs in the background with SIGINT ignored
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=prepare,  # noqa: PLW1509
    )  # fmt: skip
    os.close(theirs)
    sent, deadline = b"", time.monotonic() + 120
    with contextlib.suppress(OSError):  # a terminal without processes answers EIO
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 1)[0]:
                sent += os.read(ours, 65536)
            if stop and stop in sent:
                stop = b""
                os.write(ours, b"\x03")
    os.close(ours)
    return process.wait(10), sent.decode()


def show(sent: str) -> tuple[list[str], set[str]]:
    """The lines that stay on a terminal, and all that were there at some time."""
    lines, seen, column = [""], set(), 0
    for piece in re.split(r"(\r|\n|\x1b\[K)", sent):
        if piece == "\n":
            lines.append("")
        elif piece == "\r":
            column = 0
        elif piece == "\x1b[K":
            lines[-1] = lines[-1][:column]
        else:
            assert "\x1b" not in piece
            lines[-1] = lines[-1][:column] + piece + lines[-1][column + len(piece) :]
            column += len(piece)
            seen.add(piece.rstrip())
    return [line.rstrip() for line in lines if line.strip()], seen - {""}


def test_each_phase_has_a_bar_that_leaves_nothing_behind(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [*COMMAND, "convert", str(photos), str(out), "--num-shards=1", "--workers=2"]
    code, sent = run_on_terminal(command, 80)
    assert code == 0, sent
    stay, seen = show(sent)
    assert stay[0].startswith("wrote 199 images")
    bars = {line for line in seen if re.match(r"(starting|scanning|planning|c\w+ing) ", line)}
    assert {line.split()[0] for line in bars} >= {"starting", "scanning", "planning", "converting"}
    assert max(map(len, bars)) <= 80
    # One shard, whose receipt comes last: what moves between is told by workers.
    counts = {int(found[1]) for line in bars if (found := re.search(r"(\d+)/200", line))}
    assert len([count for count in counts if 0 < count < 200]) >= 2
    rejected = {found[1] for line in bars if (found := re.search(r"(\d+) rejected", line))}
    assert rejected <= {"1"}
    lines = (out / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["class0/0.jpg"]


@pytest.mark.parametrize("columns", [120, 50, 24, 0])
def test_a_bar_is_as_wide_as_its_terminal(converted: Path, columns: int) -> None:
    """One without a size, as in a container, counts as 80 columns."""
    code, sent = run_on_terminal([*COMMAND, "verify", str(converted)], columns)
    stay, seen = show(sent)
    assert code == 0
    assert stay == [line for line in stay if line.startswith("no fault in")]
    bars = [line for line in seen if line.startswith("verifying")]
    assert bars
    assert max(map(len, bars)) <= (columns or 80)
    assert columns or max(map(len, bars)) > 70


def test_a_terminal_shows_a_line_before_anything_is_imported(converted: Path) -> None:
    """Imports take 0.3 s of CPU, and seconds on a machine that is busy or starts cold."""
    code, sent = run_on_terminal([*COMMAND, "inspect", str(converted)], 80)
    assert code == 0
    assert sent.startswith("\rstarting\r        \r")
    assert "starting" not in "".join(show(sent)[0])


@pytest.mark.parametrize("flag", ["--quiet", "--json", "--no-progress"])
def test_a_bar_that_is_not_asked_for_is_not_drawn(converted: Path, flag: str) -> None:
    code, sent = run_on_terminal([*COMMAND, "verify", str(converted), flag], 80)
    assert code == 0
    assert "\r" not in sent.replace("\r\n", "\n")
    assert "\x1b" not in sent


def test_ctrl_c_wipes_the_bar_off_and_ends_with_a_line(photos: Path, tmp_path: Path) -> None:
    command = [*COMMAND, "convert", str(photos), str(tmp_path / "out"), "--num-shards=1"]
    code, sent = run_on_terminal(command, 100, stop=b"converting")
    stay, _ = show(sent)
    assert code == 130
    assert stay == [
        "shardmill: interrupted: finished shards are kept, run the same command again to go on"
    ]


def start(command: list[str]) -> subprocess.Popen[str]:
    def listen() -> None:  # a shell starts what runs in the background with SIGINT ignored
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=listen,  # noqa: PLW1509
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGINT, 2), (signal.SIGTERM, 1), (signal.SIGHUP, 1)]
)
def test_a_signal_to_all_processes_ends_them_all_and_the_next_run_goes_on(
    photos: Path, tmp_path: Path, number: int, times: int
) -> None:
    out = tmp_path / "out"
    command = [*COMMAND, "convert", str(photos), str(out), "--num-shards=30"]
    with start([*command, "--workers=2"]) as process:
        receipts = out / ".shardmill" / "receipts"
        while process.poll() is None and not list(receipts.glob("*.json")):
            time.sleep(0.02)
        family = psutil.Process(process.pid).children(recursive=True)
        for _ in range(times):
            os.killpg(process.pid, number)
            time.sleep(0.02)
        sent = time.monotonic()
        _, errors = process.communicate(timeout=30)
    assert time.monotonic() - sent < 3  # it is below 2 on a machine that does nothing else
    assert process.returncode == 128 + number
    # On a busy machine, a line says what goes on before the signal comes.
    *earlier, last = errors.splitlines()
    assert all(re.match(r"\w+ing: ", line) for line in earlier)
    assert last.startswith("shardmill: interrupted")
    assert "finished shards are kept" in errors
    assert not psutil.wait_procs(family, timeout=10)[1]
    with start([*command, "--direct_running_mode=in_memory", "--quiet"]) as process:
        assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == 0


def test_what_nohup_started_outlives_its_terminal(converted: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "verify", str(converted)], stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # noqa: PLW1509
    ) as process:  # fmt: skip
        time.sleep(0.5)
        process.send_signal(signal.SIGHUP)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.startswith("no fault in")


def test_a_command_that_cannot_be_interrupted_is_ended(tmp_path: Path) -> None:
    """Its exception is swallowed, as some imports do, and it then waits for ever."""
    script = (
        "import time\n"
        "from pipelines.cli.interrupts import interrupts\n"
        "interrupts.watch()\n"
        "while True:\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    except BaseException:\n"
        "        pass\n"
    )
    with start([sys.executable, "-c", script, "convert"]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - begin < 2
    assert errors.startswith("shardmill: interrupted: ")


def test_a_notebook_shows_lines_that_are_written_over_in_place(
    photos: Path, tmp_path: Path
) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [
        "from pipelines import convert, verify\n"
        f"done = convert({str(photos)!r}, {str(tmp_path / 'out')!r}, progress=True)",
        f"verify({str(tmp_path / 'out')!r}, progress=True)",
    ]
    book = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)])
    client.NotebookClient(book, timeout=120).execute()
    converting, verifying = (cell.outputs for cell in book.cells)
    (shown,) = converting
    lines = shown["data"]["text/plain"].splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "scanning", "planning", "converting", "committing",
    ]  # fmt: skip
    assert lines[2].startswith("converting: 200 images in ")
    assert lines[2].endswith(", 1 rejected")
    assert len(verifying) == 2
    assert verifying[0]["data"]["text/plain"].startswith("verifying: 199 records in ")
    text = json.dumps([cell.outputs for cell in book.cells])
    assert not re.search(r"\\r|\\u001b|nan|Error", text)
