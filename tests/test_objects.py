"""Objects of real servers: read, written and listed, through 30 % of faults and without a store."""

import asyncio
import concurrent.futures
import pickle
import sys
import time
import uuid
from pathlib import Path

import pytest
from servers import Server

from converter.errors import StoreError, UsageError
from converter.storage import requests, s3
from converter.storage.locate import parse_address
from converter.storage.object_requests import (
    copy_objects,
    create_object,
    delete_objects,
    list_objects,
    put_object,
    start_read,
)
from converter.storage.objects import ObjectPath
from converter.storage.stores import Transfer, TransientError, shorten

NAMES = ("a.txt", "a/1.jpg", "a/2 é%#?+&.jpg", "a/b/3.jpg", "aa", "c", "c/1\t.jpg", "z")


@pytest.fixture
def folder(server: Server) -> ObjectPath:
    return server.path(uuid.uuid4().hex)


def fill(size: int) -> bytes:
    return bytes(index * 31 % 251 for index in range(size))


def put(path: ObjectPath, file: Path) -> None:
    with open(file, "rb") as stream:
        put_object(path, stream)


def write_all(folder: ObjectPath) -> dict[str, bytes]:
    contents = {name: fill(index * 700) for index, name in enumerate(NAMES)}
    for name, data in contents.items():
        put_object(folder / name, data)
    return contents


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("s3://bucket", ("s3", "bucket", "")),
        ("S3://bucket/", ("s3", "bucket", "")),
        ("gs://b.c_d/e/f g/", ("gs", "b.c_d", "e/f g")),
        ("s3://bucket/a?b#c", ("s3", "bucket", "a?b#c")),
    ],
)
def test_an_address_is_a_store_a_bucket_and_a_key(address, parts):
    assert parse_address(address) == ObjectPath(*parts)


@pytest.mark.parametrize(
    "address",
    ["s3://", "s3:///key", "http://host/x", "s3://b/../x", "s3://b/a//c", "s3://key:word@b/x"],
)
def test_an_address_that_makes_no_sense_is_refused_without_its_credentials(address):
    with pytest.raises(UsageError) as caught:
        parse_address(address)
    assert "word" not in str(caught.value)


def test_names_are_taken_apart_like_those_of_files():
    path = parse_address("s3://bucket/a/b.tar.gz")
    assert (path.name, path.suffix) == ("b.tar.gz", ".gz")
    assert str(path.with_name("c")) == "s3://bucket/a/c"
    assert str(path.parent.parent) == "s3://bucket"
    assert path.relative_to(path.parent.parent) == "a/b.tar.gz"
    assert pickle.loads(pickle.dumps(path)) == path
    with pytest.raises(ValueError, match="does not lie below"):
        path.relative_to(parse_address("s3://bucket/a/b"))


def test_what_is_written_is_read_and_listed(folder):
    contents = write_all(folder)
    assert {name: (folder / name).read_bytes() for name in NAMES} == contents
    listed = list(list_objects(folder))
    assert [path.relative_to(folder) for path, _ in listed] == sorted(NAMES)
    assert [size for _, size in listed] == [len(contents[name]) for name in sorted(NAMES)]


def test_a_range_ends_where_the_object_does(folder):
    put_object(folder / "x", b"0123456789")
    assert (folder / "x").read_range(3, 4) == b"3456"
    assert (folder / "x").read_range(8, 9) == b"89"
    assert (folder / "x").read_range(10, 5) == b""
    assert (folder / "x").read_range(4, 0) == b""


def test_what_is_not_there_is_said_at_once(folder):
    with pytest.raises(FileNotFoundError, match="no such object"):
        (folder / "x").read_bytes()
    assert (folder / "x").measure() is None
    assert not (folder / "x").exists()
    assert not folder.exists()
    put_object(folder / "x" / "y", b"1")
    assert folder.exists()
    assert folder.is_dir()
    assert not folder.is_file()
    delete_objects([folder / "x" / "y", folder / "x" / "z"])
    assert not folder.exists()


def test_a_bucket_that_is_not_there_is_one_line(server):
    bucket = ObjectPath(server.scheme, "no-such-bucket", "x")
    with pytest.raises(StoreError, match="there is no bucket no-such-bucket") as caught:
        list(list_objects(bucket))
    assert "\n" not in str(caught.value)


def test_more_objects_than_an_answer_holds_are_listed_in_order(folder, monkeypatch):
    monkeypatch.setattr("converter.storage.stores.PAGE_OBJECTS", 3)
    names = sorted(f"{first}/{second}" for first in "abcdefgh" for second in range(4))
    for name in names:
        put_object(folder / name, b"")
    assert [path.relative_to(folder) for path, _ in list_objects(folder)] == names


