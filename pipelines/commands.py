"""The command line: `shardmill convert|plan|verify|inspect|index`.

Exit codes: 0 done, 1 failed or faults found, 2 wrong usage, 130 interrupted. An error is one line;
`--debug` shows the traceback.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from tqdm import tqdm

import converter
from converter.errors import RecordError, ShardmillError, UsageError
from converter.examples import decode_example
from converter.indexing import Outcome, find_files, index_files
from converter.layout import Layout
from converter.manifest import read_manifest
from converter.options import (
    ENCODINGS,
    INTERPOLATIONS,
    RESIZES,
    ConvertOptions,
    parse_image_size,
)
from converter.sizes import format_bytes, parse_bytes
from converter.tfrecords import read_records
from converter.verification import verify_dataset
from pipelines import proposals, summaries
from pipelines.preflight import check_folders

_BEAM_THREADS: Final = re.compile("beam_|read_|run_worker|Thread-|ThreadPool|UnboundedThread")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may not be UTF-8
    # What goes wrong reaches this function as an exception. Beam also logs it, as whole tracebacks.
    logging.basicConfig(level=logging.INFO if debug else logging.CRITICAL)
    try:
        options, extra = _make_parser().parse_known_args(arguments)
        run: Callable[..., int] = options.run
        return run(options, extra)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to go on", 130)
    except BrokenPipeError:
        # Nobody reads on, as with `| head`; Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
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
    from pipelines import runners  # noqa: PLC0415
    from pipelines.conversion import convert  # noqa: PLC0415

    start = time.monotonic()
    options = _read_options(arguments)
    runners.parse_options(extra, also_known=arguments.flags)
    runner = [f"--runner={arguments.runner}"] if arguments.runner else []
    resumed = Layout(arguments.out).plan.exists()
    if not arguments.debug:
        _silence_beam_threads()
    manifest = convert(
        arguments.images,
        arguments.out,
        options,
        [*runner, *extra],
        workers=arguments.workers,
        progress=not arguments.no_progress,
    )
    seconds = time.monotonic() - start
    _print(summaries.summarize_conversion(manifest, arguments.out, seconds, resumed=resumed))
    return 0


def run_plan(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill plan IMAGES OUT`: what `convert` would do."""
    _refuse_extra(extra)
    options = _read_options(arguments)
    check_folders(arguments.images, arguments.out)
    proposal = proposals.propose(arguments.images, options)
    _print(summaries.summarize_proposal(proposal, options, os.cpu_count() or 1))
    _print(["nothing was written"])
    return 0


