"""Finds the images of a conversion: in folders, an archive, or a source of rows.

Every file is accounted for: it becomes an entry, or a line that says why not.
"""

import dataclasses
import functools
import os
import threading
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from converter import progress
from converter.entries import SPLIT_NUMBERS, Entries
from converter.errors import UsageError
from converter.format.schema import DECODED_ROWS, MASK, MAX_COLUMNS, ORIGINAL_ROWS, Column
from converter.image_options import SUFFIXES
from converter.inventory import (
    CHOICES,
    NO_LABEL,
    Entry,
    Inventory,
    Skipped,
    leave_out,
    make_note,
    reject,
)
from converter.names import to_bytes
from converter.options import IN_FILES, ConvertOptions
from converter.sources import inputs, own_sets
from converter.sources.archives import list_archive
from converter.sources.duplicates import mark_duplicates
from converter.sources.folder_labels import Labeller, number_names, order_classes
from converter.sources.folders import list_folder
from converter.sources.image_choice import choose_images
from converter.sources.joined import join_inventories, open_members
from converter.sources.name_notes import find_unused, note_folders, note_names
from converter.sources.recognition import open_source, resolve_options
from converter.sources.row_sources import scan_rows
from converter.storage.location import Location

_SHOWN: Final = 3  # members of an archive without classes, in a message

# Of many threads that look for originals, one lists them.
_one_at_a_time: Final = threading.Lock()


class Originals(NamedTuple):
    """What a data set was converted from: IMAGES, and the options of its manifest."""

    images: Location
    options: ConvertOptions

    @classmethod
    def locate(cls, images: Location, options: ConvertOptions) -> "Originals":
        """What IMAGES are to a data set with these options.

        To one that was made from another data set: that one, or the originals of that one.
        """
        if options.source == "shardmill":
            names = inputs.list_names(images)
            if not own_sets.recognize(images, names, options):
                first = dataclasses.replace(inputs.DEFAULTS, max_file_bytes=options.max_file_bytes)
                return cls(images, resolve_options(images, first))
        return cls(images, options)

    @property
    def root(self) -> Location:
        """What the paths of its records are relative to."""
        return inputs.locate_root(self.images, self.options)

    def find(self, path: str) -> Entry:
        """The original with that path in a record; an `ImageError` if there is none."""
        if self.options.source not in IN_FILES and not self.options.members:
            return Entry(path, NO_LABEL, 0)
        with _one_at_a_time:
            entry = _index_originals(self).get(path)
        if entry is None:
            raise reject("vanished")
        return entry

    @staticmethod
    def forget() -> None:
        """Lets `find` look again: a process keeps what it found, however the files change."""
        _index_originals.cache_clear()


@functools.lru_cache(maxsize=1)
def _index_originals(originals: Originals) -> dict[str, Entry]:
    # All of them: which ones were chosen may depend on others that came since.
    options = dataclasses.replace(
        originals.options, dedupe="off", where=None, sample=None, take=None
    )
    return {entry.path: entry for entry in scan_images(originals.images, options).entries}


def scan_images(images: Location, options: ConvertOptions = inputs.DEFAULTS) -> Inventory:
    """Finds all images to convert, with their masks, and those with the same content.

    `images` is a folder, a prefix of an object store, an archive, or a table. Raises UsageError if
    there is nothing to convert, or the options do not fit.
    """
    progress.begin("scan")
    options = resolve_options(images, options)
    root = inputs.locate_root(images, options)
    inventory = note_names(choose_images(_list_images(images, options), options))
    if options.masked:
        inventory = _pair_masks(inventory, root, options)
    columns = (*inventory.columns, *list_row_columns(options))
    inventory = dataclasses.replace(inventory, columns=columns)
    if (count := len(inventory.columns)) > MAX_COLUMNS:
        raise UsageError(f"{count} columns, at most {MAX_COLUMNS}: keep fewer of the table")
    return inventory if options.dedupe == "off" else mark_duplicates(inventory, root, options)


