"""Data sets of very many shards: what is opened, read and held grows with what is asked for."""

import collections
import dataclasses
import errno
import itertools
import os
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from converter.errors import UsageError
from converter.format.indexes import format_line
from converter.format.manifest import SplitInfo, Totals, read_manifest
from converter.format.tfrecords import frame_record
from converter.storage.disk import DiskPath
from converter.storage.files import name_index, name_shard
from reader import open_shards
from reader.records import indexed_file
from reader.records.indexed_file import RecordFile
from reader.records.record_files import KEPT_INDEX_BYTES, RecordFiles

SHARDS = 2_000
BATCH = 32


@pytest.fixture(scope="module")
def linked(converted, tmp_path_factory) -> Path:
    """`train` of `converted` with 2,000 shards: hard links of its three."""
    out = tmp_path_factory.mktemp("linked") / "set"
    out.mkdir()
    manifest = read_manifest(converted)
    olds = itertools.islice(itertools.cycle(manifest.list_shards("train")), SHARDS)
    shards = [
        dataclasses.replace(old, name=name_shard("train", number, SHARDS))
        for number, old in enumerate(olds)
    ]
    for old, new in zip(itertools.cycle(manifest.list_shards("train")), shards, strict=False):
        (out / new.name).hardlink_to(converted / old.name)
        (out / name_index(new.name)).hardlink_to(converted / name_index(old.name))
    records = sum(shard.records for shard in shards)
    train = SplitInfo(
        records=records,
        bytes=sum(shard.bytes for shard in shards),
        shards=SHARDS,
        # Nothing here looks at single classes.
        labels=(records, *[0] * (len(manifest.classes) - 1)),
    )
    totals = Totals(scanned=records, written=records, rejected={}, skipped={})
    written = dataclasses.replace(
        manifest, splits={"train": train}, shards=tuple(shards), totals=totals
    )
    (out / "manifest.json").write_bytes(written.to_bytes())
    return out


@pytest.fixture
def files(linked) -> RecordFiles:
    return RecordFiles(open_shards(linked).batches("train", BATCH, seed=7).plan.files.files)


@pytest.fixture
def opened(monkeypatch):
    """How often files of each kind are opened."""
    counts, real = collections.Counter(), os.open

    def count(path, *arguments, **options):
        counts[Path(path).suffix] += 1
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", count)
    return counts


def draw(files: RecordFiles, count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, len(files), count)


def read_all(files: RecordFiles, numbers: np.ndarray) -> list[bytes]:
    found = {index: bytes(payload) for index, _, payload in files.read_many(numbers)}
    return [found[index] for index in range(len(numbers))]


def count_kept(files: RecordFiles) -> int:
    return sum(one.nbytes + KEPT_INDEX_BYTES for one in files.indexes.values())


def test_opening_looks_at_the_folder_and_not_at_each_file(linked, monkeypatch):
    monkeypatch.setattr(indexed_file, "measure_file", pytest.fail)
    shards = open_shards(linked)
    assert len(shards.source("train")) == shards.splits["train"].records > SHARDS


def test_a_folder_that_cannot_be_listed_is_looked_into(linked, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert open_shards(linked).splits["train"].shards == SHARDS


def test_an_index_is_opened_once_and_a_shard_once_a_record(files, opened):
    places = draw(files, 40).tolist()
    for place in places:
        list(files.read_many(np.array([place])))
    ends = np.cumsum([file.records for file in files.files])
    shards = len({*np.searchsorted(ends, places, side="right").tolist()})
    assert shards > 30
    assert opened == {".tfindex": shards, ".tfrecord": len(places)}
    opened.clear()
    for place in places:
        list(files.read_many(np.array([place])))
    assert opened == {".tfrecord": len(places)}


def test_the_indexes_of_a_batch_are_opened_once_but_for_two(files, opened):
    numbers = np.linspace(0, len(files) - 1, 500).astype(np.int64)
    list(files.read_blocks(numbers))
    assert opened == {".tfindex": 502, ".tfrecord": 502}


@pytest.mark.parametrize("kept", [1, 3, 100, SHARDS])
def test_indexes_are_held_up_to_their_limit(files, kept):
    each = 4 * (max(file.records for file in files.files) + 1) + KEPT_INDEX_BYTES
    numbers = draw(files, 700)
    wanted = read_all(files, numbers)
    limited = RecordFiles(files.files, kept * each)
    for part in np.split(numbers, 70):
        read_all(limited, part)
        assert count_kept(limited) == limited.index_bytes <= kept * each
    assert min(kept, 500) <= len(limited.indexes)
    assert read_all(limited, numbers) == wanted


def test_the_least_recently_used_index_goes_first(files, opened):
    each = 4 * (max(file.records for file in files.files) + 1) + KEPT_INDEX_BYTES
    limited = RecordFiles(files.files, 2 * each)
    firsts = np.cumsum([0, *(file.records for file in files.files)])
    for number in (0, 1, 0, 2, 0):
        list(limited.read_many(firsts[[number]]))
    assert [*limited.indexes] == [2, 0]


def test_few_descriptors_are_enough(linked):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    here = len([*Path("/dev/fd").iterdir()])
    resource.setrlimit(resource.RLIMIT_NOFILE, (here + 16, hard))
    try:
        batches = open_shards(linked).batches("train", BATCH, seed=7)
        assert len(list(itertools.islice(batches, 20))) == 20
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_step_reads_no_more_indexes_in_the_middle_of_an_epoch(linked, opened):
    batches = open_shards(linked).batches("train", BATCH, seed=7)
    batches.seek(3, len(batches) // 2)
    batches.reader.read(3, [len(batches) // 2])
    assert 0 < opened[".tfindex"] <= BATCH + 2 * batches.plan.buffers.threads


def test_what_is_held_grows_with_the_limit_and_not_with_the_shards(files):
    each = 4 * (max(file.records for file in files.files) + 1) + KEPT_INDEX_BYTES
    limited = RecordFiles(files.files, 50 * each)
    read_all(limited, draw(files, 100))
    tracemalloc.start()
    try:
        for part in np.array_split(np.arange(len(files)), 100):
            for _ in limited.read_many(part):
                pass
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Besides indexes, each path that was used keeps its text.
    assert held < 50 * each + 600 * SHARDS


def test_more_shards_than_max_ram_can_list_are_refused_with_a_way_out(linked):
    shards = open_shards(linked)
    with pytest.raises(UsageError, match="or batches of"):
        shards.batches("train", 512, max_ram=30_000_000)
    few = dataclasses.replace(shards.manifest, shards=shards.manifest.shards * 20)
    with pytest.raises(UsageError, match="or fewer, larger shards") as refusal:
        dataclasses.replace(shards, manifest=few).batches("train", 1, max_ram=50_000_000)
    assert f"to list {20 * SHARDS:,} shards takes 52.0 MB" in str(refusal.value)


def test_a_record_beyond_4_gib_is_found(tmp_path):
    path = tmp_path / "train-00000-of-00001.tfrecord"
    hole, record = 1 << 32, frame_record(b"far away")
    with open(path, "wb") as file:
        file.seek(hole)
        file.write(record)
    path.with_suffix(".tfindex").write_bytes(format_line(0, hole) + format_line(hole, len(record)))
    size = hole + len(record)
    file = RecordFile(path=DiskPath(path), records=2, bytes=size, max_record_bytes=hole)
    ((_, place, payload),) = RecordFiles([file]).read_many(np.array([1]))
    assert (place.offset, bytes(payload)) == (hole, b"far away")
