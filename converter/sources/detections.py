"""Images with objects in boxes, whatever says so: what COCO, VOC and YOLO have in common.

All boxes are held at once, in about 60 bytes each, because annotations come in any order. A box
that makes no sense is left out alone, and its image is named in a note; an image is left out if
what is said about it makes no sense as a whole.
"""

import codecs
import dataclasses
import itertools
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from converter.errors import ImageError, UsageError
from converter.images.geometry import Size, parse_box
from converter.inventory import MAX_NAMES, Note, NoteTally, Skipped, leave_out
from converter.names import from_bytes, to_bytes
from converter.options import ConvertOptions
from converter.sizes import format_count
from converter.sources import rows
from converter.sources.folders import list_folder
from converter.sources.inputs import leave_given
from converter.sources.row_sources import IMAGE, SIZE, RowSource
from converter.storage.location import Location, map_in_threads

MAX_TEXT_BYTES: Final = 1 << 21  # of the annotation of one image
_MAX_LIST_BYTES: Final = 1 << 28  # of a list of images

Key: TypeAlias = tuple[Hashable, ...]
"""What an image is known by; messages show its end."""

BOXES, BOX_LABELS, SPLIT = "boxes", "box_labels", "split"


@dataclasses.dataclass(kw_only=True, slots=True)
class Picture:
    """An image that is listed, and what is said about it but for its boxes."""

    path: Any  # relative to the root; what is no path is rejected
    place: str  # where it is listed, for people
    split: str = ""
    size: Size | None = None  # stated; (0, 0) for none where boxes are in pixels of the file
    error: ImageError | None = None  # why it cannot be taken
    cells: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of other columns


class Detections:
    """Collects images and boxes in any order, by keys of the caller's own."""

    def __init__(self, options: ConvertOptions, flags: Sequence[str] = ()) -> None:
        self._options = options
        self._pictures: list[Picture | None] = []
        self._numbers: dict[Key, int] = {}  # of images, by key
        self._classes: dict[Hashable, int] = {}  # numbers of classes, by key
        self._names: dict[Hashable, str] = {}  # of classes, by key
        self._sides, self._owners, self._labels = array("d"), array("q"), array("q")
        self._flags = {name: array("b") for name in flags}
        self._invalid: Counter[int] = Counter()

    def add_image(self, key: Key, picture: Picture) -> None:
        """Adds an image; a second one with a key that is known is rejected."""
        number = self._number(key)
        if self._pictures[number] is not None:
            picture.error = ImageError("bad_row", "its id stands twice")
            number = self._number((object(),))
        self._pictures[number] = picture

    def name_class(self, key: Hashable, name: str) -> None:
        """Gives a class its name."""
        self._names[key] = name

    def add_box(self, image: Key, sides: Any, label: Hashable, flags: Sequence[int] = ()) -> None:
        """Adds a box as its source has it, in `box_format`, and a number for each flag."""
        number = self._number(image)
        try:
            parse_box(sides, self._options.box_format)
        except ValueError:
            self._invalid[number] += 1
            return
        self._sides.extend(sides)
        self._owners.append(number)
        self._labels.append(self._classes.setdefault(label, len(self._classes)))
        for values, flag in zip(self._flags.values(), flags, strict=True):
            values.append(flag)

    def make_source(
        self, *, recognized: str, notes: Sequence[Note] = (), **traits: Any
    ) -> RowSource:
        """Makes a source of the images, in the order in which they were added.

        Boxes of unknown images and classes are left out, which adds notes, and the others are
        counted in `recognized`. `traits` are other fields of the `RowSource`.
        """
        owners, labels = np.asarray(self._owners), np.asarray(self._labels)
        listed = np.asarray([each is not None for each in self._pictures], np.bool_)[owners]
        named = np.asarray([key in self._names for key in self._classes], np.bool_)[labels]
        chosen = np.flatnonzero(listed & named)
        chosen = chosen[np.argsort(owners[chosen], kind="stable")]
        bounds = np.searchsorted(owners[chosen], np.arange(len(self._pictures) + 1)).tolist()
        left_out = {
            "box_invalid": self._invalid,
            "box_class": Counter(owners[listed & ~named].tolist()),
            "unknown_image": Counter(owners[~listed].tolist()),
        }
        return RowSource(
            options=self._options,
            read_rows=lambda: self._read_rows(chosen, bounds),
            notes=(*notes, *self._list_notes(left_out)),
            recognized=f"{recognized}; {format_count(len(chosen), 'box')}",
            **traits,
        )

    def _read_rows(
        self, chosen: npt.NDArray[np.int64], bounds: Sequence[int]
    ) -> Iterator[tuple[str, rows.Row]]:
        """Each image with its boxes, which `chosen` has from one of its bounds to the next."""
        names = [self._names.get(key, "") for key in self._classes]
        sides, labels = np.asarray(self._sides).reshape(-1, 4), np.asarray(self._labels)
        flags = {name: np.asarray(values) for name, values in self._flags.items()}
        for picture, (begin, end) in zip(self._pictures, itertools.pairwise(bounds), strict=True):
            if picture is None:
                continue
            boxes = chosen[begin:end]
            row = {
                self._options.path_column: picture.path,
                BOXES: sides[boxes].tolist(),
                BOX_LABELS: [names[label] for label in labels[boxes].tolist()],
                SPLIT: picture.split,
                **{name: values[boxes].tolist() for name, values in flags.items()},
                **picture.cells,
            }
            if picture.size is not None:
                row[SIZE] = picture.size
            if picture.error is not None:
                row[IMAGE] = picture.error
            yield picture.place, row

    def _list_notes(self, left_out: Mapping[str, Counter[int]]) -> tuple[Note, ...]:
        """Notes how many boxes were left out, with the images that they are of."""
        keys, found = list(self._numbers), defaultdict[str, list[tuple[str, int]]](list)
        for code, counts in left_out.items():
            for number, count in counts.items():
                if picture := self._pictures[number]:
                    found[code].append((str(picture.path), count))
                else:
                    found["unknown_image"].append((str(keys[number][-1]), count))
        tally = NoteTally()
        for code, each in found.items():
            names = sorted({name for name, _ in each}, key=to_bytes)
            tally.add(code, *names[:MAX_NAMES], total=sum(count for _, count in each))
        return tuple(tally.list_notes())

    def _number(self, key: Key) -> int:
        number = self._numbers.setdefault(key, len(self._pictures))
        if number == len(self._pictures):
            self._pictures.append(None)
        return number


