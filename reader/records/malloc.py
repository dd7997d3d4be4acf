"""How much of freed memory the C library keeps, in the heap of every thread, for its next use.

glibc gives the end of a heap back to the system once `M_TRIM_THRESHOLD` bytes of it are free. The
images of a batch are freed together, so all of their pages went back and came anew: 4,200 instead
of 4,850 images a second on two cores. But what the heaps of threads have kept is never given back
afterwards, not by `malloc_trim` either: every epoch has threads of its own, and with them memory
grew by 15 MB an epoch, up to 128 MB. So heaps keep memory while an epoch is decoded, and before its
last batches are, they are told to keep little: what these free takes all the rest with it.

Where the C library is another one, nothing here does anything.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Final

KEPT_BYTES: Final = 4 << 20
"""What a heap keeps as a rule: more than the 128 KB of glibc, which an index alone takes."""

LEFT_BYTES: Final = 128 << 10
"""What one keeps after an epoch, as with glibc's own setting: eight heaps of 4 MB would be seen in
a process whose memory is to stay the same."""

MAX_MAPPED_BYTES: Final = 32 << 20
"""`DEFAULT_MMAP_THRESHOLD_MAX`: what is larger never lies in a heap. glibc starts with 128 KB and
comes up to this by itself when larger blocks are freed, unless it is told what to keep."""

# malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def keep_heap(kept_bytes: int = KEPT_BYTES) -> None:
    """Lets the heap of every thread keep so many free bytes at its end.

    What it holds beyond that goes back when something in it is freed next.
    """
    change = _find("mallopt")
    if change is not None:
        change(_M_MMAP_THRESHOLD, MAX_MAPPED_BYTES)
        change(_M_TRIM_THRESHOLD, kept_bytes)


def trim_heap() -> None:
    """Gives back whole pages that are free amid the heaps, and the end of the first heap.

    Done once an epoch, memory stays the same from epoch to epoch: it was 88, 103, 122, 128 MB over
    bare TensorFlow without, and 91, 95, 96, 88 MB with it.
    """
    trim = _find("malloc_trim")
    if trim is not None:
        trim(0)


@functools.cache
def _find(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
