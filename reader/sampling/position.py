"""Where in its epochs a reader is: two integers, which is all that resuming takes."""

from __future__ import annotations

import threading
from typing import Final

import numpy as np

from reader.arrays import Numbers


class Position:
    """The epoch that the next iterator begins, and the step with which it begins.

    Every iterator that gives a first element takes the next epoch; from the second one on, epochs
    begin with their first step. So a look at the data takes an epoch, too.

    Attributes:
        start: the epoch and the step that it was made with, whatever was read since.
        epoch: the next one.
        step: its first step.
    """

    def __init__(self, epoch: int = 0, step: int = 0) -> None:
        self._lock = threading.Lock()
        self.start: Final = (epoch, step)
        self.seek(epoch, step)

    def seek(self, epoch: int, step: int = 0) -> None:
        """Lets the next iterator begin there; `start` stays."""
        with self._lock:
            self.epoch, self.step = epoch, step

    def begin(self, count: int, block: int = 1) -> Numbers:
        """Takes an epoch, from its first step on.

        Args:
            count: steps of an epoch.
            block: how many of them are read at once.

        Returns:
            int64 (blocks, 3): the epoch, a block's first step, and the step behind its last one.
        """
        with self._lock:
            epoch, step = self.epoch, self.step
            self.epoch, self.step = epoch + 1, 0
        begins = np.arange(step, count, block, dtype=np.int64)
        ends = np.minimum(begins + block, count)
        return np.stack((np.full_like(begins, epoch), begins, ends), axis=-1)
