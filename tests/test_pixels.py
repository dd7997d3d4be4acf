"""Pixels: what a person would see, from every mode, profile and kind of transparency."""

import functools
import io
import json
import pathlib
import struct
import zlib

import numpy as np
import pytest
from conftest import SHARED, encode_image, make_image
from making import make_chunk
from PIL import Image, ImageCms

from converter.errors import ImageError
from converter.images.conversion import convert_image
from converter.images.pixels import MAX_PROFILE_BYTES
from converter.options import ConvertOptions

AS_IT_IS = ConvertOptions(resize="none", encoding="raw")
RGBA = ConvertOptions(resize="none", encoding="raw", color_mode="rgba")
GREY = ConvertOptions(resize="none", encoding="raw", color_mode="grayscale")
UNPROFILED = ConvertOptions(resize="none", encoding="raw", color_profiles="ignore")

SUITE = SHARED / "hostile" / "pngsuite"
EXIF = SHARED / "hostile" / "exif_orientation"


def read_pixels(data: bytes, options: ConvertOptions = AS_IT_IS) -> np.ndarray:
    image = convert_image(data, options)
    pixels = np.frombuffer(image.data, np.uint8)
    return pixels.reshape(image.height, image.width, image.channels)


@functools.cache
def make_profile(red: tuple[float, float], green: tuple[float, float], gamma: float) -> bytes:
    """An ICC profile of other primaries, made from sRGB's by writing over them."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {}
    for number in range(int.from_bytes(data[128:132], "big")):
        at = 132 + 12 * number
        tags[bytes(data[at : at + 4])] = int.from_bytes(data[at + 4 : at + 8], "big")
    for name, (x, y) in ((b"rXYZ", red), (b"gXYZ", green)):
        for place, value in enumerate((x, y)):
            at = tags[name] + 8 + 4 * place
            data[at : at + 4] = round(value * 65536).to_bytes(4, "big", signed=True)
    at = tags[b"rTRC"]
    data[at + 12 : at + 16] = round(gamma * 65536).to_bytes(4, "big", signed=True)
    return bytes(data)


WIDE = make_profile((0.61, 0.31), (0.205, 0.63), 2.2)
"""About Adobe RGB."""

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# The suites


def list_suite() -> list[pathlib.Path]:
    return sorted(SUITE.glob("png/*.png"))


@pytest.mark.skipif(not SUITE.is_dir(), reason=f"no PngSuite at {SUITE}")
def test_pngsuite_has_its_expected_pixels():
    compared = 0
    for path in list_suite():
        expected = SUITE / "json" / f"{path.stem}_to8.json"
        if not expected.exists():
            expected = SUITE / "json" / f"{path.stem}.json"
        if not expected.exists() or path.stem in ("xcsn0g01", "xhdn0g08"):
            continue  # damaged on purpose
        reference = np.array(json.loads(expected.read_text())).reshape(-1, 4)
        wide = reference.max() > 255
        reference = reference / (257 if wide else 1)
        found = read_pixels(path.read_bytes(), RGBA).reshape(-1, 4)
        seen = (found[:, 3] > 0) | (reference[:, 3] > 0)
        np.testing.assert_allclose(found[seen], reference[seen], rtol=0, atol=1, err_msg=path.stem)
        compared += 1
    assert compared == 161


@pytest.mark.skipif(not SUITE.is_dir(), reason=f"no PngSuite at {SUITE}")
def test_every_damaged_file_of_pngsuite_is_rejected():
    for path in list_suite():
        if path.stem.startswith("x"):
            with pytest.raises(ImageError, match=r"^(decode_error|not_an_image): "):
                convert_image(path.read_bytes(), AS_IT_IS)


@pytest.mark.skipif(not EXIF.is_dir(), reason=f"no EXIF examples at {EXIF}")
@pytest.mark.parametrize("kind", ["Landscape", "Portrait"])
def test_eight_orientations_are_one_picture(kind):
    pictures = [read_pixels((EXIF / f"{kind}_{n}.jpg").read_bytes()) for n in range(9)]
    for picture in pictures[2:]:
        assert picture.shape == pictures[1].shape
        assert np.abs(picture.astype(int) - pictures[1]).mean() < 8
    small = ConvertOptions(image_size=(60, 60), encoding="raw")
    reduced = [read_pixels((EXIF / f"{kind}_{n}.jpg").read_bytes(), small) for n in range(9)]
    for picture in reduced[2:]:
        assert np.abs(picture.astype(int) - reduced[1]).mean() < 1


# Modes


@pytest.mark.parametrize(
    ("background", "expected"),
    [((255, 255, 255), 255), ((0, 0, 0), 0), ((10, 20, 30), (10, 20, 30))],
)
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_hidden_colors_do_not_show_through(mode, background, expected):
    image = make_image(1, mode=mode)
    image.putalpha(0)
    options = ConvertOptions(resize="none", encoding="raw", background=background)
    assert (read_pixels(encode_image(image, "PNG"), options) == expected).all()


def test_rgba_keeps_transparency_and_is_opaque_without():
    image = make_image(1, mode="RGBA")
    np.testing.assert_array_equal(read_pixels(encode_image(image, "PNG"), RGBA), np.asarray(image))
    opaque = read_pixels(encode_image(make_image(1), "PNG"), RGBA)
    assert (opaque[..., 3] == 255).all()
    np.testing.assert_array_equal(opaque[..., :3], np.asarray(make_image(1)))


def test_resizing_lets_no_hidden_color_bleed_into_rgba():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = (200, 100, 50, 255)
    pixels[:, 4:] = (0, 255, 0, 0)
    options = ConvertOptions(image_size=(3, 3), encoding="raw", color_mode="rgba")
    found = read_pixels(encode_image(Image.fromarray(pixels), "PNG"), options)
    seen = found[..., 3] > 0
    np.testing.assert_allclose(found[seen][:, :3], [[200, 100, 50]] * seen.sum(), rtol=0, atol=2)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "CMYK", "1", "P"])
def test_grayscale_is_one_channel_of_the_luma(mode):
    image = make_image(1, mode=mode) if mode not in "1P" else make_image(1).convert(mode)
    file_format = "TIFF" if mode == "CMYK" else "PNG"
    data = encode_image(image, file_format)
    expected = Image.fromarray(read_pixels(data)).convert("L")
    found = read_pixels(data, GREY)
    assert found.shape == (24, 32, 1)
    np.testing.assert_allclose(found[..., 0], np.asarray(expected), rtol=0, atol=1)


def test_a_16_bit_gray_image_may_have_a_transparent_level():
    levels = np.array([[0, 300, 65_535]], np.uint16)
    data = encode_image(Image.fromarray(levels), "PNG", transparency=300)
    assert read_pixels(data)[0, :, 0].tolist() == [0, 255, 255]
    assert read_pixels(data, RGBA)[0, :, 3].tolist() == [255, 0, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.25, 1.0]], np.float32), [0, 64, 255]),
        (np.array([[-10.0, 0.0, 30.0]], np.float32), [0, 64, 255]),
        (np.array([[0.0, 1000.0, 2000.0]], np.float32), [0, 128, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0, 257, 65_535]], np.int32), [0, 1, 255]),
        (np.array([[0, 1 << 20, 1 << 22]], np.int32), [0, 64, 255]),
        (np.array([[-(2**31), 0, 2**31 - 1]], np.int32), [0, 128, 255]),
        (np.full((1, 3), 5e8, np.float32), [0, 0, 0]),
        (np.array([[-3e38, 0, 3e38]], np.float32), [0, 128, 255]),
    ],
    ids=["unit", "negative", "large", "signed", "16 bits", "24 bits", "32 bits", "flat", "huge"],
)
def test_whole_and_fractional_samples_are_scaled_and_never_clipped(values, expected):
    data = encode_image(Image.fromarray(values), "TIFF")
    assert read_pixels(data)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("options", [AS_IT_IS, ConvertOptions(resize="none", encoding="keep")])
def test_a_png_of_nonsense_is_refused_though_its_checksums_are_right(options):
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(make_image(1)))
    deflated = zlib.compress(rows)
    head = encode_image(make_image(1), "PNG")[:33]
    end = encode_image(make_image(1), "PNG")[-12:]
    assert convert_image(head + make_chunk(b"IDAT", deflated) + end, options).height == 24
    middle = len(deflated) // 2
    for nonsense in (
        b"\x78\x9c" + b"\xff" * 200,
        zlib.compress(b"\x09" + rows[1:]),
        deflated[:middle] + bytes(9) + deflated[middle + 9 :],
    ):
        with pytest.raises(ImageError, match=r"^decode_error: "):
            convert_image(head + make_chunk(b"IDAT", nonsense) + end, options)


def change_tag(tiff: bytes, number: int, old: int, new: int) -> bytes:
    """A TIFF that says something else of its samples."""
    before, after = (struct.pack("<HHLL", number, 3, 1, value) for value in (old, new))
    assert tiff.count(before) == 1
    return tiff.replace(before, after)


@pytest.mark.parametrize(
    ("values", "tag", "expected"),
    [
        (np.array([[0, 257, 65_535]], np.uint16), (262, 1, 0), [255, 254, 0]),
        (np.array([[0.0, 0.25, 1.0]], np.float32), (262, 1, 0), [255, 191, 0]),
        (np.array([[0, 2**31 - 1, -1]], np.int32), (339, 2, 1), [0, 127, 255]),
        # 0, 17, 2,047 and 4,095 in 12 bits each, as numbers of 16.
        (np.array([[0, 0x7F11, 0xFFFF, 0]], np.uint16), (258, 16, 12), [0, 1, 127, 255]),
    ],
    ids=["white is 0", "white is 0.0", "unsigned", "12 bits"],
)
def test_what_a_tiff_says_of_its_samples_is_believed(values, tag, expected):
    data = change_tag(encode_image(Image.fromarray(values), "TIFF"), *tag)
    assert read_pixels(data)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_samples_that_are_no_numbers_are_rejected(value):
    data = encode_image(Image.new("F", (4, 4), value), "TIFF")
    with pytest.raises(ImageError, match=r"^unsupported_mode: mode F"):
        convert_image(data, AS_IT_IS)


def test_lab_becomes_the_color_that_it_names():
    red = Image.new("RGB", (4, 4), "red")
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(red, *profiles, outputMode="LAB")
    found = read_pixels(encode_image(lab, "TIFF"))
    np.testing.assert_allclose(found, np.full((4, 4, 3), (255, 0, 0)), rtol=0, atol=6)


def make_png(depth: int, kind: int, rows: list[bytes], width: int, key: bytes) -> bytes:
    """A PNG of samples that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    data = b"\x89PNG\r\n\x1a\n"
    chunks = [(b"IHDR", header), (b"tRNS", key), (b"IDAT", pixels), (b"IEND", b"")]
    for name, body in chunks:
        if body or name == b"IEND":
            data += struct.pack(">I", len(body)) + name + body
            data += struct.pack(">I", zlib.crc32(name + body))
    return data


