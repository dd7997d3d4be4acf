"""Reads batches of records at random places, in a process of its own; prints a line of JSON.

    ./scripts/run benchmarks/read_random FOLDER

The first batch is read by a process that has just opened the data set.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from reader import open_shards

BATCH = 32
BATCHES = 51


def main() -> None:
    process = psutil.Process()
    bare = peak = process.memory_info().rss
    start = time.perf_counter()
    source = open_shards(Path(sys.argv[1])).source("train")
    opened_s = time.perf_counter() - start
    random = np.random.default_rng()
    times = []
    for _ in range(BATCHES):
        places = random.integers(0, len(source), BATCH)
        start = time.perf_counter()
        records = source[places]
        times.append((time.perf_counter() - start) * 1000)
        if len(records) != BATCH:
            raise SystemExit(f"{len(records)} records for {BATCH} places")
        peak = max(peak, process.memory_info().rss)
    result = {
        "opened_ms": opened_s * 1000,
        "cold_ms": times[0],
        "warm_ms": statistics.median(times[1:]),
        "growth_mb": (peak - bare) / 1e6,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
