"""What the benchmarks share: a command is run and measured, a value is printed beside its bar."""

import argparse
import resource
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

SAMPLE_S = 0.1
WORK = Path(__file__).resolve().parents[2] / "build" / "benchmark"


class Run(NamedTuple):
    """What one command took, and what it printed.

    Attributes:
        seconds: its wall time.
        peak_mb: the memory of all its processes together.
        output: what it printed.
        launcher_mb: the memory of the process that was started.
        worker_mb: the largest memory of a process that this one started.
        cpu_seconds: the CPU time of all its processes together.
    """

    seconds: float
    peak_mb: float
    output: str
    launcher_mb: float
    worker_mb: float
    cpu_seconds: float


def make_parser(about: str | None, sections: Sequence[str]) -> argparse.ArgumentParser:
    """A parser of where to work, and of the one section to run."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--only", choices=sections)
    return parser


def run_sections(sections: Mapping[str, Callable[[], Iterator[bool]]], only: str | None) -> int:
    """Runs the sections, all or one of them; 1 if a bar was missed, as an exit code."""
    missed = 0
    for name, section in sections.items():
        if only in (None, name):
            print(f"\n{name}")
            missed += sum(not ok for ok in section())
    print(f"\n{missed} bars missed" if missed else "\nevery bar reached")
    return 1 if missed else 0


def report(what: str, value: str, bar: str = "", *, ok: bool = True) -> bool:
    print(f"  {what:<46} {value:>26}   {bar}{'' if ok else '   MISSED'}", flush=True)
    return ok


def measure(command: list[str]) -> Run:
    """Runs a command; its peaks are what ten looks a second see."""
    start, spent, peak, launcher, worker = time.monotonic(), count_cpu(), 0, 0, 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        tree = psutil.Process(process.pid)
        while process.poll() is None:
            first, *others = list_memory(tree)
            peak = max(peak, first + sum(others))
            launcher, worker = max(launcher, first), max(worker, *others, 0)
            time.sleep(SAMPLE_S)
        seconds = time.monotonic() - start
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return Run(seconds, peak / 1e6, output, launcher / 1e6, worker / 1e6, count_cpu() - spent)


def count_cpu() -> float:
    """CPU time of all processes that have ended, and were waited for, below this one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def list_memory(tree: psutil.Process) -> list[int]:
    """What a process holds, and then each of those that it started."""
    try:
        return [process.memory_info().rss for process in (tree, *tree.children(recursive=True))]
    except psutil.Error:
        return [0]  # one has just ended: the next look counts
