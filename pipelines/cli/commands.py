"""The command line: `shardmill convert|plan|verify|repair|inspect|clean|index`.

Exit codes: 0 done, 1 failed or faults found, 2 wrong usage, 3 done but over the limit of rejected
images, 130 interrupted. An error is one line; `--debug` shows the traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from tqdm import tqdm

from converter.commits.leftovers import clean
from converter.commits.replacements import find_manifest
from converter.errors import DatasetError, RecordError, ShardmillError, UsageError
from converter.format.examples import decode_example
from converter.format.indexing import Indexed, find_files, index_files
from converter.format.manifest import read_manifest
from converter.format.tfrecords import read_records
from converter.reasons import describe_excess
from converter.sizes import format_bytes, format_count
from converter.storage.layout import MANIFEST, name_size
from converter.storage.locate import locate, locate_output
from converter.upkeep.verification import Fault
from pipelines.cli import reports
from pipelines.cli.arguments import make_parser, read_options
from pipelines.cli.terminal import outlast_readers
from pipelines.jobs import dry_run
from pipelines.jobs.preflight import SpaceWarning, check_folders, check_room, check_sizes

_BEAM_THREADS: Final = re.compile("beam_|read_|run_worker|Thread-|ThreadPool|UnboundedThread")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with outlast_readers():
        return _run(arguments, debug="--debug" in arguments)


def _run(arguments: list[str], *, debug: bool) -> int:
    # What goes wrong reaches this function as an exception. Beam also logs it, as whole tracebacks.
    level = logging.INFO if debug else logging.CRITICAL
    log = logging.StreamHandler()
    log.setLevel(level)  # Dask's and Prism's loggers have levels of their own
    logging.basicConfig(level=level, handlers=[log])
    _tell_jobs()
    try:
        options, extra = make_parser().parse_known_args(arguments)
        with _tell_warnings():
            return _COMMANDS[options.command](options, extra)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to go on", 130)
    except ShardmillError as error:
        if debug:
            raise
        return _fail(f"error: {error}", error.exit_code)
    except OSError as error:
        if debug:
            raise
        return _fail(f"error: {error.filename or 'system'}: {error.strerror}", 1)


def run_convert(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill convert IMAGES OUT`."""
    # Beam: a second to import, which the other commands do without.
    from pipelines.jobs.convert import run_conversion, run_sizes  # noqa: PLC0415

    start = time.monotonic()
    sizes = read_options(arguments, _read_stored(arguments))
    images, out, beam_args = arguments.images, arguments.out, _read_beam_args(arguments, extra)
    settings = {"mode": arguments.mode, **_read_settings(arguments)}
    if len(sizes) == 1:
        done = {out: run_conversion(images, out, sizes[0], beam_args, **settings)}
    else:
        several = run_sizes(images, out, sizes, beam_args, **settings)
        done = {out / name: conversion for name, conversion in several.items()}
    seconds = time.monotonic() - start
    excess = None
    for place, conversion in done.items():
        _print(reports.summarize_conversion(conversion, place, seconds))
        excess = excess or describe_excess(conversion.manifest.totals, sizes[0].max_rejects)
    return _fail(excess, 3) if excess else 0


def _read_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "workers": arguments.workers,
        "progress": not arguments.no_progress,
        "break_lock": arguments.break_lock,
    }


def _read_beam_args(arguments: argparse.Namespace, extra: Sequence[str]) -> list[str]:
    from pipelines.beam import runners  # noqa: PLC0415

    beam_args = [f"--runner={arguments.runner}", *extra] if arguments.runner else list(extra)
    runners.parse_options(beam_args, also_known=arguments.flags)
    if not arguments.debug:
        _silence_beam_threads()
    return [*beam_args, *(["--shared_paths"] if arguments.shared_paths else [])]


def _read_stored(arguments: argparse.Namespace) -> Mapping[str, Any] | None:
    """The options of the data set that is to be updated."""
    if arguments.mode != "update":
        return None
    out, sizes = locate_output(arguments.out), getattr(arguments, "image_size", [])
    manifest = find_manifest(out / name_size(*sizes[0]) if len(sizes) > 1 else out)
    return manifest.options if manifest else None


