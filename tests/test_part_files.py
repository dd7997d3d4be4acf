"""Part files: what was written is read, and what was damaged is removed, never believed."""

import pytest

from converter.errors import OutputError
from converter.planning.part_files import read_facts, read_pieces, write_part

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