@pytest.mark.parametrize(
    ("depth", "row", "levels"),
    [(4, b"\x0f\x50", [0, 255, 85, 0]), (2, b"\x34", [0, 255, 85, 0])],
)
def test_the_transparent_level_of_few_bits_is_the_right_one(depth, row, levels):
    for key in (0, 5 if depth == 4 else 1, 15 if depth == 4 else 3):
        data = make_png(depth, 0, [row], 4, struct.pack(">H", key))
        found = read_pixels(data, RGBA)[0]
        hidden = key * (17 if depth == 4 else 85)
        assert [pixel[3] == 0 for pixel in found] == [level == hidden for level in levels]
        assert [pixel[0] for pixel in found if pixel[3]] == [n for n in levels if n != hidden]


def test_the_transparent_color_of_16_bits_is_the_right_one():
    colors = [(0x1234, 0x5678, 0x9ABC), (0x2234, 0x5678, 0x9ABC)]
    row = b"".join(struct.pack(">HHH", *color) for color in colors)
    data = make_png(16, 2, [row], 2, struct.pack(">HHH", *colors[0]))
    assert read_pixels(data, RGBA)[0, :, 3].tolist() == [0, 255]


def test_keep_never_copies_samples_of_16_bits():
    data = make_png(16, 2, [bytes(12)] * 2, 2, b"")
    stored = convert_image(data, ConvertOptions(resize="none", encoding="keep"))
    assert stored.data != data
    assert Image.open(io.BytesIO(stored.data)).size == (2, 2)


