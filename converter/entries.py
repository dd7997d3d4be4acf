"""The images of a conversion as columns: a path and about 21 bytes for each.

    paths     the bytes of all paths in one buffer, and where each ends: 8 bytes
    sizes     8 bytes, labels 4, splits 1
    …         groups, values, places, masks, files, parts, spans: only if an image has one

A million tuples take 250 MB, a million rows of these columns 47 MB, for paths of 26 letters.
"""

import heapq
import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from converter.inventory import NO_LABEL, SPLITS, Entry
from converter.names import from_bytes, to_bytes

Numbers: TypeAlias = npt.NDArray[np.int64]
Places: TypeAlias = npt.NDArray[np.integer[Any]]
"""Indices of entries."""

_SPLITS: Final = (*SPLITS, "")  # so that the number -1 is that of no split
SPLIT_NUMBERS: Final = {split: number for number, split in enumerate(SPLITS)} | {"": -1}
_RUN: Final = 1 << 16  # images that are sorted at once
_NO_MASK: Final = Entry("", NO_LABEL, 0)

# Fields that few sources fill: the names of `Entry`, from its fifth field on.
_MORE: Final = Entry._fields[4:]
_NOTHING: Final = tuple(Entry._field_defaults[name] for name in _MORE)


class Column(Protocol):
    """What an entry has in one field; the number of its bytes is said by each kind."""

    def append(self, value: Any, /) -> None: ...

    def __getitem__(self, place: int, /) -> Any: ...

    def take(self, places: Places, /) -> Any: ...


class Texts:
    """Texts, each with its bytes and 8 more."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._ends = array("q", (0,))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> str:
        return from_bytes(self.read(place))

    def __iter__(self) -> Iterator[str]:
        return map(from_bytes, self.iterate())

    @property
    def ends(self) -> Numbers:
        """Where each text ends in `data`, shape (texts + 1,): it begins where the last one ends."""
        return np.frombuffer(self._ends, np.int64)

    def append(self, text: str) -> None:
        self.append_bytes(to_bytes(text))

    def append_bytes(self, text: bytes) -> None:
        self.data += text
        self._ends.append(len(self.data))

    def read(self, place: int) -> bytes:
        """The bytes of a text."""
        return bytes(self.data[self._ends[place] : self._ends[place + 1]])

    def iterate(self) -> Iterator[bytes]:
        """The bytes of all texts."""
        with memoryview(self.data) as data:
            for begin, end in itertools.pairwise(self._ends):
                yield bytes(data[begin:end])

    def take(self, places: Places) -> "Texts":
        taken = Texts()
        for place in places.data:
            taken.append_bytes(self.read(place))
        return taken


class Words:
    """Texts of which there are few: 4 bytes each, and each text once."""

    def __init__(self) -> None:
        self.words = [""]
        self.numbers = array("i")
        self._known = {"": 0}

    def __getitem__(self, place: int) -> str:
        return self.words[self.numbers[place]]

    def append(self, word: str) -> None:
        if (number := self._known.get(word)) is None:
            number = self._known[word] = len(self.words)
            self.words.append(word)
        self.numbers.append(number)

    def take(self, places: Places) -> "Words":
        taken = Words()
        taken.words, taken._known = self.words, self._known
        taken.numbers = _take(self.numbers, places)
        return taken


class _Integers:
    """Whole numbers: 8 bytes each."""

    def __init__(self) -> None:
        self._numbers = array("q")

    def __getitem__(self, place: int) -> int:
        return self._numbers[place]

    def append(self, number: int) -> None:
        self._numbers.append(number)

    def take(self, places: Places) -> "_Integers":
        taken = _Integers()
        taken._numbers = _take(self._numbers, places)
        return taken


class _Masks:
    """Entries of masks, of which some images may have none."""

    def __init__(self) -> None:
        self._entries = Entries()

    def __getitem__(self, place: int) -> Entry | None:
        mask = self._entries[place]
        return mask if mask.path else None

    def append(self, mask: Entry | None) -> None:
        self._entries.append(mask or _NO_MASK)

    def take(self, places: Places) -> "_Masks":
        taken = _Masks()
        taken._entries = self._entries.take(places)
        return taken


_KINDS: Final[dict[str, type[Column]]] = {
    "group": Words, "values": Texts, "place": _Integers, "mask": _Masks, "file": Words,
    "part": Words, "span": _Integers,
}  # fmt: skip


class _Listing(Sequence[Entry]):
    """Equal to any sequence of equal entries."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return NotImplemented
        return all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class Entries(_Listing):
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
        """The files that hold these images as parts."""
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
        taken.paths = self.paths.take(places)
        taken._sizes = _take(self._sizes, places)
        taken._labels = _take(self._labels, places)
        taken._splits = _take(self._splits, places)
        taken._more = {name: column.take(places) for name, column in self._more.items()}
        return taken

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
        self._sizes = _take(self._sizes, places)
        self._labels = _take(self._labels, places)
        self._splits = _take(self._splits, places)
        for name, column in self._more.items():
            self._more[name] = column.take(places)

    def keep_distinct(self, *, last: bool = False) -> tuple["Entries", list[str]]:
        """Of neighbours with one path, the first or last alone; and a path for each other one."""
        paths = list(_find_repeated(self.paths.iterate()))
        if not paths:
            return self, []
        repeated = np.array(paths, np.int64)
        dropped = repeated - 1 if last else repeated
        kept = np.delete(np.arange(len(self)), dropped)
        return self.take(kept), [self.paths[place] for place in paths]

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
            place += len(self)
        label, size = self._labels[place], self._sizes[place]  # an IndexError behind the last one
        entry = Entry(self.paths[place], label, size, _SPLITS[self._splits[place]])
        if not self._more:
            return entry
        return entry._replace(**{name: column[place] for name, column in self._more.items()})

    def __iter__(self) -> Iterator[Entry]:
        return map(self.__getitem__, range(len(self)))


class Members(_Listing):
    """Some of the images in another order: 8 bytes each."""

    def __init__(self, entries: Entries, places: Places) -> None:
        self.entries = entries
        self.places = places

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
    if isinstance(entries, Members):
        entries = entries.entries
    return entries.files if isinstance(entries, Entries) else {e.file for e in entries} - {""}


def _find_repeated(paths: Iterable[bytes]) -> Iterator[int]:
    """The places of those that are equal to the one before."""
    for place, (one, other) in enumerate(itertools.pairwise(paths), 1):
        if one == other:
            yield place


def _take(numbers: "array[int]", places: Places) -> "array[int]":
    taken = array(numbers.typecode)
    taken.frombytes(np.frombuffer(numbers, numbers.typecode)[places].tobytes())
    return taken
