"""Runs the unfinished shards of a plan, and follows their receipts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from tqdm import tqdm

from converter.commits.commit import list_finished
from converter.costs import Cost, read_costs
from converter.planning.plan import Plan, Shard
from converter.storage.layout import Layout
from converter.writing.multi_size import choose_leader, plan_work
from converter.writing.shard_writer import receipt_path
from pipelines.beam import runners
from pipelines.beam.progress import ReceiptWatch
from pipelines.beam.transforms import MillShards, MillSizes
from pipelines.beam.workers import LocalWorkers


def write_remaining(
    plans: Sequence[Plan], beam: runners.RunnerOptions, pool: LocalWorkers | None, *, progress: bool
) -> list[tuple[int, Cost]]:
    """Writes the unfinished shards of some plans, reading each image once.

    Args:
        plans: of the same images in the same order, each for another size.
        beam: options of the run.
        pool: the local workers, if any.
        progress: draw bars.

    Returns:
        for each plan, how many shards were finished before, and what the others cost; the cost of
        several plans is attributed to their leader.
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
    with contextlib.closing(ReceiptWatch(leader, finished=kept[place], bar=progress)) as watch:
        watch.poll()
        if transform is not None:
            job = f"shardmill-{leader.digest[:20]}"
            runners.run_pipeline(transform, beam, pool, job=job, on_poll=watch.poll)
        watch.poll(final=True)
    costs = [Cost()] * len(plans)
    costs[place] = read_costs(Layout(leader.out), (shard.name for shard in shards))
    return list(zip(kept, costs, strict=True))


def list_remaining(plan: Plan, *, progress: bool) -> list[Shard]:
    """Lists the unfinished shards of a plan, and removes their stale receipts."""
    layout = Layout(plan.out)
    receipts = layout.receipts.list_sizes()
    with follow_shards(len(plan.shards), "checking", shown=progress and bool(receipts)) as count:
        finished = {shard.name for shard in list_finished(plan, on_shard=count)}
    remaining = [shard for shard in plan.shards if shard.name not in finished]
    stale = (receipt_path(layout, shard).name for shard in remaining)
    layout.receipts.remove_files(name for name in stale if name in receipts)
    return remaining


@contextlib.contextmanager
def follow_shards(total: int, what: str, *, shown: bool) -> Iterator[Callable[[object], object]]:
    """Draws a bar over shards; gives the function to call with each."""
    with tqdm(total=total, unit=" shards", desc=what, disable=not shown) as bar:
        yield lambda _: bar.update()
