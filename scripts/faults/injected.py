"""Errors at every system call in turn, disks that fill up, and the order of the calls.

Everything here needs strace, or root to mount a disk.
"""

import contextlib
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from faults.experiment import (
    BEAM,
    Case,
    Skip,
    Soak,
    finish,
    judge_end,
    judge_failure,
    judge_moment,
    judge_resume,
    read_named,
    start,
)

from converter.storage.files import COMPANIONS

CALLS = ("write", "fsync", "rename", "link", "openat", "unlink", "mkdir", "rmdir", "renameat2")
ERRORS = ("ENOSPC", "EIO", "EACCES", "EMFILE")
_OF_OUTPUT = ("fsync", "rename", "link", "renameat2")
CASES = ("convert", "overwrite", "update")

_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)")
_HIT = "(INJECTED)"
_UNFINISHED = " <unfinished ...>"
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}$")


class Call(NamedTuple):
    """One system call: its name, the paths in its arguments, and the arguments as strace shows."""

    name: str
    paths: tuple[str, ...]
    arguments: str


def inject_errors(soak: Soak) -> Iterator[str]:
    """Lets calls that concern the output fail, one in each run: `times` of all that there are."""
    need_strace()
    sweep = [
        (case, call, ERRORS[(turn + place) % len(ERRORS)], place)
        for case in (soak.cases[name] for name in CASES)
        for call, place in list_places(soak, case)
        for turn in range(len(ERRORS))
    ]
    times = min(soak.times, len(sweep))
    for number in range(times):
        yield inject_once(soak, *sweep[number * len(sweep) // times])


def list_places(soak: Soak, case: Case) -> list[tuple[str, int]]:
    """Which calls of a conversion concern its output: their names, and their numbers from 1."""
    out = case.place(soak.work / "counted")
    log = soak.work / "log"
    finish(start(strace(log, f"trace={','.join(CALLS)}", case.command(out, soak.launch))))
    lines = log.read_text("utf-8", "replace").splitlines()
    counts: Counter[tuple[str, str]] = Counter()
    places: dict[tuple[str, int], None] = {}
    for line in lines:
        thread, call = re.match(r"(\d+) +(\w*)", line).groups()
        # strace counts for each thread. What other threads open is what Python opens in the main
        # one, as it starts.
        if call in CALLS and (thread == lines[0].split()[0] or call in _OF_OUTPUT):
            counts[thread, call] += 1
            if str(out.parent) in line:
                places[call, counts[thread, call]] = None
    return [*places]


def inject_once(soak: Soak, case: Case, call: str, error: str, place: int) -> str:
    # From run to run, numbers shift by a few: a name was taken, or one more module was read.
    for number in (place, place + 1, place - 1, place + 2, place - 2):
        out = case.place(soak.work / "counted")
        log = soak.work / "log"
        inject = f"inject={call}:error={error}:when={max(number, 1)}"
        end = finish(start(strace(log, f"trace={call}", case.command(out, soak.launch), inject)))
        injected = [line for line in log.read_text("utf-8", "replace").splitlines() if _HIT in line]
        if any(str(out.parent) in line for line in injected):
            lost = judge_outcome(case, out, *end) or judge_resume(case, out, soak.launch)
            return f"{case.name}, {error} at {call} {number}: {lost}" if lost else ""
    return f"the harness missed {call} {place}"


def inject_processes(soak: Soak) -> Iterator[str]:
    """Lets calls fail in launcher and workers of a conversion on Beam."""
    need_strace()
    for number in range(soak.times):
        case = soak.cases[CASES[number % 3]]
        call = soak.random.choice(("fsync", "rename", "unlink", "link"))
        error = soak.random.choice(ERRORS)
        out = case.place(soak.work / "counted")
        # Once in each of the threads that come so far.
        inject = f"inject={call}:error={error}:when={soak.random.randint(1, 9)}"
        command = strace(soak.work / "log", f"trace={call}", case.command(out, BEAM), inject)
        lost = judge_outcome(case, out, *finish(start(command)))
        lost = lost or judge_resume(case, out, BEAM)
        yield f"{case.name}, {inject}: {lost}" if lost else ""


def judge_outcome(case: Case, out: Path, code: int, lines: list[str]) -> str:
    """A run that met an error: it failed in one line, or it is done all the same."""
    if code == 0:
        return "" if read_named(out) == case.after else "success is claimed, with another tree"
    return judge_failure(code, lines) or judge_moment(case, out)


def fill_disks(soak: Soak) -> Iterator[str]:
    """Converts onto disks with too few bytes or too few inodes, and then gives them more."""
    need_root()
    case = soak.cases["convert"]
    need = sum(path.stat().st_size for path in (soak.work.parent / "convert" / "out").iterdir())
    for number in range(soak.times):
        share = (number + 1) / (soak.times + 1)
        yield fill_once(soak, case, f"size={int(need * share) // 4096 * 4 + 4}k")
        yield fill_once(soak, case, f"size=8m,nr_inodes={4 + int(30 * share)}")


def fill_once(soak: Soak, case: Case, limit: str) -> str:
    disk = soak.work / "disk"
    with mount_tmpfs(disk, limit):
        out = disk / "space" / "out"
        out.parent.mkdir()
        lost = judge_outcome(case, out, *finish(start(case.command(out, soak.launch))))
        remount(disk, "size=8m,nr_inodes=1000")
        lost = lost or judge_resume(case, out, soak.launch)
    return f"{limit}: {lost}" if lost else ""


@contextlib.contextmanager
def mount_tmpfs(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def check_order(soak: Soak) -> Iterator[str]:
    """Reads off a trace that nothing has its name before it is on the disk, and in which order."""
    need_strace()
    for name in CASES[: soak.times]:
        case = soak.cases[name]
        out = case.place(soak.work / "traced")
        code, lines = finish(start(trace(soak.work / "log", case, out, soak.launch)))
        faults = find_disorder(read_calls(soak.work / "log", out.parent))
        yield f"failed: {lines}" if code else "; ".join(faults[:5]) or judge_end(case, out)


def trace(log: Path, case: Case, out: Path, launch: tuple[str, ...]) -> list[str]:
    calls = "trace=openat,write,fsync,rename,link,renameat2"
    return strace(log, calls, case.command(out, launch))


def read_calls(log: Path, folder: Path) -> list[Call]:
    """The calls that succeeded and concern files in a folder, in order."""
    calls = []
    for line in join_calls(log.read_text("utf-8", "replace").splitlines()):
        match = _LINE.match(line)
        if match and not match[4].startswith("-"):
            paths = tuple(re.findall(rf"{re.escape(str(folder))}/?([^\"<>,]*)", match[3]))
            if paths:
                calls.append(Call(match[2], paths, match[3]))
    return calls


def join_calls(lines: Iterable[str]) -> Iterator[str]:
    """Makes one line again of a call that strace cut in two because another thread called too."""
    begun: dict[str, str] = {}
    for line in lines:
        thread, _, rest = line.partition(" ")
        if line.endswith(_UNFINISHED):
            begun[thread] = line.removesuffix(_UNFINISHED)
        elif rest.lstrip().startswith("<... "):
            yield begun.pop(thread, "") + line.partition(" resumed>")[2]
        else:
            yield line


def find_disorder(calls: list[Call]) -> list[str]:
    """What a power loss at some moment would take, although something else vouches for it.

    A file is flushed before it gets its name, and the folder before a receipt or the manifest
    counts on that name. A receipt comes after its shard, and nothing but log and report comes after
    the manifest.
    """
    faults: list[str] = []
    dirty: set[str] = set()  # written and not flushed
    loose: set[str] = set()  # named in a folder that is not flushed
    named: set[str] = set()
    for call in calls:
        target = call.paths[-1]
        if call.name == "write":
            dirty.add(target)
        elif call.name == "fsync":
            dirty.discard(target)
            loose = {path for path in loose if folder_of(path) != target}
        elif call.name == "openat":
            if "O_CREAT" in call.arguments and not _TEMPORARY.search(target):
                faults.append(f"{target} is written under its final name")
        elif call.name == "renameat2":
            faults += [f"exchanged before the name of {path} is flushed" for path in sorted(loose)]
        elif not target.endswith("/lock"):
            faults += judge_name(call.paths[0], target, dirty, loose, named)
            loose.add(target)
            named.add(target)
    return faults + [f"the name of {path} is never flushed" for path in sorted(loose)]


def judge_name(
    temporary: str, target: str, dirty: set[str], loose: set[str], named: set[str]
) -> Iterator[str]:
    """What is wrong with a file that gets its final name at this moment."""
    out, receipt, stem = target.partition("/.shardmill/receipts/")
    if temporary in dirty:
        yield f"{target} has its name before it is flushed"
    # Receipts of several shards may be written at the same time; none says a thing of the others.
    shard = f"{out}/{Path(stem).stem}."
    vouched = {path for path in loose if path.startswith(shard)} if receipt else loose
    if vouched and (receipt or target.endswith("/manifest.json")):
        yield f"{target} vouches for {min(vouched)}, whose name is not flushed"
    if receipt and f"{shard}tfrecord" not in named:
        yield f"{target} comes before its shard"
    is_companion = Path(target).name in COMPANIONS  # no part of the data set: see files.py
    if f"{folder_of(target)}/manifest.json" in named and not is_companion:
        yield f"{target} comes after the manifest"


def folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def strace(log: Path, trace: str, command: list[str], inject: str = "") -> list[str]:
    chosen = ["-e", inject] if inject else []
    # Without the filter every call stops twice, also those that are not looked at.
    how = ("--seccomp-bpf", "-f", "-y", "-qq", "-s", "0")
    return ["strace", *how, "-e", trace, *chosen, "-o", str(log), *command]


def need_strace() -> None:
    if shutil.which("strace") is None:
        raise Skip("strace is not installed")


def need_root() -> None:
    if os.geteuid() or shutil.which("mount") is None:
        raise Skip("mounting a disk takes root")
