"""An order by its name, and files that are read in the way that suits it and the storage."""

from __future__ import annotations

from reader.plan.memory import Buffers
from reader.plan.options import ReadOptions
from reader.records.readahead import RunFiles
from reader.records.record_files import RecordFiles
from reader.remote.range_reads import RangeFiles
from reader.remote.remote_file import count_mixed, fits_cache, list_remote
from reader.sampling.orders import (
    Order,
    SequentialOrder,
    ShardwiseOrder,
    ShuffledOrder,
    WindowedOrder,
)
from reader.sampling.selection import Selection, count_selected


def arrange(
    files: RecordFiles,
    buffers: Buffers,
    options: ReadOptions,
    records: int,
    *,
    singly: bool = False,
) -> tuple[RecordFiles, Order]:
    """Chooses how files are read in the order asked for, within the sizes of some buffers.

    Args:
        files: that hold the records.
        buffers: what they may take.
        options: what is asked for, settled.
        records: of an epoch.
        singly: whether steps are read at random.
    """
    shuffle, seed = options.shuffle, options.seed or 0
    is_scattered = singly or (shuffle == "exact" and not fits_cache(files.files))
    kind = RangeFiles if is_scattered and list_remote(files.files) else RecordFiles
    files = kind(files.files, buffers.index_bytes)
    if shuffle == "exact":
        return files, ShuffledOrder(records=records, seed=seed)
    if shuffle == "buffer" and buffers.window:
        windowed = WindowedOrder(records=records, seed=seed, run=buffers.run, window=buffers.window)
        return RunFiles(files, buffers.run, 2 * buffers.window // buffers.run), windowed
    return files, SequentialOrder()


def arrange_shardwise(
    files: RecordFiles, buffers: Buffers, selection: Selection, seed: int
) -> tuple[RecordFiles, Order]:
    """Does it for `buffer`, so that whole shards can be fetched one after the other."""
    files = RecordFiles(files.files, buffers.index_bytes)
    order = ShardwiseOrder(
        counts=count_selected(selection, [file.records for file in files.files]),
        seed=seed,
        run=buffers.run,
        # Of the runs at both ends of a window, a part is held for nothing.
        window=max(buffers.run, buffers.window - buffers.run),
        shards=count_mixed(files.files),
    )
    return RunFiles(files, buffers.run, 2 * buffers.window // buffers.run, by_file=True), order