class Files(NamedTuple):
    """All files in a folder, by path: images, others, and what is neither."""

    images: frozenset[str]
    others: frozenset[str]
    skipped: Sequence[Skipped]

    def skip_unused(self, used: Collection[str]) -> tuple[Skipped, ...]:
        """Everything but the files that are used, each with the rule that skips it."""
        unlisted = [leave_out(path, "skipped_unlisted") for path in self.images.difference(used)]
        others = [leave_out(path, "skipped_extension") for path in self.others.difference(used)]
        return (*self.skipped, *unlisted, *others)


def list_files(root: Location) -> Files:
    """Lists a folder, or what lies below a prefix of a store."""
    skipped: list[Skipped] = []
    images = frozenset(entry.path for entry in list_folder(root, skipped)[0])
    others = frozenset(skip.path for skip in skipped if skip.code == "skipped_extension")
    return Files(images, others, [skip for skip in skipped if skip.path not in others])


def read_texts(root: Location, paths: Sequence[str]) -> Iterator[bytes | ImageError]:
    """Reads small files, in order; of one that cannot be read or is not small, says why."""

    def read(path: str) -> bytes | ImageError:
        try:
            data = root.child(path).read_range(0, MAX_TEXT_BYTES + 1)
        except OSError as error:
            return ImageError("bad_row", f"{path} cannot be read: {error.strerror or error}")
        if len(data) > MAX_TEXT_BYTES:
            return ImageError("bad_row", f"{path} has more than {MAX_TEXT_BYTES:,} bytes")
        return data

    if not root.is_remote:
        yield from map(read, paths)
        return
    for _, text in map_in_threads(read, paths, root):
        yield text


def read_lines(root: Location, path: str) -> list[str]:
    """The lines of a list of images that are not blank; raises UsageError if it is too long."""
    file = root.child(path)
    if (file.measure() or 0) > _MAX_LIST_BYTES:
        raise UsageError(f"{file} has more than {_MAX_LIST_BYTES:,} bytes: divide it")
    lines = from_bytes(file.read_bytes().removeprefix(codecs.BOM_UTF8)).splitlines()
    return [line for text in lines if (line := text.strip())]


def imply_columns(options: ConvertOptions, **more: Any) -> dict[str, Any]:
    """The options for columns with these names, and more, as far as they are not given."""
    implied = {"boxes_column": BOXES, "box_labels_column": BOX_LABELS, **more}
    if options.split_folders != "no":
        implied["split_column"] = SPLIT
    return leave_given(implied, options)
