"""Objects on a disk of this machine: bounded, checked, shared by processes that are killed."""

import concurrent.futures
import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from conftest import make_environment
from faults.injected import mount_tmpfs

from converter.errors import DatasetError, OutputError, StoreError, UsageError
from converter.format.manifest import ShardInfo
from converter.storage.object_requests import put_object
from reader.remote import shard_cache
from reader.remote.remote_shards import check_room, open_cache
from reader.remote.shard_cache import LOCK, ShardCache, StoredObject, hold_lock, pause_until_stalled

SIZE = 10_000


@pytest.fixture(autouse=True)
def forget():
    """What this process knows of files, as if it had just begun."""
    shard_cache.checked.clear()
    shard_cache.failures.clear()


@pytest.fixture
def cache(tmp_path):
    return ShardCache(folder=tmp_path / "cache", limit_bytes=4 * SIZE)


def make_bytes(seed: int, size: int = SIZE) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def put(server, seed: int, size: int = SIZE) -> StoredObject:
    """An object, as a manifest would describe it."""
    path, data = server.path(f"{uuid.uuid4().hex}/{seed}"), make_bytes(seed, size)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        put_object(path, file)
    server.set_faults()
    return StoredObject(path, size, hashlib.sha256(data).hexdigest())


def read(cache: ShardCache, content: StoredObject) -> bytes:
    descriptor = cache.open(content)
    try:
        return os.pread(descriptor, content.bytes + 1, 0)
    finally:
        os.close(descriptor)


def list_cache(cache: ShardCache) -> dict[str, int]:
    return {p.name: p.stat().st_size for p in cache.folder.iterdir() if p.name != "lock"}


def test_an_object_is_fetched_once(server, cache):
    content = put(server, 1)
    assert read(cache, content) == make_bytes(1)
    assert server.set_faults()["GET"] == 1
    shard_cache.checked.clear()
    assert read(cache, content) == make_bytes(1)
    assert "GET" not in server.set_faults()
    assert list_cache(cache) == {f"{content.sha256}.whole": SIZE}


@pytest.mark.parametrize("change", ["flip", "cut", "append", "empty"])
def test_a_file_that_was_changed_is_noticed_and_fetched_again(s3_server, cache, caplog, change):
    content = put(s3_server, 1)
    read(cache, content)
    path = cache.folder / f"{content.sha256}.whole"
    data = bytearray(path.read_bytes())
    data[777] ^= 1
    changed = {"flip": data, "cut": data[:-1], "append": data + b"x", "empty": b""}[change]
    path.write_bytes(changed)
    s3_server.set_faults()
    assert read(cache, content) == make_bytes(1)
    assert s3_server.set_faults()["GET"] == 1
    (message,) = (record.getMessage() for record in caplog.records)
    assert message == f"{path} was damaged, and is fetched again: {content.path}"


def test_an_object_with_another_content_is_fetched_twice_and_refused(server, cache):
    content = put(server, 1)._replace(sha256=hashlib.sha256(b"another").hexdigest())
    with pytest.raises(DatasetError, match=f"^{content.path} .* fetched twice"):
        cache.open(content)
    assert server.set_faults()["GET"] == 2
    assert list_cache(cache) == {}


def test_an_object_that_is_longer_or_shorter_is_refused(server, cache):
    content = put(server, 1)
    with pytest.raises(DatasetError, match="more than 9999 bytes"):
        cache.open(content._replace(bytes=SIZE - 1))
    with pytest.raises(DatasetError, match="what was written: 10,001 bytes"):
        cache.open(content._replace(bytes=SIZE + 1))
    assert list_cache(cache) == {}


def test_an_object_that_is_missing_is_named(server, cache):
    content = StoredObject(server.path("nothing/here"), SIZE, "0" * 64)
    with pytest.raises(DatasetError, match=f"^{content.path} is missing"):
        cache.open(content)


