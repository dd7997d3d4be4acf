"""Replaces a data set in an object store with a complete new one; a store cannot rename.

The new one is made below `Layout.stage`, like any data set; shards that an update keeps stay where
they are. When it is complete, a marker is written and the old manifest deleted, and with it the old
data set. The store copies the new objects, and the new manifest comes last, only if there is none.
In between there is no data set, but never half of one. After a kill at any point the marker tells
`finish_replacement` where to resume:

    no marker                             nothing has happened to OUT yet
    a marker, a manifest in the stage     objects are being copied, again if necessary
    a marker, none in the stage           the rest of the stage is being removed
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from converter.errors import DatasetError, OutputError
from converter.format.manifest import read_manifest
from converter.storage.files import hash_file, list_sizes, remove_files, remove_tree
from converter.storage.layout import MANIFEST, Layout, name_index
from converter.storage.objects import (
    ObjectPath,
    copy_objects,
    create_object,
    put_bytes,
    read_object,
)


def replace_objects(out: ObjectPath, own: Iterable[str]) -> None:
    """Replaces the data set in `out` with the complete one below the stage.

    Args:
        out: the data set to replace; its lock is held.
        own: the names of its objects. Other objects stay.

    Raises:
        DatasetError: the new one is not complete.
        OutputError: an object that does not belong to the old one is in the way; the old one stays.
        StoreError: the store does not answer, or refuses.
    """
    stage = Layout(out).stage
    here, new = list_sizes(out), list_sizes(stage)
    old = {*own} - _list_staying(stage, here, new)
    for name in sorted((here.keys() - {*own}) & new.keys()):
        raise OutputError(
            f"{out / name} does not belong to the data set to replace, and the new one has an "
            "object of that name: move it away, and run the same command again"
        )
    mark = {"old": sorted(old), "manifest": hash_file(Layout(out).manifest)}
    put_bytes(Layout(out).replacing, json.dumps(mark).encode("ascii"))
    finish_replacement(out)


def finish_replacement(out: ObjectPath) -> bool:
    """Resumes a replacement, with the lock held; gives False if there is none to resume.

    A manifest other than the one to replace is either the new one, so that only the stage is left
    to remove, or that of someone who broke the lock, which stays.

    Raises:
        DatasetError: the marker is damaged.
        OutputError: someone else has written a manifest meanwhile.
        StoreError: the store does not answer, or refuses.
    """
    layout = Layout(out)
    try:
        mark = json.loads(read_object(Layout(out).replacing))
        old, replaced = mark["old"], mark["manifest"]
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{Layout(out).replacing}: cannot be read: {error}") from error
    stage = Layout(layout.stage)
    there = hash_file(layout.manifest) if layout.manifest.is_file() else None
    if stage.manifest.is_file() and there in (None, replaced):
        manifest = read_object(stage.manifest)
        remove_files([layout.manifest])
        names = list_sizes(stage.out).keys() - {MANIFEST}
        copy_objects((stage.out / name, out / name) for name in names)
        remove_files(out / name for name in {*old} - names - {MANIFEST})
        try:
            create_object(layout.manifest, manifest)
        except FileExistsError:
            raise OutputError(
                f"{layout.manifest} exists again: someone else wrote it, and it stays"
            ) from None
        remove_files([stage.manifest])
    remove_tree(stage.out)
    remove_files([Layout(out).replacing])
    return True


def find_replacement(out: ObjectPath) -> ObjectPath | None:
    """The data set that is replacing `out`, or None."""
    stage = Layout(out).stage
    return stage if Layout(out).replacing.is_file() and Layout(stage).manifest.is_file() else None


def _list_staying(stage: ObjectPath, here: Mapping[str, int], new: Mapping[str, int]) -> set[str]:
    """The names of the objects of the old data set that the new one keeps in place."""
    stated: dict[str, int] = {}
    for shard in read_manifest(stage).shards:
        stated |= {shard.name: shard.bytes, name_index(shard.name): shard.index_bytes}
    staying = stated.keys() - new.keys()
    for name in sorted(staying):
        if here.get(name) != stated[name]:
            raise DatasetError(
                f"{name} is neither below {stage} nor beside it as it was: run the same command "
                "again"
            )
    return staying
