"""Measures what reading is held to, and prints it beside the bar.

    read      images a second, time to the first batch, memory and CPU, beside other ways to read
    start     from the start of the process to the first batch
    python    how long Python's interpreter is held for an image, and so where one process saturates
    memory    growth over bare TensorFlow against `max_ram`, epoch after epoch
    access    a batch of records at random places, of 5,000 and of a million

Every contender reads in a process of its own (`read_peers.py`), and the rounds are interleaved:
machines drift, so a ratio is the median of the ratios within each round. Contenders that are not
installed are named as absent. The bars were set on two cores. With `--before`, another checkout is
a contender, too.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks import corpora
from benchmarks.measuring import report, run_sections

SCRIPTS = Path(__file__).resolve().parents[1]
MILLION = 1_000_000
TENFOLD = 10


class Contender(NamedTuple):
    """What is measured: one of `read_peers.PEERS`, what it reads, and options of `load_dataset`."""

    peer: str
    corpus: str
    options: Mapping[str, Any] = MappingProxyType({})


BEFORE = "load_dataset before"

CONTENDERS = {
    "load_dataset": Contender("shardmill", "jpeg"),
    BEFORE: Contender("shardmill", "jpeg"),
    "load_dataset, in order": Contender("shardmill", "jpeg", {"shuffle": False}),
    "load_dataset, float32": Contender("shardmill", "jpeg", {"dtype": "float32"}),
    "load_dataset, raw": Contender("shardmill", "raw"),
    "load_dataset, raw, in order": Contender("shardmill", "raw", {"shuffle": False}),
    "load_dataset, serializable": Contender("serializable", "jpeg"),
    "batches()": Contender("batches", "jpeg"),
    "batches(), in order": Contender("batches", "jpeg", {"shuffle": False}),
    "batches(), raw": Contender("batches", "raw"),
    "PyDataset": Contender("sequence", "jpeg"),
    "simplejpeg": Contender("simplejpeg", "jpeg"),
    "decode_jpeg, mapped": Contender("decode-mapped", "jpeg"),
    "decode_jpeg, eager": Contender("decode-eager", "jpeg"),
    "DALI": Contender("dali", "jpeg"),
    "Keras, originals": Contender("keras", "originals"),
    "Keras, cached": Contender("cached", "originals"),
    "Keras, resized": Contender("keras", "resized"),
    "tutorial float32": Contender("tutorial-float32", "jpeg"),
    "tutorial uint8": Contender("tutorial-uint8", "jpeg"),
    "Grain": Contender("grain", "jpeg"),
}

RATIOS = (
    ("load_dataset", "DALI", 1.15),
    ("load_dataset", "simplejpeg", 0.8),
    ("batches()", "DALI", 1.25),
    ("batches()", "simplejpeg", 0.88),
    ("load_dataset, raw", "DALI", 3.0),
    ("batches(), raw", "DALI", None),
    ("load_dataset, serializable", "DALI", 0.85),
    ("load_dataset", "load_dataset, in order", 0.95),
    ("batches()", "batches(), in order", 0.95),
    ("load_dataset, raw", "load_dataset, raw, in order", None),
    ("load_dataset", BEFORE, None),
    ("load_dataset", "decode_jpeg, mapped", None),
    ("load_dataset", "Keras, originals", None),
    ("load_dataset", "Keras, resized", None),
    ("load_dataset", "tutorial float32", None),
    ("load_dataset", "tutorial uint8", None),
    ("load_dataset", "Grain", None),
)
"""Which rate is divided by which, and what it has to come to."""

BUDGETS = ((64_000_000, 16), (256_000_000, 64), (1_000_000_000, 64))
"""`max_ram` in bytes, and the batch size to go with it."""

SERIALIZABLE_BUDGETS = ((96_000_000, 16), *BUDGETS[1:])
"""64 MB are refused."""

SATURATION = 30_000
"""Images a second, below which no process may saturate."""

READ_ON = """
import sys, time
from reader import open_shards
batches = open_shards(sys.argv[1]).batches("train", batch_size=64, dtype="uint8", seed=1)
while True:
    begun = time.perf_counter()
    images = sum(len(labels) for _, labels in batches)
    print(images / (time.perf_counter() - begun), flush=True)
