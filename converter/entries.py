"""The images of a conversion as columns: a path and about 21 bytes for each.

    paths     the bytes of all paths in one buffer, and where each ends: 8 bytes
    sizes     8 bytes, labels 4, splits 1
    …         groups, values, places, masks, files, parts, spans: only if an image has one

A million tuples take 250 MB, a million rows of these columns 47 MB, for paths of 26 letters.
"""

import abc
import heapq
import itertools
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, overload

import numpy as np
import numpy.typing as npt

from converter.entry_columns import Column, Integers, Numbers, Places, Texts, Words, take_numbers
from converter.inventory import NO_LABEL, NO_MASK, SPLITS, Entry
from converter.names import to_bytes

_SPLITS: Final = (*SPLITS, "")  # so that the number -1 is that of no split
SPLIT_NUMBERS: Final = {split: number for number, split in enumerate(SPLITS)} | {"": -1}
_RUN: Final = 1 << 16  # images that are sorted at once

# Fields that few sources fill: the names of `Entry`, from its fifth field on.
_MORE: Final = Entry._fields[4:]
_NOTHING: Final = NO_MASK[4:]


class _Masks:
    """Entries of masks, of which some images may have none."""

    def __init__(self) -> None:
        self._entries = Entries()

    def __getitem__(self, place: int) -> Entry | None:
        mask = self._entries[place]
        return mask if mask.path else None

    def append(self, mask: Entry | None) -> None:
        self._entries.append(mask or NO_MASK)

    def take(self, places: Places) -> "_Masks":
        taken = _Masks()
        taken._entries = self._entries.take(places)
        return taken


_KINDS: Final[dict[str, type[Column]]] = {
    "group": Words, "values": Texts, "place": Integers, "mask": _Masks, "file": Words,
    "part": Words, "span": Integers,
}  # fmt: skip


