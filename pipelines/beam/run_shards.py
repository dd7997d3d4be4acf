"""Runs the shards of a plan that are not finished, and follows their receipts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from converter.commits.commit import list_finished
from converter.costs import Cost, read_costs
from converter.planning.plan import Plan, Shard
from converter.storage.files import remove_files
from converter.storage.layout import Layout
from converter.writing.multi_size import choose_leader, plan_work
from converter.writing.shard_writer import receipt_path
from pipelines.beam import runners
from pipelines.beam.progress import ReceiptWatch
from pipelines.beam.transforms import MillShards, MillSizes
from pipelines.beam.workers import LocalWorkers

if TYPE_CHECKING:
    from apache_beam import PTransform  # which scripts/faults/loop_runner does without


def write_remaining(
    plans: Sequence[Plan],
    beam: runners.RunnerOptions,
    pool: LocalWorkers | None,
    *,
    progress: bool,
) -> list[tuple[int, Cost]]:
    """Writes the shards of some plans that are not finished, reading each image once.

    Args:
        plans: of the same images in the same order, each for another size.
        beam: of the run.
        pool: of local workers.
        progress: draw bars.

    Returns:
        of each plan how many shards were finished, and what the others cost; with several plans,
        all of it is the leader's.
    """
    if not plans:
        return []
    remaining = [list_remaining(plan, progress=progress) for plan in plans]
    kept = [len(plan.shards) - len(left) for plan, left in zip(plans, remaining, strict=True)]
    leader = choose_leader(plans)
    place = next(place for place, plan in enumerate(plans) if plan is leader)
    shards, transform, groups = remaining[place], None, pool.count if pool else 0
    if len(plans) > 1:
        work = plan_work(plans, remaining)
        shards = list(work.shards)
        transform = MillSizes(work, groups) if work.shards or work.assemblies else None
    elif shards:
        transform = MillShards(leader, shards, groups)
    run_and_follow(transform, leader, beam, pool, kept=kept[place], progress=progress)
    costs = [Cost()] * len(plans)
    costs[place] = read_costs(Layout(leader.out), (shard.name for shard in shards))
    return list(zip(kept, costs, strict=True))


def list_remaining(plan: Plan, *, progress: bool) -> list[Shard]:
    """The shards of a plan that are to be written; what was noted of them before is removed."""
    layout = Layout(plan.out)
    there = layout.receipts.list_sizes()
    with follow_shards(len(plan.shards), "checking", shown=progress and bool(there)) as count:
        finished = {shard.name for shard in list_finished(plan, on_shard=count)}
    remaining = [shard for shard in plan.shards if shard.name not in finished]
    stale = (receipt_path(layout, shard) for shard in remaining)
    remove_files(path for path in stale if path.name in there)
    return remaining


def run_and_follow(
    transform: PTransform | None,
    plan: Plan,
    beam: runners.RunnerOptions,
    pool: LocalWorkers | None,
    *,
    kept: int,
    progress: bool,
) -> None:
    """Runs what writes shards, and follows their receipts.

    Args:
        transform: writes them; None if nothing is left to be done.
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
