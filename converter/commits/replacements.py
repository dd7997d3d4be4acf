"""Replaces a data set with a complete new one, and clears up what killed runs leave.

The new one is made beside the old one, like any data set, in `Layout.stage`. When it is complete,
the two folders exchange their names in one step, and the old one is removed: readers see all of the
old one or all of the new. A kill at any point leaves one of these states, and `settle_folder`
resumes from each:

    OUT the old one, stage unfinished or complete     nothing has happened to OUT yet
    OUT the new one with a plan, stage the old one    exchanged: the old one has to be removed
    OUT the new one with a plan                       its work folder has to be removed

Where the system cannot exchange names (NFS, macOS), the old one is first renamed to
`Layout.retired`. For a moment there is no OUT; `restore_folder` restores it after a kill. In a
store nothing can be renamed: see `ObjectPath.replace_with_stage`.

Other leftovers only take up space, until `clean` removes them: temporary files have unique names,
and the next conversion takes over the lock of a process that is gone.
"""

import contextlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from converter.commits.commit import remove_work
from converter.errors import DatasetError, LockedError, OutputError, UsageError
from converter.format.manifest import Manifest, read_manifest
from converter.format.metadata import METADATA
from converter.planning.plan import read_plan
from converter.storage.files import (
    COMPANIONS,
    MANIFEST,
    NOTES,
    REJECTS,
    REPORT,
    WORK_FOLDER,
    Layout,
    hash_file,
    is_shard_file,
    name_index,
)
from converter.storage.locate import locate_output
from converter.storage.location import AnyPath, Location
from converter.storage.locks import check_broken, is_deserted

_TEMPORARY: Final = re.compile(r".+\.[0-9a-f]{32}")


def replace_dataset(out: Location) -> None:
    """Replaces the data set in `out` with the complete one beside it, and removes the old one.

    Files in `out` that do not belong to the old data set move into the new one. Raises OutputError,
    and both data sets stay, if such a file is in the way, or if `out` is not what an update started
    from, or in use as a mount point.
    """
    own, stage = list_own_files(out), Layout(out).stage
    # An update keeps shards of its base: if that has changed meanwhile, they do not fit together.
    base = read_plan(stage).base
    if base and hash_file(out / MANIFEST) != base.digest:
        raise OutputError(
            f"{out} was written by someone else while it was updated: run the same command again"
        )
    new = set(stage.list_names())
    for name in list_strangers(out, own):
        if name in new:
            raise OutputError(
                f"{out / name} does not belong to the data set to replace, and the new one has "
                "a file of that name: move it away, and run the same command again"
            )
    out.replace_with_stage(own - (_list_staying(out, stage) if out.is_remote else set()))
    settle_folder(out)


def lock_stage(out: Location) -> contextlib.AbstractContextManager[None]:
    """Locks the new data set beside one whose lock is held; see `Location.lock`."""
    # Only the holder of that lock may work on it, so any other owner is gone.
    return Layout(out).stage.lock(break_lock=True, moves_to=out)


def restore_folder(out: Location, *, break_lock: bool) -> None:
    """Gives `out` its name back after a kill between two renames; LockedError if that goes on."""
    retired = Layout(out).retired
    if out.is_remote or out.exists() or not retired.exists():
        return
    owner = retired.find_owner()
    if owner is not None:
        check_broken(out, owner, break_lock=break_lock)
    with contextlib.suppress(FileNotFoundError):  # another run has just restored it
        Path(str(retired)).rename(str(out))


def find_dataset(out: Location) -> Location | None:
    """Finds the folder of a finished data set: not `out` if a kill interrupted the move there."""
    if Layout(out).manifest.is_file():
        return out
    beside = out.find_replacement()
    return beside if beside and Layout(beside).manifest.is_file() else None


def find_manifest(out: Location) -> Manifest | None:
    """Reads the manifest of the data set that `find_dataset` finds, as `read_manifest` does."""
    folder = find_dataset(out)
    return read_manifest(folder) if folder else None


