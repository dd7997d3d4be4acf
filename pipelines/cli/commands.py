"""The command line: `shardmill convert|plan|verify|repair|inspect|export|clean|index`.

Exit codes: 0 done, 1 failed or faults found, 2 wrong usage, 3 done but over the limit of rejected
images, 130 interrupted. An error is one line; `--debug` shows the traceback.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tqdm import tqdm

from converter.commits.replacements import clean, find_manifest
from converter.errors import DatasetError, RecordError, ShardmillError, UsageError
from converter.format.examples import decode_example
from converter.format.indexing import find_files, index_files
from converter.format.manifest import Manifest, read_manifest
from converter.format.tfrecords import read_records
from converter.inventory import describe_excess
from converter.names import fit_message
from converter.options import ConvertOptions
from converter.storage.files import MANIFEST, Layout, find_sizes, name_size
from converter.storage.locate import locate, locate_output
from converter.storage.location import Location
from converter.upkeep.verification import Fault
from pipelines.cli import json_reports, reports, terminal
from pipelines.cli.arguments import parse_arguments, read_options
from pipelines.jobs.export import export
from pipelines.jobs.outputs import locate_sizes
from pipelines.jobs.preview import SpaceWarning, preview_outputs
from pipelines.jobs.request import RunSettings
from pipelines.jobs.upkeep import repair, run_verification


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with terminal.outlast_readers():
        try:
            return _run(arguments)
        except KeyboardInterrupt:
            return terminal.fail("interrupted; run the same command again to go on", 130)
        except (ShardmillError, OSError) as error:
            if "--debug" in arguments:
                raise
            if isinstance(error, ShardmillError):
                return terminal.fail(f"error: {error}", error.exit_code)
            return terminal.fail(f"error: {error.filename or 'system'}: {error.strerror}", 1)


def _run(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    quiet = getattr(options, "quiet", False)
    terminal.set_up_logs(debug=options.debug, quiet=quiet)
    with terminal.show_warnings(SpaceWarning, quiet=quiet):
        return _COMMANDS[options.command](options)


def run_convert(arguments: argparse.Namespace) -> int:
    """`shardmill convert IMAGES OUT`."""
    # Beam: a second to import, which the other commands do without.
    from pipelines.jobs.convert import run_conversions  # noqa: PLC0415

    start = time.monotonic()
    sizes = read_options(arguments, _read_stored(arguments))
    beam_args, settings = _read_beam_args(arguments), _read_settings(arguments)
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
        "progress": _has_bar(arguments),
        "break_lock": arguments.break_lock,
    }


def _has_bar(arguments: argparse.Namespace) -> bool:
    return not (arguments.no_progress or arguments.quiet or getattr(arguments, "json", False))


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
    previews = preview_outputs(arguments.images, outs, mode=arguments.mode)
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
    _refuse_sizes(arguments)
    manifest, job = None, None
    if arguments.runner or arguments.rest or arguments.workers:
        beam_args = tuple(_read_beam_args(arguments))
        job = RunSettings(beam_args=beam_args, workers=arguments.workers)
    try:
        manifest, faults = run_verification(
            arguments.out,
            arguments.sources,
            job,
            quick=arguments.quick,
            decode=not arguments.no_decode,
            progress=_has_bar(arguments),
        )
    except DatasetError as error:
        if not arguments.json:
            raise
        # To a program, a damaged manifest is a fault like any other.
        faults = [Fault(MANIFEST, str(error))]
    if arguments.json:
        found = [fault._replace(detail=fit_message(fault.detail))._asdict() for fault in faults]
        folder = str(locate(arguments.out))
        terminal.print_json({"folder": folder, "whole": not faults, "faults": found})
    else:
        terminal.print_lines(map(reports.name_fault, faults))
        if not arguments.quiet:
            terminal.print_lines([reports.summarize_faults(faults, manifest, arguments.out)])
    return 1 if faults else 0


def run_repair(arguments: argparse.Namespace) -> int:
    """`shardmill repair OUT --images IMAGES`: a line for each file; exit code 1 if any is left."""
    _refuse_sizes(arguments)
    beam_args, settings = _read_beam_args(arguments), _read_settings(arguments)
    result = repair(arguments.out, arguments.images, beam_args, **settings)
    if result.left or not arguments.quiet:
        terminal.print_lines(reports.summarize_repair(result, arguments.out))
    return 1 if result.left else 0


def _refuse_sizes(arguments: argparse.Namespace) -> None:
    """Points to the data sets in a folder of several sizes."""
    folder = arguments.out
    if not Layout(locate(folder)).manifest.is_file() and (sizes := find_sizes(locate(folder))):
        several = ", ".join(str(folder / name) for name in sizes)
        raise UsageError(
            f"{folder} holds data sets of several sizes: {arguments.command} one of {several}"
        )


def run_inspect(arguments: argparse.Namespace) -> int:
    """`shardmill inspect OUT`: counts, sizes, and the first record."""
    folder = arguments.out
    _refuse_sizes(arguments)
    manifest = read_manifest(locate(folder))
    shard, features = _read_record(manifest, folder)
    if arguments.json:
        shown = {name: [*map(reports.show_value, features[name])] for name in sorted(features)}
        described = json_reports.describe_dataset(manifest, folder)
        terminal.print_json({**described, "record": {"shard": shard, "features": shown}})
    else:
        terminal.print_lines(reports.summarize_dataset(manifest, folder))
        terminal.print_lines([f"first record of {shard}:", *reports.summarize_record(features)])
    return 0


def _read_record(manifest: Manifest, folder: Location) -> tuple[str, Mapping[str, list[Any]]]:
    """The name of the first shard with a record, and the features of that record."""
    shard = next(shard for shard in manifest.shards if shard.records)
    place = folder / shard.name
    if not (place.is_remote or place.is_file()):  # a pipe would be waited for
        raise DatasetError(f"{place} is missing or is no file: shardmill repair rebuilds it")
    # Of a store, no more is read than the largest record.
    data = place.read_range(0, shard.max_record_bytes)
    with io.BytesIO(data) as file:
        offset, payload = next(read_records(file, shard.name, shard.bytes), (0, b""))
    try:
        return shard.name, decode_example(payload)
    except ValueError as error:
        raise RecordError(shard.name, offset, str(error), 0) from error


def run_export(arguments: argparse.Namespace) -> int:
    """`shardmill export OUT FOLDER`: a line for each split, and how to convert it again."""
    _refuse_sizes(arguments)
    result = export(
        arguments.out,
        arguments.folder,
        kind=arguments.kind,
        split=arguments.split,
        shard_bytes=arguments.shard_bytes,
        on_damage=arguments.on_damage,
        progress=_has_bar(arguments),
        break_lock=arguments.break_lock,
    )
    if arguments.json:
        terminal.print_json(json_reports.describe_export(result, arguments.folder))
    elif not arguments.quiet:
        terminal.print_lines(reports.summarize_export(result, arguments.folder))
    return 0


def run_clean(arguments: argparse.Namespace) -> int:
    """`shardmill clean OUT`: a line for each thing that a killed run left behind."""
    _refuse_sizes(arguments)
    found = clean(
        arguments.out,
        unfinished=arguments.unfinished,
        dry_run=arguments.dry_run,
        break_lock=arguments.break_lock,
    )
    if not arguments.quiet:
        done = "would remove" if arguments.dry_run else "removed"
        terminal.print_lines(f"{done} {path}: {what}" for path, what in found)
        terminal.print_lines([] if found else [f"nothing was left behind in {arguments.out}"])
    return 0


def run_index(arguments: argparse.Namespace) -> int:
    """`shardmill index FILES`: a line for each fault; exit code 1 if there is one."""
    files = find_files(arguments.files)
    sizes = {path: path.stat().st_size if path.exists() else 0 for path in files}
    total, quiet = sum(sizes.values()), arguments.quiet
    with tqdm(total=total, unit="B", unit_scale=True, desc="indexing", disable=quiet) as bar:
        outcomes = index_files(
            files,
            payloads=not arguments.no_checksums,
            overwrite=arguments.overwrite,
            on_file=lambda path, _: bar.update(sizes[path]),
        )
    faults = [outcome for outcome in outcomes if isinstance(outcome, ShardmillError)]
    terminal.print_lines(map(str, faults))
    terminal.print_lines([] if quiet else [reports.summarize_indexes(outcomes)])
    if faults and arguments.debug:
        raise faults[0]
    return 1 if faults else 0


_COMMANDS: Final[dict[str, Callable[..., int]]] = {
    "convert": run_convert, "plan": run_plan, "verify": run_verify, "repair": run_repair,
    "inspect": run_inspect, "export": run_export, "clean": run_clean, "index": run_index,
}  # fmt: skip
