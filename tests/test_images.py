"""Images: the right pixels out of every kind of file, and a reason for every refusal."""

import io
import math
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from conftest import encode_image, make_environment, make_image
from hypothesis import given, settings
from hypothesis import strategies as st
from making import make_chunk
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from converter.errors import ImageError
from converter.image_options import MAX_PIXELS
from converter.images.conversion import check_image, convert_image
from converter.images.geometry import fit_image
from converter.inventory import REJECT_CODES
from converter.options import ENCODINGS, RESIZES, ConvertOptions

AS_IT_IS = ConvertOptions(resize="none", encoding="raw")
KEEP = ConvertOptions(resize="none", encoding="keep")

ORIENTATION = 0x0112
ANIMATED = {"save_all": True, "append_images": [make_image(2)]}


def read_pixels(data: bytes, options: ConvertOptions = AS_IT_IS) -> np.ndarray:
    """What `raw` stores, as uint8 of (height, width, 3)."""
    image = convert_image(data, options)
    return np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)


def resize_whole(data: bytes, options: ConvertOptions) -> np.ndarray:
    """What Pillow makes of an image that it decodes at its full size, and turns before all else."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    geometry = fit_image((image.height, image.width), options)
    top, left, height, width = geometry.crop
    image = image.crop((left, top, left + width, top + height))
    scaled = image.resize(geometry.scaled[::-1], Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", geometry.canvas[::-1])
    place = [(whole - part) // 2 for whole, part in zip(canvas.size, scaled.size, strict=True)]
    canvas.paste(scaled, tuple(place))
    return np.asarray(canvas)


def open_pixels(data: bytes) -> np.ndarray:
    """What Pillow sees in a stored image."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def find_code(data: bytes, options: ConvertOptions = AS_IT_IS) -> str | None:
    """The code that an image is refused with, or None."""
    try:
        convert_image(data, options)
    except ImageError as error:
        return error.code
    return None


