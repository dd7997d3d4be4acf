"""The command line: `shardmill convert|plan|verify|repair|inspect|clean|index`.

Exit codes: 0 done, 1 failed or faults found, 2 wrong usage, 3 done but over the limit of rejected
images, 130 interrupted. An error is one line; `--debug` shows the traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
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
from converter.format.indexing import find_files, index_files
from converter.format.manifest import Manifest, read_manifest
from converter.format.tfrecords import read_records
from converter.option_fields import suggest
from converter.reasons import describe_excess
from converter.storage.layout import MANIFEST, Layout, name_size
from converter.storage.locate import locate, locate_output
from converter.storage.location import Location
from converter.upkeep.verification import Fault
from pipelines.cli import documents, reports
from pipelines.cli.arguments import parse_arguments, read_options
from pipelines.cli.terminal import outlast_readers
from pipelines.jobs.preflight import SpaceWarning, find_sizes
from pipelines.jobs.preview import plan, plan_sizes

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
    try:
        options, extra = parse_arguments(arguments)
        quiet = getattr(options, "quiet", False)
        _show_jobs(quiet=quiet)
        with _show_warnings(quiet=quiet):
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
    settings = {"mode": _read_mode(arguments), **_read_settings(arguments)}
    if len(sizes) == 1:
        done = {out: run_conversion(images, out, sizes[0], beam_args, **settings)}
    else:
        several = run_sizes(images, out, sizes, beam_args, **settings)
        done = {out / name: conversion for name, conversion in several.items()}
    seconds = time.monotonic() - start
    if arguments.json:
        found = [documents.describe_conversion(done[place], place) for place in done]
        _print_json({"datasets": found, "seconds": round(seconds, 3)})
    elif not arguments.quiet:
        for place, conversion in done.items():
            _print(reports.summarize_conversion(conversion, place, seconds))
    limit = sizes[0].max_rejects
    excess = (describe_excess(conversion.manifest.totals, limit) for conversion in done.values())
    first = next(filter(None, excess), None)
    return _fail(first, 3) if first else 0


def _read_mode(arguments: argparse.Namespace) -> str:
    return "overwrite" if arguments.overwrite else "update" if arguments.update else "new"


def _read_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "workers": arguments.workers,
        "progress": _has_bar(arguments),
        "break_lock": arguments.break_lock,
    }


def _has_bar(arguments: argparse.Namespace) -> bool:
    return not (arguments.no_progress or arguments.quiet or getattr(arguments, "json", False))


def _read_beam_args(arguments: argparse.Namespace, extra: Sequence[str]) -> list[str]:
    from pipelines.beam import runners  # noqa: PLC0415

    beam_args = [f"--runner={arguments.runner}", *extra] if arguments.runner else list(extra)
    runners.parse_options(beam_args, also_known=arguments.flags)
    if not arguments.debug:
        _silence_beam_threads()
    return [*beam_args, *(["--shared_paths"] if arguments.shared_paths else [])]


def _read_stored(arguments: argparse.Namespace) -> Mapping[str, Any] | None:
    """Returns the options of the data set that is to be updated, if that is asked for."""
    if not arguments.update:
        return None
    out, sizes = locate_output(arguments.out), getattr(arguments, "image_size", [])
    manifest = find_manifest(out / name_size(*sizes[0]) if len(sizes) > 1 else out)
    return manifest.options if manifest else None


def run_plan(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill plan IMAGES OUT`: what `convert` would do."""
    _refuse_extra(arguments, extra)
    sizes = read_options(arguments, _read_stored(arguments))
    images, out, mode = arguments.images, arguments.out, _read_mode(arguments)
    if len(sizes) == 1:
        previews = {"": plan(images, out, sizes[0], mode=mode)}
    else:
        previews = plan_sizes(images, out, sizes, mode=mode)
    if arguments.json:
        found = [documents.describe_preview(preview) for preview in previews.values()]
        _print_json({"datasets": found})
        return 0
    for name, preview in previews.items():
        _print([f"{name}:"] if name else [])
        _print(reports.summarize_preview(preview))
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
            progress=_has_bar(arguments),
        )
    except DatasetError as error:
        if not arguments.json:
            raise
        faults = [Fault(MANIFEST, str(error))]
    if arguments.json:
        _print_json(documents.describe_faults(faults, arguments.out))
    else:
        _print(reports.list_faults(faults))
        if not arguments.quiet:
            _print([reports.summarize_faults(faults, arguments.out)])
    return 1 if faults else 0


