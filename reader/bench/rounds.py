"""Runs the contenders in turn, each time in a fresh process, and takes medians."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from converter.errors import ShardmillError, UsageError
from reader.plan.memory import Buffers, count_cores
from reader.plan.planning import plan_reading
from reader.plan.read_options import ReadOptions
from reader.shardset import ShardSet, open_shards

RESIZED: Final = (224, 224)  # where stored images differ, and none is given
MAX_SECONDS: Final = 3_600
# Without -P the current folder comes first on sys.path.
_SAFE_PATH: Final = ("-P",) if sys.version_info >= (3, 11) else ()

TITLES: Final = {
    "load_dataset": "load_dataset, float32",
    "load_dataset_uint8": 'load_dataset, dtype="uint8"',
    "batches": "batches(), without TensorFlow",
    "decoder": "TensorFlow's decoder alone",
    "bytes": "the disk alone, at random",
}
"""The contenders, in the order of a round."""

RAW: Final = "raw pixels need no decoder"
UNSIZED: Final = "it does not resize images"
NO_TENSORFLOW: Final = "TensorFlow is not installed"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BenchOptions:
    """What to measure.

    Attributes:
        split: its name.
        batch_size: images per batch.
        seconds: of reading with each contender, divided among the rounds.
        image_size: (height, width) to resize to; None for the stored size, or for 224x224 where
            the stored images differ.
        max_ram: as in `ReadOptions`.
        rounds: in each, every contender has its turn.

    Raises:
        UsageError: a value is out of range.
    """

    split: str = "train"
    batch_size: int = 64
    seconds: float = 10.0
    image_size: tuple[int, int] | None = None
    max_ram: int | str = 512_000_000
    rounds: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= MAX_SECONDS:
            raise UsageError(
                f"seconds {self.seconds:g} is out of range: above 0, at most {MAX_SECONDS:,}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What was measured of one contender: medians of the rounds.

    Attributes:
        title: what it is, for people.
        absent: why it could not be measured; all figures are 0 then.
        images_per_s: its rate.
        slowest: the rate of the slowest round.
        fastest: the rate of the fastest.
        cores: how many were busy, on average.
        cpu_ms_per_image: CPU time of all threads.
        first_batch_s: seconds until the first batch, after the imports.
        added_bytes: memory on top of Python, of the packages and of TensorFlow, at most.
        process_bytes: memory of the whole process, at most.
    """

    title: str
    absent: str | None = None
    images_per_s: float = 0.0
    slowest: float = 0.0
    fastest: float = 0.0
    cores: float = 0.0
    cpu_ms_per_image: float = 0.0
    first_batch_s: float = 0.0
    added_bytes: int = 0
    process_bytes: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What was measured, of what, and with what.

    Attributes:
        shards: the data set.
        options: with the image size that was chosen.
        buffers: how `load_dataset` divided its memory.
        cores: of this machine that this process may use.
        figures: by the names in `TITLES`.
    """

    shards: ShardSet
    options: BenchOptions
    buffers: Buffers
    cores: int
    figures: Mapping[str, Figures]

    @property
    def records(self) -> int:
        return self.shards.splits[self.options.split].records

    @property
    def split_bytes(self) -> int:
        return self.shards.splits[self.options.split].bytes


def run_bench(
    directory: str | os.PathLike[str],
    options: BenchOptions,
    on_run: Callable[[str], object] = str,
) -> Bench:
    """Measures how fast a split is read here.

    Each contender reads in a process of its own, so that one does not pay for another's memory; in
    each round, every contender gets its turn, because machines drift.

    Args:
        directory: the data set, as for `open_shards`.
        options: what to measure.
        on_run: is called with a title before each run: `options.rounds` of each contender.

    Raises:
        DatasetError: the data set, or a record that was read, is damaged.
        UsageError: the split is empty, or the options do not fit it.
        ShardmillError: what it takes to read is not installed, or a run died.
    """
    shards = open_shards(directory)
    options, buffers = _plan(shards, options)
    absent = _find_absent(shards, options)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in TITLES}
    # The bytes come last: they leave nothing of the data set in the system's memory.
    *first, last = TITLES
    rounds = [first] * options.rounds + [[last]] * options.rounds
    for name in (name for names in rounds for name in names):
        on_run(TITLES[name])
        if name not in absent:
            run = _run_contender(name, shards, options)
            runs[name].append(run)
            if missing := run.get("missing"):
                absent[name] = _explain_missing(missing)
    figures = {
        name: Figures(title=title, absent=absent[name])
        if name in absent
        else take_medians(_name(name, shards), runs[name])
        for name, title in TITLES.items()
    }
    if figures["load_dataset"].absent and (problem := figures["batches"].absent):
        raise ShardmillError(f"nothing can be read: {problem}; docs/install.md says how to install")
    return Bench(
        shards=shards, options=options, buffers=buffers, cores=count_cores(), figures=figures
    )


def take_medians(title: str, runs: list[dict[str, Any]]) -> Figures:
    """The medians of some runs; of memory, the most."""
    rates = [run["images_per_s"] for run in runs]
    names = ("images_per_s", "cores", "cpu_ms_per_image", "first_batch_s")
    return Figures(
        title=title,
        slowest=min(rates),
        fastest=max(rates),
        **{name: statistics.median(run[name] for run in runs) for name in names},
        **{name: max(run[name] for run in runs) for name in ("added_bytes", "process_bytes")},
    )


def _plan(shards: ShardSet, options: BenchOptions) -> tuple[BenchOptions, Buffers]:
    """Fits the options to a split, and refuses what cannot be read before anything is started."""
    shards.manifest.list_shards(options.split)
    if not shards.splits[options.split].records:
        raise UsageError(f"split {options.split!r} holds no records: choose another with --split")
    if options.image_size is None and shards.manifest.image.height is None:
        options = dataclasses.replace(options, image_size=RESIZED)
    asked = ReadOptions(**_list_options("load_dataset", options))
    plan = plan_reading(shards.folder, shards.manifest, options.split, asked)
    return options, plan.buffers


def _find_absent(shards: ShardSet, options: BenchOptions) -> dict[str, str]:
    image, absent = shards.manifest.image, {}
    if options.image_size not in (None, (image.height, image.width)):
        absent["batches"] = UNSIZED
    if image.is_raw:
        absent["decoder"] = RAW
    return absent


def _explain_missing(package: str) -> str:
    if package in ("tensorflow", "keras"):
        return NO_TENSORFLOW
    return f"{package} is not installed"


def _name(name: str, shards: ShardSet) -> str:
    return "the store alone" if name == "bytes" and shards.folder.is_remote else TITLES[name]


def _list_options(name: str, options: BenchOptions) -> dict[str, Any]:
    """The `ReadOptions` of a contender: shuffled, as for training, whatever the split."""
    sized = (
        {}
        if options.image_size is None or name == "batches"
        else {"image_size": options.image_size}
    )
    dtype = "float32" if name == "load_dataset" else "uint8"
    return {
        "batch_size": options.batch_size,
        "max_ram": options.max_ram,
        "shuffle": True,
        "seed": 1,
        "dtype": dtype,
        **sized,
    }


def _run_contender(name: str, shards: ShardSet, options: BenchOptions) -> dict[str, Any]:
    asked = {
        "name": name,
        "folder": str(shards.folder),
        "split": options.split,
        "seconds": options.seconds / options.rounds,
        **_list_options(name, options),
    }
    # No graphics card: nothing is computed, and its memory may be in use.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(  # noqa: S603 (this very interpreter)
        [sys.executable, *_SAFE_PATH, "-m", "reader.bench.contenders", json.dumps(asked)],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
        env=environment,
    )
    return read_answer(TITLES[name], done)


def read_answer(title: str, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What a contender printed; raises the error that it met."""
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        raise ShardmillError(f"{title}: its process ended with {how}: {said}")
    answer: dict[str, Any] = json.loads(lines[-1])
    if "error" in answer:
        kind = UsageError if answer["exit_code"] == UsageError.exit_code else ShardmillError
        raise kind(answer["error"])
    return answer
