"""Reads a data set of very many shards in one way, in a process of its own; prints a line of JSON.

    ./scripts/run benchmarks/read_shards WAY FOLDER ['{"max_ram": "64MB"}']

The line has a `Stage` for each thing that was done, in order. Options are of `ReadOptions`.
"""

import collections
import contextlib
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np

from converter.errors import ShardmillError
from converter.usage import measure_memory, measure_peak_memory
from reader import load_dataset, open_shards
from reader.sampling.draws import BLOCK, permute

BATCH = 64
STEPS = 50
RECORDS = 200
OPEN_FILES = 256
PERMUTED = 1 << 20
RESET_PEAK = "5"  # to /proc/self/clear_refs: see proc(5)


class Stages:
    """What each stage took: seconds, CPU, memory over the start, files opened."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}
        self._bare = measure_memory()
        self._opened = 0
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        # Not what Python makes of a descriptor that is open already.
        self._opened += event == "open" and not isinstance(arguments[0], int)

    @contextlib.contextmanager
    def watch(self, name: str, count: int = 1, records: int = 1) -> Iterator[None]:
        """Measures what is done inside: `count` times, with so many records in all."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text(RESET_PEAK)
        held, opened = measure_memory(), self._opened
        cpu, begun = time.process_time(), time.perf_counter()
        yield
        self.found[name] = {
            "count": count,
            "records": records,
            "seconds": time.perf_counter() - begun,
            "cpu_s": time.process_time() - cpu,
            "opened": self._opened - opened,
            "peak_mb": (measure_peak_memory() - self._bare) / 1e6,
            "held_mb": (measure_memory() - self._bare) / 1e6,
            "grown_mb": (measure_peak_memory() - held) / 1e6,
        }


def read_records(stages: Stages, folder: Path, options: dict[str, Any]) -> None:
    """Opens the data set, counts, and reads single records at random places."""
    del options
    with stages.watch("open"):
        shards = open_shards(folder)
    with stages.watch("count"):
        counts = {name: (split.records, split.labels) for name, split in shards.splits.items()}
    with stages.watch("source"):
        source = shards.source("train")
    if len(source) != counts["train"][0]:
        raise SystemExit(f"{len(source)} records, expected {counts['train'][0]}")
    random = np.random.default_rng(0)
    places = random.integers(0, len(source), RECORDS + 1).tolist()
    with stages.watch("first record"):
        source[places[0]]
    with stages.watch("records", RECORDS, RECORDS):
        for place in places[1:]:
            source[place]


def read_batches(stages: Stages, folder: Path, options: dict[str, Any]) -> None:
    """Reads the first steps of an epoch, as NumPy arrays."""
    with stages.watch("open"):
        shards = open_shards(folder)
    with stages.watch("plan"):
        batches = shards.batches("train", **options)
    read_steps(stages, batches)
    with stages.watch("a step in the middle"):
        batches.seek(3, len(batches) // 2)
        next(iter(batches))


def read_sequence(stages: Stages, folder: Path, options: dict[str, Any]) -> None:
    """Reads batches of a `keras.utils.PyDataset` by their numbers."""
    shards = open_shards(folder)
    with stages.watch("plan"):
        sequence = shards.sequence("train", **options)
    with stages.watch("first step"):
        sequence[len(sequence) // 2]
    numbers = np.random.default_rng(0).integers(0, len(sequence), STEPS).tolist()
    with stages.watch("steps", STEPS, STEPS * BATCH):
        for number in numbers:
            sequence[number]


def read_dataset(stages: Stages, folder: Path, options: dict[str, Any]) -> None:
    """Reads the first steps of an epoch with TensorFlow."""
    with stages.watch("plan"):
        dataset = load_dataset(folder, **options)
    read_steps(stages, dataset)


def read_steps(stages: Stages, batches: Any) -> None:
    elements = iter(batches)
    with stages.watch("first step"):
        next(elements)
    with stages.watch("steps", STEPS, STEPS * BATCH):
        for _ in range(STEPS):
            next(elements)


def permute_records(stages: Stages, folder: Path, options: dict[str, Any]) -> None:
    """Permutes neighbouring positions, a million of all records."""
    del options
    count = open_shards(folder).splits["train"].records
    with stages.watch("permutation", PERMUTED, PERMUTED):
        for begin in range(0, PERMUTED, BLOCK):
            permute(np.arange(begin, begin + BLOCK), count, 7)


def fill_memory(stages: Stages, folder: Path, options: dict[str, Any]) -> None:
    """Looks up one record of every shard, and then reads: an epoch comes to all of them."""
    with stages.watch("open"):
        shards = open_shards(folder)
    with stages.watch("plan"):
        batches = shards.batches("train", **options)
    firsts = np.cumsum([0, *(file.records for file in batches.plan.files.files[:-1])])
    np.random.default_rng(0).shuffle(firsts)
    with stages.watch("indexes", len(firsts), len(firsts)):
        for begin in range(0, len(firsts), BATCH):
            collections.deque(batches.plan.files.locate(firsts[begin : begin + BATCH]), maxlen=0)
    read_steps(stages, batches)


WAYS: dict[str, Callable[[Stages, Path, dict[str, Any]], None]] = {
    "records": read_records,
    "batches": read_batches,
    "sequence": read_sequence,
    "dataset": read_dataset,
    "memory": fill_memory,
    "permutation": permute_records,
}


def main() -> None:
    way, folder, *options = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    if way in ("sequence", "dataset"):  # what TensorFlow takes is not measured
        importlib.import_module("reader.tfdata.sequence")
    stages = Stages()
    asked = {"batch_size": BATCH, "seed": 7, "dtype": "uint8"}
    try:
        WAYS[way](stages, Path(folder), {**asked, **(json.loads(options[0]) if options else {})})
    except ShardmillError as error:
        print(json.dumps({**stages.found, "error": str(error)}))
    else:
        print(json.dumps(stages.found))


if __name__ == "__main__":
    main()
