"""Runs the shards of a plan that are not finished, and follows their receipts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tqdm import tqdm

from converter.commits.commit import list_finished
from converter.costs import Cost, read_costs
from converter.milling.mill import receipt_path
from converter.planning.plan import Plan, Shard
from converter.storage.files import list_sizes, remove_files
from converter.storage.layout import Layout
from pipelines import runners
from pipelines.progress import ReceiptWatch
from pipelines.transforms import MillShards
from pipelines.workers import LocalWorkers

if TYPE_CHECKING:
    from apache_beam import PTransform  # which scripts/loop_runner does without


def mill_plan(
    plan: Plan, beam: runners.RunnerOptions, pool: LocalWorkers | None, *, progress: bool
) -> tuple[int, Cost]:
    """Mills the shards of a plan that are not finished; says how many were, and what it cost."""
    remaining = list_remaining(plan, progress=progress)
    kept = len(plan.shards) - len(remaining)
    transform = MillShards(plan, remaining, pool.count if pool else 0) if remaining else None
    run_milling(transform, plan, beam, pool, kept=kept, progress=progress)
    return kept, read_costs(Layout(plan.out), (shard.name for shard in remaining))


def list_remaining(plan: Plan, *, progress: bool) -> list[Shard]:
    """The shards of a plan that are to be milled; what was noted of them before is removed."""
    layout = Layout(plan.out)
    there = list_sizes(layout.receipts)
    with follow_shards(len(plan.shards), "checking", shown=progress and bool(there)) as count:
        finished = {shard.name for shard in list_finished(plan, on_shard=count)}
    remaining = [shard for shard in plan.shards if shard.name not in finished]
    stale = (receipt_path(layout, shard) for shard in remaining)
    remove_files(path for path in stale if path.name in there)
    return remaining


def run_milling(
    transform: PTransform | None,
    plan: Plan,
    beam: runners.RunnerOptions,
    pool: LocalWorkers | None,
    *,
    kept: int,
    progress: bool,
) -> None:
    """Runs what mills shards, and follows their receipts.

    Args:
        transform: mills them; None if nothing is left to be done.
        plan: whose receipts are followed.
        beam: of the run.
        pool: of local workers.
        kept: how many of the plan's shards were finished before.
        progress: draw a bar.
    """
    watch = ReceiptWatch(plan, finished=kept, bar=progress)
    try:
        watch.poll()
        if transform is not None:
            job = f"shardmill-{plan.digest[:20]}"
            runners.run_pipeline(transform, beam, pool, job=job, on_poll=watch.poll)
        watch.poll(final=True)
    finally:
        watch.close()


@contextlib.contextmanager
def follow_shards(total: int, what: str, *, shown: bool) -> Iterator[Callable[[object], object]]:
    """A bar over shards, if it is to be shown; gives what is called with each."""
    with tqdm(total=total, unit=" shards", desc=what, disable=not shown) as bar:
        yield lambda _: bar.update()
