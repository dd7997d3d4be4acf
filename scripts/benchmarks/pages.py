"""What the pages for people take for a million records, beside what they are held to.

    report     `shardmill report`: seconds, bytes of the page, memory
    classes    the same page for 20,000 classes: seconds and bytes
    view       the server behind `shardmill view`: first page, jumps, classes, searches, memory

The records are PNGs of 8x8, so what is measured is what their number costs.
"""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from benchmarks.corpora import make_tiny, multiply_tiny
from benchmarks.measuring import make_parser, measure, report, run_sections

RECORDS = 1_000_000
FIRST_PAGE_S, JUMP_S, SEARCH_S, VIEW_MB = 1.0, 0.2, 0.5, 300
JUMPS = 50

REPORTED, TIMES = 50_000, 20
REPORT_S, REPORT_BYTES, REPORT_MB = 10, 3_000_000, 500
CLASSES = 20_000

# The page alone, with names as long as those of real classes.
PAGE = f"""
import sys
sys.path.insert(0, "tests")
from surveying import make_run, make_survey
from pipelines.pages.page import render_report
names = [f"n{{n:08d}} a class with a name of usual length" for n in range({CLASSES})]
train, validation = ([1 + n % most for n in range({CLASSES})] for most in (977, 97))
survey = make_survey({{"train": train, "validation": validation}}, names, runs=[make_run()])
page = render_report(survey, {{}})
print(len(page.encode()))
"""


def main() -> int:
    parser = make_parser(__doc__, ("report", "classes", "view"))
    parser.add_argument("--records", type=int, default=RECORDS)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    sections = {
        "report": lambda: measure_report(multiply_tiny(arguments.work, REPORTED, TIMES)),
        "classes": measure_classes,
        "view": lambda: measure_view(make_tiny(arguments.work, arguments.records)),
    }
    return run_sections(sections, arguments.only)


def measure_report(out: Path) -> Iterator[bool]:
    run = measure([sys.executable, "-m", "pipelines", "report", str(out)])
    yield from _report_page(f"{REPORTED * TIMES:,} records", run.seconds,
                            (out / "report.html").stat().st_size)  # fmt: skip
    yield report("  memory", f"{run.peak_mb:.0f} MB", f"at most {REPORT_MB} MB",
                 ok=run.peak_mb <= REPORT_MB)  # fmt: skip


def measure_classes() -> Iterator[bool]:
    run = measure([sys.executable, "-c", PAGE])
    yield from _report_page(f"{CLASSES:,} classes", run.seconds, int(run.output))


def _report_page(what: str, seconds: float, size: int) -> Iterator[bool]:
    yield report(what, f"{seconds:.1f} s", f"at most {REPORT_S} s", ok=seconds <= REPORT_S)
    yield report("  the page", f"{size:,} bytes", f"at most {REPORT_BYTES:,}",
                 ok=size <= REPORT_BYTES)  # fmt: skip


def measure_view(out: Path) -> Iterator[bool]:
    command = [sys.executable, "-m", "pipelines", "view", str(out), "--no-browser", "--json"]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = json.loads(process.stdout.readline())["address"]  # type: ignore[union-attr]
            report("from the command to its address", f"{time.monotonic() - start:.2f} s")
            yield from _measure_pages(Visitor(address))
            peak = psutil.Process(process.pid).memory_info().rss / 1e6
            yield report("memory at the end", f"{peak:.0f} MB", f"at most {VIEW_MB} MB",
                         ok=peak <= VIEW_MB)  # fmt: skip
        finally:
            process.terminate()


class Visitor:
    """A browser as far as addresses and cookies go."""

    def __init__(self, address: str) -> None:
        self._base = address.partition("?")[0]
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        self._opener.open(address, timeout=60).close()

    def get(self, path: str) -> bytes:
        with self._opener.open(self._base + path, timeout=60) as answer:
            data: bytes = answer.read()
            return data

    def time(self, path: str) -> float:
        start = time.monotonic()
        self.get(path)
        return time.monotonic() - start


def _measure_pages(visitor: Visitor) -> Iterator[bool]:
    records = json.loads(visitor.get("s/train/progress"))["records"]
    first = visitor.time("s/train/")
    first += max(visitor.time(f"s/train/{number}/thumbnail") for number in range(60))
    yield _report("first page and its slowest thumbnail", [first], FIRST_PAGE_S)
    numbers = np.random.default_rng(0).integers(0, records, JUMPS).tolist()
    jumps = [visitor.time(f"s/train/jump?to={number}") for number in numbers]
    yield _report(f"{JUMPS} jumps to a number, the slowest", jumps, JUMP_S)
    pages = [visitor.time(f"s/train/?page={number // 60}") for number in numbers]
    yield _report(f"{JUMPS} pages anywhere, the slowest", pages, JUMP_S)
    yield _report("a class, before anything is known", [visitor.time("s/train/?class=3")], 1.0)
    during = [visitor.time(f"s/train/jump?to={number}") for number in numbers]
    yield _report("jumps meanwhile, the slowest", during, JUMP_S)
    start = time.monotonic()
    while not json.loads(visitor.get("s/train/progress"))["done"]:
        time.sleep(0.2)
    report("until all is known, after that", f"{time.monotonic() - start:.1f} s")
    labels = [visitor.time(f"s/train/?class={label}&page=5") for label in range(10)]
    yield _report("ten classes, the slowest", labels, JUMP_S)
    texts = [visitor.time(f"s/train/?q={text}") for text in ("png", "class-3/13", "zebra")]
    yield _report("texts in all, few and no names, the slowest", texts, SEARCH_S)
    inside = [visitor.time(f"s/train/{number}?class=3") for number in numbers]
    yield _report("records within a class, the slowest", inside, JUMP_S)


def _report(what: str, seconds: list[float], bar: float) -> bool:
    worst = max(seconds)
    return report(what, f"{worst * 1000:.0f} ms", f"at most {bar * 1000:.0f} ms", ok=worst <= bar)


if __name__ == "__main__":
    sys.exit(main())