def list_row_columns(options: ConvertOptions) -> tuple[Column, ...]:
    """The columns that say how many rows of an image are missing, if these are filled."""
    if options.truncated != "fill":
        return ()
    return tuple(Column(name, "int") for name in (ORIGINAL_ROWS, DECODED_ROWS))


def scan_folder(root: Location, options: ConvertOptions = inputs.DEFAULTS) -> Inventory:
    """Lists all images of a folder or an archive, with the labels and splits of their folders.

    Takes 21 bytes of memory for each file, and those of its path. Raises what `scan_images` raises.
    """
    return note_names(_list_folders(root, options))


def _list_images(images: Location, options: ConvertOptions) -> Inventory:
    if options.members:
        masks = inputs.locate_masks(images, options)
        alone = dataclasses.replace(options, mask_dir=None)  # which is relative to all of them
        found = []
        for place, own in open_members(images, alone):
            _check_masks(place, masks, options)
            found.append((place, own, _list_images(place, own)))
        return join_inventories(images, found)
    source = open_source(images, options)
    return scan_rows(source) if source else _list_folders(images, options)


def _check_masks(images: Location, masks: Location, options: ConvertOptions) -> None:
    if options.mask_dir is not None and images.contains(masks):
        raise UsageError(
            f"the masks {masks} lie among the images {images}, where they would be taken for "
            "images: give the folder of the images alone"
        )


def _list_folders(root: Location, options: ConvertOptions) -> Inventory:
    _check_masks(root, inputs.locate_masks(root, options), options)
    skipped: list[Skipped] = []
    found, folders = _list_files(root, skipped)
    if not folders and options.label_from == "top":
        if inputs.is_archive(root):
            members = [*(entry.path for entry in found), *(file.path for file in skipped)]
            first = ", ".join(f"{path!r:.60}" for path in members[:_SHOWN]) or "missing"
            raise UsageError(
                f"{root} has no class folders, and no samples of WebDataset: its members are "
                f"{first}; convert its images without labels, with --label-from none"
            )
        raise refuse_flat(root)
    labeller = Labeller(folders, options)
    classes, named, entries = _label_images(found, labeller, options, skipped)
    if not entries:
        raise refuse_empty(root, classes, {file.code for file in skipped})
    return Inventory(
        classes=classes,
        entries=entries,
        skipped=tuple(sorted(skipped, key=lambda file: to_bytes(file.path))),
        found_classes=tuple(named) if options.class_names else (),
        notes=note_folders(find_unused(entries, folders)),
        labelled=options.label_from != "none",
    )


def _list_files(root: Location, skipped: list[Skipped]) -> tuple[Entries, dict[str, set[str]]]:
    return (list_archive if inputs.is_archive(root) else list_folder)(root, skipped)


def _label_images(
    found: Entries, labeller: Labeller, options: ConvertOptions, skipped: list[Skipped]
) -> tuple[tuple[str, ...], list[str], Entries]:
    """Gives images their splits and labels, and leaves out those without.

    Returns the classes in label order, the names of those found, and the images that are left.
    """
    assigned = assign_folders(found, labeller)
    # Labels are numbers in the order of all classes, which are known only when all are found.
    named = sorted(labeller.list_classes() | {*assigned.list_names()}, key=to_bytes)
    classes = order_classes(named, options)
    return classes, named, label_images(found, assigned, number_names(classes, options), skipped)


class Assigned(NamedTuple):
    """What the folders of images say of each.

    Attributes:
        numbers: of their classes here, 0 for none: int32 (images,).
        splits: indices of `SPLITS`, or -1: int8 (images,).
        names: the number of each class by its name; 0 for none, whose name is empty.
        left_out: codes of images to leave out, by place.
    """

    numbers: npt.NDArray[np.int32]
    splits: npt.NDArray[np.int8]
    names: dict[str, int]
    left_out: dict[int, str]

    def list_names(self) -> list[str]:
        """The classes, in the order in which they were found."""
        return [name for name in self.names if name]


