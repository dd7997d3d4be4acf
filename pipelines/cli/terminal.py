"""Standard output and standard error of a command: whoever reads them may leave before it ends.

`shardmill convert … | head -1` is a conversion all the same, and `shardmill verify … | head -1` has
the exit code of what was found.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


class LastingStream:
    """A stream that goes on when nobody reads it any more; what is written then goes nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may not be UTF-8

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            _lead_nowhere(self._stream.fileno())
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            _lead_nowhere(self._stream.fileno())
            self._stream.flush()  # what is left in it, which Python would try again at the end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def outlast_readers() -> Iterator[None]:
    """Makes standard output and standard error last for the block, also if they were closed."""
    _occupy_descriptors()
    kept: list[TextIO | None] = [sys.stdout, sys.stderr]
    with open(os.devnull, "w", encoding="utf-8") as null:
        # Those that Python found closed are None.
        streams = [LastingStream(null if stream is None else stream) for stream in kept]
        sys.stdout, sys.stderr = cast("list[TextIO]", streams)
        try:
            yield
        finally:
            for stream in streams:
                stream.flush()
            sys.stdout, sys.stderr = cast("list[TextIO]", kept)


def _occupy_descriptors() -> None:
    """Keeps files that are opened later from being taken for the standard streams."""
    for descriptor in (0, 1, 2):
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _lead_nowhere(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
