"""`shardmill bench OUT`: measures reading, and prints what it found and what limits it."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from converter import progress
from converter.sizes import format_bytes, format_count
from pipelines.cli import terminal
from pipelines.cli.arguments import has_bar, refuse_sizes
from pipelines.jobs.bars import follow

if TYPE_CHECKING:
    from reader.bench.limits import Verdict
    from reader.bench.rounds import Bench, Figures

_COLUMNS: Final = 80
_WIDTHS: Final = (10, 8, 9, 11, 12)


def run_bench(arguments: argparse.Namespace) -> int:
    """`shardmill bench OUT`."""
    from reader.bench import limits, rounds  # noqa: PLC0415 (numpy)

    refuse_sizes(arguments)
    given = {name: getattr(arguments, name) for name in ("image_size", "max_ram")}
    options = rounds.BenchOptions(
        split=arguments.split or "train",
        batch_size=arguments.batch_size,
        seconds=arguments.seconds,
        **{name: value for name, value in given.items() if value is not None},
    )
    with follow(shown=has_bar(arguments)):
        phase = progress.begin("measure", options.rounds * len(rounds.TITLES), "runs")

        def show(title: str) -> None:  # before each run
            phase.done += bool(phase.note)
            phase.note = title

        bench = rounds.run_bench(arguments.out, options, show)
    verdict = limits.judge(bench)
    if arguments.json:
        terminal.print_json(describe_bench(bench, verdict))
    elif not arguments.quiet:
        terminal.print_lines(summarize_bench(bench, verdict))
    return 0


def summarize_bench(bench: Bench, verdict: Verdict) -> Iterator[str]:
    """What `shardmill bench` prints."""
    image, options = bench.shards.manifest.image, bench.options
    size = f"{image.height}x{image.width}" if image.height else "different sizes"
    if options.image_size:
        size += ", resized to {}x{}".format(*options.image_size)
    yield (
        f"{bench.shards.folder}: split {options.split}, {format_count(bench.records, 'image')} of "
        f"{size} as {', '.join(image.formats)}"
    )
    yield (
        f"{options.batch_size} a batch, shuffled; {format_count(bench.cores, 'core')}; medians of "
        f"{format_count(options.rounds, 'round')} of {options.seconds / options.rounds:.1f} s"
    )
    yield ""
    heads = ("images/s", "cores", "CPU ms", "memory", "first batch")
    yield _lay_out("", heads)
    for name, figures in bench.figures.items():
        yield _show_row(name, figures)
    yield ""
    yield "cores: busy ones. CPU ms: for an image. memory: on top of Python and TensorFlow."
    yield "first batch: after the imports. The disk alone reads past the system's memory."
    yield ""
    for sentence in verdict.sentences:
        yield from textwrap.wrap(sentence, _COLUMNS)


def _show_row(name: str, figures: Figures) -> str:
    if figures.absent is not None:
        return f"{figures.title:<30}   not measured: {figures.absent}"
    reads = name not in ("decoder", "bytes")
    cells = (
        f"{figures.images_per_s:,.0f}",
        f"{figures.cores:.1f}",
        f"{figures.cpu_ms_per_image:.2f}",
        format_bytes(figures.added_bytes) if reads else "-",
        f"{figures.first_batch_s:.2f} s" if reads else "-",
    )
    return _lay_out(figures.title, cells)


def _lay_out(title: str, cells: Sequence[str]) -> str:
    return f"{title:<30}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)
    )


def describe_bench(bench: Bench, verdict: Verdict) -> dict[str, Any]:
    """What `shardmill bench --json` prints."""
    return {
        "folder": str(bench.shards.folder),
        **dataclasses.asdict(bench.options),
        "records": bench.records,
        "split_bytes": bench.split_bytes,
        "cores": bench.cores,
        "figures": {name: dataclasses.asdict(found) for name, found in bench.figures.items()},
        "limit": verdict.limit,
        "advice": verdict.sentences,
    }
