"""JPEGs that end early: their real rows are counted, and what is missing is grey."""

import dataclasses
import io
import random
import re

import numpy as np
import pytest
from conftest import encode_image, make_image
from PIL import Image

from converter.errors import ImageError
from converter.images.conversion import check_image, convert_frames, convert_image, convert_sizes
from converter.images.isolation import convert_isolated
from converter.images.opened_images import Origin, examine_image
from converter.options import ConvertOptions

HEIGHT, WIDTH = 120, 88
FILL = ConvertOptions(resize="none", encoding="raw", truncated="fill", min_decoded=0)
REJECT = ConvertOptions(resize="none", encoding="raw")

KINDS = {
    "baseline": {},
    "full color": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "optimized": {"optimize": True},
    "restarts": {"restart_marker_blocks": 3},
    "restarted rows": {"restart_marker_rows": 1},
    "grey": {"mode": "L"},
    "cmyk": {"mode": "CMYK"},
    "progressive": {"progressive": True},
    "progressive restarts": {"progressive": True, "restart_marker_blocks": 5},
}
SEQUENTIAL = [kind for kind, options in KINDS.items() if "progressive" not in options]
PROGRESSIVE = [kind for kind in KINDS if kind not in SEQUENTIAL]


def make_noisy(mode: str = "RGB", height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """A picture in which no two blocks are alike."""
    dots = np.random.default_rng(7).integers(0, 256, (height // 4, width // 4, len(mode)), np.uint8)
    return Image.fromarray(dots.squeeze(), mode).resize((width, height), Image.Resampling.BICUBIC)


def make_jpeg(kind: str) -> bytes:
    options = dict(KINDS[kind])
    return encode_image(make_noisy(options.pop("mode", "RGB")), "JPEG", quality=85, **options)


def make_separate_scans() -> bytes:
    """A sequential JPEG with a scan for each component; Pillow writes only one for all."""
    parts = [encode_image(make_noisy("RGB").getchannel(band), "JPEG") for band in range(3)]
    at = [part.index(b"\xff\xda") for part in parts]
    head = parts[0][: at[0]]
    frame = head.index(b"\xff\xc0")
    components = b"".join(bytes([name, 0x11, 0]) for name in (1, 2, 3))
    header = (
        head[frame : frame + 9].replace(b"\xff\xc0\0\x0b", b"\xff\xc0\0\x11") + b"\3" + components
    )
    scans = [part[start : start + 5] + bytes([band + 1]) + part[start + 6 : -2]
             for band, (part, start) in enumerate(zip(parts, at, strict=True))]  # fmt: skip
    return head[:frame] + header + head[frame + 13 :] + b"".join(scans) + b"\xff\xd9"


def read(data: bytes, options: ConvertOptions = FILL) -> tuple[np.ndarray, Origin]:
    image = convert_image(data, options)
    shape = (image.height, image.width, image.channels)
    assert examine_image(data, options) == image.origin
    return np.frombuffer(image.data, np.uint8).reshape(shape), image.origin


def count_same(one: np.ndarray, other: np.ndarray) -> int:
    differs = (one != other).any((1, 2))
    return int(differs.argmax()) if differs.any() else len(one)


def list_cuts(data: bytes, count: int) -> list[int]:
    """Places in the image's data, among them those beside restarts."""
    begin = data.index(b"\xff\xda") + 14
    chosen = random.Random(3).sample(range(begin, len(data)), count)
    marks = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data[begin:])][::9]
    return sorted({*chosen, *(begin + mark + more for mark in marks for more in range(4))})


# What is counted


@pytest.mark.parametrize("kind", SEQUENTIAL)
def test_rows_are_counted_to_the_last_that_is_as_in_the_whole_file(kind: str):
    data = make_jpeg(kind)
    whole, counts = read(data)[0], []
    for cut in list_cuts(data, 30):
        try:
            pixels, origin = read(data[:cut])
        except ImageError:
            counts.append(0)
            continue
        assert origin.rows == HEIGHT
        counts.append(origin.decoded_rows)
        same = count_same(pixels, whole)
        assert same - 18 < origin.decoded_rows <= same  # at most a row of blocks is not counted
        assert origin.doubts == ("truncated" if origin.decoded_rows < HEIGHT else "")
    assert counts == sorted(counts)
    assert len(set(counts)) > 5


@pytest.mark.parametrize("kind", ["baseline", "restarts", "grey"])
def test_what_is_missing_is_grey(kind: str):
    data = make_jpeg(kind)
    pixels, origin = read(data[: len(data) // 2])
    assert 30 < origin.decoded_rows < 90
    np.testing.assert_allclose(pixels[origin.decoded_rows + 20 :], 128, rtol=0, atol=1)


@pytest.mark.parametrize("kind", PROGRESSIVE)
def test_a_row_of_a_progressive_file_counts_once_all_its_colors_have_begun(kind: str):
    data = make_jpeg(kind)
    scans = [found.start() for found in re.finditer(b"\xff\xda", data)]
    first, second = scans[:2]
    found = []
    for cut in (*range(first + 20, second - 20, (second - first) // 12), second - 1):
        try:
            _, origin = read(data[:cut])
        except ImageError:
            found.append(0)
            continue
        found.append(origin.decoded_rows)
        assert origin.doubts == ("truncated coarse" if origin.decoded_rows < HEIGHT else "coarse")
    assert found == sorted(found)
    assert len(set(found)) > 4
    for cut in (*scans[1:], *(scan + 9 for scan in scans[1:]), *(scan + 40 for scan in scans[1:])):
        _, origin = read(data[:cut])
        assert (origin.decoded_rows, origin.doubts) == (HEIGHT, "coarse")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_only_lacks_its_end_is_whole(kind: str):
    data = make_jpeg(kind)
    whole, unharmed = read(data)
    for lacking in (1, 2):
        pixels, origin = read(data[:-lacking])
        np.testing.assert_array_equal(pixels, whole)
        assert origin == unharmed
        assert (origin.rows, origin.decoded_rows, origin.doubts) == (HEIGHT, HEIGHT, "")


def test_no_row_counts_before_the_last_color_has_begun():
    data = make_separate_scans()
    whole, _ = read(data)
    np.testing.assert_allclose(
        whole,
        np.asarray(Image.merge("YCbCr", make_noisy().split()).convert("RGB")),
        rtol=0,
        atol=60,
    )
    scans = [found.start() for found in re.finditer(b"\xff\xda", data)]
    for cut in (scans[1] - 30, scans[1], scans[1] + 300, scans[2]):
        with pytest.raises(ImageError, match="decode_error"):
            read(data[:cut])
    pixels, origin = read(data[: (scans[2] + len(data)) // 2])
    assert 30 < origin.decoded_rows < 90
    assert origin.decoded_rows <= count_same(pixels, whole)


@pytest.mark.parametrize("tail", [bytes(5000), b"\0", b"\xff", b"\xff\xff", b"\xff\0", b"\xff\0\0"])
@pytest.mark.parametrize("kind", ["baseline", "restarts", "progressive"])
def test_zeros_and_half_a_marker_behind_the_end_are_no_data(kind: str, tail: bytes):
    data = make_jpeg(kind)
    cut = data[: len(data) // 2].rstrip(b"\0\xff")
    np.testing.assert_array_equal(read(cut + tail)[0], read(cut)[0])
    assert read(cut + tail)[1] == read(cut)[1]


def test_the_end_of_a_thumbnail_is_not_that_of_the_image():
    exif = Image.Exif()
    exif[0x010E] = "\xff\xd9 and \xff\xda".encode("latin-1")
    data = encode_image(make_noisy(), "JPEG", exif=exif, comment=b"\xff\xd9\xff\xc2\xff\xda")
    assert read(data)[1].doubts == ""
    assert 0 < read(data[: len(data) // 2])[1].decoded_rows < HEIGHT


# What is kept, and what is not


def describe(data: bytes, options: ConvertOptions) -> str:
    with pytest.raises(ImageError) as caught:
        convert_image(data, options)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_ends_early_is_rejected_unless_asked_for(kind: str):
    data = make_jpeg(kind)
    for cut in (len(data) // 2, len(data) - 30):
        assert describe(data[:cut], REJECT).startswith("decode_error: OSError: image file is trunc")


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_fewer_rows_than_asked_for_are_rejected_in_the_same_words(share: float):
    data = make_jpeg("baseline")
    options = dataclasses.replace(FILL, min_decoded=share)
    for cut in list_cuts(data, 30):
        try:
            rows = read(data[:cut])[1].decoded_rows
        except ImageError:
            rows = 0
        if rows >= share * HEIGHT:
            assert read(data[:cut], options)[1].decoded_rows == rows
        else:
            assert describe(data[:cut], options) == describe(data[:cut], REJECT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_a_row_is_rejected_in_the_same_words(kind: str):
    data = make_jpeg(kind)
    begin = data.index(b"\xff\xda")
    for cut in (3, 20, begin // 2, begin - 1, begin, begin + 3, begin + 13, begin + 16):
        assert describe(data[:cut], FILL) == describe(data[:cut], REJECT)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_other_formats_that_end_early_are_always_rejected(file_format: str):
    data = encode_image(make_noisy(), file_format)
    cut = data[: len(data) * 3 // 4]
    assert describe(cut, FILL) == describe(cut, REJECT)


@pytest.mark.parametrize("options", [FILL, dataclasses.replace(FILL, encoding="jpeg", quality=90)])
def test_whole_files_have_the_same_pixels(options: ConvertOptions):
    as_usual = dataclasses.replace(options, truncated="reject", min_decoded=0.5)
    for kind in KINDS:
        data = make_jpeg(kind)
        for whole in (data, data + bytes(100)):
            assert convert_image(whole, options) == convert_image(whole, as_usual)


@pytest.mark.parametrize("encoding", ["keep", "jpeg"])
def test_what_is_filled_is_encoded_again(encoding: str):
    options = dataclasses.replace(FILL, encoding=encoding)
    for kind, lacking in (("baseline", 2), ("baseline", 2000), ("grey", 900)):
        mode = {"color_mode": "grayscale"} if kind == "grey" else {}
        cut = make_jpeg(kind)[:-lacking]
        image = convert_image(cut, dataclasses.replace(options, **mode))
        assert not image.data.startswith(cut[:-2])
        assert image.format == "jpeg"
        assert image.data.endswith(b"\xff\xd9")
        check_image(image, decode=True)
        # A strict decoder finds nothing missing: encoded again, all scans have all their data.
        with Image.open(io.BytesIO(image.data)) as opened:
            assert encode_image(opened, "PNG")


def test_damage_besides_the_end_does_no_harm():
    """Whatever a file holds, it is converted or refused; rows are never more than it has."""
    chance = random.Random(5)
    outcomes = set()
    for kind in ("baseline", "restarts", "progressive"):
        data = make_jpeg(kind)
        for _ in range(150):
            broken = bytearray(data[: chance.randrange(20, len(data))])
            for _ in range(chance.randrange(1, 6)):
                broken[chance.randrange(2, len(broken))] = chance.randrange(256)
            try:
                origin = convert_image(bytes(broken), FILL).origin
            except ImageError as error:
                outcomes.add(error.code)
                continue
            assert 0 < origin.decoded_rows <= origin.rows
            outcomes.add(origin.doubts)
    assert {"decode_error", "truncated", "coarse"} <= outcomes


# Together with the rest


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rows_are_those_of_the_file_before_it_is_turned(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode_image(make_noisy(), "JPEG", quality=85, exif=exif)
    cut = data[: len(data) // 2]
    pixels, origin = read(cut)
    straight, plain = read(cut.replace(exif.tobytes(), exif.tobytes()[:-10] + bytes(10)))
    assert (origin.rows, origin.decoded_rows) == (HEIGHT, plain.decoded_rows)
    assert origin.size == ((WIDTH, HEIGHT) if orientation >= 5 else (HEIGHT, WIDTH))
    turned = {1: straight, 3: straight[::-1, ::-1], 6: np.rot90(straight, 3), 8: np.rot90(straight)}
    if orientation in turned:
        np.testing.assert_array_equal(pixels, turned[orientation])


@pytest.mark.parametrize("file_format", ["TIFF", "PNG", "WEBP", "JPEG"])
def test_whole_files_have_all_their_rows_also_if_they_lie_on_their_side(file_format: str):
    exif = Image.Exif()
    exif[0x0112] = 6
    origin = read(encode_image(make_noisy(), file_format, exif=exif))[1]
    assert origin.orientation == 6
    assert origin.size == (WIDTH, HEIGHT)
    assert (origin.rows, origin.decoded_rows) == (HEIGHT, HEIGHT)


def test_frames_have_rows_of_their_own():
    pages = [make_noisy(height=40), make_noisy(height=60)]
    data = encode_image(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    every = dataclasses.replace(FILL, frames="all")
    origins = [image.origin for frame in convert_frames(data, [every]) for image in frame.images]
    assert [(origin.rows, origin.decoded_rows) for origin in origins] == [(40, 40), (60, 60)]


def test_a_fraction_of_the_size_has_the_same_rows():
    """Large enough to be decoded at an eighth, which costs nothing in what is counted."""
    data = encode_image(make_noisy(height=960, width=704), "JPEG", quality=85)
    cut = data[: len(data) * 2 // 3]
    small = dataclasses.replace(FILL, resize="stretch", image_size=(60, 44))
    pixels, origin = read(cut, small)
    whole, _ = read(data, small)
    assert origin.rows == 960
    assert origin.decoded_rows == read(cut)[1].decoded_rows
    real = origin.decoded_rows * 60 // 960
    np.testing.assert_allclose(pixels[: real - 2], whole[: real - 2], rtol=0, atol=1)
    np.testing.assert_allclose(pixels[real + 3 :], 128, rtol=0, atol=1)


def test_several_sizes_are_each_as_alone():
    data = encode_image(make_noisy(height=480, width=352), "JPEG", progressive=True)
    sizes = [
        dataclasses.replace(FILL, resize=resize, image_size=(side, side))
        for resize, side in (("stretch", 30), ("crop", 64), ("pad", 200), ("none", 7))
    ]
    for cut in (len(data) // 12, len(data) // 2):
        together = convert_sizes(data[:cut], sizes)
        assert together == [convert_image(data[:cut], size) for size in sizes]


@pytest.mark.parametrize("kind", ["baseline", "progressive"])
def test_a_child_process_counts_the_same(kind: str):
    data = make_jpeg(kind)
    for cut in (len(data) // 3, len(data) // 2, len(data) * 3 // 4):
        (inside,) = convert_frames(data[:cut], [FILL])
        (isolated,) = convert_isolated(data[:cut], [FILL])
        assert isolated == inside


def test_an_mpo_is_filled_unless_all_its_pictures_are_asked_for():
    more = {"save_all": True, "append_images": [make_image(1)]}
    data = encode_image(make_noisy(), "MPO", **more)
    cut = data[: data.index(b"\xff\xda") + 3000]
    _, origin = read(cut)
    assert origin.format == "mpo"
    assert 0 < origin.decoded_rows < HEIGHT
    every = dataclasses.replace(FILL, frames="all")
    outcomes = [image for frame in convert_frames(cut, [every]) for image in frame.images]
    assert {getattr(image, "code", "") for image in outcomes} == {"decode_error"}
    behind = data[:-200]  # the first picture is whole
    assert read(behind)[1].decoded_rows == HEIGHT


def test_real_photos_have_the_rows_of_their_whole_files(shared_images):
    photos = sorted((shared_images / "photos").rglob("*.jpg"))
    sizes = [photo for photo in photos if 20_000 < photo.stat().st_size < 700_000][::8]
    compared = progressive = 0
    for number, photo in enumerate(sizes):
        data = photo.read_bytes()
        cut = data[: len(data) * (number % 7 + 3) // 10]
        try:
            whole, pixels, origin = read(data)[0], *read(cut)
        except ImageError:
            continue
        compared += 1
        progressive += "coarse" in origin.doubts
        if origin.orientation == 1 and "coarse" not in origin.doubts:
            assert origin.decoded_rows <= count_same(pixels, whole)
    assert compared >= 8, progressive
