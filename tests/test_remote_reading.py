"""Data sets in object stores, read through real servers: what comes is what a folder gives."""

import concurrent.futures
import contextlib
import re
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest
from conftest import make_environment
from forging import forge, make_payload
from servers import upload

from converter.errors import DatasetError, StoreError, UsageError
from converter.storage.object_requests import put_object
from reader import ReadOptions, load_dataset, mix_datasets, open_shards, open_tfrecords
from reader.batches.batch_reader import BatchReader
from reader.plan.memory import STORE_BYTES
from reader.plan.planning import plan_reading
from reader.plan.read_plan import describe_plan
from reader.remote.remote_shards import RangeFiles

SHARDS = 12
RECORDS = 20
SHARD_BYTES = 24_000
"""A little more than each has."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve shards of twenty records with a kilobyte of noise in each."""
    random = np.random.default_rng(1)
    shards = {
        f"train-{shard:05d}-of-{SHARDS:05d}": [
            make_payload(
                random.bytes(768), shard * RECORDS + number, 16, 16, format=b"raw", channels=3
            )
            for number in range(RECORDS)
        ]
        for shard in range(SHARDS)
    }
    return forge(tmp_path_factory.mktemp("remote") / "set", shards, "raw", (16, 16))


@pytest.fixture
def anywhere(server, folder):
    """The same in each kind of store, under a prefix of its own."""
    address = upload(folder, server.path(uuid.uuid4().hex))
    server.set_faults()
    return address


