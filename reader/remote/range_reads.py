"""Single records of objects, without the rest: neighbours in one request, many requests at once.

What comes is written to a file without a name, where it lies in the object; so whatever reads
records from files reads these, too. An object that the cache has is read there. One of which as
much has been asked for as half of it is fetched as a whole, if the cache holds all of them: so an
epoch takes one and a half times the bytes at most, and the next one none.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Final, TypeAlias

import numpy as np

from converter.storage.location import Location, Reading
from reader.arrays import Numbers
from reader.records.indexed_file import Group, RecordFile
from reader.records.record_files import RecordFiles
from reader.remote.remote_file import RemoteFile, fits_cache

GAP_BYTES: Final = 1 << 16
"""Records with less between them are read with one request: it takes longer to ask again."""

PART_BYTES: Final = 1 << 23
"""A longer range is read with several requests."""

AHEAD_BYTES: Final = 1 << 24
"""Of answers that are on their way, or wait to be written."""

WHOLE_SHARE: Final = 0.5
"""Of a shard; once more of it has been asked for, all of it is fetched."""

INDEXES_AT_ONCE: Final = 16
OPEN_FILES: Final = 64

Range: TypeAlias = tuple[int, int]
"""Where a range begins, and its size."""


class RangeFiles(RecordFiles):
    """Record files in a store that are read record by record."""

    def __init__(self, files: Sequence[RecordFile], max_index_bytes: int = 1 << 30) -> None:
        super().__init__(files, max_index_bytes)
        self._asked_bytes: collections.Counter[Location] = collections.Counter()
        # Else each file that is fetched would drive another one out.
        self._are_kept = fits_cache(files)

    def find(self, numbers: Numbers) -> Iterator[Group]:
        """Finds where some records lie, and begins to ask for them; see `RecordFiles.find`."""
        groups = list(super().find(numbers))
        requests = Requests([(group, self._is_whole(group)) for group in groups])
        for number, group in enumerate(groups):
            yield group._replace(file=requests.wrap(number))

    def _is_whole(self, group: Group) -> bool:
        """Whether a file is read as a whole: it is here already, or so much of it was wanted."""
        file = group.file
        if not isinstance(file, RemoteFile) or file.cache.has(file.content):
            return True
        wanted = int((group.ends - group.begins).sum())
        with self._lock:
            self._asked_bytes[file.path] += wanted
            asked = self._asked_bytes[file.path] if self._are_kept else wanted
        return asked > WHOLE_SHARE * file.bytes

    def _prepare(self, missing: Sequence[RecordFile]) -> None:
        """Reads the indexes that are missing, many at the same time."""
        if len(missing) > 1:
            with ThreadPoolExecutor(INDEXES_AT_ONCE) as threads:
                collections.deque(threads.map(self._get_index, missing), maxlen=0)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FetchedFile(RecordFile):
    """A file of which only what was asked for is there.

    Attributes:
        fetch: gives a descriptor of it.
    """

    fetch: Callable[[], int]

    def open(self) -> int:
        return self.fetch()


class Requests:
    """Requests for some records, so many of them under way as may wait in memory.

    Args:
        groups: where the records lie, and whether the file is read as a whole; they are opened in
            this order, or nearly so.
    """

    def __init__(self, groups: Sequence[tuple[Group, bool]]) -> None:
        self._groups = [group for group, _ in groups]
        self._pieces = [[] if is_whole else list(_join(group)) for group, is_whole in groups]
        self._coming = collections.deque(
            (number, piece) for number, pieces in enumerate(self._pieces) for piece in pieces
        )
        self._answers: dict[tuple[int, Range], Reading] = {}
        self._ahead_bytes = 0
        self._opened: collections.OrderedDict[int, IO[bytes]] = collections.OrderedDict()
        weakref.finalize(self, _close, self._opened)

    def wrap(self, number: int) -> RecordFile:
        """The file of one of the groups, to be opened like any other."""
        file = self._groups[number].file
        if not self._pieces[number]:
            return file
        values = {field.name: getattr(file, field.name) for field in dataclasses.fields(RecordFile)}
        return FetchedFile(**values, fetch=functools.partial(self._open, number))

    def _open(self, number: int) -> int:
        file = self._groups[number].file
        assert isinstance(file, RemoteFile)  # noqa: S101 (others are not wrapped)
        try:
            if number not in self._opened:
                self._opened[number] = self._gather(number, file)
            while len(self._opened) > OPEN_FILES:
                self._opened.popitem(last=False)[1].close()
            return os.dup(self._opened[number].fileno())
        except OSError as error:
            raise file.cache.describe(error, file.path) from error

    def _gather(self, number: int, file: RemoteFile) -> IO[bytes]:
        """A file with nothing but some records in it, each at its place."""
        into = tempfile.TemporaryFile(dir=file.cache.folder)  # noqa: SIM115 (closed by `_close`)
        try:
            for piece in self._pieces[number]:
                into.seek(piece[0])
                into.write(self._take(number, piece))
            into.flush()
        except BaseException:
            into.close()
            raise
        return into

    def _take(self, number: int, piece: Range) -> bytes:
        while self._coming and self._ahead_bytes < AHEAD_BYTES:
            self._begin(*self._coming.popleft())
        if (number, piece) not in self._answers:
            self._begin(number, piece)
        try:
            return self._answers[number, piece].result()
        finally:
            del self._answers[number, piece]
            self._ahead_bytes -= piece[1]

    def _begin(self, number: int, piece: Range) -> None:
        path = self._groups[number].file.path
        self._answers[number, piece] = path.start_read(*piece)
        self._ahead_bytes += piece[1]


def _join(group: Group) -> Iterator[Range]:
    """The ranges that hold the records of a file, neighbours together."""
    apart = np.flatnonzero(group.begins[1:] > group.ends[:-1] + GAP_BYTES) + 1
    firsts, lasts = [0, *apart.tolist()], [*(apart - 1).tolist(), len(group.begins) - 1]
    for begin, end in zip(group.begins[firsts].tolist(), group.ends[lasts].tolist(), strict=True):
        for at in range(begin, end, PART_BYTES):
            yield at, min(PART_BYTES, end - at)


def _close(files: dict[int, IO[bytes]]) -> None:
    for file in files.values():
        file.close()
