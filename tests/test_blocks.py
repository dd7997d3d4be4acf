"""Records in blocks of memory: the same bytes as one by one, and nothing that is damaged."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import read_record

from converter import DatasetError
from converter.format.tfrecords import FOOTER_BYTES, HEADER_BYTES, frame_record
from reader import ReadOptions, open_shards
from reader.plan.planning import list_files
from reader.records.blocks import MAX_RUN_BYTES, check_records, read_blocks
from reader.records.indexed_file import Group, RecordFile
from reader.records.record_files import RecordFiles, RunFiles


@pytest.fixture
def copied(converted, tmp_path) -> Path:
    return shutil.copytree(converted, tmp_path / "set")


def open_records(folder: Path) -> RecordFiles:
    shards = open_shards(folder)
    return RecordFiles(list_files(shards.folder, shards.manifest, "train", ReadOptions()))


class UsedMemory:
    """Is taken again and again, with what was in it."""

    def __init__(self) -> None:
        self._bytes = np.full(2 * MAX_RUN_BYTES, 0xAA, np.uint8)

    def take(self, size: int) -> np.ndarray:
        return self._bytes[:size]


def list_payloads(
    files: RecordFiles, numbers: np.ndarray, limit_bytes: int = MAX_RUN_BYTES
) -> dict[int, bytes]:
    """By index, what blocks have that is valid."""
    return {
        int(index): block.data[begin:end].tobytes()
        for block in files.read_blocks(numbers, limit_bytes, UsedMemory())
        for index, begin, end, valid in zip(
            block.indexes, block.begins, block.ends, block.valid, strict=True
        )
        if valid
    }


@pytest.mark.parametrize("seed", range(5))
def test_a_block_holds_what_single_reads_give(converted, seed):
    files = open_records(converted)
    random = np.random.default_rng(seed)
    numbers = random.integers(0, len(files), random.integers(1, 40))
    singly = {index: bytes(payload) for index, _, payload in files.read_many(numbers)}
    assert list_payloads(files, numbers) == singly
    for limit_bytes in (0, 1500, 4000):
        assert list_payloads(files, numbers, limit_bytes) == singly


@pytest.mark.parametrize("kind", [RecordFiles, lambda files: RunFiles(RecordFiles(files), 5, 3)])
def test_blocks_have_no_more_than_the_limit_unless_one_record_has(converted, kind):
    files = kind(open_records(converted).files)
    numbers = np.random.default_rng(0).permutation(len(files))
    sizes = [len(read_record(files, number)) for number in numbers.tolist()]
    for limit_bytes in (0, min(sizes) + 16, 3 * max(sizes), 10**9):
        blocks = list(files.read_blocks(numbers, limit_bytes))
        for block in blocks:
            assert len(block.data) <= limit_bytes + 1 or len(block.indexes) == 1
        for first, second in itertools.pairwise(blocks):
            size = int(second.ends[0] - second.begins[0]) + HEADER_BYTES + FOOTER_BYTES
            assert len(first.data) + size > limit_bytes, "they could have been one"
        asked = np.concatenate([block.indexes for block in blocks])
        np.testing.assert_array_equal(np.sort(asked), np.arange(len(numbers)))
        assert all(block.valid.all() for block in blocks)


@pytest.mark.parametrize("bit", range(0, 8, 3))
def test_every_flipped_byte_of_a_record_makes_it_unsound(copied, bit):
    files = open_records(copied)
    path = files.files[0].path
    whole, data = list_payloads(files, np.arange(3)), path.read_bytes()
    end = len(whole[0]) + 16
    for place in range(end):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        assert list_payloads(files, np.arange(3)) == {1: whole[1], 2: whole[2]}, place


def test_what_a_file_does_not_hold_any_more_is_unsound(copied):
    files = open_records(copied)
    path, count = files.files[0].path, files.files[0].records
    everything = np.arange(count)
    whole = list_payloads(files, everything)
    path.write_bytes(path.read_bytes()[:-1])
    assert list_payloads(files, everything) == {n: whole[n] for n in range(count - 1)}


def test_a_file_that_is_gone_is_an_error(copied):
    files = open_records(copied)
    files.files[0].path.unlink()
    with pytest.raises(DatasetError, match="read: No such file"):
        list(files.read_blocks(np.array([0])))


def test_very_large_records_are_left_out_and_take_no_memory(tmp_path):
    path = tmp_path / "x.tfrecord"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    large = RecordFile(path=path, records=2, bytes=1 << 40, max_record_bytes=1 << 40)
    places = (
        np.array([0, 1]),
        np.array([0, 1]),
        np.array([0, 1 << 20]),
        np.array([1 << 20, 1 << 40]),
    )
    (block,) = read_blocks([Group(large, *places)])
    assert block.indexes.tolist() == [0]
    assert len(block.data) == 1 << 20
    assert not block.valid.any()


def test_neighbours_beyond_one_read_are_still_read(tmp_path):
    size = MAX_RUN_BYTES // 2 + 7
    data = np.random.default_rng(0).integers(0, 256, 3 * size, np.uint8).tobytes()
    path = tmp_path / "x.tfrecord"
    path.write_bytes(data)
    file = RecordFile(path=path, records=3, bytes=len(data), max_record_bytes=size)
    starts = np.arange(3) * size
    group = Group(file, np.arange(3), np.arange(3), starts, starts + size)
    (block,) = read_blocks([group], 4 * size)
    assert block.data.tobytes() == data


def test_records_are_checked_where_they_lie():
    records = [frame_record(payload) for payload in (b"", b"one", b"x" * 1000)]
    stops = np.cumsum([len(record) for record in records])
    starts = stops - [len(record) for record in records]
    data = np.frombuffer(b"".join(records), np.uint8).copy()
    assert check_records(data, starts, stops).all()
    data[stops[1] - 1] ^= 128
    assert check_records(data, starts, stops).tolist() == [True, False, True]