def run_repair(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill repair OUT --images IMAGES`: a line for each file; exit code 1 if any is left."""
    from pipelines.jobs.repair import repair  # noqa: PLC0415

    result = repair(
        arguments.out,
        arguments.images,
        _read_beam_args(arguments, extra),
        **_read_settings(arguments),
    )
    if result.left or not arguments.quiet:
        _print(reports.summarize_repair(result, arguments.out))
    return 1 if result.left else 0


def run_inspect(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill inspect OUT`: counts, sizes, and the first record."""
    _refuse_extra(arguments, extra)
    folder = arguments.out
    if not Layout(locate(folder)).manifest.is_file() and (sizes := find_sizes(locate(folder))):
        several = ", ".join(str(folder / name) for name in sizes)
        raise UsageError(f"{folder} holds data sets of several sizes: inspect one of {several}")
    manifest = read_manifest(locate(folder))
    shard, features = _read_record(manifest, folder)
    if arguments.json:
        record = documents.describe_record(shard, features)
        _print_json({**documents.describe_dataset(manifest, folder), "record": record})
    else:
        _print(reports.summarize_dataset(manifest, folder))
        _print([f"first record of {shard}:", *reports.summarize_record(features)])
    return 0


def _read_record(manifest: Manifest, folder: Location) -> tuple[str, Mapping[str, list[Any]]]:
    """Returns the name of the first shard with a record, and the features of that record."""
    shard = next(shard for shard in manifest.shards if shard.records)
    # Of a store, no more is read than the largest record.
    data = (folder / shard.name).read_range(0, shard.max_record_bytes)
    with io.BytesIO(data) as file:
        offset, payload = next(read_records(file, shard.name, shard.bytes), (0, b""))
    try:
        return shard.name, decode_example(payload)
    except ValueError as error:
        raise RecordError(shard.name, offset, str(error), 0) from error


def run_clean(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill clean OUT`: a line for each thing that a killed run left behind."""
    _refuse_extra(arguments, extra)
    found = clean(
        arguments.out,
        unfinished=arguments.unfinished,
        dry_run=arguments.dry_run,
        break_lock=arguments.break_lock,
    )
    if not arguments.quiet:
        done = "would remove" if arguments.dry_run else "removed"
        _print(f"{done} {path}: {what}" for path, what in found)
        _print([] if found else [f"nothing was left behind in {arguments.out}"])
    return 0


def run_index(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill index FILES`: a line for each fault; exit code 1 if there is one."""
    _refuse_extra(arguments, extra)
    files = find_files(arguments.files)
    sizes = {path: path.stat().st_size if path.exists() else 0 for path in files}
    with tqdm(
        total=sum(sizes.values()),
        unit="B",
        unit_scale=True,
        desc="indexing",
        disable=arguments.quiet,
    ) as bar:
        outcomes = index_files(
            files,
            payloads=not arguments.no_checksums,
            overwrite=arguments.overwrite,
            on_file=lambda path, _: bar.update(sizes[path]),
        )
    faults = [outcome for outcome in outcomes if isinstance(outcome, ShardmillError)]
    _print(map(str, faults))
    _print([] if arguments.quiet else [reports.summarize_indexes(outcomes)])
    if faults and arguments.debug:
        raise faults[0]
    return 1 if faults else 0


def _refuse_extra(arguments: argparse.Namespace, extra: Sequence[str]) -> None:
    if extra:
        name = extra[0].split("=", 1)[0]
        near = suggest(name, arguments.flags)
        raise UsageError(f"{name} is not known" + (f": did you mean {near}?" if near else " here"))


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(reports.escape(line))


def _print_json(document: Mapping[str, Any]) -> None:
    print(json.dumps(document))  # in ASCII: names that are not UTF-8 survive as lone surrogates


def _fail(message: str, code: int) -> int:
    print(f"shardmill: {reports.escape(message)}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _show_warnings(*, quiet: bool) -> Iterator[None]:
    """Shows our own warnings as one line each, if at all; others as Python shows them."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_line(
            message: Warning | str, category: type[Warning], *place: Any, **more: Any
        ) -> None:
            if not issubclass(category, SpaceWarning):
                show(message, category, *place, **more)
            elif not quiet:
                print(f"shardmill: warning: {reports.escape(str(message))}", file=sys.stderr)

        warnings.simplefilter("always", SpaceWarning)
        warnings.showwarning = show_line
        yield


def _show_jobs(*, quiet: bool) -> None:
    """Shows where a job on other machines can be watched, without breaking the bar."""

    class LineHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tqdm.write(f"shardmill: {reports.escape(record.getMessage())}", file=sys.stderr)

    logger = logging.getLogger("pipelines")
    logger.setLevel(logging.CRITICAL if quiet else logging.INFO)
    logger.propagate = False
    logger.handlers = [LineHandler()]


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