def compute_psnr(one: np.ndarray, two: np.ndarray) -> float:
    error = np.mean((one.astype(float) - two) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def make_photo(height: int, width: int) -> Image.Image:
    """Large, with smooth shades, edges and fine texture, as a photograph has."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    shade = 90 + 60 * np.sin(x / 97) * np.cos(y / 71)
    edges = 50 * ((x // 160 + y // 110) % 2)
    texture = 12 * np.sin(x * 0.9) * np.sin(y * 1.3)
    bands = [shade + edges + texture, shade * 0.7 + edges, 220 - shade + texture]
    return Image.fromarray(np.stack(bands, axis=-1).clip(0, 255).astype(np.uint8))


def make_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


# Encodings


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_lossless_encodings_hold_exactly_the_pixels(encoding):
    source = encode_image(make_image(3, 31, 45), "PNG")
    for resize in RESIZES:
        options = ConvertOptions(image_size=(20, 20), resize=resize, encoding=encoding)
        stored = convert_image(source, options)
        expected = resize_whole(source, options)
        assert (stored.format, stored.channels) == (encoding, 3)
        assert (stored.height, stored.width) == expected.shape[:2]
        if encoding == "raw":
            assert stored.data == expected.tobytes()
        else:
            np.testing.assert_array_equal(open_pixels(stored.data), expected)


@pytest.mark.parametrize("encoding", ["jpeg", "webp"])
def test_lossy_encodings_hold_nearly_the_pixels(encoding):
    source = encode_image(make_photo(150, 200), "PNG")
    options = ConvertOptions(image_size=(75, 100), encoding=encoding)
    stored = convert_image(source, options)
    assert (stored.format, stored.height, stored.width) == (encoding, 75, 100)
    assert Image.open(io.BytesIO(stored.data)).format == encoding.upper()
    expected = resize_whole(source, options)
    assert compute_psnr(open_pixels(stored.data), expected) > 35


def test_quality_decides_the_size():
    source = encode_image(make_photo(150, 200), "PNG")
    for encoding in ("jpeg", "webp"):
        sizes = [
            len(convert_image(source, ConvertOptions(encoding=encoding, quality=quality)).data)
            for quality in (10, 50, 95)
        ]
        assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "AVIF"])
def test_every_format_is_read(file_format):
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    image = make_image(1, 16, 16)
    if file_format == "GIF":
        image = image.quantize(16)
    data = encode_image(image, file_format, **options.get(file_format, {}))
    expected = np.asarray(image.convert("RGB"))
    tolerance = 3 if file_format == "AVIF" else 0
    np.testing.assert_allclose(read_pixels(data), expected, rtol=0, atol=tolerance)


def test_the_same_image_gives_the_same_bytes():
    source = encode_image(make_photo(150, 200), "JPEG")
    for encoding in ENCODINGS:
        options = ConvertOptions(image_size=(50, 60), encoding=encoding)
        assert convert_image(source, options) == convert_image(source, options)


@pytest.mark.parametrize("encoding", ["jpeg", "png", "webp"])
def test_nothing_of_the_source_but_its_pixels_is_stored(encoding):
    exif = make_exif(1)
    exif[0x010E] = "secret"
    source = encode_image(
        make_image(1), "JPEG", exif=exif, icc_profile=b"secret", comment=b"secret"
    )
    stored = convert_image(source, ConvertOptions(encoding=encoding))
    assert b"secret" in source
    assert b"secret" not in stored.data
    assert set(Image.open(io.BytesIO(stored.data)).info) <= {
        "jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi",
        "loop", "background", "timestamp", "duration",
    }  # fmt: skip


# Keep


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_keep_copies_the_file_where_nothing_has_to_change(file_format):
    source = encode_image(make_image(1, 24, 32), file_format)
    for options in (KEEP, ConvertOptions(image_size=(24, 32), encoding="keep")):
        stored = convert_image(source, options)
        assert stored.data == source
        assert (stored.format, stored.height, stored.width) == (file_format.lower(), 24, 32)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (encode_image(make_image(1), "JPEG", exif=make_exif(6)), "jpeg"),
        (encode_image(make_image(1, mode="L"), "JPEG"), "jpeg"),
        (encode_image(make_image(1, mode="CMYK"), "JPEG"), "jpeg"),
        (encode_image(make_image(1, mode="RGBA"), "PNG"), "png"),
        (encode_image(make_image(1), "PNG", transparency=(0, 0, 0)), "png"),
        (encode_image(make_image(1), "GIF"), "png"),
        (encode_image(make_image(1), "BMP"), "png"),
        (encode_image(make_image(1), "MPO", **ANIMATED), "jpeg"),
        (encode_image(make_image(1), "WEBP", **ANIMATED), "webp"),
    ],
    ids=["exif", "grey", "cmyk", "alpha", "colour key", "gif", "bmp", "mpo", "animation"],
)
def test_keep_encodes_again_what_has_to_change(source, expected):
    stored = convert_image(source, KEEP)
    assert stored.data != source
    assert (stored.format, Image.open(io.BytesIO(stored.data)).mode) == (expected, "RGB")
    upright = read_pixels(source)
    assert (stored.height, stored.width) == upright.shape[:2]
    assert compute_psnr(open_pixels(stored.data), upright) > 30


def test_keep_encodes_again_where_the_size_changes():
    source = encode_image(make_image(1, 24, 32), "WEBP")
    stored = convert_image(source, ConvertOptions(image_size=(12, 16), encoding="keep"))
    assert (stored.format, stored.height, stored.width) == ("webp", 12, 16)
    assert Image.open(io.BytesIO(stored.data)).size == (16, 12)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_keep_never_copies_a_cut_file(file_format):
    source = encode_image(make_image(1, 12, 16), file_format)
    for size in range(len(source)):
        assert not is_copied(source[:size]), size


def is_copied(source: bytes) -> bool:
    """Whether `keep` stores these very bytes; what is not refused may be encoded again."""
    return find_code(source, KEEP) is None and convert_image(source, KEEP).data == source


def test_keep_never_copies_a_damaged_png():
    # A PNG has a checksum in every chunk, and TensorFlow refuses one that does not match.
    source = encode_image(make_image(1, 12, 16), "PNG")
    for bit in range(8 * len(source)):
        damaged = bytearray(source)
        damaged[bit // 8] ^= 1 << bit % 8
        assert not is_copied(bytes(damaged)), bit


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_side_that_not_every_encoding_can_hold_is_refused(encoding):
    source = encode_image(Image.new("RGB", (1, 20_000)), "JPEG")
    options = ConvertOptions(resize="none", encoding=encoding)
    with pytest.raises(ImageError, match=r"^too_large: 1x20000: a side is over 16383$"):
        convert_image(source, options)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_a_file_that_is_what_was_asked_for_is_copied_also_without_keep(file_format):
    encoding = file_format.lower()
    source = encode_image(make_image(1, 24, 32), file_format)
    options = ConvertOptions(image_size=(24, 32), encoding=encoding, quality=10)
    assert convert_image(source, options).data == source
    others = {
        "size": ConvertOptions(image_size=(24, 31), encoding=encoding),
        "encoding": ConvertOptions(
            image_size=(24, 32), encoding="png" if encoding != "png" else "jpeg"
        ),
    }
    for name, other in others.items():
        assert convert_image(source, other).data != source, name


@pytest.mark.parametrize(
    ("file_format", "metadata"),
    [
        ("JPEG", {"exif": make_exif(1)}),
        ("JPEG", {"comment": b"secret"}),
        ("JPEG", {"xmp": b"secret"}),
        ("PNG", {"exif": make_exif(1)}),
        ("PNG", {"pnginfo": PngInfo()}),
        ("WEBP", {"exif": make_exif(1)}),
        ("WEBP", {"xmp": b"secret"}),
    ],
)
def test_only_keep_copies_a_file_with_metadata(file_format, metadata):
    if "pnginfo" in metadata:
        metadata["pnginfo"].add_text("where", "secret")
    source = encode_image(make_image(1), file_format, **metadata)
    options = ConvertOptions(image_size=(24, 32), encoding=file_format.lower())
    assert convert_image(source, options).data != source
    assert convert_image(source, KEEP).data == source
    padded = encode_image(make_image(1), file_format) + bytes(9000)
    assert convert_image(padded, options).data != padded


def hide_in_jpeg(jpeg: bytes, marker: int, at: int) -> bytes:
    return jpeg[:at] + bytes((255, marker, 0, 8)) + b"secret" + jpeg[at:]


def hide_in_png(png: bytes, name: bytes) -> bytes:
    return png[:33] + make_chunk(name, b"secret") + png[33:]


JPEG, PROGRESSIVE = (encode_image(make_image(1), "JPEG", progressive=p) for p in (False, True))
PNG, WEBP = encode_image(make_image(1), "PNG"), encode_image(make_image(1), "WEBP")


@pytest.mark.parametrize(
    ("encoding", "source"),
    [
        ("jpeg", JPEG + encode_image(make_image(2), "JPEG", comment=b"secret")),
        ("jpeg", hide_in_jpeg(PROGRESSIVE, 0xE1, PROGRESSIVE.rindex(b"\xff\xda"))),
        ("jpeg", hide_in_jpeg(JPEG, 0xFE, len(JPEG) - 2)),
        ("jpeg", hide_in_jpeg(JPEG, 0xE0, 20)),
        ("png", PNG + b"secret" + PNG[-12:]),
        ("png", hide_in_png(PNG, b"hIST")),
        ("png", hide_in_png(PNG, b"eXIF")),
        ("webp", WEBP + b"EXIF\6\0\0\0secret"),
    ],
)
def test_what_is_hidden_out_of_sight_is_not_copied(encoding, source):
    assert b"secret" in source
    options = ConvertOptions(image_size=(24, 32), encoding=encoding)
    assert b"secret" not in convert_image(source, options).data


@pytest.mark.parametrize(
    ("color_mode", "source", "expected"),
    [
        ("grayscale", encode_image(make_image(1, mode="L"), "JPEG"), "copied"),
        ("grayscale", encode_image(make_image(1), "JPEG"), "jpeg"),
        ("grayscale", encode_image(make_image(1), "WEBP"), "png"),
        ("rgba", encode_image(make_image(1, mode="RGBA"), "PNG"), "copied"),
        ("rgba", encode_image(make_image(1), "JPEG"), "png"),
        ("rgba", encode_image(make_image(1, mode="RGBA"), "WEBP"), "png"),
    ],
)
def test_keep_gives_every_image_the_channels_asked_for(color_mode, source, expected):
    options = ConvertOptions(resize="none", encoding="keep", color_mode=color_mode)
    stored = convert_image(source, options)
    assert (stored.data == source) == (expected == "copied")
    assert expected in ("copied", stored.format)
    mode = {"grayscale": "L", "rgba": "RGBA"}[color_mode]
    assert Image.open(io.BytesIO(stored.data)).mode == mode
    assert stored.channels == len(mode)
    check_image(stored, decode=True)


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_turned_upright(file_format, orientation):
    options = {"lossless": True} if file_format == "WEBP" else {}
    source = encode_image(make_image(1), file_format, exif=make_exif(orientation), **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(source)))
    assert expected.size == ((32, 24) if orientation < 5 else (24, 32))
    np.testing.assert_array_equal(read_pixels(source), np.asarray(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_before_they_are_cropped_and_padded(orientation):
    source = encode_image(make_image(1, 24, 36), "JPEG", exif=make_exif(orientation))
    for resize in RESIZES:
        options = ConvertOptions(image_size=(16, 16), resize=resize, encoding="raw")
        expected = resize_whole(source, options)
        np.testing.assert_array_equal(read_pixels(source, options), expected)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_makes_no_sense_is_ignored(orientation):
    source = encode_image(make_image(1), "PNG", exif=make_exif(orientation))
    np.testing.assert_array_equal(read_pixels(source), np.asarray(make_image(1)))


def test_broken_exif_is_ignored():
    source = encode_image(make_image(1), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken")
    np.testing.assert_array_equal(read_pixels(source), np.asarray(make_image(1)))


# Colour


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_put_on_white(mode):
    image = make_image(1, mode=mode)
    pixels = np.asarray(image).astype(float)
    alpha = pixels[..., -1:] / 255
    expected = pixels[..., :-1] * alpha + 255 * (1 - alpha)
    expected = np.broadcast_to(expected, (24, 32, 3))
    found = read_pixels(encode_image(image, "PNG"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1)


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(file_format):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    source = encode_image(image, file_format, transparency=1)
    assert read_pixels(source).tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]


def test_half_transparent_palette_entries_are_blended():
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 100, 100, 100, 200, 200, 200])
    image.putdata([0, 1, 2])
    source = encode_image(image, "PNG", transparency=bytes([255, 0, 51]))
    assert read_pixels(source).tolist() == [[[0] * 3, [255] * 3, [244] * 3]]


@pytest.mark.parametrize(
    ("mode", "pixels", "key", "expected"),
    [
        ("RGB", [(1, 2, 3), (4, 5, 6)], (4, 5, 6), [[1, 2, 3], [255] * 3]),
        ("L", [7, 9], 9, [[7] * 3, [255] * 3]),
        ("1", [0, 1], 0, [[255] * 3, [255] * 3]),
    ],
)
def test_a_transparent_colour_is_white(mode, pixels, key, expected):
    image = Image.new(mode, (2, 1))
    image.putdata(pixels)
    assert read_pixels(encode_image(image, "PNG", transparency=key)).tolist() == [expected]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_a_ramp_of_16_bits_keeps_256_levels(file_format):
    ramp = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    pixels = read_pixels(encode_image(Image.fromarray(ramp), file_format)).reshape(-1, 3)
    grey = pixels[:, 0].astype(int)
    assert (pixels == pixels[:, :1]).all()
    assert np.unique(grey).tolist() == list(range(256))
    np.testing.assert_allclose(grey, ramp.ravel() / 257, rtol=0, atol=1)
    assert (grey[0], grey[-1]) == (0, 255)


def test_one_bit_is_black_and_white():
    image = Image.new("1", (3, 1))
    image.putdata([1, 0, 1])
    assert read_pixels(encode_image(image, "PNG")).tolist() == [[[255] * 3, [0] * 3, [255] * 3]]


def test_grey_has_three_equal_channels():
    image = make_image(5, mode="L")
    expected = np.repeat(np.asarray(image)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(read_pixels(encode_image(image, "PNG")), expected)


@pytest.mark.parametrize(
    ("ink", "expected"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 255, 0), (255, 0, 0)),
    ],
)
@pytest.mark.parametrize("file_format", ["TIFF", "JPEG"])
def test_printing_inks_become_colours(file_format, ink, expected):
    source = encode_image(Image.new("CMYK", (8, 8), ink), file_format)
    np.testing.assert_allclose(read_pixels(source), np.full((8, 8, 3), expected), rtol=0, atol=2)


def test_an_animation_is_its_first_frame():
    frames = [make_image(seed).quantize(16) for seed in (1, 2)]
    source = encode_image(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_pixels(source), np.asarray(frames[0].convert("RGB")))


# Sizes


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.integers(1, 40),
    st.sampled_from(RESIZES),
    st.sampled_from(["PNG", "JPEG"]),
    st.integers(1, 8),
)
def test_every_image_gets_the_size_of_its_geometry(size, side, resize, file_format, orientation):
    source = encode_image(Image.new("RGB", size[::-1]), file_format, exif=make_exif(orientation))
    options = ConvertOptions(image_size=(side, side), resize=resize, encoding="raw")
    upright = size if orientation < 5 else size[::-1]
    expected = fit_image(upright, options).canvas
    assert read_pixels(source, options).shape == (*expected, 3)


def test_padding_is_black_and_even_on_both_sides():
    source = encode_image(Image.new("RGB", (40, 20), "white"), "PNG")
    options = ConvertOptions(image_size=(30, 30), resize="pad", encoding="raw")
    pixels = read_pixels(source, options)
    assert [row.min() for row in pixels] == [0] * 7 + [255] * 15 + [0] * 8
    assert (pixels.min(axis=(1, 2)) == pixels.max(axis=(1, 2))).all()


def test_a_crop_keeps_the_middle():
    image = Image.new("RGB", (30, 10), "red")
    image.paste("lime", (10, 0, 20, 10))
    options = ConvertOptions(image_size=(5, 5), resize="crop", encoding="raw")
    pixels = read_pixels(encode_image(image, "PNG"), options)
    # Filters reach beyond the cut, so the outermost columns are only nearly of one colour.
    assert (pixels[:, 1:-1] == [0, 255, 0]).all()
    assert (pixels[:, :, 1] > 200).all()


def test_enlarging_may_have_an_interpolation_of_its_own():
    source = encode_image(make_image(1, 24, 32), "PNG")
    values = {"encoding": "raw", "interpolation": "box", "enlarge_interpolation": "nearest"}
    for side, used in ((12, Image.Resampling.BOX), (48, Image.Resampling.NEAREST)):
        stored = convert_image(source, ConvertOptions(image_size=(side, side), **values))
        assert stored.data == make_image(1, 24, 32).resize((side, side), used).tobytes()


def test_the_interpolation_asked_for_is_used():
    source = encode_image(make_photo(40, 60), "PNG")
    found = {
        name: convert_image(
            source, ConvertOptions(image_size=(13, 17), encoding="raw", interpolation=name)
        ).data
        for name in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
    }
    assert len(set(found.values())) == 6
    resized = make_photo(40, 60).resize((17, 13), Image.Resampling.BICUBIC)
    assert found["bicubic"] == resized.tobytes()


# Drafts


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad", "shorter", "longer"])
def test_a_draft_is_nearly_a_full_decode(resize, orientation):
    source = encode_image(make_photo(1500, 2000), "JPEG", quality=92, exif=make_exif(orientation))
    options = ConvertOptions(image_size=(224, 224), resize=resize, encoding="raw")
    draft, full = read_pixels(source, options), resize_whole(source, options)
    assert 38 <= compute_psnr(draft, full) < math.inf


@pytest.mark.parametrize(("orientation", "size"), [(1, (200, 100)), (6, (100, 200))])
def test_no_draft_has_less_than_twice_the_size_asked_for(orientation, size):
    # Half of the 500 rows in the file would be less than twice 200.
    source = encode_image(make_photo(500, 2000), "JPEG", exif=make_exif(orientation))
    options = ConvertOptions(image_size=size, encoding="raw")
    full = resize_whole(source, options)
    np.testing.assert_array_equal(read_pixels(source, options), full)


def test_without_a_change_of_size_there_is_no_draft():
    source = encode_image(make_photo(300, 400), "JPEG")
    np.testing.assert_array_equal(read_pixels(source), open_pixels(source))


# Refusals


def test_no_bytes_are_no_image():
    with pytest.raises(ImageError, match=r"^empty: "):
        convert_image(b"", AS_IT_IS)


@pytest.mark.parametrize(
    "data",
    [
        b"no image at all",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7\n",
        encode_image(make_image(1), "TGA"),
        encode_image(make_image(1), "EPS"),
    ],
    ids=["text", "svg", "pdf", "tga", "eps"],
)
def test_other_content_is_not_an_image(data):
    with pytest.raises(ImageError) as caught:
        convert_image(data, AS_IT_IS)
    assert (caught.value.code, caught.value.detail) == (
        "not_an_image", f"begins with {data[:8]!r}"
    )  # fmt: skip


def test_postscript_starts_no_process():
    # Pillow would hand it to Ghostscript.
    script = """
import sys
from converter.errors import ImageError
from converter.images.conversion import convert_image
from converter.options import ConvertOptions
def refuse(event, args):
    if event.startswith(("subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system")):
        print(event, args)
sys.addaudithook(refuse)
try:
    convert_image(sys.stdin.buffer.read(), ConvertOptions())
except ImageError as error:
    print(error.code)
"""
    printed = subprocess.run(
        [sys.executable, "-c", script],
        input=encode_image(make_image(1), "EPS"),
        env=make_environment(),
        check=True,
        capture_output=True,
    ).stdout
    assert printed == b"not_an_image\n"


def claim_size(file_format: str, width: int, height: int) -> bytes:
    """A small image whose header claims another size."""
    data = bytearray(encode_image(make_image(1), file_format))
    match file_format:
        case "PNG":
            data[16:24] = struct.pack(">II", width, height)
            data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        case "GIF":
            data[6:10] = struct.pack("<HH", width, height)
        case "BMP":
            data[18:26] = struct.pack("<ii", width, height)
        case "JPEG":
            start = data.index(b"\xff\xc0") + 5
            data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    ("file_format", "width", "height"),
    [
        ("PNG", 100_000, 100_000),
        ("PNG", 2**31 - 1, 2**31 - 1),
        ("PNG", MAX_PIXELS + 1, 1),
        ("GIF", 65_535, 65_535),
        ("BMP", 100_000, 100_000),
        ("JPEG", 65_500, 65_500),
    ],
)
def test_a_bomb_is_refused_by_its_header(file_format, width, height):
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"^too_large: .*\d"):
        convert_image(claim_size(file_format, width, height), ConvertOptions())
    assert time.monotonic() - start < 1


def test_a_bomb_is_refused_also_where_the_limit_of_pillow_is_lifted(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match=r"^too_large: 100000x100000 pixels, at most 89,478,485$"):
        convert_image(claim_size("PNG", 100_000, 100_000), ConvertOptions())


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_cut_file_is_refused_or_has_all_its_pixels(file_format):
    source = encode_image(make_image(1, 12, 16), file_format)
    whole = read_pixels(source)
    for size in range(len(source)):
        code = find_code(source[:size])
        assert code is None or code in REJECT_CODES
        if code is None:
            # What is missing is a trailer of a few bytes, behind the last pixel.
            assert len(source) - size <= 20
            np.testing.assert_array_equal(read_pixels(source[:size]), whole)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_damaged_file_is_refused_with_a_known_code_or_read(file_format):
    source = encode_image(make_image(1, 6, 8), file_format)
    options = ConvertOptions(image_size=(6, 8))
    for position in range(len(source)):
        damaged = bytearray(source)
        damaged[position] ^= 1 << position % 8
        assert find_code(bytes(damaged), options) in {None, *REJECT_CODES}


def test_too_little_memory_is_no_reason_to_reject_an_image():
    # The image is valid, so a machine with more memory would store it.
    script = """
import resource, sys
from converter.images.conversion import convert_image
from converter.options import ConvertOptions
data = sys.stdin.buffer.read()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000,) * 2)
try:
    convert_image(data, ConvertOptions(image_size=(8, 8)))
