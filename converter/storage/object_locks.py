"""One writer at a time in an object store: an object that says who is writing.

It is created only if there is none. To take over the lock of a process that is gone, a writer first
creates a claim, an object named after the content of that very lock. So of several writers that
find it stale, one removes it, and none removes a new lock made meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from converter.errors import LockedError, ShardmillError
from converter.storage.layout import Layout
from converter.storage.object_requests import create_object, delete_object
from converter.storage.owners import check_broken, describe_self, dump_owner, parse_owner

if TYPE_CHECKING:  # which is built on this
    from converter.storage.objects import ObjectPath

_TRIES: Final = 20
_PAUSE_S: Final = 0.1


@contextlib.contextmanager
def lock_objects(folder: ObjectPath, *, break_lock: bool) -> Iterator[None]:
    """Keeps other writers out of a data set in a store; see `Location.lock`."""
    lock = Layout(folder).lock
    content = dump_owner(describe_self(), token=uuid.uuid4().hex)
    _acquire(folder, content, break_lock=break_lock)
    try:
        yield
    finally:
        with contextlib.suppress(ShardmillError, OSError):
            if lock.read_bytes() == content:
                delete_object(lock)


def _acquire(folder: ObjectPath, content: bytes, *, break_lock: bool) -> None:
    lock = Layout(folder).lock
    for _ in range(_TRIES):
        try:
            create_object(lock, content)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                found = lock.read_bytes()
                owner = parse_owner(found)
                if not owner.is_gone(unheld=False):
                    check_broken(folder, owner, break_lock=break_lock, other="prefix")
                _take_over(lock, found, content, break_lock=break_lock)
        else:
            return
        time.sleep(_PAUSE_S)
    raise LockedError(f"{folder} changes hands all the time: run the same command again")


def _take_over(lock: ObjectPath, found: bytes, content: bytes, *, break_lock: bool) -> None:
    """Removes a stale lock, unless someone else is about to."""
    claim = lock.with_name(f"{lock.name}.{hashlib.sha256(found).hexdigest()[:32]}")
    try:
        create_object(claim, content)
    except FileExistsError:
        other = parse_owner(claim.read_bytes())
        if other.is_gone(unheld=False) or (break_lock and not other.is_here()):
            delete_object(claim)
        return
    try:
        if lock.read_bytes() == found:
            delete_object(lock)
    finally:
        delete_object(claim)
