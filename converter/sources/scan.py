"""Finds the images of a conversion: in a folder, an archive or a table.

Every file is accounted for: it becomes an entry, or a line that says why not. What folders mean is
for `labelling` to say, which files there are for `folders`, `archives` and `tables`.
"""

from __future__ import annotations

import dataclasses
import itertools
import unicodedata
from array import array
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from converter.errors import UsageError
from converter.formats import SUFFIXES
from converter.inventory import NO_LABEL, SKIP_RULES, Entry, Inventory, Note, Skipped, make_note
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.sources.archives import is_archive, list_archive
from converter.sources.duplicates import drop_duplicates, find_duplicates, note_duplicates
from converter.sources.folders import list_folder
from converter.sources.inputs import check_source, locate_root
from converter.sources.labelling import Labeller, order_classes
from converter.sources.mask_pairing import locate_masks, pair_masks
from converter.sources.originals import digest_source
from converter.sources.path_lookup import make_locator
from converter.sources.rows import is_table
from converter.sources.tables import scan_table
from converter.storage.location import Location


def scan_images(images: Location, options: ConvertOptions | None = None) -> Inventory:
    """Finds all images that are to be converted, and those of them that have the same content.

    Args:
        images: a folder, a prefix of an object store, an archive, or a table.
        options: what is asked for.

    Raises:
        UsageError: there is nothing to convert, or not as asked.
    """
    options = options or ConvertOptions()
    check_source(images, options)
    root = locate_root(images, options)
    inventory = _scan(images, options)
    if options.masked:
        inventory = pair_masks(inventory, root, options)
    if options.dedupe == "off":
        return inventory
    sets = find_duplicates(
        inventory.entries,
        # What is larger is rejected, and need not be read before that.
        lambda entry, end_bytes: (
            digest_source(entry, root, end_bytes)
            if entry.size_bytes <= options.max_file_bytes
            else b""
        ),
        remote=root.is_remote,
    )
    notes = (*inventory.notes, *note_duplicates(inventory.entries, sets))
    if options.dedupe == "report":
        return dataclasses.replace(inventory, notes=notes, duplicates=tuple(map(tuple, sets)))
    kept, dropped = drop_duplicates(inventory.entries, sets)
    skipped = sorted((*inventory.skipped, *dropped), key=lambda skip: to_bytes(skip.path))
    return dataclasses.replace(inventory, entries=kept, skipped=tuple(skipped), notes=notes)


def _scan(images: Location, options: ConvertOptions) -> Inventory:
    if is_table(images):
        inventory = scan_table(images, options, make_locator(locate_root(images, options)))
        return dataclasses.replace(
            inventory, notes=find_oddities(inventory.entries, inventory.classes)
        )
    if is_archive(images):
        skipped: list[Skipped] = []
        entries, folders = list_archive(images, skipped)
        return label_images(images, entries, folders, skipped, options)
    return scan_folder(images, options)


def scan_folder(root: Location, options: ConvertOptions | None = None) -> Inventory:
    """Lists the images of a folder, with what its folders say of them.

    Memory grows with the number of files, by about 250 bytes each.

    Raises:
        UsageError: `root` is missing, not a folder, or holds no class folder or no image.
        StoreError: the store does not answer, or refuses.
    """
    options = options or ConvertOptions()
    skipped: list[Skipped] = []
    _check_masks(root, options)
    entries, folders = list_folder(root, skipped)
    _check_classes(root, folders, options)
    return label_images(root, entries, folders, skipped, options)


def _check_masks(root: Location, options: ConvertOptions) -> None:
    if options.mask_dir is None:
        return
    masks = locate_masks(root, options)
    if root.contains(masks):
        raise UsageError(
            f"the masks {masks} lie among the images {root}, where they would be taken for images: "
            "give the folder of the images alone"
        )


def _check_classes(
    root: Location, folders: Mapping[str, Sequence[str]], options: ConvertOptions
) -> None:
    if not folders and options.label_from == "top":
        raise UsageError(
            f"{root} has no class folders: put the images of each class in a folder of its own, "
            f"such as {root}/cats and {root}/dogs, or convert it without labels, with "
            "--label-from none"
        )


def label_images(
    root: Location,
    found: Iterable[Entry],
    folders: Mapping[str, Sequence[str]],
    skipped: list[Skipped],
    options: ConvertOptions,
) -> Inventory:
    """Gives images the labels and splits that their folders say.

    Args:
        root: what holds them.
        found: the images, ordered by the bytes of their paths; their labels mean nothing.
        folders: those in the root, and those in each of them.
        skipped: what is left out; complete when `found` has been read to its end.
        options: what folders are asked to mean.

    Raises:
        UsageError: there is no image, or no class where there has to be one.
    """
    labeller = Labeller(folders, options)
    # In the order in which they are met at first: their order is known when all are.
    numbers: dict[str, int] = {}
    entries: list[Entry] = []
    pinned = None if options.class_names is None else frozenset(options.class_names)
    for entry in found:
        place = labeller.read(entry.path)
        code = place.code
        if not code and place.name and pinned is not None and place.name not in pinned:
            code = "skipped_no_label"
        if code:
            skipped.append(Skipped(entry.path, code, SKIP_RULES[code]))
            continue
        label = numbers.setdefault(place.name, len(numbers)) if place.name else NO_LABEL
        entries.append(Entry(entry.path, label, entry.size_bytes, place.split, place=entry.place))
    classes = order_classes(labeller.find_classes() | set(numbers), options)
    if not entries:
        raise UsageError(_tell_nothing(root, classes, skipped))
    _renumber(entries, numbers, classes)
    skipped.sort(key=lambda skip: to_bytes(skip.path))
    return Inventory(
        classes=classes,
        entries=tuple(entries),
        skipped=tuple(skipped),
        notes=find_oddities(entries, classes),
        labelled=options.label_from != "none",
    )


def find_oddities(entries: Sequence[Entry], classes: Sequence[str]) -> tuple[Note, ...]:
    """What is odd about the names of images and classes."""
    notes = [make_note("twin_class", names) for names in _find_twins(classes).values()]
    # Of a million paths, eight bytes each: their hashes, of which equal ones are looked at.
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
    """What is left of a name where neither case nor composition of letters counts."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def _renumber(entries: list[Entry], numbers: Mapping[str, int], classes: Sequence[str]) -> None:
    """Replaces numbers in the order of appearance by labels, one by one, to save memory."""
    labels = {name: label for label, name in enumerate(classes)}
    table = [labels[name] for name in numbers]
    if table == list(range(len(table))):
        return
    for place, entry in enumerate(entries):
        if entry.label != NO_LABEL:
            entries[place] = entry._replace(label=table[entry.label])


def _tell_nothing(root: Location, classes: Sequence[str], skipped: Sequence[Skipped]) -> str:
    if classes and any(skip.code == "skipped_no_label" for skip in skipped):
        return f"{root} has no image in any of the {len(classes)} classes that are asked for"
    what = f"{len(classes)} class folders but no image" if classes else "no image in any folder"
    return f"{root} has {what}: looked for names that end in " + ", ".join(sorted(SUFFIXES))