except MemoryError:
    print("MemoryError")
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        input=encode_image(Image.new("L", (6000, 6000)), "PNG"),
        env=make_environment(),
        check=False,
        capture_output=True,
    )
    assert (ended.stdout, ended.stderr) == (b"MemoryError\n", b"")


@pytest.mark.parametrize("filters", ["default", "error"])
def test_warnings_of_the_decoder_neither_show_nor_decide(filters):
    # An APP2 segment that only begins like that of an MPO: Pillow warns and reads on as JPEG.
    image = encode_image(make_image(1), "JPEG")
    source = image[:2] + b"\xff\xe2\x00\x10MPF\0MM\0*\0\0\0\x08\0\0" + image[2:]
    script = """
import sys
from converter.images.conversion import convert_image
from converter.options import ConvertOptions
print(convert_image(sys.stdin.buffer.read(), ConvertOptions(resize="none")).width)
"""
    ended = subprocess.run(
        [sys.executable, "-W", filters, "-c", script],
        input=source,
        env=make_environment(),
        check=False,
        capture_output=True,
    )
    assert (ended.stdout, ended.stderr) == (b"32\n", b"")


def test_real_photographs_are_converted(shared_images):
    paths = sorted((shared_images / "photos").rglob("*.jpg"))[:20]
    assert paths
    for path in paths:
        stored = convert_image(path.read_bytes(), ConvertOptions(image_size=(64, 64)))
        assert open_pixels(stored.data).shape == (64, 64, 3)