@pytest.fixture
def address(s3_server, folder):
    """The same in one kind of store, where it makes no difference."""
    s3_server.set_faults()
    address = upload(folder, s3_server.path(uuid.uuid4().hex))
    s3_server.set_faults()
    return address


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    """The cache of a user who has never read anything."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "shardmill"


DEFAULTS = {"batch_size": 16, "seed": 3, "with_filename": True, "dtype": "uint8"}


def make_plan(directory, **arguments):
    shards = open_shards(directory)
    options = ReadOptions(**DEFAULTS | arguments)
    return plan_reading(shards.folder, shards.manifest, "train", options)


def read_steps(plan, epoch: int = 0, steps=None):
    """Names and images of some steps, each by itself."""
    reader = BatchReader(plan)
    for step in range(plan.steps.count) if steps is None else steps:
        batch = reader.read(epoch, [step])
        yield batch.names.tolist(), batch.images.tobytes()


def measure(cache_dir) -> int:
    """What a cache takes, parts at their full size."""
    total = 0
    for path in cache_dir.iterdir():
        with contextlib.suppress(FileNotFoundError):
            part = re.fullmatch(r"\w+\.(\d+)\.part", path.name)
            total += int(part[1]) if part else path.stat().st_size
    return total


def list_shards(cache_dir) -> list:
    """What a cache keeps besides indexes."""
    return [path for path in cache_dir.glob("*.whole") if path.stat().st_size > 1_000]


@pytest.mark.parametrize("shuffle", [False, "exact"])
@pytest.mark.parametrize("cache_bytes", ["1GB", 5 * SHARD_BYTES])
def test_batches_are_those_of_a_folder(anywhere, folder, shuffle, cache_bytes):
    plan = make_plan(anywhere, shuffle=shuffle, cache_bytes=cache_bytes)
    local = make_plan(folder, shuffle=shuffle)
    for epoch in (0, 1):
        assert list(read_steps(plan, epoch)) == list(read_steps(local, epoch))


@pytest.mark.parametrize("cache_bytes", [1 << 30, 7 * SHARD_BYTES, SHARD_BYTES])
def test_each_record_comes_once_an_epoch_shard_by_shard(address, folder, cache_bytes):
    plan = make_plan(address, cache_bytes=cache_bytes)
    assert plan.options.shuffle == "buffer"
    names = [name for batch, _ in read_steps(plan) for name in batch]
    assert len(names) == len(set(names)) == SHARDS * RECORDS
    images = dict.fromkeys(names)
    for batch, pixels in read_steps(plan):
        images.update(
            zip(batch, np.split(np.frombuffer(pixels, np.uint8), len(batch)), strict=True)
        )
    local = open_shards(folder).source("train")
    for record in local[:]:
        assert record.encoded == images[record.source_id.encode()].tobytes()


def test_any_step_of_any_epoch_can_be_read_alone(address, folder):
    plan = make_plan(address, cache_bytes=5 * SHARD_BYTES)
    epochs = [list(read_steps(plan, epoch)) for epoch in (0, 1)]
    assert epochs[0] != epochs[1]
    again = make_plan(address, cache_bytes=5 * SHARD_BYTES)
    for epoch, step in ((1, 9), (0, 14), (1, 2), (0, 0)):
        assert [*read_steps(again, epoch, [step])] == [epochs[epoch][step]]


def test_hosts_share_an_epoch_and_each_fetches_its_part(address, folder, tmp_path):
    names = []
    for host in range(3):
        plan = make_plan(
            address, shard_index=host, shard_count=3, cache_dir=tmp_path / str(host), batch_size=8,
            cache_bytes=6 * SHARD_BYTES,
        )  # fmt: skip
        names += [name for batch, _ in read_steps(plan) for name in batch]
    assert len(names) == len(set(names)) == SHARDS * RECORDS


def test_the_cache_keeps_under_its_limit_and_fetches_little_twice(address, s3_server, cache_dir):
    plan = make_plan(address, cache_bytes=5 * SHARD_BYTES, batch_size=14)
    s3_server.set_faults()
    most = 0
    for _ in read_steps(plan):
        most = max(most, measure(cache_dir))
    indexes = {shard.index_sha256 for shard in open_shards(address).manifest.shards}
    assert 4 * SHARD_BYTES < most <= 5 * SHARD_BYTES
    # Those that the next epoch begins with come before its time.
    assert s3_server.set_faults()["GET"] <= 2 * (SHARDS + len(indexes))


def test_what_comes_next_is_fetched_before_it_is_needed(address, s3_server, cache_dir):
    plan = make_plan(address, cache_bytes=5 * SHARD_BYTES, shuffle=False)
    reading = read_steps(plan)  # with the last reference to it, the fetching ends
    next(reading)
    end = time.monotonic() + 20
    while len(list_shards(cache_dir)) < 5 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(list_shards(cache_dir)) == 5  # all that it holds, so none is on its way
    s3_server.set_faults(faults=1, kinds="hang")
    assert len([*read_steps(plan, steps=(1, 2, 3))]) == 3


def test_an_epoch_that_is_here_asks_for_nothing(address, s3_server):
    list(read_steps(make_plan(address)))
    plan = make_plan(address)
    s3_server.set_faults()
    list(read_steps(plan, 1))
    assert "GET" not in s3_server.set_faults()


def test_an_exact_shuffle_of_more_than_the_cache_holds_reads_single_records(
    address, s3_server, cache_dir
):
    plan = make_plan(address, shuffle="exact", cache_bytes=5 * SHARD_BYTES)
    assert isinstance(plan.files, RangeFiles)
    list(read_steps(plan))
    assert list_shards(cache_dir) == []
    plan = make_plan(address, shuffle="exact", cache_bytes=SHARDS * SHARD_BYTES)
    assert not isinstance(plan.files, RangeFiles)


def test_a_data_set_is_opened_with_one_listing(anywhere, server):
    open_shards(anywhere)
    counts = server.set_faults()
    # The manifest, its size, and all sizes.
    assert counts.get("GET", 0) + counts.get("HEAD", 0) <= 3


def test_what_is_cut_or_missing_is_found_when_a_data_set_is_opened(anywhere, folder):
    name = "train-00003-of-00012.tfrecord"
    data = (folder / name).read_bytes()
    put_object(anywhere / name, data[:-1])
    size = len(data)
    with pytest.raises(
        DatasetError,
        match=f"^{re.escape(str(anywhere / name))} has {size - 1} bytes, expected {size}: ",
    ):
        open_shards(anywhere)
    put_object(anywhere / name, data)
    open_shards(anywhere)
    (anywhere / "train-00004-of-00012.tfindex").unlink(missing_ok=True)
    with pytest.raises(DatasetError, match=r"train-00004-of-00012\.tfindex is missing$"):
        open_shards(anywhere)
    (anywhere / "manifest.json").unlink(missing_ok=True)
    with pytest.raises(DatasetError, match=r"no finished data set: .* manifest\.json"):
        open_shards(anywhere)


def test_a_data_set_that_was_replaced_is_not_mixed_with_what_was_kept(address, folder, tmp_path):
    list(read_steps(make_plan(address)))
    other = forge(
        tmp_path / "other",
        {
            f"train-{shard:05d}-of-{SHARDS:05d}": [
                make_payload(bytes([shard]) * 768, n, 16, 16, format=b"raw", channels=3)
                for n in range(RECORDS)
            ]
            for shard in range(SHARDS)
        },
        "raw",
        (16, 16),
    )
    upload(other, address)
    plan = make_plan(address, shuffle=False)
    assert [*read_steps(plan)] == [*read_steps(make_plan(other, shuffle=False))]


def test_a_cache_that_is_too_small_is_refused_with_what_would_do(address):
    with pytest.raises(UsageError, match=r"^cache_bytes 9\.0 kB is too small: ") as caught:
        make_plan(address, cache_bytes="9kB")
    enough = int(re.search(r"at least (\d+) bytes$", str(caught.value))[1])
    assert len(list(read_steps(make_plan(address, cache_bytes=enough), steps=(0, 1)))) == 2
    with pytest.raises(UsageError, match="is too small"):
        open_shards(address, cache_bytes=enough - 1).source("train")


def test_data_is_the_same_through_faults(anywhere, server, folder):
    """503, resets, answers that break off or end early, hangs and dribbles, in a third of all."""
    local = [*read_steps(make_plan(folder, shuffle=False))]
    wanted = open_shards(folder).source("train")[[1, 50, 99, 200]]
    with pytest.MonkeyPatch.context() as patch:
        # An answer that hangs is given up after a fourth of it.
        patch.setenv("SHARDMILL_STORE_SECONDS", "8")
        server.set_faults(faults=0.3, seed=5)
        assert [*read_steps(make_plan(anywhere, shuffle=False))] == local
        assert open_shards(anywhere).source("train")[[1, 50, 99, 200]] == wanted
    counts = server.set_faults()
    assert sum(counts.get(kind, 0) for kind in ("refuse", "reset", "cut", "short", "hang")) >= 5


def test_a_store_that_is_gone_is_one_line_in_bounded_time(anywhere, server, monkeypatch):
    plan = make_plan(anywhere)
    monkeypatch.setenv("SHARDMILL_STORE_SECONDS", "1")
    server.set_faults(faults=1, kinds="refuse,reset")
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"^\S+ cannot be reached for \d s: [^\n]*$"):
        list(read_steps(plan))
    with pytest.raises(StoreError, match=r"^\S+ cannot be reached for \d s: [^\n]*$"):
        open_shards(anywhere)
    assert time.monotonic() - began < 8


READ = """
import hashlib, json, sys
from reader import ReadOptions, open_shards
from reader.batches.batch_reader import BatchReader
from reader.plan.planning import plan_reading
anywhere, cache_dir, cache_bytes = sys.argv[1:]
options = ReadOptions(
    batch_size=16, seed=3, with_filename=True, dtype="uint8", cache_dir=cache_dir,
    cache_bytes=int(cache_bytes),
)
shards = open_shards(anywhere)
plan = plan_reading(shards.folder, shards.manifest, "train", options)
digest = hashlib.sha256()
reader = BatchReader(plan)
for step in range(plan.steps.count):
    digest.update(reader.read(0, [step]).images.tobytes())
