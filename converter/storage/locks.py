"""One writer at a time in a data set's folder: a lock that says which process writes.

On a disk the lock is a file that appears with its content and a `flock` on it, in one step. The
system drops the flock when its process ends. So on one machine a lock without a flock is stale, and
the next writer takes it over. Where `flock` does not work, or the owner runs on another machine,
host, boot and start time of the process say whether it is gone.

In a store the lock is an object, created only if there is none. To take over a stale one, a writer
first creates a claim, an object named after the content of that very lock. So one of several
writers removes it, and none removes a new lock made meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from converter.errors import LockedError, OutputError, ShardmillError
from converter.storage.files import Layout, hash_bytes, link_file, write_file
from converter.storage.location import Location
from converter.storage.object_requests import create_object

if TYPE_CHECKING:  # which are built on this
    from converter.storage.disk import DiskPath
    from converter.storage.objects import ObjectPath

MACHINE_FILE: Final = Path("/etc/machine-id")
_BOOT_FILE: Final = Path("/proc/sys/kernel/random/boot_id")
_SIGN: Final = "owner.json"
_OWNER_BYTES: Final = 4096
_TRIES: Final = 20
_DISK_PAUSE_S: Final = 0.005
_STORE_PAUSE_S: Final = 0.1
# What file systems without flock answer, such as some of NFS and FUSE.
_NO_FLOCK: Final = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The process that holds a lock; by default an unknown one, which may be anywhere."""

    host: str = "an unknown host"
    boot: str = "?"  # changes with each boot of the machine; empty if the system has no such value
    machine: str = ""  # the machine's permanent identity; many containers have none
    space: str = ""  # the namespace of `pid`, which tells containers apart
    pid: int = 0
    started: str = ""  # when the process began, by the system's clock, to notice a reused `pid`
    since: str = "an unknown time"  # when the lock was taken, for people

    def is_here(self) -> bool:
        """Tells whether it runs, or ran, where this process could see it."""
        here = _read_text(_BOOT_FILE), _read_space()
        return bool(self.boot) and (self.boot, self.space) == here

    def is_gone(self, *, unheld: bool) -> bool:
        """Tells whether it is known to have ended; `unheld` if no process here has its `flock`."""
        is_host = self.host == socket.gethostname()
        if self.boot != _read_text(_BOOT_FILE):
            # This machine was restarted, or it is another one, which may have the same name.
            return is_host and bool(self.machine) and self.machine == _read_text(MACHINE_FILE)
        if not self.boot and not is_host:
            return False
        # A container has other process numbers, but the same flocks.
        return unheld or (self.space == _read_space() and _read_start(self.pid) != self.started)


def check_broken(
    place: Location, owner: Owner, *, break_lock: bool, runs: bool | None = None
) -> None:
    """Raises a LockedError for the owner of a data set's lock, who is not known to be gone.

    `break_lock` treats the lock as stale, unless the owner runs: as `runs` says, or by default if
    this process could see it.
    """
    other = "prefix" if place.is_remote else "folder"
    who = f"process {owner.pid} on {owner.host}, since {owner.since}"
    if owner.is_here() if runs is None else runs:
        raise LockedError(
            f"{place} is being written by {who}: wait for it to end, or choose another {other}"
        )
    if not break_lock:
        raise LockedError(
            f"{place} is locked by {who}, which may still be running: if it is not, run again with "
            "--break-lock"
        )


def sign_folder(folder: Location) -> None:
    """Signs a folder that this process has made, for `is_deserted`; raises OutputError."""
    write_file(folder / _SIGN, dump_owner(describe_self()), folder)


def is_deserted(folder: Location) -> bool:
    """Tells whether the process that signed a folder is known to be gone."""
    try:
        return parse_owner((folder / _SIGN).read_bytes()).is_gone(unheld=False)
    except OSError:
        return False