def assign_folders(found: Entries, labeller: Labeller) -> Assigned:
    """Finds out what the folders of images say of each."""
    numbers, splits, names = array("i"), array("b"), {"": 0}
    left_out: dict[int, str] = {}
    for place, path in enumerate(found.paths):
        split, name, code = labeller.assign(path)
        numbers.append(names.setdefault(name, len(names)))
        splits.append(SPLIT_NUMBERS[split])
        if code:
            left_out[place] = code
    return Assigned(
        np.frombuffer(numbers, np.int32), np.frombuffer(splits, np.int8), names, left_out
    )


def label_images(
    found: Entries, assigned: Assigned, labels: Mapping[str, int], skipped: list[Skipped]
) -> Entries:
    """Gives images their splits, and the labels of their classes; leaves out those without."""
    label_of = np.array([labels.get(name, NO_LABEL) for name in assigned.names], np.int32)
    label_of[0] = NO_LABEL
    numbers = label_of[assigned.numbers]
    unlisted = np.flatnonzero((numbers == NO_LABEL) & (assigned.numbers > 0)).tolist()
    left_out = {**assigned.left_out, **dict.fromkeys(unlisted, "skipped_no_label")}
    skipped += (leave_out(found.paths[place], code) for place, code in left_out.items())
    found.assign(numbers, assigned.splits)
    return found.leave_out(left_out)


def refuse_flat(root: Location) -> UsageError:
    """The error about images that lie in no folders of classes."""
    return UsageError(
        f"{root} has no class folders: put the images of each class in a folder of its own, "
        f"such as {root}/cats and {root}/dogs, or convert it without labels, with "
        "--label-from none"
    )


def refuse_empty(root: Location, classes: Sequence[str], codes: Collection[str]) -> UsageError:
    """The error about a folder without images to convert; `codes` say why others are left out."""
    if classes and "skipped_no_label" in codes:
        asked = f"{len(classes)} classes that are asked for"
        return UsageError(f"{root} has no image in any of the {asked}")
    what = f"{len(classes)} class folders but no image" if classes else "no image in any folder"
    suffixes = ", ".join(sorted(SUFFIXES))
    return UsageError(f"{root} has {what}: looked for names that end in {suffixes}")


def _pair_masks(inventory: Inventory, root: Location, options: ConvertOptions) -> Inventory:
    """Gives each image its mask, the file at the same path apart from its suffix, or rejects it."""
    masks = inputs.locate_masks(root, options)
    if inputs.is_compressed(masks):
        raise UsageError(
            f"{masks} holds masks and is compressed as a whole, so no mask can be read without "
            "everything before it: unpack it, or make it a .tar or a .zip"
        )
    columns = (*inventory.columns, Column(MASK, "mask"))
    if options.mask_dir is None:  # those of a mask column are found already
        return dataclasses.replace(inventory, columns=columns)
    found: dict[str, list[Entry]] = {}
    for mask in _list_files(masks, [])[0]:
        found.setdefault(_cut_suffix(mask.path), []).append(mask)
    rejected: list[Skipped] = []
    entries = Entries(_match_masks(inventory.entries, found, rejected))
    if not entries:
        raise UsageError(
            f"{masks} has no mask for any image: looked for {_cut_suffix(rejected[0].path)!r}, "
            "with the suffix of an image"
        )
    for file in inventory.skipped:
        if file.code in CHOICES:  # its mask is there for a reason
            found.pop(_cut_suffix(file.path), None)
    unused = sorted((mask.path for each in found.values() for mask in each), key=to_bytes)
    notes = (make_note("unused_mask", unused),) if unused else ()
    return dataclasses.replace(
        inventory,
        entries=entries,
        rejected=(*inventory.rejected, *rejected),
        notes=(*inventory.notes, *notes),
        columns=columns,
    )


def _match_masks(
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
            rejected.append(leave_out(entry.path, "mask_missing", several))
    for stem in used:
        del found[stem]


def _cut_suffix(path: str) -> str:
    return os.path.splitext(path)[0]