def test_what_is_no_checksum_names_no_file(tmp_path, s3_server):
    cache = ShardCache(folder=tmp_path / "a" / "cache", limit_bytes=SIZE)
    (tmp_path / "secret.whole").write_bytes(b"x" * SIZE)
    content = StoredObject(s3_server.path("x"), SIZE, "../../secret")
    with pytest.raises(DatasetError, match=r"'\.\./\.\./secret' is not a SHA-256"):
        cache.open(content)
    assert not cache.touch(content)
    assert not cache.has(content)


def test_what_was_not_used_for_longest_goes_first(s3_server, cache):
    contents = [put(s3_server, seed) for seed in range(5)]
    for content in contents[:4]:
        read(cache, content)
    cache.touch(contents[0])
    read(cache, contents[1])
    read(cache, contents[4])
    kept = {f"{contents[number].sha256}.whole" for number in (0, 1, 3, 4)}
    assert set(list_cache(cache)) == kept


def test_a_file_that_has_to_go_is_kept_by_who_reads_it(s3_server, cache):
    contents = [put(s3_server, seed) for seed in range(6)]
    descriptor = cache.open(contents[0])
    for content in contents[1:]:
        read(cache, content)
    assert f"{contents[0].sha256}.whole" not in list_cache(cache)
    assert os.pread(descriptor, SIZE, 0) == make_bytes(0)
    os.close(descriptor)


def test_the_limit_is_kept_at_every_moment(s3_server, cache):
    contents = [put(s3_server, seed) for seed in range(12)]
    most, ended = 0, False

    def watch() -> None:
        nonlocal most
        while not ended:
            with os.scandir(cache.folder) as entries:
                names = [entry.name for entry in entries if entry.name != "lock"]
            # A part is going to be as large as its name says.
            most = max(most, SIZE * len(names))

    cache.folder.mkdir()
    with concurrent.futures.ThreadPoolExecutor(9) as threads:
        watching = threads.submit(watch)
        found = list(threads.map(lambda content: read(cache, content), contents * 8))
        ended = True
        watching.result()
    assert found == [make_bytes(seed) for seed in range(12)] * 8
    assert 0 < most <= cache.limit_bytes


def test_what_is_not_of_the_cache_stays(s3_server, cache):
    cache.folder.mkdir()
    for name in ("notes.txt", "a.whole", f"{'0' * 64}.part"):
        (cache.folder / name).write_bytes(bytes(9 * SIZE))
    for seed in range(5):
        read(cache, put(s3_server, seed))
    assert {"notes.txt", "a.whole", f"{'0' * 64}.part"} < set(list_cache(cache))


FETCH = """
import json, os, sys
from converter.storage.disk import DiskPath as Path
from converter.storage.locate import parse_address
from reader.remote.shard_cache import StoredObject, ShardCache
folder, limit, contents = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
cache = ShardCache(folder=Path(folder), limit_bytes=limit)
for path, size, sha256 in contents:
    os.close(cache.open(StoredObject(parse_address(path), size, sha256)))
"""


def start_process(cache: ShardCache, *contents: StoredObject) -> subprocess.Popen[bytes]:
    """Another process that opens these objects, one after the other."""
    described = json.dumps([[str(content.path), *content[1:]] for content in contents])
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, str(cache.folder), str(cache.limit_bytes), described],
        env=make_environment(),
    )


