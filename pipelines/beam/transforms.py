"""The pipelines: wiring alone. `write_shard`, `check_shard` and the like do the work.

They are strictly linear, because engines that translate a graph with several leaves do it wrong
(the Dask runner computes only the last one, and says DONE), and nothing but references to shards
crosses the shuffle, because a local runner holds whatever does whole in memory, five times over.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PBegin, PCollection

from converter.costs import Cost, start_cost, take_cost, write_cost
from converter.format.manifest import ShardInfo
from converter.planning.plan import Plan, Shard
from converter.sources.streams import is_compressed
from converter.storage.atomic import write_file
from converter.storage.layout import Layout
from converter.storage.location import Location
from converter.upkeep.verification import Check, check_shard
from converter.writing.archive_pass import deal_shards, write_together
from converter.writing.multi_size import (
    Assembly,
    Work,
    assemble_shard,
    write_leader,
    write_leaders,
)
from converter.writing.pipelined import is_far, write_pipelined
from converter.writing.shard_writer import Job, Receipt, write_shard

Shards: TypeAlias = tuple[Shard, ...]


class MillShards(beam.PTransform):  # type: ignore[misc]  # Beam has no types
    """Writes the shards of a plan: applied to a pipeline, gives a PCollection of receipts.

    For a Beam pipeline of one's own, between `converter.planning.plan.write_plan`, which has to
    be done when the pipeline is built, and `converter.commits.commit.commit`, when it has run.

    Args:
        plan: a plan that is written to its output; workers read their entries there.
        shards: which of its shards to write; None for all.
        groups: among how many groups shards are dealt where together they cost less. Of an archive
            that is compressed as a whole, each group is one reading, and 0 stands for one a core
            of this machine; where anything lies in a store, each is one series, and 0 stands for
            each shard by itself.
    """

    def __init__(self, plan: Plan, shards: Sequence[Shard] | None = None, groups: int = 0) -> None:
        super().__init__()
        self._job = Job.of_plan(plan)
        chosen = plan.shards if shards is None else shards
        # The local runner deals elements out in turn, once, at the start: heaviest first makes
        # the shares weigh the same.
        self._shards = sorted(chosen, key=lambda shard: (-shard.source_bytes, shard.name))
        self._groups = groups

    def expand(self, begin: PBegin) -> PCollection[Receipt]:
        write, groups = self._choose()
        return (
            begin
            # `Reshuffle` follows at once; one of Create's own would mix the order first.
            | "CreateShards" >> beam.Create(groups, reshuffle=False)
            | "SpreadShards" >> beam.Reshuffle()
            | "MillShard" >> beam.FlatMap(write, self._job).with_output_types(Receipt)
        )

    def _choose(self) -> tuple[Callable[[Shards, Job], Iterable[Receipt]], list[Shards]]:
        """How shards are written, and which of them together."""
        if is_compressed(self._job.images):
            return write_group, deal_shards(self._shards, self._groups or os.cpu_count() or 1)
        if is_far(self._job):
            return write_far, deal_shards(self._shards, self._groups or len(self._shards))
        return write_near, deal_shards(self._shards, len(self._shards))


def write_group(shards: Shards, job: Job) -> list[Receipt]:
    """`write_together`, with what it cost."""
    job.check_versions()
    start_cost()
    receipts = write_together(shards, job)
    _log_cost(take_cost(), job, shards[0].name)
    return [count_receipt(receipt) for receipt in receipts]


def write_far(shards: Shards, job: Job) -> Iterator[Receipt]:
    """`write_pipelined`, with what it cost."""
    job.check_versions()
    for receipt, cost in write_pipelined(shards, job):
        count_cost(cost)
        yield count_receipt(receipt)


def write_near(shards: Shards, job: Job) -> Iterator[Receipt]:
    """`write_shard` of each, with what it cost."""
    job.check_versions()
    for shard in shards:
        start_cost()
        receipt = write_shard(shard, job)
        _log_cost(take_cost(), job, shard.name)
        yield count_receipt(receipt)


def count_receipt(receipt: Receipt) -> Receipt:
    """Counts what was written for a shard, for the runners that show counters."""
    _count(
        {
            "shards-written": 1,
            "images-written": receipt.records,
            "images-rejected": len(receipt.rejects),
            "bytes-written": receipt.bytes,
        }
    )
    return receipt


def count_cost(cost: Cost) -> None:
    """Counts what was read, and the time of each step, for the runners that show counters."""
    times = {f"{step}-msec": round(msec) for step, msec in cost.msec.items()}
    _count({"images-read": cost.images_read, "bytes-read": cost.bytes_read, **times})


def _log_cost(cost: Cost, job: Job, name: str) -> None:
    count_cost(cost)
    write_cost(cost, Layout(job.out), name)


def _count(counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        Metrics.counter("shardmill", name).inc(count)


class MillSizes(beam.PTransform):  # type: ignore[misc]  # Beam has no types
    """Writes the shards of several sizes: those of the leader, and then those of the others.

    Between the two, all that the leader's shards leave is counted as one element, so that no
    follower's shard is begun before all parts are there.

    Args:
        work: what is left to be done.
        groups: among how many the leader's shards are dealt, as for `MillShards`.
    """

    def __init__(self, work: Work, groups: int = 0) -> None:
        super().__init__()
        self._work = work
        self._groups = groups or os.cpu_count() or 1

    def expand(self, begin: PBegin) -> PCollection[Receipt]:
        # The work itself goes along with each step, but not what it is divided into.
        work = dataclasses.replace(self._work, shards=(), assemblies=())
        return (
            begin
            # An empty group stands for them where no shard is left: of nothing nothing comes.
            | "CreateGroups" >> beam.Create([(), *self._deal()], reshuffle=False)
            | "SpreadGroups" >> beam.Reshuffle()
            | "MillLeaders" >> beam.Map(write_led, work).with_output_types(tuple[int, int])
            | "AwaitParts" >> beam.CombinePerKey(sum)
            | "ListAssemblies" >> beam.FlatMap(list_assemblies, self._work.assemblies)
            | "SpreadAssemblies" >> beam.Reshuffle()
            | "Assemble" >> beam.Map(assemble_counted).with_output_types(Receipt)
        )

    def _deal(self) -> list[Shards]:
        """The leader's shards, the heaviest first: each alone where each can be read alone."""
        shards = self._work.shards
        together = is_compressed(self._work.leader.images)
        return deal_shards(shards, self._groups if together else len(shards))


