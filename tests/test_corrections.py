"""Samples that break the convention of their format: the right pixels, a note, or a refusal.

What is expected of a TIFF is what libtiff's `tiff2rgba` 4.5 shows, where it can read the file.
"""

import io
import struct
import zlib

import numpy as np
import pytest
from conftest import encode_image, make_image
from making import make_chunk, make_tiff
from PIL import Image

from converter.errors import ImageError
from converter.image_options import FORMATS
from converter.images.conversion import convert_frames, convert_image
from converter.images.masks import convert_mask
from converter.images.opened_images import Origin, examine_image, list_traits
from converter.inventory import CONTENT_NOTES, NOTES
from converter.options import ConvertOptions

OPTIONS = ConvertOptions(resize="none", encoding="raw", formats=tuple(FORMATS)[:-1])
RGBA = ConvertOptions(resize="none", encoding="raw", formats=OPTIONS.formats, color_mode="rgba")

COLORS = [(10, 200, 30), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]
LEVELS = [10, 200, 30, 40, 50, 255]
ROW = bytes(range(6))


def read_row(data: bytes, options: ConvertOptions = OPTIONS) -> list[tuple[int, ...]]:
    """The first six pixels."""
    image = convert_image(data, options)
    pixels = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, image.channels)
    return [tuple(pixel) for pixel in pixels[0, :6].tolist()]


def read_levels(data: bytes) -> list[int]:
    row = read_row(data)
    assert all(len(set(pixel)) == 1 for pixel in row)
    return [pixel[0] for pixel in row]


def list_notes(data: bytes) -> list[str]:
    """Told while it is converted, and the same when only the original is looked at."""
    origin = convert_image(data, OPTIONS).origin
    assert examine_image(data, OPTIONS) == origin
    return [*list_traits("a", origin, OPTIONS)]


def pack_bits(values: list[int], bits: int) -> bytes:
    text = "".join(format(value, f"0{bits}b") for value in values)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


# Palettes


def make_map(factor: int, entries: int) -> dict[int, tuple[int, list[int]]]:
    channels = [(LEVELS[shift:] + LEVELS[:shift] + [0] * entries)[:entries] for shift in range(3)]
    return {320: (3, [level * factor for channel in channels for level in channel])}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("bits", "row"), [(8, ROW), (4, b"\x01\x23\x45")])
@pytest.mark.parametrize("factor", [257, 256, 1])
def test_a_color_map_has_8_or_16_bits(factor: int, bits: int, row: bytes, order: str):
    data = make_tiff(row, (bits,), photo=3, order=order, more=make_map(factor, 2**bits))
    colors = [tuple((LEVELS[at:] + LEVELS[:at])[shift] for shift in range(3)) for at in range(6)]
    assert read_row(data) == colors
    assert list_notes(data) == []


def test_a_dark_map_of_16_bits_stays_dark():
    dark = make_map(1, 256)
    dark[320][1][-1] = 256  # one entry that has more than 8 bits, though no pixel uses it
    assert read_levels(make_tiff(ROW, photo=3, more=dark)) == [0] * 6


def test_the_alpha_beside_an_8_bit_map_is_kept():
    row = bytes(value for index in range(6) for value in (index, 255 * (index != 2)))
    data = make_tiff(row, (8, 8), photo=3, more={**make_map(1, 256), 338: (3, [2])})
    assert read_row(data, RGBA)[0] == (10, 200, 30, 255)
    assert [pixel[3] for pixel in read_row(data, RGBA)] == [255, 255, 0, 255, 255, 255]


