"""Measures reading: images, time, CPU and memory."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from converter.usage import measure_memory

Epoch: TypeAlias = Callable[[], Iterable[float]]
"""Reads an epoch; gives the number of images in each batch, a fraction where parts are read."""

Build: TypeAlias = Callable[[], Epoch]
"""Builds a pipeline."""

WARM_UP_S = 1.0


class Stretch(NamedTuple):
    """What reading took.

    Attributes:
        images: their number.
        seconds: of wall time.
        cpu_seconds: of all threads of this process.
        first_seconds: until the first batch; None if there was none.
        peak_bytes: the most memory that this process held after a batch.
    """

    images: float
    seconds: float
    cpu_seconds: float
    first_seconds: float | None
    peak_bytes: int


def watch(counts: Iterable[float], seconds: float = math.inf) -> Stretch:
    """Reads until `seconds` have passed, or there are no more batches."""
    images, first, peak = 0.0, None, measure_memory()
    begun, begun_cpu = time.perf_counter(), time.process_time()
    for count in counts:
        passed = time.perf_counter() - begun
        first = first or passed
        images += count
        peak = max(peak, measure_memory())
        if passed >= seconds:
            break
    passed, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    return Stretch(images, passed, cpu, first, peak)


def measure_reading(build: Build, seconds: float) -> dict[str, Any]:
    """Reads epoch after epoch for `seconds`, after a warm-up; returns figures as JSON has them."""
    bare, begun = measure_memory(), time.perf_counter()
    epoch = build()
    built_s = time.perf_counter() - begun
    counts = repeat(epoch)
    warm = watch(counts, min(WARM_UP_S, seconds))
    timed = watch(counts, seconds)
    peak = max(warm.peak_bytes, timed.peak_bytes)
    return {
        "images_per_s": timed.images / timed.seconds,
        "cores": timed.cpu_seconds / timed.seconds,
        "cpu_ms_per_image": timed.cpu_seconds / timed.images * 1000,
        "first_batch_s": built_s + (warm.first_seconds or 0),
        "added_bytes": peak - bare,
        "process_bytes": peak,
    }


def repeat(epoch: Epoch) -> Iterator[float]:
    """Reads epochs without end."""
    return itertools.chain.from_iterable(epoch() for _ in itertools.count())
