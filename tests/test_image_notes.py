"""What is odd about the content of images, and yet converted: noted, counted, told."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    convert_folder,
    encode_image,
    make_image,
    make_profile,
    run_conversion,
    write_image,
)

from converter.commits.commit import read_notes
from converter.format.manifest import read_manifest
from converter.images.conversion import convert_image
from converter.images.opened_images import examine_image, list_traits
from converter.inventory import CONTENT_NOTES, NOTES, Entry, Note
from converter.options import ConvertOptions
from converter.sources import originals
from converter.sources.originals import read_original
from converter.sources.scan import scan_images
from converter.upkeep import comparisons, repairs
from converter.upkeep.updates import plan_update
from pipelines.cli.commands import main
from pipelines.jobs.upkeep import repair

OPTIONS = ConvertOptions(image_size=(8, 10), encoding="png", num_shards=2)
IN_MEMORY = ["--direct_running_mode=in_memory", "--direct_num_workers=1"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty pictures; of some, name and content differ, or there are more frames or a profile."""
    images = tmp_path / "images"
    for seed in range(10):
        write_image(images / "a" / f"{seed}.png", seed)
        write_image(images / "b" / f"{seed}.jpg", seed + 10, "JPEG")
    write_image(images / "a" / "is png.jpg", 31)
    write_image(images / "b" / "IS JPEG.PNG", 32, "JPEG")
    more = {"save_all": True, "append_images": [make_image(1)]}
    write_image(images / "a" / "several.gif", 33, "GIF", **more)
    write_image(images / "b" / "mpo.jpg", 34, "MPO", **more)
    write_image(images / "b" / "other.jpg", 35, "JPEG", icc_profile=make_profile())
    write_image(images / "b" / "several.png", 36, "GIF", **more)
    (images / "b" / "bad.jpg").write_bytes(b"no image")
    return tmp_path


EXPECTED = {
    "animated": {"a/several.gif", "b/mpo.jpg", "b/several.png"},
    "profile": {"b/other.jpg"},
    "wrong_extension": {"a/is png.jpg", "b/IS JPEG.PNG", "b/several.png"},
}


def read_content_notes(out: Path) -> dict[str, Note]:
    return {note.code: note for note in read_notes(out) if note.code in CONTENT_NOTES}


def test_each_is_noted_and_named(root: Path):
    convert_folder(root / "images", root / "out", OPTIONS)
    notes = read_content_notes(root / "out")
    assert {code: set(note.names) for code, note in notes.items()} == EXPECTED
    assert {code: note.total for code, note in notes.items()} == {
        code: len(names) for code, names in EXPECTED.items()
    }


