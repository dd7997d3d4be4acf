"""Formats: which ones are read, by content, and that no other reader of Pillow is in reach."""

import subprocess
import sys

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
    message = f"^other_format: {saved.lower()}, which is not among the formats asked for$"
    with pytest.raises(ImageError, match=message):
        convert_image(data, options)


def test_several_pictures_in_a_jpeg_are_a_format_of_their_own():
    data = encode_image(make_image(1), "MPO", save_all=True, append_images=[make_image(2)])
    assert find_code(data, "mpo") is None
    assert find_code(data, "jpeg") == "other_format"
    assert find_code(encode_image(make_image(1), "JPEG"), "jpeg") is None


def test_the_content_decides_and_not_the_name():
    # Nobody tells the converter a name.
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
    with pytest.raises(UsageError, match=r"^format heif cannot be read here: .* shardmill\[heif\]"):
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
