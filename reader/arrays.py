"""Names for the arrays that every room of the reader speaks of, and memory that is used again."""

from __future__ import annotations

import threading
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

Numbers: TypeAlias = npt.NDArray[np.int64]

Bytes: TypeAlias = npt.NDArray[np.uint8]

Flags: TypeAlias = npt.NDArray[np.bool_]

MAX_SCRATCH_BYTES: Final = 1 << 23


class Scratch(threading.local):
    """Memory of each thread that is used again, for what is needed only until the next `take`."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def take(self, size: int) -> Bytes:
        """So many bytes of whatever content; more than `MAX_SCRATCH_BYTES` are not kept."""
        if size > MAX_SCRATCH_BYTES:
            return np.empty(size, np.uint8)
        if size > len(self._memory):
            self._memory = np.empty(size, np.uint8)
        return self._memory[:size]
