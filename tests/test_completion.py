"""Real shells complete what is typed: commands, flags, choices and paths."""

import contextlib
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest
from conftest import make_environment

from pipelines.cli.completion import write_script
from pipelines.cli.declarations import ARGUMENTS, COMMANDS

CASES = [
    ("shardmill conv", "shardmill convert"),
    ("shardmill ins", "shardmill inspect"),
    ("shardmill convert photos out --enc", "shardmill convert photos out --encoding"),
    ("shardmill convert photos out --encoding w", "shardmill convert photos out --encoding webp"),
    ("shardmill convert photos out --max-f", None),  # --max-file-bytes or --max-frames
    ("shardmill export out again --as par", "shardmill export out again --as parquet"),
    ("shardmill convert pho", "shardmill convert photos/"),
    ("shardmill convert photos/ wal", "shardmill convert photos/ wal\\ nuts/"),
    ("shardmill inspect wal", "shardmill inspect wal\\ nuts/"),
    ("shardmill inspect out --sta", "shardmill inspect out --stats"),
    (
        "shardmill convert photos out --classes nam",
        "shardmill convert photos out --classes names.txt",
    ),
    ("shardmill verify out --sources pho", "shardmill verify out --sources photos/"),
    ("shardmill completion f", "shardmill completion fish"),
    ("shardmill verify out --encod", "shardmill verify out --encod"),  # no option of verify
]

START = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "PS1='$ '"),
    "zsh": (["zsh", "-f", "-i"], "PS1='$ '; autoload -Uz compinit; compinit -u -D"),
}


@pytest.fixture
def place(tmp_path):
    """A folder to complete paths in."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "wal nuts").mkdir()
    (tmp_path / "names.txt").touch()
    return tmp_path


class Typist:
    """Types into a shell at a terminal of its own."""

    def __init__(self, shell, folder):
        command, prepare = START[shell]
        self.controller, descriptor = pty.openpty()
        settings = {"TERM": "dumb", "COLUMNS": "200", "LINES": "50", "HISTFILE": ""}
        self.process = subprocess.Popen(
            command, stdin=descriptor, stdout=descriptor, stderr=descriptor, cwd=folder,
            env={**os.environ, **settings}, start_new_session=True,
        )  # fmt: skip
        os.close(descriptor)
        self.seen = ""
        (folder / ".script").write_text(write_script(shell))
        self.type(f'{prepare}\neval "$(cat .script)"\n')
        self.complete("true", key="")  # until the shell is there

    def type(self, text):
        os.write(self.controller, text.encode())

    def complete(self, text, key="\t"):
        """The line after the tab key: the shell is made to print it."""
        self.seen = ""
        self.type(f"{text}{key}")
        # Tab may list choices first; Ctrl-A goes to the beginning of the line, Ctrl-E to its end.
        self.type("\x01echo 'RESULT: \x05'\n")
        found = self.wait(r"^RESULT: (.*?)\r?\n")
        return found.rstrip()

    def wait(self, pattern):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if found := re.search(pattern, self.seen, re.MULTILINE):
                return found[1]
            if select.select([self.controller], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.controller, 65_536).decode(errors="replace")
        raise AssertionError(f"no answer from the shell: {self.seen[-2000:]!r}")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.controller)


@pytest.mark.parametrize("shell", START)
def test_a_shell_completes_what_is_typed(shell, place):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    typist = Typist(shell, place)
    try:
        for typed, expected in CASES:
            found = typist.complete(typed)
            if expected is None:
                assert found.startswith(typed)
            else:
                assert found.rstrip("/") == expected.rstrip("/")  # zsh removes it again
    finally:
        typist.close()


def test_fish_completes_what_is_typed(place):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    script = place / "shardmill.fish"
    script.write_text(write_script("fish"))
    asked = "; ".join(f"echo =; complete -C '{typed}'" for typed, _ in CASES)
    command = ["fish", "--no-config", "-c", f"source {script}; {asked}"]
    environment = make_environment(HOME=str(place))
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=place, env=environment
    )
    assert done.stderr == ""
    answers = done.stdout.split("=\n")[1:]
    for (typed, expected), answer in zip(CASES, answers, strict=True):
        words = [line.split("\t")[0] for line in answer.splitlines()]
        if expected is None:
            assert {"--max-file-bytes", "--max-frames"} <= {*words}
        elif expected == typed:
            assert words == []
        else:
            whole = expected.replace("\\ ", " ")
            assert [word for word in words if whole.endswith(word)], (typed, words)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_knows_every_command_and_flag(shell):
    script = write_script(shell)
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", script)
    for argument in ARGUMENTS:
        if argument.flag.startswith("--"):
            assert argument.flag in script or f"-l {argument.flag[2:]}" in script


def test_the_command_prints_the_script():
    command = [sys.executable, "-m", "pipelines", "completion", "bash"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=make_environment()
    )
    assert done.stdout == f"{write_script('bash')}\n"
    assert done.stderr == ""


def test_another_shell_is_refused(capsys):
    from pipelines.cli.commands import main

    assert main(["completion", "tcsh"]) == 2
    assert "invalid choice: 'tcsh'" in capsys.readouterr().err
