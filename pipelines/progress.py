"""A bar over images, fed by the receipts that finished shards leave in the output.

Receipts are the one thing that every runner produces where the launcher can see it: local
runners show no counters before the end, and a remote runner's are minutes late.
"""

from __future__ import annotations

import sys
from typing import Final

from tqdm import tqdm

from converter.layout import Layout
from converter.mill import read_receipt
from converter.plan import Plan

LOG_INTERVAL_S: Final = 10.0
"""How often the bar is drawn where it goes to a file: often enough to see that it lives."""


class ReceiptWatch:
    """Counts the images that are dealt with, and shows them as a bar.

    Args:
        plan: the conversion that is watched.
        bar: draw the bar; without it, only the counts are kept.
    """

    def __init__(self, plan: Plan, *, bar: bool) -> None:
        self.written = 0
        self.rejected = 0
        self._receipts = Layout(plan.out).receipts
        self._seen: set[str] = set()
        self._shards = len(plan.shards)
        live = sys.stderr.isatty()
        self._bar = tqdm(
            total=plan.records,
            unit=" images",
            desc="converting",
            disable=not bar,
            dynamic_ncols=live,
            mininterval=0.1 if live else LOG_INTERVAL_S,
        )

    def poll(self) -> None:
        """Takes in the receipts that are new, and redraws."""
        for path in sorted(self._receipts.glob("*.json")):
            if path.name not in self._seen:
                receipt = read_receipt(path)
                self._seen.add(path.name)
                self.written += receipt.records
                self.rejected += len(receipt.rejects)
                self._bar.update(receipt.images)
        self._bar.set_postfix_str(self._describe(), refresh=False)
        self._bar.refresh() if sys.stderr.isatty() else None

    def close(self) -> None:
        """Draws the bar for the last time."""
        self._bar.close()

    def _describe(self) -> str:
        rejected = f", {self.rejected} rejected" if self.rejected else ""
        return f"{len(self._seen)}/{self._shards} shards{rejected}"
