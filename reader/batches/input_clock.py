"""How much of a training's time goes by waiting for data: measured step by step, with any loop."""

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from converter.sizes import format_bytes
from converter.usage import measure_memory, measure_peak_memory

T = TypeVar("T")

STARVED: Final = 0.1
"""From this share of waiting on, a line says what to do about it."""

_ADVICE: Final = (
    "the model waits for data: give load_dataset more max_ram, or cache=True; or convert with "
    "--encoding raw or a smaller --image-size (docs/training.md)"
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InputUse:
    """What an epoch, or a whole training, took.

    Attributes:
        steps: batches.
        images: in them.
        seconds: from the first wait for data to the end of the last step, without validation.
        waited_s: of these, seconds in which the step waited for its batch.
        memory_bytes: of the process at the end.
        peak_bytes: the most that the process has had since it began.
    """

    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0
    memory_bytes: int = 0
    peak_bytes: int = 0

    @property
    def wait_share(self) -> float:
        """The share of the time that steps waited for data, 0 to 1."""
        return self.waited_s / self.seconds if self.seconds else 0.0

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        if not self.steps:
            return f"no step was measured, memory {format_bytes(self.memory_bytes)}"
        speed = f"{self.images_per_second:,.0f} images/s, " * bool(self.images)
        memory = f"{format_bytes(self.memory_bytes)}, at most {format_bytes(self.peak_bytes)}"
        return f"{speed}input wait {self.wait_share:.0%} of a step, memory {memory}"


def join_uses(uses: Sequence[InputUse]) -> InputUse:
    """The use of several epochs together."""
    last = uses[-1] if uses else InputUse()
    totals = {
        name: sum(getattr(use, name) for use in uses)
        for name in ("steps", "images", "seconds", "waited_s")
    }
    return dataclasses.replace(last, **totals)


def describe_use(number: int, uses: Sequence[InputUse]) -> str:
    """One line on the last epoch, whose `number` is from 0; the first to starve gets advice."""
    starved = [use.wait_share > STARVED for use in uses]
    advice = f"; {_ADVICE}" if starved[-1] and not any(starved[:-1]) else ""
    return f"epoch {number + 1}: {uses[-1]}{advice}"


class InputClock:
    """Counts one epoch after the other.

    The first step of all is left out, unless its epoch has no other: it builds graphs and starts
    threads, which takes longer than a hundred others.
    """

    def __init__(self) -> None:
        self.epochs: list[InputUse] = []
        self._is_warm = self._is_running = False
        self._begin_s = self._end_s = 0.0
        self._first = self._count = InputUse()

    def begin_epoch(self) -> None:
        self._begin_s = self._end_s = time.perf_counter()
        self._first = self._count = InputUse()
        self._is_running = True

    @contextlib.contextmanager
    def wait(self) -> Iterator[None]:
        """Counts the time in its block as waiting; begins an epoch if none has begun."""
        if not self._is_running:
            self.begin_epoch()
        begin_s = time.perf_counter()
        yield
        waited_s = self._count.waited_s + time.perf_counter() - begin_s
        self._count = dataclasses.replace(self._count, waited_s=waited_s)

    def count_waiting(self) -> None:
        """Counts all time since the epoch began as waiting."""
        waited_s = time.perf_counter() - self._begin_s
        self._count = dataclasses.replace(self._count, waited_s=waited_s)

    def end_step(self, images: int = 0, batches: int = 1) -> None:
        self._end_s = time.perf_counter()
        steps, images = self._count.steps + batches, self._count.images + images
        seconds = self._end_s - self._begin_s
        self._count = dataclasses.replace(self._count, steps=steps, images=images, seconds=seconds)
        if not self._is_warm:
            self._is_warm = True
            self._first, self._count, self._begin_s = self._count, InputUse(), self._end_s

    def end_epoch(self) -> InputUse:
        """Adds the epoch to `epochs`, and returns it."""
        memory_bytes = measure_memory()
        peak_bytes = max(memory_bytes, measure_peak_memory())
        count = self._count if self._count.steps else self._first
        use = dataclasses.replace(count, memory_bytes=memory_bytes, peak_bytes=peak_bytes)
        self.epochs.append(use)
        self._is_running = False
        return use

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """Yields the batches of an epoch; what happens between two of them is the step."""
        self.begin_epoch()
        coming = iter(batches)
        self.count_waiting()  # it may start threads
        while True:
            try:
                with self.wait():
                    batch = next(coming)
            except StopIteration:
                return
            yield batch
            images = count_images(batch)
            del batch  # its memory can serve another while the next one is waited for
            self.end_step(images)


def count_images(batch: Any) -> int:
    """The length of the first array in a batch, which may be nested; 0 if it has none."""
    while isinstance(batch, tuple | list | dict) and batch:
        batch = next(iter(batch.values())) if isinstance(batch, dict) else batch[0]
    # Of several GPUs: an array for each.
    parts = getattr(batch, "values", None)
    if isinstance(parts, tuple):
        return sum(map(count_images, parts))
    shape = getattr(batch, "shape", None)
    return int(shape[0]) if shape is not None and len(shape) else 0
