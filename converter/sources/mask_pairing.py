"""Finds the mask of each image: the file at the same path, apart from its suffix."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator

from converter.errors import UsageError
from converter.format.schema import MASK, Column
from converter.inventory import Entry, Inventory, Skipped, make_note
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.reasons import REJECT_CODES
from converter.sources.archives import list_archive
from converter.sources.folders import list_folder
from converter.sources.inputs import is_archive, is_compressed, locate_masks
from converter.storage.location import Location


def pair_masks(inventory: Inventory, root: Location, options: ConvertOptions) -> Inventory:
    """Gives each image its mask; one without is rejected.

    Args:
        inventory: of the images; with a mask column, they have their masks already.
        root: the folder or archive that its paths are relative to.
        options: those of the conversion.

    Raises:
        UsageError: the masks cannot be read, or no image has one.
        StoreError: the store does not answer, or refuses.
    """
    masks = locate_masks(root, options)
    if is_compressed(masks):
        raise UsageError(
            f"{masks} holds masks and is compressed as a whole, so no mask can be read without "
            "everything before it: unpack it, or make it a .tar or a .zip"
        )
    columns = (*inventory.columns, Column(MASK, "mask"))
    if options.mask_dir is None:
        return dataclasses.replace(inventory, columns=columns)
    found: dict[str, list[Entry]] = {}
    for mask in (list_archive if is_archive(masks) else list_folder)(masks, [])[0]:
        found.setdefault(_cut_suffix(mask.path), []).append(mask)
    rejected: list[Skipped] = []
    entries = tuple(_pair(inventory.entries, found, rejected))
    if not entries:
        raise UsageError(
            f"{masks} has no mask for any image: looked for {_cut_suffix(rejected[0].path)!r}, "
            "with the suffix of an image"
        )
    unused = sorted((mask.path for each in found.values() for mask in each), key=to_bytes)
    notes = (make_note("unused_mask", unused),) if unused else ()
    return dataclasses.replace(
        inventory,
        entries=entries,
        rejected=(*inventory.rejected, *rejected),
        notes=(*inventory.notes, *notes),
        columns=columns,
    )


def _pair(
    entries: Iterable[Entry], found: dict[str, list[Entry]], rejected: list[Skipped]
) -> Iterator[Entry]:
    """The images with their masks; in the end `found` holds the masks that no image has."""
    used: set[str] = set()
    for entry in entries:
        stem = _cut_suffix(entry.path)
        masks = found.get(stem, [])
        same = [mask for mask in masks if mask.path == entry.path]
        if len(masks) == 1 or same:
            used.add(stem)
            yield entry._replace(mask=(same or masks)[0])
        else:
            several = ", ".join(mask.path for mask in masks)
            detail = several or REJECT_CODES["mask_missing"]
            rejected.append(Skipped(entry.path, "mask_missing", detail))
    for stem in used:
        del found[stem]


def _cut_suffix(path: str) -> str:
    return os.path.splitext(path)[0]
