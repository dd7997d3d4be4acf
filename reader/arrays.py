"""Types of arrays, and memory that is used again."""

from __future__ import annotations

import collections
import contextlib
import mmap
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

Numbers: TypeAlias = npt.NDArray[np.int64]

Bytes: TypeAlias = npt.NDArray[np.uint8]

Flags: TypeAlias = npt.NDArray[np.bool_]

MAX_KEPT_BYTES: Final = 1 << 23

HUGE_BYTES: Final = 1 << 22
"""Smaller arrays are not worth pages of 2 MB; numpy draws the line there, too."""


def allocate(size: int) -> Bytes:
    """Memory of its own, at the beginning of a page, that goes back to the system when it is freed.

    In a heap it would stay: the C library keeps what is freed there below 32 MB, for each thread.
    """
    memory = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        # Of a batch, 3,072 usual pages are more than the processor keeps the places of.
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)[:size]


class Memory:
    """Bytes for what is needed only until the next `take`."""

    def __init__(self) -> None:
        self._bytes = allocate(0)

    def take(self, size: int) -> Bytes:
        """`size` bytes of any content; more than `MAX_KEPT_BYTES` are not kept for later."""
        if size > MAX_KEPT_BYTES:
            return allocate(size)
        if size > len(self._bytes):
            self._bytes = allocate(size)
        return self._bytes[:size]


class Scratch:
    """Memory that is used again, as much of it as threads need at the same time.

    Not `threading.local`: to Python, a thread of TensorFlow is a new one at every call.
    """

    def __init__(self) -> None:
        self._free: collections.deque[Memory] = collections.deque()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Memory]:
        """Memory for one thread, until the end of the block."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = Memory()
        try:
            yield memory
        finally:
            self._free.append(memory)