def write_led(shards: Shards, work: Work) -> tuple[int, int]:
    """`write_leader` or `write_leaders`, counted as one of all that have to be done."""
    if shards:
        work.leader.check_versions()
        start_cost()
        if is_compressed(work.leader.images):
            receipts = write_leaders(shards, work)
        else:
            receipts = [write_leader(shard, work) for shard in shards]
        _log_cost(take_cost(), work.leader, shards[0].name)
        for receipt in receipts:
            count_receipt(receipt)
    return 0, 1


def list_assemblies(_done: object, assemblies: Sequence[Assembly]) -> Iterator[Assembly]:
    """The followers' shards, once the leader's are done; the heaviest first."""
    yield from sorted(assemblies, key=lambda item: (-item.shard.source_bytes, item.shard.name))


def assemble_counted(assembly: Assembly) -> Receipt:
    """`assemble_shard`, counted for the runners that show counters."""
    assembly.job.check_versions()
    return count_receipt(assemble_shard(assembly))


class VerifyShards(beam.PTransform):  # type: ignore[misc]  # Beam has no types
    """Checks the shards of a data set; leaves a report of each as a file.

    A file, because an element that comes out of a pipeline is not to be had on every runner.

    Args:
        shards: what the manifest states of them.
        check: how they are checked.
        reports: folder for the reports, which workers and launcher see under the same path.
    """

    def __init__(self, shards: Sequence[ShardInfo], check: Check, reports: Location) -> None:
        super().__init__()
        self._shards = sorted(shards, key=lambda shard: (-shard.bytes, shard.name))
        self._check = check
        self._reports = reports

    def expand(self, begin: PBegin) -> PCollection[None]:
        return (
            begin
            | "CreateShards" >> beam.Create(self._shards, reshuffle=False)
            | "SpreadShards" >> beam.Reshuffle()
            | "VerifyShard" >> beam.Map(write_report, self._check, self._reports)
        )


def report_path(reports: Location, shard: ShardInfo) -> Location:
    """Where the report on a shard lies."""
    return reports / f"{Path(shard.name).stem}.json"


def write_report(shard: ShardInfo, check: Check, reports: Location) -> None:
    """`check_shard`, with its report in a file."""
    data = json.dumps(check_shard(shard, check).to_json()).encode("ascii")
    write_file(report_path(reports, shard), data, reports)
    Metrics.counter("shardmill", "shards-verified").inc()
