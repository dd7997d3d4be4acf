"""Replaces a data set with a complete new one: readers see all of the old one or all of the new.

The new one is made beside the old one, like any data set, in `Layout.stage`. When it is complete,
the two folders exchange their names in one step, and the old one is removed. A kill at any point
leaves one of these states, and `settle_folder` resumes from each:

    OUT the old one, stage unfinished or complete     nothing has happened to OUT yet
    OUT the new one with a plan, stage the old one    exchanged: the old one has to be removed
    OUT the new one with a plan                       its work folder has to be removed

Where the system cannot exchange names (NFS, macOS), the old one is first renamed to
`Layout.retired`. For a moment there is no OUT; `restore_folder` restores it after a kill.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from converter.commits.commit import remove_work
from converter.commits.object_replacements import (
    find_replacement,
    finish_replacement,
    replace_objects,
)
from converter.errors import DatasetError, OutputError, UsageError
from converter.format.manifest import Manifest, ShardInfo, read_manifest
from converter.format.metadata import METADATA
from converter.planning.plan import Shard, read_plan
from converter.storage.files import hash_file, list_names, remove_files, remove_folder, sync_folder
from converter.storage.layout import (
    MANIFEST,
    NOTES,
    REJECTS,
    WORK_FOLDER,
    Layout,
    Location,
    is_shard_file,
    name_index,
)
from converter.storage.locks import find_owner
from converter.storage.objects import ObjectPath
from converter.storage.owners import check_broken

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_NO_EXCHANGE: Final = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def check_replaceable(out: Location) -> None:
    """Refuses a folder that cannot be replaced.

    Raises:
        UsageError: it is a mount point, or contains one.
    """
    if not isinstance(out, Path):
        return
    if os.path.ismount(out):
        raise UsageError(
            f"{out} is a mount point, which cannot give way to a new folder: convert to a folder "
            "inside it"
        )
    if mounted := next(filter(os.path.ismount, out.iterdir()), None):
        raise UsageError(
            f"{mounted} is a mount point, and cannot move to a new folder with the other files in "
            "there: unmount it first"
        )


def replace_dataset(out: Location) -> None:
    """Replaces the data set in `out` with the complete one beside it, and removes the old one.

    Files in `out` that do not belong to the old data set move into the new one.

    Raises:
        OutputError: a file that does not belong to the old data set is in the way, `out` is not
            what an update started from, or it is in use as a mount point. The old data set stays,
            and so does the new one beside it.
        OSError: a folder cannot be renamed, or a file of the old one cannot be removed.
        StoreError: the store does not answer, or refuses.
    """
    _check_base(out)
    if isinstance(out, ObjectPath):
        replace_objects(out, list_own_files(out))
        return
    layout = Layout(out)
    _check_strangers(out, layout.stage)
    layout.stage.chmod(stat.S_IMODE(out.stat().st_mode))
    try:
        if not _exchange(layout.stage, out):
            out.rename(layout.retired)
            layout.stage.rename(out)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise OutputError(
            f"{out} is in use as a mount point and cannot be replaced: the new data set lies "
            f"complete in {layout.stage}"
        ) from error
    sync_folder(out.parent)
    settle_folder(out)


def restore_folder(out: Location, *, break_lock: bool) -> None:
    """Gives a data set its name back after a kill between two renames.

    Args:
        out: the name of the data set.
        break_lock: treat a lock held by another machine as stale.

    Raises:
        LockedError: the process between the two renames may still be running.
    """
    if isinstance(out, ObjectPath):
        return
    retired = Layout(out).retired
    if retired.exists() and not out.exists():
        owner = find_owner(retired)
        if owner is not None:
            check_broken(out, owner, break_lock=break_lock, other="folder")
        with contextlib.suppress(FileNotFoundError):
            retired.rename(out)


def find_manifest(out: Location) -> Manifest | None:
    """Reads the manifest of a data set, even if a kill interrupted its replacement.

    Returns:
        the manifest, or None if there is no data set.

    Raises:
        DatasetError: the manifest is damaged.
    """
    caught = find_replacement(out) if isinstance(out, ObjectPath) else Layout(out).retired
    for place in (out, caught):
        if place and Layout(place).manifest.is_file():
            return read_manifest(place)
    return None


def settle_folder(out: Location) -> bool:
    """Completes what a kill after an exchange, a commit or a repair left open; needs the lock.

    Returns:
        whether there was an exchange or a commit to complete.

    Raises:
        DatasetError: the manifest is damaged.
        OSError: something cannot be removed.
    """
    layout = Layout(out)
    if isinstance(out, ObjectPath) and finish_replacement(out):
        return True
    if not layout.manifest.is_file():
        return False
    if isinstance(out, Path):
        _settle_beside(out)
    remove_repair(out)
    if not layout.plan.is_file():
        return False
    read_manifest(out)
    remove_work(out)
    return True


def _settle_beside(out: Path) -> None:
    layout = Layout(out)
    for old in (layout.stage, layout.retired):
        if old.exists() and not is_staged(old):
            _remove_old(old, out)


def remove_repair(folder: Location) -> None:
    """Removes the files that a repair has written beside those of the data set.

    Raises:
        OSError: something cannot be removed.
        StoreError: the store does not answer, or refuses.
    """
    remove_folder(Layout(folder).repair)


def is_staged(stage: Location) -> bool:
    """Whether a folder beside the output is the new data set, finished or not, not the old one."""
    return Layout(stage).plan.is_file()


def discard_dataset(folder: Location) -> None:
    """Removes a data set, finished or not, but no other file; the lock stays.

    Raises:
        OSError: something cannot be removed.
    """
    # The manifest goes last, because it lists the other files.
    remove_files(folder / name for name in list_own_files(folder) - {MANIFEST})
    remove_files([folder / MANIFEST])
    if Layout(folder).work.exists():
        remove_work(folder)


def list_own_files(folder: Location) -> frozenset[str]:
    """The names of the files of a data set, finished or not.

    They come from its manifest or plan; if those are damaged, from the form of the names.
    """
    fixed = {MANIFEST, REJECTS, NOTES, *METADATA}
    try:
        return frozenset({*fixed, *_list_stated(folder)})
    except DatasetError:
        return frozenset(
            name for name in list_names(folder) if name in fixed or is_shard_file(name)
        )


def list_strangers(folder: Path) -> list[Path]:
    """Lists files in a data set's folder that do not belong to it."""
    own = {WORK_FOLDER, *list_own_files(folder)}
    strangers = (path for path in folder.iterdir() if path.name not in own)
    return sorted(strangers, key=os.fsencode)


