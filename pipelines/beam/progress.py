"""Draws a bar over images, by the receipts that finished shards leave in the output.

Receipts are the one sign of progress that the launcher sees with every runner: local runners show
no counters before the end, and those of remote runners are minutes late.
"""

from __future__ import annotations

import sys
import time
from typing import Final

from tqdm import tqdm

from converter.errors import DatasetError
from converter.planning.plan import Plan
from converter.storage.layout import Layout
from converter.writing.shard_writer import parse_receipt, receipt_path

LOG_INTERVAL_S: Final = 10.0
"""How often a bar that goes to a file is drawn: often enough to show that the job is alive."""

STORE_INTERVAL_S: Final = 2.0
"""How often receipts in an object store are listed, which takes a request each time."""


class ReceiptWatch:
    """Counts the images of a plan that are written or rejected, and shows them as a bar if asked.

    Of its shards, so many were finished before.
    """

    def __init__(self, plan: Plan, *, finished: int = 0, bar: bool) -> None:
        self.written = 0
        self.rejected = 0
        layout = Layout(plan.out)
        self._folder = layout.receipts
        self._interval_s = STORE_INTERVAL_S * self._folder.is_remote
        self._next = 0.0
        self._unseen = {receipt_path(layout, shard).name for shard in plan.shards}
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
        """Reads new receipts, if it is time to or `final` is set, and redraws the bar."""
        now = time.monotonic()
        if final or now >= self._next:
            self._read_new()
            self._next = now + self._interval_s
        before = f", {self._finished} finished before" if self._finished else ""
        rejected = f", {self.rejected} rejected" if self.rejected else ""
        written = f"{self._shards - len(self._unseen)}/{self._shards} shards"
        self._bar.set_postfix_str(f"{written}{before}{rejected}", refresh=self._live)

    def _read_new(self) -> None:
        known = self._folder.list_sizes()
        names = sorted(self._unseen & known.keys())
        for name, data in zip(names, self._folder.read_files(names), strict=True):
            try:
                receipt = parse_receipt(data, self._folder / name)
            except DatasetError:
                continue  # half written by a file system that does not rename in one step
            self._unseen.remove(name)
            self.written += receipt.records
            self.rejected += len(receipt.rejects)
            self._bar.update(receipt.images)

    def close(self) -> None:
        """Draws the bar for the last time."""
        self._bar.close()
