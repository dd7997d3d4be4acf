"""Ctrl-C, SIGTERM and a closed terminal at random moments: commands end at once, with one line."""

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from faults.experiment import BEAM, Soak, finish, list_family, start

LIMIT_S = 2.0
# Until which an interpreter starts, and has not yet called us: a signal ends it, or has it print
# where it was.
STARTING_S = 0.3

WAYS = ("launcher", "group", "twice", "terminated", "hung up")
"""Ctrl-C to the launcher alone, as a terminal sends it, and pressed again; SIGTERM; SIGHUP."""

_SIGNALS = {"terminated": signal.SIGTERM, "hung up": signal.SIGHUP}
_LINE = re.compile(r"shardmill: interrupted: [a-z ,]+ run the same command again[a-z ]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """A command that is interrupted.

    Attributes:
        command: the command line.
        moment: when, in seconds after its start.
        way: one of `WAYS`.
        limit: seconds in which it has to end.
    """

    command: list[str]
    moment: float
    way: str
    limit: float = LIMIT_S


def interrupt_commands(soak: Soak) -> Iterator[str]:
    """Interrupts each command in each way, a third of them while they start."""
    worst, commands, seconds = 0.0, list_commands(soak), {}
    for number in range(soak.times):
        name = [*commands][number % len(commands)]
        out = soak.work / "out"
        prepare(soak, out, name)
        if name not in seconds:
            begin = time.monotonic()
            finish(start_session(commands[name]))
            seconds[name] = time.monotonic() - begin
            prepare(soak, out, name)
        longest = STARTING_S if number % 3 == 0 else seconds[name]
        way = WAYS[number // len(commands) % len(WAYS)]
        trial = Trial(command=commands[name], moment=soak.random.uniform(0, longest), way=way)
        lost, spent = interrupt(trial)
        worst = max(worst, spent)
        where = f"{name}, {way}, after {trial.moment:.3f} s of {seconds[name]:.1f} s"
        yield f"{where}: {lost}" if lost else try_again(trial, where)
    print(f"interrupts: the slowest end took {worst:.2f} s", file=sys.stderr)


def list_commands(soak: Soak) -> dict[str, list[str]]:
    """The command lines by name; their output is in `soak.work`."""
    case, out = soak.cases["convert"], soak.work / "out"
    whole = str(soak.work / "whole")
    images = str(case.images)
    return {
        "convert": [*BEAM, "convert", images, str(out), *case.arguments],
        "verify": [*BEAM, "verify", whole],
        "plan": [*BEAM, "plan", images, str(out), "--image-size=16"],
        "verify by workers": [*BEAM, "verify", whole, "--workers=2"],
        "export": [*BEAM, "export", whole, str(out)],
        "index": [*BEAM, "index", str(out)],
        "repair": [*BEAM, "repair", str(out), "--images", images],
        "inspect": [*BEAM, "inspect", whole],
    }


def prepare(soak: Soak, out: Path, name: str) -> None:
    """Puts in place what a command works on."""
    shutil.rmtree(out, ignore_errors=True)
    whole = soak.work / "whole"
    if not whole.exists():
        case = soak.cases["convert"]
        code, lines = finish(start(case.command(whole, BEAM)))
        if code:
            raise SystemExit(f"converting fails: {lines}")
    if name in ("repair", "index"):
        shutil.copytree(whole, out)
        for index in out.glob("*00001-of*.index*"):
            index.unlink()


def start_session(command: list[str]) -> subprocess.Popen[str]:
    # A group of its own, as of a shell's command; a background job would ignore SIGINT.
    return start(command, start_new_session=True, preexec_fn=listen)


def listen() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def interrupt(trial: Trial) -> tuple[str, float]:
    """What is wrong with the end of a command, or "", and how long that took."""
    process = start_session(trial.command)
    time.sleep(trial.moment)
    family, number = list_family(process), _SIGNALS.get(trial.way, signal.SIGINT)
    begin = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        if trial.way == "launcher":
            os.kill(process.pid, number)
        else:
            os.killpg(process.pid, number)
        if trial.way == "twice":
            time.sleep(0.1)
            os.killpg(process.pid, number)
    code, lines = finish(process)
    spent = time.monotonic() - begin
    if process.returncode == 0 and not lines:  # it was done before
        return "", 0.0
    orphans = psutil.wait_procs([member for member in family if member.pid != process.pid], 5)[1]
    if orphans:
        return f"left behind: {orphans}", spent
    return judge(trial, code, lines, spent, number), spent


def judge(trial: Trial, code: int, lines: list[str], spent: float, number: int) -> str:
    """What is wrong with an exit code, lines and a time; "" if nothing is."""
    if spent > trial.limit:
        return f"it took {spent:.2f} s to end"
    if trial.moment < STARTING_S and code in (-number, 1) and is_of_interpreter(lines):
        return ""
    if code != 128 + number:
        return f"exit code {code} with {lines}"
    if len(lines) != 1 or not _LINE.fullmatch(lines[0]):
        return f"not one line: {lines}"
    return ""


def is_of_interpreter(lines: list[str]) -> bool:
    """Whether a process ended before `main` of ours was called, which can do something about it."""
    ours = [line for line in lines if "pipelines" in line or "converter" in line]
    return all("pipelines/__init__.py" in line for line in ours)


def try_again(trial: Trial, where: str) -> str:
    """Whether the same command works afterwards."""
    code, lines = finish(start_session(trial.command))
    if lines and "holds a finished export" in lines[0]:  # the signal came when all was done
        return ""
    return f"{where}: again it ends with {code}: {lines}" if code else ""
