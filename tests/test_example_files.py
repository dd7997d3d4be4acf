"""Records of files as sources: read by framing or by an index, damaged or not; and their spool."""

import tempfile
from pathlib import Path

import pytest
from conftest import write_image

from converter.errors import ImageError, OutputError
from converter.format.examples import encode_example
from converter.format.indexes import format_line
from converter.format.tfrecords import frame_record
from converter.inventory import Entry
from converter.sources.example_files import read_bounds, scan_file, start_record
from converter.sources.row_sources import IMAGE
from converter.sources.spool import Spool

PAYLOADS = [encode_example({"image": bytes([n]) * 9_000, "label": n}) for n in range(6)]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.tfrecord-00000-of-00001"
    path.write_bytes(b"".join(map(frame_record, PAYLOADS)))
    return path


def write_index(file):
    place, lines = 0, b""
    for payload in PAYLOADS:
        lines += format_line(place, len(payload) + 16)
        place += len(payload) + 16
    index = file.with_name("x.tfindex")
    index.write_bytes(lines)
    return index


def flip(file, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def read_labels(found):
    return [
        f.features.code if isinstance(f.features, ImageError) else f.features.read("label")[0]
        for f in found
    ]


def test_records_are_found_by_their_framing(file):
    found = list(scan_file(file, ["image"]))
    assert read_labels(found) == list(range(6))
    assert [f.number for f in found] == list(range(6))
    assert found[-1].place + found[-1].span == file.measure()
    for record, payload in zip(found, PAYLOADS, strict=True):
        entry = Entry("x", -1, 9_000, place=record.place, span=record.span, part="image")
        assert start_record(file, entry)() == payload[slice(*_bounds(record))]


def _bounds(record):
    begin, size = record.features.held["image"]
    return begin, begin + size


def test_a_damaged_length_hides_what_is_behind_it_but_not_from_an_index(file):
    index = write_index(file)
    bounds = read_bounds(file, index)
    assert len(bounds) == 7
    flip(file, bounds[2] + 3)
    found = list(scan_file(file, ["image"]))
    assert read_labels(found) == [0, 1, "decode_error"]
    assert f"byte {bounds[2]}" in found[-1].features.detail
    assert "behind it" in found[-1].features.detail
    assert read_labels(scan_file(file, ["image"], bounds)) == [0, 1, "decode_error", 3, 4, 5]


def test_a_forged_index_hides_and_invents_nothing(file):
    size = file.measure()
    for bounds in ([0, size], [0, 20, 40, size], [0, size, size]):
        assert read_labels(scan_file(file, ["image"], bounds)) == list(range(6))
    flip(file, 3)
    assert read_labels(scan_file(file, ["image"], [0, size])) == ["decode_error"]
    assert "decode_error" in read_labels(scan_file(file, ["image"], [0, 20, 40, size]))


def test_damaged_features_are_one_record(file):
    flip(file, 12)
    assert read_labels(scan_file(file, ["image"])) == ["decode_error", 1, 2, 3, 4, 5]


@pytest.mark.parametrize("cut", [1, 9_000, 9_030])
def test_a_file_that_is_cut_off_keeps_what_came_before(file, cut):
    file.write_bytes(file.read_bytes()[:-cut])
    assert read_labels(scan_file(file, ["image"])) == [0, 1, 2, 3, 4, "decode_error"]


@pytest.mark.parametrize("length", [2**31, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_length_that_lies_takes_no_memory(file, length):
    header = length.to_bytes(8, "little")
    from converter.format.tfrecords import compute_masked_crc

    header += compute_masked_crc(header).to_bytes(4, "little")
    file.write_bytes(header + file.read_bytes())
    (found,) = scan_file(file)
    assert "goes past the end" in found.features.detail


def test_an_index_of_another_file_is_none(file):
    index = write_index(file)
    file.write_bytes(file.read_bytes() + frame_record(b""))
    assert read_bounds(file, index) is None


def test_a_worker_checks_the_checksum(file):
    record = next(iter(scan_file(file, ["image"])))
    entry = Entry("x", -1, 9_000, place=record.place, span=record.span, part="image")
    flip(file, 5_000)
    with pytest.raises(ImageError) as caught:
        start_record(file, entry)()
    assert caught.value.code == "decode_error"
    assert f"{file.name}, record at byte 0: checksum" in caught.value.detail
    with pytest.raises(ImageError, match="label is not"):
        start_record(file, entry._replace(place=record.span, part="label"))()


def test_a_spool_gives_rows_as_they_came(tmp_path):
    write_image(tmp_path / "a.png", 1)
    mask = Entry("a/\udcff", -1, 3, place=7, file="x", part="mask", span=9)
    rows = [
        ("row 1", {IMAGE: Entry("a/\udcff", -1, 5, mask=mask, file="x"), "a": 1, "b": [0.5, 2.0]}),
        ("row 2", {IMAGE: ImageError("decode_error", "é"), "path": "x", "c": None}),
        ("row 3", {IMAGE: Entry("b", 3, 5, "train", "group"), "n": "\udcff"}),
    ]
    spool = Spool((place, dict(row)) for place, row in rows)
    for _ in range(2):
        for (place, row), (expected, cells) in zip(spool(), rows, strict=True):
            assert (place, row.keys()) == (expected, cells.keys())
            image, other = row.pop(IMAGE), cells[IMAGE]
            assert row == {name: cell for name, cell in cells.items() if name != IMAGE}
            if isinstance(other, ImageError):
                assert (image.code, image.detail) == (other.code, other.detail)
            else:
                assert image == other


def open_full(**_):
    return Path("/dev/full").open("r+b")


@pytest.mark.parametrize("characters", [10, 100_000])  # which are left in a buffer, or not
def test_a_full_disk_under_a_spool_is_told_once(monkeypatch, characters):
    monkeypatch.setattr(tempfile, "TemporaryFile", open_full)
    with pytest.raises(OutputError, match="No space left"):
        Spool([("row 1", {"caption": "x" * characters})])
