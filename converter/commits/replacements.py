"""Puts a complete data set in the place of another: whoever looks sees the old one or the new one.

The new one is made beside the old one, as any data set, in `Layout.stage`. When it is complete the
two folders exchange their names in one step, and what was replaced is removed. A kill at any point
leaves one of these, and `settle_folder` goes on from each of them:

    OUT the old one, stage unfinished or complete     nothing has happened to OUT yet
    OUT the new one with a plan, stage the old one    exchanged: the old one is to be removed
    OUT the new one with a plan                       its work folder is to be removed

Where the system cannot exchange names (NFS, macOS), the old one steps aside first, to
`Layout.retired`. There is then a moment without OUT; `restore_folder` ends it after a kill.
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
    """Refuses a folder that cannot give way to another.

    Raises:
        UsageError: it is a mount point, or has one in it.
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
            f"{mounted} is a mount point, and cannot move to a new folder with what is not of the "
            "data set: unmount it first"
        )


def replace_dataset(out: Location) -> None:
    """Puts the complete data set that lies beside `out` in its place, and removes the old one.

    Files in `out` that are not of the old data set move into the new one.

    Raises:
        OutputError: a file that is not of the old data set is in the way, `out` is not what an
            update began with, or it is in use as a mount point; the old one stays, and so does the
            new one beside it.
        OSError: a folder cannot be renamed, or something of the old one cannot be removed.
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
    """Gives a data set its name back that a kill caught between two renames.

    Args:
        out: where it belongs.
        break_lock: take the lock of a process on another machine for stale.

    Raises:
        LockedError: whoever is between the two may still run.
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
    """The manifest of a data set, also of one that a kill left on its way to its place.

    Raises:
        DatasetError: it is damaged.
    """
    caught = find_replacement(out) if isinstance(out, ObjectPath) else Layout(out).retired
    for place in (out, caught):
        if place and Layout(place).manifest.is_file():
            return read_manifest(place)
    return None


def settle_folder(out: Location) -> bool:
    """Ends what a kill after the exchange, a commit or a repair has left open; needs the lock.

    Returns:
        whether there was an exchange or a commit to end.

    Raises:
        DatasetError: the manifest is damaged, so that it cannot be told.
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
    """Removes what was written to repair a data set.

    Raises:
        OSError: something cannot be removed.
        StoreError: the store does not answer, or refuses.
    """
    remove_folder(Layout(folder).repair)


def is_staged(stage: Location) -> bool:
    """Whether a folder beside the output is the new data set, finished or not, and not the old."""
    return Layout(stage).plan.is_file()


def discard_dataset(folder: Location) -> None:
    """Removes a data set, finished or not, but no file that is not of it; the lock stays.

    Raises:
        OSError: something cannot be removed.
    """
    # The manifest says what else belongs to it, so it goes last.
    remove_files(folder / name for name in list_own_files(folder) - {MANIFEST})
    remove_files([folder / MANIFEST])
    if Layout(folder).work.exists():
        remove_work(folder)


def list_own_files(folder: Location) -> frozenset[str]:
    """The names of the files of a data set, finished or not: as it states them, or as they look."""
    fixed = {MANIFEST, REJECTS, NOTES, *METADATA}
    try:
        return frozenset({*fixed, *_list_stated(folder)})
    except DatasetError:
        return frozenset(
            name for name in list_names(folder) if name in fixed or is_shard_file(name)
        )


def list_strangers(folder: Path) -> list[Path]:
    """What lies in a data set's folder and is not of it."""
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
            f"{out} was written by somebody else while it was updated: run the same command again"
        )


def _check_strangers(out: Path, stage: Path) -> None:
    for path in list_strangers(out):
        if os.path.lexists(stage / path.name):
            raise OutputError(
                f"{path} is not of the data set that is to be replaced, and the new one has a file "
                "of that name: move it away, and run the same command again"
            )


def _remove_old(old: Path, out: Path) -> None:
    """Removes what was replaced; what is not of it moves over to where it lay before."""
    for path in list_strangers(old):
        if os.path.lexists(out / path.name):
            raise OutputError(
                f"{path} lay in {out}, where there is another of that name by now: move it away"
            )
        path.rename(out / path.name)
    sync_folder(out)
    discard_dataset(old)
    shutil.rmtree(Layout(old).work, ignore_errors=True)
    old.rmdir()


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges the names of two folders in one step; False where the system has no such step."""
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
