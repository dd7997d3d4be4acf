"""Finds records by the names of their originals, in 16 bytes a record."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np

from converter.errors import RecordError
from converter.names import to_bytes


class NameIndex:
    """A sorted list of the names' hashes; a name is compared itself before it counts as found.

    Args:
        names: by record; of a damaged one, its error.
        read: gives the name of the record of a number again.
    """

    def __init__(self, names: Iterable[str | RecordError], read: Callable[[int], str]) -> None:
        self._read = read
        self._error: RecordError | None = None
        hashes = np.fromiter(map(self._note, names), np.uint64)
        self._numbers = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._numbers]

    def find(self, name: str) -> int:
        """The number of the record of that name.

        Raises:
            KeyError: there is none.
            RecordError: there is none, but that of a damaged record is not known.
        """
        wanted = np.uint64(_hash(name))
        first = np.searchsorted(self._hashes, wanted, side="left")
        last = np.searchsorted(self._hashes, wanted, side="right")
        for number in self._numbers[first:last]:
            if self._read(int(number)) == name:
                return int(number)
        raise self._error or KeyError(name)

    def _note(self, name: str | RecordError) -> int:
        if isinstance(name, str):
            return _hash(name)
        self._error = self._error or name
        return 0


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(to_bytes(name), digest_size=8).digest(), "little")