def test_a_file_is_put_whole_and_copied_and_downloaded(folder, tmp_path):
    (tmp_path / "file").write_bytes(fill(3_000_000))
    put(folder / "x", tmp_path / "file")
    copy_objects([(folder / "x", folder / "y é")])
    assert (folder / "y é").download(tmp_path / "new") == 3_000_000
    assert (tmp_path / "new").read_bytes() == fill(3_000_000)


def test_a_download_goes_on_where_it_ended(folder, tmp_path):
    data = fill(300_000)
    put_object(folder / "x", data)
    (tmp_path / "file").write_bytes(data[:100_000])
    added = []
    (folder / "x").download(tmp_path / "file", on_bytes=added.append)
    assert (tmp_path / "file").read_bytes() == data
    assert sum(added) == 200_000


def test_a_file_over_the_limit_of_one_request_goes_in_parts(s3_server, tmp_path, monkeypatch):
    monkeypatch.setattr(s3.S3Store, "max_put_bytes", 6 << 20)
    monkeypatch.setattr(s3.S3Store, "part_bytes", 5 << 20)
    data = fill(1 << 20) * 11
    (tmp_path / "file").write_bytes(data)
    s3_server.set_faults()
    put(s3_server.path("parts"), tmp_path / "file")
    assert s3_server.set_faults()["PUT"] == 3
    assert s3_server.path("parts").read_bytes() == data


def test_an_object_over_the_limit_of_one_request_is_copied_in_parts(s3_server, monkeypatch):
    data = fill(1 << 20) * 11
    source, target = s3_server.path("large"), s3_server.path("copy")
    s3_server.set_faults()
    put_object(source, data)
    monkeypatch.setattr(s3.S3Store, "max_put_bytes", 6 << 20)
    monkeypatch.setattr(s3.S3Store, "part_bytes", 5 << 20)
    copy_objects([(source, target)])
    assert s3_server.set_faults()["PUT"] == 1 + 3
    assert target.read_bytes() == data


def test_a_process_that_becomes_less_patient_waits_less_for_an_answer(server, folder, monkeypatch):
    server.set_faults()
    put_object(folder / "x", b"x")
    monkeypatch.setenv("SHARDMILL_STORE_SECONDS", "6")
    # Each is given up after a sixth of the patience of now; of before, two would take all of it.
    server.set_faults(faults=1, kinds="hang")
    begin = time.monotonic()
    with pytest.raises(StoreError, match="cannot be reached for"):
        (folder / "x").read_bytes()
    assert time.monotonic() - begin < 10
    assert server.set_faults()["hang"] > 3


def test_bytes_are_the_same_through_faults_of_every_kind(server, folder, tmp_path):
    server.set_faults(faults=0.3, seed=3)
    contents = write_all(folder)
    (tmp_path / "file").write_bytes(fill(2_000_000))
    put(folder / "z", tmp_path / "file")
    reads = [start_read(folder / name) for name in NAMES * 4]
    got = [read.result() for read in reads]
    assert got == [contents[name] if name != "z" else fill(2_000_000) for name in NAMES] * 4
    assert [path.relative_to(folder) for path, _ in list_objects(folder)] == sorted(NAMES)
    counts = server.set_faults()
    assert sum(counts.get(kind, 0) for kind in ("refuse", "reset", "cut", "short", "lose")) > 3


def test_what_breaks_off_is_not_fetched_again(server, folder):
    put_object(folder / "x", fill(1_000_000))
    server.set_faults(faults=0.85, kinds="cut", seed=3)
    assert (folder / "x").read_bytes() == fill(1_000_000)
    counts = server.set_faults()
    assert counts["cut"] >= 2
    assert counts["ranged"] == counts["GET"] - 1


def test_one_object_is_not_made_of_two_versions(s3_server):
    path = s3_server.path("versions")
    put_object(path, b"0123456789")
    with pytest.raises(OSError, match="changed while"):
        start_read(path, 4, version='"of the object before"').result()


