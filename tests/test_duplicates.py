"""Images with the same content are found, reported, kept together or dropped."""

import dataclasses
import json
from array import array
from pathlib import Path

import pytest
from conftest import convert_folder, limit_memory, write_image

from converter.commits.commit import read_notes
from converter.entries import Entries
from converter.format.manifest import read_manifest
from converter.image_options import MAX_FILE_BYTES
from converter.inventory import Entry, Note
from converter.options import ConvertOptions
from converter.sources import duplicates
from converter.sources.duplicates import (
    DUPLICATE_CODES,
    END_BYTES,
    choose_gravest,
    drop_duplicates,
    find_duplicates,
)
from converter.sources.originals import digest_source
from converter.sources.scan import scan_images
from converter.upkeep.contents import read_sources
from converter.upkeep.verification import verify_dataset

BIG = 3 * END_BYTES


def find(root: Path, contents: dict[str, bytes]) -> tuple[list[Entry], list[list[int]]]:
    entries = []
    for name, data in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        entries.append(Entry(name, 0, len(data)))
    read: list[tuple[str, int]] = []

    def digest(entry: Entry, images: Path, end_bytes: int) -> bytes:
        read.append((entry.path, end_bytes))
        return digest_source(entry, images, end_bytes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "digest_source", digest)
        sets = find_duplicates(entries, root, MAX_FILE_BYTES)
    assert all(entry.size_bytes > 0 for entry in entries if (entry.path, 0) in read)
    find.read = read
    return entries, [places.tolist() for places in sets]


def test_only_equal_contents_are_duplicates(tmp_path):
    same, other = b"a" * BIG, b"a" * END_BYTES + b"b" * END_BYTES + b"a" * END_BYTES
    _, sets = find(
        tmp_path,
        {"1": b"x", "2": same, "3": b"y", "4": other, "5": b"x", "6": same, "7": b"", "8": b"",
         "9": b"alone" * 100},
    )  # fmt: skip
    assert sets == [[0, 4], [1, 5]]


def test_of_any_number_of_duplicates_a_thousand_are_held():
    def note(place: int) -> tuple[int, Note]:
        code = DUPLICATE_CODES[place % 3]
        return place, Note(code, (f"{place:06d}/{code}.png", f"{place:06d}/copy.png"), 2)

    with limit_memory(1_500_000):
        chosen = choose_gravest(map(note, range(30_000, 0, -1)))
    assert [place for place, _ in chosen] == [*range(2, 3_000, 3)][:1_000]


def test_only_what_may_be_alike_is_read(tmp_path):
    find(tmp_path, {"1": b"x", "2": b"yy", "3": b"a" * BIG, "4": b"b" * BIG, "5": b"c" * BIG})
    assert sorted(find.read) == [("3", END_BYTES), ("4", END_BYTES), ("5", END_BYTES)]


def test_what_cannot_be_read_is_no_duplicate(tmp_path):
    entries, _ = find(tmp_path, {"1": b"x", "2": b"x", "3": b"x", "4": b"x"})
    (tmp_path / "2").unlink()
    (tmp_path / "3").write_bytes(b"xx")
    (found,) = find_duplicates(entries, tmp_path, MAX_FILE_BYTES)
    assert found.tolist() == [0, 3]


def test_of_duplicates_the_first_of_the_split_that_is_held_out_is_kept():
    entries = Entries(
        Entry(f"{place}.png", 0, 1, split=split)
        for place, split in enumerate(("train", "test", "test", "train"))
    )
    kept, dropped = drop_duplicates(entries, [array("I", [0, 1, 2])])
    assert [entry.path for entry in kept] == ["1.png", "3.png"]
    assert [(skip.path, skip.code, skip.detail) for skip in dropped] == [
        (f"{place}.png", "skipped_duplicate", "has the content of another image: 1.png")
        for place in (0, 2)
    ]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """200 images, of which 50 come twice and one in another class."""
    folder = tmp_path / "images"
    for seed in range(149):
        write_image(folder / "ab"[seed % 2] / f"{seed}.png", seed)
    for seed in range(50):
        write_image(folder / "ab"[seed % 2] / f"again {seed}.png", seed)
    write_image(folder / "b" / "other class.png", 100)
    return folder


OPTIONS = ConvertOptions(image_size=(4, 4), encoding="raw", validation_split=0.4, test_split=0.2)


def read_splits(out: Path) -> dict[str, set[str]]:
    """The splits of each content."""
    splits: dict[str, set[str]] = {}
    for shard in read_manifest(out).shards:
        for source in read_sources(out, shard):
            splits.setdefault(source.sha256, set()).add(shard.split)
    return splits


def test_planted_duplicates_leak_into_no_other_split(images, tmp_path):
    convert_folder(images, tmp_path / "out", OPTIONS)
    splits = read_splits(tmp_path / "out")
    # Pictures of seeds that differ by a multiple of 256 may be alike by themselves.
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {
        "train",
        "validation",
        "test",
    }
    notes = read_notes(tmp_path / "out")
    assert notes[0] == Note("duplicate_class", ("a/100.png", "b/other class.png"), 2)
    assert [note.code for note in notes[1:]] == ["duplicate"] * 50
    assert verify_dataset(tmp_path / "out") == []


def test_without_looking_they_leak(images, tmp_path):
    convert_folder(images, tmp_path / "out", dataclasses.replace(OPTIONS, dedupe="off"))
    assert any(len(found) > 1 for found in read_splits(tmp_path / "out").values())


def test_dropped_duplicates_are_accounted_for(images, tmp_path):
    options = ConvertOptions(image_size=(4, 4), encoding="raw", dedupe="drop")
    convert_folder(images, tmp_path / "out", options)
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.totals.scanned, manifest.totals.written) == (200, 149)
    assert manifest.totals.skipped == {"skipped_duplicate": 51}
    lines = (tmp_path / "out" / "rejects.jsonl").read_bytes().splitlines()
    assert json.loads(lines[0])["code"] == "skipped_duplicate"
    assert scan_images(images, options).notes[0].code == "duplicate_class"
