"""The position of a reader: two integers, which is all that resuming takes."""

from __future__ import annotations

import threading
from typing import Final

import numpy as np

from reader.arrays import Numbers


class Position:
    """The epoch and step where the next iterator begins.

    Every iterator that gives a first element takes an epoch, so a look at the data takes one too.
    Epochs after the first begin with their first step.

    Attributes:
        start: the epoch and step it was made with, whatever has been read since.
        epoch: the next one.
        step: its first step.
    """

    def __init__(self, epoch: int = 0, step: int = 0) -> None:
        self._lock = threading.Lock()
        self.start: Final = (epoch, step)
        self.seek(epoch, step)

    def seek(self, epoch: int, step: int = 0) -> None:
        """Makes the next iterator begin there; `start` stays."""
        with self._lock:
            self.epoch, self.step = epoch, step

    def begin(self, count: int, block: int = 1) -> Numbers:
        """Takes an epoch of `count` steps, read in blocks of `block`.

        Returns:
            int64 (blocks, 3): the epoch, the first step of the block, and the end of the block.
        """
        with self._lock:
            epoch, step = self.epoch, self.step
            self.epoch, self.step = epoch + 1, 0
        begins = np.arange(step, count, block, dtype=np.int64)
        ends = np.minimum(begins + block, count)
        return np.stack((np.full_like(begins, epoch), begins, ends), axis=-1)
