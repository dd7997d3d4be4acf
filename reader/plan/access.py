"""An order by its name, and files that are read in the way that suits it and the storage."""

from __future__ import annotations

from reader.plan.memory import Buffers
from reader.plan.read_options import ReadOptions
from reader.records.record_files import RecordFiles, RunFiles
from reader.remote.range_reads import RangeFiles
from reader.remote.remote_shards import count_mixed, fits_cache, list_remote
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
    selection: Selection,
    *,
    singly: bool = False,
) -> tuple[RecordFiles, Order]:
    """Chooses how files are read in the order asked for, within the sizes of some buffers.

    Args:
        files: that hold the records.
        buffers: what they may take.
        options: what is asked for, settled.
        selection: the records of an epoch, sorted for `buffer`.
        singly: whether steps are read at random.
    """
    records, seed, are_remote = selection.count, options.seed or 0, bool(list_remote(files.files))
    if options.shuffle == "buffer" and buffers.window:
        order = (
            _mix_shards(files, buffers, selection, seed)
            if are_remote
            else WindowedOrder(records=records, seed=seed, run=buffers.run, window=buffers.window)
        )
        files = RecordFiles(files.files, buffers.index_bytes)
        keep = 2 * buffers.window // buffers.run
        return RunFiles(files, buffers.run, keep, by_file=are_remote), order
    is_shuffled = options.shuffle == "exact"
    is_scattered = singly or (is_shuffled and not fits_cache(files.files))
    kind = RangeFiles if is_scattered and are_remote else RecordFiles
    plain = ShuffledOrder(records=records, seed=seed) if is_shuffled else SequentialOrder()
    return kind(files.files, buffers.index_bytes), plain


def _mix_shards(files: RecordFiles, buffers: Buffers, selection: Selection, seed: int) -> Order:
    """The order for `buffer` in which whole shards can be fetched one after the other."""
    return ShardwiseOrder(
        counts=count_selected(selection, [file.records for file in files.files]),
        seed=seed,
        run=buffers.run,
        # Of the runs at both ends of a window, a part is held for nothing.
        window=max(buffers.run, buffers.window - buffers.run),
        shards=count_mixed(files.files),
    )
