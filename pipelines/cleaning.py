"""Removes what killed runs left behind, as a plain function."""

from __future__ import annotations

from converter.commits.leftovers import Leftover, clean_folder
from converter.storage.layout import AnyPath, locate_output


def clean(
    out: AnyPath,
    *,
    unfinished: bool = False,
    dry_run: bool = False,
    break_lock: bool = False,
) -> list[Leftover]:
    """Removes temporary files, stale locks and replaced data sets; see `clean_folder`.

    Args:
        out: the data set's folder.
        unfinished: also give up an unfinished conversion or replacement, finished shards and all.
        dry_run: remove nothing.
        break_lock: take the lock of a process on another machine for stale.

    Returns:
        what was removed, or would be.

    Raises:
        UsageError: `out` is no folder of ours.
        LockedError: somebody is writing to it, or may be.
    """
    return clean_folder(
        locate_output(out), unfinished=unfinished, dry_run=dry_run, break_lock=break_lock
    )