def test_two_processes_fetch_each_object_once(s3_server, tmp_path):
    cache = ShardCache(folder=tmp_path / "cache", limit_bytes=100 * SIZE)
    contents = [put(s3_server, seed) for seed in range(8)]
    s3_server.set_faults(latency=0.03)
    processes = [start_process(cache, *contents) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert s3_server.set_faults()["GET"] == 8
    assert list_cache(cache) == {f"{content.sha256}.whole": SIZE for content in contents}


def test_two_processes_get_on_with_room_for_one_object(s3_server, tmp_path):
    cache = ShardCache(folder=tmp_path / "cache", limit_bytes=SIZE)
    contents = [put(s3_server, seed) for seed in range(4)]
    processes = [start_process(cache, *contents), start_process(cache, *reversed(contents))]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert sum(list_cache(cache).values()) == SIZE


def test_a_download_that_was_killed_goes_on_where_it_ended(server, tmp_path):
    size = 3_000_000
    cache = ShardCache(folder=tmp_path / "cache", limit_bytes=2 * size)
    content = put(server, 1, size)
    part = cache.folder / f"{content.sha256}.{size}.part"
    server.set_faults(faults=1, kinds="cut", only=content.path.name, seed=1)
    process = start_process(cache, content)
    while not part.exists() or part.stat().st_size < size // 2:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    had = part.stat().st_size
    server.set_faults()
    assert size // 2 <= had < size
    assert read(cache, content) == make_bytes(1, size)
    counts = server.set_faults()
    assert (counts["GET"], counts["ranged"]) == (1, 1)
    assert list_cache(cache) == {f"{content.sha256}.whole": size}


@pytest.mark.parametrize("left", [b"damaged" * 500, make_bytes(7), make_bytes(7, 2 * SIZE)])
def test_a_part_that_is_damaged_is_fetched_again(s3_server, cache, left):
    content = put(s3_server, 1)
    cache.folder.mkdir()
    (cache.folder / f"{content.sha256}.{SIZE}.part").write_bytes(left)
    assert read(cache, content) == make_bytes(1)


@pytest.fixture
def listings(monkeypatch):
    """A list that grows by one with every look at all files of a cache."""
    looks, real = [], shard_cache._list_files
    monkeypatch.setattr(shard_cache, "_list_files", lambda folder: looks.append(1) or real(folder))
    return looks


def test_files_are_listed_once_in_very_many_objects(s3_server, tmp_path, listings, monkeypatch):
    monkeypatch.setattr(shard_cache, "RECOUNT", 4)
    cache = ShardCache(folder=tmp_path / "cache", limit_bytes=10 * SIZE)
    contents = [put(s3_server, seed) for seed in range(9)]
    for number, content in enumerate(contents):
        read(cache, content)
        assert len(listings) == 1 + number // 4
    assert len(list_cache(cache)) == 9
    # When there seems to be no room, it is looked for, each time.
    more = [put(s3_server, seed) for seed in range(20, 24)]
    for content in more:
        read(cache, content)
    assert len(listings) == 3 + 3
    assert len(list_cache(cache)) == 10


def test_what_was_removed_by_hand_is_found_out(s3_server, cache):
    for seed in range(4):
        read(cache, put(s3_server, seed))
    for name in list_cache(cache):
        (cache.folder / name).unlink()
    kept = [put(s3_server, seed) for seed in range(10, 14)]
    for content in kept:
        read(cache, content)
    assert list_cache(cache).keys() == {f"{content.sha256}.whole" for content in kept}


@pytest.mark.parametrize("count", [b"", b"0 0\n", b"-9 9\n", b"0 999", b"\xff" * 99, b"0 99999\n"])
def test_a_count_that_makes_no_sense_is_made_again(s3_server, cache, count, listings):
    read(cache, put(s3_server, 1))
    (cache.folder / LOCK).write_bytes(count)
    read(cache, put(s3_server, 2))
    assert len(listings) == 2
    assert (cache.folder / LOCK).read_bytes() == b"%d 999\n" % (2 * SIZE)


def test_parts_that_are_no_longer_fetched_make_room_and_others_do_not(s3_server, cache):
    cache.folder.mkdir()
    parts = [cache.folder / f"{digit * 64}.{2 * SIZE}.part" for digit in "ab"]
    for part in parts:
        part.write_bytes(b"begun")
    with open(parts[0]) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for seed in range(3):
            read(cache, put(s3_server, seed))
    assert parts[0].exists()
    assert not parts[1].exists()


def test_who_waits_for_another_process_in_vain_is_told(s3_server, cache, monkeypatch):
    content = put(s3_server, 1)
    monkeypatch.setenv("SHARDMILL_STORE_SECONDS", "0.3")
    cache.folder.mkdir()
    part = cache.folder / f"{content.sha256}.{SIZE}.part"
    with open(part, "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="being fetched by another"):
            cache.open(content)


def test_waiting_has_no_end_as_long_as_something_moves(s3_server, cache, monkeypatch):
    monkeypatch.setenv("SHARDMILL_STORE_SECONDS", "0.1")
    cache.folder.mkdir()
    pauses = pause_until_stalled(cache.folder, s3_server.path("x"))
    part = cache.folder / f"{'a' * 64}.{SIZE}.part"
    began = time.monotonic()
    with open(part, "wb", buffering=0) as file:
        while time.monotonic() < began + 1:
            file.write(b"x")
            next(pauses)


def test_threads_that_wait_for_one_that_fails_are_told_why(s3_server, cache, monkeypatch):
    monkeypatch.setenv("SHARDMILL_STORE_SECONDS", "1")
    content = put(s3_server, 1)
    s3_server.set_faults(faults=1, kinds="refuse")
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        errors = [threads.submit(cache.open, content).exception for _ in range(4)]
        messages = {str(error()) for error in errors}
    # They do not try one after the other.
    assert time.monotonic() - began < 3
    assert all(re.match(f"{content.path} cannot be reached for", text) for text in messages)
    s3_server.set_faults()
    assert read(cache, content) == make_bytes(1)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk takes root")
def test_a_full_disk_is_one_line_and_leaves_nothing(s3_server, tmp_path):
    content = put(s3_server, 1, 1_000_000)
    with mount_tmpfs(tmp_path / "disk", "size=300k"):
        cache = ShardCache(folder=tmp_path / "disk" / "cache", limit_bytes=2_000_000)
        with pytest.raises(OutputError) as caught:
            cache.open(content)
        assert list_cache(cache) == {}
    message = f"{content.path} cannot be kept in {cache.folder}: No space left on device ("
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(
        " free); make room, or choose another cache_dir or a smaller cache_bytes"
    )


def test_a_folder_that_cannot_be_is_one_line(s3_server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"in .*/file/cache: Not a directory"):
        ShardCache(folder=tmp_path / "file" / "cache", limit_bytes=SIZE).open(put(s3_server, 1))


def test_a_process_that_was_forked_does_not_keep_a_lock(s3_server, cache):
    contents = [put(s3_server, seed) for seed in range(2)]
    cache.folder.mkdir()
    with hold_lock(cache.folder / LOCK):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        began = time.monotonic()
        assert [read(cache, content) for content in contents] == [make_bytes(0), make_bytes(1)]
        assert time.monotonic() - began < 30
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_cache_is_in_the_users_folder_unless_another_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert open_cache(None, None) == ShardCache(
        folder=tmp_path / "shardmill", limit_bytes=20_000_000_000
    )
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says its specification
    assert open_cache(None, "1GB").folder == Path.home() / ".cache" / "shardmill"
    assert open_cache(tmp_path, "1GB") == ShardCache(folder=tmp_path, limit_bytes=10**9)


def test_a_cache_that_is_too_small_for_a_shard_is_refused_with_what_would_do(tmp_path):
    cache = ShardCache(folder=tmp_path, limit_bytes=1_099)
    shards = [
        ShardInfo(
            name="",
            split="train",
            records=1,
            bytes=size,
            sha256="",
            index_bytes=index_bytes,
            index_sha256="",
            max_record_bytes=1,
        )
        for size, index_bytes in ((10, 100), (1_000, 90))
    ]
    with pytest.raises(UsageError, match=r"^cache_bytes 1.1 kB .* 1.0 kB .* 100 B; .* 1100 bytes$"):
        check_room(cache, shards)
    check_room(ShardCache(folder=tmp_path, limit_bytes=1_100), shards)
