"""Measures what reading is held to, and prints it beside the bar.

    read      images a second, time to the first batch, memory and CPU, beside other ways to read
    memory    growth over bare TensorFlow against `max_ram`, epoch after epoch
    access    a batch of records at random places, of 5,000 and of a million

Every contender reads in a process of its own (`read_peers.py`), and the rounds are interleaved:
machines drift, so a ratio is the median of the ratios within each round. Contenders that are not
installed are named as absent. The bars were set on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import corpora
from measuring import report, run_sections

HERE = Path(__file__).resolve().parent
MILLION = 1_000_000
TENFOLD = 10


class Contender(NamedTuple):
    """What is measured: one of `read_peers.PEERS`, what it reads, and options of `load_dataset`."""

    peer: str
    corpus: str
    options: Mapping[str, Any] = MappingProxyType({})


CONTENDERS = {
    "shardmill jpeg": Contender("shardmill", "jpeg"),
    "shardmill jpeg, in order": Contender("shardmill", "jpeg", {"shuffle": False}),
    "shardmill raw": Contender("shardmill", "raw"),
    "shardmill raw, in order": Contender("shardmill", "raw", {"shuffle": False}),
    "decode_jpeg, mapped": Contender("decode-mapped", "jpeg"),
    "decode_jpeg, eager": Contender("decode-eager", "jpeg"),
    "DALI": Contender("dali", "jpeg"),
    "Keras, originals": Contender("keras", "originals"),
    "Keras, resized": Contender("keras", "resized"),
    "tutorial float32": Contender("tutorial-float32", "jpeg"),
    "tutorial uint8": Contender("tutorial-uint8", "jpeg"),
    "Grain": Contender("grain", "jpeg"),
}

RATIOS = (
    ("shardmill jpeg", "DALI", 0.95),
    ("shardmill jpeg", "decode_jpeg, mapped", 0.9),
    ("shardmill jpeg", "decode_jpeg, eager", None),
    ("shardmill jpeg", "Keras, originals", 6.0),
    ("shardmill jpeg", "Keras, resized", None),
    ("shardmill jpeg", "tutorial float32", None),
    ("shardmill jpeg", "tutorial uint8", None),
    ("shardmill jpeg", "Grain", None),
    ("shardmill raw", "DALI", 3.0),
    ("shardmill jpeg", "shardmill jpeg, in order", 0.95),
    ("shardmill raw", "shardmill raw, in order", None),
)
"""Which rate is divided by which, and what it has to come to."""

BUDGETS = ((64_000_000, 16), (256_000_000, 64), (1_000_000_000, 64))
"""`max_ram` in bytes, and the batch size to go with it."""

FLAT_MB = 30
ACCESS_MB = 50
ACCESS_MS = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=HERE.parent / "build" / "benchmark")
    parser.add_argument("--count", type=int, default=5_000, help="images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4, help="of `read`; the first is a warm-up")
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--only", choices=("read", "memory", "access"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    sections = {
        "read": lambda: measure_read(given),
        "memory": lambda: measure_memory(given.work, given.count),
        "access": lambda: measure_access(given.work, given.count, given.rounds),
    }
    return run_sections(sections, given.only)


def measure_read(given: argparse.Namespace) -> Iterator[bool]:
    """Reads epochs at 64 a batch, shuffled, with each contender in each round."""
    folders = {
        "jpeg": corpora.convert_photos(given.work, given.count, "jpeg"),
        "raw": corpora.convert_photos(given.work, given.count, "raw"),
        "originals": corpora.make_photos(given.work, given.count),
        "resized": corpora.unpack_photos(given.work, given.count),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in given.contenders}
    for _ in range(given.rounds):
        for name in given.contenders:
            contender = CONTENDERS[name]
            runs[name].append(run_peer(contender, folders[contender.corpus], given.epochs))
    print(f"  {given.count:,} JPEGs, {os.cpu_count()} cores, medians of {given.rounds} rounds\n")
    print_table(runs)
    for ours, theirs, least in RATIOS:
        if ours not in runs or theirs not in runs:
            continue
        if "absent" in runs[theirs][0]:
            report(
                f"{ours} / {theirs}", "absent", f"at least {least}, not checked" if least else ""
            )
            continue
        yield report_ratio(f"{ours} / {theirs}", runs[ours], runs[theirs], least)


def run_peer(contender: Contender, folder: Path, epochs: int) -> dict[str, Any]:
    options = json.dumps(dict(contender.options))
    return run_python(
        "read_peers.py", contender.peer, folder, f"--epochs={epochs}", f"--options={options}"
    )


def run_python(script: str, *arguments: object) -> dict[str, Any]:
    """Runs a script beside this one; what it prints last is its result."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def print_table(runs: dict[str, list[dict[str, Any]]]) -> None:
    print(f"  {'':<26}{'images/s':>10}{'first batch':>13}{'growth':>11}{'CPU s/1,000':>13}")
    for name, done in runs.items():
        if missing := done[0].get("absent"):
            print(f"  {name:<26}    absent: {missing} is not installed")
            continue
        first = f"{find_median(done, 'first_s'):.2f} s" if done[0]["first_s"] else "-"
        print(
            f"  {name:<26}{find_median(done, 'rate'):>10,.0f}{first:>13}"
            f"{find_median(done, 'growth_mb'):>8,.0f} MB{find_median(done, 'cpu_s'):>13.2f}"
        )
        options = ", ".join(f"{key}={value}" for key, value in CONTENDERS[name].options.items())
        print(f"      {done[0]['asked']}{f', with {options}' if options else ''}")
    print("  not measured: WebDataset, MosaicML Streaming and torch, whose loaders need torch\n")


