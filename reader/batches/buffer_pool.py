"""Arrays that are used again once nothing refers to them.

A batch of 64 images is 12 MB. TensorFlow takes that from the C library for every batch and returns
it: in one measurement, page faults took a sixth of the reading time, and fragments up to 200 MB.
Here, TensorFlow takes over an array without a copy, and the array comes back when the batch is
gone. That needs memory aligned to 64 bytes, as pages are: py_func.cc copies anything else
(`EIGEN_MAX_ALIGN_BYTES`).
"""

from __future__ import annotations

import collections
import math
import weakref

import numpy as np

from reader.arrays import Array, allocate


class _Loan:
    """Stays alive as long as any view of a lent array does.

    NumPy makes a view of a view refer to the first array, so the arrays themselves cannot tell; but
    at the end of each such chain is an object that is not an array.
    """

    def __init__(self, buffer: Array) -> None:
        self.__array_interface__ = buffer.__array_interface__


class BufferPool:
    """Lends arrays of one shape and dtype; keeps up to `keep` of those that came back."""

    def __init__(self, shape: tuple[int, ...], dtype: str, keep: int) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._free: collections.deque[Array] = collections.deque(maxlen=keep)

    def take(self) -> Array:
        """Lends an array of any content, until its last view is gone."""
        try:
            buffer = self._free.pop()
        except IndexError:
            size = math.prod(self._shape) * self._dtype.itemsize
            buffer = allocate(size).view(self._dtype).reshape(self._shape)
        loan = _Loan(buffer)
        weakref.finalize(loan, self._free.append, buffer).atexit = False
        return np.asarray(loan)
