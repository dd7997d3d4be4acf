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

LOCK: Final = "lock"
"""Name of the file that is locked while room is made."""

PAUSES_S: Final = (0.005, 0.05)
"""The first and the longest between two looks at what another process does."""

_HASHED_BYTES: Final = 1 << 20
_KEPT: Final = re.compile(r"[0-9a-f]{64}\.(?:whole|(\d{1,19})\.part)")

_checked: set[tuple[int, ...]] = set()
"""Files that this process has compared with their checksums: device, number, size, time."""


class Kept(NamedTuple):
    """A file of a cache: what it may take, when it was used, whether it is a part."""

    path: Path
    bytes: int
    used: int
    is_part: bool


class Watch:
    """Waits for what other threads and processes do, as long as they get on.

    Args:
        folder: the cache.
        path: what is waited for.
    """

    def __init__(self, folder: Path, path: Location) -> None:
        self._folder = folder
        self._path = path
        self._pause, self._longest = PAUSES_S
        # The downloader waits as long, and reports a more useful error.
        self._patience = read_patience() + 2 * self._longest
        self._moved = time.monotonic()
        self._seen: set[tuple[Path, int]] = set()

    def wait(self) -> None:
        """Pauses, the longer the more often.

        Raises:
            StoreError: nothing has moved in it for too long.
        """
        seen = {(file.path, _measure(file.path)) for file in list_kept(self._folder)}
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


def list_kept(folder: Path) -> list[Kept]:
    """What is kept in a folder; other files in there are left alone."""
    kept = []
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _KEPT.fullmatch(entry.name)
            with contextlib.suppress(FileNotFoundError):
                if match is not None:
                    kept.append(_describe_kept(entry, match[1]))
    return kept


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Holds the lock of a file, which is made if there is none."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        release(descriptor)


def is_intact(descriptor: int, state: os.stat_result, size: int, sha256: str) -> bool:
    """Compares a file with its checksum, once for each process and state of the file."""
    if state.st_size != size:
        return False
    if not is_checked(state):
        if _hash(descriptor) != sha256:
            return False
        _checked.add(_identify(state))
    return True


def is_checked(state: os.stat_result) -> bool:
    """Whether this process has compared a file in that state."""
    return _identify(state) in _checked


def _identify(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _hash(descriptor: int) -> str:
    digest, offset = hashlib.sha256(), 0
    while piece := os.pread(descriptor, _HASHED_BYTES, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.hexdigest()


def note_use(path: Path, state: os.stat_result) -> None:
    """Sets the time of use, which many systems do not keep; that of the content stays."""
    with contextlib.suppress(OSError):  # the file belongs to another user
        os.utime(path, ns=(time.time_ns(), state.st_mtime_ns))


def _describe_kept(entry: os.DirEntry[str], part_bytes: str | None) -> Kept:
    state = entry.stat(follow_symlinks=False)
    if part_bytes is None:
        return Kept(Path(entry.path), state.st_size, state.st_atime_ns, is_part=False)
    return Kept(Path(entry.path), int(part_bytes), state.st_mtime_ns, is_part=True)


def _measure(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return -1


def try_lock(descriptor: int) -> bool:
    """Locks a file; False if another process has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_abandoned(part: Path) -> bool:
    """Whether no process fills a part any more."""
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return try_lock(descriptor)
    finally:
        release(descriptor)


def is_named(descriptor: int, path: Path) -> bool:
    """Whether an open file still has its name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def release(descriptor: int) -> None:
    """Unlocks a file and closes it."""
    # A process that was forked meanwhile has the descriptor too, and would keep the lock.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
