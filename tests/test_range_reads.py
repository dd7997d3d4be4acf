"""Single records of objects: which bytes are asked for, and that they are those of the files."""

import os
import pickle
import threading
import time
import uuid

import numpy as np
import pytest
from forging import forge, make_payload
from servers import upload

from converter.errors import DatasetError, RecordError, StoreError
from converter.storage.object_requests import put_object
from reader import open_shards
from reader.records.indexed_file import Group, read_index
from reader.remote import remote_shards as ranges
from reader.remote.remote_shards import RangeFiles, RemoteFile, list_ranges

SHARDS = 6
RECORDS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six shards of twenty records with 3 kB of noise in each."""
    random = np.random.default_rng(1)
    shards = {
        f"train-{shard:05d}-of-{SHARDS:05d}": [
            make_payload(random.bytes(3_000), shard * RECORDS + number) for number in range(RECORDS)
        ]
        for shard in range(SHARDS)
    }
    return forge(tmp_path_factory.mktemp("ranges") / "set", shards)


@pytest.fixture
def remote(server, folder, tmp_path):
    """The same in a store, opened, with nothing of it here."""
    address = upload(folder, server.path(uuid.uuid4().hex))
    shards = open_shards(address, cache_dir=tmp_path / "cache")
    server.set_faults()
    return shards


def list_whole(cache_dir) -> list[int]:
    """The sizes of what is kept, without the lock."""
    return sorted(path.stat().st_size for path in cache_dir.glob("*.whole"))


def count_requests(server) -> tuple[int, int]:
    """The requests since the last time, and those of them for a part of an object."""
    counts = server.set_faults()
    assert counts.keys() == {"GET", "ranged", "bytes"}
    return counts["GET"], counts["ranged"]


def test_records_are_those_of_the_files(remote, folder):
    source, local = remote.source("train"), open_shards(folder).source("train")
    assert len(source) == SHARDS * RECORDS
    for number in (7, -1, 0, 119):
        assert source[number] == local[number]
    for numbers in ([3], [5, 99, 5, 0, 41], np.arange(0, 120, 7), slice(10, 60, 9), []):
        assert source[numbers] == local[numbers]


def test_one_record_takes_its_own_bytes_and_an_index(remote, server, tmp_path):
    source = remote.source("train")
    source[7]
    assert count_requests(server) == (2, 1)
    source[13]
    assert count_requests(server) == (1, 1)
    (index_bytes,) = list_whole(tmp_path / "cache")
    assert index_bytes == remote.manifest.shards[0].index_bytes


def test_neighbours_take_one_request_and_each_shard_one_more(remote, server, monkeypatch):
    source = remote.source("train")
    source[[0, 20, 40]]
    server.set_faults()
    source[3:9]
    assert count_requests(server) == (1, 1)
    source[[2, 5, 22, 41, 44]]  # with gaps that are not worth a request of their own
    assert count_requests(server) == (3, 3)
    monkeypatch.setattr(ranges, "GAP_BYTES", 100)
    source = remote.source("train")  # which has not asked for as much yet
    source[[2, 5, 22, 41, 44]]
    assert count_requests(server) == (5, 5)


def test_a_shard_of_which_most_is_wanted_is_fetched_and_kept(remote, server, tmp_path):
    source = remote.source("train")
    source[:]
    # Some indexes are the same, so one of them is enough.
    indexes = {shard.index_sha256 for shard in remote.manifest.shards}
    assert server.set_faults()["GET"] == SHARDS + len(indexes)
    assert len(list_whole(tmp_path / "cache")) == SHARDS + len(indexes)
    source[7], source[[5, 99]], source.labels, list(source.file_paths)
    assert "GET" not in server.set_faults()


def read_epoch(source, seed: int) -> list:
    numbers = np.random.default_rng(seed).permutation(len(source))
    return [source[batch] for batch in np.array_split(numbers, 15)]


def test_epochs_of_a_random_order_fetch_everything_once(remote, folder, server, tmp_path):
    source = remote.source("train")
    read_epoch(source, 0)
    counts = server.set_faults()
    whole = counts["GET"] - counts["ranged"]
    assert whole == SHARDS + len({shard.index_sha256 for shard in remote.manifest.shards})
    assert read_epoch(source, 1) == read_epoch(open_shards(folder).source("train"), 1)
    assert "GET" not in server.set_faults()


def test_shards_that_the_cache_does_not_hold_together_are_not_fetched(
    remote, folder, server, tmp_path
):
    total = sum(shard.bytes for shard in remote.manifest.shards)
    small = open_shards(remote.folder, cache_dir=tmp_path / "small", cache_bytes=total - 1)
    source = small.source("train")
    assert read_epoch(source, 0) == read_epoch(open_shards(folder).source("train"), 0)
    read_epoch(source, 1)
    assert max(list_whole(tmp_path / "small")) < 1_000  # nothing but indexes


def test_labels_and_names_are_those_of_the_files(remote, folder):
    source, local = remote.source("train"), open_shards(folder).source("train")
    assert source.labels.tolist() == local.labels.tolist()
    assert source.file_paths[50:53] == local.file_paths[50:53]
    assert repr(source.file_paths) == f"<{len(source):,} paths of originals: list(…) reads them>"
    assert source.by_id("bee/77.png") == local[77]


def test_many_requests_are_under_way_at_once(remote, s3_server, server):
    source = remote.source("train")
    source[::20]
    server.set_faults(latency=0.4)
    assert len(source[5::20]) == SHARDS
    # One after the other, they would take 2.4 seconds.
    assert server.set_faults()["GET"] == SHARDS


def test_indexes_are_fetched_at_once(remote, monkeypatch):
    meeting = threading.Barrier(SHARDS, timeout=10)

    def meet(file):
        meeting.wait()  # one after the other, they would never meet
        return read_index(file)

    monkeypatch.setattr("reader.records.record_files.read_index", meet)
    assert len(remote.source("train")[::RECORDS]) == SHARDS


def test_what_does_not_fit_into_memory_waits(remote, folder, monkeypatch):
    monkeypatch.setattr(ranges, "GAP_BYTES", 0)
    monkeypatch.setattr(ranges, "PART_BYTES", 1_000)
    monkeypatch.setattr(ranges, "AHEAD_BYTES", 2_500)
    monkeypatch.setattr(ranges, "OPEN_FILES", 2)
    most, begin = 0, ranges.RangeRequests.begin

    def note(self, path, piece):
        nonlocal most
        begin(self, path, piece)
        most = max(most, self.ahead_bytes)

    monkeypatch.setattr(ranges.RangeRequests, "begin", note)
    numbers = np.arange(0, 120, 3)
    assert remote.source("train")[numbers] == open_shards(folder).source("train")[numbers]
    assert 2_500 <= most < 4_000


def test_a_file_that_is_opened_again_is_asked_for_again_only_if_it_was_closed(
    remote, server, monkeypatch
):
    files = remote.source("train")._files
    groups = list(files.locate(np.arange(0, 120, 20)))
    server.set_faults()
    for _ in range(2):
        for group in groups:
            os.close(group.file.open())
    assert server.set_faults()["GET"] == SHARDS
    monkeypatch.setattr(ranges, "OPEN_FILES", 2)
    groups = list(files.locate(np.arange(0, 120, 20)))
    for _ in range(2):
        for group in groups:
            os.close(group.file.open())
    assert server.set_faults()["GET"] == 2 * SHARDS


def test_ranges_are_joined_where_gaps_are_small():
    begins = np.array([0, 100, 300, 100_000, 100_000, 900_000])
    ends = np.array([100, 150, 400, 100_500, 100_500, 900_001])
    group = Group(None, np.arange(6), np.arange(6), begins, ends)
    assert list(list_ranges(group)) == [(0, 400), (100_000, 500), (900_000, 1)]


def test_a_long_range_is_asked_for_in_parts():
    size = 2 * ranges.PART_BYTES + 5
    one = np.array([0])
    group = Group(None, one, one, np.array([10]), np.array([10 + size]))
    parts = list(list_ranges(group))
    assert [part[1] for part in parts] == [ranges.PART_BYTES, ranges.PART_BYTES, 5]
    assert [part[0] for part in parts] == [10, 10 + ranges.PART_BYTES, 10 + 2 * ranges.PART_BYTES]


def test_damage_is_named_as_in_a_file(remote, server, folder):
    shard = remote.manifest.shards[0]
    data = bytearray((folder / shard.name).read_bytes())
    data[2_000] ^= 1
    put_object(remote.folder / shard.name, bytes(data))
    source = remote.source("train")
    with pytest.raises(RecordError, match=r"byte 0 .*record 0, from 'ant/0\.png'"):
        source[0]
    assert source[1] == open_shards(folder).source("train")[1]


def test_an_object_that_has_gone_or_become_short_is_named(remote, server):
    source = remote.source("train")
    source[3], source[23]
    put_object(remote.folder / remote.manifest.shards[0].name, b"short")
    with pytest.raises(RecordError, match="the file ends"):
        source[3]
    (remote.folder / remote.manifest.shards[1].name).unlink(missing_ok=True)
    path = remote.folder / remote.manifest.shards[1].name
    with pytest.raises(DatasetError, match=f"^{path} is missing"):
        source[23]


def test_a_store_that_is_gone_is_one_line_in_bounded_time(remote, server, monkeypatch):
    source = remote.source("train")
    source[3]
    monkeypatch.setenv("SHARDMILL_STORE_SECONDS", "1")
    server.set_faults(faults=1, kinds="refuse,reset")
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"^\S+ cannot be reached for 1 s"):
        source[5]
    assert time.monotonic() - began < 5


def test_a_source_goes_to_other_processes_with_its_cache(remote, folder):
    source = pickle.loads(pickle.dumps(remote.source("train")))
    assert source[17] == open_shards(folder).source("train")[17]
    assert isinstance(source._files, RangeFiles)
    assert isinstance(source._files.files[0], RemoteFile)
