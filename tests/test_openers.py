"""Opening: formats by their content, no other reader of Pillow, and limits by the header alone."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from conftest import encode_image, make_environment, make_image
from PIL import Image

from converter.errors import ImageError, UsageError
from converter.image_options import FORMATS, parse_formats
from converter.images.conversion import convert_image
from converter.images.openers import register_formats
from converter.options import ConvertOptions

MORE = {"jpeg2000": "JPEG2000", "ppm": "PPM", "tga": "TGA", "ico": "ICO"}


def find_code(data: bytes, formats: str) -> str | None:
    try:
        convert_image(data, ConvertOptions(formats=parse_formats(formats)))
    except ImageError as error:
        return error.code
    return None


@pytest.mark.parametrize("name", MORE)
def test_more_formats_are_read_when_they_are_asked_for(name):
    image = make_image(1, 24, 24)
    data = encode_image(image, MORE[name])
    assert find_code(data, "-gif") in ("other_format", "not_an_image")
    assert find_code(data, f"+{name}") is None
    assert find_code(data, name) is None


@pytest.mark.parametrize(
    ("saved", "formats"),
    [("GIF", "-gif"), ("PNG", "jpeg"), ("WEBP", "jpeg,png"), ("TIFF", "-tiff"), ("AVIF", "-avif")],
)
def test_what_is_not_asked_for_is_named(saved, formats):
    data = encode_image(make_image(1), saved)
    options = ConvertOptions(formats=parse_formats(formats))
    with pytest.raises(ImageError, match=f"^other_format: {saved.lower()}, "):
        convert_image(data, options)


def test_several_pictures_in_a_jpeg_are_a_format_of_their_own():
    data = encode_image(make_image(1), "MPO", save_all=True, append_images=[make_image(2)])
    assert find_code(data, "mpo") is None
    assert find_code(data, "jpeg") == "other_format"
    assert find_code(encode_image(make_image(1), "JPEG"), "jpeg") is None


def test_the_content_decides_and_not_the_name():
    # The converter is not told a name.
    for file_format in ("PNG", "GIF", "BMP"):
        assert find_code(encode_image(make_image(1), file_format), "png,gif,bmp") is None


def test_no_reader_is_loaded_but_those_asked_for():
    script = """
import sys
from PIL import Image
from converter.images.conversion import convert_image
from converter.errors import ImageError
from converter.options import ConvertOptions
for data in (b"%!PS-Adobe-3.0 EPSF-3.0", b"\\xd7\\xcd\\xc6\\x9a", b"SIMPLE  =", b"8BPS\\0\\1"):
    try:
        convert_image(data, ConvertOptions())
    except ImageError as error:
        assert error.code == "not_an_image"