"""

SPY_S = 4
SPY_HERTZ = 200

BATCHES_RSS_MB = 200
CPU_SHARE = 0.85
"""Of the CPU time an image that `BEFORE` takes."""

FLAT_MB = 30
ACCESS_MB = 50
ACCESS_MS = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=SCRIPTS.parent / "build" / "benchmark")
    parser.add_argument("--count", type=int, default=5_000, help="images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4, help="of `read`; the first is a warm-up")
    parser.add_argument(
        "--repeat", type=int, default=1, help="of the JPEGs: of long epochs, the beginning is less"
    )
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--before", type=Path, help="another checkout, to compare with")
    parser.add_argument("--only", choices=("read", "start", "python", "memory", "access"))
    given = parser.parse_args()
    if given.before is None:
        given.contenders = [name for name in given.contenders if name != BEFORE]
    given.work = given.work.absolute()
    given.work.mkdir(parents=True, exist_ok=True)
    sections = {
        "read": lambda: measure_read(given),
        "start": lambda: measure_start(given),
        "python": lambda: measure_interpreter(given),
        "memory": lambda: measure_memory(given.work, given.count),
        "access": lambda: measure_access(given.work, given.count, given.rounds),
    }
    return run_sections(sections, given.only)


def measure_read(given: argparse.Namespace) -> Iterator[bool]:
    """Reads epochs at 64 a batch, shuffled, with each contender in each round."""
    jpegs = corpora.convert_photos(given.work, given.count, "jpeg")
    if given.repeat > 1:
        jpegs = corpora.repeat_photos(given.work, given.count, given.repeat, "jpeg")
    folders = {
        "jpeg": jpegs,
        "raw": corpora.convert_photos(given.work, given.count, "raw"),
        "originals": corpora.make_photos(given.work, given.count),
        "resized": corpora.unpack_photos(given.work, given.count),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in given.contenders}
    for _ in range(given.rounds):
        for name in given.contenders:
            contender = CONTENDERS[name]
            checkout = given.before if name == BEFORE else None
            folder = folders[contender.corpus]
            runs[name].append(run_peer(contender, folder, given.epochs, checkout))
    count = given.count * given.repeat
    print(f"  {count:,} JPEGs, {os.cpu_count()} cores, medians of {given.rounds} rounds\n")
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
    if "batches()" in runs:
        rss = max(run["rss_mb"] for run in runs["batches()"])
        limit = f"at most {BATCHES_RSS_MB} MB"
        yield report("batches(), peak RSS", f"{rss:.0f} MB", limit, ok=rss <= BATCHES_RSS_MB)
    if BEFORE in runs and "load_dataset" in runs:
        yield from compare_before(runs["load_dataset"], runs[BEFORE])


def compare_before(now: list[dict[str, Any]], before: list[dict[str, Any]]) -> Iterator[bool]:
    """CPU and memory beside those of another checkout."""
    shares = [one["cpu_s"] / other["cpu_s"] for one, other in zip(now, before, strict=True)]
    share = statistics.median(shares)
    yield report(
        "CPU an image / before",
        f"{share:.2f} ({min(shares):.2f} to {max(shares):.2f})",
        f"at most {CPU_SHARE}",
        ok=share <= CPU_SHARE,
    )
    growth, limit = find_median(now, "growth_mb"), find_median(before, "growth_mb")
    yield report(
        "growth over TensorFlow", f"{growth:.0f} MB", f"before: {limit:.0f} MB", ok=growth <= limit
    )


def measure_start(given: argparse.Namespace) -> Iterator[bool]:
    """Starts Python, imports what is needed, and reads one batch, once a round."""
    folder = corpora.convert_photos(given.work, given.count, "jpeg")
    names = [name for name in ("load_dataset", BEFORE, "batches()") if name in given.contenders]
    runs: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(given.rounds):
        for name in names:
            checkout = given.before if name == BEFORE else None
            started = f"--started={time.time()}"
            done = run_python(
                "read_peers", CONTENDERS[name].peer, folder, started, checkout=checkout
            )
            runs[name].append(done["start_s"])
    for name, seconds in runs.items():
        yield report(f"{name}: first batch", f"{statistics.median(seconds):.2f} s")


def run_peer(
    contender: Contender, folder: Path, epochs: int, checkout: Path | None = None
) -> dict[str, Any]:
    options = json.dumps(dict(contender.options))
    asked = (f"--epochs={epochs}", f"--options={options}")
    return run_python("read_peers", contender.peer, folder, *asked, checkout=checkout)


def run_python(script: str, *arguments: object, checkout: Path | None = None) -> dict[str, Any]:
    """Runs a module beside this one, with the code of a checkout; it prints its result last."""
    command = [sys.executable, "-m", f"benchmarks.{script}", *map(str, arguments)]
    root = (checkout or SCRIPTS.parent).absolute()
    paths = root, root / "scripts"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    # In that checkout, because `-m` looks into the current folder first.
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=root
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def print_table(runs: dict[str, list[dict[str, Any]]]) -> None:
    heads = ("images/s", "first batch", "growth", "peak RSS", "CPU ms")
    print(f"  {'':<28}{heads[0]:>9}{heads[1]:>13}{heads[2]:>9}{heads[3]:>11}{heads[4]:>9}")
    for name, done in runs.items():
        if missing := done[0].get("absent"):
            print(f"  {name:<28}    absent: {missing} is not installed")
            continue
        first = f"{find_median(done, 'first_s'):.2f} s" if done[0]["first_s"] else "-"
        print(
            f"  {name:<28}{find_median(done, 'rate'):>9,.0f}{first:>13}"
            f"{find_median(done, 'growth_mb'):>6,.0f} MB{find_median(done, 'rss_mb'):>8,.0f} MB"
            f"{find_median(done, 'cpu_s'):>9.3f}"
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


def measure_interpreter(given: argparse.Namespace) -> Iterator[bool]:
    """Bounds the images a second that threads of one process can read on any number of cores."""
    folder = corpora.convert_photos(given.work, given.count, "jpeg")
    run = run_peer(Contender("engine", "jpeg"), folder, 6)
    yield report_saturation("a decoder that costs nothing, one thread", 1e6 / run["rate"])
    run = run_peer(Contender("waiting", "jpeg"), folder, 6)
    yield report_saturation("eight threads that wait in its place", 1e6 / run["rate"])
    spy = shutil.which("py-spy", path=Path(sys.executable).parent)
    if spy is None:
        report("samples of who holds the interpreter", "absent: py-spy is not installed")
        return
    command = [sys.executable, "-c", READ_ON, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            time.sleep(SPY_S)  # until epochs follow each other
            shares = [sample_interpreter(spy, process.pid) for _ in range(given.rounds)]
        finally:
            process.kill()
        rates = [float(line) for line in process.stdout or ()]
    held_us = statistics.median(shares) * 1e6 / statistics.median(rates[1:])
    yield report_saturation("batches(), py-spy's samples", held_us)


def sample_interpreter(spy: str, pid: int) -> float:
    """The share of time in which some thread of a process holds the interpreter."""
    with tempfile.NamedTemporaryFile() as file:
        command = [spy, "record", "--gil", "--format=raw", f"--rate={SPY_HERTZ}"]
        command += [f"--duration={SPY_S}", f"--output={file.name}", f"--pid={pid}"]
        subprocess.run(command, capture_output=True, check=True)
        lines = Path(file.name).read_text().splitlines()
        samples = sum(int(line.rpartition(" ")[2]) for line in lines)
    return samples / (SPY_HERTZ * SPY_S)


def report_saturation(what: str, held_us: float) -> bool:
    limit = 1e6 / held_us
    value = f"{held_us:.1f} us, {limit:,.0f} images/s"
    return report(what, value, f"at least {SATURATION:,}", ok=limit >= SATURATION)


def measure_memory(work: Path, count: int) -> Iterator[bool]:
    """Reads ten epochs under each budget, and three of a data set that is ten times as large."""
    for encoding in ("jpeg", "raw"):
        folder = corpora.convert_photos(work, count, encoding)
        yield from measure_budgets(f"{encoding}, exact", folder, 10)
        yield from measure_budgets(f"{encoding}, buffer", folder, 10, shuffle="buffer")
    jpegs = corpora.convert_photos(work, count, "jpeg")
    yield from measure_budgets("serializable", jpegs, 10, "serializable", SERIALIZABLE_BUDGETS)
    yield report_drift(run_peer(Contender("fit", ""), jpegs, 10)["peaks_mb"], "model.fit: ")
    large = corpora.repeat_photos(work, count, TENFOLD, "jpeg")
    yield from measure_budgets(f"{TENFOLD * count:,} jpeg, exact", large, 3)


def measure_budgets(
    what: str,
    folder: Path,
    epochs: int,
    peer: str = "shardmill",
    budgets: Iterable[tuple[int, int]] = BUDGETS,
    **options: str,
) -> Iterator[bool]:
    for budget, batch_size in budgets:
        asked = {"max_ram": budget, "batch_size": batch_size, **options}
        peaks = run_peer(Contender(peer, "", asked), folder, epochs)["peaks_mb"]
        yield report(
            f"{what}, batches of {batch_size}",
            f"{max(peaks):,.0f} MB",
            f"under {budget / 1e6:,.0f} MB",
            ok=max(peaks) * 1e6 < budget,
        )
        yield report_drift(peaks)


def report_drift(peaks: list[float], what: str = "  ") -> bool:
    drift = max(peaks[1:]) - peaks[1]
    limit = f"within {FLAT_MB} MB"
    what += f"growth from epoch 2 to {len(peaks)}"
    return report(what, f"{drift:.0f} MB", limit, ok=drift <= FLAT_MB)


def measure_access(work: Path, count: int, rounds: int) -> Iterator[bool]:
    """Reads 32 records at random, first in a fresh process and then 50 times again."""
    folders = {
        f"{count:,} photos": corpora.convert_photos(work, count, "jpeg"),
        f"{MILLION:,} tiny images": corpora.make_tiny(work, MILLION),
    }
    for what, folder in folders.items():
        runs = [run_python("read_random", folder) for _ in range(rounds)]
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
