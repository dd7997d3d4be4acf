"""Finds the images of a conversion: in a folder, an archive or a table.

Every file is accounted for: it becomes an entry, or a line that says why not.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from converter.errors import UsageError
from converter.format.schema import MASK, Column
from converter.image_options import SUFFIXES
from converter.inventory import (
    NO_LABEL,
    REJECT_CODES,
    Entry,
    Inventory,
    Note,
    Skipped,
    make_note,
    skip,
)
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.sources.archives import list_archive
from converter.sources.duplicates import drop_duplicates, find_duplicates, note_duplicates
from converter.sources.folders import Labeller, list_folder, order_classes
from converter.sources.inputs import (
    check_input_options,
    is_archive,
    is_compressed,
    is_table,
    locate_masks,
    locate_root,
)
from converter.sources.originals import digest_source, make_lookup
from converter.sources.tables import scan_table
from converter.storage.location import Location


def scan_images(images: Location, options: ConvertOptions | None = None) -> Inventory:
    """Finds all images to convert, with their masks, and those with the same content.

    Args:
        images: a folder, a prefix of an object store, an archive, or a table.
        options: those of the conversion.

    Raises:
        UsageError: there is nothing to convert, or the options do not fit.
        StoreError: the store does not answer, or refuses.
    """
    options = options or ConvertOptions()
    check_input_options(images, options)
    root = locate_root(images, options)
    if is_table(images):
        inventory = scan_table(images, options, make_lookup(root))
        notes = _note_names(inventory.entries, inventory.classes)
        inventory = dataclasses.replace(inventory, notes=notes)
    elif is_archive(images):
        skipped: list[Skipped] = []
        entries, folders = list_archive(images, skipped)
        inventory = _label_images(images, entries, folders, skipped, options)
    else:
        inventory = scan_folder(images, options)
    if options.masked:
        inventory = _pair_masks(inventory, root, options)
    return inventory if options.dedupe == "off" else _dedupe(inventory, root, options)


def _pair_masks(inventory: Inventory, root: Location, options: ConvertOptions) -> Inventory:
    """Gives each image its mask, the file at the same path apart from its suffix, or rejects it."""
    masks = locate_masks(root, options)
    if is_compressed(masks):
        raise UsageError(
            f"{masks} holds masks and is compressed as a whole, so no mask can be read without "
            "everything before it: unpack it, or make it a .tar or a .zip"
        )
    columns = (*inventory.columns, Column(MASK, "mask"))
    if options.mask_dir is None:  # those of a mask column are found already
        return dataclasses.replace(inventory, columns=columns)
    found: dict[str, list[Entry]] = {}
    for mask in (list_archive if is_archive(masks) else list_folder)(masks, [])[0]:
        found.setdefault(_cut_suffix(mask.path), []).append(mask)
    rejected: list[Skipped] = []
    entries = tuple(_match_masks(inventory.entries, found, rejected))
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
            detail = several or REJECT_CODES["mask_missing"]
            rejected.append(Skipped(entry.path, "mask_missing", detail))
    for stem in used:
        del found[stem]


def _cut_suffix(path: str) -> str:
    return os.path.splitext(path)[0]


def _dedupe(inventory: Inventory, root: Location, options: ConvertOptions) -> Inventory:
    entries = inventory.entries

    def digest(entry: Entry, end_bytes: int) -> bytes:
        if entry.size_bytes > options.max_file_bytes:
            return b""  # it will be rejected without being read
        return digest_source(entry, root, end_bytes)

    sets = find_duplicates(entries, digest, remote=root.is_remote)
    notes = (*inventory.notes, *note_duplicates(entries, sets))
    if options.dedupe == "report":
        return dataclasses.replace(inventory, notes=notes, duplicates=tuple(map(tuple, sets)))
    kept, dropped = drop_duplicates(entries, sets)
    skipped = sorted((*inventory.skipped, *dropped), key=lambda file: to_bytes(file.path))
    return dataclasses.replace(inventory, entries=kept, skipped=tuple(skipped), notes=notes)


def scan_folder(root: Location, options: ConvertOptions | None = None) -> Inventory:
    """Lists the images of a folder, with the labels and splits that its folders give them.

    Memory grows with the number of files, by about 250 bytes each.

    Raises:
        UsageError: `root` is missing, not a folder, or holds no class folder or no image.
        StoreError: the store does not answer, or refuses.
    """
    options = options or ConvertOptions()
    masks = locate_masks(root, options)
    if options.mask_dir is not None and root.contains(masks):
        raise UsageError(
            f"the masks {masks} lie among the images {root}, where they would be taken for images: "
            "give the folder of the images alone"
        )
    skipped: list[Skipped] = []
    entries, folders = list_folder(root, skipped)
    if not folders and options.label_from == "top":
        raise UsageError(
            f"{root} has no class folders: put the images of each class in a folder of its own, "
            f"such as {root}/cats and {root}/dogs, or convert it without labels, with "
            "--label-from none"
        )
    return _label_images(root, entries, folders, skipped, options)


def _label_images(
    root: Location,
    found: Iterable[Entry],
    folders: Mapping[str, Sequence[str]],
    skipped: list[Skipped],
    options: ConvertOptions,
) -> Inventory:
    """Gives images, ordered by the bytes of their paths, the labels and splits of their folders."""
    labeller = Labeller(folders, options)
    # By first appearance: the order of the classes is known only when all are found.
    numbers: dict[str, int] = {}
    entries: list[Entry] = []
    pinned = None if options.class_names is None else frozenset(options.class_names)
    for entry in found:
        split, name, code = labeller.assign(entry.path)
        if not code and name and pinned is not None and name not in pinned:
            code = "skipped_no_label"
        if code:
            skipped.append(skip(entry.path, code))
            continue
        label = numbers.setdefault(name, len(numbers)) if name else NO_LABEL
        entries.append(Entry(entry.path, label, entry.size_bytes, split, place=entry.place))
    classes = order_classes(labeller.list_classes() | set(numbers), options)
    if not entries:
        raise UsageError(_explain_empty(root, classes, skipped))
    _renumber(entries, numbers, classes)
    skipped.sort(key=lambda file: to_bytes(file.path))
    return Inventory(
        classes=classes,
        entries=tuple(entries),
        skipped=tuple(skipped),
        notes=_note_names(entries, classes),
        labelled=options.label_from != "none",
    )


def _note_names(entries: Sequence[Entry], classes: Sequence[str]) -> tuple[Note, ...]:
    """Notes what is odd about the names of images and classes."""
    notes = [make_note("twin_class", names) for names in _find_twins(classes).values()]
    # Hashes first: a million paths take eight bytes each, and only equal ones are compared.
    hashes = np.asarray(array("q", (hash(_fold(entry.path)) for entry in entries)))
    values, counts = np.unique(hashes, return_counts=True)
    alike = np.flatnonzero(np.isin(hashes, values[counts > 1]))
    twins = _find_twins([entries[place].path for place in alike.tolist()])
    if twins:
        notes.append(make_note("twin_path", list(itertools.chain(*twins.values()))))
    used = {entry.label for entry in entries}
    if NO_LABEL in used:
        return tuple(notes)
    empty = [name for label, name in enumerate(classes) if label not in used]
    if empty:
        notes.append(make_note("empty_class", empty))
    return tuple(notes)


def _find_twins(names: Iterable[str]) -> dict[str, list[str]]:
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_fold(name), []).append(name)
    return {folded: group for folded, group in alike.items() if len(group) > 1}


def _fold(name: str) -> str:
    """A name as it is where neither case nor the composition of letters counts."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def _renumber(entries: list[Entry], numbers: Mapping[str, int], classes: Sequence[str]) -> None:
    labels = {name: label for label, name in enumerate(classes)}
    table = [labels[name] for name in numbers]
    if table == list(range(len(table))):
        return
    for place, entry in enumerate(entries):  # in place, to save memory
        if entry.label != NO_LABEL:
            entries[place] = entry._replace(label=table[entry.label])


def _explain_empty(root: Location, classes: Sequence[str], skipped: Sequence[Skipped]) -> str:
    if classes and any(file.code == "skipped_no_label" for file in skipped):
        return f"{root} has no image in any of the {len(classes)} classes that are asked for"
    what = f"{len(classes)} class folders but no image" if classes else "no image in any folder"
    return f"{root} has {what}: looked for names that end in " + ", ".join(sorted(SUFFIXES))