@pytest.mark.parametrize("kind", ["refuse", "reset", "hang"])
def test_an_outage_is_one_line_in_bounded_time(server, folder, monkeypatch, kind):
    monkeypatch.setenv(requests.PATIENCE_VARIABLE, "1")
    server.set_faults(faults=1, kinds=kind)
    begun = time.monotonic()
    with pytest.raises(StoreError, match="cannot be reached for") as caught:
        (folder / "x").read_bytes()
    assert time.monotonic() - begun < 6
    assert str(folder / "x") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_who_is_denied_is_told_so_after_one_request(server, folder):
    server.set_faults(faults=1, kinds="deny")
    with pytest.raises(StoreError, match=r"access to .* is denied \(403") as caught:
        (folder / "x").read_bytes()
    assert server.set_faults()["GET"] == 1
    assert "canary" not in str(caught.value)


def test_a_signed_address_is_not_shown():
    said = shorten("https://b.s3.amazonaws.com/k?X-Amz-Signature=canary&X-Amz-Date=1 is broken")
    assert said == "https://b.s3.amazonaws.com/k?… is broken"


def test_an_object_that_is_elsewhere_is_left_to_botocore(s3_server):
    path = s3_server.path("elsewhere")
    put_object(path, b"data")
    s3_server.set_faults(faults=1, kinds="move", only="X-Amz-Signature")
    assert path.read_bytes() == b"data"
    counts = s3_server.set_faults()
    requests.open_store("s3").modeled.clear()
    assert (counts["GET"], counts["move"]) == (2, 1)


def try_to_create(path: ObjectPath, data: bytes) -> bool:
    try:
        create_object(path, data)
    except FileExistsError:
        return False
    return True


@pytest.mark.parametrize(("faults", "rounds"), [(0, 50), (0.3, 4)])
def test_of_several_creators_one_wins_and_knows_it(server, folder, faults, rounds):
    server.set_faults(faults=faults, kinds="refuse,reset,lose", seed=11)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for number in range(rounds):
            path = folder / str(number)
            won = list(pool.map(lambda who, path=path: try_to_create(path, b"%d" % who), range(3)))
            assert won.count(True) == 1
            assert path.read_bytes() == b"%d" % won.index(True)


def test_a_creator_whose_answer_is_lost_knows_that_it_won(server, folder):
    server.set_faults(faults=0.5, kinds="lose", seed=2)
    for number in range(6):
        create_object(folder / str(number), b"data")
    assert server.set_faults()["lose"] > 0


def test_an_answer_that_ends_early_is_asked_for_again():
    async def send():
        yield b"4567"

    transfer = Transfer(write=print, place=3)
    with pytest.raises(TransientError, match="ends 3 bytes early"):
        asyncio.run(transfer.receive(send(), 7))
    assert transfer.range == "bytes=7-"


def test_a_missing_package_is_named(monkeypatch):
    for scheme, package in (("s3", "s3fs"), ("gs", "gcsfs")):
        monkeypatch.setattr(requests, "opened", {})
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UsageError, match=rf"package {package}.*pip install {package}$"):
            ObjectPath(scheme, "bucket", "x").read_bytes()


@pytest.mark.parametrize("text", ["x", "-1", "nan", "1e9"])
def test_a_patience_that_is_no_time_is_refused(monkeypatch, text):
    monkeypatch.setenv(requests.PATIENCE_VARIABLE, text)
    with pytest.raises(UsageError, match="a number of seconds"):
        requests.read_patience()


@pytest.fixture
def forget_proxies(monkeypatch):
    """Proxies are looked for again, before and after, by stores that no other test uses.

    A client keeps the proxy of its first request: the next test with the same patience got it, too.
    """
    monkeypatch.setattr(requests, "opened", {})
    s3.find_proxy.cache_clear()
    yield
    s3.find_proxy.cache_clear()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"http_proxy": "http://me:secret@proxy:3128"}, "http://me:secret@proxy:3128"),
        ({"http_proxy": "proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128"}, None),
        ({"http_proxy": "http://proxy:3128", "no_proxy": "store.example:9000"}, None),
        ({"http_proxy": "http://proxy:3128", "no_proxy": "store.example"}, None),
    ],
)
@pytest.mark.usefixtures("forget_proxies")
def test_the_environment_names_the_proxy(monkeypatch, variables, expected):
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        for spelled in (name, name.upper()):
            monkeypatch.delenv(spelled, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert s3.find_proxy("http", "store.example:9000") == expected


@pytest.mark.usefixtures("forget_proxies")
def test_objects_are_read_through_the_proxy(s3_server, monkeypatch):
    path = s3_server.path(uuid.uuid4().hex)
    put_object(path, b"content")
    monkeypatch.setenv("SHARDMILL_STORE_SECONDS", "1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="cannot be reached"):
        path.read_bytes()
    s3.find_proxy.cache_clear()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert path.read_bytes() == b"content"
