"""Objects of a store on a disk of this machine: bounded, checked, shared by processes.

    CACHE/<sha256>.whole           an object that had this checksum when it came
    CACHE/<sha256>.<bytes>.part    a download in progress, locked by the process that fetches it
    CACHE/lock                     held while room is made; says how much is taken

Objects are known by their checksum in the manifest, so a data set that replaces another never meets
what was kept of the old one. The least recently used file goes first. A download that was killed
is resumed. A file may be removed while it is read: a process that has it open keeps it.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from converter.errors import DatasetError, OutputError, ShardmillError, StoreError
from converter.sizes import format_bytes
from converter.storage.location import Location
from converter.storage.requests import read_patience
from reader.records.indexed_file import open_regular

LOCK: Final = "lock"  # name of the file that is locked while room is made
PAUSES_S: Final = (0.005, 0.05)  # the first and the longest
RECOUNT: Final = 1_000
"""How many objects come before the folder is listed again: of 100,000 files that takes 1 s."""

_PIECE_BYTES: Final = 1 << 20
_COUNTED: Final = re.compile(rb"(\d{1,19}) (\d{1,4})\n")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[0-9a-f]{64}\.(?:whole|(\d{1,19})\.part)")

_log = logging.getLogger("shardmill.reader")
# By checksum: when a download failed, and why.
failures: dict[str, tuple[float, ShardmillError]] = {}
# Files that this process has compared with their checksums, by `_identify`.
checked: set[tuple[int, ...]] = set()


class StoredObject(NamedTuple):
    """An object whose size and checksum are known from the manifest."""

    path: Location
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardCache:
    """A folder that keeps objects; it is created when it is needed."""

    folder: Path
    limit_bytes: int  # for all files in it

    def open(self, item: StoredObject) -> int:
        """Returns a descriptor of an object's content, and fetches that first if need be."""
        if not _SHA256.fullmatch(item.sha256):
            raise DatasetError(f"{item.path}: {item.sha256!r:.80} is not a SHA-256")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._open_or_fetch(item)
        except OSError as error:
            raise self.describe(error, item.path) from error

    def has(self, item: StoredObject) -> bool:
        """Whether an object is here, checked or not."""
        return bool(_SHA256.fullmatch(item.sha256)) and self._locate(item).exists()

    def touch(self, item: StoredObject) -> bool:
        """Marks an object as in use; returns whether it is here and has been checked."""
        if not _SHA256.fullmatch(item.sha256):
            return False
        path = self._locate(item)
        try:
            state = path.stat()
        except OSError:
            return False
        _mark_used(path, state)
        return _identify(state) in checked

    def describe(self, error: OSError, path: Location) -> ShardmillError:
        if error.filename == str(path):
            return DatasetError(f"{path} is missing: run shardmill verify")
        free = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            with contextlib.suppress(OSError):
                free = f" ({format_bytes(shutil.disk_usage(self.folder).free)} free)"
        return OutputError(
            f"{path} cannot be kept in {self.folder}: {error.strerror}{free}; make room, or choose "
            "another cache_dir or a smaller cache_bytes"
        )

    def _open_or_fetch(self, item: StoredObject) -> int:
        began, pauses = time.monotonic(), pause_until_stalled(self.folder, item.path)
        while True:
            if (found := self._open_whole(item)) is not None:
                return found
            with hold_lock(self.folder / LOCK) as lock:
                part = self._lock_part(item, lock)
            if part is None:
                next(pauses)
                continue
            try:
                failed, error = failures.get(item.sha256, (0.0, None))
                if error is not None and failed > began:  # while this thread waited for it
                    raise error
                return self._fetch(item, part)
            finally:
                _unlock_and_close(part)

    def _open_whole(self, item: StoredObject) -> int | None:
        """Opens an object that is here; removes it if it is damaged."""
        path = self._locate(item)
        try:
            descriptor = open_regular(path)
        except FileNotFoundError:
            return None
        state = os.fstat(descriptor)
        if not _is_intact(descriptor, state, item):
            os.close(descriptor)
            _log.warning("%s was damaged, and is fetched again: %s", path, item.path)
            path.unlink(missing_ok=True)
            return None
        _mark_used(path, state)
        return descriptor

    def _lock_part(self, item: StoredObject, lock: int) -> int | None:
        """Locks the part to download to; None if another process does, or if there is no room."""
        part, whole = self._locate(item, is_part=True), self._locate(item)
        is_begun = part.exists()
        if whole.exists() or not (is_begun or self._make_room(item.bytes, lock)):
            return None
        make = 0 if is_begun else os.O_CREAT | os.O_EXCL
        # Between any two of these lines, another process may have completed it or given it up.
        try:
            descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC | make, 0o600)
        except FileNotFoundError:
            return None
        if _try_lock(descriptor) and not whole.exists():
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), part.stat()):
                    return descriptor
        _unlock_and_close(descriptor)
        return None

    def _fetch(self, item: StoredObject, part: int) -> int:
        path = self._locate(item, is_part=True)
        for _ in range(2):
            self._download(item, path)
            state = os.fstat(part)
            if _is_intact(part, state, item):
                descriptor = open_regular(path)
                with hold_lock(self.folder / LOCK):  # `_make_room` has to count it once
                    path.rename(self._locate(item))
                    _mark_used(self._locate(item), state)
                return descriptor
            os.ftruncate(part, 0)  # an earlier run may have left damage
        path.unlink(missing_ok=True)
        raise DatasetError(
            f"{item.path} is not what was written: {item.bytes:,} bytes with another "
            "checksum than in the manifest, fetched twice; run shardmill verify"
        )

    def _download(self, item: StoredObject, path: Path) -> None:
        left = item.bytes - path.stat().st_size

        def count(size: int) -> None:
            nonlocal left
            left -= size
            if left < 0:
                raise DatasetError(
                    f"{item.path} has more than {item.bytes} bytes: run shardmill verify"
                )

        try:
            if left > 0:
                item.path.download(path, on_bytes=count)
        except StoreError as error:
            failures[item.sha256] = time.monotonic(), error
            raise
        except (OSError, DatasetError):
            path.unlink(missing_ok=True)
            raise

    def _make_room(self, size: int, lock: int) -> bool:
        """Removes what was least recently used; returns whether that makes enough room."""
        # What is removed by others is still counted here, until it seems that there is no room.
        total, left = _read_count(lock)
        if not left or total + size > self.limit_bytes:
            total, left = self._remove_oldest(size), RECOUNT
        if total + size > self.limit_bytes:
            return False
        os.ftruncate(lock, os.pwrite(lock, b"%d %d\n" % (total + size, left - 1), 0))
        return True

    def _remove_oldest(self, size: int) -> int:
        """Makes room for so many bytes, if that can be; returns what is left, in bytes."""
        files = sorted(_list_files(self.folder), key=lambda file: file.used_ns)
        total = sum(file.reserved_bytes for file in files)
        for file in files:
            if total + size <= self.limit_bytes:
                break
            if not file.is_part or _is_abandoned(file.path):
                file.path.unlink(missing_ok=True)
                total -= file.reserved_bytes
        return total

    def _locate(self, item: StoredObject, *, is_part: bool = False) -> Path:
        end = f"{item.bytes}.part" if is_part else "whole"
        return self.folder / f"{item.sha256}.{end}"


