"""Columns of values, which take far less memory than a Python object for each."""

import itertools
from array import array
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from converter.names import from_bytes, to_bytes

Numbers: TypeAlias = npt.NDArray[np.int64]
Places: TypeAlias = npt.NDArray[np.integer[Any]]
"""Indices of entries."""
Buckets: TypeAlias = npt.NDArray[np.uint16]
"""The number of a bucket for each image."""


class Column(Protocol):
    """What entries have in one field; each kind says how many bytes that takes."""

    def append(self, value: Any, /) -> None: ...

    def __getitem__(self, place: int, /) -> Any: ...

    def take(self, places: Places, /) -> Any: ...


class Texts:
    """Texts, each with its bytes and 8 more."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._ends = array("q", (0,))

    @classmethod
    def of_buffer(cls, data: bytes, ends: Numbers) -> "Texts":
        """The texts in some bytes, with what `ends` gave of them."""
        texts = cls()
        texts.data, texts._ends = bytearray(data), array("q", ends.tobytes())
        return texts

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

    def read(self, place: int, stop: int | None = None) -> bytes:
        """The bytes of a text, or of all up to `stop`."""
        end = self._ends[place + 1 if stop is None else stop]
        return bytes(self.data[self._ends[place] : end])

    def iterate(self) -> Iterator[bytes]:
        """The bytes of all texts."""
        with memoryview(self.data) as data:
            for begin, end in itertools.pairwise(self._ends):
                yield bytes(data[begin:end])

    def take(self, places: Places) -> "Texts":
        taken, ends = Texts(), self._ends
        data, taken_ends = taken.data, taken._ends
        for place in places.data:
            data += self.data[ends[place] : ends[place + 1]]
            taken_ends.append(len(data))
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
        taken.numbers = take_numbers(self.numbers, places)
        return taken


class Integers:
    """Whole numbers: 8 bytes each."""

    def __init__(self) -> None:
        self._numbers = array("q")

    def __getitem__(self, place: int) -> int:
        return self._numbers[place]

    def append(self, number: int) -> None:
        self._numbers.append(number)

    def take(self, places: Places) -> "Integers":
        taken = Integers()
        taken._numbers = take_numbers(self._numbers, places)
        return taken


def deal(hashes: npt.NDArray[np.uint64], bits: int) -> Buckets:
    """The bucket of each hash, by its first bits, so that buckets are in the order of hashes."""
    if not bits:  # NumPy shifts nothing by 64 bits
        return np.zeros(len(hashes), np.uint16)
    buckets: Buckets = (hashes >> np.uint64(64 - bits)).astype(np.uint16)
    return buckets


def list_repeated(ordered: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The numbers among these in order that occur more than once, some of them several times."""
    repeated: npt.NDArray[Any] = ordered[1:][ordered[1:] == ordered[:-1]]
    return repeated


def find_repeated(numbers: npt.NDArray[Any]) -> Numbers:
    """The places of numbers that occur more than once: int64 (places,)."""
    repeated = list_repeated(np.sort(numbers))
    if not len(repeated):
        return np.empty(0, np.int64)
    return np.flatnonzero(np.isin(numbers, repeated))


def take_numbers(numbers: "array[int]", places: Places) -> "array[int]":
    """These of the numbers, in this order."""
    taken = array(numbers.typecode)
    taken.frombytes(np.frombuffer(numbers, numbers.typecode)[places].tobytes())
    return taken
