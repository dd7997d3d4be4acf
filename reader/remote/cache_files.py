"""Files of a cache: listed, compared with their checksums, and locked while they are downloaded."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from converter.errors import StoreError
from converter.storage.location import Location
from converter.storage.requests import read_patience

LOCK: Final = "lock"  # name of the file that is locked while room is made
PAUSES_S: Final = (0.005, 0.05)  # the first and the longest
_PIECE_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[0-9a-f]{64}\.(?:whole|(\d{1,19})\.part)")

# Files that this process has compared with their checksums, by `_identify`.
_checked: set[tuple[int, ...]] = set()


class CacheFile(NamedTuple):
    """A file of a cache."""

    path: Path
    bytes: int
    reserved_bytes: int  # its size once it is complete
    used_ns: int
    is_part: bool


class StallTimer:
    """Waits for an object that others fetch, as long as they make progress in a cache."""

    def __init__(self, folder: Path, path: Location) -> None:
        self._folder = folder
        self._path = path
        self._pause, self._longest = PAUSES_S
        # The downloader gives up a little earlier, and reports a more useful error.
        self._patience = read_patience() + 2 * self._longest
        self._moved = time.monotonic()
        self._seen: set[tuple[Path, int]] = set()

    def wait(self) -> None:
        """Pauses, longer each time; raises a `StoreError` if nothing has changed for too long."""
        seen = {(file.path, file.bytes) for file in list_files(self._folder)}
        if seen != self._seen:
            self._seen, self._moved = seen, time.monotonic()
        elif time.monotonic() - self._moved > self._patience:
            raise StoreError(
                f"{self._path} is being fetched by another process, or others take all of the "
                f"cache, and nothing has moved for {self._patience:.0f} s: end them, or choose "
                "another cache_dir"
            )
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, self._longest)


def list_files(folder: Path) -> list[CacheFile]:
    """Lists the files of a cache; other files in its folder are left alone."""
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if (match := _NAME.fullmatch(entry.name)) is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                state, path = entry.stat(follow_symlinks=False), Path(entry.path)
                size = state.st_size
                files.append(
                    CacheFile(path, size, size, state.st_atime_ns, is_part=False)
                    if match[1] is None
                    else CacheFile(path, size, int(match[1]), state.st_mtime_ns, is_part=True)
                )
    return files


def is_intact(descriptor: int, state: os.stat_result, size: int, sha256: str) -> bool:
    """Compares a file with its checksum, once for each process and state of the file."""
    if state.st_size != size:
        return False
    if not is_checked(state):
        digest, offset = hashlib.sha256(), 0
        while piece := os.pread(descriptor, _PIECE_BYTES, offset):
            digest.update(piece)
            offset += len(piece)
        if digest.hexdigest() != sha256:
            return False
        _checked.add(_identify(state))
    return True


def is_checked(state: os.stat_result) -> bool:
    """Whether this process has compared a file in that state."""
    return _identify(state) in _checked


def _identify(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def mark_used(path: Path, state: os.stat_result) -> None:
    """Sets the time of access, which many systems do not keep; that of the content stays."""
    with contextlib.suppress(OSError):  # the file belongs to another user
        os.utime(path, ns=(time.time_ns(), state.st_mtime_ns))


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Holds the lock of a file, and creates the file if it is missing."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        unlock_and_close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Locks a file, unless another process has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock_and_close(descriptor: int) -> None:
    """Closes a file that was locked."""
    # Closing alone is not enough: a process forked meanwhile has the descriptor, and the lock, too.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def is_abandoned(part: Path) -> bool:
    """Whether no process is downloading to a part."""
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return try_lock(descriptor)
    finally:
        unlock_and_close(descriptor)


def is_named(descriptor: int, path: Path) -> bool:
    """Whether an open file still has its name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
