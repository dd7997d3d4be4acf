"""How far a long job is: the phase of the launcher, and counts of what its workers have done.

The launcher calls `begin` at the start of each phase, and `advance` as it goes; `listen` hands each
phase to what draws it. Without a listener both cost next to nothing.

A worker counts each image with `count_image`, once in its process, and if the launcher gave it an
open file, there, too. So a bar moves with each image, not with each finished shard.
"""

import contextlib
import dataclasses
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

_COUNTS: Final = struct.Struct("<3Q")


@dataclasses.dataclass(slots=True)
class Phase:
    """A phase, or a part of one, and how far it is. What began it keeps it up to date.

    Attributes:
        name: a verb, such as `scan`; the parts of a phase have the same one.
        total: how much there is to do, or None if that is unknown.
        unit: of what, in the plural.
        note: what goes on, in a few words; may be empty.
        done: how much is done.
        before: how much of that an earlier run had done.
        bytes: size of what was done by this run.
        rejected: images that were not taken.
        cancel_s: how many seconds it may take to call off what goes on elsewhere.
        poll: brings the counts up to date; called, by any thread, before they are looked at.
        started: when it began, by `time.monotonic`.
    """

    name: str
    total: int | None = None
    unit: str = "images"
    note: str = ""
    done: int = 0
    before: int = 0
    bytes: int = 0
    rejected: int = 0
    cancel_s: float = 0.0
    poll: Callable[[], object] | None = None
    started: float = dataclasses.field(default_factory=time.monotonic)


Listener: TypeAlias = Callable[[Phase], object]


class _Job(threading.local):
    def __init__(self) -> None:
        self.phase = Phase("start")
        self.listener: Listener | None = None


_job: Final = _Job()


@contextlib.contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Hands each phase that this thread begins in the block to a listener."""
    before, _job.listener = _job.listener, listener
    try:
        yield
    finally:
        _job.listener = before


def find_listener() -> Listener | None:
    """The listener of this thread."""
    return _job.listener


def begin(name: str, total: int | None = None, unit: str = "images", note: str = "") -> Phase:
    """Begins a phase of this thread's job, which ends the one before."""
    _job.phase = Phase(name, total, unit, note)
    if _job.listener is not None:
        _job.listener(_job.phase)
    return _job.phase


def get_phase() -> Phase:
    """The phase of this thread's job."""
    return _job.phase


def advance(count: int = 1) -> None:
    """Counts in the phase of this thread's job."""
    _job.phase.done += count


class Counts(NamedTuple):
    """Images that were worked on, also rejected ones; the bytes of their files; and rejects."""

    images: int = 0
    bytes: int = 0
    rejected: int = 0

    def plus(self, other: "Counts") -> "Counts":
        return Counts(*(mine + more for mine, more in zip(self, other, strict=True)))

    def minus(self, other: "Counts") -> "Counts":
        return Counts(*(mine - less for mine, less in zip(self, other, strict=True)))


class _Counter:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts = Counts()
        self.descriptor: int | None = None


_counter: Final = _Counter()


def count_image(size_bytes: int, rejected: int = 0) -> None:
    """Counts an image that any thread of this process is done with."""
    with _counter.lock:
        _counter.counts = _counter.counts.plus(Counts(1, size_bytes, rejected))
        if _counter.descriptor is not None:
            # Less than 2 µs. A full disk must not fail an image.
            with contextlib.suppress(OSError):
                os.pwrite(_counter.descriptor, _COUNTS.pack(*_counter.counts), 0)


def read_counts() -> Counts:
    """What this process has counted since its start."""
    return _counter.counts


def share_counts(descriptor: int) -> None:
    """Writes the counts of this process to an open file from now on, for `read_shared`."""
    _counter.descriptor = descriptor


def read_shared(descriptor: int) -> Counts:
    """What another process has written to an open file; nothing yet is all zeros."""
    data = os.pread(descriptor, _COUNTS.size, 0)
    return Counts(*_COUNTS.unpack(data)) if len(data) == _COUNTS.size else Counts()
