"""What both benchmarks share: a command is run and measured, a value is printed beside its bar."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import psutil

SAMPLE_S = 0.1


class Run(NamedTuple):
    """What one command took: its wall time, the memory of all its processes, what it printed."""

    seconds: float
    peak_mb: float
    output: str


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
    """Runs a command; its peak is that of all its processes together, ten looks a second."""
    start, peak = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        tree = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, sum_memory(tree))
            time.sleep(SAMPLE_S)
        seconds = time.monotonic() - start
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return Run(seconds, peak / 1e6, output)


def sum_memory(tree: psutil.Process) -> int:
    total = 0
    try:
        for process in (tree, *tree.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.Error:
        return 0  # one has just ended: the next look counts
    return total
