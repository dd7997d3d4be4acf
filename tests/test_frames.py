"""Every frame as an image of its own: numbered, in order, bounded, and accounted for."""

import dataclasses
import gc
import io
import re
import resource
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import convert_folder, encode_image, make_image, run_conversion, write_image
from PIL import Image

from converter.errors import ImageError
from converter.format.manifest import read_manifest
from converter.images.conversion import convert_frames, convert_image
from converter.images.isolation import convert_isolated
from converter.names import find_file, name_frame
from converter.options import ConvertOptions
from converter.sources.scan import scan_images
from converter.upkeep.contents import read_sources
from converter.upkeep.verification import verify_dataset
from pipelines.jobs.upkeep import repair

OPTIONS = ConvertOptions(resize="none", encoding="png", frames="all")
IN_MEMORY = ["--direct_running_mode=in_memory", "--direct_num_workers=1"]


def encode_frames(file_format: str, frames: list[Image.Image], **options) -> bytes:
    return encode_image(frames[0], file_format, save_all=True, append_images=frames[1:], **options)


def make_frames(count: int, mode: str = "RGB") -> list[Image.Image]:
    return [make_image(seed, mode=mode) for seed in range(count)]


def read_pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"])
def test_each_frame_is_an_image(file_format):
    lossless = {"lossless": True} if file_format == "WEBP" else {}
    frames = make_frames(2 if file_format == "MPO" else 5)
    if file_format == "GIF":
        frames = [frame.quantize(128).convert("RGB") for frame in frames]
    data = encode_frames(file_format, frames, **lossless)
    found = list(convert_frames(data, [OPTIONS]))
    assert [frame.number for frame in found] == list(range(len(frames)))
    tolerance = {"MPO": 40, "AVIF": 40, "GIF": 8}.get(file_format, 0)
    for frame, (image,) in zip(frames, (each.images for each in found), strict=True):
        difference = read_pixels(image.data).astype(int) - np.asarray(frame)
        assert np.abs(difference).mean() <= tolerance / 4
    # Whatever the first frame alone is, is not changed by those that follow.
    first = convert_image(data, dataclasses.replace(OPTIONS, frames="first"))
    assert found[0].images[0].data == first.data


def test_frames_that_are_drawn_over_others_show_them():
    below = Image.new("RGB", (20, 20), (255, 0, 0))
    above = below.copy()
    above.paste((0, 0, 255), (5, 5, 10, 10))
    data = encode_frames("GIF", [below, above])
    _, (_, (second,)) = convert_frames(data, [OPTIONS])
    np.testing.assert_array_equal(read_pixels(second.data), np.asarray(above))


def test_a_frame_that_does_not_say_how_it_goes_stays():
    frames = [Image.new("RGB", (20, 20), (255, 0, 0)) for _ in range(4)]
    for number, left in ((1, 0), (2, 10), (3, 10), (3, 15)):
        frames[number].paste((0, 0, 255), (left, 0, left + 4, 4))
    # The second one is taken away; of the third, nothing is said then.
    data = bytearray(encode_frames("GIF", frames, disposal=[1, 3, 1, 1]))
    extensions = [match.start() for match in re.finditer(rb"!\xf9\x04", data)]
    data[extensions[2] + 3] &= 0b11100011
    found = [image for frame in convert_frames(bytes(data), [OPTIONS]) for image in frame.images]
    for frame, image in zip(frames, found, strict=True):
        np.testing.assert_array_equal(read_pixels(image.data), np.asarray(frame))


def test_pages_have_sizes_orientations_and_depths_of_their_own():
    pages = [make_image(1), make_image(2, 50, 10), make_image(3, 9, 9, mode="L")]
    data = encode_frames("TIFF", pages)
    for options in (OPTIONS, dataclasses.replace(OPTIONS, resize="stretch", image_size=(8, 8))):
        found = [image for frame in convert_frames(data, [options]) for image in frame.images]
        assert [image.origin.size for image in found] == [(24, 32), (50, 10), (9, 9)]
        for image, page in zip(found, pages, strict=True):
            alone = convert_image(encode_image(page, "TIFF"), options)
            np.testing.assert_array_equal(read_pixels(image.data), read_pixels(alone.data))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_an_image_that_is_alone_has_no_number(file_format):
    data = encode_image(make_image(1), file_format)
    (frame,) = convert_frames(data, [OPTIONS])
    assert frame.number is None
    assert frame.images == [convert_image(data, OPTIONS)]


