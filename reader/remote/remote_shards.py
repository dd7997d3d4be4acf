"""Shards in object stores: read through a cache that is filled ahead, or by ranges of records."""

import collections
import contextlib
import dataclasses
import functools
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final, TypeAlias

import numpy as np

from converter.errors import DatasetError, UsageError
from converter.format.manifest import Manifest, ShardInfo, read_manifest
from converter.sizes import format_bytes, parse_bytes
from converter.storage.files import Layout
from converter.storage.locate import expand_home
from converter.storage.location import Location
from converter.storage.requests import PATIENCE_VARIABLE, read_patience
from reader.arrays import Numbers
from reader.records.indexed_file import Group, RecordFile, check_size
from reader.records.record_files import MAX_INDEX_BYTES, RecordFiles
from reader.remote.shard_cache import ShardCache, StoredObject
from reader.sampling.orders import Steps

DEFAULT_BYTES: Final = 20_000_000_000  # of a cache
MIXED_SHARDS: Final = 8  # whose runs `shuffle="buffer"` mixes, where the cache holds them
_PAUSE_S: Final = 0.2
FETCHERS: Final = 4  # threads, each of which fetches one object at a time
SHARDS_AHEAD: Final = 32
SAMPLED_STEPS: Final = 256  # of the steps ahead, each by a few of its records
UPDATES: Final = 16  # how often the steps ahead are sampled while their number passes

GAP_BYTES: Final = 1 << 16  # a smaller gap is read along: another request would take longer
PART_BYTES: Final = 1 << 23  # a longer range is read with several requests
AHEAD_BYTES: Final = 1 << 24  # of answers that are on their way, or wait to be written
# Once more of a shard has been asked for, all of it is fetched: the first epoch then takes at most
# one and a half times the bytes, and the next one none.
WHOLE_SHARE: Final = 0.5
INDEXES_AT_ONCE: Final = 16
OPEN_FILES: Final = 64

Range: TypeAlias = tuple[int, int]  # offset and size in bytes


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile(RecordFile):
    """A shard in a store, kept in a cache once it has been fetched."""

    index_bytes: int
    index_sha256: str
    cache: ShardCache
    fetch: Callable[[], int] | None = None  # opens a file that holds only what was asked for

    @property
    def shard_object(self) -> StoredObject:
        return StoredObject(self.path, self.bytes, self.digest)

    @property
    def index_object(self) -> StoredObject:
        return StoredObject(self.index, self.index_bytes, self.index_sha256)

    @property
    def total_bytes(self) -> int:
        """What the shard and its index take in the cache."""
        return self.bytes + self.index_bytes

    def open(self) -> int:
        return self.fetch() if self.fetch else self.cache.open(self.shard_object)

    def open_index(self) -> int:
        return self.cache.open(self.index_object)


def list_remote(files: Sequence[RecordFile]) -> list[RemoteFile]:
    """Selects the files that lie in a store."""
    return [file for file in files if isinstance(file, RemoteFile)]


def fits_cache(files: Sequence[RecordFile]) -> bool:
    """Whether the cache holds all of these files at the same time."""
    remote = list_remote(files)
    needed = sum(file.total_bytes for file in remote)
    return not remote or needed <= min(file.cache.limit_bytes for file in remote)