print(*sorted(Image.OPEN))
"""
    printed = subprocess.run(
        [sys.executable, "-c", script],
        env=make_environment(),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    # PPM and DIB are registered by Pillow whatever is asked for; the list given to it decides.
    assert set(printed) == {
        "AVIF", "BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP",
    }  # fmt: skip


def test_pillow_is_never_given_another_format():
    assert register_formats(tuple(FORMATS)[:8]) == [
        "AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP",
    ]  # fmt: skip
    assert register_formats(("mpo",)) == ["JPEG"]


def test_an_extra_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    register_formats.cache_clear()
    with pytest.raises(UsageError, match=r"^format heif .* pip install pillow-heif,"):
        convert_image(b"data", ConvertOptions(formats=("heif",)))
    register_formats.cache_clear()


def test_heif_is_read_where_its_extra_is_installed():
    pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    register_formats(("heif",))
    image = Image.linear_gradient("L").convert("RGB")
    data = encode_image(image, "HEIF", quality=100)
    options = ConvertOptions(formats=("heif",), resize="none", encoding="raw")
    stored = convert_image(data, options)
    found = np.frombuffer(stored.data, np.uint8).reshape(256, 256, 3)
    assert np.abs(found.astype(int) - np.asarray(image)).mean() < 4
    assert find_code(data, "-gif") == "other_format"


def test_every_format_has_a_reader_and_suffixes():
    for name, each in FORMATS.items():
        assert each.suffixes
        assert name == "heif" or register_formats((name,))
    assert {"JPEG", "PNG"} <= set(Image.OPEN)


ANIMATION = {"save_all": True, "append_images": [make_image(2), make_image(3)]}


def find_reason(data: bytes, **options: object) -> str | None:
    try:
        convert_image(data, ConvertOptions(image_size=(8, 8), **options))
    except ImageError as error:
        return f"{error.code}: {error.detail}"
    return None


def claim_png(width: int, height: int) -> bytes:
    data = bytearray(encode_image(make_image(1), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def claim_jpeg(width: int, height: int) -> bytes:
    data = bytearray(encode_image(make_image(1), "JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def repeat_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encode_image(make_image(1, 64, 64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (claim_png(9000, 9000), "implausible: 9000x9000 pixels in "),
        (claim_jpeg(9000, 9000), "implausible: 81,000,000 pixels in "),
        (repeat_scans(100), "too_slow: 110 scans, at most 100"),
    ],
    ids=["png", "jpeg", "scans"],
)
def test_a_header_that_cannot_be_true_is_refused(data, reason):
    assert str(find_reason(data)).startswith(reason)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_empty_but_honest_image_is_plausible(mode, progressive):
    for side in (16, 1000, 3000):
        image = Image.new(mode, (side, side))
        for file in (
            encode_image(image, "JPEG", quality=1, progressive=progressive, optimize=True),
            encode_image(image, "PNG", compress_level=9),
        ):
            assert find_reason(file) is None, side


def test_limits_are_options():
    data = encode_image(make_image(1), "PNG")
    assert find_reason(data, max_pixels=768) is None
    assert find_reason(data, max_pixels=767) == "too_large: 32x24 pixels, at most 767"
    assert find_reason(data, max_file_bytes=len(data)) is None
    assert find_reason(data, max_file_bytes=9) == f"too_many_bytes: {len(data):,} bytes, at most 9"


def test_a_tile_that_is_much_larger_than_its_image_is_refused():
    plain = encode_image(make_image(1), "TIFF")

    def make_tiled(width: int, height: int) -> bytes:
        wide, high = (
            struct.pack("<HHLL", *tag) for tag in ((322, 4, 1, width), (323, 4, 1, height))
        )
        data = plain.replace(struct.pack("<HHLL", 278, 4, 1, 24), wide)  # rows of a strip
        return data.replace(struct.pack("<HHLL", 284, 3, 1, 1), high)

    assert find_reason(make_tiled(32, 32)) is None
    reason = "too_large: tiles of 26000x26000 pixels, at most 89,478,485"
    assert find_reason(make_tiled(26_000, 26_000)) == reason


def test_a_higher_limit_lets_larger_images_pass(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encode_image(make_image(1), "PNG")
    assert str(find_reason(data, max_pixels=767)).startswith("too_large: ")
    assert find_reason(data, max_pixels=768) is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"min_side": 25}, "filtered_side: 24 pixels, at least 25"),
        ({"min_area": 769}, "filtered_area: 768 pixels, at least 769"),
        ({"max_aspect": 1.25}, "filtered_aspect: 32:24, at most 1.25 to 1"),
        ({"min_side": 24, "min_area": 768, "max_aspect": 1.34}, None),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_filters_leave_images_out(options, reason, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert find_reason(encode_image(make_image(1), "JPEG", exif=exif), **options) == reason


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"])
def test_animations_can_be_rejected(file_format):
    moving = encode_image(make_image(1), file_format, **ANIMATION)
    assert find_reason(moving) is None
    assert find_reason(moving, frames="reject") == "animated: 3 frames or pages"
    still = encode_image(make_image(1), "JPEG" if file_format == "MPO" else file_format)
    assert find_reason(still, frames="reject") is None


def test_a_bomb_of_text_is_refused():
    data = encode_image(make_image(1), "PNG")
    packed = zlib.compress(bytes(80 << 20), 9)
    body = b"zTXtbomb\0\0" + packed
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    assert str(find_reason(data[:33] + chunk + data[33:])).startswith("decode_error: ")


def test_every_cut_of_a_header_is_refused():
    data = encode_image(make_image(1), "JPEG")
    for size in range(1, 200):
        assert find_reason(data[:size]) is not None
    broken = encode_image(make_image(1), "PNG")[:8] + b"\xff" * 30
    assert (
        find_reason(broken) == "decode_error: this png is damaged, or of a kind that cannot be read"
    )


def test_sizes_from_one_pixel_to_a_thousand_to_one_are_converted():
    for size in ((1, 1), (7, 3), (1, 9000), (9000, 1)):
        data = encode_image(Image.new("RGB", size, "red"), "PNG")
        for resize in ("stretch", "crop", "pad", "shorter", "longer"):
            stored = (
                convert_image(data, ConvertOptions(image_size=(8, 8), resize=resize))
                if (resize != "shorter")
                else None
            )
            assert stored is None or Image.open(io.BytesIO(stored.data)).size == (
                stored.width, stored.height,
            )  # fmt: skip