def test_no_more_frames_are_taken_than_asked_for():
    data = encode_frames("GIF", make_frames(6))
    options = dataclasses.replace(OPTIONS, max_frames=4)
    *kept, last = convert_frames(data, [options])
    assert [frame.number for frame in kept] == [0, 1, 2, 3]
    assert last.number == 4
    assert str(last.images[0]) == "filtered_frames: this one and all behind it: at most 4"
    exactly = list(convert_frames(data, [dataclasses.replace(OPTIONS, max_frames=6)]))
    assert len(exactly) == 6
    assert not any(isinstance(frame.images[0], ImageError) for frame in exactly)


def test_a_frame_that_is_filtered_or_damaged_costs_no_other():
    data = encode_frames("TIFF", [make_image(1), make_image(2, 5, 5), make_image(3)])
    options = dataclasses.replace(OPTIONS, min_side=10)
    codes = [getattr(f.images[0], "code", None) for f in convert_frames(data, [options])]
    assert codes == [None, "filtered_side", None]
    gif = encode_frames("GIF", make_frames(8))
    for share in (0.3, 0.6, 0.9):
        cut = list(convert_frames(gif[: int(len(gif) * share)], [OPTIONS]))
        valid = [not isinstance(frame.images[0], ImageError) for frame in cut]
        assert valid == sorted(valid, reverse=True)
        assert [frame.number for frame in cut] == list(range(len(cut)))
        assert 0 < sum(valid) < 8


@pytest.mark.parametrize("file_format", ["GIF", "PNG"])
def test_nothing_is_drawn_over_a_damaged_frame(file_format):
    data = encode_frames(file_format, make_frames(5))
    if file_format == "GIF":
        at = [match.start() for match in re.finditer(rb"!\xf9\x04", data)][1] + 8
        assert data[at : at + 1] == b","
        palette_bytes = 3 << (data[at + 9] % 8 + 1) if data[at + 9] & 128 else 0
        at += 10 + palette_bytes
        data = data[:at] + b"\x7f" + data[at + 1 :]  # bits of a code, of which there are up to 12
    else:
        at = [match.start() for match in re.finditer(rb"fdAT", data)][2]
        size = int.from_bytes(data[at - 4 : at], "big")
        body = data[at : at + 12] + b"\xff" * (size + 4 - 12)
        data = data[:at] + body + zlib.crc32(body).to_bytes(4, "big") + data[at + size + 8 :]
    found = list(convert_frames(data, [OPTIONS, dataclasses.replace(OPTIONS, image_size=(9, 9))]))
    codes = [[getattr(image, "code", "written") for image in frame.images] for frame in found]
    assert codes == [["written"] * 2] * 3 + [["decode_error"] * 2]


def test_frames_of_an_isolated_file_are_the_same():
    for file_format in ("GIF", "TIFF", "PNG"):
        data = encode_frames(file_format, make_frames(4))
        for options in (OPTIONS, dataclasses.replace(OPTIONS, max_frames=2)):
            isolated = [dataclasses.replace(options, isolate=True)]
            expected = list(convert_frames(data, isolated))
            found = list(convert_isolated(data, isolated))
            assert repr(found) == repr(expected)


def test_frames_that_are_not_wanted_leave_no_answers_behind():
    data = encode_frames("GIF", make_frames(4))
    isolated = [dataclasses.replace(OPTIONS, isolate=True)]
    frames = convert_isolated(data, isolated)
    assert next(frames).number == 0
    frames.close()
    alone = encode_image(make_image(9), "PNG")
    (frame,) = convert_isolated(alone, isolated)
    assert frame.images == [convert_image(alone, isolated[0])]


