"""What is odd about the names of images, classes and folders."""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from converter.entries import Entries
from converter.entry_columns import find_repeated
from converter.inventory import NO_LABEL, Entry, Inventory, Note, make_note, note_empty
from converter.names import fold_name, from_bytes, to_bytes
from converter.sources.folders import LAYOUT_FOLDERS


def find_unused(entries: Sequence[Entry], folders: Iterable[str]) -> set[str]:
    """Folders without an image whose names say that they are no classes."""
    unused = LAYOUT_FOLDERS.intersection(folders)
    return {*unused} - {entry.path.partition("/")[0] for entry in entries} if unused else set()


def note_folders(unused: Collection[str]) -> tuple[Note, ...]:
    """Notes folders without an image whose names say that they are no classes."""
    names = sorted(unused, key=to_bytes)
    return (make_note("unused_folder", names),) if names else ()


def note_names(inventory: Inventory) -> Inventory:
    """Notes what is odd about the names of images and classes."""
    entries, classes = Entries.of(inventory.entries), inventory.classes
    notes = note_twins(classes)
    # Hashes first: a million paths take eight bytes each, and only equal ones are compared.
    hashes = np.fromiter(map(_hash_folded, entries.paths.iterate()), np.int64, len(entries))
    alike = find_repeated(hashes).tolist()
    if twins := find_twins(entries.paths[place] for place in alike):
        notes.append(make_note("twin_path", list(itertools.chain(*twins))))
    used = {*np.unique(entries.labels).tolist()}
    if NO_LABEL not in used:
        notes += note_empty(classes, used)
    return dataclasses.replace(inventory, notes=(*inventory.notes, *notes))


def note_twins(classes: Iterable[str]) -> list[Note]:
    """Notes classes whose names look the same."""
    return [make_note("twin_class", names) for names in find_twins(classes)]


def _hash_folded(path: bytes) -> int:
    return hash(fold_path(path))


def fold_path(path: bytes) -> bytes:
    """The bytes of a path, as `fold_name` does it for text."""
    return path.lower() if path.isascii() else to_bytes(fold_name(from_bytes(path)))


def find_twins(names: Iterable[str]) -> list[list[str]]:
    """Names that look the same, or are the same on other systems, group by group."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(fold_name(name), []).append(name)
    return [group for group in alike.values() if len(group) > 1]
