"""What a scan finds: images, files that are left out, and notes about what is odd."""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

from converter.format.schema import Column

SPLITS: Final = ("train", "validation", "test")

NO_LABEL: Final = -1
"""The label of an image without a class."""

SKIP_RULES: Final = {
    "skipped_hidden": "a dotfile, or one that an operating system leaves behind",
    "skipped_extension": "the name does not end like an image's",
    "skipped_no_class": "lies beside the class folders, not in one",
    "skipped_no_split": "lies beside the split folders, not in one",
    "skipped_no_label": "its class is not in the list of labels",
    "skipped_duplicate": "has the content of another image",
    "skipped_repeated": "a later member of the archive has its name",
    "skipped_outside": "its name leads out of the archive",
    "skipped_link": "a symbolic link that leaves the tree, leads nowhere or is a folder",
    "skipped_special": "neither a file nor a folder",
    "unreadable": "the folder or its file cannot be read",
}
"""Why a file is skipped, by its code in `rejects.jsonl`, which holds these texts as details,
so another wording changes the bytes of data sets."""

NOTES: Final = {
    "duplicate": "the same content",
    "duplicate_class": "the same content under different labels",
    "duplicate_split": "the same content in different splits",
    "twin_class": "names that look the same, or are the same on other systems",
    "twin_path": "names that look the same, or are the same on other systems",
    "empty_class": "a class without an image",
    "unused_mask": "a mask without an image",
    "wrong_extension": "the name and the content say different formats",
    "animated": "several frames or pages, only the first is taken",
    "profile": "colours converted to sRGB from another ICC profile",
}
"""What is odd but converted, by its code in `notes.jsonl`."""

CONTENT_NOTES: Final = ("wrong_extension", "animated", "profile")
"""Notes that need the images to be read."""


class Entry(NamedTuple):
    """One image to convert.

    Attributes:
        path: relative to the root, with `/`, in the spelling of `converter.names`.
        label: index into the class names, or `NO_LABEL`.
        size_bytes: of the file.
        split: given by its folder or table; empty for none.
        group: images of the same group stay in one split; empty for none.
        values: of the table's columns, as JSON; empty for none.
        place: offset of its header in an archive, in bytes.
        mask: the file of its mask, with path, size and place only; None for none.
    """

    path: str
    label: int
    size_bytes: int
    split: str = ""
    group: str = ""
    values: str = ""
    place: int = 0
    mask: Entry | None = None


class Skipped(NamedTuple):
    """A file or folder that is left out: its relative path, the code, and a detail."""

    path: str
    code: str
    detail: str


class Note(NamedTuple):
    """One of `NOTES`, with the first `MAX_NAMES` files or classes and the total of them."""

    code: str
    names: tuple[str, ...]
    total: int


MAX_NAMES: Final = 10


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """Everything that a scan found.

    Attributes:
        classes: names in label order, also of classes without an image; empty if images have no
            labels.
        entries: the images, ordered by the bytes of their paths.
        skipped: all other files, in the same order.
        rejected: rows of a table that cannot be converted.
        notes: what is odd.
        columns: what the values of the entries are.
        duplicates: indices into `entries` of images with the same content, one tuple for each set.
        labelled: whether each image has exactly one class.
    """

    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    rejected: tuple[Skipped, ...] = ()
    notes: tuple[Note, ...] = ()
    columns: tuple[Column, ...] = ()
    duplicates: tuple[tuple[int, ...], ...] = ()
    labelled: bool = True

    @property
    def scanned(self) -> int:
        return len(self.entries) + len(self.skipped) + len(self.rejected)


def name_class(inventory: Inventory, entry: Entry) -> str:
    """Returns the class name of an image; empty if it has none."""
    return "" if entry.label == NO_LABEL else inventory.classes[entry.label]


class NoteTally:
    """Counts notes by code, with their first names."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._totals: dict[str, int] = {}

    def add(self, code: str, *names: str, total: int = 1) -> None:
        """Adds `total` occurrences, and the first names of them."""
        known = self._names.setdefault(code, [])
        known += names[: MAX_NAMES - len(known)]
        self._totals[code] = self._totals.get(code, 0) + total

    def list_notes(self) -> list[Note]:
        """Returns one note for each code, ordered by code."""
        return [
            Note(code, tuple(names), self._totals[code])
            for code, names in sorted(self._names.items())
        ]


def make_note(code: str, names: list[str]) -> Note:
    """Makes a note about all these names, and keeps the first."""
    return Note(code, tuple(names[:MAX_NAMES]), len(names))
