"""`run.jsonl`: how a data set came about, one line of JSON for each run that wrote shards.

    {"command": "shardmill convert …", "kind": "convert", "started": "2026-11-30T01:50:00Z",
     "generator": …, "runner": "local", "workers": 8, "options": {…}, "phases_msec": {…}, …}

It holds times and paths, so it is no part of the data set: no hash covers it, nothing needs it, and
you may delete it. What it says is shown and never followed.
"""

import dataclasses
import itertools
import json
import os
import shlex
from typing import Any, Final

from converter.costs import STEPS
from converter.errors import DatasetError
from converter.format.typed_json import find_reader, load_json
from converter.histograms import COUNTED, Histograms
from converter.names import fit_message
from converter.storage.files import RUN_LOG, Layout, write_file
from converter.storage.location import Location

MAX_RUNS: Final = 100  # that are kept: the last ones
MAX_LINE_BYTES: Final = 1 << 16
MAX_BYTES: Final = MAX_RUNS * MAX_LINE_BYTES

_MAX_TEXT: Final = 4_096
_MAX_COUNTS: Final = 200  # buckets of a histogram, phases
_MAX_NUMBER: Final = 2**53


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run that wrote shards.

    Attributes:
        command: what repeats it, on one line of a shell.
        kind: `convert` or `update`.
        started: date and time in UTC.
        generator: the versions that wrote the shards.
        runner: `local`, or the Beam runner.
        workers: processes that converted images.
        options: those that are not the default.
        phases_msec: milliseconds by phase: `scan`, `convert`, `commit`.
        steps_msec: milliseconds of all workers, by `converter.costs.STEPS`.
        launcher_peak_bytes: the most memory of the process that was started.
        worker_peak_bytes: the most memory of any worker.
        shards_written: by this run.
        shards_kept: that were finished before.
        images_read: by this run, also those that were rejected.
        bytes_read: likewise.
        originals: what the originals are like, as far as runs that ended early have noted it.
    """

    command: str
    kind: str = "convert"
    started: str
    generator: str
    runner: str = "local"
    workers: int = 0
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    phases_msec: dict[str, int] = dataclasses.field(default_factory=dict)
    steps_msec: dict[str, int] = dataclasses.field(default_factory=dict)
    launcher_peak_bytes: int = 0
    worker_peak_bytes: int = 0
    shards_written: int = 0
    shards_kept: int = 0
    images_read: int = 0
    bytes_read: int = 0
    originals: Histograms = dataclasses.field(default_factory=Histograms)


def read_runs(folder: Location) -> tuple[Run, ...]:
    """Reads the log of a data set, the oldest run first; () if there is none.

    Raises DatasetError, which names the line, if it is not as this version or a newer one writes
    it, or larger than a log can be.
    """
    path = folder / RUN_LOG
    try:
        size = path.measure()
        if size is None:
            return ()
        if size > MAX_BYTES:
            raise DatasetError(f"{path} has {size:,} bytes, at most {MAX_BYTES:,}: delete it")
        lines = path.read_range(0, max(1, size)).splitlines()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    return tuple(_parse(line, f"{path}, line {n}") for n, line in enumerate(lines, 1))


def recall_images(folder: Location) -> str:
    """What the last run converted, as words for a shell; empty if that is not on this machine.

    Nothing vouches for the log, so its answer is only for a command that a person looks at.
    """
    try:
        words = shlex.split(read_runs(folder)[-1].command)
    except (DatasetError, IndexError, ValueError):
        return ""
    *places, _ = [*itertools.takewhile(lambda word: not word.startswith("--"), words[2:])] or [""]
    return shlex.join(places) if all(map(os.path.exists, places)) else ""


def append_run(folder: Location, run: Run, *, before: Location) -> None:
    """Writes the log of the data set in `folder`: that of the one in `before`, and this run.

    A damaged log begins again. The lock of `folder` has to be held: its temporary file is in the
    work folder. Raises OutputError if the log cannot be written.
    """
    try:
        runs = (*read_runs(before), run)[-MAX_RUNS:]
    except DatasetError:
        runs = (run,)
    write_file(folder / RUN_LOG, b"".join(map(_dump, runs)), Layout(folder).work)


def _dump(run: Run) -> bytes:
    content = dataclasses.asdict(run)
    data = json.dumps(content).encode("ascii")
    if len(data) >= MAX_LINE_BYTES:  # a list of 20,000 classes, say, which the manifest has, too
        data = json.dumps({**content, "options": {}}).encode("ascii")
    return data + b"\n"


def _parse(line: bytes, where: str) -> Run:
    try:
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"{len(line):,} bytes, at most {MAX_LINE_BYTES:,}")  # noqa: TRY301
        run: Run = find_reader(Run)(load_json(line))
        _check(run)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DatasetError(
            f"{where} is damaged: {fit_message(reason)}; the data set does not need it: delete it"
        ) from error
    return run


def _check(run: Run) -> None:
    """Refuses what no run can have written, and what would not fit on a page."""
    for name in ("command", "kind", "started", "generator", "runner"):
        if len(getattr(run, name)) > _MAX_TEXT:
            raise ValueError(f"{name} has over {_MAX_TEXT:,} characters")
    counts = [run.phases_msec, run.steps_msec]
    counts += [getattr(run.originals, name) for name in COUNTED]
    for each in counts:
        if len(each) > _MAX_COUNTS or any(len(name) > 40 for name in each):
            raise ValueError(f"more than {_MAX_COUNTS} counts, or a name of over 40 characters")
    numbers = [run.workers, run.originals.images, *(n for each in counts for n in each.values())]
    if max(numbers) > _MAX_NUMBER:
        raise ValueError(f"{max(numbers)} is no count of this world")
    outliers = *run.originals.smallest, *run.originals.largest
    if len(outliers) > _MAX_COUNTS or any(len(each.path) > _MAX_TEXT for each in outliers):
        raise ValueError(f"more than {_MAX_COUNTS} originals, or a path of over {_MAX_TEXT:,}")
    if max((max(each.height, each.width) for each in outliers), default=0) > _MAX_NUMBER:
        raise ValueError("the side of an original is no count of this world")
    _check_names(run)


def _check_names(run: Run) -> None:
    if unknown := run.steps_msec.keys() - STEPS.keys():
        raise ValueError(f"step {min(unknown)!r} is unknown")
    edges = run.originals.sides.keys() | run.originals.pixels.keys() | run.originals.bytes.keys()
    if wrong := [edge for edge in edges if not edge.isdecimal()]:
        raise ValueError(f"{wrong[0]!r} is not the edge of a bucket")