def _list_stated(folder: Location) -> Iterator[str]:
    shards: Sequence[ShardInfo | Shard]
    if Layout(folder).manifest.is_file():
        manifest = read_manifest(folder)
        yield from manifest.files
        shards = manifest.shards
    else:
        shards = read_plan(folder).shards
    for shard in shards:
        yield from (shard.name, name_index(shard.name))


def _check_base(out: Location) -> None:
    base = read_plan(Layout(out).stage).base
    if base and hash_file(Layout(out).manifest) != base.digest:
        raise OutputError(
            f"{out} was written by someone else while it was updated: run the same command again"
        )


def _check_strangers(out: Path, stage: Path) -> None:
    for path in list_strangers(out):
        if os.path.lexists(stage / path.name):
            raise OutputError(
                f"{path} does not belong to the data set to replace, and the new one has a file "
                "of that name: move it away, and run the same command again"
            )


def _remove_old(old: Path, out: Path) -> None:
    """Removes a replaced data set; other files in its folder move back to `out`."""
    for path in list_strangers(old):
        if os.path.lexists(out / path.name):
            raise OutputError(
                f"{path} lay in {out}, where another file has that name now: move it away"
            )
        path.rename(out / path.name)
    sync_folder(out)
    discard_dataset(old)
    shutil.rmtree(Layout(old).work, ignore_errors=True)
    old.rmdir()


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges the names of two folders in one step; False if the system cannot do that."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    names = os.fsencode(one), os.fsencode(other)
    if not library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))
