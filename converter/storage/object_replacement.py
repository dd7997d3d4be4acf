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
from collections.abc import Collection
from typing import TYPE_CHECKING

from converter.errors import DatasetError, OutputError
from converter.storage.hashing import hash_file
from converter.storage.layout import MANIFEST, Layout
from converter.storage.object_requests import create_object, put_bytes

if TYPE_CHECKING:  # which is built on these
    from converter.storage.objects import ObjectPath


def replace_objects(out: ObjectPath, old: Collection[str]) -> None:
    """Replaces a data set whose lock is held; see `Location.replace_with_stage`."""
    mark = {"old": sorted(old), "manifest": hash_file(out / MANIFEST)}
    put_bytes(Layout(out).replacing, json.dumps(mark).encode("ascii"))
    finish_replacement(out)


def finish_replacement(out: ObjectPath) -> bool:
    """Resumes an interrupted replacement; see `Location.finish_replacement`."""
    marker, stage = Layout(out).replacing, Layout(out).stage
    try:
        mark = json.loads(marker.read_bytes())
        old, replaced = mark["old"], mark["manifest"]
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{marker}: cannot be read: {error}") from error
    here, new = out / MANIFEST, stage / MANIFEST
    found = hash_file(here) if here.is_file() else None
    # Another manifest than the replaced one is ours, and only the stage is left to remove; or
    # someone broke the lock, and theirs stays.
    if new.is_file() and found in (None, replaced):
        content = new.read_bytes()
        out.remove_files([MANIFEST])
        names = stage.list_sizes().keys() - {MANIFEST}
        stage.copy_files(names, out)
        out.remove_files({*old} - names - {MANIFEST})
        try:
            create_object(here, content)
        except FileExistsError:
            raise OutputError(f"{here} exists again: someone else wrote it, and it stays") from None
        stage.remove_files([MANIFEST])
    stage.remove_tree()
    marker.unlink(missing_ok=True)
    return True
