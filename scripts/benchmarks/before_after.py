"""Measures Keras' loader of image folders and `load_dataset`, and draws the picture of the README.

    ./scripts/run benchmarks/before_after --svg docs/before-after.svg

Without `--svg` it prints the figures alone. All give images of 256x256, 64 a batch, shuffled, as
float32; Shardmill also as uint8, for a layer to rescale. Measure on a quiet machine: beside other
programs, what waits for a core seems slow.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from benchmarks import corpora
from benchmarks.measuring import WORK
from benchmarks.read import CONTENDERS, run_peer

CACHED = "Keras, cached"
FLOATS = "load_dataset, float32"
OURS = "load_dataset"
AFTER = (FLOATS, OURS)

ROWS = {
    "Keras, originals": "image_dataset_from_directory",
    CACHED: "… with .cache()",
    "Keras, resized": "… on images resized before",
    FLOATS: "Shardmill: load_dataset",
    OURS: 'Shardmill: load_dataset, dtype="uint8"',
}
WIDTH, MARGIN = 480, 6
ROW, BAR, TITLE = 39, 13, 34
VALUE = 78  # to the right of the longest bar

STYLE = """
    text { font: 14px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
    .title { font-weight: 600; font-size: 16px }
    .note { fill: #59636e; font-size: 12.5px }
    .before { fill: #afb8c1 } .after { fill: #0969da }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 } .note { fill: #9198a1 }
      .before { fill: #59636e } .after { fill: #4493f8 }
    }
"""


class Panel(NamedTuple):
    """What one half of the picture shows: a title, and a value with its text for each row."""

    title: str
    values: dict[str, tuple[float, str]]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--count", type=int, default=5_000, help="images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4, help="the first is a warm-up")
    parser.add_argument("--svg", type=Path, help="the picture to write")
    given = parser.parse_args()
    panels = make_panels(measure_rows(given))
    for panel in panels:
        print(panel.title)
        for name, (_, text) in panel.values.items():
            print(f"  {ROWS[name]:<32} {text:>12}")
    if given.svg:
        note = f"{given.count:,} JPEGs of 500x375 to 256x256, 64 a batch, {os.cpu_count()} cores"
        given.svg.write_text(draw(panels, note))
    return 0


def measure_rows(given: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Interleaves the rounds: machines drift."""
    folders = {
        "jpeg": corpora.convert_photos(given.work, given.count, "jpeg"),
        "originals": corpora.make_photos(given.work, given.count),
        "resized": corpora.unpack_photos(given.work, given.count),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ROWS}
    for _ in range(given.rounds):
        for name in ROWS:
            contender = CONTENDERS[name]
            runs[name].append(run_peer(contender, folders[contender.corpus], given.epochs))
    return runs


def make_panels(runs: dict[str, list[dict[str, Any]]]) -> list[Panel]:
    rates = {name: statistics.median(run["rate"] for run in found) for name, found in runs.items()}
    memory = {name: max(run["growth_mb"] for run in found) for name, found in runs.items()}
    return [
        Panel(
            "Images a second",
            # From its cache, Keras reads nothing any more: see what that takes below.
            {name: (rate, f"{rate:,.0f}") for name, rate in rates.items() if name != CACHED},
        ),
        Panel(
            "Memory for it",
            {name: (size, f"{size:,.0f} MB") for name, size in memory.items()},
        ),
    ]


def draw(panels: list[Panel], note: str) -> str:
    """The panels as SVG, one above the other, each with bars of its own scale."""
    lines: list[str] = []
    top = 0
    for panel in panels:
        most = max(value for value, _ in panel.values.values())
        lines.append(f'  <text class="title" x="{MARGIN}" y="{top + 20}">{panel.title}</text>')
        top += TITLE
        for name, (value, text) in panel.values.items():
            width = max(2, round(value / most * (WIDTH - VALUE - MARGIN)))
            kind = "after" if name in AFTER else "before"
            lines += [
                f'  <text x="{MARGIN}" y="{top + 11}">{ROWS[name]}</text>',
                f'  <rect class="{kind}" x="{MARGIN}" y="{top + 17}" width="{width}" '
                f'height="{BAR}" rx="2"/>',
                f'  <text x="{MARGIN + width + 6}" y="{top + 28}">{text}</text>',
            ]
            top += ROW
        top += 10
    lines.append(f'  <text class="note" x="{MARGIN}" y="{top + 8}">{escape(note)}</text>')
    size = f'viewBox="0 0 {WIDTH} {top + 16}" width="{WIDTH}" height="{top + 16}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="what">'
    what = "Images a second and memory: Keras' image_dataset_from_directory and Shardmill"
    return "\n".join([head, f'  <title id="what">{what}</title>', f"  <style>{STYLE}  </style>",
                      *lines, "</svg>", ""])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