def run_plan(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill plan IMAGES OUT`: what `convert` would do."""
    _refuse_extra(extra)
    sizes = read_options(arguments)
    out, names = locate(arguments.out), [name_size(*options.image_size) for options in sizes]
    if len(sizes) > 1:
        check_sizes(out, sizes)
    for place in [out] if len(sizes) == 1 else [out / name for name in names]:
        check_folders(locate(arguments.images), place)
    inventory, needed = None, 0.0
    for name, options in zip(names, sizes, strict=True):
        proposal = dry_run.propose(arguments.images, options, inventory=inventory)
        inventory = proposal.inventory
        needed += proposal.bytes
        if len(sizes) > 1:
            _print([f"{name}:"])
        _print(reports.summarize_proposal(proposal, options, os.cpu_count() or 1))
    check_room(out, needed)
    _print(["nothing was written"])
    return 0


def run_verify(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill verify OUT`: a line for each fault; exit code 1 if there is one."""
    from pipelines.jobs.verify import verify  # noqa: PLC0415

    beam_args = None
    if arguments.runner or extra or arguments.workers:
        beam_args = _read_beam_args(arguments, extra)
    try:
        faults = verify(
            arguments.out,
            quick=arguments.quick,
            decode=not arguments.no_decode,
            sources=arguments.sources,
            beam_args=beam_args,
            workers=arguments.workers,
            progress=not (arguments.no_progress or arguments.json),
        )
    except DatasetError as error:
        if not arguments.json:
            raise
        faults = [Fault(MANIFEST, str(error))]
    if arguments.json:
        print(reports.dump_faults(faults, arguments.out))
    else:
        _print(reports.summarize_faults(faults, arguments.out))
    return 1 if faults else 0


def run_repair(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill repair OUT --images IMAGES`: a line for each file; exit code 1 if faults stay."""
    from pipelines.jobs.repair import repair  # noqa: PLC0415

    result = repair(
        arguments.out,
        arguments.images,
        _read_beam_args(arguments, extra),
        **_read_settings(arguments),
    )
    _print(reports.summarize_repair(result, arguments.out))
    return 1 if result.left else 0


def run_inspect(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill inspect OUT`: counts, sizes, and the first record."""
    _refuse_extra(extra)
    manifest = read_manifest(locate(arguments.out))
    _print(reports.summarize_dataset(manifest, arguments.out))
    shard = next(shard for shard in manifest.shards if shard.records)
    # Of a store, no more is read than the largest record.
    data = (arguments.out / shard.name).read_range(0, shard.max_record_bytes)
    with io.BytesIO(data) as file:
        offset, payload = next(read_records(file, shard.name, shard.bytes), (0, b""))
    try:
        lines = reports.summarize_record(decode_example(payload))
    except ValueError as error:
        raise RecordError(shard.name, offset, str(error), 0) from error
    _print([f"first record of {shard.name}:", *lines])
    return 0


def run_clean(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill clean OUT`: a line for each thing that was left behind."""
    _refuse_extra(extra)
    found = clean(
        arguments.out,
        unfinished=arguments.unfinished,
        dry_run=arguments.dry_run,
        break_lock=arguments.break_lock,
    )
    done = "would remove" if arguments.dry_run else "removed"
    _print(f"{done} {path}: {what}" for path, what in found)
    if not found:
        _print([f"nothing was left behind in {arguments.out}"])
    return 0


def run_index(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill index FILES`: a line for each fault; exit code 1 if there is one."""
    _refuse_extra(extra)
    files = find_files(arguments.files)
    sizes = {path: path.stat().st_size if path.exists() else 0 for path in files}
    with tqdm(total=sum(sizes.values()), unit="B", unit_scale=True, desc="indexing") as bar:
        outcomes = index_files(
            files,
            payloads=not arguments.no_checksums,
            overwrite=arguments.overwrite,
            on_file=lambda path, _: bar.update(sizes[path]),
        )
    faults = [outcome for outcome in outcomes if isinstance(outcome, ShardmillError)]
    _print(map(str, faults))
    _print([_summarize_indexes(outcomes)])
    if faults and arguments.debug:
        raise faults[0]
    return 1 if faults else 0


def _summarize_indexes(outcomes: Sequence[Indexed]) -> str:
    done = [outcome for outcome in outcomes if not isinstance(outcome, ShardmillError)]
    records, size = sum(file.records for file in done), sum(file.bytes for file in done)
    found = f"{format_count(records, 'record')} in {format_count(len(done), 'file')}"
    line = f"indexed {found}, {format_bytes(size)}"
    if earlier := sum(not file.written for file in done):
        line += f", {earlier:,} of them earlier"
    if failed := len(outcomes) - len(done):
        line += f"; {format_count(failed, 'file')} failed"
    return line


def _refuse_extra(extra: Sequence[str]) -> None:
    if extra:
        raise UsageError(f"{extra[0]} is not known here")


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(reports.escape(line))


def _fail(message: str, code: int) -> int:
    print(f"shardmill: {reports.escape(message)}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _tell_warnings() -> Iterator[None]:
    """Shows warnings of ours as a line; those of others come as Python shows them."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, SpaceWarning):
                print(f"shardmill: warning: {reports.escape(str(message))}", file=sys.stderr)
            else:
                show(message, category, *place, **more)

        warnings.simplefilter("always", SpaceWarning)
        warnings.showwarning = tell
        yield


def _tell_jobs() -> None:
    """Shows where a job on other machines can be watched; a bar that is drawn stays whole."""

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tqdm.write(f"shardmill: {reports.escape(record.getMessage())}", file=sys.stderr)

    logger = logging.getLogger("pipelines")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [Teller()]


def _silence_beam_threads() -> None:
    """Suppresses the tracebacks that Beam's threads print when a worker is killed."""
    show = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is None or not _BEAM_THREADS.match(failure.thread.name):
            show(failure)

    threading.excepthook = hook


_COMMANDS: Final[dict[str, Callable[..., int]]] = {
    "convert": run_convert,
    "plan": run_plan,
    "verify": run_verify,
    "repair": run_repair,
    "inspect": run_inspect,
    "clean": run_clean,
    "index": run_index,
}
