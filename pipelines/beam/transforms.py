"""The pipelines: only wiring. `write_shard`, `check_shard` and others do the work."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PBegin, PCollection

from converter.costs import Cost, start_cost, take_cost, write_cost
from converter.format.manifest import ShardInfo
from converter.planning.plan import Plan, Shard, dump_line
from converter.storage.files import Layout, write_file
from converter.storage.location import Location
from converter.upkeep.verification import Check, check_shard
from converter.writing.multi_size import Assembly, Work, assemble_shard, write_leaders
from converter.writing.shard_groups import deal_shards, uses_store, write_pipelined, write_together
from converter.writing.shard_writer import Job, Receipt, write_shard

# The pipelines are strictly linear, because engines that translate a graph with several leaves do
# it wrong: the Dask runner computes only the last leaf, and reports DONE. Only references to shards
# cross the shuffle, because a local runner holds whatever crosses it whole in memory, five times
# over: 1,000,000 paths cost 942 MB and 52 s, references to them 137 MB and 2 s.
Shards: TypeAlias = tuple[Shard, ...]

LISTED: Final = "shards.jsonl"
"""Beside the reports of a check: the shards to check, one a line."""


class MillShards(beam.PTransform):  # type: ignore[misc]  # Beam has no types
    """Writes the shards of a plan: applied to a pipeline, gives a PCollection of receipts.

    Use it in a Beam pipeline of your own, between `converter.planning.plan.write_plan` when you
    build the pipeline and `converter.commits.commit.commit` after it has run.

    Args:
        plan: a plan that has been written to its output, where workers read their entries.
        shards: which of its shards to write; None for all.
        groups: into how many groups to deal shards that cost less when written together. Each
            group is one reading of an archive that is compressed as a whole, and 0 stands for one
            per core of this machine. If anything lies in a store, each group is written in series,
            and 0 stands for one group per shard.
    """

    def __init__(self, plan: Plan, shards: Sequence[Shard] | None = None, groups: int = 0) -> None:
        super().__init__()
        self._job = Job.of_plan(plan)
        chosen = plan.shards if shards is None else shards
        self.groups = _deal(chosen, self._job, groups, in_series=uses_store(self._job))

    def expand(self, begin: PBegin) -> PCollection[Receipt]:
        mill = beam.FlatMap(mill_shards, self._job).with_output_types(Receipt)
        return _spread(begin, self.groups) | "MillShard" >> mill


class MillSizes(beam.PTransform):  # type: ignore[misc]  # Beam has no types
    """Writes the shards of several sizes; `groups` is as for `MillShards`."""

    def __init__(self, work: Work, groups: int = 0) -> None:
        super().__init__()
        self._groups = _deal(work.shards, work.leader, groups, in_series=False)
        self._assemblies = work.assemblies
        # Sent along with each step, so without what it is divided into.
        self._work = dataclasses.replace(work, shards=(), assemblies=())

    def expand(self, begin: PBegin) -> PCollection[Receipt]:
        return (
            # The empty group stands in where no shard is left: no elements would give no sum.
            _spread(begin, [(), *self._groups])
            | "MillLeaders" >> beam.Map(mill_leaders, self._work).with_output_types(tuple[int, int])
            # One element of all the leader's shards, so that no follower's shard is started before
            # all its parts exist.
            | "AwaitParts" >> beam.CombinePerKey(sum)
            | "ListAssemblies" >> beam.FlatMap(list_assemblies, self._assemblies)
            | "SpreadAssemblies" >> beam.Reshuffle()
            | "Assemble" >> beam.Map(assemble).with_output_types(Receipt)
        )


class VerifyShards(beam.PTransform):  # type: ignore[misc]  # Beam has no types
    """Checks the shards of a data set; leaves a report of each as a file.

    Args:
        shards: the shards to check, as the manifest states them.
        check: how to check them.
        reports: folder for the reports, which workers and launcher see under the same path.
    """

    def __init__(self, shards: Sequence[ShardInfo], check: Check, reports: Location) -> None:
        super().__init__()
        # The local runner deals elements out in turn, once, at the start: so heaviest first.
        self._shards = sorted(shards, key=lambda shard: (-shard.bytes, shard.name))
        # Sent along with each step, so without the shards of the data set.
        manifest = dataclasses.replace(check.manifest, shards=())
        self._check = dataclasses.replace(check, manifest=manifest)
        self._reports = reports

    def expand(self, begin: PBegin) -> PCollection[None]:
        # Only where each is described: 100,000 shards as elements took 335 MB of the launcher, and
        # their places 15 MB.
        places = list_shards(self._shards, self._reports)
        # Files, because not every runner gives the launcher the elements that leave a pipeline.
        write = beam.Map(check_listed, self._check, self._reports)
        return _spread(begin, places) | "VerifyShard" >> write


def _deal(shards: Sequence[Shard], job: Job, groups: int, *, in_series: bool) -> list[Shards]:
    """Decides which shards are written together, heaviest first."""
    if job.in_order:
        return deal_shards(shards, groups or os.cpu_count() or 1)
    return deal_shards(shards, groups if groups and in_series else len(shards))


def _spread(begin: PBegin, elements: Iterable[Any]) -> PCollection[Any]:
    return (
        begin
        # `Reshuffle` follows at once; one of Create's own would mix the order first.
        | "CreateShards" >> beam.Create(elements, reshuffle=False)
        | "SpreadShards" >> beam.Reshuffle()
    )


def mill_shards(shards: Shards, job: Job) -> Iterator[Receipt]:
    """Writes a group of shards, in the way that suits where images and data set lie."""
    # Workers elsewhere may have another Pillow, which writes other bytes.
    job.check_versions()
    if job.in_order:
        with _measure_cost(job, shards[0]):
            receipts = write_together(shards, job)
        yield from map(_count_receipt, receipts)
    elif uses_store(job):
        for receipt, cost in write_pipelined(shards, job):
            _count_cost(cost)
            yield _count_receipt(receipt)
    else:
        for shard in shards:
            with _measure_cost(job, shard):
                receipt = write_shard(shard, job)
            yield _count_receipt(receipt)


def mill_leaders(shards: Shards, work: Work) -> tuple[int, int]:
    """Writes a group of the leader's shards; gives one key for all groups, and a count of one."""
    if shards:
        work.leader.check_versions()
        with _measure_cost(work.leader, shards[0]):
            receipts = write_leaders(shards, work)
        for receipt in receipts:
            _count_receipt(receipt)
    return 0, 1


