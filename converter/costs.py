"""Measures what writing a shard costs: time for each step, images and bytes read, and memory.

What the originals are like is counted on the way: `converter.histograms`.

Each thread has one clock, which is always in one step; `enter` switches to another. So each moment
is counted once, even after an error.
"""

import contextlib
import dataclasses
import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, Final

from converter.errors import OutputError, StoreError
from converter.format.typed_json import find_reader
from converter.histograms import Histograms, OriginalTally
from converter.storage.files import Layout, hash_bytes, write_file
from converter.storage.location import Location
from converter.usage import measure_peak_memory

STEPS: Final = {
    "read": "reading", "decode": "decoding", "convert": "resizing", "encode": "encoding",
    "write": "writing", "other": "bookkeeping",
}  # fmt: skip
"""The steps of a worker, each with the word for it; `convert` also turns, and changes colours."""


_MERGED: Final = ".merged"  # ends the names of files with the costs of many shards


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What some shards cost: originals read, also rejected ones, their bytes, and time by step.

    `originals` counts the converted ones, and `peaks` has the most memory, in bytes, that each
    process had held when it was done.
    """

    images_read: int = 0
    bytes_read: int = 0
    msec: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    originals: Histograms = dataclasses.field(default_factory=Histograms)
    peaks: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            images_read=self.images_read + other.images_read,
            bytes_read=self.bytes_read + other.bytes_read,
            msec={step: self.msec[step] + other.msec[step] for step in STEPS},
            originals=self.originals + other.originals,
            peaks={
                name: max(self.peaks.get(name, 0), other.peaks.get(name, 0))
                for name in self.peaks.keys() | other.peaks.keys()
            },
        )

    @property
    def total_msec(self) -> float:
        return sum(self.msec.values())


class _Meter(threading.local):
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.spent_ns = dict.fromkeys(STEPS, 0)
        self.images_read = self.bytes_read = 0
        self.originals = OriginalTally()
        self.step, self.since = "other", time.perf_counter_ns()


_meter = _Meter()


def start_cost() -> None:
    """Resets the counts of this thread."""
    _meter.reset()


def enter(step: str) -> None:
    """Switches this thread's clock to another step."""
    # Called several times for each image: no context manager, so that a call takes under 1 µs.
    now = time.perf_counter_ns()
    _meter.spent_ns[_meter.step] += now - _meter.since
    _meter.step, _meter.since = step, now


def count_read(size_bytes: int) -> None:
    """Counts an original that this thread read."""
    _meter.images_read += 1
    _meter.bytes_read += size_bytes


def count_original(
    path: str, file_format: str, size: tuple[int, int], size_bytes: int, *, enlarged: bool
) -> None:
    """Counts an original that this thread converted, of that size (height, width) in pixels."""
    _meter.originals.add(path, file_format, size, size_bytes, enlarged=enlarged)


def credit(spent_ns: Mapping[str, int]) -> None:
    """Moves time that another process spent from this thread's current step to its own steps."""
    for step, spent in spent_ns.items():
        _meter.spent_ns[step] += spent
        _meter.spent_ns[_meter.step] -= spent


def take_spent() -> dict[str, int]:
    """Nanoseconds of each step since `start_cost`, in this thread."""
    enter("other")
    return _meter.spent_ns


def take_cost() -> Cost:
    """The cost since `start_cost`, in this thread."""
    msec = {step: spent / 1e6 for step, spent in take_spent().items()}
    return Cost(
        images_read=_meter.images_read,
        bytes_read=_meter.bytes_read,
        msec=msec,
        originals=_meter.originals.describe(),
        peaks={f"{os.getpid()}@{os.uname().nodename}": measure_peak_memory()},
    )


def write_cost(cost: Cost, layout: Layout[Location], name: str) -> None:
    """Writes a cost into the work folder under the name of the shard, if possible."""
    # Beside the receipt, never in it: times differ in each run, and receipts must not.
    data = json.dumps(dataclasses.asdict(cost)).encode("ascii")
    # A failure to report costs must not fail a finished shard.
    with contextlib.suppress(OutputError, StoreError):
        write_file(_path(layout, name), data, layout.scratch)


def read_costs(layout: Layout[Location], names: Iterable[str]) -> Cost:
    """The sum of the costs of these shards; missing and damaged ones count as nothing."""
    try:
        present, wanted = layout.costs.list_sizes(), {_path(layout, name).name for name in names}
        total, counted = Cost(), set[str]()
        merged = sorted(name for name in present if name.endswith(_MERGED))
        for data in layout.costs.read_files(merged):
            files = _parse_names(data)
            if files <= wanted:
                total, counted = total + _parse(data), counted | files
        own = sorted(wanted & present.keys() - counted)
        return sum(map(_parse, layout.costs.read_files(own)), total)
    except (OSError, StoreError):
        return Cost()


def merge_costs(layout: Layout[Location], names: Iterable[str]) -> None:
    """Makes one file of the costs of these shards, so that fewer have to be read at the end."""
    with contextlib.suppress(OSError, StoreError, OutputError):
        present = layout.costs.list_sizes()
        files = sorted({_path(layout, name).name for name in names} & present.keys())
        cost = sum(map(_parse, layout.costs.read_files(files)), Cost())
        data = json.dumps({"names": files, **dataclasses.asdict(cost)}).encode("ascii")
        # With the names, because a kill before the next line must not let them count twice.
        write_file(layout.costs / f"{hash_bytes(data)[:32]}{_MERGED}", data, layout.scratch)
        layout.costs.remove_files(files)


def _path(layout: Layout[Location], name: str) -> Location:
    return layout.costs / f"{PurePath(name).stem}.json"


def _parse_names(data: bytes) -> set[str]:
    try:
        return set(find_reader(tuple[str, ...])(json.loads(data)["names"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return set()


def _parse(data: bytes) -> Cost:
    try:
        content: dict[str, Any] = json.loads(data)
        return Cost(
            images_read=int(content["images_read"]),
            bytes_read=int(content["bytes_read"]),
            msec={step: float(content["msec"][step]) for step in STEPS},
            originals=find_reader(Histograms)(content["originals"]),
            peaks=find_reader(dict[str, int])(content["peaks"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return Cost()
