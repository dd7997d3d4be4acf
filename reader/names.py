"""Finds records by the names of their originals, in 16 bytes a record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from converter.names import to_bytes


class NameIndex:
    """A sorted list of the names' hashes; a name is compared itself before it counts as found.

    Args:
        names: by record; all are read once, and single ones again when they are looked for.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        hashes = np.fromiter((_hash(name) for name in names), np.uint64, len(names))
        self._numbers = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._numbers]

    def find(self, name: str) -> int:
        """The number of the record of that name.

        Raises:
            KeyError: there is none.
        """
        wanted = np.uint64(_hash(name))
        first = np.searchsorted(self._hashes, wanted, side="left")
        last = np.searchsorted(self._hashes, wanted, side="right")
        for number in self._numbers[first:last]:
            if self._names[int(number)] == name:
                return int(number)
        raise KeyError(name)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(to_bytes(name), digest_size=8).digest(), "little")
