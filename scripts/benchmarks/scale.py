"""What a conversion takes when there are very many images, beside what it is held to.

    plan       scan and plan, as the launcher does before the first image is written
    table      the same for a CSV with a label and a caption for each image
    archive    a whole conversion of ten million images, which lie in one tar
    convert    launcher and workers, for few images and for many
    shards     launcher and workers, for as many shards as a split may have
    disk       planning on the runner: a million files in a thousand folders, and in one
    bucket     the same: ten million images in a prefix of a store, with no folders
    read       the same, where all of a million have to be read, as they could be duplicates
    update     the launcher, when one image in a thousand has changed

The images have one pixel each, so nearly all of the time is what an image costs apart from pixels.
How each figure grows is fitted over the larger counts: seconds as a power of the number of images,
memory as so much for each. docs/scale.md carries it on.
"""

import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from benchmarks.convert import PLAN
from benchmarks.corpora import convert, pack_pixels, write_pixels, write_table
from benchmarks.measuring import Run, make_parser, measure, report, run_sections
from benchmarks.pixel_bucket import run_bucket

SIZE = ("--image-size=8", "--encoding=png")

SECTIONS = ("plan", "table", "convert", "archive", "shards", "disk", "bucket", "read", "update")

COUNTS = [1_000, 10_000, 100_000, 1_000_000]
FITTED_FROM = 10_000
"""Below it, what is fitted is how long a process takes to start."""

PLAN_US, PLAN_BYTES = 20, 80
"""CPU and memory for one image more."""

TABLE_MB = 500
LAUNCHER_MB = {1_000_000: 250, 10_000_000: 1_200}
"""What a launcher may take for so many images, beside what it takes for the fewest."""

ARCHIVE_COUNTS = [100_000, 10_000_000]
MAX_POWER = 1.1
"""Of the number of images, as which CPU time may grow."""

GROWTH_MB = 25
"""What noise and the entries of a larger shard may add to a worker."""

SHARDS_MB, SHARDS_WORKER_MB = 400, 120
"""What a hundred thousand shards may add to the launcher, and to a worker that writes half."""

BUCKET_MB = 250
"""What a worker may take for 100,000 images of a part or a bucket, beside those of few images."""

FLAT_MB = 600
"""What a worker may take that lists a million files of one folder."""

PLAN_ON_RUNNER = """
import math, sys, time
from converter.options import ConvertOptions
from converter.planning.plan import write_plan
from converter.storage.locate import locate
from pipelines.beam import runners
from pipelines.jobs.planners import choose_planner
from pipelines.jobs.request import RunSettings, make_requests

out = locate(sys.argv[2])
options = ConvertOptions(
    image_size=8, dedupe=sys.argv[3], source="folders", label_from="none", validation_split=0.1
)
if __name__ == "__main__":
    (request,) = make_requests(sys.argv[1], {out: options}, RunSettings(plan_on="runner"))
    plan = choose_planner([request], runners.parse_options([]))
    with request.out.lock():
        draft = plan([request], math.inf)[request.out].draft
        write_plan(draft, request.options, images=request.root, out=request.out)
    print("launcher", round(time.process_time(), 1))
"""


def main() -> int:
    parser = make_parser(__doc__, SECTIONS)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--archive-counts", type=int, nargs="+", default=ARCHIVE_COUNTS)
    parser.add_argument("--shards", type=int, default=99_999)
    parser.add_argument("--bucket-counts", type=int, nargs=2, default=[1_000_000, 10_000_000])
    parser.add_argument("--read-counts", type=int, nargs=2, default=[100_000, 1_000_000])
    parser.add_argument("--update-count", type=int, default=100_000)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    sections = {
        "plan": lambda: measure_plan(arguments.work, arguments.counts),
        "table": lambda: measure_table(arguments.work, max(arguments.counts)),
        "convert": lambda: measure_convert(arguments.work, arguments.counts, write_pixels),
        "archive": lambda: measure_convert(arguments.work, arguments.archive_counts, pack_pixels),
        "shards": lambda: measure_shards(arguments.work, arguments.shards),
        "disk": lambda: measure_disk(arguments.work, max(arguments.counts)),
        "bucket": lambda: measure_bucket(arguments.work, arguments.bucket_counts, "off"),
        "read": lambda: measure_bucket(arguments.work, arguments.read_counts, "report"),
        "update": lambda: measure_update(arguments.work, arguments.update_count),
    }
    return run_sections(sections, arguments.only)


