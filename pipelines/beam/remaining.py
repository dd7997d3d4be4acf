"""The unfinished shards of plans: finds them, runs them, and counts how far they are."""

import time
from collections.abc import Callable, Sequence

from converter import progress
from converter.commits.commit import list_finished
from converter.commits.receipts import MERGED_RECEIPTS, ReceiptReader, remove_receipts
from converter.costs import Cost, merge_costs, read_costs
from converter.planning.plan import Plan, Shard
from converter.progress import Counts
from converter.storage.files import Layout
from converter.writing.multi_size import choose_leader, plan_work
from pipelines.beam import runners
from pipelines.beam.transforms import MillShards, MillSizes
from pipelines.beam.workers import LocalWorkers


def write_remaining(
    plans: Sequence[Plan], beam: runners.RunnerOptions, pool: LocalWorkers | None
) -> list[tuple[int, Cost]]:
    """Writes the unfinished shards of some plans, reading each image once.

    The plans are of the same images in the same order, each for another size. Gives for each how
    many shards were finished before, and what the others cost; several cost their leader all.
    """
    if not plans:
        return []
    remaining = [list_remaining(plan) for plan in plans]
    kept = [len(plan.shards) - len(left) for plan, left in zip(plans, remaining, strict=True)]
    leader = choose_leader(plans)
    place = plans.index(leader)
    shards, transform, groups = remaining[place], None, pool.count if pool else 0
    if len(plans) > 1:
        work = plan_work(plans, remaining)
        shards = list(work.shards)
        transform = MillSizes(work, groups) if work.shards or work.assemblies else None
    elif shards:
        transform = MillShards(leader, shards, groups)
    followers = [plan for plan in plans if plan is not leader]
    count = choose_counter(beam, pool)
    watch = ReceiptWatch(leader, finished=kept[place], count=count, followers=followers)
    watch.poll()  # a bar that resumes begins with what was finished before
    if transform is not None:
        # The same name each time: Dataflow refuses a second job while the first still runs.
        job = f"shardmill-{leader.digest[:20]}"
        runners.run_pipeline(transform, beam, pool, job=job, on_poll=watch.poll)
    watch.poll(final=True)
    costs = [Cost()] * len(plans)
    costs[place] = read_costs(Layout(leader.out), (shard.name for shard in shards))
    return list(zip(kept, costs, strict=True))


def list_remaining(plan: Plan) -> list[Shard]:
    """Lists the unfinished shards of a plan, and removes their stale receipts."""
    layout = Layout(plan.out)
    receipts = layout.receipts.list_names()
    if receipts:
        progress.begin("check", len(plan.shards), "shards", "of an earlier run")
    count = (lambda _: progress.advance()) if receipts else None
    if len(receipts) >= MERGED_RECEIPTS:  # of a job that went on without its launcher
        ReceiptReader(layout, plan.shards).merge_new()
    finished = {shard.name for shard in list_finished(plan, on_shard=count)}
    remaining = [shard for shard in plan.shards if shard.name not in finished]
    if receipts:
        remove_receipts(layout, remaining)  # `ReceiptWatch` would count a stale one as progress
    return remaining


def choose_counter(
    beam: runners.RunnerOptions, pool: LocalWorkers | None
) -> Callable[[], Counts] | None:
    """What tells how much a local runner has done so far; None for one on other machines."""
    if pool is not None:
        return pool.read_counts
    return progress.read_counts if beam.local else None


class ReceiptWatch:
    """Counts the written and the rejected images of a plan, in the phase `convert`."""

    # With every runner, receipts are what the launcher sees; counters of remote runners are minutes
    # late. Of local workers it also sees images of shards that are not finished.

    def __init__(
        self,
        plan: Plan,
        *,
        finished: int = 0,
        count: Callable[[], Counts] | None = None,
        followers: Sequence[Plan] = (),
    ) -> None:
        self.images = self.written = self.rejected = 0
        self._layout = Layout(plan.out)
        self._reader = ReceiptReader(self._layout, plan.shards)
        self._others = [ReceiptReader(Layout(other.out), other.shards) for other in followers]
        self._interval_s = runners.STORE_INTERVAL_S * plan.out.is_remote
        self._next = 0.0
        self._unseen = {shard.name: shard for shard in plan.shards}
        self._written: list[str] = []  # by this run, with costs in a file each
        self._shards = len(plan.shards)
        self._before = f", {finished} finished before" if finished else ""
        self._count = count or Counts
        self._start = self._count()
        # Those that the scan rejected are a part of the sum that the command prints at its end.
        self._left_out = sum(plan.rejected.values())
        self._bytes = 0
        self._first: tuple[int, int] | None = None  # images and rejects of an earlier run
        self._phase = progress.begin("convert", plan.records, note="starting workers")

    def poll(self, *, final: bool = False) -> None:
        """Reads new receipts, if it is time to or `final` is set."""
        now = time.monotonic()
        if final or now >= self._next:
            self._read_new()
            self._next = now + self._interval_s
        done, rejected, size = self.images, self.rejected, self._bytes
        if self._first is None:
            self._first, self._bytes = (done, rejected), 0
            self._phase.before, size = done, 0
        live = self._count().minus(self._start)
        if not final:  # then receipts say it all
            done = max(done, self._first[0] + live.images)
            rejected = max(rejected, self._first[1] + live.rejected)
        self._phase.done = min(done, self._phase.total or 0)
        self._phase.rejected = self._left_out + rejected
        self._phase.bytes = max(size, live.bytes)
        if live.images or not self._unseen or done > self._phase.before:
            written = f"{self._shards - len(self._unseen)}/{self._shards} shards"
            self._phase.note = f"{written}{self._before}"

    def _read_new(self) -> None:
        for receipt in self._reader.read_new():
            self._bytes += self._unseen.pop(receipt.name).source_bytes
            self.images += receipt.images
            self.written += receipt.records
            self.rejected += len(receipt.rejects)
            if self._first is not None:
                self._written.append(receipt.name)
        for reader in self._others:
            reader.merge_new()
        if len(self._written) >= MERGED_RECEIPTS:
            merge_costs(self._layout, self._written)
            self._written.clear()
