"""A bar over images, fed by the receipts that finished shards leave in the output.

Receipts are the one thing that every runner produces where the launcher can see it: local
runners show no counters before the end, and a remote runner's are minutes late.
"""

from __future__ import annotations

import sys
import time
from typing import Final

from tqdm import tqdm

from converter.errors import DatasetError
from converter.planning.plan import Plan
from converter.storage.files import read_files
from converter.storage.layout import Layout
from converter.writing.shard_writer import parse_receipt, receipt_path

LOG_INTERVAL_S: Final = 10.0
"""How often the bar is drawn where it goes to a file: often enough to see that it lives."""

STORE_INTERVAL_S: Final = 2.0
"""How often receipts are looked for in an object store."""


class ReceiptWatch:
    """Counts the images that are dealt with, and shows them as a bar.

    Args:
        plan: the conversion that is watched.
        finished: how many of its shards were finished before.
        bar: draw the bar; without it, only the counts are kept.
    """

    def __init__(self, plan: Plan, *, finished: int = 0, bar: bool) -> None:
        self.written = 0
        self.rejected = 0
        layout = Layout(plan.out)
        self._folder = layout.receipts
        self._unseen = {receipt_path(layout, shard).name for shard in plan.shards}
        self._next = 0.0
        self._shards = len(plan.shards)
        self._finished = finished
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
        """Takes in the receipts that are new, if it is time to, and redraws.

        Args:
            final: it is.
        """
        now = time.monotonic()
        if final or now >= self._next:
            self._take_in()
            # In a store, each look is a request.
            self._next = now + STORE_INTERVAL_S * self._folder.is_remote
        self._bar.set_postfix_str(self._describe(), refresh=self._live)

    def _take_in(self) -> None:
        known = self._folder.list_sizes()
        paths = [self._folder / name for name in sorted(self._unseen & known.keys())]
        for path, data in zip(paths, read_files(paths), strict=True):
            try:
                receipt = parse_receipt(data, path)
            except DatasetError:
                continue  # half written by a file system that does not rename in one step
            self._unseen.remove(path.name)
            self.written += receipt.records
            self.rejected += len(receipt.rejects)
            self._bar.update(receipt.images)

    def close(self) -> None:
        """Draws the bar for the last time."""
        self._bar.close()

    def _describe(self) -> str:
        before = f", {self._finished} finished before" if self._finished else ""
        rejected = f", {self.rejected} rejected" if self.rejected else ""
        return f"{self._shards - len(self._unseen)}/{self._shards} shards{before}{rejected}"
