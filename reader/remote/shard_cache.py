"""Objects of a store on a disk of this machine: bounded, checked, shared by processes.

    CACHE/<sha256>.whole           an object that had this checksum when it came
    CACHE/<sha256>.<bytes>.part    one on its way, locked by the process that fetches it
    CACHE/lock                     held while room is made

An object is known by the checksum in the manifest, so a data set that is replaced never meets what
was kept of the old one. What was not used for the longest time goes first, and a part that a kill
left behind goes on where it ended. A file may go while it is read: a process that has it open
keeps it.
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
from converter.storage.location import Location
from reader.records.indexed_file import open_regular
from reader.remote.cache_files import (
    LOCK,
    Watch,
    hold_lock,
    is_abandoned,
    is_checked,
    is_intact,
    is_named,
    list_kept,
    note_use,
    release,
    try_lock,
)

DEFAULT_BYTES: Final = 20_000_000_000

_SHA256: Final = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger("shardmill.reader")
_failures: dict[str, tuple[float, ShardmillError]] = {}
"""By checksum: when it could not be fetched, and why."""


class Content(NamedTuple):
    """An object that is known beforehand: its address, its size and its checksum."""

    path: Location
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardCache:
    """A folder that keeps objects.

    Attributes:
        folder: where; it is made when it is needed.
        limit_bytes: what all files in it may take.
    """

    folder: Path
    limit_bytes: int

    def open(self, content: Content) -> int:
        """A descriptor of an object's content, which is fetched first if it is not there.

        Raises:
            DatasetError: the object is missing, or has another content.
            OutputError: the cache cannot be written.
            StoreError: the store does not answer, or refuses.
        """
        if not _SHA256.fullmatch(content.sha256):
            raise DatasetError(f"{content.path}: {content.sha256!r:.80} is not a SHA-256")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._open_or_fetch(content)
        except OSError as error:
            raise self.describe(error, content.path) from error

    def has(self, content: Content) -> bool:
        """Whether an object is there, whatever its content."""
        return bool(_SHA256.fullmatch(content.sha256)) and self._locate(content).exists()

    def touch(self, content: Content) -> bool:
        """Says that an object is going to be used; whether it is there and has been checked."""
        if not _SHA256.fullmatch(content.sha256):
            return False
        path = self._locate(content)
        try:
            state = path.stat()
        except OSError:
            return False
        note_use(path, state)
        return is_checked(state)

    def describe(self, error: OSError, path: Location) -> ShardmillError:
        """The error for an object that cannot be kept."""
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

    def _open_or_fetch(self, content: Content) -> int:
        began, watch = time.monotonic(), Watch(self.folder, content.path)
        while True:
            found = self._open_whole(content)
            if found is not None:
                return found
            with hold_lock(self.folder / LOCK):
                part = self._claim(content)
            if part is None:
                watch.wait()
                continue
            try:
                failed, error = _failures.get(content.sha256, (0.0, None))
                if error is not None and failed > began:  # while this thread waited for it
                    raise error
                return self._fetch(content, part)
            finally:
                release(part)

    def _open_whole(self, content: Content) -> int | None:
        """A descriptor of what is there; what is damaged goes, to be fetched again."""
        path = self._locate(content)
        try:
            descriptor = open_regular(path)
        except FileNotFoundError:
            return None
        state = os.fstat(descriptor)
        if not is_intact(descriptor, state, content.bytes, content.sha256):
            os.close(descriptor)
            _log.warning("%s was damaged, and is fetched again: %s", path, content.path)
            path.unlink(missing_ok=True)
            return None
        note_use(path, state)
        return descriptor

    def _claim(self, content: Content) -> int | None:
        """The part to be filled, locked; None if another process fills it, or without room."""
        part, whole = self._locate(content, is_part=True), self._locate(content)
        is_begun = part.exists()
        if whole.exists() or not (is_begun or self._make_room(content.bytes)):
            return None
        make = 0 if is_begun else os.O_CREAT | os.O_EXCL
        # Between two of these lines it may have become whole, or have been given up.
        try:
            descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC | make, 0o600)
        except FileNotFoundError:
            return None
        if try_lock(descriptor) and not whole.exists() and is_named(descriptor, part):
            return descriptor
        release(descriptor)
        return None

    def _fetch(self, content: Content, part: int) -> int:
        path = self._locate(content, is_part=True)
        for _ in range(2):
            self._download(content, path)
            state = os.fstat(part)
            if is_intact(part, state, content.bytes, content.sha256):
                descriptor = open_regular(path)
                with hold_lock(self.folder / LOCK):  # `_make_room` has to see it once
                    path.rename(self._locate(content))
                    note_use(self._locate(content), state)
                return descriptor
            os.ftruncate(part, 0)  # what an earlier run left may have been damaged
        path.unlink(missing_ok=True)
        raise DatasetError(
            f"{content.path} is not what was written: {content.bytes:,} bytes with another "
            "checksum than in the manifest, fetched twice; run shardmill verify"
        )

    def _download(self, content: Content, path: Path) -> None:
        left = content.bytes - path.stat().st_size

        def count(size: int) -> None:
            nonlocal left
            left -= size
            if left < 0:
                raise DatasetError(
                    f"{content.path} has more than {content.bytes} bytes: run shardmill verify"
                )

        try:
            if left > 0:
                content.path.download(path, on_bytes=count)
        except StoreError as error:
            _failures[content.sha256] = time.monotonic(), error
            raise
        except (OSError, DatasetError):
            path.unlink(missing_ok=True)
            raise

    def _make_room(self, size: int) -> bool:
        """Removes what was not used for longest; whether there is room for so many bytes."""
        kept = sorted(list_kept(self.folder), key=lambda file: file.used)
        total = sum(file.bytes for file in kept) + size
        for file in kept:
            if total <= self.limit_bytes:
                break
            if not file.is_part or is_abandoned(file.path):
                file.path.unlink(missing_ok=True)
                total -= file.bytes
        return total <= self.limit_bytes

    def _locate(self, content: Content, *, is_part: bool = False) -> Path:
        end = f"{content.bytes}.part" if is_part else "whole"
        return self.folder / f"{content.sha256}.{end}"


def open_cache(
    cache_dir: str | os.PathLike[str] | None, cache_bytes: int | str | None
) -> ShardCache:
    """The cache in that folder, or in the user's; with that limit, or with `DEFAULT_BYTES`."""
    if cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
        folder = base / "shardmill"
    else:
        folder = Path(cache_dir).absolute()
    limit = DEFAULT_BYTES if cache_bytes is None else cache_bytes
    return ShardCache(
        folder=folder, limit_bytes=parse_bytes(limit) if isinstance(limit, str) else limit
    )


def check_room(cache: ShardCache, shards: Sequence[ShardInfo]) -> None:
    """Makes sure that each of some shards fits into a cache, with its index.

    Raises:
        UsageError: one does not; says what would do.
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
