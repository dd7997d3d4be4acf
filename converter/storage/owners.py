"""Who writes to a data set: a process on a machine, and whether it is still running.

Host, boot and start time tell a process from a later one with the same number. A container has
process numbers of its own, and machines may have the same name.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from pathlib import Path
from typing import Final

from converter.errors import LockedError
from converter.storage.atomic import write_file
from converter.storage.location import Location

_SIGN: Final = "owner.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Who holds a lock.

    Attributes:
        host: the machine's name.
        boot: changes with each boot of the machine; empty if the system has no such value.
        machine: the permanent identity of the machine; empty if it has none, as in many containers.
        space: the namespace of its process numbers, which tells containers apart.
        started: when the process began, by the system's clock, to notice a reused `pid`.
        since: when the lock was taken, for people.
    """

    host: str
    boot: str
    machine: str
    space: str
    pid: int
    started: str
    since: str

    def is_here(self) -> bool:
        """Tells whether it runs, or ran, where this process could see it."""
        return bool(self.boot) and (self.boot, self.space) == (_read_boot(), _read_space())

    def is_gone(self, *, unheld: bool) -> bool:
        """Tells whether it is known to have ended; `unheld` if no process here has its `flock`."""
        is_host = self.host == socket.gethostname()
        if self.boot != _read_boot():
            # After a restart; another machine may have the same name.
            return is_host and bool(self.machine) and self.machine == _read_machine()
        if not self.boot and not is_host:
            return False
        # A container has other process numbers, but the same flocks.
        return unheld or (self.space == _read_space() and _read_start(self.pid) != self.started)


def check_broken(
    place: Location, owner: Owner, *, break_lock: bool, other: str, runs: bool | None = None
) -> None:
    """Refuses to ignore an owner that is not known to be gone.

    Args:
        place: the data set.
        owner: who holds its lock.
        break_lock: treat the lock as stale, unless the owner runs.
        other: what to choose instead: another "folder", for example.
        runs: whether the owner is known to run; by default, whether this process could see it.

    Raises:
        LockedError: the owner is running, or may be.
    """
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
    """Signs a folder that this process has made, for `is_deserted`.

    Raises:
        OutputError: it cannot be written.
    """
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
        boot=_read_boot(),
        machine=_read_machine(),
        space=_read_space(),
        pid=os.getpid(),
        started=_read_start(os.getpid()),
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def dump_owner(owner: Owner, **more: str) -> bytes:
    """Serializes an owner for `parse_owner`, which ignores `more`."""
    return json.dumps({**dataclasses.asdict(owner), **more}).encode("ascii")


def parse_owner(data: bytes) -> Owner:
    """Parses the owner of a lock; damaged data gives an unknown owner."""
    try:
        content = {"machine": "", "space": "", **json.loads(data)}
        fields = {field.name: content[field.name] for field in dataclasses.fields(Owner)}
        return Owner(**{**fields, "pid": int(content["pid"])})
    except (ValueError, TypeError, KeyError):
        unknown = dict.fromkeys(("machine", "space", "started"), "")
        return Owner(host="an unknown host", boot="?", pid=0, since="an unknown time", **unknown)


def _read_boot() -> str:
    return _read_text(Path("/proc/sys/kernel/random/boot_id")).strip()


def _read_machine() -> str:
    return _read_text(Path("/etc/machine-id")).strip()


def _read_space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _read_start(pid: int) -> str:
    # The 22nd field on Linux. A name in brackets precedes it, and may contain anything.
    fields = _read_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