def run_verify(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill verify OUT`: a line for each fault; exit code 1 if there is one."""
    _refuse_extra(extra)
    manifest = read_manifest(arguments.out)
    with tqdm(total=manifest.total_bytes, unit="B", unit_scale=True, desc="verifying") as bar:
        faults = verify_dataset(arguments.out, on_shard=lambda shard: bar.update(shard.bytes))
    _print(f"{fault.file}: {fault.detail}" for fault in faults)
    size = format_bytes(manifest.total_bytes)
    whole = f"{manifest.totals.written:,} records in {len(manifest.shards):,} shards, {size}"
    _print([f"{len(faults)} faults in {whole}" if faults else f"no fault in {whole}"])
    return 1 if faults else 0


def run_inspect(arguments: argparse.Namespace, extra: Sequence[str]) -> int:
    """`shardmill inspect OUT`: counts, sizes, and the first record."""
    _refuse_extra(extra)
    manifest = read_manifest(arguments.out)
    _print(summaries.summarize_dataset(manifest, arguments.out))
    shard = next(shard for shard in manifest.shards if shard.records)
    with open(arguments.out / shard.name, "rb") as file:
        offset, payload = next(read_records(file, shard.name, shard.bytes), (0, b""))
    try:
        lines = summaries.summarize_record(decode_example(payload))
    except ValueError as error:
        raise RecordError(shard.name, offset, str(error), 0) from error
    _print([f"first record of {shard.name}:", *lines])
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


def _summarize_indexes(outcomes: Sequence[Outcome]) -> str:
    done = [outcome for outcome in outcomes if not isinstance(outcome, ShardmillError)]
    records, size = sum(file.records for file in done), sum(file.bytes for file in done)
    line = f"indexed {records:,} records in {len(done):,} files, {format_bytes(size)}"
    if earlier := sum(not file.written for file in done):
        line += f", {earlier:,} of them earlier"
    if failed := len(outcomes) - len(done):
        line += f"; {failed:,} files failed"
    return line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="shardmill",
        description="Image folders to sharded, resized TFRecords, and a look at them.",
        epilog="Exit codes: 0 done, 1 failed or faults found, 2 wrong usage, 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"shardmill {converter.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    convert = _add_command(commands, "convert", run_convert, "write a data set")
    convert.epilog = "Any other option goes to Beam; write it behind OUT, as --name=value."
    _add_conversion_arguments(convert)
    convert.add_argument(
        "--workers", type=int, default=0, metavar="N", help="local processes (default: all cores)"
    )
    convert.add_argument(
        "--runner", metavar="RUNNER", help="any Beam runner (default: processes here)"
    )
    convert.add_argument("--no-progress", action="store_true", help="draw no progress bar")
    flags = (flag for action in convert._actions for flag in action.option_strings)  # noqa: SLF001
    convert.set_defaults(flags=list(flags))
    plan = _add_command(commands, "plan", run_plan, "say what convert would do")
    _add_conversion_arguments(plan)
    for name, run, text in (
        ("verify", run_verify, "check every byte of a data set"),
        ("inspect", run_inspect, "show counts, sizes and a record"),
    ):
        _add_command(commands, name, run, text).add_argument(
            "out", type=Path, metavar="OUT", help="the data set's folder"
        )
    _add_index_arguments(_add_command(commands, "index", run_index, "index other TFRecord files"))
    return parser


def _add_index_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Writes an index beside each TFRecord file, whatever wrote the file."
    add = parser.add_argument
    add("files", nargs="+", metavar="FILES",
        help="files, folders (their *.tfrecord*), or patterns in quotes")  # fmt: skip
    add("--overwrite", action="store_true", help="replace an index that does not fit its file")
    add("--no-checksums", action="store_true",
        help="skip the checksums of payloads; those of lengths are compared")  # fmt: skip


def _add_command(
    commands: Any, name: str, run: Callable[..., int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text.capitalize()}.", allow_abbrev=False
    )
    parser.set_defaults(run=run)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _add_conversion_arguments(parser: argparse.ArgumentParser) -> None:
    default = ConvertOptions()
    parser.add_argument("images", type=Path, metavar="IMAGES", help="a folder for each class")
    parser.add_argument("out", type=Path, metavar="OUT", help="new folder for the data set")
    add = parser.add_argument
    add("--image-size", type=_typed(parse_image_size), default=default.image_size,
        metavar="SIZE", help="256, or 224x320 for height x width (default: 256)")  # fmt: skip
    add("--resize", choices=RESIZES, default=default.resize,
        help="stretch: exactly this size; crop: fill it and cut; pad: fit in, fill up with black; "
        "shorter, longer: bring that side to it; none (default: %(default)s)")  # fmt: skip
    add("--interpolation", choices=INTERPOLATIONS, default=default.interpolation,
        help="default: %(default)s")  # fmt: skip
    add("--encoding", choices=ENCODINGS, default=default.encoding,
        help="raw: bare pixels; keep: each image's own (default: %(default)s)")  # fmt: skip
    add("--quality", type=int, default=default.quality, metavar="1-100",
        help="of JPEG and WebP (default: %(default)s)")  # fmt: skip
    shards = parser.add_mutually_exclusive_group()
    shards.add_argument("--shard-size", type=_typed(parse_bytes), default=default.shard_bytes,
                        metavar="BYTES", help="aimed at (default: 128MB)")  # fmt: skip
    shards.add_argument("--num-shards", type=int, metavar="N", help="shards of the largest split")
    for name in ("validation", "test"):
        add(f"--{name}-split", type=float, default=0.0, metavar="FRACTION",
            help=f"share of the images for a {name} split (default: none)")  # fmt: skip
    add("--seed", type=int, default=default.seed, metavar="N",
        help="decides splits and order (default: %(default)s)")  # fmt: skip


def _read_options(arguments: argparse.Namespace) -> ConvertOptions:
    return ConvertOptions(
        image_size=arguments.image_size,
        resize=arguments.resize,
        interpolation=arguments.interpolation,
        encoding=arguments.encoding,
        quality=arguments.quality,
        shard_bytes=arguments.shard_size,
        num_shards=arguments.num_shards,
        validation_split=arguments.validation_split,
        test_split=arguments.test_split,
        seed=arguments.seed,
    )


def _typed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Lets argparse show the message of a UsageError, which it would swallow as a ValueError's."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _refuse_extra(extra: Sequence[str]) -> None:
    if extra:
        raise UsageError(f"{extra[0]} is not known here")


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(summaries.escape(line))


def _fail(message: str, code: int) -> int:
    print(f"shardmill: {summaries.escape(message)}", file=sys.stderr)
    return code


def _silence_beam_threads() -> None:
    """Suppresses the tracebacks that Beam's threads print when a worker is killed."""
    show = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is None or not _BEAM_THREADS.match(failure.thread.name):
            show(failure)

    threading.excepthook = hook
