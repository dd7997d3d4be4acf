"""Objects as files: what is read is what lies there, in few requests, and of one version."""

import os
import random
import time
import uuid
from pathlib import Path

import pytest

from converter.errors import StoreError
from converter.storage import object_requests
from converter.storage.object_requests import put_object
from converter.storage.objects import ObjectPath

DATA = random.Random(5).randbytes(24 << 20)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """The data, here."""
    path = tmp_path_factory.mktemp("data") / "data"
    path.write_bytes(DATA)
    return path


@pytest.fixture(scope="module")
def stored() -> dict[str, ObjectPath]:
    """The data in each kind of store, once it was asked for."""
    return {}


@pytest.fixture
def path(server, stored, file) -> ObjectPath:
    """The address of the data."""
    if server.scheme not in stored:
        stored[server.scheme] = server.path(uuid.uuid4().hex)
        with open(file, "rb") as data:
            put_object(stored[server.scheme], data)
    server.set_faults()
    return stored[server.scheme]


def test_it_reads_like_a_file(path, file):
    chance = random.Random(1)
    with path.open_read() as far, file.open_read() as near:
        for _ in range(60):
            offset = chance.choice([chance.randrange(len(DATA) + 9), near.tell() + 3000])
            size = chance.choice([0, 1, 5000, 100_000, 3 << 20])
            assert far.seek(offset) == near.seek(offset)
            assert far.read(size) == near.read(size)
            assert far.tell() == near.tell()
        assert far.seek(-7, os.SEEK_END) == near.seek(-7, os.SEEK_END)
        assert far.read() == near.read() == DATA[-7:]


def test_forward_it_reads_in_few_requests_that_are_under_way_at_once(server, path):
    server.set_faults(latency=0.3)
    begun = time.monotonic()
    with path.open_read() as stream:
        assert stream.read() == DATA
    seconds = time.monotonic() - begun
    requests = server.set_faults()["GET"] + (server.scheme == "s3")
    assert requests < 20
    assert seconds < 0.85 * 0.3 * requests


def test_a_jump_asks_for_little(server, path):
    with path.open_read() as file:
        for offset in (20 << 20, 5 << 20, 12 << 20):
            file.seek(offset)
            assert file.read(512) == DATA[offset : offset + 512]
    counts = server.set_faults()
    assert counts["GET"] <= 8


def test_faults_on_the_way_change_no_byte(server, path):
    server.set_faults(faults=0.3, kinds="refuse,reset,cut,short", seed=3)
    with path.open_read() as stream:
        assert stream.read() == DATA
    counts = server.set_faults()
    assert any(counts[kind] for kind in ("refuse", "reset", "cut", "short"))


def test_a_read_that_failed_can_be_repeated(path, monkeypatch):
    def fail(reading):
        raise StoreError("no answer")

    place = 9 << 20
    with path.open_read() as file:
        assert file.read(512) == DATA[:512]
        file.seek(place)
        with monkeypatch.context() as patch, pytest.raises(StoreError, match="no answer"):
            patch.setattr(object_requests, "wait", fail)
            file.read(512)
        assert file.read(512) == DATA[place : place + 512]


def test_it_is_of_one_version(s3_server):
    s3_server.set_faults()
    path = s3_server.path(uuid.uuid4().hex)
    put_object(path, DATA)
    before = path.read_version()
    with path.open_read() as file:
        assert file.read(100) == DATA[:100]
        put_object(path, DATA[::-1])
        file.seek(16 << 20)
        with pytest.raises(OSError, match="changed while"):
            file.read(100)
    assert path.read_version() != before


def test_one_that_is_gone_or_empty(server):
    path = server.path(uuid.uuid4().hex)
    with pytest.raises(FileNotFoundError):
        path.open_read()
    put_object(path, b"")
    with path.open_read() as file:
        assert file.read() == b""