def count_mixed(files: Sequence[RecordFile]) -> int:
    """Returns how many shards `shuffle="buffer"` mixes, with room left for as many that follow."""
    remote = list_remote(files)
    largest = max(file.total_bytes for file in remote)
    most = min(MIXED_SHARDS, max(1, remote[0].cache.limit_bytes // (2 * largest)))
    groups = -(-len(files) // most)
    return -(-len(files) // groups)  # the last group is not left with a single one


def await_manifest(folder: Location) -> Manifest:
    """Reads the manifest of a data set in a store, if need be after a replacement has ended.

    Raises a `DatasetError` if that or an object is not as written, or if a replacement was
    interrupted, or takes longer than a store may fail.
    """
    # A store cannot exchange two data sets in one step: the old manifest goes, and the new one
    # comes when all its objects are in place.
    end = time.monotonic() + read_patience()
    while True:
        try:
            return _read_checked(folder)
        except DatasetError:
            if not Layout(folder).replacing.is_file():
                return _read_checked(folder)  # it may have ended meanwhile
        if folder.find_owner() is None:
            raise DatasetError(
                f"{folder} was being replaced when that was interrupted: run the same convert "
                "command again, which ends it"
            )
        if time.monotonic() > end:
            raise DatasetError(
                f"{folder} is being replaced for longer than {read_patience():.0f} s: open it when "
                f"that has ended, or be more patient with {PATIENCE_VARIABLE}"
            )
        time.sleep(_PAUSE_S)


def _read_checked(folder: Location) -> Manifest:
    manifest, sizes = read_manifest(folder), folder.list_sizes()
    for shard in manifest.shards:
        for name, size in shard.file_sizes.items():
            if name not in sizes:
                raise DatasetError(f"{folder / name} is missing")
            check_size(folder / name, sizes[name], size)
    return manifest


def open_cache(folder: str | os.PathLike[str] | None, limit: int | str | None) -> ShardCache:
    """Opens the cache in a folder, or in the user's; the default limit is `DEFAULT_BYTES`."""
    if folder is None:
        home = Path(os.environ.get("XDG_CACHE_HOME", ""))
        folder = (home if home.is_absolute() else Path.home() / ".cache") / "shardmill"
    limit = DEFAULT_BYTES if limit is None else limit
    limit_bytes = parse_bytes(limit) if isinstance(limit, str) else limit
    return ShardCache(folder=Path(expand_home(folder)).absolute(), limit_bytes=limit_bytes)


def check_room(cache: ShardCache, shards: Sequence[ShardInfo]) -> None:
    """Raises a `UsageError` if a shard and its index do not fit into a cache."""
    shard_bytes = max((shard.bytes for shard in shards), default=0)
    index_bytes = max((shard.index_bytes for shard in shards), default=0)
    if shard_bytes + index_bytes > cache.limit_bytes:
        raise UsageError(
            f"cache_bytes {format_bytes(cache.limit_bytes)} is too small: the largest shard has "
            f"{format_bytes(shard_bytes)} and the largest index {format_bytes(index_bytes)}; allow "
            f"at least {shard_bytes + index_bytes} bytes"
        )


class ShardPrefetcher:
    """Fetches the shards of the steps to come; at least one of the files lies in a store.

    Those that are here already are marked as in use, so that none of them is removed for another.
    """

    def __init__(self, files: Sequence[RecordFile], steps: Steps) -> None:
        self._files = files
        self._ends = np.cumsum([file.records for file in files], dtype=np.int64)
        self._cache = list_remote(files)[0].cache
        self._count = steps.count
        ahead = int(self._ends[-1]) * SHARDS_AHEAD // len(files) // steps.batch_size
        self._horizon = max(1, min(ahead, steps.count))
        self._updated = (-1, 0)
        self._wanted: collections.deque[StoredObject] = collections.deque()
        self._busy: set[StoredObject] = set()
        self._threads: list[threading.Thread] = []
        weakref.finalize(self, self._wanted.clear)

    def update(
        self, epoch: int, step: int, numbers: Numbers, sample: Callable[[int, list[int]], Numbers]
    ) -> None:
        """Starts to fetch what is needed after a step, whose records are `numbers`.

        `sample` returns the numbers of a few records of each of some steps of an epoch, in order.
        """
        last_epoch, last_step = self._updated
        if epoch == last_epoch and last_step <= step < last_step + self._horizon // UPDATES:
            return
        self._updated = epoch, step
        stride = max(1, self._horizon // SAMPLED_STEPS)
        later = list(range(step + 1, step + self._horizon, stride))
        here = [number for number in later if number < self._count]
        samples = [sample(epoch, here)] if here else []
        if len(here) < len(later):
            samples.append(sample(epoch + 1, [n - self._count for n in later[len(here) :]]))
        self._fetch_files(np.concatenate([numbers, *samples]))

    def _fetch_files(self, numbers: Numbers) -> None:
        which = np.searchsorted(self._ends, numbers, side="right").tolist()
        needed, left = [], self._cache.limit_bytes
        for file in list_remote([self._files[number] for number in dict.fromkeys(which)]):
            left -= file.total_bytes
            if left < 0:
                break
            needed += [file.index_object, file.shard_object]
        # What is needed first is touched last, and so kept longest.
        missing = [item for item in reversed(needed) if not self._cache.touch(item)]
        self._wanted.clear()
        self._wanted.extend(reversed(missing))
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        while len(self._threads) < min(FETCHERS, len(missing)):
            # Python joins the threads of executors: a script's end would wait for a shard.
            arguments = (self._cache, self._wanted, self._busy)
            self._threads.append(threading.Thread(target=_fetch_all, args=arguments, daemon=True))
            self._threads[-1].start()


def _fetch_all(
    cache: ShardCache, wanted: collections.deque[StoredObject], busy: set[StoredObject]
) -> None:
    while wanted:
        with contextlib.suppress(Exception):  # the reader meets the same error itself
            item = wanted.popleft()
            if item in busy:
                continue
            busy.add(item)
            try:
                os.close(cache.open(item))
            finally:
                busy.discard(item)


class RangeRequests:
    """Requests for ranges of some files, as many at once as their answers may wait in memory.

    Answers are written to a file without a name, each at its place in the object, so that records
    are read from it like from any other file.
    """

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


class RangeFiles(RecordFiles):
    """Record files in a store that are read record by record, without the rest of their shards."""

    def __init__(self, files: Sequence[RecordFile], max_index_bytes: int = MAX_INDEX_BYTES) -> None:
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

    def _prefetch_indexes(self, missing: Sequence[int]) -> None:
        with ThreadPoolExecutor(INDEXES_AT_ONCE) as threads:
            collections.deque(threads.map(self._get_index, missing), maxlen=0)


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
