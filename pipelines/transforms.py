"""The pipeline: wiring only, the work is `converter.mill.mill_shard`.

It is strictly linear, because engines that translate a graph with several leaves do it wrong
(the Dask runner computes only the last one, and says DONE), and nothing but references to shards
crosses the shuffle, because a local runner holds whatever does whole in memory, five times over.
"""

from __future__ import annotations

from collections.abc import Sequence

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PBegin, PCollection

from converter.mill import Job, Receipt, mill_shard
from converter.plan import Plan, Shard


class MillShards(beam.PTransform):  # type: ignore[misc]
    """Writes the shards of a plan: applied to a pipeline, gives a PCollection of receipts.

    For a Beam pipeline of one's own, between `converter.plan.write_plan`, which has to be done
    when the pipeline is built, and `converter.commit.commit`, when it has run.

    Args:
        plan: a plan that is written to its output; workers read their entries there.
        shards: which of its shards to write; None for all.
    """

    def __init__(self, plan: Plan, shards: Sequence[Shard] | None = None) -> None:
        super().__init__()
        self._job = Job(images=plan.images, out=plan.out, options=plan.options)
        chosen = plan.shards if shards is None else shards
        # The local runner deals elements out in turn, once, at the start: heaviest first makes
        # the shares weigh the same.
        self._shards = sorted(chosen, key=lambda shard: (-shard.source_bytes, shard.name))

    def expand(self, begin: PBegin) -> PCollection[Receipt]:
        return (
            begin
            # `Reshuffle` follows at once; one of Create's own would mix the order first.
            | "CreateShards" >> beam.Create(self._shards, reshuffle=False)
            | "SpreadShards" >> beam.Reshuffle()
            | "MillShard" >> beam.Map(mill_counted, self._job).with_output_types(Receipt)
        )


def mill_counted(shard: Shard, job: Job) -> Receipt:
    """`mill_shard`, counted for the runners that show counters."""
    receipt = mill_shard(shard, job)
    for name, count in (
        ("shards-written", 1),
        ("images-written", receipt.records),
        ("images-rejected", len(receipt.rejects)),
        ("bytes-written", receipt.bytes),
    ):
        Metrics.counter("shardmill", name).inc(count)
    return receipt
