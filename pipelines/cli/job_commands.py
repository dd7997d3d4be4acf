"""The commands that run a job: convert, plan, verify, repair, export, clean and index."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converter import progress
from converter.commits.replacements import clean, find_manifest
from converter.errors import DatasetError, ShardmillError
from converter.format.indexing import find_files, index_files
from converter.inventory import describe_excess
from converter.options import ConvertOptions
from converter.storage.files import MANIFEST, name_size
from converter.storage.locate import locate_output
from converter.storage.location import Location
from converter.upkeep.shard_reports import Fault
from pipelines.cli import json_reports, reports, terminal
from pipelines.cli.arguments import has_bar, refuse_sizes
from pipelines.cli.given_options import read_options
from pipelines.jobs.bars import follow
from pipelines.jobs.export import export
from pipelines.jobs.outputs import locate_sizes
from pipelines.jobs.preview import preview_outputs
from pipelines.jobs.request import RunSettings
from pipelines.jobs.upkeep import repair, run_verification


def run_convert(arguments: argparse.Namespace) -> int:
    """`shardmill convert IMAGES OUT`."""
    sizes = read_options(arguments, _read_stored(arguments))
    with follow(shown=has_bar(arguments)):
        progress.begin("start")
        # Beam: a second to import, which the other commands do without.
        from pipelines.jobs.convert import run_conversions  # noqa: PLC0415

        start = time.monotonic()
        beam_args, settings = _read_beam_args(arguments), _read_settings(arguments)
        settings["plan_on"] = arguments.plan_on
        outs = _locate_outputs(arguments.out, sizes)
        done = run_conversions(arguments.images, outs, beam_args, mode=arguments.mode, **settings)
    seconds = time.monotonic() - start
    # As they were written on the command line, not as they were located.
    shown = [arguments.out / place.name if len(outs) > 1 else arguments.out for place in done]
    if arguments.json:
        found = map(json_reports.describe_conversion, done.values(), shown)
        terminal.print_json({"datasets": [*found], "seconds": round(seconds, 3)})
    elif not arguments.quiet:
        for place, conversion in zip(shown, done.values(), strict=True):
            terminal.print_lines(reports.summarize_conversion(conversion, place, seconds))
    limit = sizes[0].max_rejects
    excess = (describe_excess(conversion.manifest.totals, limit) for conversion in done.values())
    first = next(filter(None, excess), None)
    return terminal.fail(first, 3) if first else 0


def _locate_outputs(out: Location, sizes: Sequence[ConvertOptions]) -> dict[Location, Any]:
    place = locate_output(out)
    return {place: sizes[0]} if len(sizes) == 1 else locate_sizes(place, sizes)


def _read_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "workers": arguments.workers,
        "progress": has_bar(arguments),
        "break_lock": arguments.break_lock,
    }


def _read_beam_args(arguments: argparse.Namespace) -> list[str]:
    from pipelines.beam import runners  # noqa: PLC0415

    runner = [f"--runner={arguments.runner}"] if arguments.runner else []
    beam_args = [*runner, *arguments.rest]
    # Before anything else is looked at, and with our own flags among the spellings to suggest.
    runners.parse_options(beam_args, also_known=arguments.flags)
    if not arguments.debug:
        terminal.silence_beam_threads()
    return [*beam_args, *(["--shared_paths"] if arguments.shared_paths else [])]


def _read_stored(arguments: argparse.Namespace) -> Mapping[str, Any] | None:
    if arguments.mode != "update":
        return None
    out, sizes = locate_output(arguments.out), getattr(arguments, "image_size", [])
    manifest = find_manifest(out / name_size(*sizes[0]) if len(sizes) > 1 else out)
    return manifest.options if manifest else None


def run_plan(arguments: argparse.Namespace) -> int:
    """`shardmill plan IMAGES OUT`: what `convert` would do."""
    sizes = read_options(arguments, _read_stored(arguments))
    outs = _locate_outputs(arguments.out, sizes)
    shown = has_bar(arguments)
    previews = preview_outputs(arguments.images, outs, mode=arguments.mode, progress=shown)
    if arguments.json:
        terminal.print_json({"datasets": [*map(json_reports.describe_preview, previews)]})
        return 0
    for preview in previews:
        terminal.print_lines([f"{preview.out.name}:"] if len(sizes) > 1 else [])
        terminal.print_lines(reports.summarize_preview(preview))
    terminal.print_lines(["nothing was written"])
    return 0


def run_verify(arguments: argparse.Namespace) -> int:
    """`shardmill verify OUT`: a line for each fault; exit code 1 if there is one."""
    refuse_sizes(arguments)
    manifest, job = None, None
    shown = has_bar(arguments)
    try:
        with follow(shown=shown):
            if arguments.runner or arguments.rest or arguments.workers:
                progress.begin("start")
                beam_args = tuple(_read_beam_args(arguments))
                job = RunSettings(beam_args=beam_args, workers=arguments.workers)
            manifest, faults = run_verification(
                arguments.out,
                arguments.sources,
                job,
                quick=arguments.quick,
                decode=not arguments.no_decode,
                shown=shown,
            )
    except DatasetError as error:
        if not arguments.json:
            raise
        # To a program, a damaged manifest is a fault like any other.
        faults = [Fault(MANIFEST, str(error))]
    if arguments.json:
        terminal.print_json(json_reports.describe_faults(faults, arguments.out))
    else:
        terminal.print_lines(map(reports.name_fault, faults))
        if not arguments.quiet:
            terminal.print_lines(reports.summarize_faults(faults, manifest, arguments.out))
    return 1 if faults else 0


def run_repair(arguments: argparse.Namespace) -> int:
    """`shardmill repair OUT --images IMAGES`: a line for each file; exit code 1 if any is left."""
    refuse_sizes(arguments)
    with follow(shown=has_bar(arguments)):
        progress.begin("start")
        beam_args, settings = _read_beam_args(arguments), _read_settings(arguments)
        result = repair(arguments.out, arguments.images, beam_args, **settings)
    if arguments.json:
        terminal.print_json(json_reports.describe_repair(result, arguments.out))
    elif result.left or not arguments.quiet:
        terminal.print_lines(reports.summarize_repair(result, arguments.out))
    return 1 if result.left else 0


def run_export(arguments: argparse.Namespace) -> int:
    """`shardmill export OUT FOLDER`: a line for each split, and how to convert it again."""
    refuse_sizes(arguments)
    result = export(
        arguments.out,
        arguments.folder,
        kind=arguments.kind,
        split=arguments.split,
        shard_bytes=arguments.shard_bytes,
        on_damage=arguments.on_damage,
        progress=has_bar(arguments),
        break_lock=arguments.break_lock,
    )
    if arguments.json:
        terminal.print_json(json_reports.describe_export(result, arguments.folder))
    elif not arguments.quiet:
        terminal.print_lines(reports.summarize_export(result, arguments.folder))
    return 0


def run_clean(arguments: argparse.Namespace) -> int:
    """`shardmill clean OUT`: a line for each thing that a killed run left behind."""
    refuse_sizes(arguments)
    found = clean(
        arguments.out,
        unfinished=arguments.unfinished,
        dry_run=arguments.dry_run,
        break_lock=arguments.break_lock,
    )
    if arguments.json:
        terminal.print_json(json_reports.describe_leftovers(found, arguments.out))
    elif not arguments.quiet:
        done = "would remove" if arguments.dry_run else "removed"
        terminal.print_lines(f"{done} {path}: {what}" for path, what in found)
        terminal.print_lines([] if found else [f"nothing was left behind in {arguments.out}"])
    return 0


def run_index(arguments: argparse.Namespace) -> int:
    """`shardmill index FILES`: a line for each fault; exit code 1 if there is one."""
    files = find_files(arguments.files)
    sizes = {path: path.stat().st_size if path.exists() else 0 for path in files}
    with follow(shown=has_bar(arguments)):
        phase = progress.begin("index", len(files), "files")

        def count(path: Path, _: object) -> None:
            phase.done += 1
            phase.bytes += sizes[path]

        outcomes = index_files(
            files,
            payloads=not arguments.no_checksums,
            overwrite=arguments.overwrite,
            on_file=count,
        )
    faults = [outcome for outcome in outcomes if isinstance(outcome, ShardmillError)]
    if arguments.json:
        terminal.print_json(json_reports.describe_indexes(outcomes))
    else:
        terminal.print_lines(map(str, faults))
        terminal.print_lines([] if arguments.quiet else [reports.summarize_indexes(outcomes)])
    if faults and arguments.debug:
        raise faults[0]
    return 1 if faults else 0