def describe_self() -> Owner:
    """Describes this process."""
    return Owner(
        host=socket.gethostname(),
        boot=_read_text(_BOOT_FILE),
        machine=_read_text(MACHINE_FILE),
        space=_read_space(),
        pid=os.getpid(),
        started=_read_start(os.getpid()),
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def dump_owner(owner: Owner, **more: str) -> bytes:
    """Serializes an owner for `parse_owner`, which ignores `more`."""
    return json.dumps({**dataclasses.asdict(owner), **more}).encode("ascii")


def parse_owner(data: bytes) -> Owner:
    """Parses the owner of a lock; damaged data gives an unknown one."""
    try:
        content = {"machine": "", "space": "", **json.loads(data)}
        fields = {field.name: content[field.name] for field in dataclasses.fields(Owner)}
        return Owner(**{**fields, "pid": int(content["pid"])})
    except (ValueError, TypeError, KeyError):
        return Owner()


def _read_space() -> str:
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _read_start(pid: int) -> str:
    # Field 22 of proc_pid_stat(5). Field 2 is a name in brackets, which may contain anything.
    fields = _read_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _read_text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text("utf-8", "replace").strip()
    return ""


@contextlib.contextmanager
def lock_disk(folder: DiskPath, *, break_lock: bool, moves_to: DiskPath) -> Iterator[None]:
    """Keeps other writers out of a folder on a disk; see `Location.lock`."""
    layout = Layout(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]

    def take() -> int | None:
        _make_scratch(layout)
        descriptor = _create_file(layout)
        if descriptor is None:
            _remove_stale_file(layout, break_lock=break_lock)
        return descriptor

    try:
        descriptor = _acquire(folder, take, _DISK_PAUSE_S)
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
                # If someone broke the lock, there is another file of its name, which stays.
                if _is_same(place.lock, descriptor):
                    place.lock.unlink()
            _remove_empty(place, made)
        os.close(descriptor)


@contextlib.contextmanager
def lock_objects(folder: ObjectPath, *, break_lock: bool) -> Iterator[None]:
    """Keeps other writers out of a data set in a store; see `Location.lock`."""
    lock = Layout(folder).lock
    # The token tells this lock from any other of the same process.
    content = dump_owner(describe_self(), token=uuid.uuid4().hex)

    def take() -> bool | None:
        try:
            create_object(lock, content)
        except FileExistsError:
            found = lock.read_bytes()
            owner = parse_owner(found)
            if not owner.is_gone(unheld=False):
                check_broken(folder, owner, break_lock=break_lock)
            remove_stale_object(lock, found, content, break_lock=break_lock)
            return None
        return True

    _acquire(folder, take, _STORE_PAUSE_S)
    try:
        yield
    finally:
        with contextlib.suppress(ShardmillError, OSError):
            # If someone broke the lock, there is another one, which stays.
            if lock.read_bytes() == content:
                lock.unlink(missing_ok=True)


def _acquire(place: Location, take: Callable[[], _T | None], pause_s: float) -> _T:
    """Takes a lock; `take` returns None if it has only removed a stale one."""
    for _ in range(_TRIES):
        # A writer that finishes meanwhile removes its lock and the folders.
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            if (taken := take()) is not None:
                return taken
        time.sleep(pause_s)
    raise LockedError(
        f"{place} is locked by one process after another: run the same command again when they end"
    )


def find_disk_owner(folder: DiskPath) -> Owner | None:
    """Finds who is writing to a folder; see `Location.find_owner`."""
    try:
        file = open(Layout(folder).lock, "rb", buffering=0)  # noqa: SIM115 (see below)
    except OSError:
        return None
    with file:  # from here on an error does not mean that there is no owner
        # Shared, because NFS gives no other to a file that is only open for reading.
        taken = _try_flock(file.fileno(), fcntl.LOCK_SH)
        owner = parse_owner(file.read(_OWNER_BYTES))
    return owner if taken is False or not owner.is_gone(unheld=taken is True) else None


def _make_scratch(layout: Layout[DiskPath]) -> None:
    try:
        layout.scratch.make_folder()
    except FileExistsError:
        for path in (layout.scratch, *layout.scratch.parents):
            if os.path.lexists(path) and not path.is_dir():
                raise OutputError(f"{path} is in the way: it has to be a folder") from None
        raise  # someone has just removed the folder


def _create_file(layout: Layout[DiskPath]) -> int | None:
    """Writes the lock and returns its descriptor; None if there is one already."""
    temporary = layout.scratch / f"{layout.lock.name}.{uuid.uuid4().hex}"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        # Before it has its name: a new lock without a flock would be taken for a stale one.
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
    return descriptor  # stays open: the flock ends with it


def _remove_stale_file(layout: Layout[DiskPath], *, break_lock: bool) -> None:
    """Removes the lock of an owner that is gone, while holding its flock."""
    with open(layout.lock, "r+b", buffering=0) as file:
        taken = _try_flock(file.fileno())
        owner = parse_owner(file.read(_OWNER_BYTES))
        held = taken is False
        if held or not owner.is_gone(unheld=taken is True):
            check_broken(layout.out, owner, break_lock=break_lock, runs=held)
        # Another writer may have removed it between open and flock, and made a new one.
        if _is_same(layout.lock, file.fileno()):
            layout.lock.unlink()


def remove_stale_object(
    lock: ObjectPath, found: bytes, content: bytes, *, break_lock: bool
) -> None:
    """Removes the lock with the content `found`, unless someone else is about to or has.

    The claim has the `content` of the new lock; `break_lock` also ignores one of another machine.
    """
    claim = lock.with_name(f"{lock.name}.{hash_bytes(found)[:32]}")
    try:
        create_object(claim, content)
    except FileExistsError:
        other = parse_owner(claim.read_bytes())
        if other.is_gone(unheld=False) or (break_lock and not other.is_here()):
            claim.unlink(missing_ok=True)
        return
    try:
        if lock.read_bytes() == found:
            lock.unlink(missing_ok=True)
    finally:
        claim.unlink(missing_ok=True)


def _try_flock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool | None:
    """Takes the flock of an open file; False if someone else has it, None if there are none."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return None
        raise
    return True


def _is_same(path: Path, descriptor: int) -> bool:
    return path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor))


def _remove_empty(layout: Layout[DiskPath], made: list[DiskPath]) -> None:
    # Only the lock needed them, unless something is in them by now.
    for path in (layout.scratch, layout.work, *made):
        path.remove_empty()
