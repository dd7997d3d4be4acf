"""Puts a complete data set in the place of another in an object store: nothing can be renamed.

The new one is made below `Layout.stage`, as any data set; what an update takes over as it is stays
where it lies. When the new one is complete, a marker says so, the old manifest goes, and with it
the data set; the new objects are copied by the store, and the new manifest comes last, if there is
none. In between there is no data set, but never half of one. A kill at any point leaves the marker,
and `finish_replacement` goes on from there:

    no marker                         nothing has happened to OUT yet
    a marker, a manifest in the stage     objects are being copied, again if need be
    a marker, none in the stage           what else lies below the stage is being removed
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
    """Puts the complete data set below the stage in the place of the one in `out`.

    Args:
        out: the data set that is replaced; its lock is held.
        own: the names of its objects. Others stay.

    Raises:
        DatasetError: the new one is not complete.
        OutputError: an object that is not of the old one is in the way; the old one stays.
        StoreError: the store does not answer, or refuses.
    """
    stage = Layout(out).stage
    here, new = list_sizes(out), list_sizes(stage)
    old = {*own} - _list_staying(stage, here, new)
    for name in sorted((here.keys() - {*own}) & new.keys()):
        raise OutputError(
            f"{out / name} is not of the data set that is to be replaced, and the new one has an "
            "object of that name: move it away, and run the same command again"
        )
    mark = {"old": sorted(old), "manifest": hash_file(Layout(out).manifest)}
    put_bytes(Layout(out).replacing, json.dumps(mark).encode("ascii"))
    finish_replacement(out)


def finish_replacement(out: ObjectPath) -> bool:
    """Goes on with a replacement that was begun; False if none was. The lock is held.

    If there is another manifest than the one that was to be replaced, it is ours, and no more than
    that is left to be done, or somebody broke the lock: then theirs stays.

    Raises:
        DatasetError: what is to be put in place is damaged.
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
                f"{layout.manifest} is there again: somebody else wrote it, and it stays"
            ) from None
        remove_files([stage.manifest])
    remove_tree(stage.out)
    remove_files([Layout(out).replacing])
    return True


def find_replacement(out: ObjectPath) -> ObjectPath | None:
    """What is being put in the place of `out`; None if nothing is."""
    stage = Layout(out).stage
    return stage if Layout(out).replacing.is_file() and Layout(stage).manifest.is_file() else None


def _list_staying(stage: ObjectPath, here: Mapping[str, int], new: Mapping[str, int]) -> set[str]:
    """The names of the objects that the new data set takes over from where they lie.

    Raises:
        DatasetError: one of them is not there in its size.
    """
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
