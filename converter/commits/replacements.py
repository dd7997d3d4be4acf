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
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from converter.commits.commit import remove_work
from converter.errors import DatasetError, OutputError
from converter.format.manifest import Manifest, ShardInfo, read_manifest
from converter.format.metadata import METADATA
from converter.planning.plan import Shard, read_plan
from converter.storage.files import remove_files
from converter.storage.hashing import hash_file
from converter.storage.layout import (
    MANIFEST,
    NOTES,
    REJECTS,
    WORK_FOLDER,
    Layout,
    is_shard_file,
    name_index,
)
from converter.storage.location import Location
from converter.storage.owners import check_broken


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
    own, stage = list_own_files(out), Layout(out).stage
    _check_strangers(out, own, stage)
    out.replace_with_stage(own - (_list_staying(out, stage) if out.is_remote else set()))
    settle_folder(out)


def restore_folder(out: Location, *, break_lock: bool) -> None:
    """Gives a data set its name back that a kill caught between two renames.

    Args:
        out: where it belongs.
        break_lock: take the lock of a process on another machine for stale.

    Raises:
        LockedError: whoever is between the two may still run.
    """
    retired = Layout(out).retired
    if out.is_remote or out.exists() or not retired.exists():
        return
    owner = retired.find_owner()
    if owner is not None:
        check_broken(out, owner, break_lock=break_lock, other="folder")
    with contextlib.suppress(FileNotFoundError):
        Path(str(retired)).rename(str(out))


def find_manifest(out: Location) -> Manifest | None:
    """The manifest of a data set, also of one that a kill left on its way to its place.

    Raises:
        DatasetError: it is damaged.
    """
    for place in (out, out.find_replacement()):
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
    if out.finish_replacement():
        return True
    if not layout.manifest.is_file():
        return False
    if not out.is_remote:
        _settle_beside(out)
    remove_repair(out)
    if not layout.plan.is_file():
        return False
    read_manifest(out)
    remove_work(out)
    return True


def _settle_beside(out: Location) -> None:
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
    Layout(folder).repair.remove_folder()


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
            name for name in folder.list_names() if name in fixed or is_shard_file(name)
        )


def list_strangers(folder: Location, own: Collection[str]) -> list[str]:
    """The names in a data set's folder that are not of it."""
    return [name for name in folder.list_names() if name not in own and name != WORK_FOLDER]


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


def _check_strangers(out: Location, own: Collection[str], stage: Location) -> None:
    new = set(stage.list_names())
    for name in list_strangers(out, own):
        if name in new:
            raise OutputError(
                f"{out / name} is not of the data set that is to be replaced, and the new one has "
                "a file of that name: move it away, and run the same command again"
            )


def _list_staying(out: Location, stage: Location) -> set[str]:
    """The names of the files that the new data set takes over from where they lie in a store.

    Raises:
        DatasetError: one of them is not there in its size.
    """
    stated: dict[str, int] = {}
    for shard in read_manifest(stage).shards:
        stated |= {shard.name: shard.bytes, name_index(shard.name): shard.index_bytes}
    here, staying = out.list_sizes(), stated.keys() - stage.list_sizes().keys()
    for name in sorted(staying):
        if here.get(name) != stated[name]:
            raise DatasetError(
                f"{name} is neither below {stage} nor beside it as it was: run the same command "
                "again"
            )
    return staying


def _remove_old(old: Location, out: Location) -> None:
    """Removes what was replaced; what is not of it moves over to where it lay before."""
    strangers, there = list_strangers(old, list_own_files(old)), set(out.list_names())
    for name in strangers:
        if name in there:
            raise OutputError(
                f"{old / name} lay in {out}, where there is another of that name by now: move it "
                "away"
            )
    old.move_files(strangers, out)
    discard_dataset(old)
    Layout(old).work.remove_folder()
    old.remove_empty()