class Listing(Sequence[Entry]):
    """Images without a tuple for each; equal to any sequence of equal entries."""

    @property
    @abc.abstractmethod
    def files(self) -> set[str]:
        """The files that hold these images as parts."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return NotImplemented
        return all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none


class Entries(Listing):
    """Images to convert. Each is made when it is asked for."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.paths = Texts()
        self._sizes = array("q")
        self._labels = array("i")
        self._splits = array("b")
        self._more: dict[str, Column] = {}
        for entry in entries:
            self.append(entry)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Entries":
        """These entries, without a copy if they are columns already."""
        return entries if isinstance(entries, Entries) else cls(entries)

    @classmethod
    def of_columns(
        cls,
        paths: Texts,
        sizes: Numbers,
        labels: npt.NDArray[np.int32],
        splits: npt.NDArray[np.int8],
    ) -> "Entries":
        """Images without other fields, from the columns of that name; arrays (images,)."""
        entries = cls()
        entries.paths, entries._sizes = paths, array("q", sizes.tobytes())
        entries.assign(labels, splits)
        return entries

    def append(self, entry: Entry) -> None:
        self.add(to_bytes(entry.path), entry.size_bytes, entry.label, SPLIT_NUMBERS[entry.split])
        if entry[4:] != _NOTHING or self._more:
            self._append_more(entry)

    def add(self, path: bytes, size_bytes: int, label: int = NO_LABEL, split: int = -1) -> None:
        """Appends an image that has no other fields, nor do others here have them."""
        self.paths.append_bytes(path)
        self._sizes.append(size_bytes)
        self._labels.append(label)
        self._splits.append(split)

    def _append_more(self, entry: Entry) -> None:
        for name, value, nothing in zip(_MORE, entry[4:], _NOTHING, strict=True):
            column = self._more.get(name)
            if column is None:
                if value == nothing:
                    continue
                column = self._more[name] = _KINDS[name]()
                for _ in range(len(self) - 1):
                    column.append(nothing)
            column.append(value)

    @property
    def sizes(self) -> Numbers:
        """Bytes of the originals: int64 (images,)."""
        return np.frombuffer(self._sizes, np.int64)

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Indices of classes, or `NO_LABEL`: int32 (images,)."""
        return np.frombuffer(self._labels, np.int32)

    @property
    def splits(self) -> npt.NDArray[np.int8]:
        """Given splits, as indices of `SPLITS`, or -1: int8 (images,)."""
        return np.frombuffer(self._splits, np.int8)

    @property
    def files(self) -> set[str]:
        found = self._more.get("file")
        if not isinstance(found, Words):
            return set()
        return {found.words[number] for number in set(found.numbers)} - {""}

    def count_labels(self, classes: int) -> list[int]:
        """Counts the images of each class, in label order."""
        counts = np.bincount(self.labels + 1, minlength=classes + 1)
        return [*map(int, counts[1:])]

    def assign(self, labels: npt.NDArray[np.int32], splits: npt.NDArray[np.int8]) -> None:
        """Replaces all labels and given splits: arrays of shape (images,)."""
        self._labels, self._splits = array("i", labels.tobytes()), array("b", splits.tobytes())

    def find(self, name: str) -> Column | None:
        """The column of a field from `group` on; None if no image has it."""
        return self._more.get(name)

    def take(self, places: Places) -> "Entries":
        """These of the images, in this order."""
        taken = Entries()
        taken.paths, taken._more = self.paths, {**self._more}
        taken._sizes, taken._labels, taken._splits = self._sizes, self._labels, self._splits
        taken._reorder(places)
        return taken

    def leave_out(self, places: Collection[int]) -> "Entries":
        """All images but these; the same object if there are none to leave out."""
        if not len(places):
            return self
        return self.take(np.delete(np.arange(len(self), dtype=np.uint32), [*places]))

    def sort(self) -> None:
        """Orders the images by the bytes of their paths; those of one path keep their order."""
        if all(one <= other for one, other in itertools.pairwise(self.paths.iterate())):
            return  # as most sources list them
        # In runs that are merged, because a list of all paths would take 100 bytes for each.
        begins = range(0, len(self), _RUN)
        runs = [self._sort_run(range(begin, min(begin + _RUN, len(self)))) for begin in begins]
        merged = heapq.merge(*map(self._read_places, runs))
        self._reorder(np.fromiter((place for _, place in merged), np.uint32, len(self)))

    def _sort_run(self, places: range) -> "array[int]":
        return array("I", sorted(places, key=self.paths.read))

    def _read_places(self, places: Iterable[int]) -> Iterator[tuple[bytes, int]]:
        return ((self.paths.read(place), place) for place in places)

    def _reorder(self, places: Places) -> None:
        # One column after another, so that only one of them is there twice.
        self.paths = self.paths.take(places)
        self._sizes = take_numbers(self._sizes, places)
        self._labels = take_numbers(self._labels, places)
        self._splits = take_numbers(self._splits, places)
        for name, column in self._more.items():
            self._more[name] = column.take(places)

    def keep_distinct(self, *, last: bool = False) -> tuple["Entries", list[str]]:
        """Of neighbours with one path, the first or last alone; and a path for each other one."""
        places = [*_find_repeated(self.paths.iterate())]
        kept = self.leave_out([place - last for place in places])
        return kept, [self.paths[place] for place in places]

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, place: int) -> Entry: ...

    @overload
    def __getitem__(self, place: slice) -> list[Entry]: ...

    def __getitem__(self, place: int | slice) -> Entry | list[Entry]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if place < 0:
            place = range(len(self))[place]
        label, size = self._labels[place], self._sizes[place]  # an IndexError behind the last one
        entry = Entry(self.paths[place], label, size, _SPLITS[self._splits[place]])
        if not self._more:
            return entry
        return entry._replace(**{name: column[place] for name, column in self._more.items()})

    def __iter__(self) -> Iterator[Entry]:
        return map(self.__getitem__, range(len(self)))


class Members(Listing):
    """Some of the images in another order: 4 bytes each, as the places of `assign_splits`."""

    def __init__(self, entries: Entries, places: Places) -> None:
        self.entries = entries
        self.places = places

    @property
    def files(self) -> set[str]:
        return self.entries.files

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, place: int) -> Entry: ...

    @overload
    def __getitem__(self, place: slice) -> "Members": ...

    def __getitem__(self, place: int | slice) -> "Entry | Members":
        if isinstance(place, slice):
            return Members(self.entries, self.places[place])
        return self.entries[int(self.places[place])]

    def __iter__(self) -> Iterator[Entry]:
        return map(self.entries.__getitem__, self.places.data)  # a list would take 36 bytes each


def list_files(entries: Iterable[Entry]) -> set[str]:
    """The files that hold images as parts."""
    return entries.files if isinstance(entries, Listing) else {e.file for e in entries} - {""}


def _find_repeated(paths: Iterable[bytes]) -> Iterator[int]:
    """The places of those that are equal to the one before."""
    for place, (one, other) in enumerate(itertools.pairwise(paths), 1):
        if one == other:
            yield place
