"""Mills several shards in one reading of an archive that is compressed as a whole.

Images are converted in the order in which they lie in the archive, and records wait in a file of
the scratch folder until each shard is put together in its own order. So the archive is decompressed
once for each group of shards, and not for each shard; and its shards are finished when all of the
archive is read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from converter.entries import Entry
from converter.milling.mill import Job, Receipt, convert_entry, write_shard
from converter.milling.records import Outcome
from converter.milling.spools import pack_outcomes, unpack_outcomes
from converter.planning.plan import Shard, read_entries
from converter.storage.layout import Layout


def mill_together(shards: Sequence[Shard], job: Job) -> list[Receipt]:
    """Converts the images of some shards; errors are those of `mill_shard`.

    Memory is bounded by one image and some 300 bytes for each image of these shards; the scratch
    folder takes their records, and gives them back.
    """
    planned = [(shard, *item) for shard in shards for item in read_entries(job.out, shard)]
    spans = np.zeros((len(planned), 2), np.int64)
    scratch = Layout(job.out).scratch
    with tempfile.TemporaryFile(dir=scratch if isinstance(scratch, Path) else None) as spool:
        for number in sorted(range(len(planned)), key=lambda number: planned[number][1].place):
            _, entry, text = planned[number]
            begin = spool.tell()
            spool.writelines(pack_outcomes(convert_entry(entry, text, job)))
            spans[number] = begin, spool.tell() - begin
        first, receipts = 0, []
        for shard in shards:
            part = range(first, first + shard.records)
            entries = [planned[number][1] for number in part]
            receipts.append(write_shard(shard, job, _unpack(spool, entries, spans[part])))
            first += shard.records
        return receipts


def deal_shards(shards: Sequence[Shard], groups: int) -> list[tuple[Shard, ...]]:
    """Deals shards out to groups that weigh the same, in as far as they can."""
    ordered = sorted(shards, key=lambda shard: (-shard.source_bytes, shard.name))
    return [tuple(ordered[first::groups]) for first in range(min(groups, len(ordered)))]


def _unpack(
    spool: BinaryIO, entries: Sequence[Entry], spans: npt.NDArray[np.int64]
) -> Iterator[tuple[Entry, Outcome]]:
    for entry, (begin, size) in zip(entries, spans.tolist(), strict=True):
        spool.seek(begin)
        yield from unpack_outcomes(spool, entry, size)
