"""One writer at a time in an object store: an object that says who is writing.

It is made only if there is none. The lock of a process that is gone is taken over by whoever makes
an object that is named after that very lock; so of several who find it stale, one removes it, and
none removes the lock that another one has made meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from converter.errors import LockedError, ShardmillError
from converter.storage.layout import Layout
from converter.storage.object_requests import create_object, delete_object, read_object
from converter.storage.owners import Owner, check_broken, describe_self, parse_owner

if TYPE_CHECKING:  # which is built on this
    from converter.storage.objects import ObjectPath

_TRIES: Final = 20
_PAUSE_S: Final = 0.1


@contextlib.contextmanager
def lock_objects(folder: ObjectPath, *, break_lock: bool) -> Iterator[None]:
    """Keeps every other writer out of a data set in a store.

    Args:
        folder: the data set.
        break_lock: take the lock of an owner on another machine, of whom nothing is known here.

    Raises:
        LockedError: somebody else is writing there, or may be.
        StoreError: the store does not answer, or refuses.
    """
    lock = Layout(folder).lock
    owner = {**dataclasses.asdict(describe_self()), "token": uuid.uuid4().hex}
    content = json.dumps(owner).encode("ascii")
    _acquire(folder, content, break_lock=break_lock)
    try:
        yield
    finally:
        with contextlib.suppress(ShardmillError, OSError):
            if read_object(lock) == content:
                delete_object(lock)


def find_object_owner(folder: ObjectPath) -> Owner | None:
    """Who is writing to a data set in a store, or may be; None if nobody is.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    try:
        owner = parse_owner(read_object(Layout(folder).lock))
    except FileNotFoundError:
        return None
    return None if owner.is_gone(unheld=False) else owner


def _acquire(folder: ObjectPath, content: bytes, *, break_lock: bool) -> None:
    lock = Layout(folder).lock
    for _ in range(_TRIES):
        try:
            create_object(lock, content)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                found = read_object(lock)
                owner = parse_owner(found)
                if not owner.is_gone(unheld=False):
                    check_broken(folder, owner, break_lock=break_lock, other="prefix")
                _take_over(lock, found, content, break_lock=break_lock)
        else:
            return
        time.sleep(_PAUSE_S)
    raise LockedError(f"{folder} changes hands all the time: run the same command again")


def _take_over(lock: ObjectPath, found: bytes, content: bytes, *, break_lock: bool) -> None:
    """Removes a stale lock, unless somebody else is about to."""
    claim = lock.with_name(f"{lock.name}.{hashlib.sha256(found).hexdigest()[:32]}")
    try:
        create_object(claim, content)
    except FileExistsError:
        other = parse_owner(read_object(claim))
        if other.is_gone(unheld=False) or (break_lock and not other.is_here()):
            delete_object(claim)
        return
    try:
        if read_object(lock) == found:
            delete_object(lock)
    finally:
        delete_object(claim)