def test_they_are_told(root: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["convert", str(root / "images"), str(root / "out"), "--image-size=8"]
    arguments += ["--no-progress", "--direct_running_mode=in_memory", "--direct_num_workers=1"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    for code, names in EXPECTED.items():
        assert f"note: {code} ({len(names)}): {NOTES[code]}: " in told


def test_isolated_images_have_the_same_notes(root: Path):
    convert_folder(root / "images", root / "out", OPTIONS)
    convert_folder(root / "images", root / "apart", dataclasses.replace(OPTIONS, isolate=True))
    assert read_notes(root / "apart") == read_notes(root / "out")


def test_repair_brings_them_back(root: Path):
    run_conversion(root / "images", root / "out", OPTIONS, IN_MEMORY)
    whole = (root / "out" / "notes.jsonl").read_bytes()
    (root / "out" / "notes.jsonl").write_bytes(b"")
    assert repair(root / "out", root / "images", IN_MEMORY).left == ()
    assert (root / "out" / "notes.jsonl").read_bytes() == whole


def test_an_update_knows_those_of_shards_that_stay(root: Path):
    run_conversion(root / "images", root / "out", OPTIONS, IN_MEMORY)
    write_image(root / "images" / "a" / "new.jpg", 50)
    (root / "images" / "b" / "other.jpg").unlink()
    run_conversion(root / "images", root / "out", None, IN_MEMORY, mode="update")
    notes = read_content_notes(root / "out")
    assert {code: set(note.names) for code, note in notes.items()} == {
        "animated": EXPECTED["animated"],
        "wrong_extension": EXPECTED["wrong_extension"] | {"a/new.jpg"},
    }


@pytest.mark.parametrize("frames", ["first", "all"])
def test_no_original_is_read_twice_to_tell_them(root: Path, monkeypatch, frames: str):
    options = dataclasses.replace(OPTIONS, frames=frames)
    run_conversion(root / "images", root / "out", options, IN_MEMORY)
    files = [path.relative_to(root / "images") for path in (root / "images").rglob("*.*")]
    good = sorted(path.as_posix() for path in files if path.name != "bad.jpg")
    read: list[str] = []

    def note_reading(entry: Entry, *arguments: Any) -> bytes:
        read.append(entry.path)
        return read_original(entry, *arguments)

    # `hash_original` finds it in its own module, when `verify` or `repair` hash originals.
    for module in (originals, comparisons, repairs):
        monkeypatch.setattr(module, "read_original", note_reading)
    manifest = read_manifest(root / "out")
    inventory = scan_images(root / "images", options)
    plan_update(root / "out", manifest, root / "images", inventory)
    assert sorted(read) == good
    read.clear()
    (root / "out" / "notes.jsonl").write_bytes(b"")
    assert repair(root / "out", root / "images", IN_MEMORY).left == ()
    assert sorted(read) == good


def test_many_are_counted_and_the_first_are_named(tmp_path: Path):
    for seed in range(15):
        write_image(tmp_path / "images" / "a" / f"{seed:02}.jpg", seed)
    convert_folder(tmp_path / "images", tmp_path / "out", OPTIONS)
    note = read_content_notes(tmp_path / "out")["wrong_extension"]
    assert (len(note.names), note.total) == (10, 15)


@pytest.mark.parametrize(
    ("path", "file_format", "codes"),
    [
        ("a.jpg", "JPEG", []), ("a.JPEG", "JPEG", []), ("a.jfif", "JPEG", []),
        ("a.png", "JPEG", ["wrong_extension"]), ("a", "JPEG", []), ("a.b", "JPEG", []),
        ("a.jpg", "MPO", []), ("a.mpo", "JPEG", ["wrong_extension"]), ("a.dib", "BMP", []),
        ("a.tif", "TIFF", []), ("a.avif", "AVIF", []), ("a.webp", "PNG", ["wrong_extension"]),
    ],
)  # fmt: skip
def test_a_name_is_wrong_only_if_it_is_that_of_another_format(path, file_format, codes):
    data = encode_image(make_image(1), file_format)
    origin = convert_image(data, OPTIONS).origin
    assert list(list_traits(path, origin, OPTIONS)) == codes
    assert examine_image(data, OPTIONS) == origin


def test_of_all_frames_none_is_left_out_and_so_none_is_noted():
    data = encode_image(make_image(1), "GIF", save_all=True, append_images=[make_image(2)])
    origin = convert_image(data, OPTIONS).origin
    assert list(list_traits("a.gif", origin, OPTIONS)) == ["animated"]
    every = dataclasses.replace(OPTIONS, frames="all")
    assert list(list_traits("a.gif#1", origin, every)) == []


def test_a_second_frame_that_is_damaged_is_one_all_the_same():
    data = encode_image(make_image(1), "GIF", save_all=True, append_images=[make_image(2)])
    second = data.rindex(b",\0\0\0\0")
    image = convert_image(data[: second + 4], OPTIONS)
    assert image.origin.animated


def test_profiles_that_are_ignored_are_not_noted(root: Path):
    data = (root / "images" / "b" / "other.jpg").read_bytes()
    ignoring = dataclasses.replace(OPTIONS, color_profiles="ignore")
    assert convert_image(data, OPTIONS).origin.profiled
    assert not convert_image(data, ignoring).origin.profiled
