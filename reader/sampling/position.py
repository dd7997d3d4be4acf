"""Where in its epochs a reader is: two integers, which is all that resuming takes."""

from __future__ import annotations

import threading

import numpy as np

from reader.arrays import Numbers


class Position:
    """The epoch that the next iterator begins, and the step with which it begins.

    Every iterator that gives a first element takes the next epoch; from the second one on, epochs
    begin with their first step.

    Attributes:
        epoch: the next one.
        step: its first step.
    """

    def __init__(self, epoch: int = 0, step: int = 0) -> None:
        self._lock = threading.Lock()
        self.seek(epoch, step)

    def seek(self, epoch: int, step: int = 0) -> None:
        """Lets the next iterator begin there."""
        with self._lock:
            self.epoch, self.step = epoch, step

    def begin(self) -> Numbers:
        """Takes an epoch: it and its first step, int64 (2,)."""
        with self._lock:
            begun = np.array([self.epoch, self.step], np.int64)
            self.epoch, self.step = self.epoch + 1, 0
        return begun