def _read_count(lock: int) -> tuple[int, int]:
    """What all files take, and how many may come until they are counted again; 0, 0 if unknown."""
    found = _COUNTED.fullmatch(os.pread(lock, 64, 0))
    return (int(found[1]), int(found[2])) if found else (0, 0)


class _CacheFile(NamedTuple):
    path: Path
    bytes: int
    reserved_bytes: int  # its size once it is complete
    used_ns: int
    is_part: bool


def pause_until_stalled(folder: Path, path: Location) -> Iterator[None]:
    """Pauses before each item, longer each time, while others fetch an object or free the cache."""
    (pause, longest), before = PAUSES_S, None
    # The downloader gives up a little earlier, and reports a more useful error.
    patience = read_patience() + 2 * longest
    while True:
        now = {(file.path, file.bytes) for file in _list_files(folder)}
        if now != before:
            before, moved = now, time.monotonic()
        elif time.monotonic() - moved > patience:
            raise StoreError(
                f"{path} is being fetched by another process, or others take all of the cache, and "
                f"nothing has moved for {patience:.0f} s: end them, or choose another cache_dir"
            )
        time.sleep(pause)
        yield
        pause = min(2 * pause, longest)


def _list_files(folder: Path) -> list[_CacheFile]:
    """Lists the files of a cache; other files in its folder are left alone."""
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if (match := _NAME.fullmatch(entry.name)) is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                state, is_part = entry.stat(follow_symlinks=False), match[1] is not None
                reserved_bytes = int(match[1]) if is_part else state.st_size
                used_ns = state.st_mtime_ns if is_part else state.st_atime_ns
                path = Path(entry.path)
                files.append(_CacheFile(path, state.st_size, reserved_bytes, used_ns, is_part))
    return files


def _is_intact(descriptor: int, state: os.stat_result, item: StoredObject) -> bool:
    """Compares a file with its checksum, once for each process and state of the file."""
    if state.st_size != item.bytes:
        return False
    if _identify(state) not in checked:
        digest, offset = hashlib.sha256(), 0
        while piece := os.pread(descriptor, _PIECE_BYTES, offset):
            digest.update(piece)
            offset += len(piece)
        if digest.hexdigest() != item.sha256:
            return False
        checked.add(_identify(state))
    return True


def _identify(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _mark_used(path: Path, state: os.stat_result) -> None:
    # Many systems do not keep the time of access.
    with contextlib.suppress(OSError):  # the file belongs to another user
        os.utime(path, ns=(time.time_ns(), state.st_mtime_ns))


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[int]:
    """Holds the lock of a file, and creates the file if it is missing; yields its descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        _unlock_and_close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock_and_close(descriptor: int) -> None:
    # Closing alone is not enough: a process forked meanwhile has the descriptor, and the lock, too.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _is_abandoned(part: Path) -> bool:
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return _try_lock(descriptor)
    finally:
        _unlock_and_close(descriptor)
