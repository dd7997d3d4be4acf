"""Finds the mask of each image: the file of the same path, but for its suffix."""

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
from converter.sources.archives import is_archive, list_archive
from converter.sources.folders import list_folder
from converter.sources.streams import is_compressed
from converter.storage.locate import join
from converter.storage.location import Location


def locate_masks(images: Location, options: ConvertOptions) -> Location:
    """What the paths of masks are relative to.

    Args:
        images: what those of images are relative to.
        options: say where it lies.
    """
    if options.mask_dir is None:
        return images
    return join(find_base(images), options.mask_dir)


def find_base(images: Location) -> Location:
    """The folder that `mask_dir` is relative to: that of images, or where their archive lies."""
    return images.parent if is_archive(images) else images


def pair_masks(inventory: Inventory, images: Location, options: ConvertOptions) -> Inventory:
    """Gives each image its mask; one without is rejected.

    Args:
        inventory: what was found; of a table with a column of masks, images have theirs already.
        images: the folder or the archive that its paths are relative to.
        options: what is asked for.

    Raises:
        UsageError: there are no masks, or they lie where images are looked for.
    """
    masks = locate_masks(images, options)
    if is_compressed(masks):
        raise UsageError(
            f"{masks} holds masks and is compressed as a whole, so that none of them is to be had "
            "without all before it: unpack it, or make it a .tar or a .zip"
        )
    columns = (*inventory.columns, Column(MASK, "mask"))
    if options.mask_dir is None:
        return dataclasses.replace(inventory, columns=columns)
    found: dict[str, list[Entry]] = {}
    for mask in list_masks(masks):
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


def list_masks(masks: Location) -> Iterable[Entry]:
    """The files in a folder or an archive of masks, or below a prefix of them.

    Raises:
        UsageError: it is not there, or cannot be read.
    """
    return (list_archive if is_archive(masks) else list_folder)(masks, [])[0]


def _pair(
    entries: Iterable[Entry], found: dict[str, list[Entry]], rejected: list[Skipped]
) -> Iterator[Entry]:
    """The images with their masks; what is left of `found` are masks that no image has."""
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
