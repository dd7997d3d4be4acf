"""Finds what killed runs leave behind, by name and place, and removes it on demand.

Leftovers only take up space: temporary files have unique names, and the next conversion takes over
the lock of a process that is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from converter.commits.commit import remove_work
from converter.commits.replacements import (
    discard_dataset,
    is_staged,
    list_own_files,
    lock_stage,
    restore_folder,
    settle_folder,
)
from converter.errors import LockedError, UsageError
from converter.storage.files import Layout
from converter.storage.locate import locate_output
from converter.storage.location import AnyPath, Location
from converter.storage.locks import is_deserted

_TEMPORARY: Final = re.compile(r".+\.[0-9a-f]{32}")


class Leftover(NamedTuple):
    """The path of a file or folder that is no longer needed, and what it is."""

    path: Location
    what: str


def clean(
    out: AnyPath, *, unfinished: bool = False, dry_run: bool = False, break_lock: bool = False
) -> list[Leftover]:
    """Removes what killed runs left in a data set's folder and beside it.

    Args:
        out: the data set's folder.
        unfinished: also give up an unfinished conversion or replacement of the data set, with its
            finished shards. Otherwise you can resume it.
        dry_run: remove nothing.
        break_lock: treat a lock held by another machine as stale.

    Returns:
        what was removed, or would be.

    Raises:
        UsageError: `out` is neither a data set nor a conversion.
        LockedError: someone is writing to it, or may be.
        OSError: something cannot be removed.
    """
    out = locate_output(out)
    layout = Layout(out)
    if not any(path.exists() for path in (layout.manifest, layout.work, layout.retired)):
        raise UsageError(f"{out} is neither a data set nor an unfinished conversion")
    owner = out.find_owner()
    if owner is not None and not break_lock:
        raise LockedError(
            f"{out} is being written by process {owner.pid} on {owner.host}, since {owner.since}: "
            "clean it when that has ended"
        )
    if dry_run:
        return [*_list_leftovers(layout), *(_list_unfinished(layout) if unfinished else ())]
    restore_folder(out, break_lock=break_lock)
    found = [*_list_leftovers(layout)]
    with out.lock(break_lock=break_lock):
        # A replacement that only has to be completed is not given up.
        settle_folder(out)
        found += _list_unfinished(layout) if unfinished else ()
        _remove_leftovers(layout, unfinished=unfinished)
    return [left for left in found if not left.path.exists()]


def _list_temporaries(layout: Layout[Location]) -> list[Location]:
    stage = Layout(layout.stage)
    return [
        folder / name
        for folder in (layout.work, layout.scratch, stage.work, stage.scratch)
        for name in folder.list_names()
        if _TEMPORARY.fullmatch(name)
    ]


def _list_leftovers(layout: Layout[Location]) -> Iterator[Leftover]:
    if layout.lock.exists():
        yield Leftover(layout.lock, "the lock of a process that is gone")
    for path in _list_temporaries(layout):
        yield Leftover(path, "a file that was being written")
    for reports in _list_reports(layout):
        yield Leftover(reports, "the reports of a check that was not finished")
    if not layout.manifest.is_file():
        return
    # Even without a plan: a worker left behind may have written after the end.
    if any(path.exists() for path in (layout.plan, layout.receipts, layout.costs)):
        yield Leftover(layout.work, "the plan and the receipts of a finished conversion")
    if layout.repair.exists():
        yield Leftover(layout.repair, "a repair that was not finished")
    for old in (layout.stage, layout.retired):
        if old.exists() and not is_staged(old):
            replaced = Layout(old).manifest.is_file()
            what = "a data set that was replaced" if replaced else "the beginning of a replacement"
            yield Leftover(old, what)


def _list_reports(layout: Layout[Location]) -> list[Location]:
    beside = layout.out.parent
    found = [beside / name for name in beside.list_names(layout.reports)]
    return [reports for reports in found if is_deserted(reports)]


def _list_unfinished(layout: Layout[Location]) -> Iterator[Leftover]:
    """What could still be resumed."""
    if layout.replacing.is_file():  # the next run completes it
        return
    if not layout.manifest.is_file():
        for name in sorted(list_own_files(layout.out)):
            if (layout.out / name).exists():
                yield Leftover(layout.out / name, "of an unfinished conversion")
        yield Leftover(layout.work, "the plan and the receipts of an unfinished conversion")
    if is_staged(layout.stage):
        yield Leftover(layout.stage, "a replacement that was not finished")


def _remove_leftovers(layout: Layout[Location], *, unfinished: bool) -> None:
    """Removes the leftovers that `settle_folder` has not removed."""
    stage = layout.stage
    if layout.manifest.is_file():
        remove_work(layout.out)
    elif unfinished:
        discard_dataset(layout.out)
    if unfinished and is_staged(stage):
        with lock_stage(layout.out):
            discard_dataset(stage)
        stage.remove_empty()  # unless it holds files of someone else
    if stage.is_remote and layout.manifest.is_file() and not is_staged(stage):
        stage.remove_folder()
    for reports in _list_reports(layout):
        reports.remove_folder()
    for path in _list_temporaries(layout):
        path.unlink(missing_ok=True)
