"""What becomes of each input: an entry to convert, or a code that says why not; and odd things.

The texts in `SKIP_RULES` and `REJECT_CODES` are also details in `rejects.jsonl`, so another wording
changes the bytes of data sets.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

from converter.errors import ImageError
from converter.format.manifest import Totals
from converter.format.schema import Column

SPLITS: Final = ("train", "validation", "test")
NO_LABEL: Final = -1  # of an image without a class
MAX_NAMES: Final = 10  # that a note keeps

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))

SKIP_RULES: Final = {
    "skipped_hidden": "a dotfile, or one that an operating system leaves behind",
    "skipped_extension": "the name does not end like an image's",
    "skipped_no_class": "lies beside the class folders, not in one",
    "skipped_no_split": "lies beside the split folders, not in one",
    "skipped_no_label": "its class is not in the list of labels",
    "skipped_where": "the condition of --where does not hold for it",
    "skipped_sample": "not in the share that --sample takes",
    "skipped_take": "not among the number that --take takes",
    "skipped_unlisted": "no annotation and no list names it",
    "skipped_duplicate": "has the content of another image",
    "skipped_repeated": "a later member of the archive has its name",
    "skipped_outside": "its name leads out of the archive",
    "skipped_link": "a symbolic link that leaves the tree, leads nowhere or is a folder",
    "skipped_special": "neither a file nor a folder",
    "unreadable": "the folder or its file cannot be read",
}
"""Why a scan skips a file, by its code in `rejects.jsonl`."""

# Images that the options of `ChoiceOptions` leave out.
CHOICES: Final = ("skipped_no_label", "skipped_where", "skipped_sample", "skipped_take")

REJECT_CODES: Final = {
    "empty": "the file has no bytes",
    "vanished": "the file is gone since the images were listed",
    "changed": "the file changed since the images were listed, or while it was read",
    "unreadable": "the file cannot be read",
    "too_many_bytes": "the file is larger than --max-file-bytes",
    "not_an_image": "the content is no image of a known format",
    "other_format": "an image of a format that --formats does not name",
    "too_large": "more pixels than --max-pixels, or a stored side that no encoding can hold",
    "too_slow": "so many scans and pixels that decoding would take minutes",
    "implausible": "the header claims more pixels than so few bytes can hold",
    "unsupported_mode": "pixels whose colours are undefined",
    "animated": "several frames or pages, which --frames reject refuses",
    "decode_error": "the image is truncated or damaged",
    "decoder_crash": "the decoder crashed at it, in a process of its own",
    "too_much_memory": "decoding took more memory than --max-pixels allows, in such a process",
    "timeout": "decoding took more CPU time than --max-seconds",
    "missing": "it is named, and there is no such file",
    "outside": "its path leads out of the folder",
    "repeated": "an earlier row has this image, too",
    "bad_row": "what is said of it is missing or makes no sense",
    "bad_sample": "its sample has no image, several, or lies in several places",
    "mask_missing": "there is no mask for it, or more than one",
    "mask_unreadable": "its mask cannot be read, or does not hold numbers of classes",
    "mask_size": "its mask has another size than the image",
    "filtered_side": "a side is shorter than --min-side",
    "filtered_area": "fewer pixels than --min-area",
    "filtered_frames": "a frame or page behind the first --max-frames of its file",
    "filtered_aspect": "longer and narrower than --max-aspect",
}
"""Why an image is rejected, by its code in `rejects.jsonl`."""

# Sound images left out on request: `--on-error` and `--max-rejects` do not count them.
FILTERS: Final = frozenset(code for code in REJECT_CODES if code.startswith("filtered_"))

NOTES: Final = {
    "duplicate": "the same content",
    "duplicate_class": "the same content under different labels",
    "duplicate_split": "the same content in different splits",
    "twin_class": "names that look the same, or are the same on other systems",
    "twin_path": "names that look the same, or are the same on other systems",
    "empty_class": "a class without an image",
    "unknown_class": "a class that --classes renames, and the source does not have",
    "trimmed_labels": "labels and boxes of classes that --classes leaves out",
    "unused_mask": "a mask without an image",
    "unused_part": "parts of samples that no option asks for",
    "unlabelled": "no column is taken for labels: name it with --label-column, one of several "
    "labels with --labels-column, or columns of 0 and 1 with --labels-columns",
    "one_hot": "columns of 0 and 1 beside the label's, so its classes are these numbers: if each "
    "column is a class, give all of them to --labels-columns",
    "unsure_label": "columns of labels with both 0 and -1, which both mean no: write 1 where -1 "
    "means yes",
    "several_labels": "labels that look like several in one: name their column with "
    "--labels-column, and what is between them with --labels-separator",
    "class_number": "numbers as names of classes are not those of the labels: --classes with a "
    "file of all numbers, one a line, keeps them",
    "decimal_comma": "numbers with a comma are kept as text: write them with a point",
    "unused_folder": "a folder without an image, as some layouts of images and boxes have",
    "missing_list": "folders or lists that a YAML file names and that are not there",
    "class_numbers": "no data.yaml and no classes.txt names the classes, so their numbers do",
    "unknown_image": "annotations of images that are not listed, left out",
    "box_invalid": "boxes that are not four numbers with an area, left out",
    "box_class": "boxes of a class that is not listed, left out",
    "box_outside": "boxes that lie outside of their image, left out",
    "box_size": "the annotation states another size: boxes are taken as pixels of the file",
    "wrong_extension": "the name and the content say different formats",
    "animated": "several frames or pages, only the first is taken",
    "profile": "colours converted to sRGB from another ICC profile",
    "truncated": "a JPEG that ends early, its missing rows are grey",
    "coarse": "a progressive JPEG that ends early, it lacks detail",
    "inks": "CMYK that does not say how its inks are meant, read as most programs do",
    "palette": "pixels whose number is not in the palette, shown black",
    "range": "samples of over 8 bits that use a quarter of their range or less, or leave it",
    "transparent": "nothing in it is visible, alpha is 0 everywhere: BMP, ICO and TGA are stored "
    "opaque, others as plain background",
}
"""What is odd but converted, by its code in `notes.jsonl`."""

# Notes that need the images to be read.
CONTENT_NOTES: Final = (
    "wrong_extension", "animated", "profile", "truncated", "coarse", "inks", "palette", "range",
    "transparent", "box_outside", "box_size",
)  # fmt: skip


class Entry(NamedTuple):
    """One image to convert."""

    path: str  # relative to the root, with `/`, in the spelling of `converter.names`
    label: int  # index into the class names, or `NO_LABEL`
    size_bytes: int  # of the file
    split: str = ""  # given by its folder or table; empty for none
    group: str = ""  # images of the same group stay in one split; empty for none
    values: str = ""  # of the table's columns, as JSON; empty for none
    place: int = 0  # offset of its header in an archive, in bytes
    mask: Entry | None = None  # of its mask: path, size, and where it lies
    # Of an image that is a part of a file, such as a member of one of many tars:
    file: str = ""  # that file, relative to the root; empty for a file of its own
    part: str = ""  # the column or feature that holds it; empty if there is only one
    span: int = 0  # bytes from `place` on that hold it with all around it; 0 if unknown


NO_MASK: Final = Entry("", NO_LABEL, 0)
"""In the place of the mask of an image that has none."""


def encode_values(values: Sequence[Any]) -> str:
    """The values of an entry, in the order of their columns, as it holds them."""
    return _ENCODER.encode(values)


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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """Everything that a scan found."""

    # In label order, also those without an image; empty if images have no labels.
    classes: tuple[str, ...]
    entries: Sequence[Entry]  # ordered by the bytes of their paths; a scan gives `Entries`
    skipped: tuple[Skipped, ...]  # all other files, in the same order
    rejected: tuple[Skipped, ...] = ()  # rows of a table that cannot be converted
    notes: tuple[Note, ...] = ()  # what is odd
    columns: tuple[Column, ...] = ()  # what the values of the entries are
    # Indices into `entries` of images with the same content, one tuple for each set.
    duplicates: Sequence[Sequence[int]] = ()
    found_classes: tuple[str, ...] = ()  # by their names in the source, if others are asked for
    labelled: bool = True  # each image has exactly one class
    recognized: str = ""  # what the images were taken for, for people

    @property
    def scanned(self) -> int:
        return len(self.entries) + len(self.skipped) + len(self.rejected)


def name_class(inventory: Inventory, entry: Entry) -> str:
    """Returns the class name of an image; empty if it has none."""
    return "" if entry.label == NO_LABEL else inventory.classes[entry.label]


def leave_out(path: str, code: str, detail: str = "") -> Skipped:
    """A file that is left out; the detail is what its code means, unless another is given."""
    return Skipped(path, code, detail or SKIP_RULES.get(code) or REJECT_CODES[code])


def reject(code: str, detail: str = "") -> ImageError:
    """The error for an image that is rejected, with a detail as of `leave_out`."""
    return ImageError(code, detail or REJECT_CODES[code])


class NoteTally:
    """Counts notes by code, with their first names."""

    def __init__(self) -> None:
        self._notes: dict[str, Note] = {}

    def add(self, code: str, *names: str, total: int = 1) -> None:
        """Adds `total` occurrences, and the first names of them."""
        known = self._notes.get(code, Note(code, (), 0))
        self._notes[code] = Note(code, (known.names + names)[:MAX_NAMES], known.total + total)

    def list_notes(self) -> list[Note]:
        """Returns one note for each code, ordered by code."""
        return sorted(self._notes.values())


def make_note(code: str, names: list[str]) -> Note:
    """Makes a note about all these names, and keeps the first."""
    return Note(code, tuple(names[:MAX_NAMES]), len(names))


def find_used(entries: Iterable[Entry], columns: Sequence[Column]) -> set[int]:
    """The labels that any image has, alone or in a list."""
    places = [place for place, column in enumerate(columns) if column.kind == "labels"]
    used: set[int] = set()
    for entry in entries:
        used.add(entry.label)
        if places:
            values = json.loads(entry.values)
            used.update(itertools.chain.from_iterable(values[place] for place in places))
    return used - {NO_LABEL}


def note_empty(classes: Sequence[str], used: Collection[int]) -> tuple[Note, ...]:
    """Notes the classes that are not used."""
    empty = [name for label, name in enumerate(classes) if label not in used]
    return (make_note("empty_class", empty),) if empty else ()


def describe_excess(totals: Totals, max_rejects: float | None) -> str | None:
    """Returns a message if a data set has more rejected images than `max_rejects` allows."""
    if max_rejects is None:
        return None
    rejected = sum(count for code, count in totals.rejected.items() if code not in FILTERS)
    images = totals.written + sum(totals.rejected.values())
    limit = max_rejects if isinstance(max_rejects, int) else max_rejects * images
    if rejected <= limit:
        return None
    allowed = f"{max_rejects:,}" if isinstance(max_rejects, int) else f"{max_rejects:.6g} of them"
    return (
        f"{rejected:,} of {images:,} images could not be converted, more than --max-rejects "
        f"({allowed}): the data set is complete without them"
    )