def settle_folder(out: Location) -> bool:
    """Completes an exchange, a commit or a repair after a kill; its lock has to be held.

    Tells whether there was an exchange or a commit. Raises DatasetError for a damaged manifest.
    """
    layout = Layout(out)
    if out.finish_replacement():
        return True
    if not layout.manifest.is_file():
        return False
    if not out.is_remote:
        for old in (layout.stage, layout.retired):
            if old.exists() and not is_staged(old):
                _remove_old(old, out)
    layout.repair.remove_folder()
    layout.work.remove_files(layout.work.list_names(f"{REPORT}."))  # half a report
    if not layout.plan.is_file():
        return False
    read_manifest(out)  # raises if it is damaged, while the plan is still there
    remove_work(out)
    return True


def is_staged(stage: Location) -> bool:
    """Tells whether a folder beside the output is the new data set, finished or not."""
    return Layout(stage).plan.is_file()


def discard_dataset(folder: Location, *, keep: Collection[str] = ()) -> None:
    """Removes a data set, finished or not, but no other file; the lock stays.

    So does what is named in `keep` of its work folder.
    """
    # The manifest goes last, because it lists the other files.
    folder.remove_files(list_own_files(folder) - {MANIFEST})
    folder.remove_files([MANIFEST])
    if Layout(folder).work.exists():
        remove_work(folder, keep=keep)


def list_own_files(folder: Location) -> set[str]:
    """Lists a data set's own files, by its manifest or plan, or if damaged by their names."""
    names = {MANIFEST, REJECTS, NOTES, *METADATA, *COMPANIONS}
    try:
        stated = read_manifest(folder) if Layout(folder).manifest.is_file() else read_plan(folder)
    except DatasetError:
        names.update(filter(is_shard_file, folder.list_names()))
        return names
    if isinstance(stated, Manifest):
        names.update(stated.files)
    for shard in stated.shards:
        names.update((shard.name, name_index(shard.name)))
    return names


def list_strangers(folder: Location, own: Collection[str]) -> list[str]:
    """Lists the names in a data set's folder that do not belong to it; of folders, none does."""
    names, files = folder.list_names(), folder.list_sizes()
    folders = {name for name in names if name not in files and (folder / name).is_dir()}
    own = {*own} - folders
    return [name for name in names if name not in own and name != WORK_FOLDER]


def _list_staying(out: Location, stage: Location) -> set[str]:
    """Lists the names of the files that the new data set keeps in place in a store."""
    stated: dict[str, int] = {}
    for shard in read_manifest(stage).shards:
        stated |= shard.file_sizes
    here, staying = out.list_sizes(), stated.keys() - stage.list_sizes().keys()
    for name in sorted(staying):
        if here.get(name) != stated[name]:
            raise DatasetError(
                f"{name} is not in {stage}, and not in {out} with its old size: run the same "
                "command again"
            )
    return staying


def _remove_old(old: Location, out: Location) -> None:
    """Removes a replaced data set; other files in its folder move back to `out`."""
    strangers, there = list_strangers(old, list_own_files(old)), set(out.list_names())
    for name in strangers:
        if name in there:
            raise OutputError(
                f"{old / name} was in {out}, where another file has that name now: move it away"
            )
    old.move_files(strangers, out)
    discard_dataset(old)
    Layout(old).work.remove_folder()
    old.remove_empty()


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
    # One listing: asking a store for each file of 100,000 shards would take hours.
    there = {out / name for name in out.list_names()}

    def remains(path: Location) -> bool:
        return path in there if path.parent == out else path.exists()

    return [left for left in found if not remains(left.path)]


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
    left = (layout.plan, layout.receipts, layout.costs, layout.planning)
    if any(path.exists() for path in left):
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
    if layout.replacing.is_file():  # the next run completes it
        return
    if not layout.manifest.is_file():
        for name in sorted(list_own_files(layout.out) & {*layout.out.list_names()}):
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
