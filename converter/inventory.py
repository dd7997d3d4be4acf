"""What is found before anything is converted: entries, what is left out, and what is odd."""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

from converter.format.schema import Column

SPLITS: Final = ("train", "validation", "test")

NO_LABEL: Final = -1
"""Stands where an image has no class."""

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
"""Why a file is not looked at, by the code in `rejects.jsonl`."""

NOTES: Final = {
    "duplicate": "the same content",
    "duplicate_class": "the same content under different labels",
    "duplicate_split": "the same content in different splits",
    "twin_class": "names that a person, or another system, takes for one",
    "twin_path": "names that a person, or another system, takes for one",
    "empty_class": "a class without an image",
    "unused_mask": "a mask without an image",
    "wrong_extension": "the name says another format than the content",
    "animated": "several frames or pages, of which the first is taken",
    "profile": "colours brought to sRGB from another ICC profile",
}
"""What is odd and yet converted, by the code in `notes.jsonl`."""


CONTENT_NOTES: Final = ("wrong_extension", "animated", "profile")
"""Those that are known only when images are read."""


class Entry(NamedTuple):
    """One image to convert.

    Attributes:
        path: relative to the root, with `/`, in the spelling of `converter.names`.
        label: index into the class names, or `NO_LABEL`.
        size_bytes: of the file.
        split: that its folder or its table gives it, or nothing.
        group: what has to be in one split with it, or nothing.
        values: of the table's columns, as JSON, or nothing.
        place: where its header begins in an archive, in bytes.
        mask: the file of its mask, if it has one; no more of that is known than of a file.
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
    """One file or folder that is not looked at: its relative path, the rule, and a detail."""

    path: str
    code: str
    detail: str


class Note(NamedTuple):
    """What is odd about some files or classes, of which the first ones are named.

    Attributes:
        code: one of `NOTES`.
        names: paths or class names, up to `MAX_NAMES`.
        total: how many there are.
    """

    code: str
    names: tuple[str, ...]
    total: int


MAX_NAMES: Final = 10


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """What was found.

    Attributes:
        classes: names in label order; also those without an image. Without any, images have no
            labels.
        entries: the images, ordered by the bytes of their paths.
        skipped: everything else, in the same order.
        rejected: rows of a table that no image can be made of.
        notes: what is odd.
        columns: what the entries' values are.
        duplicates: places in `entries` of images with the same content, set by set.
        labelled: whether each image has one class.
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
    """The class of an image, or nothing if it has none."""
    return "" if entry.label == NO_LABEL else inventory.classes[entry.label]


class NoteTally:
    """Counts what is odd, and keeps the first names."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._totals: dict[str, int] = {}

    def add(self, code: str, *names: str, total: int = 1) -> None:
        """Counts so many, of which these are the first."""
        known = self._names.setdefault(code, [])
        known += names[: MAX_NAMES - len(known)]
        self._totals[code] = self._totals.get(code, 0) + total

    def list_notes(self) -> list[Note]:
        """A note of each kind, in the order of their codes."""
        return [
            Note(code, tuple(names), self._totals[code])
            for code, names in sorted(self._names.items())
        ]


def make_note(code: str, names: list[str]) -> Note:
    """A note about so many names, of which it keeps the first."""
    return Note(code, tuple(names[:MAX_NAMES]), len(names))
