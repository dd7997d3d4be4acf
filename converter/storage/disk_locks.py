"""One writer at a time on a disk: a file in the work folder that says who is writing.

The file appears with its content and a `flock` on it, in one step. The system drops the flock when
its process ends, however it ends. So on one machine a lock without a flock is stale, and the next
writer takes it over. Where `flock` does not work, or the owner runs on another machine, the file
itself counts: host, boot and start time of the process say whether it is gone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from converter.errors import LockedError, OutputError
from converter.storage.atomic import link_file
from converter.storage.layout import Layout
from converter.storage.owners import Owner, check_broken, describe_self, dump_owner, parse_owner

if TYPE_CHECKING:  # which is built on this
    from converter.storage.disk import DiskPath

_TRIES: Final = 20
_PAUSE_S: Final = 0.005
_OWNER_BYTES: Final = 4096
_UNSUPPORTED: Final = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def lock_disk(folder: DiskPath, *, break_lock: bool, moves_to: DiskPath) -> Iterator[None]:
    """Keeps other writers out of a data set's folder; see `Location.lock`."""
    layout = Layout(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        descriptor = _acquire(layout, break_lock=break_lock)
    except OSError as error:
        _remove_empty(layout, made)
        raise OutputError(
            f"{error.filename or layout.lock} cannot be written: {error.strerror}"
        ) from error
    try:
        yield
    finally:
        for place in (layout, Layout(moves_to)):
            with contextlib.suppress(OSError):
                if _is_same(place.lock, descriptor):
                    place.lock.unlink()
            _remove_empty(place, made)
        os.close(descriptor)


def find_disk_owner(folder: DiskPath) -> Owner | None:
    """Finds who is writing to a folder; see `Location.find_owner`."""
    try:
        descriptor = os.open(Layout(folder).lock, os.O_RDONLY)
    except OSError:
        return None
    try:
        held = _try_flock(descriptor) is False
        owner = parse_owner(os.pread(descriptor, _OWNER_BYTES, 0))
    finally:
        os.close(descriptor)
    return owner if held or not owner.is_gone(unheld=True) else None


def _acquire(layout: Layout[DiskPath], *, break_lock: bool) -> int:
    for _ in range(_TRIES):
        # A writer that finishes meanwhile removes the folders.
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            _make_scratch(layout)
            descriptor = _create(layout)
            if descriptor is not None:
                return descriptor
            _remove_stale(layout, break_lock=break_lock)
        time.sleep(_PAUSE_S)
    raise LockedError(f"{layout.out} changes hands all the time: run the same command again")


def _make_scratch(layout: Layout[DiskPath]) -> None:
    try:
        layout.scratch.make_folder()
    except FileExistsError:
        for path in (layout.scratch, *layout.scratch.parents):
            if os.path.lexists(path) and not path.is_dir():
                raise OutputError(f"{path} is in the way: it has to be a folder") from None
        raise  # someone has just removed the folder


def _create(layout: Layout[DiskPath]) -> int | None:
    """Writes the lock and returns its descriptor; None if there is one already."""
    temporary = layout.scratch / f"{layout.lock.name}.{uuid.uuid4().hex}"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        _try_flock(descriptor)
        os.write(descriptor, dump_owner(describe_self()))
        if not link_file(temporary, layout.lock):
            temporary.replace(layout.lock)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, FileExistsError):
            return None
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return descriptor


def _remove_stale(layout: Layout[DiskPath], *, break_lock: bool) -> None:
    """Removes the lock of an owner that is gone, while holding its flock."""
    with open(layout.lock, "r+b", buffering=0) as file:
        taken = _try_flock(file.fileno())
        owner = parse_owner(file.read(_OWNER_BYTES))
        held = taken is False
        if held or not owner.is_gone(unheld=taken is True):
            check_broken(layout.out, owner, break_lock=break_lock, other="folder", runs=held)
        if _is_same(layout.lock, file.fileno()):
            layout.lock.unlink()


def _try_flock(descriptor: int) -> bool | None:
    """Takes the flock of an open file; False if someone else holds it, None if there are none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return True


def _is_same(path: Path, descriptor: int) -> bool:
    return path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor))


def _remove_empty(layout: Layout[DiskPath], made: list[DiskPath]) -> None:
    """Removes the folders that only the lock needed."""
    for path in (layout.scratch, layout.work, *made):
        path.remove_empty()
