"""Keeps standard output and standard error usable after their reader has left.

`shardmill convert … | head -1` still converts, and `shardmill verify … | head -1` still exits with
the code of what it found.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


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
    """A stream on the same descriptor; one that was put in its place by Python code stays."""
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
