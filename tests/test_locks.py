"""One writer at a time, and no lock outlives its owner."""

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from converter.commits.replacements import lock_stage
from converter.errors import LockedError, OutputError
from converter.storage import locks
from converter.storage.files import Layout, write_file
from converter.storage.location import Location
from converter.storage.locks import describe_self, remove_stale_object
from converter.storage.object_requests import list_objects, put_object
from converter.storage.objects import ObjectPath

HOLD = """
import sys
from converter.storage.locate import locate
with locate(sys.argv[1]).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a permanent identity; a container may have none."""
    file = tmp_path_factory.mktemp("etc") / "machine-id"
    file.write_text("its own\n")
    monkeypatch.setattr(locks, "MACHINE_FILE", file)


def start_holder(folder: Location) -> subprocess.Popen[str]:
    """Another process that holds the lock until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def write_owner(folder: Location, **changes: object) -> None:
    """Leaves a lock that no process holds, as its owner would have written it."""
    layout = Layout(folder)
    layout.work.make_folder()
    owner = {**dataclasses.asdict(describe_self()), **changes}
    write_file(layout.lock, json.dumps(owner).encode(), layout.work)


def test_a_lock_says_who_holds_it_and_goes_with_its_folders(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with out.lock():
        owner = out.find_owner()
        assert owner is not None
        assert (owner.host, owner.pid) == (socket.gethostname(), os.getpid())
        assert list(Layout(out).scratch.iterdir()) == []
    assert out.find_owner() is None
    assert list(tmp_path.iterdir()) == []


def test_an_error_releases_the_lock_and_keeps_what_is_not_its_own(tmp_path: Path) -> None:
    Layout(tmp_path).make_work_folders()
    (Layout(tmp_path).scratch / "half").touch()

    def fail() -> None:
        with tmp_path.lock():
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match=r"^interrupted$"):
        fail()
    assert not Layout(tmp_path).lock.exists()
    assert (Layout(tmp_path).scratch / "half").exists()


@pytest.mark.parametrize("break_lock", [False, True])
def test_a_folder_that_is_being_written_is_refused(tmp_path: Path, *, break_lock: bool) -> None:
    with start_holder(tmp_path) as process:
        with (
            pytest.raises(
                LockedError,
                match=rf"^{re.escape(str(tmp_path))} .* {process.pid} on \S+, since \S+ \S+: ",
            ),
            tmp_path.lock(break_lock=break_lock),
        ):
            pass
        assert tmp_path.find_owner() is not None
        process.communicate()
    with tmp_path.lock():
        pass


def test_this_very_process_is_no_exception(tmp_path: Path) -> None:
    with tmp_path.lock():
        with pytest.raises(LockedError, match="is being written by"), tmp_path.lock():
            pass
        assert Layout(tmp_path).lock.exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with start_holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
    assert Layout(tmp_path).lock.exists()
    assert tmp_path.find_owner() is None
    with tmp_path.lock():
        owner = tmp_path.find_owner()
        assert owner is not None
        assert owner.pid == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_broken_is_not_released_for_who_holds_it_now(tmp_path: Path) -> None:
    with tmp_path.lock():
        Layout(tmp_path).lock.unlink()
        Layout(tmp_path).lock.write_text("of somebody else")
    assert Layout(tmp_path).lock.read_text() == "of somebody else"


def test_without_flock_the_process_itself_says_whether_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with start_holder(tmp_path) as process:
        assert tmp_path.find_owner().pid == process.pid
        with pytest.raises(LockedError, match="may still be running"), tmp_path.lock():
            pass
        process.kill()
    assert tmp_path.find_owner() is None
    with tmp_path.lock():
        pass


def test_a_lock_that_cannot_be_tested_does_not_pass_for_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with tmp_path.lock():
        monkeypatch.setattr(fcntl, "flock", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            tmp_path.find_owner()
    monkeypatch.undo()
    assert tmp_path.find_owner() is None


@pytest.mark.usefixtures("machine")
def test_a_lock_from_before_a_restart_is_taken_over(tmp_path: Path) -> None:
    write_owner(tmp_path, boot="an earlier one", pid=1)
    with tmp_path.lock():
        pass


def test_the_lock_of_another_machine_is_respected_until_it_is_broken(tmp_path: Path) -> None:
    write_owner(tmp_path, host="elsewhere", boot="its own", pid=77)
    with (
        pytest.raises(LockedError, match=r"locked by .* 77 on elsewhere, .* --break-lock"),
        tmp_path.lock(),
    ):
        pass
    assert tmp_path.find_owner() is not None
    with tmp_path.lock(break_lock=True):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_lies_beside_a_data_set_belongs_to_the_holder_of_its_lock(tmp_path: Path) -> None:
    out = tmp_path / "out"
    stage = Layout(out).stage
    write_owner(stage, host="elsewhere", boot="its own", pid=77)
    with out.lock(), lock_stage(out):
        owner = stage.find_owner()
        assert owner is not None
        assert owner.pid == os.getpid()
    with start_holder(stage) as process, out.lock():
        with pytest.raises(LockedError, match="is being written by"), lock_stage(out):
            pass
        process.kill()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff"])
def test_a_lock_that_cannot_be_read_is_respected_until_it_is_broken(
    tmp_path: Path, content: bytes
) -> None:
    Layout(tmp_path).work.mkdir()
    Layout(tmp_path).lock.write_bytes(content)
    with pytest.raises(LockedError, match="process 0 on an unknown"), tmp_path.lock():
        pass
    with tmp_path.lock(break_lock=True):
        pass


@pytest.mark.parametrize(
    ("changes", "unheld", "gone"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"started": "1"}, False, True),  # the number of a process is used again
        ({"boot": "other"}, False, True),  # the machine was started again
        ({"boot": "other", "machine": "other"}, True, False),  # another one of the same name
        ({"boot": "other", "machine": ""}, True, False),  # a container, or a copy of one
        ({"space": "other", "started": "1"}, False, False),  # a container on the same machine
        ({"space": "other", "started": "1"}, True, True),  # which does not hold it any more
        ({"host": "other"}, False, False),
        ({"host": "other", "boot": "other"}, True, False),
    ],
)
@pytest.mark.usefixtures("machine")
def test_an_owner_is_gone_if_its_process_or_its_boot_is(
    tmp_path: Path, changes: dict[str, str], *, unheld: bool, gone: bool
) -> None:
    with tmp_path.lock():
        owner = tmp_path.find_owner()
    assert owner is not None
    assert dataclasses.replace(owner, **changes).is_gone(unheld=unheld) is gone


def test_of_many_at_once_one_wins_also_over_a_stale_lock(tmp_path: Path) -> None:
    for stale in (False, True) * 10:
        if stale:
            write_owner(tmp_path, pid=1, started="1")
        held = []

        def take(_: int, held: list[int] = held) -> bool:
            try:
                with tmp_path.lock():
                    held.append(1)
                    assert len(held) == 1
                    held.pop()
            except LockedError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert any(pool.map(take, range(8)))
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=rf"^{tmp_path}/file/out\S* .*: Not a directory$"),
        (tmp_path / "file" / "out").lock(),
    ):
        pass


@pytest.fixture
def prefix(s3_server) -> ObjectPath:
    """Where there is nothing yet in a store."""
    s3_server.set_faults()
    return s3_server.path(uuid.uuid4().hex)


def is_won(prefix: ObjectPath) -> bool:
    try:
        with prefix.lock():
            time.sleep(0.3)
    except LockedError:
        return False
    return True


def test_in_a_store_a_lock_says_who_holds_it_and_goes_with_the_block(server):
    prefix = server.path(uuid.uuid4().hex)
    with prefix.lock():
        assert prefix.find_owner().host == socket.gethostname()
        with pytest.raises(LockedError, match="is being written by"), prefix.lock():
            pass
    assert prefix.find_owner() is None
    assert list(list_objects(prefix)) == []


def test_in_a_store_a_live_process_is_not_disturbed_and_a_killed_one_is_taken_over(prefix):
    with start_holder(prefix) as process:
        message = rf"process {process.pid} on .* another prefix"
        with pytest.raises(LockedError, match=message), prefix.lock(break_lock=True):
            pass
        process.kill()
    assert prefix.find_owner() is None
    with prefix.lock():
        assert prefix.find_owner() is not None
    assert list(list_objects(prefix)) == []


def test_in_a_store_of_another_machine_nothing_is_known(prefix):
    write_owner(prefix, host="elsewhere", boot="another", pid=1)
    with pytest.raises(LockedError, match="run again with --break-lock"), prefix.lock():
        pass
    with prefix.lock(break_lock=True):
        assert prefix.find_owner().host == socket.gethostname()


def test_in_a_store_a_broken_lock_is_left_to_who_holds_it_now(prefix):
    with prefix.lock():
        put_object(Layout(prefix).lock, b"of somebody else")
    assert Layout(prefix).lock.read_bytes() == b"of somebody else"


def test_of_several_who_find_a_stale_lock_one_takes_it(prefix):
    for number in range(3):
        place = prefix / str(number)
        write_owner(place, pid=2**22 + 1, token=number)
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(is_won, [place] * 4)).count(True) == 1


def test_who_is_late_to_a_stale_lock_leaves_the_new_one(prefix):
    write_owner(prefix, pid=2**22 + 1)
    lock = Layout(prefix).lock
    stale = lock.read_bytes()
    put_object(lock, b"new")
    remove_stale_object(lock, stale, b"mine", break_lock=False)
    assert lock.read_bytes() == b"new"
    assert [path for path, _ in list_objects(prefix)] == [lock]


def test_a_claim_whose_owner_was_killed_is_in_no_ones_way(prefix):
    write_owner(prefix, pid=2**22 + 1)
    lock = Layout(prefix).lock
    stale = lock.read_bytes()
    claim = lock.with_name(f"lock.{hashlib.sha256(stale).hexdigest()[:32]}")
    put_object(claim, stale)
    with prefix.lock():
        assert not claim.exists()
