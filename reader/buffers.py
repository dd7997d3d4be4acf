"""Arrays that come back to be used again, once nobody looks at them any more.

A batch of 64 images is 12 MB. TensorFlow takes that from the C library for every batch and returns
it: on one measurement a sixth of the reading's time went into page faults, and up to 200 MB into
fragments. Here a batch lies in an array that TensorFlow takes over without a copy, which it does if
it begins at a multiple of 64 bytes, and that comes back when the batch is gone.
"""

from __future__ import annotations

import collections
import ctypes
import weakref
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

ALIGNMENT: Final = 64
"""`EIGEN_MAX_ALIGN_BYTES`: py_func.cc copies what is aligned to less."""


KEPT_BYTES: Final = 2 << 20


class _Loan:
    """What an array that was lent keeps alive, through whatever views of it there are.

    Numpy lets a view of a view hold on to the first array alone, so the arrays themselves cannot
    tell; but at the end of every such chain stands an object that is no array.
    """

    def __init__(self, buffer: Array) -> None:
        self.__array_interface__ = buffer.__array_interface__


class BufferPool:
    """Gives arrays of one shape, and keeps those that came back.

    Args:
        shape: of each array.
        dtype: of each array.
        keep: how many are kept for later; further ones are freed.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, keep: int) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._free: collections.deque[Array] = collections.deque(maxlen=keep)

    def take(self) -> Array:
        """An array of whatever content; it comes back when its last view is gone."""
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = _allocate(self._shape, self._dtype)
        loan = _Loan(buffer)
        weakref.finalize(loan, self._free.append, buffer).atexit = False
        return np.asarray(loan)


def trim_heap() -> None:
    """Returns to the system what the C library keeps of freed memory.

    glibc has a heap for every few threads and keeps in each what is too small or lies too deep to
    be returned. Done once an epoch, memory stays the same from epoch to epoch: it was 88, 103, 122,
    128 MB over bare TensorFlow without, and 91, 95, 96, 88 MB with it. Elsewhere it does nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_heap() -> None:
    """Lets the C library keep some memory of decoded images, and of indexes, for the next ones.

    glibc takes whatever is larger than a threshold from the system, and gives the end of a heap
    back beyond twice that: at first 128 KB, so that the memory of nearly every image came anew, 20
    pages of it. When a larger block is freed, the threshold grows to its size: so one is, unused.
    32 MB would be a tenth faster, but memory then grew by 50 MB from epoch to epoch. Of a
    million records, the first batch came in 39 instead of 46 ms. Elsewhere than with glibc this
    does nothing.
    """
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.free(library.malloc(KEPT_BYTES))


def _allocate(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + size].view(dtype).reshape(shape)
