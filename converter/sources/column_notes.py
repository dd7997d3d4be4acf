"""What is odd about the columns of rows, and which of them are used.

Nothing here changes what becomes of a row: a note says what may be meant, and what to do then.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from converter.inventory import Note, make_note
from converter.names import parse_path_format, show_name
from converter.options import COLUMN_OPTIONS, ConvertOptions
from converter.sources import rows

_MAX_SHOWN: Final = 12  # columns in one line

# Words in the names of columns that hold labels; the likeliest first.
_LABEL_WORDS: Final = (
    "label", "labels", "class", "classes", "category", "categories", "target", "diagnosis", "dx",
    "species", "breed", "variety", "genus", "family", "tag", "tags", "attributes", "type", "y",
)  # fmt: skip

# With one of these, images have something to learn from besides a label.
_SUPERVISION: Final = (
    "label_column", "labels_column", "labels_columns", "target_column", "caption_column",
    "boxes_column", "mask_column", "mask_dir",
)  # fmt: skip

_BETWEEN_TAGS: Final = re.compile(r"[\s,;|]+")
_MAX_SEEN: Final = 16  # ways to write a flag: 1, 1.0, True
_NUMERIC: Final = re.compile(r"\s*[+-]?\d+([.,]\d+)?\s*")
_NUMBER: Final = re.compile(r"-?\d+(\.0)?")  # some write whole numbers with a point
_TAGGED_SHARE: Final = 0.9  # of the labels with several parts


def list_used(options: ConvertOptions) -> list[str]:
    """The columns that options name, apart from those of paths."""
    named = (getattr(options, name) for name in COLUMN_OPTIONS)
    lists = (*options.labels_columns, *options.box_columns, *options.keep_columns)
    return [*(name for name in named if name), *lists]


def list_path_columns(options: ConvertOptions) -> list[str]:
    """The columns that say where the image of a row lies."""
    if options.path_format is None:
        return [options.path_column]
    return [column for _, column in parse_path_format(options.path_format) if column]


def rank_columns(names: Iterable[str], words: Sequence[str]) -> list[str]:
    """The columns with one of these words in their names, in the order of the words."""
    ranks = [(rank, name) for name in names for rank in _rank_name(name, words)]
    return [name for _, name in sorted(ranks, key=lambda pair: pair[0])]


def _rank_name(name: str, words: Sequence[str]) -> list[tuple[bool, int]]:
    """The best rank of a name, if it has any: that of all of it, or of a word in it."""
    whole = re.sub(r"[^a-z0-9]+", "_", name.strip().lower())
    parts = {whole, *whole.split("_")}
    return sorted((part != whole, words.index(part)) for part in parts if part in words)[:1]


def describe_columns(options: ConvertOptions, image: str, unused: Sequence[str]) -> str:
    """What columns, features or parts are taken for, and which are left out, for people."""
    named = [(name, getattr(options, name)) for name in COLUMN_OPTIONS]
    taken = [(name.removesuffix("_column").replace("_", " "), column) for name, column in named]
    line = ", ".join(f"{what} {column!r}" for what, column in [("image", image), *taken] if column)
    return line + (f"; leaves out {_enumerate(unused)}" if unused else "")


class ColumnNotes:
    """Collects what is odd about columns, row by row; memory grows with the columns alone."""

    def __init__(self, options: ConvertOptions, key: str) -> None:
        self.names: dict[str, None] = {}  # of all columns, in order, and `key`, which is none
        self._options, self._key = options, key
        # The cells seen of columns that hold nothing but 0, 1, -1 and blanks.
        self._flags: dict[str, list[Any]] = {}
        # Whether a kept column that holds nothing but numbers has one with a comma.
        self._commas = dict.fromkeys(options.keep_columns, False)
        self._labels: Collection[str] = ()

    def add(self, row: rows.Row) -> None:
        """Takes a row into account."""
        if not row.keys() <= self.names.keys():
            new = dict.fromkeys(name for name in row if name not in self.names)
            self.names |= new
            self._flags |= {name: [None, ""] for name in new}
        # Most cells are known: 3 µs for a row of 40 columns, where reading each takes 28.
        others = [
            name
            for name, seen in self._flags.items()
            if (cell := row.get(name)) not in seen and not _take_flag(cell, seen)
        ]
        for name in others:
            del self._flags[name]
        for name in [*self._commas]:
            if isinstance(cell := row.get(name), str) and cell:
                if not _NUMERIC.fullmatch(cell):
                    del self._commas[name]
                elif "," in cell:
                    self._commas[name] = True

    def add_labels(self, labels: Collection[str]) -> None:
        """Takes the classes into account that are known from rows alone."""
        self._labels = labels

    def describe(self) -> str:
        """One line about the columns that are used, and those that are not."""
        used = [*list_path_columns(self._options), *list_used(self._options)]
        line = f"uses {_enumerate([name for name in dict.fromkeys(used) if name in self.names])}"
        if left_out := self._list_unused():
            line += f"; leaves out {_enumerate(left_out)}"
        return line

    def list_notes(self, classes: Sequence[str]) -> Iterator[Note]:
        """What is odd; `classes` are in label order."""
        unlabelled = not any(getattr(self._options, name) for name in _SUPERVISION)
        found = {
            "unlabelled": self._propose_labels() if unlabelled else [],
            "one_hot": self.find_one_hot(),
            "unsure_label": self._find_unsure(),
            "several_labels": sorted(self._find_tags()),
            "class_number": self._find_shifted(classes),
            "decimal_comma": [name for name, has_comma in self._commas.items() if has_comma],
        }
        return (make_note(code, names) for code, names in found.items() if names)

    def find_one_hot(self) -> list[str]:
        """The label column and others like it, if it holds 0 and 1 and is not alone with that."""
        label, unused, flags = self._options.label_column, self._list_unused(), self._list_flags()
        if label not in flags:
            return []
        found = [name for name in flags if name == label or name in unused]
        return found if len(found) > 1 else []

    def _list_unused(self) -> list[str]:
        used = {self._key, *list_path_columns(self._options), *list_used(self._options)}
        return [name for name in self.names if name not in used]

    def _list_flags(self) -> list[str]:
        """The columns with both 1 and 0, or 1 and -1, and nothing else."""
        found = {name: self._read_flags(name) for name in self._flags}
        return [name for name, flags in found.items() if 1 in flags and len(flags) > 1]

    def _read_flags(self, name: str) -> set[int | None]:
        return {rows.find_flag(cell) for cell in self._flags.get(name, ())} - {None}

    def _propose_labels(self) -> list[str]:
        """The columns that may hold labels: by name, by value, or all that are left."""
        unused = self._list_unused()
        flags = [name for name in self._list_flags() if name in unused]
        return rank_columns(unused, _LABEL_WORDS) or flags or unused

    def _find_unsure(self) -> list[str]:
        labels = self._options.labels_columns
        return [name for name in labels if {0, -1} <= self._read_flags(name)]

    def _find_tags(self) -> list[str]:
        options = self._options
        return _find_tags(self._labels) if options.label_column or options.labels_column else []

    def _find_shifted(self, classes: Sequence[str]) -> list[str]:
        """The classes whose names are numbers, and not those of their labels."""
        if not self._labels or not all(map(_NUMBER.fullmatch, self._labels)):
            return []
        pairs = [(name, str(label)) for label, name in enumerate(classes) if name in self._labels]
        return [
            f"{name} is label {label}" for name, label in pairs if name.removesuffix(".0") != label
        ]


def _take_flag(cell: Any, seen: list[Any]) -> bool:
    """Whether a cell is a flag or blank; then it is added to those seen, if they are few."""
    if rows.find_flag(cell) is not None and len(seen) < _MAX_SEEN:
        seen.append(cell)
    return rows.find_flag(cell) is not None or rows.is_blank(cell)


def _enumerate(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_SHOWN:,} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(show_name(name) or "''" for name in names[:_MAX_SHOWN]) + more


def _find_tags(labels: Collection[str]) -> list[str]:
    """The labels that look like several: their parts are in other labels, too.

    A last part that is a label of its own does not count: `sports car` is one, beside `car`.
    Empty unless nearly all labels with several parts look so.
    """
    parts = {label: [*filter(None, _BETWEEN_TAGS.split(label))] for label in labels}
    counts = Counter(part for each in parts.values() for part in set(each))
    several = [label for label, each in parts.items() if len(each) > 1]
    found = [
        label
        for label in several
        if any(
            counts[part] > 1 and not (place == len(parts[label]) and part in parts)
            for place, part in enumerate(parts[label], 1)
        )
    ]
    return found if len(found) >= _TAGGED_SHARE * len(several) else []
