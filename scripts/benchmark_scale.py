"""What a conversion takes when there are very many images, beside what it is held to.

    plan       scan and plan, as the launcher does before the first image is milled
    convert    launcher and workers, for few images and for many
    update     the launcher, when one image in a thousand has changed

The images have one pixel each, so nearly all of the time is what an image costs apart from pixels.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmark_convert import PLAN
from corpora import convert, link_images
from measuring import measure, report, run_sections

HERE = Path(__file__).resolve()
SIZE = ("--image-size=8", "--encoding=png")

PLAN_S, PLAN_MB = 60, 500
GROWTH_MB = 25
"""What noise and the entries of a larger shard may add to a worker."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "build" / "benchmark")
    parser.add_argument("--counts", type=int, nargs=2, default=[10_000, 1_000_000])
    parser.add_argument("--update-count", type=int, default=100_000)
    parser.add_argument("--only", choices=("plan", "convert", "update"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    sections = {
        "plan": lambda: measure_plan(arguments.work, arguments.counts),
        "convert": lambda: measure_convert(arguments.work, arguments.counts),
        "update": lambda: measure_update(arguments.work, arguments.update_count),
    }
    return run_sections(sections, arguments.only)


def measure_plan(work: Path, counts: list[int]) -> Iterator[bool]:
    for count in counts:
        images, out = link_images(work, count), work / "planned"
        shutil.rmtree(out, ignore_errors=True)
        run = measure([sys.executable, "-c", PLAN, str(images), str(out)])
        yield report(f"{count:,} images, time", f"{run.seconds:.1f} s", f"at most {PLAN_S} s",
                     ok=run.seconds <= PLAN_S)  # fmt: skip
        yield report("  memory", f"{run.peak_mb:.0f} MB", f"at most {PLAN_MB} MB",
                     ok=run.peak_mb <= PLAN_MB)  # fmt: skip


def measure_convert(work: Path, counts: list[int]) -> Iterator[bool]:
    workers = []
    for count in counts:
        run = convert(link_images(work, count), work / "converted", *SIZE)
        report(f"{count:,} images", f"{run.seconds:.1f} s, {count / run.seconds:,.0f}/s")
        yield report("  launcher, from scan to manifest", f"{run.launcher_mb:.0f} MB",
                     f"at most {PLAN_MB} MB", ok=run.launcher_mb <= PLAN_MB)  # fmt: skip
        report("  largest worker", f"{run.worker_mb:.0f} MB")
        workers.append(run.worker_mb)
    growth = workers[-1] - workers[0]
    yield report("a worker's growth", f"{growth:+.0f} MB", f"at most {GROWTH_MB} MB",
                 ok=growth <= GROWTH_MB)  # fmt: skip


def measure_update(work: Path, count: int) -> Iterator[bool]:
    images, changed, out = link_images(work, count), work / "changed", work / "updated"
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
    yield report("  launcher", f"{run.launcher_mb:.0f} MB", f"at most {PLAN_MB} MB",
                 ok=run.launcher_mb <= PLAN_MB)  # fmt: skip
    report("  largest worker", f"{run.worker_mb:.0f} MB")


if __name__ == "__main__":
    sys.exit(main())