def measure_plan(work: Path, counts: list[int]) -> Iterator[bool]:
    runs = []
    for count in counts:
        images, out = write_pixels(work, count), work / "planned"
        shutil.rmtree(out, ignore_errors=True)
        runs.append(run := measure([sys.executable, "-c", PLAN, str(images), str(out)]))
        report(f"{count:,} images", f"{run.seconds:.1f} s, {run.launcher_mb:.0f} MB")
        report_cpu(count, run)
    few, many = runs[0], runs[-1]
    more = counts[-1] - counts[0]
    cpu_us = (many.cpu_seconds - few.cpu_seconds) / more * 1e6
    memory = (many.launcher_mb - few.launcher_mb) / more * 1e6
    yield report("CPU for one image more", f"{cpu_us:.1f} µs", f"at most {PLAN_US} µs",
                 ok=cpu_us <= PLAN_US)  # fmt: skip
    yield report("memory for one image more", f"{memory:.0f} bytes", f"at most {PLAN_BYTES} bytes",
                 ok=memory <= PLAN_BYTES)  # fmt: skip
    yield from report_growth(counts, runs)


def measure_table(work: Path, count: int) -> Iterator[bool]:
    table, out = write_table(write_pixels(work, count), count), work / "planned"
    shutil.rmtree(out, ignore_errors=True)
    run = measure([sys.executable, "-c", PLAN, str(table), str(out), "caption"])
    table.unlink()
    report(f"{count:,} rows, time", f"{run.seconds:.1f} s")
    yield report("  memory", f"{run.peak_mb:.0f} MB", f"at most {TABLE_MB} MB",
                 ok=run.peak_mb <= TABLE_MB)  # fmt: skip
    report_cpu(count, run)


def measure_convert(
    work: Path, counts: list[int], make: Callable[[Path, int], Path]
) -> Iterator[bool]:
    runs: list[Run] = []
    for count in counts:
        run = convert(make(work, count), work / "converted", *SIZE)
        runs.append(run)
        report(f"{count:,} images", f"{run.seconds:.1f} s, {count / run.seconds:,.0f}/s")
        growth, most = run.launcher_mb - runs[0].launcher_mb, LAUNCHER_MB.get(count, 0)
        yield report("  launcher, from scan to manifest",
                     f"{run.launcher_mb:.0f} MB, {growth:+.0f} MB",
                     f"at most {most:+} MB" if most else "",
                     ok=not most or growth <= most)  # fmt: skip
        report("  largest worker", f"{run.worker_mb:.0f} MB")
        report_cpu(count, run)
    yield limit_growth("a worker's", runs[-1].worker_mb - runs[0].worker_mb, GROWTH_MB)
    yield from report_growth(counts, runs)


def report_cpu(count: int, run: Run) -> None:
    report("  CPU for an image", f"{run.cpu_seconds / count * 1e6:,.0f} µs")


def limit_growth(whose: str, growth_mb: float, most: int) -> bool:
    return report(f"{whose} growth", f"{growth_mb:+.0f} MB", f"at most {most:+} MB",
                  ok=growth_mb <= most)  # fmt: skip


def report_growth(counts: list[int], runs: list[Run]) -> Iterator[bool]:
    """Fits what was measured: time as a power of the number of images, memory as a line."""
    fitted = [(count, run) for count, run in zip(counts, runs, strict=True) if count >= FITTED_FROM]
    if len(fitted) < 2:
        return
    images = np.array([count for count, _ in fitted], float)
    power = np.polyfit(np.log(images), np.log([run.cpu_seconds for _, run in fitted]), 1)[0]
    yield report("CPU time grows as the number of images to the", f"{power:.2f}",
                 f"at most {MAX_POWER}", ok=power <= MAX_POWER)  # fmt: skip
    wall = np.polyfit(np.log(images), np.log([run.seconds for _, run in fitted]), 1)[0]
    report("wall time, to the", f"{wall:.2f}")
    slope, base = np.polyfit(images, [run.launcher_mb for _, run in fitted], 1)
    report("the launcher's memory", f"{base:.0f} MB + {slope * 1e6:,.0f} bytes an image")


