"""One writer at a time in an object store, and no lock outlives its owner."""

import concurrent.futures
import dataclasses
import hashlib
import json
import socket
import subprocess
import sys
import time
import uuid

import pytest

from converter.errors import LockedError
from converter.storage.files import Layout
from converter.storage.locks import describe_self, remove_stale_object
from converter.storage.object_requests import list_objects, put_bytes
from converter.storage.objects import ObjectPath

HOLD = """
import sys
from converter.storage.locate import locate
with locate(sys.argv[1]).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(s3_server) -> ObjectPath:
    s3_server.set_faults()
    return s3_server.path(uuid.uuid4().hex)


def start_holder(folder: ObjectPath) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "locked\n"
    return process


def write_owner(folder: ObjectPath, **changes: object) -> None:
    owner = {**dataclasses.asdict(describe_self()), **changes}
    put_bytes(Layout(folder).lock, json.dumps(owner).encode())


def is_won(folder: ObjectPath) -> bool:
    try:
        with folder.lock():
            time.sleep(0.3)
    except LockedError:
        return False
    return True


def test_a_lock_says_who_holds_it_and_goes_with_the_block(server):
    folder = server.path(uuid.uuid4().hex)
    with folder.lock():
        assert folder.find_owner().host == socket.gethostname()
        with pytest.raises(LockedError, match="is being written by"), folder.lock():
            pass
    assert folder.find_owner() is None
    assert list(list_objects(folder)) == []


def test_a_live_process_is_not_disturbed_and_a_killed_one_is_taken_over(folder):
    with start_holder(folder) as process:
        message = rf"process {process.pid} on .* wait for it to end, or choose another prefix"
        with pytest.raises(LockedError, match=message), folder.lock(break_lock=True):
            pass
        process.kill()
    assert folder.find_owner() is None
    with folder.lock():
        assert folder.find_owner() is not None
    assert list(list_objects(folder)) == []


def test_of_another_machine_nothing_is_known(folder):
    write_owner(folder, host="elsewhere", boot="another", pid=1)
    with pytest.raises(LockedError, match="run again with --break-lock"), folder.lock():
        pass
    with folder.lock(break_lock=True):
        assert folder.find_owner().host == socket.gethostname()


def test_a_lock_that_was_broken_is_left_to_whoever_holds_it_now(folder):
    with folder.lock():
        put_bytes(Layout(folder).lock, b"of somebody else")
    assert Layout(folder).lock.read_bytes() == b"of somebody else"


def test_of_several_who_find_a_stale_lock_one_takes_it(folder):
    for number in range(3):
        place = folder / str(number)
        write_owner(place, pid=2**22 + 1, token=number)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert list(pool.map(is_won, [place] * 4)).count(True) == 1


def test_who_is_late_to_a_stale_lock_leaves_the_new_one(folder):
    write_owner(folder, pid=2**22 + 1)
    lock = Layout(folder).lock
    stale = lock.read_bytes()
    put_bytes(lock, b"new")
    remove_stale_object(lock, stale, b"mine", break_lock=False)
    assert lock.read_bytes() == b"new"
    assert [path for path, _ in list_objects(folder)] == [lock]


def test_a_claim_whose_owner_was_killed_is_in_nobodys_way(folder):
    write_owner(folder, pid=2**22 + 1)
    lock = Layout(folder).lock
    stale = lock.read_bytes()
    claim = lock.with_name(f"lock.{hashlib.sha256(stale).hexdigest()[:32]}")
    put_bytes(claim, stale)
    with folder.lock():
        assert not claim.exists()
