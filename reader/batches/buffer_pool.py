"""Arrays that come back to be used again, once nothing refers to them.

A batch of 64 images is 12 MB. TensorFlow takes that from the C library for every batch and returns
it: on one measurement a sixth of the reading's time went into page faults, and up to 200 MB into
fragments. Here a batch lies in an array that TensorFlow takes over without a copy, and that comes
back when the batch is gone. py_func.cc copies what does not begin at a multiple of 64 bytes
(`EIGEN_MAX_ALIGN_BYTES`); pages do.
"""

from __future__ import annotations

import collections
import weakref
from typing import Any

import numpy as np

from reader.arrays import Array, allocate


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
        """An array of any content; it comes back when its last view is gone."""
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = _allocate(self._shape, self._dtype)
        loan = _Loan(buffer)
        weakref.finalize(loan, self._free.append, buffer).atexit = False
        return np.asarray(loan)


def _allocate(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return allocate(int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)
