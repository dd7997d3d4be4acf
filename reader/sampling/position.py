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

    def begin(self) -> Numbers:
        """Takes an epoch: it and its first step, int64 (2,)."""
        with self._lock:
            begun = np.array([self.epoch, self.step], np.int64)
            self.epoch, self.step = self.epoch + 1, 0
        return begun