def measure_shards(work: Path, shards: int) -> Iterator[bool]:
    images, out = write_pixels(work, shards + 1), work / "converted"
    runs = [convert(images, out, *SIZE, f"--num-shards={count}") for count in (16, shards)]
    for count, run in zip((16, shards), runs, strict=True):
        report(f"{count:,} shards of {shards + 1:,} images", f"{run.seconds:.1f} s")
        report("  launcher, largest worker", f"{run.launcher_mb:.0f} MB, {run.worker_mb:.0f} MB")
    few, many = runs
    report("CPU for a shard", f"{(many.cpu_seconds - few.cpu_seconds) / shards * 1e3:.1f} ms")
    yield limit_growth("the launcher's", many.launcher_mb - few.launcher_mb, SHARDS_MB)
    yield limit_growth("a worker's", many.worker_mb - few.worker_mb, SHARDS_WORKER_MB)


def measure_bucket(work: Path, counts: Sequence[int], dedupe: str) -> Iterator[bool]:
    runs = []
    for count in counts:
        with run_bucket(count) as images:
            runs.append(plan_on_runner(work, f"{count:,} images, planned", images, dedupe))
        report_cpu(count, runs[-1])
    few, many = runs
    yield limit_growth("the launcher's", many.launcher_mb - few.launcher_mb, GROWTH_MB)
    yield limit_growth("a worker's", many.worker_mb - few.worker_mb, BUCKET_MB)


def measure_disk(work: Path, count: int) -> Iterator[bool]:
    images, flat = write_pixels(work, count), work / f"flat-{count}"
    if not flat.exists():
        flat.mkdir()
        for path in images.rglob("*.png"):
            (flat / path.name).hardlink_to(path)
    for what, folder in ((f"{count:,} files in folders", images), ("  … in one folder", flat)):
        run = plan_on_runner(work, what, str(folder), "report")
        report_cpu(count, run)
    yield report("a worker that lists one folder", f"{run.worker_mb:.0f} MB",
                 f"at most {FLAT_MB} MB", ok=run.worker_mb <= FLAT_MB)  # fmt: skip


def plan_on_runner(work: Path, what: str, images: str, dedupe: str) -> Run:
    shutil.rmtree(work / "planned", ignore_errors=True)
    run = measure([sys.executable, "-c", PLAN_ON_RUNNER, images, str(work / "planned"), dedupe])
    cpu = re.search(r"launcher (.+)", run.output)
    report(what, f"{run.seconds:.1f} s")
    report("  CPU of the launcher", f"{cpu[1]} s" if cpu else "?")
    report("  launcher, largest worker", f"{run.launcher_mb:.0f} MB, {run.worker_mb:.0f} MB")
    return run


def measure_update(work: Path, count: int) -> Iterator[bool]:
    images, changed, out = write_pixels(work, count), work / "changed", work / "updated"
    convert(images, out, *SIZE)
    shutil.rmtree(changed, ignore_errors=True)
    shutil.copytree(images, changed, copy_function=lambda old, new: Path(new).hardlink_to(old))
    for path in sorted(changed.rglob("*.png"))[:: count // 100]:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data + b"changed")
    command = [sys.executable, "-m", "pipelines", "convert", str(changed), str(out)]
    run = measure([*command, "--update", "--no-progress"])
    told = re.search(r"changed \S+|\d+ changed", run.output)
    report(f"{count:,} images, 100 of them changed", f"{run.seconds:.1f} s")
    report("  as the command tells it", told[0] if told else "?")
    yield report("  launcher", f"{run.launcher_mb:.0f} MB", f"at most {TABLE_MB} MB",
                 ok=run.launcher_mb <= TABLE_MB)  # fmt: skip
    report("  largest worker", f"{run.worker_mb:.0f} MB")


if __name__ == "__main__":
    sys.exit(main())
