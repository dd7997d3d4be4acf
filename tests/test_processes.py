"""Readers among processes and threads: forked, shared, killed; and beside the readers of others."""

import concurrent.futures
import hashlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from damaging import EXHAUSTIVE, fork_while_held, run_apart

from converter.format.tfrecords import read_records
from reader import load_dataset, open_shards, open_tfrecords
from reader.records.indexed_file import RecordFile
from reader.records.record_files import RecordFiles

KILLS = 20 if EXHAUSTIVE else 3


def digest(source, first=0):
    """What a source gives in all ways, beginning anywhere."""
    count = len(source)
    found = hashlib.sha256()
    for number in sorted(range(count), key=lambda number: (number + first) % count):
        source[number]
    for record in source:
        found.update(repr(record).encode())
    found.update(source.labels.tobytes())
    found.update(repr([*source.file_paths[:9], source.by_id(source[-1].source_id)]).encode())
    return found.hexdigest()


def test_eight_threads_read_the_same_in_every_way(converted):
    expected = digest(open_shards(converted).source("train"))
    source = open_shards(converted).source("train")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda first: digest(source, 7 * first), range(8))) == {expected}


@pytest.mark.parametrize("used", [False, True])
def test_forked_processes_read_the_same_in_every_way(converted, used):
    assert run_apart(read_after_fork, converted, used) == []


def read_after_fork(at, folder, used):
    expected = digest(open_shards(folder).source("train"))
    source = open_shards(folder).source("train")
    if used:
        digest(source)
    with multiprocessing.get_context("fork").Pool(4, initializer=keep, initargs=(source,)) as pool:
        found = pool.map(digest_kept, range(8))
    return [] if set(found) == {expected} else [str(found)]


def keep(source):
    global kept  # noqa: PLW0603 (it is what a fork shares)
    kept = source


def digest_kept(first):
    return digest(kept, 7 * first)


def test_a_fork_while_another_thread_reads_leaves_nothing_locked(converted):
    assert run_apart(fork_while_reading, converted, limit_s=30) == []


def fork_while_reading(at, folder):
    source = open_shards(folder).source("train")
    return fork_while_held(source._files.lock, lambda: source[0].label >= 0)


def test_a_killed_reader_leaves_nothing_behind_and_the_next_one_starts(converted, tmp_path):
    pytest.importorskip("tensorflow")
    before = {path: path.stat().st_mtime_ns for path in sorted(converted.iterdir())}
    shared = set(Path("/dev/shm").iterdir())
    assert run_apart(kill_readers, converted, tmp_path, limit_s=200) == []
    assert {path: path.stat().st_mtime_ns for path in sorted(converted.iterdir())} == before
    assert set(Path("/dev/shm").iterdir()) <= shared
    assert list(tmp_path.iterdir()) == []


def kill_readers(at, folder, scratch):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    tempfile.tempdir = str(scratch)
    import tensorflow as tf  # noqa: F401 (once for all that are forked)

    problems = []
    for at.value in range(KILLS):
        receiver, sender = os.pipe()
        pid = os.fork()
        if not pid:
            read_for_ever(folder, sender, at.value)
        os.close(sender)
        # Killed somewhere among its first epochs.
        begun = os.read(receiver, 1)
        time.sleep(random.Random(at.value).uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
        os.close(receiver)
        _, status = os.waitpid(pid, 0)
        if begun != b"." or status != signal.SIGKILL:
            problems.append(f"{at.value}: {begun!r}, ended with {status}")
    return problems


def read_for_ever(folder, sender, number):
    try:
        shuffle, batch_size = ("exact", "buffer")[number % 2], (None, 8)[number % 3 % 2]
        dataset = load_dataset(
            folder, random_flip=True, image_size=(8, 8), shuffle=shuffle, batch_size=batch_size
        )
        while True:
            for _ in dataset:
                os.write(sender, b".")
    except BrokenPipeError:
        time.sleep(60)
    except BaseException as error:  # noqa: BLE001
        print(error, file=sys.stderr)
    finally:
        os._exit(1)


def test_three_independent_readers_give_the_same_records(converted):
    tf = pytest.importorskip("tensorflow")
    shards = open_shards(converted)
    for shard in shards.manifest.shards:
        path = converted / shard.name
        with open(path, "rb") as file:
            sequential = [payload for _, payload in read_records(file, shard.name, shard.bytes)]
        files = RecordFiles([RecordFile.of_shard(converted, shard)])
        indexed = [bytes(payload) for _, _, payload in files.read_many(np.arange(len(files)))]
        assert list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == sequential == indexed
        foreign = open_tfrecords(path).dataset(batch_size=3)
        assert [payload for batch in foreign for payload in batch.numpy()] == sequential


def test_a_dataset_gives_what_tensorflow_itself_parses_and_decodes(converted):
    tf = pytest.importorskip("tensorflow")
    features = {
        name: tf.io.FixedLenFeature([], kind)
        for name, kind in (
            ("image/encoded", tf.string),
            ("image/class/label", tf.int64),
            ("image/source_id", tf.string),
        )
    }
    shards = open_shards(converted).manifest.list_shards("train")
    records = tf.data.TFRecordDataset([str(converted / shard.name) for shard in shards])
    arguments = {"batch_size": None, "shuffle": False, "dtype": "uint8", "with_filename": True}
    ours = load_dataset(converted, **arguments).as_numpy_iterator()
    for record, (image, label, name) in zip(records, ours, strict=True):
        parsed = tf.io.parse_single_example(record, features)
        np.testing.assert_array_equal(tf.io.decode_image(parsed["image/encoded"]), image)
        assert (parsed["image/class/label"], parsed["image/source_id"]) == (label, name)
