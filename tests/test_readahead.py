"""Records read in runs: the same as one by one, each run once, and no more kept than allowed."""

import concurrent.futures
import functools
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import read_record
from damaging import fork_while_held, run_apart

from converter import DatasetError, RecordError
from reader import ReadOptions, open_shards
from reader.plan.planning import list_files
from reader.records.record_files import RecordFiles, RunFiles
from reader.sampling.orders import Steps, WindowedOrder


def open_records(folder: Path) -> RecordFiles:
    shards = open_shards(folder)
    return RecordFiles(list_files(shards.folder, shards.manifest, "train", ReadOptions()))


def read_all(files: RecordFiles, numbers: np.ndarray) -> dict[int, tuple]:
    """By index: place, and bytes or what is wrong."""
    found = list(files.read_many(numbers))
    assert len(found) == len(numbers)
    return {
        index: (place, str(payload) if isinstance(payload, RecordError) else bytes(payload))
        for index, place, payload in found
    }


def count_reads(files: RunFiles, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the number of each run that is read."""
    reads, read = [], files.read_run
    monkeypatch.setattr(files, "read_run", lambda number: (reads.append(number), read(number))[1])
    return reads


@pytest.fixture(scope="module")
def plain(converted):
    files = open_records(converted)
    assert len(files) > 50
    return files


@pytest.fixture
def damaged(converted, tmp_path):
    """A copy whose second shard has a flipped bit and an end that is cut off."""
    folder = shutil.copytree(converted, tmp_path / "set")
    files = open_records(folder)
    shard = folder / "train-00001-of-00003.tfrecord"
    data = bytearray(shard.read_bytes())
    data[300] ^= 1
    shard.write_bytes(data[:-3])
    return files


@pytest.mark.parametrize("run", [1, 4, 7, 1_000])
@pytest.mark.parametrize("keep", [1, 3])
def test_runs_hold_what_single_reads_give(plain, run, keep):
    files = RunFiles(plain, run, keep)
    rng = np.random.default_rng(run)
    assert len(files) == len(plain)
    for size in (0, 1, 5, 30, 200):  # of the last, most come twice
        numbers = rng.integers(0, len(plain), size)
        assert read_all(files, numbers) == read_all(plain, numbers)
    every = np.arange(len(plain))
    assert read_all(files, every) == read_all(plain, every)
    for number in (0, len(plain) - 1):
        assert read_record(files, number) == read_record(plain, number)


@pytest.mark.parametrize("run", [1, 4, 7, 1_000])
def test_runs_can_begin_anew_with_each_file(plain, run):
    files = RunFiles(plain, run, 1_000, by_file=True)
    every = np.random.default_rng(run).permutation(len(plain))
    assert read_all(files, every) == read_all(plain, every)
    held = {number: {place.file.path for place, _ in found} for number, found in files.runs.items()}
    assert all(len(paths) == 1 for paths in held.values())
    assert len(held) == sum(-(-file.records // run) for file in plain.files)


@pytest.mark.parametrize("run", [1, 4, 1_000])
def test_damage_is_the_same_in_a_run(damaged, run):
    every = np.random.default_rng(0).permutation(len(damaged))
    expected = read_all(damaged, every)
    problems = [payload for _, payload in expected.values() if isinstance(payload, str)]
    assert len(problems) == 2
    files = RunFiles(damaged, run, 2)
    for _ in range(2):  # kept, it is still damaged
        assert read_all(files, every) == expected


def test_no_more_runs_are_kept_than_allowed(plain, monkeypatch):
    files = RunFiles(plain, 4, 3)
    reads = count_reads(files, monkeypatch)
    rng = np.random.default_rng(2)
    for _ in range(50):
        list(files.read_many(rng.integers(0, len(plain), 9)))
        assert len(files.runs) <= 3
    reads.clear()
    for record in (0, 4, 8, 0, 12):  # the last one drops the run that was not used for longest
        read_record(files, record)
    assert list(files.runs) == [2, 0, 3]
    reads.clear()
    for record in (8, 11, 0, 3, 12):
        read_record(files, record)
    assert reads == []
    read_record(files, 4)
    assert reads == [1]


@pytest.mark.parametrize("batch_size", [1, 5, 8, 20, 50])
def test_an_epoch_in_windows_reads_each_run_once(plain, monkeypatch, batch_size):
    run, window = 4, 12
    files = RunFiles(plain, run, 2 * window // run)
    reads = count_reads(files, monkeypatch)
    order = WindowedOrder(records=len(plain), seed=3, run=run, window=window)
    steps = Steps(records=len(plain), batch_size=batch_size)
    seen = []
    for step in range(steps.count):
        positions = steps.find_positions(step)
        numbers = order.find_records(0, positions[positions >= 0])
        seen += [number for number, _ in zip(numbers, files.read_many(numbers), strict=True)]
    assert sorted(seen) == list(range(len(plain)))
    assert set(reads) == set(range(-(-len(plain) // run)))
    # What a batch beyond a window leaves of the last one may have to be read again.
    again = 0 if batch_size <= window else steps.count * window // run
    assert len(reads) - len(set(reads)) <= again


def test_threads_read_the_same(plain):
    files = RunFiles(plain, 4, 2)
    rng = np.random.default_rng(5)
    jobs = [rng.integers(0, len(plain), 12) for _ in range(200)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda numbers: read_all(files, numbers), jobs))
    assert found == [read_all(plain, numbers) for numbers in jobs]
    assert len(files.runs) <= 2


def test_a_run_that_several_threads_wait_for_is_read_once(plain, monkeypatch):
    files = RunFiles(plain, 4, 2)
    reads, read = [], files.read_run

    def read_slowly(number: int) -> list:
        reads.append(number)
        time.sleep(0.05)
        return read(number)

    monkeypatch.setattr(files, "read_run", read_slowly)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(functools.partial(read_record, files), (4, 5, 6, 7)))
    assert reads == [1]


def test_a_fork_while_another_thread_reads_a_run_leaves_nothing_locked(converted):
    assert run_apart(fork_while_reading, converted, limit_s=30) == []


def fork_while_reading(at, folder):
    files = RunFiles(open_records(folder), 4, 2)
    return fork_while_held(files.runs_lock, lambda: bool(read_record(files, 5)))


def test_runs_can_be_pickled_without_what_they_keep(plain):
    files = RunFiles(plain, 4, 2)
    numbers = np.arange(9)
    expected = read_all(files, numbers)
    copy = pickle.loads(pickle.dumps(files))
    assert not copy.runs
    assert len(pickle.dumps(files)) < 2_000
    assert read_all(copy, numbers) == expected
    assert len(copy.runs) == 2


def test_a_file_that_is_missing_is_missed_until_it_is_there(converted, tmp_path):
    folder = shutil.copytree(converted, tmp_path / "set")
    files = RunFiles(open_records(folder), 1_000, 2)
    shard = folder / "train-00002-of-00003.tfrecord"
    shard.rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(DatasetError, match=": No such file"):
            read_record(files, 0)
    (tmp_path / "away").rename(shard)
    assert read_record(files, 0)
