"""Measures how fast a data set is cut into other shards, without its originals.

    core       plan, write and commit in one process: megabytes of shards in a second of CPU
    command    the whole command with one worker, whose start takes seconds
    small      the same core on images of one pixel, where each record costs what it costs

Images are JPEGs of 500x375, stored as they are. Nothing in a record changes, so it is copied.
"""

import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from benchmarks.corpora import convert, keep, make_photos, write_pixels
from benchmarks.measuring import make_parser, report, run_sections

from converter.commits.commit import commit
from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from converter.planning.plan import write_plan
from converter.sources.recognition import resolve_options
from converter.storage.locate import locate
from converter.storage.location import Location
from converter.writing.shard_writer import Job, write_shard
from pipelines.jobs.preview import propose

T = TypeVar("T")

KEPT = ("--encoding=keep", "--resize=none")
BAR_MB = 300


class Spent(NamedTuple):
    """Seconds of CPU of each step, in one process; and of all of them on the clock."""

    plan: float
    write: float
    commit: float
    wall: float

    @property
    def core(self) -> float:
        return self.plan + self.write + self.commit


def main() -> int:
    parser = make_parser(__doc__, ("core", "command", "small"))
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    work, count, repeats = arguments.work, arguments.count, arguments.repeats
    sections = {
        "core": lambda: measure_core(work, count, repeats),
        "command": lambda: measure_command(work, count),
        "small": lambda: measure_small(work, 20_000),
    }
    return run_sections(sections, arguments.only)


def make_old(work: Path, count: int) -> Path:
    out = work / f"kept-{count}"
    return keep(out, lambda: convert(make_photos(work, count), out, "--num-shards=8", *KEPT))


def measure_core(work: Path, count: int, repeats: int) -> Iterator[bool]:
    old, new = make_old(work, count), work / "recut"
    runs = [reshard(locate(old), locate(new)) for _ in range(repeats)]
    before, now = read_manifest(old), read_manifest(new)
    yield report(
        f"{count:,} images of 500x375", f"{now.total_bytes / 1e6:,.0f} MB in {len(now.shards)}",
        "the same bytes", ok=now.total_bytes == before.total_bytes,
    )  # fmt: skip
    for step in Spent._fields:
        seconds = statistics.median(getattr(run, step) for run in runs)
        report(f"  {step}", f"{seconds:.2f} s")
    written = statistics.median(now.total_bytes / run.write for run in runs) / 1e6
    whole = statistics.median(now.total_bytes / run.core for run in runs) / 1e6
    yield report("  written", f"{written:,.0f} MB/s", f"at least {BAR_MB}", ok=written >= BAR_MB)
    yield report("  all of it", f"{whole:,.0f} MB/s", f"at least {BAR_MB}", ok=whole >= BAR_MB)


def reshard(old: Location, new: Location) -> Spent:
    """What `convert` does, without Beam."""
    start = time.perf_counter()
    shutil.rmtree(str(new), ignore_errors=True)
    asked = ConvertOptions(encoding="keep", resize="none", num_shards=13)
    options = resolve_options(old, asked)
    plan_s, plan = clock(lambda: make_plan(old, new, options))
    job = Job.of_plan(plan)
    write_s, _ = clock(lambda: [write_shard(shard, job) for shard in plan.shards])
    commit_s, _ = clock(lambda: commit(plan))
    return Spent(plan_s, write_s, commit_s, time.perf_counter() - start)


def make_plan(old: Location, new: Location, options: ConvertOptions):
    draft = propose(old, options, always_sample=False).draft
    return write_plan(draft, options, images=old, out=new)


def clock(work: Callable[[], T]) -> tuple[float, T]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def measure_command(work: Path, count: int) -> Iterator[bool]:
    old, new = make_old(work, count), work / "recut"
    run = convert(old, new, "--num-shards=13", "--workers=1", *KEPT)
    size = read_manifest(new).total_bytes / 1e6
    report("the command, with one worker", f"{run.seconds:.1f} s, {size / run.seconds:,.0f} MB/s")
    yield report("  peak of launcher and worker", f"{run.peak_mb:,.0f} MB", "at most 600",
                 ok=run.peak_mb <= 600)  # fmt: skip


def measure_small(work: Path, count: int) -> Iterator[bool]:
    out, new = work / f"pixels-kept-{count}", work / "recut"
    old = keep(out, lambda: convert(write_pixels(work, count), out, "--num-shards=8", *KEPT))
    spent = reshard(locate(old), locate(new))
    for step, seconds in spent._asdict().items():
        report(f"  {step}, each of {count:,} images", f"{seconds / count * 1e6:,.0f} µs")
    yield True


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.exit(main())
