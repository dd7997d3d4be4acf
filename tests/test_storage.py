"""Files appear complete or not at all, whatever goes wrong while they are written."""

import hashlib
import re
import resource
import uuid
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from converter.errors import OutputError
from converter.storage import object_requests
from converter.storage.files import hash_file, write_file
from converter.storage.locate import locate
from converter.storage.location import map_in_threads


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_described(tmp_path, scratch):
    path = tmp_path / "file"
    with path.create(scratch) as file:
        file.write(b"one ")
        file.write(b"two")
    assert path.read_bytes() == b"one two"
    assert (file.size, file.sha256) == (7, hashlib.sha256(b"one two").hexdigest())
    assert list_names(scratch) == []


def test_the_final_name_appears_only_at_the_end(tmp_path, scratch):
    path = tmp_path / "file"
    with path.create(scratch) as file:
        file.write(b"x" * 3_000_000)
        assert not path.exists()
    assert path.stat().st_size == 3_000_000


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, scratch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail():
        with path.create(scratch) as file:
            file.write(b"new")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match=r"^interrupted$"):
        fail()
    assert path.read_bytes() == b"old"
    assert list_names(scratch) == []


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, scratch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match=f"^{re.escape(str(path))} .*: File too large"):
            write_file(path, bytes(5000), scratch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list_names(scratch) == []


def test_a_folder_that_is_missing_is_named(tmp_path, scratch):
    path = tmp_path / "missing" / "file"
    with pytest.raises(OutputError, match=": No such file"):
        write_file(path, b"data", scratch)
    assert list_names(scratch) == []


def test_a_file_that_changes_on_the_way_to_the_disk_is_not_published(tmp_path, scratch):
    path = tmp_path / "file"

    def write_and_damage():
        with path.create(scratch) as file:
            file.write(b"data")
            file.flush()
            next(scratch.iterdir()).write_bytes(b"dama")

    with pytest.raises(OutputError, match=f"^{re.escape(str(path))} reads back differently"):
        write_and_damage()
    assert list_names(tmp_path) == ["scratch"]
    assert list_names(scratch) == []


def test_a_file_replaces_the_one_before(tmp_path, scratch):
    path = tmp_path / "file"
    write_file(path, b"one", scratch)
    assert write_file(path, b"two", scratch) == hashlib.sha256(b"two").hexdigest()
    assert path.read_bytes() == b"two"


def test_two_attempts_at_the_same_file_do_not_mix(tmp_path, scratch):
    path = tmp_path / "file"
    with path.create(scratch) as one, path.create(scratch) as two:
        one.write(b"one " * 500_000)
        two.write(b"two " * 300_000)
        one.write(b"one")
    assert path.read_bytes() == b"one " * 500_000 + b"one"
    assert list_names(scratch) == []


def test_an_exclusive_file_replaces_nothing(tmp_path, scratch):
    path = tmp_path / "file"
    write_file(path, b"one", scratch, exclusive=True)
    with pytest.raises(OutputError, match=f"^{re.escape(str(path))} exists already"):
        write_file(path, b"two", scratch, exclusive=True)
    assert path.read_bytes() == b"one"
    assert list_names(scratch) == []


def test_of_many_exclusive_writers_one_wins(tmp_path, scratch):
    path = tmp_path / "file"

    def write(number):
        try:
            write_file(path, b"%d" % number, scratch, exclusive=True)
        except OutputError:
            return None
        return b"%d" % number

    with ThreadPoolExecutor(8) as pool:
        winners = [data for data in pool.map(write, range(8)) if data is not None]
    assert winners == [path.read_bytes()]
    assert list_names(scratch) == []


@pytest.mark.parametrize(
    ("offset", "size", "expected"), [(0, 3, b"012"), (4, 2, b"45"), (8, 5, b"89"), (20, 5, b"")]
)
def test_a_range_ends_where_the_file_ends(tmp_path, offset, size, expected):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert path.read_range(offset, size) == expected


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_a_hash_is_over_the_whole_file(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert hash_file(path) == hashlib.sha256(b"x" * size).hexdigest()


def test_a_folder_of_a_store_is_listed_as_one_here(server, tmp_path):
    out = server.path(uuid.uuid4().hex)
    for name, size in (("a", 3), ("b.txt", 0), ("c/d", 1), ("c/e/f", 2)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
        write_file(out / name, b"x" * size, out)
    for folder in (tmp_path, out):
        assert folder.list_names() == ["a", "b.txt", "c"]
        assert folder.list_sizes() == {"a": 3, "b.txt": 0}
        assert (folder / "none").list_names() == []
        assert (folder / "none").list_sizes() == {}
        assert list(folder.read_files(["a", "c/d"])) == [b"xxx", b"x"]
        assert (folder / "c").measure() is None
        assert (folder / "a").measure() == 3
        assert (folder / "a").read_range(1, 9) == b"xx"
        folder.remove_tree(keep=("a",))
        assert folder.list_names() == ["a"]
        folder.remove_files(["a", "none"])
        assert folder.list_names() == []


def test_items_are_started_in_order_and_few_ahead(tmp_path):
    started = []

    def work(item: int) -> int:
        started.append(item)
        return -item

    found = map_in_threads(work, range(10_000), tmp_path)
    assert [next(found) for _ in range(3)] == [(0, 0), (1, -1), (2, -2)]
    found.close()
    assert len(started) < 1_000
    assert [*map_in_threads(work, range(300), tmp_path)] == [(n, -n) for n in range(300)]


def test_an_error_ends_the_work_on_items_that_follow(tmp_path):
    started = []

    def work(item: int) -> None:
        started.append(item)
        raise ValueError(item)

    with pytest.raises(ValueError, match=r"^0$"):
        list(map_in_threads(work, range(10_000), tmp_path))
    assert len(started) < 1_000


@pytest.mark.parametrize("kind", ["copy", "delete"])
def test_of_many_requests_a_thousand_are_in_flight(monkeypatch, kind):
    flying, most = 0, 0

    def start(*_):
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        future = Future()
        future.set_result(None)
        return future

    def wait(future):
        nonlocal flying
        flying -= 1
        return future.result()

    monkeypatch.setattr(object_requests, "start", start)
    monkeypatch.setattr(object_requests, "wait", wait)
    folder = locate("s3://bucket/folder")
    names = map(str, range(5_000))
    if kind == "copy":
        folder.copy_files(names, folder / "other")
    else:
        folder.remove_files(names)
    assert (flying, most) == (0, 1_000)
