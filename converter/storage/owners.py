"""Who writes to a data set: a process on a machine, and whether it still runs.

Host, boot and start time of a process tell it from another one that has its number by now. A
container has process numbers of its own, and machines may have the same name.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from pathlib import Path

from converter.errors import LockedError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Who holds a lock.

    Attributes:
        host: the machine's name.
        boot: which of its boots, so that a restart shows; empty where the system does not tell.
        machine: what it is called for good; empty where nothing is, as in many containers.
        space: the namespace that process numbers are of, so that a container shows.
        pid: the process.
        started: when that process began, as the system counts, so that a reused `pid` shows.
        since: when the lock was taken, for a person.
    """

    host: str
    boot: str
    machine: str
    space: str
    pid: int
    started: str
    since: str

    def is_here(self) -> bool:
        """Whether it runs, or ran, where this process does: so that it can be looked at."""
        return bool(self.boot) and (self.boot, self.space) == (_read_boot(), _read_space())

    def is_gone(self, *, unheld: bool) -> bool:
        """Whether this owner has ended, as far as that is known here.

        Args:
            unheld: nobody on this machine holds the lock's `flock`.
        """
        is_host = self.host == socket.gethostname()
        if self.boot != _read_boot():
            # After a restart; another machine may have the same name.
            return is_host and bool(self.machine) and self.machine == _read_machine()
        if not self.boot and not is_host:
            return False
        # A container has other process numbers, but the same flocks.
        return unheld or (self.space == _read_space() and _read_start(self.pid) != self.started)


def check_broken(place: object, owner: Owner, *, break_lock: bool, other: str) -> None:
    """Refuses to pass over an owner that is not known to be gone.

    Args:
        place: the data set.
        owner: who holds its lock.
        break_lock: take it for gone if nothing is known of it here.
        other: what else may be chosen: another folder, for example.

    Raises:
        LockedError: it runs, or nobody says that it does not.
    """
    if owner.is_here() or not break_lock:
        raise refuse_owner(place, owner, runs=owner.is_here(), other=other)


def refuse_owner(place: object, owner: Owner, *, runs: bool, other: str) -> LockedError:
    """What a second writer is told.

    Args:
        place: the data set.
        owner: who holds its lock.
        runs: whether that is known to be running, or nothing is known of it.
        other: what else may be chosen: another folder, for example.
    """
    who = f"process {owner.pid} on {owner.host}"
    if runs:
        return LockedError(
            f"{place} is being written by {who}, since {owner.since}: wait for it to end, or "
            f"choose another {other}"
        )
    return LockedError(
        f"{place} is locked by {who}, since {owner.since}, and from here nobody can tell whether "
        "it still runs: if it does not, run again with --break-lock"
    )


def describe_self() -> Owner:
    """This process."""
    return Owner(
        host=socket.gethostname(),
        boot=_read_boot(),
        machine=_read_machine(),
        space=_read_space(),
        pid=os.getpid(),
        started=_read_start(os.getpid()),
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def dump_owner(owner: Owner) -> bytes:
    """An owner as `parse_owner` reads it."""
    return json.dumps(dataclasses.asdict(owner)).encode("ascii")


def parse_owner(data: bytes) -> Owner:
    """The owner that a lock describes; of one that describes none, an unknown one."""
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
    """The 22nd field of Linux' /proc/PID/stat; a name in brackets comes before and may hold any."""
    fields = _read_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
