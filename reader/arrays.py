"""Array types, and memory that is reused."""

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

MAX_KEPT_BYTES: Final = 1 << 23  # larger scratch memory is not kept for later
HUGE_BYTES: Final = 1 << 22  # smaller arrays are not worth pages of 2 MB; numpy's limit, too


def allocate(size: int) -> Bytes:
    """Allocates whole pages, which return to the system when they are freed."""
    # From a heap they would not: the C library keeps what is freed below 32 MB, for each thread.
    # A map has at least one byte.
    memory = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        # The 3,072 pages of 4 kB in a batch are more than the processor's TLB holds.
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)[:size]


class Memory:
    """Scratch bytes of one thread."""

    def __init__(self) -> None:
        self._bytes = allocate(0)

    def take(self, size: int) -> Bytes:
        """Returns `size` bytes of any content, valid until the next call."""
        if size > MAX_KEPT_BYTES:
            return allocate(size)
        if size > len(self._bytes):
            self._bytes = allocate(size)
        return self._bytes[:size]


class Scratch:
    """Reuses scratch memory, as much as threads need at the same time."""

    # Not `threading.local`: to Python, a thread of TensorFlow is a new one at every call.

    def __init__(self) -> None:
        self._free: collections.deque[Memory] = collections.deque()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Memory]:
        try:
            memory = self._free.pop()
        except IndexError:
            memory = Memory()
        try:
            yield memory
        finally:
            self._free.append(memory)
