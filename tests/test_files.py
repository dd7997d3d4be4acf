"""What is going to be read is asked for at once, unless it is there already."""

import ctypes
import mmap
import os
import time

import numpy as np
import pytest

from converter.errors import DatasetError
from reader.records.indexed_file import Group, RecordFile, prefetch_indexes, prefetch_records

SIZE = 1 << 20
RECORDS = 4

pytestmark = pytest.mark.skipif(
    not hasattr(os, "posix_fadvise"), reason="this system cannot be asked for a file's pages"
)


def count_pages(path, begin, end):
    """How many pages of a part of a file the system's cache holds; asking brings none."""
    with open(path, "rb") as file:
        view = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE)
    pages = np.zeros(-(-len(view) // mmap.PAGESIZE), np.uint8)
    address = np.frombuffer(view, np.uint8).ctypes.data
    libc = ctypes.CDLL(None)
    libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(view)), pages.ctypes)
    return int((pages[begin // mmap.PAGESIZE : end // mmap.PAGESIZE] & 1).sum())


def forget(path):
    """Lets the system's cache drop a file, if it ever does."""
    for _ in range(50):  # what is being written just now stays
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if not count_pages(path, 0, path.stat().st_size):
            return
        time.sleep(0.02)
    pytest.skip(f"{path.parent} lies in memory: nothing there is ever waited for")


def comes(path, begin, end):
    """Whether part of a file is there soon, without being read."""
    for _ in range(100):
        if count_pages(path, begin, end) == (end - begin) // mmap.PAGESIZE:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "train-00000-of-00001.tfrecord"
    path.write_bytes(os.urandom(RECORDS * SIZE))
    path.with_suffix(".tfindex").write_bytes(os.urandom(SIZE))
    forget(path)
    forget(path.with_suffix(".tfindex"))
    return RecordFile(path=path, records=RECORDS, bytes=RECORDS * SIZE, max_record_bytes=SIZE)


def make_group(file, *records):
    numbers = np.array(records, np.int64)
    return Group(file, np.arange(len(records)), numbers, numbers * SIZE, (numbers + 1) * SIZE)


def test_all_records_that_are_asked_for_come_and_no_others(file):
    prefetch_records([make_group(file, 0, 2)])
    assert comes(file.path, 0, SIZE)
    assert comes(file.path, 2 * SIZE, 3 * SIZE)
    assert count_pages(file.path, 3 * SIZE, 4 * SIZE) < SIZE // mmap.PAGESIZE / 2


def test_nothing_is_asked_for_where_the_record_looked_at_is_there(file, monkeypatch):
    with open(file.path, "rb") as stream:
        stream.seek(3 * SIZE)
        stream.read()
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: pytest.fail("asked in vain"))
    prefetch_records([make_group(file, 0, 3)])


def test_one_file_that_is_not_there_is_enough_to_ask_for_all(file):
    with open(file.path, "rb") as stream:
        stream.read(SIZE)
    prefetch_records([make_group(file, 0), make_group(file, 1), make_group(file, 3)])
    assert comes(file.path, 0, 2 * SIZE)
    assert comes(file.path, 3 * SIZE, 4 * SIZE)


def test_an_index_that_is_asked_for_comes(file):
    prefetch_indexes([file])
    assert comes(file.index, 0, SIZE)
    file.index.unlink()
    prefetch_indexes([file])  # reading it reports what is wrong


def test_a_file_that_is_missing_is_said_at_once(file):
    file.path.unlink()
    with pytest.raises(DatasetError, match="read: No such file"):
        prefetch_records([make_group(file, 0)])


def test_a_system_that_cannot_be_asked_is_not(file, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise")
    prefetch_records([make_group(file, 0)])
    prefetch_indexes([file])
