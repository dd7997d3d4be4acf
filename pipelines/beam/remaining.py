"""The unfinished shards of plans: finds them, runs them, and draws how far they are."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tqdm import tqdm

from converter.commits.commit import list_finished
from converter.costs import Cost, read_costs
from converter.errors import DatasetError
from converter.planning.plan import Plan, Shard
from converter.storage.files import Layout
from converter.writing.multi_size import choose_leader, plan_work
from converter.writing.shard_writer import parse_receipt, receipt_path
from pipelines.beam import runners
from pipelines.beam.transforms import MillShards, MillSizes
from pipelines.beam.workers import LocalWorkers

# How often a bar that goes to a file is drawn: often enough to show that the job is alive.
LOG_INTERVAL_S: Final = 10.0
# How often receipts in an object store are listed, which takes a request each time.
STORE_INTERVAL_S: Final = 2.0


def write_remaining(
    plans: Sequence[Plan], beam: runners.RunnerOptions, pool: LocalWorkers | None, *, progress: bool
) -> list[tuple[int, Cost]]:
    """Writes the unfinished shards of some plans, reading each image once.

    The plans are of the same images in the same order, each for another size. Gives for each how
    many shards were finished before, and what the others cost; several cost their leader all.
    """
    if not plans:
        return []
    remaining = [list_remaining(plan, progress=progress) for plan in plans]
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
    with contextlib.closing(ReceiptWatch(leader, finished=kept[place], bar=progress)) as watch:
        watch.poll()  # a bar that resumes begins with what was finished before
        if transform is not None:
            # The same name each time: Dataflow refuses a second job while the first still runs.
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
    # `ReceiptWatch` would count a stale one as progress.
    stale = (receipt_path(layout, shard).name for shard in remaining)
    layout.receipts.remove_files(name for name in stale if name in receipts)
    return remaining


@contextlib.contextmanager
def follow_shards(total: int, what: str, *, shown: bool) -> Iterator[Callable[[object], object]]:
    """Draws a bar over shards; gives the function to call with each."""
    with tqdm(total=total, unit=" shards", desc=what, disable=not shown) as bar:
        yield lambda _: bar.update()


class ReceiptWatch:
    """Counts the written and the rejected images of a plan, and shows them as a bar if asked."""

    # Receipts are the one sign of progress that the launcher sees with every runner: local runners
    # show no counters before the end, and those of remote runners are minutes late.

    def __init__(self, plan: Plan, *, finished: int = 0, bar: bool) -> None:
        self.written = self.rejected = 0
        layout = Layout(plan.out)
        self._folder = layout.receipts
        self._interval_s = STORE_INTERVAL_S * self._folder.is_remote
        self._next = 0.0
        self._unseen = {receipt_path(layout, shard).name for shard in plan.shards}
        self._shards = len(plan.shards)
        self._before = f", {finished} finished before" if finished else ""
        self._live = sys.stderr.isatty()
        self._bar = tqdm(
            total=plan.records,
            unit=" images",
            desc="converting",
            disable=not bar,
            dynamic_ncols=self._live,
            mininterval=0.1 if self._live else LOG_INTERVAL_S,
        )

    def poll(self, *, final: bool = False) -> None:
        """Reads new receipts, if it is time to or `final` is set, and redraws the bar."""
        now = time.monotonic()
        if final or now >= self._next:
            self._read_new()
            self._next = now + self._interval_s
        rejected = f", {self.rejected} rejected" if self.rejected else ""
        written = f"{self._shards - len(self._unseen)}/{self._shards} shards"
        self._bar.set_postfix_str(f"{written}{self._before}{rejected}", refresh=self._live)

    def close(self) -> None:
        self._bar.close()

    def _read_new(self) -> None:
        names = sorted(self._unseen & self._folder.list_sizes().keys())
        for name, data in zip(names, self._folder.read_files(names), strict=True):
            try:
                receipt = parse_receipt(data, self._folder / name)
            except DatasetError:
                continue  # half written by a file system that does not rename in one step
            self._unseen.remove(name)
            self.written += receipt.records
            self.rejected += len(receipt.rejects)
            self._bar.update(receipt.images)
