"""Single records of objects, without the rest: neighbours in one request, many requests at once.

Answers are written to a file without a name, each at its place in the object, so that records are
read from it like from any other file. An object that the cache has is read there.
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

from converter.storage.location import Location
from reader.arrays import Numbers
from reader.records.indexed_file import Group, RecordFile
from reader.records.record_files import RecordFiles
from reader.remote.remote_shards import RemoteFile, fits_cache

GAP_BYTES: Final = 1 << 16  # a smaller gap is read along: another request would take longer
PART_BYTES: Final = 1 << 23  # a longer range is read with several requests
AHEAD_BYTES: Final = 1 << 24  # of answers that are on their way, or wait to be written
# Once more of a shard has been asked for, all of it is fetched: the first epoch then takes at most
# one and a half times the bytes, and the next one none.
WHOLE_SHARE: Final = 0.5
INDEXES_AT_ONCE: Final = 16
OPEN_FILES: Final = 64

Range: TypeAlias = tuple[int, int]  # offset and size in bytes


class RangeFiles(RecordFiles):
    """Record files in a store that are read record by record."""

    def __init__(self, files: Sequence[RecordFile], max_index_bytes: int = 1 << 30) -> None:
        super().__init__(files, max_index_bytes)
        self._asked_bytes: collections.Counter[Location] = collections.Counter()
        # Otherwise, each file that is fetched would drive out another.
        self._are_kept = fits_cache(files)

    def locate(self, numbers: Numbers) -> Iterator[Group]:
        requests = RangeRequests()
        yield from [self._request(group, requests) for group in super().locate(numbers)]

    def _request(self, group: Group, requests: RangeRequests) -> Group:
        file = group.file
        if not isinstance(file, RemoteFile) or file.cache.has(file.shard_object):
            return group
        wanted = int(group.sizes.sum())
        with self.lock:
            self._asked_bytes[file.path] += wanted
            asked = self._asked_bytes[file.path] if self._are_kept else wanted
        if asked > WHOLE_SHARE * file.bytes:
            return group
        return group._replace(file=requests.add(file, list(list_ranges(group))))

    def _prefetch_indexes(self, missing: Sequence[RecordFile]) -> None:
        if len(missing) > 1:
            with ThreadPoolExecutor(INDEXES_AT_ONCE) as threads:
                collections.deque(threads.map(self._get_index, missing), maxlen=0)


class RangeRequests:
    """Requests for ranges of some files, as many at once as their answers may wait in memory."""

    def __init__(self) -> None:
        self._coming: collections.deque[tuple[Location, Range]] = collections.deque()
        self._answers: dict[tuple[Location, Range], Callable[[], bytes]] = {}
        self.ahead_bytes = 0
        self._opened: collections.OrderedDict[Location, IO[bytes]] = collections.OrderedDict()
        weakref.finalize(self, _close, self._opened)

    def add(self, file: RemoteFile, pieces: Sequence[Range]) -> RemoteFile:
        """Returns a file that holds these pieces; files are best opened in the order added."""
        self._coming.extend((file.path, piece) for piece in pieces)
        return dataclasses.replace(file, fetch=functools.partial(self._open, file, pieces))

    def _open(self, file: RemoteFile, pieces: Sequence[Range]) -> int:
        try:
            if file.path not in self._opened:
                self._opened[file.path] = self._collect(file, pieces)
            while len(self._opened) > OPEN_FILES:
                self._opened.popitem(last=False)[1].close()
            # The caller closes what it gets.
            return os.dup(self._opened[file.path].fileno())
        except OSError as error:
            raise file.cache.describe(error, file.path) from error

    def _collect(self, file: RemoteFile, pieces: Sequence[Range]) -> IO[bytes]:
        into = tempfile.TemporaryFile(dir=file.cache.folder)  # noqa: SIM115 (closed by `_close`)
        try:
            for piece in pieces:
                into.seek(piece[0])
                into.write(self._take(file.path, piece))
            into.flush()
        except BaseException:
            into.close()
            raise
        return into

    def _take(self, path: Location, piece: Range) -> bytes:
        while self._coming and self.ahead_bytes < AHEAD_BYTES:
            self.begin(*self._coming.popleft())
        if (path, piece) not in self._answers:
            self.begin(path, piece)
        self.ahead_bytes -= piece[1]
        return self._answers.pop((path, piece))()

    def begin(self, path: Location, piece: Range) -> None:
        self._answers[path, piece] = path.start_read(*piece)
        self.ahead_bytes += piece[1]


def list_ranges(group: Group) -> Iterator[Range]:
    """Lists the ranges that hold the records of a file, neighbours together."""
    apart = np.flatnonzero(group.begins[1:] > group.ends[:-1] + GAP_BYTES) + 1
    firsts, lasts = [0, *apart.tolist()], [*(apart - 1).tolist(), len(group.begins) - 1]
    for begin, end in zip(group.begins[firsts].tolist(), group.ends[lasts].tolist(), strict=True):
        for at in range(begin, end, PART_BYTES):
            yield at, min(PART_BYTES, end - at)


def _close(files: dict[Location, IO[bytes]]) -> None:
    for file in files.values():
        file.close()
