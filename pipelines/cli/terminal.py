"""What a command prints: lines safe for a terminal, warnings and logs, to streams that last.

`shardmill convert … | head -1` still converts, and `shardmill verify … | head -1` still exits with
the code of what it found.
"""

import contextlib
import io
import json
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TextIO

from converter.errors import ShardmillWarning
from converter.names import escape, fit_message
from pipelines.cli.text_layout import find_width, wrap_line

_BEAM_THREADS: Final = re.compile("beam_|read_|run_worker|Thread-|ThreadPool|UnboundedThread")


class PipeFile(io.FileIO):
    """An open descriptor; what is written after its reader has left is dropped."""

    def write(self, data: Any, /) -> int:
        view = memoryview(data)
        written = 0
        with contextlib.suppress(BrokenPipeError):
            while written < view.nbytes:
                written += super().write(view[written:])
        return view.nbytes


@contextlib.contextmanager
def outlast_readers() -> Iterator[None]:
    """Replaces standard output and standard error for the block, even if they are closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # noqa: PERF203 (three times)
            # Takes the lowest free number, so that no file opened later is taken for a stream.
            os.open(os.devnull, os.O_RDWR)
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _wrap(sys.stdout, 1), _wrap(sys.stderr, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = kept


def _wrap(stream: TextIO | None, descriptor: int) -> TextIO:
    """A stream on the same descriptor; one that Python code put in its place stays."""
    if stream in (None, sys.__stdout__, sys.__stderr__):
        encoding = stream.encoding if stream else "utf-8"
        if stream:
            stream.flush()
        # No buffer between them: Ctrl-C behind `os.write` would have it write its bytes again.
        file: Any = PipeFile(descriptor, "w", closefd=False)
        stream = io.TextIOWrapper(file, encoding=encoding, write_through=True)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a terminal may not be UTF-8
    return stream


def print_lines(lines: Iterable[str]) -> None:
    """Prints lines, escaped; on a terminal, long ones are broken between words."""
    width = find_width(sys.stdout)
    for line in lines:
        print(*wrap_line(escape(line), width), sep="\n")


def print_json(document: Mapping[str, Any]) -> None:
    """Prints a JSON object."""
    print(json.dumps(document))  # in ASCII: names that are not UTF-8 survive as lone surrogates


def fail(message: str, code: int) -> int:
    """Prints a message to standard error, broken like `print_lines`; returns the exit code."""
    line = fit_message(f"shardmill: {message}")
    print(*wrap_line(line, find_width(sys.stderr)), sep="\n", file=sys.stderr)
    return code


@contextlib.contextmanager
def show_warnings(*, quiet: bool) -> Iterator[None]:
    """Shows our own warnings as one line each, or not at all; others as Python does."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_line(
            message: Warning | str, category: type[Warning], *place: Any, **more: Any
        ) -> None:
            if not issubclass(category, ShardmillWarning):
                show(message, category, *place, **more)
            elif not quiet:
                _write_beside_bar(f"shardmill: warning: {message}")

        warnings.simplefilter("always", ShardmillWarning)
        warnings.showwarning = show_line
        yield


def set_up_logs(*, debug: bool, quiet: bool) -> None:
    """Shows where a job on other machines can be watched; with `debug`, also what Beam logs."""
    # What goes wrong reaches `main` as an exception. Beam also logs it, as whole tracebacks.
    level = logging.INFO if debug else logging.CRITICAL
    log = logging.StreamHandler()
    log.setLevel(level)  # Dask's and Prism's loggers have levels of their own
    logging.basicConfig(level=level, handlers=[log])
    jobs = logging.getLogger("pipelines")
    jobs.setLevel(logging.CRITICAL if quiet else logging.INFO)
    jobs.propagate = False
    jobs.handlers = [_LineHandler()]


class _LineHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _write_beside_bar(f"shardmill: {record.getMessage()}")


def _write_beside_bar(text: str) -> None:
    """Writes a line to standard error, where `print` would break a progress bar."""
    from tqdm import tqdm  # noqa: PLC0415 (0.05 s)

    tqdm.write(fit_message(text), file=sys.stderr)


def silence_beam_threads() -> None:
    """Suppresses the tracebacks that Beam's threads print when a worker is killed."""
    show = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is None or not _BEAM_THREADS.match(failure.thread.name):
            show(failure)

    threading.excepthook = hook