print(digest.hexdigest())
"""


def test_two_processes_read_through_one_small_cache(address, folder, tmp_path):
    limit = 5 * SHARD_BYTES
    arguments = [str(address), str(tmp_path / "both"), str(limit)]
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        runs = threads.map(
            lambda _: subprocess.run(
                [sys.executable, "-c", READ, *arguments],
                env=make_environment(), capture_output=True, text=True, timeout=60, check=False,
            ),
            range(2),
        )  # fmt: skip
    digests = {(run.returncode, run.stdout, run.stderr) for run in runs}
    import hashlib

    expected = hashlib.sha256()
    for _, pixels in read_steps(make_plan(address, cache_bytes=limit)):
        expected.update(pixels)
    assert digests == {(0, f"{expected.hexdigest()}\n", "")}
    assert measure(tmp_path / "both") <= limit


def test_a_byte_that_changes_in_the_cache_is_noticed(anywhere, server, folder, cache_dir):
    plan = make_plan(anywhere, shuffle=False)
    local = [*read_steps(make_plan(folder, shuffle=False))]
    assert [*read_steps(plan)] == local
    for path in cache_dir.glob("*.whole"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert [*read_steps(make_plan(anywhere, shuffle=False))] == local


def test_the_size_of_the_cache_is_part_of_what_is_continued_only_where_it_decides(address):
    few, enough, more = (
        describe_plan(make_plan(address, cache_bytes=limit))
        for limit in (5 * SHARD_BYTES, 40 * SHARD_BYTES, 80 * SHARD_BYTES)
    )
    assert few != enough == more
    assert "shards" not in describe_plan(make_plan(address, shuffle="exact"))


def test_memory_for_a_store_is_counted(address, folder):
    remote, local = (make_plan(place, shuffle="exact").buffers.bytes for place in (address, folder))
    assert remote - local == STORE_BYTES
    with pytest.raises(UsageError, match=r"max_ram 80\.0 MB is too small"):
        make_plan(address, max_ram="80MB")


def test_a_dataset_of_an_address(address, folder):
    train = load_dataset(str(address), batch_size=16, seed=3, with_filename=True)
    names = [name for *_, batch in train for name in batch.numpy()]
    assert sorted(names) == sorted(
        name.encode() for name in open_shards(folder).source("train").file_paths
    )
    assert train.class_names == ["ant", "bee"]
    exact = [
        load_dataset(str(place), shuffle="exact", seed=5, batch_size=64)
        for place in (address, folder)
    ]
    for (images, labels), (local, local_labels) in zip(*exact, strict=True):
        assert (images.numpy() == local.numpy()).all()
        assert (labels.numpy() == local_labels.numpy()).all()


def test_a_sequence_reads_the_batch_that_is_asked_for(address, folder, cache_dir):
    sequence = open_shards(address).sequence("train", batch_size=8, seed=3)
    batch = sequence[7]
    assert list_shards(cache_dir) == []
    local = open_shards(folder).sequence("train", batch_size=8, seed=3)[7]
    assert all((ours == theirs).all() for ours, theirs in zip(batch, local, strict=True))


def test_epochs_of_a_sequence_fetch_everything_once(anywhere, folder, server, cache_dir):
    sequence = open_shards(anywhere).sequence("train", batch_size=8, seed=3)
    local = open_shards(folder).sequence("train", batch_size=8, seed=3)
    for ours, theirs in zip(sequence, local, strict=True):
        assert all((one == other).all() for one, other in zip(ours, theirs, strict=True))
    assert len(list_shards(cache_dir)) == SHARDS
    sequence.on_epoch_end()
    server.set_faults()
    assert len(list(sequence)) == len(sequence)
    assert "GET" not in server.set_faults()


def test_a_mixture_of_a_folder_and_an_address(address, folder):
    mixed = mix_datasets({str(address): 1, folder: 1}, batch_size=50, seed=3)
    twice = mix_datasets({folder: 1, f"{folder}/.": 1}, batch_size=50, seed=3)
    for (images, _), (local, _) in zip(mixed, twice, strict=True):
        assert (images.numpy() == local.numpy()).all()


@pytest.mark.parametrize("text", ["s3://", "ftp://bucket/flowers", "gs://bucket/../flowers"])
def test_an_address_that_makes_no_sense_is_one_line(text):
    with pytest.raises(UsageError, match=r"^[^\n]+$"):
        open_shards(text)


@pytest.mark.parametrize("limit", [0, -1, "many", 1.5])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(UsageError):
        ReadOptions(cache_bytes=limit)
    with pytest.raises(UsageError):
        open_shards("s3://bucket/flowers", cache_bytes=limit)
    with pytest.raises(UsageError, match=r"^cache_dir 7 is not a path$"):
        open_shards("s3://bucket/flowers", cache_dir=7)


def test_files_without_a_manifest_are_read_from_folders_alone():
    with pytest.raises(UsageError, match=r"^gs://bucket/\*\.tfrecord is an address"):
        open_tfrecords("gs://bucket/*.tfrecord")
