"""Reads 100 million records in 100,000 shards, and compares what it takes with what one expects.

    open      the data set, its counts, single records at random places
    batches   the first steps of an epoch and one in its middle, in three orders
    keras     the same for load_dataset, and batches of a PyDataset by their number
    memory    growth against `max_ram`, opening included; every shard is come to, as in an epoch
    order     what an exact shuffle computes for a record

All shards can be read: they are hard links of four, whose photographs are real, so they take no
space and the system's cache holds them. What is measured is what the reader does, not a disk.
Each line comes from a process of its own that may open 256 files.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.corpora import LINKED_RECORDS, LINKED_SHARDS, link_photos
from benchmarks.measuring import make_parser, report, run_sections
from benchmarks.read import run_python

SHARDS = 100_000
TRAIN = 0.8
"""Of the shards: a split may have no more than 99,999."""

OPEN_CPU_S, OPEN_MB = 2, 200
COUNT_S = 0.01
PLAN_CPU_S = 1
FIRST_S = 1
RECORD_MS = 5
STEP_RATIO = 2
"""CPU of a step of an exact shuffle over that of one in order."""

PERMUTED_US, PERMUTED_MB = 2, 10
BUDGETS = ((64, 16), (256, 64), (512, 64), (1_000, 64))
"""`max_ram` in MB, and the batch size to go with it."""

ORDERS: Mapping[str, Mapping[str, Any]] = {
    "in order": {"shuffle": False},
    "exact": {"shuffle": "exact"},
    "buffer": {"shuffle": "buffer"},
}


def main() -> int:
    parser = make_parser(__doc__, ("open", "batches", "keras", "memory", "order"))
    parser.add_argument("--shards", type=int, default=SHARDS)
    parser.add_argument("--keep", action="store_true", help="leave the data set there")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    train = round(given.shards * TRAIN / LINKED_SHARDS)
    times = {"train": train, "validation": given.shards // LINKED_SHARDS - train}
    folder = link_photos(given.work.absolute(), times)
    print(f"  {given.shards:,} shards of {LINKED_RECORDS:,} records in {folder}")
    sections = {
        "open": lambda: measure_open(folder),
        "batches": lambda: measure_batches(folder),
        "keras": lambda: measure_keras(folder),
        "memory": lambda: measure_memory(folder),
        "order": lambda: measure_order(folder),
    }
    try:
        return run_sections(sections, given.only)
    finally:
        if not given.keep:
            shutil.rmtree(folder)


def measure_open(folder: Path) -> Iterator[bool]:
    stages = read("records", folder)
    opened = stages["open"]
    yield report_cpu("open_shards", opened, OPEN_CPU_S)
    yield report("  memory at its peak", f"{opened['peak_mb']:.0f} MB", f"at most {OPEN_MB} MB",
                 ok=opened["peak_mb"] <= OPEN_MB)  # fmt: skip
    report("  memory it keeps", f"{opened['held_mb']:.0f} MB")
    yield report_time("records and classes of each split", stages["count"], COUNT_S)
    yield report_cpu('source("train")', stages["source"], PLAN_CPU_S)
    yield report_time("  its first record", stages["first record"], FIRST_S)
    each = stages["records"]["cpu_s"] / stages["records"]["count"] * 1000
    yield report("  every other, CPU", f"{each:.2f} ms", f"at most {RECORD_MS} ms",
                 ok=each <= RECORD_MS)  # fmt: skip
    report_opens("  ", stages["records"])


def measure_batches(folder: Path) -> Iterator[bool]:
    steps = {}
    for name, options in ORDERS.items():
        stages = read("batches", folder, options)
        yield report_cpu(f"{name}: batches(…)", stages["plan"], PLAN_CPU_S)
        yield report_time("  first step", stages["first step"], FIRST_S)
        steps[name] = report_steps(stages["steps"])
        yield report_time("  a step in the middle of epoch 3", stages["a step in the middle"],
                          FIRST_S)  # fmt: skip
        report("  memory over the start", f"{stages['steps']['peak_mb']:.0f} MB")
    ratio = steps["exact"] / steps["in order"]
    yield report("CPU of a step, exact / in order", f"{ratio:.2f}", f"at most {STEP_RATIO}",
                 ok=ratio <= STEP_RATIO)  # fmt: skip


def measure_keras(folder: Path) -> Iterator[bool]:
    stages = read("dataset", folder)
    report("load_dataset, which opens the data set", f"{stages['plan']['cpu_s']:.2f} s CPU")
    yield report_time("  first step", stages["first step"], FIRST_S)
    report_steps(stages["steps"])
    report("  memory over TensorFlow", f"{stages['steps']['peak_mb']:.0f} MB")
    stages = read("sequence", folder)
    yield report_cpu("sequence(…)", stages["plan"], PLAN_CPU_S)
    yield report_time("  sequence[middle]", stages["first step"], FIRST_S)
    report_steps(stages["steps"])


def measure_memory(folder: Path) -> Iterator[bool]:
    for budget, batch_size in BUDGETS:
        options = {"max_ram": budget * 1_000_000, "batch_size": batch_size}
        stages = read("memory", folder, options)
        what, most = f"max_ram {budget} MB, batches of {batch_size}", budget
        if error := stages.get("error"):
            report(what, "refused")
            print(f"    {error}")
            needed = int(re.findall(r"\(([\d,]+) bytes\)", error)[0].replace(",", ""))
            what, most = f"  of {batch_size} with what that asks for", needed // 1_000_000
            stages = read("memory", folder, {**options, "max_ram": needed})
        peak = max(stage["peak_mb"] for stage in stages.values())
        yield report(what, f"{peak:.0f} MB", f"at most {most} MB", ok=peak <= most)


def measure_order(folder: Path) -> Iterator[bool]:
    stage = read("permutation", folder)["permutation"]
    each = stage["cpu_s"] / stage["count"] * 1e6
    yield report("an exact shuffle, CPU for a record", f"{each:.2f} µs",
                 f"at most {PERMUTED_US} µs", ok=each <= PERMUTED_US)  # fmt: skip
    yield report("  memory", f"{stage['grown_mb']:.1f} MB", f"at most {PERMUTED_MB} MB",
                 ok=stage["grown_mb"] <= PERMUTED_MB)  # fmt: skip


def read(way: str, folder: Path, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return run_python("read_shards", way, folder, json.dumps(dict(options or {})))


def report_cpu(what: str, stage: Mapping[str, float], most: float) -> bool:
    value = f"{stage['cpu_s']:.2f} s CPU"
    return report(what, value, f"at most {most} s", ok=stage["cpu_s"] <= most)


def report_time(what: str, stage: Mapping[str, float], most: float) -> bool:
    value = f"{stage['seconds'] * 1000:.1f} ms"
    return report(what, value, f"at most {most * 1000:.0f} ms", ok=stage["seconds"] <= most)


def report_steps(stage: Mapping[str, float]) -> float:
    """Prints what one of several steps takes; returns its CPU seconds."""
    each = stage["cpu_s"] / stage["count"]
    report("  every other step", f"{stage['seconds'] / stage['count'] * 1000:.1f} ms, "
           f"{each * 1000:.1f} ms CPU")  # fmt: skip
    report_opens("  ", stage)
    return each


def report_opens(indent: str, stage: Mapping[str, float]) -> None:
    report(f"{indent}files opened for a record", f"{stage['opened'] / stage['records']:.2f}")


if __name__ == "__main__":
    sys.exit(main())
