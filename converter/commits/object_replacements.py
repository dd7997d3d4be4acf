"""Puts a complete data set in the place of another in an object store: nothing can be renamed.

The new one is made below `Layout.stage`, as any data set. When it is complete, a marker says so,
the old manifest goes, and with it the data set; the new objects are copied by the store, and the
new manifest comes last. In between there is no data set, but never half of one. A kill at any point
leaves the marker, and `finish_replacement` goes on from there:

    no marker                         nothing has happened to OUT yet
    a marker, a manifest in the stage     objects are being copied, again if need be
    a marker, none in the stage           what else lies below the stage is being removed
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from converter.errors import DatasetError, OutputError
from converter.format.manifest import read_manifest
from converter.storage.files import list_sizes, remove_files, remove_tree
from converter.storage.layout import MANIFEST, WORK_FOLDER, Layout
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
    stage, old = Layout(out).stage, set(own)
    read_manifest(stage)
    for name in sorted((list_sizes(out).keys() - old) & list_sizes(stage).keys()):
        raise OutputError(
            f"{out / name} is not of the data set that is to be replaced, and the new one has an "
            "object of that name: move it away, and run the same command again"
        )
    put_bytes(_mark(out), json.dumps({"old": sorted(old)}).encode("ascii"))
    finish_replacement(out)


def finish_replacement(out: ObjectPath) -> bool:
    """Goes on with a replacement that was begun; False if none was. The lock is held.

    Raises:
        DatasetError: what is to be put in place is damaged.
        StoreError: the store does not answer, or refuses.
    """
    layout = Layout(out)
    try:
        old = json.loads(read_object(_mark(out)))["old"]
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{_mark(out)}: cannot be read: {error}") from error
    stage = Layout(layout.stage)
    if stage.manifest.is_file():
        manifest = read_object(stage.manifest)
        remove_files([layout.manifest])
        names = list_sizes(stage.out).keys() - {MANIFEST}
        copy_objects((stage.out / name, out / name) for name in names)
        remove_files(out / name for name in {*old} - names - {MANIFEST})
        create_object(layout.manifest, manifest)
        remove_files([stage.manifest])
    remove_tree(stage.out)
    remove_files([_mark(out)])
    return True


def _mark(out: ObjectPath) -> ObjectPath:
    return out / WORK_FOLDER / "replacing"
