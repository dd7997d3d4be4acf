"""Part files: what was written is read, by bucket; what was damaged is removed, never believed."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.entry_columns import Texts
from converter.errors import OutputError
from converter.planning.part_files import (
    pack_buckets,
    read_facts,
    read_pieces,
    unpack_bucket,
    write_part,
)

FACTS = {"images": 3, "names": ["\udcff", "é"]}
PIECES = [b"one", b"", bytes(5)]


@pytest.fixture
def part(tmp_path):
    write_part(tmp_path / "hash-00001", tmp_path, FACTS, PIECES)
    return tmp_path / "hash-00001"


def read_all(path):
    (facts,), (pieces,) = read_facts([path]), read_pieces([path], 0)
    return facts, pieces


def test_what_was_written_is_read(part):
    assert read_all(part) == (FACTS, PIECES)
    assert [*read_pieces([part], 1, 2)] == [[b""]]
    write_part(part, part.parent, {"images": 4})
    assert read_all(part) == (FACTS, PIECES)


def list_damages(data):
    yield from (data[:end] for end in range(len(data)))
    for bit in range(8 * len(data)):
        yield data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
    yield bytes(len(data))


def test_every_flipped_bit_and_every_beginning_of_a_file_is_refused(part):
    data = part.read_bytes()
    for damaged in list_damages(data):
        part.write_bytes(damaged)
        with pytest.raises(OutputError, match="was damaged"):
            read_all(part)
        assert not part.exists()
    part.write_bytes(data)
    assert read_all(part) == (FACTS, PIECES)


def test_the_file_of_another_part_is_refused(part):
    other = part.rename(part.with_name("hash-00002"))
    with pytest.raises(OutputError, match="hash-00002 was damaged"):
        read_all(other)


COUNT = 4
KIND = np.dtype([("size", "<i8"), ("hash", "<u8", 2), ("spare", "i1"), ("length", "<u4")])
IMAGES = st.lists(st.tuples(st.integers(0, COUNT - 1), st.binary(max_size=5)), max_size=12)


def pack(images):
    texts = Texts()
    for _, text in images:
        texts.append_bytes(text)
    sizes = np.array([7 * len(text) for _, text in images], np.int64)
    columns = {"size": sizes, "hash": np.stack((sizes, sizes + 1), -1).astype(np.uint64)}
    return pack_buckets(np.array([n for n, _ in images], np.uint16), COUNT, KIND, columns, texts)


@given(st.lists(IMAGES, min_size=1, max_size=3))
def test_each_bucket_gives_back_its_images_of_all_files_in_order(files):
    packed = [pack(images) for images in files]
    for number in range(COUNT):
        pairs = [pieces[2 * number : 2 * number + 2] for pieces in packed]
        records, texts = unpack_bucket(pairs, KIND)
        expected = [text for images in files for n, text in images if n == number]
        assert [*texts.iterate()] == expected
        assert records["size"].tolist() == [7 * len(text) for text in expected]
        assert records["hash"].tolist() == [[7 * len(text), 7 * len(text) + 1] for text in expected]
        assert not records["spare"].any()


def test_dealing_images_out_takes_no_object_for_each():
    count, path = 50_000, b"class-0/0000/0000000.png"
    texts = Texts()
    for _ in range(count):
        texts.append_bytes(path)
    sizes = np.arange(count)
    tracemalloc.start()
    pack_buckets(sizes % COUNT, COUNT, KIND, {"size": sizes}, texts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The records twice, the texts once, and 8 bytes each for the order and the ends.
    assert peak < count * (2 * KIND.itemsize + len(path) + 48)
