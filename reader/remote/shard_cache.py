"""Objects of a store on a disk of this machine: bounded, checked, shared by processes.

    CACHE/<sha256>.whole           an object that had this checksum when it came
    CACHE/<sha256>.<bytes>.part    a download in progress, locked by the process that fetches it
    CACHE/lock                     held while room is made

Objects are known by their checksum in the manifest, so a data set that replaces another never meets
what was kept of the old one. The least recently used file goes first. A download that was killed
is resumed. A file may be removed while it is read: a process that has it open keeps it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from converter.errors import DatasetError, OutputError, ShardmillError, StoreError, UsageError
from converter.format.manifest import ShardInfo
from converter.sizes import format_bytes, parse_bytes
from converter.storage.locate import expand_home
from converter.storage.location import Location
from reader.records.indexed_file import open_regular
from reader.remote import cache_files

DEFAULT_BYTES: Final = 20_000_000_000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger("shardmill.reader")
# By checksum: when a download failed, and why.
_failures: dict[str, tuple[float, ShardmillError]] = {}


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
        """Returns a descriptor of an object's content, and fetches that first if need be.

        Raises:
            DatasetError: the object is missing, or not what was written.
            OutputError: the cache cannot be written.
            StoreError: the store does not answer, or refuses.
        """
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
        cache_files.mark_used(path, state)
        return cache_files.is_checked(state)

    def describe(self, error: OSError, path: Location) -> ShardmillError:
        """Explains why an object cannot be kept."""
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
        began, timer = time.monotonic(), cache_files.StallTimer(self.folder, item.path)
        while True:
            found = self._open_whole(item)
            if found is not None:
                return found
            with cache_files.hold_lock(self.folder / cache_files.LOCK):
                part = self._lock_part(item)
            if part is None:
                timer.wait()
                continue
            try:
                failed, error = _failures.get(item.sha256, (0.0, None))
                if error is not None and failed > began:  # while this thread waited for it
                    raise error
                return self._fetch(item, part)
            finally:
                cache_files.unlock_and_close(part)

    def _open_whole(self, item: StoredObject) -> int | None:
        """Opens an object that is here; removes it if it is damaged."""
        path = self._locate(item)
        try:
            descriptor = open_regular(path)
        except FileNotFoundError:
            return None
        state = os.fstat(descriptor)
        if not cache_files.is_intact(descriptor, state, item.bytes, item.sha256):
            os.close(descriptor)
            _log.warning("%s was damaged, and is fetched again: %s", path, item.path)
            path.unlink(missing_ok=True)
            return None
        cache_files.mark_used(path, state)
        return descriptor

    def _lock_part(self, item: StoredObject) -> int | None:
        """Locks the part to download to; None if another process does, or if there is no room."""
        part, whole = self._locate(item, is_part=True), self._locate(item)
        is_begun = part.exists()
        if whole.exists() or not (is_begun or self._make_room(item.bytes)):
            return None
        make = 0 if is_begun else os.O_CREAT | os.O_EXCL
        # Between any two of these lines, another process may have completed it or given it up.
        try:
            descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC | make, 0o600)
        except FileNotFoundError:
            return None
        if (
            cache_files.try_lock(descriptor)
            and not whole.exists()
            and cache_files.is_named(descriptor, part)
        ):
            return descriptor
        cache_files.unlock_and_close(descriptor)
        return None

    def _fetch(self, item: StoredObject, part: int) -> int:
        path = self._locate(item, is_part=True)
        for _ in range(2):
            self._download(item, path)
            state = os.fstat(part)
            if cache_files.is_intact(part, state, item.bytes, item.sha256):
                descriptor = open_regular(path)
                with cache_files.hold_lock(
                    self.folder / cache_files.LOCK
                ):  # `_make_room` has to count it once
                    path.rename(self._locate(item))
                    cache_files.mark_used(self._locate(item), state)
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
            _failures[item.sha256] = time.monotonic(), error
            raise
        except (OSError, DatasetError):
            path.unlink(missing_ok=True)
            raise

    def _make_room(self, size: int) -> bool:
        """Removes what was least recently used; returns whether that makes enough room."""
        files = sorted(cache_files.list_files(self.folder), key=lambda file: file.used_ns)
        total = sum(file.reserved_bytes for file in files) + size
        for file in files:
            if total <= self.limit_bytes:
                break
            if not file.is_part or cache_files.is_abandoned(file.path):
                file.path.unlink(missing_ok=True)
                total -= file.reserved_bytes
        return total <= self.limit_bytes

    def _locate(self, item: StoredObject, *, is_part: bool = False) -> Path:
        end = f"{item.bytes}.part" if is_part else "whole"
        return self.folder / f"{item.sha256}.{end}"


def open_cache(
    cache_dir: str | os.PathLike[str] | None, cache_bytes: int | str | None
) -> ShardCache:
    """Opens the cache in a folder, or in the user's; the default limit is `DEFAULT_BYTES`."""
    if cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
        folder = base / "shardmill"
    else:
        folder = Path(expand_home(cache_dir)).absolute()
    limit = DEFAULT_BYTES if cache_bytes is None else cache_bytes
    limit_bytes = parse_bytes(limit) if isinstance(limit, str) else limit
    return ShardCache(folder=folder, limit_bytes=limit_bytes)


def check_room(cache: ShardCache, shards: Sequence[ShardInfo]) -> None:
    """Makes sure that each of some shards fits into a cache, with its index.

    Raises:
        UsageError: one does not; names the size that would do.
    """
    shard_bytes = max((shard.bytes for shard in shards), default=0)
    index_bytes = max((shard.index_bytes for shard in shards), default=0)
    needed = shard_bytes + index_bytes
    if needed > cache.limit_bytes:
        raise UsageError(
            f"cache_bytes {format_bytes(cache.limit_bytes)} is too small: the largest shard has "
            f"{format_bytes(shard_bytes)} and the largest index {format_bytes(index_bytes)}; allow "
            f"at least {needed} bytes"
        )