def find_median(runs: Iterable[dict[str, Any]], key: str) -> float:
    return float(statistics.median(run[key] for run in runs))


def report_ratio(
    what: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]], least: float | None
) -> bool:
    ratios = [one["rate"] / other["rate"] for one, other in zip(ours, theirs, strict=True)]
    ratio = statistics.median(ratios)
    return report(
        what,
        f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"at least {least}" if least else "",
        ok=least is None or ratio >= least,
    )


def measure_memory(work: Path, count: int) -> Iterator[bool]:
    """Reads ten epochs under each budget, and three of a data set that is ten times as large."""
    for encoding in ("jpeg", "raw"):
        folder = corpora.convert_photos(work, count, encoding)
        yield from measure_budgets(f"{encoding}, exact", folder, 10)
        yield from measure_budgets(f"{encoding}, buffer", folder, 10, shuffle="buffer")
    large = corpora.repeat_photos(work, count, TENFOLD, "jpeg")
    yield from measure_budgets(f"{TENFOLD * count:,} jpeg, exact", large, 3)


def measure_budgets(what: str, folder: Path, epochs: int, **options: str) -> Iterator[bool]:
    for budget, batch_size in BUDGETS:
        asked = {"max_ram": budget, "batch_size": batch_size, **options}
        peaks = run_peer(Contender("shardmill", "", asked), folder, epochs)["peaks_mb"]
        yield report(
            f"{what}, batches of {batch_size}",
            f"{max(peaks):,.0f} MB",
            f"under {budget / 1e6:,.0f} MB",
            ok=max(peaks) * 1e6 < budget,
        )
        drift = max(peaks[1:]) - peaks[1]
        yield report(
            f"  growth from epoch 2 to {epochs}",
            f"{drift:.0f} MB",
            f"within {FLAT_MB} MB",
            ok=drift <= FLAT_MB,
        )


def measure_access(work: Path, count: int, rounds: int) -> Iterator[bool]:
    """Reads 32 records at random, first in a fresh process and then 50 times again."""
    folders = {
        f"{count:,} photos": corpora.convert_photos(work, count, "jpeg"),
        f"{MILLION:,} tiny images": corpora.make_tiny(work, MILLION),
    }
    for what, folder in folders.items():
        runs = [run_python("read_random.py", folder) for _ in range(rounds)]
        report(f"{what}: opening", f"{find_median(runs, 'opened_ms'):.1f} ms")
        for key, when in (("cold_ms", "first batch of 32"), ("warm_ms", "every other")):
            value = find_median(runs, key)
            yield report(
                f"  {when}", f"{value:.1f} ms", f"under {ACCESS_MS} ms", ok=value < ACCESS_MS
            )
        growth = max(run["growth_mb"] for run in runs)
        yield report(
            "  memory added, opening included",
            f"{growth:.1f} MB",
            f"under {ACCESS_MB} MB",
            ok=growth < ACCESS_MB,
        )


if __name__ == "__main__":
    sys.exit(main())