# Profiles


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_wide_profile_becomes_srgb(file_format):
    image = Image.new("RGB", (8, 8), (60, 200, 90))
    data = encode_image(image, file_format, icc_profile=WIDE)
    expected = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(WIDE)), ImageCms.createProfile("sRGB")
    )
    shift = np.abs(np.asarray(expected).astype(int) - np.asarray(image)).max()
    assert shift > 20
    np.testing.assert_allclose(read_pixels(data), np.asarray(expected), rtol=0, atol=5)
    np.testing.assert_allclose(read_pixels(data, UNPROFILED), np.asarray(image), rtol=0, atol=5)


def test_a_profile_under_transparency_moves_the_colors_alone():
    image = make_image(1, mode="RGBA")
    data = encode_image(image, "PNG", icc_profile=WIDE)
    found, plain = read_pixels(data, RGBA), np.asarray(image)
    np.testing.assert_array_equal(found[..., 3], plain[..., 3])
    assert np.abs(found[..., :3].astype(int) - plain[..., :3]).max() > 20


@pytest.mark.parametrize(
    "profile",
    [SRGB, b"broken", WIDE[:200], WIDE[:60] + b"\xff" * 300, bytes(MAX_PROFILE_BYTES + 1)],
    ids=["srgb", "text", "cut", "noise", "vast"],
)
def test_a_profile_that_is_srgb_or_broken_changes_nothing(profile):
    image = make_image(1)
    source = encode_image(image, "TIFF", icc_profile=profile)
    np.testing.assert_array_equal(read_pixels(source), np.asarray(image))


def test_a_profile_for_other_pixels_changes_nothing():
    cmyk = bytearray(WIDE)
    cmyk[16:20] = b"CMYK"
    data = encode_image(make_image(1), "PNG", icc_profile=bytes(cmyk))
    np.testing.assert_array_equal(read_pixels(data), np.asarray(make_image(1)))


def test_keep_copies_srgb_and_converts_others():
    keep = ConvertOptions(resize="none", encoding="keep")
    same, other = (encode_image(make_image(1), "PNG", icc_profile=p) for p in (SRGB, WIDE))
    assert convert_image(same, keep).data == same
    assert convert_image(other, keep).data != other
    ignoring = ConvertOptions(resize="none", encoding="keep", color_profiles="ignore")
    assert convert_image(other, ignoring).data == other
