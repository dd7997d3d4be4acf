"""The commands that start no job: inspect, report, view and completion."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from converter.errors import UsageError
from converter.format.manifest import Manifest, read_manifest
from converter.storage.files import REPORT
from converter.storage.locate import locate
from converter.storage.location import Location
from pipelines.cli import inspection_reports, json_reports, reports, terminal
from pipelines.cli.arguments import has_bar, refuse_sizes
from pipelines.cli.inspection import (
    FoundRecord,
    count_classes,
    find_record,
    read_place,
    read_record,
)
from pipelines.cli.text_layout import find_width

if TYPE_CHECKING:  # it imports numpy
    from reader.batches.pixel_statistics import PixelStatistics

# As `verify` names a damaged record, also with the folder before it.
_PLACE: Final = re.compile(
    r"(?:.*/)?(?P<shard>[^/]+-\d{5}-of-\d{5}\.tfrecord):(?P<row>[+-]?\d{1,18})", re.DOTALL
)


def run_inspect(arguments: argparse.Namespace) -> int:
    """`shardmill inspect OUT`: counts, sizes and a record; exit code 1 if that is damaged."""
    from pipelines.jobs.bars import follow  # noqa: PLC0415 (tqdm)

    refuse_sizes(arguments)
    if arguments.sample is not None and not arguments.stats:
        raise UsageError(f"sample {arguments.sample} is for --stats: give that, too")
    folder = locate(arguments.out)
    manifest = read_manifest(folder)
    if arguments.split is not None:
        manifest.list_shards(arguments.split)  # raises an error if there is no such split
    with follow(shown=has_bar(arguments)):
        record = _look_up_record(folder, manifest, arguments.split, arguments.record)
        statistics = _measure_pixels(arguments, manifest) if arguments.stats else {}
    if arguments.json:
        counts = count_classes(folder, manifest)
        described = json_reports.describe_inspection(manifest, folder, counts, record, statistics)
        terminal.print_json(described)
    elif not arguments.quiet:
        terminal.print_lines(_list_blocks(arguments, manifest, record, statistics))
    return terminal.fail(f"error: {record.error}", 1) if record and record.error else 0


def run_view(arguments: argparse.Namespace) -> int:
    """`shardmill view OUT`: ends with Ctrl-C."""
    from pipelines.view.server import serve  # noqa: PLC0415 (the reader)

    def announce(address: str, notes: Iterable[str]) -> None:
        if arguments.json:
            terminal.print_json({"address": address})
        else:
            notes = [] if arguments.quiet else notes
            terminal.print_lines([f"viewing at {address}", *notes])

    refuse_sizes(arguments)
    browser = not arguments.no_browser
    serve(arguments.out, port=arguments.port, browser=browser, announce=announce)
    return 0


def run_report(arguments: argparse.Namespace) -> int:
    """`shardmill report OUT`: writes the page, and says where it is."""
    from pipelines.jobs.bars import follow  # noqa: PLC0415 (tqdm)
    from pipelines.jobs.reporting import report  # noqa: PLC0415 (all that reads images)

    refuse_sizes(arguments)
    with follow(shown=has_bar(arguments)):
        made = report(
            arguments.out,
            arguments.file,
            images=arguments.images,
            break_lock=arguments.break_lock,
        )
    place = arguments.file or arguments.out / REPORT
    if arguments.json:
        terminal.print_json({"report": str(locate(place)), **made.to_json()})
    elif not arguments.quiet:
        terminal.print_lines(reports.summarize_report(made, place))
    return 0


def _look_up_record(
    folder: Location, manifest: Manifest, split: str | None, wanted: str | None
) -> FoundRecord | None:
    """A record by number, by place or by name, or the first; None in an empty data set."""
    if place := _PLACE.fullmatch(wanted or ""):
        shard, row = place["shard"], int(place["row"])
        if split and not shard.startswith(f"{split}-"):
            raise UsageError(f"{shard} is no shard of split {split}: leave --split out")
        return read_place(folder, manifest, shard, row)
    filled = (name for name, info in manifest.splits.items() if info.records)
    if wanted is not None and not re.fullmatch(r"[+-]?\d{1,18}", wanted):
        return find_record(folder, manifest, split, wanted)
    chosen = split or next(filled, None)
    if chosen is None and wanted is not None:
        raise UsageError(f"{folder} holds no records: there is none to show")
    if chosen is None or (wanted is None and not manifest.splits[chosen].records):
        return None
    return read_record(folder, manifest, chosen, int(wanted or 0))


def _measure_pixels(
    arguments: argparse.Namespace, manifest: Manifest
) -> dict[str, PixelStatistics]:
    from reader import open_shards  # noqa: PLC0415 (numpy)

    shards = open_shards(arguments.out)
    named = [arguments.split] if arguments.split else manifest.splits
    filled = [name for name in named if manifest.splits[name].records]
    return {name: shards.statistics(name, arguments.sample) for name in filled}


def _list_blocks(
    arguments: argparse.Namespace,
    manifest: Manifest,
    record: FoundRecord | None,
    statistics: dict[str, PixelStatistics],
) -> Iterator[str]:
    """What was asked for; all but pixels if nothing was."""
    width, folder = find_width(sys.stdout), arguments.out
    blocks: list[Iterable[str]] = []
    if not (asked := arguments.record is not None):
        blocks.append(inspection_reports.summarize_dataset(manifest, folder))
        blocks.append(inspection_reports.list_splits(manifest))
    if arguments.classes or not (asked or statistics):
        counts, every = count_classes(locate(folder), manifest), arguments.classes
        blocks.append(inspection_reports.list_classes(manifest, counts, every=every, width=width))
    if statistics:
        blocks.append(inspection_reports.list_statistics(statistics, manifest))
    if record and not record.error and (asked or not (statistics or arguments.classes)):
        blocks.append(inspection_reports.list_features(record, manifest, None if asked else width))
    return inspection_reports.join_blocks(blocks)


def run_completion(arguments: argparse.Namespace) -> int:
    """`shardmill completion SHELL`: a script for a shell."""
    from pipelines.cli.completion import write_script  # noqa: PLC0415 (for this command alone)

    print(write_script(arguments.shell))
    return 0