@pytest.mark.parametrize("number", [None, 0, 17])
@pytest.mark.parametrize("path", ["a/b.gif", "a#1/b.gif", "b.gif#x"])
def test_the_path_of_a_frame_leads_to_its_file(path, number):
    assert find_file(name_frame(path, number), "all") == path
    assert find_file("a.gif#3", "first") == "a.gif#3"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten pictures, five animations of 1 to 5 frames, and one with a frame too small."""
    for seed in range(10):
        write_image(tmp_path / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    for count in range(1, 6):
        path = tmp_path / "images" / "ab"[count % 2] / f"{count} frames.gif"
        path.write_bytes(encode_frames("GIF", [make_image(s + 20 * count) for s in range(count)]))
    pages = encode_frames("TIFF", [make_image(90), make_image(91, 4, 4), make_image(92)])
    (tmp_path / "images" / "a" / "pages.tiff").write_bytes(pages)
    (tmp_path / "images" / "b" / "small.tiff").write_bytes(
        encode_frames("TIFF", [make_image(9, 4, 4), make_image(8, 4, 4)])
    )
    return tmp_path


SET = ConvertOptions(
    image_size=(8, 10), encoding="png", frames="all", num_shards=3, min_side=8, max_frames=4,
    validation_split=0.3, seed=5,
)  # fmt: skip


def list_splits(out: Path) -> dict[str, str]:
    manifest = read_manifest(out)
    return {
        source.path: shard.split for shard in manifest.shards for source in read_sources(out, shard)
    }


def test_all_frames_are_accounted_for_and_in_one_split(root: Path):
    convert_folder(root / "images", root / "out", SET)
    splits = list_splits(root / "out")
    frames = {f"{'ab'[n % 2]}/{n} frames.gif#{k}" for n in range(2, 6) for k in range(min(n, 4))}
    expected = frames | {f"{'ab'[n % 2]}/{n}.png" for n in range(10)}
    expected |= {"b/1 frames.gif", "a/pages.tiff#0", "a/pages.tiff#2"}
    assert set(splits) == expected
    files: dict[str, set[str]] = {}
    for path, split in splits.items():
        files.setdefault(find_file(path, "all"), set()).add(split)
    assert all(len(of_file) == 1 for of_file in files.values())
    totals = read_manifest(root / "out").totals
    assert totals.rejected == {"filtered_frames": 1, "filtered_side": 3}
    assert (totals.scanned, totals.written, totals.frames) == (17, len(expected), 13)
    assert verify_dataset(root / "out", originals=root / "images") == []
    lines = (root / "out" / "rejects.jsonl").read_text()
    assert '"path": "b/5 frames.gif#4", "code": "filtered_frames"' in lines


def test_frames_survive_repair_and_update(root: Path):
    options = dataclasses.replace(SET, seed=1)
    run_conversion(root / "images", root / "out", options, IN_MEMORY)
    before = list_splits(root / "out")
    manifest = read_manifest(root / "out")
    for name in (manifest.shards[0].name, "rejects.jsonl", "notes.jsonl"):
        whole = (root / "out" / name).read_bytes()
        (root / "out" / name).write_bytes(whole[:-1] + b"!")
        assert repair(root / "out", root / "images", IN_MEMORY).left == (), name
        assert (root / "out" / name).read_bytes() == whole
    again = run_conversion(root / "images", root / "out", None, IN_MEMORY, mode="update")
    assert again.unchanged
    gif = root / "images" / "b" / "3 frames.gif"
    gif.write_bytes(encode_frames("GIF", [make_image(seed) for seed in (5, 6)]))
    (root / "images" / "a" / "4 frames.gif").unlink()
    found = run_conversion(root / "images", root / "out", None, IN_MEMORY, mode="update")
    assert (found.update.added, found.update.changed, found.update.removed) == (0, 1, 1)
    gone = {"b/3 frames.gif#2", *(f"a/4 frames.gif#{n}" for n in range(4))}
    assert list_splits(root / "out") == {p: s for p, s in before.items() if p not in gone}
    totals = read_manifest(root / "out").totals
    assert totals.rejected == {"filtered_frames": 1, "filtered_side": 3}
    assert totals.scanned + totals.frames == totals.written + 4
    assert verify_dataset(root / "out", originals=root / "images") == []


@pytest.mark.parametrize("frames", ["first", "all"])
def test_a_file_that_is_refused_is_let_go_at_once(frames):
    files = [b"no image", encode_image(make_image(1), "PNG")[:-60]]
    files += [encode_frames("GIF", make_frames(3))[:-700], encode_image(make_image(1))[:400]]
    gc.collect()
    gc.disable()
    try:
        for data in files:
            before = sys.getrefcount(data)
            outcomes = list(convert_frames(data, [dataclasses.replace(OPTIONS, frames=frames)]))
            assert isinstance(outcomes[-1].images[0], ImageError) or frames == "first"
            assert sys.getrefcount(data) == before
    finally:
        gc.enable()


def test_a_row_cannot_have_the_name_of_a_frame(tmp_path: Path):
    for name in ("a.png", "a.png#1"):
        write_image(tmp_path / name, 1)
    (tmp_path / "t.csv").write_text("path\na.png\na.png#1\n")
    inventory = scan_images(tmp_path / "t.csv", ConvertOptions(frames="all"))
    assert [(skip.path, skip.code) for skip in inventory.rejected] == [("a.png#1", "bad_row")]
    assert len(scan_images(tmp_path / "t.csv", ConvertOptions()).entries) == 2


def test_a_long_animation_takes_the_memory_of_one_frame(tmp_path):
    frames = [Image.new("RGB", (500, 500), (n, n, n)) for n in range(120)]
    data = encode_frames("GIF", frames)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    numbers = [frame.number for frame in convert_frames(data, [OPTIONS])]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert numbers == list(range(120))
    assert grown < 30_000, f"{grown} kB more, for frames of 750 kB each"