def make_png(depth: int, kind: int, width: int, row: bytes, palette: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0)
    colors = [(b"PLTE", palette)] if palette else []
    chunks = [(b"IHDR", header), *colors, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(make_chunk(*chunk) for chunk in chunks)


def make_gif(palette: bytes, row: bytes) -> bytes:
    """Each pixel comes behind a code that clears the table, so all codes have 9 bits."""
    codes = [code for number in row for code in (256, number)] + [257]
    packed = sum(code << 9 * at for at, code in enumerate(codes))
    body = packed.to_bytes(-(-9 * len(codes) // 8), "little")
    size = (len(palette) // 3 - 1).bit_length() - 1
    head = b"GIF89a" + struct.pack("<HHBBB", len(row), 1, 0x80 | size, 0, 0) + palette
    place = b"," + struct.pack("<HHHHB", 0, 0, len(row), 1, 0) + b"\x08"
    return head + place + bytes([len(body)]) + body + b"\0;"


def make_bmp(
    bits: int, rows: bytes, masks: tuple[int, ...] = (), palette: bytes = b"", size: int = 40
) -> bytes:
    head = struct.pack("<IiiHHIIiiII", size, 6, 1, 1, bits, 3 * bool(masks), len(rows), 0, 0,
                       len(palette) // 4, 0)  # fmt: skip
    head += struct.pack(f"<{len(masks)}I", *masks)
    head = head.ljust(size, b"\0")
    at = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", at + len(rows), 0, 0, at) + head + palette + rows


FEW = bytes([10, 200, 30, 255, 0, 0])
FEW_BGRX = bytes([30, 200, 10, 0, 0, 0, 255, 0])
TGA_HEAD = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 2, 24, 0, 0, 6, 1, 8, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda row: make_png(8, 3, 6, row, FEW),
        lambda row: make_gif(FEW, row),
        lambda row: make_bmp(8, row + bytes(2), palette=FEW_BGRX),
        lambda row: TGA_HEAD + bytes([30, 200, 10, 0, 0, 255]) + row,
    ],
    ids=["png", "gif", "bmp", "tga"],
)
def test_a_number_beyond_the_palette_is_black_and_noted(make):
    inside, beyond = make(bytes([0, 1, 1, 0, 0, 1])), make(bytes([0, 1, 1, 0, 2, 2]))
    assert read_row(inside)[:2] == read_row(beyond)[:2] == COLORS[:2]
    assert list_notes(inside) == []
    assert read_row(beyond)[4:] == [(0, 0, 0)] * 2
    assert list_notes(beyond) == ["palette"]


# Ranges


def make_wide_tiff(dtype: str, values: list[float], kind: int = 1) -> bytes:
    row = np.array(values, dtype)
    return make_tiff(row.tobytes(), (row.dtype.itemsize * 8,), more={339: (3, [kind])})


WIDE = (0, 257, 4095, 16_200, 16_384, 65_535)


@pytest.mark.parametrize(
    ("highest", "notes"), [(65_535, []), (16_384, []), (16_200, ["range"]), (4095, ["range"])]
)
@pytest.mark.parametrize(
    "make",
    [
        lambda row: make_wide_tiff("<u2", row),
        lambda row: make_png(16, 0, 6, np.array(row, ">u2").tobytes()),
        lambda row: make_png(16, 2, 2, np.array(row, ">u2").tobytes()),
        lambda row: make_png(16, 6, 2, struct.pack(">8H", *row[:3], 65_535, *row[3:], 65_535)),
        lambda row: make_tiff(np.array(row * 3, "<u2").tobytes(), (16,) * 3, photo=2),
        lambda row: b"P5\n6 1\n65535\n" + np.array(row, ">u2").tobytes(),
        lambda row: b"P6\n2 1\n65535\n" + np.array(row, ">u2").tobytes(),
        lambda row: make_wide_tiff("<u4", row),
        lambda row: make_wide_tiff("<i2", [min(value, 32_767) for value in row], 2),
        lambda row: make_wide_tiff("<f4", [value / 65_535 for value in row], 3),
    ],
    ids=["tiff", "png", "png rgb", "png rgba", "tiff rgb", "pgm", "ppm", "32", "signed", "float"],
)
def test_samples_that_fill_a_quarter_of_their_range_or_less_are_noted(make, highest, notes):
    assert list_notes(make([min(value, highest) for value in WIDE])) == notes


def test_the_extreme_samples_that_a_tiff_states_change_nothing():
    """`MinSampleValue` and `MaxSampleValue` are not to affect what is shown, says TIFF 6.0."""
    row = np.array([0, 16, 1000, 2047, 4000, 4095], "<u2").tobytes()
    data = make_tiff(row, (16,), more={280: (3, [16]), 281: (3, [4095])})
    assert read_levels(data) == read_levels(make_tiff(row, (16,))) == [0, 0, 3, 7, 15, 15]
    assert list_notes(data) == ["range"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (make_wide_tiff("<f4", [0, 0.25, 0.5, 0.75, 1, 2], 3), [0, 32, 64, 96, 128, 255]),
        (make_wide_tiff("<f4", [-1, 0, 0.25, 0.5, 1, 1], 3), [0, 128, 159, 191, 255, 255]),
        (make_wide_tiff("<i2", [-2, -1, 0, 1, 2, 2], 2), [0, 64, 128, 191, 255, 255]),
        (make_wide_tiff("<u4", [0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], 1),
         [0, 0, 127, 128, 255, 255]),
        (make_wide_tiff("i1", [-128, -1, 0, 1, 100, 127], 2), [0, 127, 128, 129, 228, 255]),
    ],
    ids=["fractions over 1", "negative fractions", "negative", "32 bits", "negative bytes"],
)  # fmt: skip
def test_a_range_that_is_left_is_scaled_whole_and_noted(data: bytes, expected: list[int]):
    assert read_levels(data) == expected
    assert list_notes(data) == ["range"]


def test_integers_of_32_bits_are_unsigned_unless_the_file_says_otherwise():
    row = np.array([0, 2**30, 2**31 - 1, 2**31, 3 * 2**30, 2**32 - 1], "<u4").tobytes()
    assert read_levels(make_tiff(row, (32,))) == [0, 64, 127, 128, 191, 255]


def test_signed_bytes_without_a_sign_stay_as_they_are():
    data = make_tiff(bytes([0, 1, 2, 99, 100, 127]), more={339: (3, [2])})
    assert read_levels(data) == [0, 1, 2, 99, 100, 127]
    assert list_notes(data) == []


def test_samples_of_12_bits_in_a_row_are_scaled():
    values = [0, 17, 1024, 2047, 2048, 4095]
    data = make_tiff(pack_bits(values, 12), (12,))
    assert read_levels(data) == [value * 255 // 4095 for value in values]
    assert list_notes(data) == []
    assert list_notes(make_tiff(pack_bits([0, 1, 2, 3, 4, 1023], 12), (12,))) == ["range"]


@pytest.mark.parametrize("bits", [10, 14])
def test_samples_that_pillow_cannot_unpack_are_refused(bits: int):
    with pytest.raises(ImageError, match=r"^decode_error: "):
        convert_image(make_tiff(pack_bits([0] * 6, bits), (bits,)), OPTIONS)


@pytest.mark.parametrize("highest", [1, 15, 100, 255, 1023, 4095, 65_535])
@pytest.mark.parametrize("kind", [b"P5", b"P6", b"P2", b"P3"])
def test_a_netpbm_is_scaled_by_the_level_that_it_calls_the_highest(kind: bytes, highest: int):
    values = np.array([0, highest // 3, highest // 2, highest // 2, highest, highest])
    row = values.astype(">u2" if highest > 255 else "u1").tobytes()
    row = row if kind in (b"P5", b"P6") else b" ".join(b"%d" % value for value in values)
    width = 6 if kind in (b"P5", b"P2") else 2
    found = np.ravel(read_row(kind + b"\n%d 1\n%d\n" % (width, highest) + row))
    np.testing.assert_allclose(found[:: len(found) // 6], values * 255 / highest, rtol=0, atol=1)


@pytest.mark.parametrize("scale", [b"-1.0", b"-255.0", b"1.0"])
def test_a_pfm_holds_fractions_whatever_its_scale(scale: bytes):
    row = np.array([0, 0.1, 0.2, 0.5, 0.9, 1], ">f4" if scale == b"1.0" else "<f4").tobytes()
    data = b"Pf\n6 1\n" + scale + b"\n" + row
    assert read_levels(data) == [0, 26, 51, 128, 229, 255]


# What a TIFF's numbers mean


@pytest.mark.parametrize(
    ("bits", "row", "expected"),
    [
        ((8,), bytes(LEVELS), LEVELS),
        ((1,), b"\xa0", [255, 0, 255, 0, 0, 0]),
        ((4,), b"\x0f\x1e\x2d", [0, 255, 17, 238, 34, 221]),
        ((16,), np.array([0, 1, 2, 3, 30_000, 65_535], "<u2").tobytes(), [0, 0, 0, 0, 116, 255]),
    ],
)
def test_0_is_black_where_a_tiff_does_not_say(bits, row, expected):
    assert read_levels(make_tiff(row, bits, photo=None)) == expected
    white = read_levels(make_tiff(row, bits, photo=0))
    assert white == [255 - level for level in expected]


def test_0_is_white_in_a_fax_that_does_not_say():
    drawn = Image.new("1", (16, 16), 1)
    drawn.paste(0, (4, 4, 9, 9))
    data = encode_image(drawn, "TIFF", compression="group4")
    tag = struct.pack("<HHL", 262, 3, 1)
    value = data[data.index(tag) + 8 : data.index(tag) + 12]
    silent = data.replace(tag + value, struct.pack("<HHL", 33_000, 3, 1) + value)
    with Image.open(io.BytesIO(silent)) as opened:
        assert 262 not in opened.tag_v2
    shown = np.frombuffer(convert_image(silent, OPTIONS).data, np.uint8).reshape(16, 16, 3)[..., 0]
    stored = int.from_bytes(value, "little")  # what the writer calls white
    expected = np.asarray(drawn.convert("L"))
    np.testing.assert_array_equal(shown, expected if stored == 0 else 255 - expected)


@pytest.mark.parametrize("photo", [0, 1, None])
def test_a_mask_has_the_numbers_that_are_stored(photo: int | None):
    size = ConvertOptions(resize="none", encoding="png")
    mask = make_tiff(ROW, photo=photo)
    (stored,) = convert_mask(mask, Origin("png", 1, 6), [size])
    assert np.asarray(Image.open(io.BytesIO(stored))).tolist() == [list(ROW)]


@pytest.mark.parametrize("pages", [1, 3])
def test_uncompressed_ycbcr_is_refused_and_never_shown_as_rgb(pages: int):
    picture = make_image(1).convert("YCbCr")
    more = {"save_all": True, "append_images": [picture] * (pages - 1)} if pages > 1 else {}
    data = encode_image(picture, "TIFF", **more)
    with pytest.raises(ImageError, match=r"decode_error: .*uncompressed YCbCr"):
        convert_image(data, OPTIONS)
    every = ConvertOptions(resize="none", encoding="raw", frames="all")
    outcomes = [image for frame in convert_frames(data, [every]) for image in frame.images]
    assert [getattr(image, "code", "") for image in outcomes] == ["decode_error"] * pages


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_ycbcr_has_its_colors(compression: str):
    picture = make_image(1)
    data = encode_image(picture.convert("YCbCr"), "TIFF", compression=compression)
    image = convert_image(data, OPTIONS)
    found = np.frombuffer(image.data, np.uint8).reshape(24, 32, 3)
    np.testing.assert_allclose(found, np.asarray(picture), rtol=0, atol=3)


def test_the_black_and_white_of_ycbcr_are_those_of_the_file():
    """Video levels: 16 is black, and 235 white."""
    levels = [value for part in ((16, 235), (128, 240), (128, 240)) for value in part]
    row = bytes([235, 128, 128] * 3 + [16, 128, 128] * 3)
    more = {
        259: (3, [8]),
        530: (3, [1, 1]),
        532: (5, [part for level in levels for part in (level, 1)]),
    }
    data = make_tiff(zlib.compress(row), (8,) * 3, photo=6, more=more)
    assert read_levels(data) == [255] * 3 + [0] * 3


def test_inks_that_are_not_cmyk_are_noted():
    row = bytes([0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255]) * 2
    usual = make_tiff(row, (8,) * 4, photo=5, more={332: (3, [1])})
    assert read_row(usual)[:3] == [(255, 255, 255), (0, 255, 255), (0, 0, 0)]
    assert list_notes(usual) == list_notes(make_tiff(row, (8,) * 4, photo=5)) == []
    assert list_notes(make_tiff(row, (8,) * 4, photo=5, more={332: (3, [2])})) == ["inks"]


def test_a_cmyk_jpeg_is_inverted_as_adobe_does_and_noted_without_its_mark():
    data = encode_image(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    at = data.index(b"\xff\xee")
    plain = data[:at] + data[at + 16 :]
    np.testing.assert_allclose(read_row(data), [(255, 0, 0)] * 6, rtol=0, atol=3)
    assert read_row(plain) == read_row(data)
    assert (list_notes(data), list_notes(plain)) == ([], ["inks"])


def test_lab_has_signed_colors():
    """CIE L*a*b* of the primaries of sRGB, as libtiff reads them."""
    row = bytes([137, 81, 70, 224, 177, 81, 75, 68, 144, 255, 0, 0, 0, 0, 0, 128, 0, 0])
    found = read_row(make_tiff(row, (8,) * 3, photo=8))
    expected = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255,) * 3, (0,) * 3, (119,) * 3]
    np.testing.assert_allclose(found, expected, rtol=0, atol=24)  # green is at the edge


# Alpha


def with_alpha(alpha: int, order: str = "BGRA") -> bytes:
    pixels = (dict(zip("RGBA", (*color, alpha), strict=True)) for color in COLORS)
    return bytes(pixel[name] for pixel in pixels for name in order)


def make_ico(pixels: bytes) -> bytes:
    body = struct.pack("<IiiHHIIiiII", 40, 6, 2, 1, 32, 0, 0, 0, 0, 0, 0) + pixels + bytes(4)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 6, 1, 0, 0, 1, 32, len(body), 22) + body


def make_tga(pixels: bytes, flags: int = 8) -> bytes:
    depth = len(pixels) // 6 * 8
    return struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 6, 1, depth, flags) + pixels


MASKS = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)


@pytest.mark.parametrize(
    "make",
    [lambda row: make_bmp(32, row, MASKS, size=108), make_ico, make_tga],
    ids=["bmp", "ico", "tga"],
)
def test_an_alpha_that_was_never_filled_is_none(make):
    empty, opaque, half = (make(with_alpha(alpha)) for alpha in (0, 255, 128))
    assert read_row(empty) == read_row(opaque) == COLORS
    assert [pixel[3] for pixel in read_row(empty, RGBA)] == [255] * 6
    assert read_row(half)[5] == (127, 127, 127)
    assert list_notes(empty) == ["transparent"]
    assert list_notes(opaque) == list_notes(half) == []


@pytest.mark.parametrize("bits", [16, 32])
def test_a_tga_that_has_no_bits_of_alpha_is_opaque(bits: int):
    packed = [(r >> 3) << 10 | (g >> 3) << 5 | b >> 3 for r, g, b in COLORS[1:]]
    row = struct.pack("<6H", 0x8000, *packed) if bits == 16 else with_alpha(9)
    found = read_row(make_tga(row, flags=0))
    assert found[1:] == COLORS[1:]


def test_a_bmp_of_32_bits_without_a_mask_for_alpha_has_none():
    assert read_row(make_bmp(32, with_alpha(7))) == COLORS


@pytest.mark.parametrize(
    ("masks", "shifts"),
    [((), (10, 5)), ((0x7C00, 0x3E0, 0x1F), (10, 5)), ((0xF800, 0x7E0, 0x1F), (11, 5))],
    ids=["555 unsaid", "555", "565"],
)
def test_a_bmp_of_16_bits_is_scaled_to_white(masks, shifts):
    green = 2 if shifts[0] == 11 else 3
    packed = [(r >> 3) << shifts[0] | (g >> green) << shifts[1] | b >> 3 for r, g, b in COLORS]
    size = 56 if masks else 40
    found = read_row(make_bmp(16, struct.pack("<6H", *packed), masks, size=size))
    np.testing.assert_allclose(found, COLORS, rtol=0, atol=7)
    assert found[1:] == COLORS[1:]
    assert list_notes(make_bmp(16, bytes(12), masks, size=size)) == []  # black, in 8 bits or fewer


def test_a_bmp_of_other_masks_is_refused():
    for masks in ((0xF00, 0xF0, 0xF, 0xF000), (0x3FF00000, 0xFFC00, 0x3FF, 0)):
        bits = 16 if masks[0] == 0xF00 else 32
        with pytest.raises(ImageError, match=r"^decode_error: .*bitfields"):
            convert_image(make_bmp(bits, bytes(24), masks, size=108), OPTIONS)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF", "TIFF", "AVIF", "JPEG2000"])
def test_what_cannot_be_seen_is_noted(file_format: str):
    image = make_image(1, mode="RGBA")
    image.putalpha(0)
    assert list_notes(encode_image(image, file_format)) == ["transparent"]
    image.paste((1, 2, 3, 255), (8, 8, 16, 16))
    assert list_notes(encode_image(image, file_format)) == []


def test_one_transparent_level_everywhere_is_noted():
    data = encode_image(Image.new("L", (4, 4), 7), "PNG", transparency=7)
    assert list_notes(data) == ["transparent"]
    assert list_notes(encode_image(make_image(1, mode="L"), "PNG", transparency=7)) == []


# JPEG 2000


def make_j2k(picture: Image.Image, bits: int) -> bytes:
    """A JPEG 2000 whose header says that its samples, of 8 bits, have another number of them."""
    data = bytearray(encode_image(picture, "JPEG2000", irreversible=False, mct=0, no_jp2=True))
    for band in range(len(picture.getbands())):
        data[42 + 3 * band] = bits - 1
    return bytes(data)


@pytest.mark.parametrize("bits", [1, 2, 4, 7])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_few_bits_of_a_jpeg_2000_reach_from_black_to_white(mode: str, bits: int):
    most = 2**bits - 1
    shifted = 128 - 2 ** (bits - 1)  # the file's samples are centred on half of their range
    for level in (0, most // 2, most):
        data = make_j2k(Image.new(mode, (8, 8), (level + shifted,) * len(mode)), bits)
        assert read_row(data)[0] == (level * 255 // most,) * 3


def test_many_bits_of_colors_in_a_jpeg_2000_are_refused_and_of_grey_are_scaled():
    with pytest.raises(ImageError, match="unsupported_mode: 12 bits a colour"):
        convert_image(make_j2k(make_image(1), 12), OPTIONS)
    grey = Image.fromarray(np.full((8, 8), 65_535, np.uint16))
    assert read_levels(encode_image(grey, "JPEG2000", irreversible=False)) == [255] * 6


def test_a_jpeg_2000_may_hold_ycbcr():
    picture = Image.new(
        "YCbCr", (8, 8), Image.new("RGB", (1, 1), "red").convert("YCbCr").getpixel((0, 0))
    )
    data = encode_image(Image.merge("RGB", picture.split()), "JPEG2000", irreversible=False, mct=0)
    at = data.index(b"colr") + 7
    data = data[:at] + struct.pack(">I", 18) + data[at + 4 :]
    np.testing.assert_allclose(read_row(data), [(255, 0, 0)] * 6, rtol=0, atol=2)


# Notes


def test_every_doubt_has_a_meaning():
    assert {"inks", "palette", "range", "transparent"} <= set(CONTENT_NOTES) <= set(NOTES)


def test_a_damaged_image_that_might_be_doubtful_is_rejected_as_before():
    data = encode_image(make_image(1, mode="RGBA"), "TIFF")
    with pytest.raises(ImageError, match=r"^decode_error: "):
        convert_image(data[:8] + data[-300:], OPTIONS)
    cut = encode_image(make_image(1).quantize(8), "GIF")[:-200]
    with pytest.raises(ImageError, match=r"^decode_error: "):
        convert_image(cut, OPTIONS)


def test_each_page_has_its_own_doubts():
    pages = [make_image(1, mode="RGBA") for _ in range(3)]
    pages[1].putalpha(0)
    data = encode_image(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    every = ConvertOptions(resize="none", encoding="raw", frames="all")
    origins = [image.origin for frame in convert_frames(data, [every]) for image in frame.images]
    assert [origin.doubts for origin in origins] == ["", "transparent", ""]