def list_assemblies(_done: object, assemblies: Sequence[Assembly]) -> Iterator[Assembly]:
    """The followers' shards, once the leader's are done; heaviest first."""
    yield from sorted(assemblies, key=lambda item: (-item.shard.source_bytes, item.shard.name))


def assemble(assembly: Assembly) -> Receipt:
    """Writes a follower's shard."""
    assembly.job.check_versions()
    return _count_receipt(assemble_shard(assembly))


def report_path(reports: Location, shard: ShardInfo) -> Location:
    """The file of the report on a shard."""
    return reports / f"{Path(shard.name).stem}.json"


def list_shards(shards: Iterable[ShardInfo], reports: Location) -> list[tuple[int, int]]:
    """Writes a list of shards beside the reports; gives the offset and size of each in it."""
    lines = [dump_line(dataclasses.asdict(shard)) for shard in shards]
    write_file(reports / LISTED, b"".join(lines), reports)
    ends = itertools.accumulate(map(len, lines))
    return [(end - len(line), len(line)) for end, line in zip(ends, lines, strict=True)]


def check_listed(place: tuple[int, int], check: Check, reports: Location) -> None:
    """Checks a shard of the list, and writes the report."""
    line = json.loads((reports / LISTED).read_range(*place))
    write_report(ShardInfo(**line), check, reports)


def write_report(shard: ShardInfo, check: Check, reports: Location) -> None:
    """Checks a shard, and writes the report."""
    write_file(report_path(reports, shard), check_shard(shard, check).to_json(), reports)
    _count({"shards-verified": 1})


@contextlib.contextmanager
def _measure_cost(job: Job, shard: Shard) -> Iterator[None]:
    """Counts what the block costs, and leaves it beside the receipts."""
    start_cost()
    yield
    cost = take_cost()
    _count_cost(cost)
    write_cost(cost, Layout(job.out), shard.name)


def _count_receipt(receipt: Receipt) -> Receipt:
    images = {"images-written": receipt.records, "images-rejected": len(receipt.rejects)}
    _count({"shards-written": 1, "bytes-written": receipt.bytes, **images})
    return receipt


def _count_cost(cost: Cost) -> None:
    times = {f"{step}-msec": round(msec) for step, msec in cost.msec.items()}
    _count({"images-read": cost.images_read, "bytes-read": cost.bytes_read, **times})


def _count(counts: Mapping[str, int]) -> None:
    # Some runners show Beam's counters.
    for name, count in counts.items():
        Metrics.counter("shardmill", name).inc(count)
