"""Decoders without TensorFlow: every pixel is TensorFlow's, or the image is refused.

`decode` decodes each image into two buffers of different content, so that none of it can remain,
and makes sure that there are no warnings. All flipped bits are tried if the environment has
SHARDMILL_EXHAUSTIVE, otherwise one of each byte.
"""

import functools
import io
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
from conftest import convert_folder, encode_image, make_image, write_image
from damaging import EXHAUSTIVE, MAX_GROWTH_MB, note_growth, run_apart
from making import HOSTILE, list_hostile, make_chunk, make_images
from PIL import Image

from converter import ConvertOptions, UsageError
from converter.format.manifest import ImageInfo
from reader import load_dataset, open_shards
from reader.batches.decoders import Decoder, Task, make_decoder, make_mask_decoder
from reader.examples.image_headers import measure_image
from reader.plan.choices import ImagePlan
from reader.plan.read_options import COLOR_CHANNELS, ReadOptions

SIZES = [(1, 1), (1, 9), (7, 1), (8, 8), (16, 16), (17, 33), (15, 31), (3, 50), (64, 5)]

MAX_PIXELS = 1 << 16
"""More are refused, as the engine refuses what the manifest does not allow."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}

needs_hostile = pytest.mark.skipif(not HOSTILE.is_dir(), reason=f"no hostile images at {HOSTILE}")


def plan(formats: Iterable[str], channels: int, color_mode: str = "rgb", **more) -> ImagePlan:
    """Images of so many stored channels, of any size, that are given in a color mode."""
    stored = {"height": None, "width": None, "max_height": 4096, "max_width": 4096}
    image = ImageInfo(channels=channels, formats=dict.fromkeys(formats, 1), **stored | more)
    return ImagePlan(stored=image, options=ReadOptions(batch_size=None, color_mode=color_mode))


@functools.cache
def find_decoder(channels: int, color_mode: str) -> Decoder:
    return make_decoder(plan(["jpeg"], channels, color_mode))


def decode(data: bytes, channels: int = 3, color_mode: str = "rgb", limit: int = MAX_PIXELS):
    """The pixels of an image of so many stored channels, or what is said to be wrong with it."""
    try:
        size = measure_image(memoryview(data))
    except ValueError as error:
        return str(error)
    if not 0 < size[0] * size[1] <= limit:
        return f"an image of {size}"
    rows = [np.full((*size, COLOR_CHANNELS[color_mode]), fill, np.uint8) for fill in (3, 250)]
    encoded = np.frombuffer(data, np.uint8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tasks = [Task(encoded, size, 0, row) for row in rows]
        problems = find_decoder(channels, color_mode)(tasks)
    assert not caught, "there is a warning"
    assert problems[0] == problems[1]
    if problems[0] is None:
        np.testing.assert_array_equal(*rows, err_msg="something of the buffer is left")
    return problems[0] or rows[0]


def ask_tensorflow(data: bytes, channels: int = 3) -> np.ndarray | None:
    """The pixels that TensorFlow sees, or None where it refuses an image."""
    tf = pytest.importorskip("tensorflow")
    try:
        if data.startswith(b"\xff"):
            return tf.io.decode_jpeg(data, channels, dct_method="INTEGER_ACCURATE").numpy()
        if data.startswith(b"\x89"):
            return tf.io.decode_png(data, channels).numpy()
        return tf.io.decode_image(data, channels, expand_animations=False).numpy()
    except tf.errors.OpError:
        return None


def ask_pillow(data: bytes, mode: str) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        image.draft(mode, None)
        return np.asarray(image.convert(mode)).reshape(image.height, image.width, len(mode))


def sweep(
    cases: Iterable[bytes], channels: int, color_mode: str = "rgb", *, guessed: bool = False
) -> tuple[int, int]:
    """Makes sure that each image is refused, or has the pixels that TensorFlow sees.

    Args:
        cases: images, most of them damaged.
        channels: that are stored.
        color_mode: that is asked for.
        guessed: whether they are progressive JPEGs: where scans are lacking, another libjpeg
            guesses other pixels, but Pillow's guesses the same.

    Returns:
        how many have, and how many more TensorFlow takes.
    """
    taken = refused = 0
    for number, data in enumerate(cases):
        found = decode(data, channels, color_mode)
        expected = ask_tensorflow(data, COLOR_CHANNELS[color_mode])
        if isinstance(found, str):
            refused += expected is not None
        else:
            assert expected is not None, f"case {number}, which TensorFlow refuses"
            if guessed and not np.array_equal(found, expected):
                expected = ask_pillow(data, MODES[COLOR_CHANNELS[color_mode]])
            np.testing.assert_array_equal(found, expected, err_msg=f"case {number}", strict=True)
            taken += 1
    return taken, refused


def list_prefixes(data: bytes) -> Iterator[bytes]:
    return (data[:length] for length in range(len(data)))


def list_flips(data: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(data)):
        if EXHAUSTIVE or bit % 8 == bit // 8 % 8:
            flipped = bytes([data[bit // 8] ^ 1 << bit % 8])
            yield data[: bit // 8] + flipped + data[bit // 8 + 1 :]


def leave_a_row(tasks: list[Task]) -> list[str | None]:
    """A planted bug: the last row stays as it was."""
    for task in tasks:
        task.row[:-1] = 5
    return [None] * len(tasks)


def take_half(tasks: list[Task]) -> list[str | None]:
    """A planted bug: what is refused once is not the next time."""
    return ["refused" if number else None for number in range(len(tasks))]


def warn(tasks: list[Task]) -> list[str | None]:
    """A planted bug: a warning."""
    warnings.warn("odd", stacklevel=1)
    return ["refused"] * len(tasks)


@pytest.mark.parametrize("plant", [leave_a_row, take_half, warn])
def test_it_would_be_noticed_if_something_stayed_in_a_buffer_or_a_warning_came(plant, monkeypatch):
    monkeypatch.setitem(globals(), "find_decoder", lambda channels, mode: plant)
    with pytest.raises(AssertionError):
        decode(encode_image(make_image(1)))


# JPEG


def find_scan(jpeg: bytes) -> int:
    """Where the first scan's pixels begin."""
    begin = jpeg.index(b"\xff\xda")
    return begin + 2 + int.from_bytes(jpeg[begin + 2 : begin + 4], "big")


def encode_sampled(size: tuple[int, int], sampling: str) -> bytes:
    """A JPEG of a sampling that Pillow does not write."""
    return simplejpeg.encode_jpeg(np.asarray(make_image(3, *size)), 90, "RGB", sampling, False)


JPEG_KINDS = {
    "4:4:4": lambda size: encode_image(make_image(1, *size), subsampling="4:4:4"),
    "4:2:2": lambda size: encode_image(make_image(2, *size), subsampling="4:2:2"),
    "4:2:0": lambda size: encode_image(make_image(3, *size), subsampling="4:2:0", quality=95),
    "4:1:1": lambda size: encode_sampled(size, "411"),
    "4:4:0": lambda size: encode_sampled(size, "440"),
    "gray": lambda size: encode_image(make_image(4, *size, "L")),
    "not of YCbCr": lambda size: encode_image(make_image(5, *size), keep_rgb=True),
    "progressive": lambda size: encode_image(make_image(6, *size), progressive=True),
    "progressive, gray": lambda size: encode_image(make_image(7, *size, "L"), progressive=True),
    "restart markers": lambda size: encode_image(make_image(8, *size), restart_marker_blocks=1),
    "tables of its own": lambda size: encode_image(make_image(9, *size), optimize=True, quality=40),
}


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("color_mode", ["rgb", "grayscale"])
def test_pixels_of_a_jpeg_are_those_of_tensorflow_and_of_pillow(kind, color_mode):
    channels = COLOR_CHANNELS[color_mode]
    for size in SIZES:
        data = JPEG_KINDS[kind](size)
        for stored in {1, channels} if "gray" in kind else {3}:
            found = decode(data, stored, color_mode)
            np.testing.assert_array_equal(found, ask_tensorflow(data, channels), strict=True)
            np.testing.assert_array_equal(found, ask_pillow(data, MODES[channels]), strict=True)


def make_odd_jpegs() -> dict[str, bytes]:
    """What libjpeg warns of, or simplejpeg has no name for, and everybody else takes."""
    plain = encode_image(make_image(1, 17, 21), optimize=True)
    tables = plain.index(b"\xff\xc4")
    version = plain.index(b"JFIF\0") + 5
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x09"
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02\1\x1a\0\5\0\0\xff\xff\0\0\xff\xff\1\x28"
    # Two units of a pixel each of three channels have as many blocks as one with four of one.
    sampled = bytearray(encode_image(make_image(2, 8, 16), keep_rgb=True))
    frame = sampled.index(b"\xff\xc0")
    sampled[frame + 5 : frame + 9] = struct.pack(">HH", 8, 32)
    sampled[frame + 14] = 0x41
    return {
        "of a version to come": plain[:version] + b"\7" + plain[version + 1 :],
        "bytes between segments": plain[:tables] + b"abc" + plain[tables:],
        "of an unknown transform": plain[:2] + adobe + plain[20:],
        "sampled without a name": bytes(sampled),
        "with a broken EXIF": plain[:2] + adobe + b"\xff\xe1"
        + struct.pack(">H", 2 + len(exif)) + exif + plain[20:],
    }  # fmt: skip


ODD_JPEGS = make_odd_jpegs()


@pytest.mark.parametrize("name", ODD_JPEGS)
@pytest.mark.parametrize("color_mode", ["rgb", "grayscale"])
def test_what_libjpeg_only_warns_of_is_decoded_without_a_warning(name, color_mode):
    data, channels = ODD_JPEGS[name], COLOR_CHANNELS[color_mode]
    with pytest.raises(ValueError, match=r"Corrupt|Warning|Unknown|Could not determine"):
        simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False)
    np.testing.assert_array_equal(
        decode(data, 3, color_mode), ask_tensorflow(data, channels), strict=True
    )
    taken, _ = sweep(list_prefixes(data), 3, color_mode)
    assert taken == 0


SWEPT = {kind: make((17, 21)) for kind, make in JPEG_KINDS.items()} | ODD_JPEGS
del SWEPT["sampled without a name"]
"""Simplejpeg cannot tell whether it is whole."""


@pytest.mark.parametrize("kind", SWEPT)
def test_a_jpeg_of_any_prefix_or_flip_is_refused_or_has_the_pixels_of_tensorflow(kind):
    data, stored = SWEPT[kind], 1 if "gray" in kind else 3
    color_mode = "grayscale" if kind in ("4:2:2", "progressive, gray") else "rgb"
    assert sweep(list_prefixes(data), stored, color_mode) == (0, 0)
    guessed = "progressive" in kind
    taken, refused = sweep(list_flips(data), stored, color_mode, guessed=guessed)
    assert taken > len(data) / 4
    assert refused < taken / 20


@pytest.mark.parametrize(
    "marker", [b"\xff\xe0", b"\xff\xd9", b"\xff\xd3", b"\xff\xc4", b"\xff\xc8"]
)
@pytest.mark.parametrize("kind", ["4:4:4", "progressive", "restart markers", "gray"])
def test_so_is_one_with_a_marker_within_its_scan(kind, marker):
    data, stored = SWEPT[kind], 1 if "gray" in kind else 3
    places = range(find_scan(data), len(data) - 2, 1 if EXHAUSTIVE else 5)
    guessed = kind == "progressive"
    sweep((data[:place] + marker + data[place + 2 :] for place in places), stored, guessed=guessed)
    sweep((data[:place] + marker for place in places), stored, guessed=guessed)


@pytest.mark.parametrize("kind", SWEPT)
def test_a_jpeg_whose_header_is_right_and_whose_scan_is_cut_off_gives_an_error(kind):
    data, stored = SWEPT[kind], 1 if "gray" in kind else 3
    for length in range(find_scan(data), len(data)):
        assert measure_image(memoryview(data[:length])) == (17, 21)
        assert isinstance(decode(data[:length], stored), str), length


def test_neither_is_it_overlooked_behind_a_warning():
    data = SWEPT["4:4:4"]
    scan = find_scan(data)
    for place in range(scan, len(data) - 40, 7):
        for change in (b"\xff\xff\xff", b"\xff\xe0\xff", b"\xff\xfe\0\x10"):
            spoiled = data[:place] + change + data[place + len(change) :]
            for length in (place + 10, len(data) - 20, len(data) - 2):
                assert isinstance(decode(spoiled[:length]), str), (place, change, length)


# PNG


def filter_rows(pixels: np.ndarray, kind: int) -> bytes:
    """The rows of an image, filtered as PNG has it (W3C, 9.2)."""
    height, width, channels = pixels.shape
    around = np.zeros((height + 1, width + 1, channels), np.int64)
    around[1:, 1:] = pixels
    left, above, corner = around[1:, :-1], around[:-1, 1:], around[:-1, :-1]
    guess = left + above - corner
    steps = [np.abs(guess - value) for value in (left, above, corner)]
    nearest = np.where(steps[1] <= steps[2], above, corner)
    nearest = np.where((steps[0] <= steps[1]) & (steps[0] <= steps[2]), left, nearest)
    taken = (np.zeros_like(left), left, above, (left + above) // 2, nearest)[kind]
    rows = (around[1:, 1:] - taken).astype(np.uint8).reshape(height, -1)
    return b"".join(bytes([kind]) + row.tobytes() for row in rows)


def make_png(
    pixels: np.ndarray, kind: int = 0, *chunks: bytes, packed: bytes | None = None
) -> bytes:
    """A PNG of 8 bits a sample, with chunks before its pixels, or with other pixels."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    packed = zlib.compress(filter_rows(pixels, kind)) if packed is None else packed
    parts = [make_chunk(b"IHDR", header), *chunks, make_chunk(b"IDAT", packed)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + make_chunk(b"IEND", b"")


def draw(size: tuple[int, int], channels: int) -> np.ndarray:
    return np.asarray(make_image(5, *size, MODES[channels])).reshape(*size, channels)


@pytest.mark.parametrize("channels", MODES)
@pytest.mark.parametrize("kind", range(5))
def test_pixels_of_a_png_are_those_that_were_stored(channels, kind):
    for size in SIZES:
        pixels = draw(size, channels)
        for data in (
            make_png(pixels, kind),
            encode_image(Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels), "PNG"),
        ):
            mode = {1: "grayscale", 3: "rgb", 4: "rgba"}[channels]
            found = decode(data, channels, mode)
            np.testing.assert_array_equal(found, pixels, strict=True)
            np.testing.assert_array_equal(found, ask_tensorflow(data, channels), strict=True)


@pytest.mark.parametrize(("channels", "mode"), [(1, "grayscale"), (3, "rgb"), (4, "rgba")])
def test_a_png_of_any_prefix_or_flip_is_refused_or_has_the_pixels_of_tensorflow(channels, mode):
    for data in (make_png(draw((5, 7), channels), 4), make_png(draw((1, 1), channels))):
        texts = make_chunk(b"tEXt", b"a\0text"), make_chunk(b"gAMA", struct.pack(">I", 45_455))
        more = data[:33] + b"".join(texts) + data[33:]
        for swept in (data, more):
            assert sweep(list_prefixes(swept), channels, mode) == (0, 0)
            taken, refused = sweep(list_flips(swept), channels, mode)
            assert refused == 0
            assert taken > 0 or swept is data


def squeeze(data: bytes) -> bytes:
    return zlib.compress(data, 9)


def make_odd_pngs() -> dict[str, tuple[bytes, bool]]:
    """PNGs whose checksums are right, and whether they are decoded."""
    pixels = draw((8, 6), 3)
    make = functools.partial(make_png, pixels, 0)
    rows = filter_rows(pixels, 0)
    packed, row = zlib.compress(rows), len(rows) // 8
    halves = make_chunk(b"IDAT", packed[: len(packed) // 2]) + make_chunk(b"tEXt", b"a\0b")
    plain = make()
    frame = struct.pack(">IIIIIHHBB", 0, 3, 3, 1, 1, 1, 1, 0, 0)
    second = make_chunk(b"IHDR", struct.pack(">IIBBBBB", 5000, 5000, 8, 2, 0, 0, 0))
    texts = b"".join(
        make_chunk(b"zTXt", b"%d\0\0" % n + squeeze(bytes(1 << 20))) for n in range(70)
    )
    color = b"".join(struct.pack(">H", value) for value in pixels[3, 3].tolist())
    return {
        "fewer rows": (make(packed=zlib.compress(rows[:-row])), False),
        "one row": (make(packed=zlib.compress(rows[:row])), False),
        "half a row": (make(packed=zlib.compress(rows[: row // 2])), False),
        "no rows": (make(packed=zlib.compress(b"")), False),
        "no pixels": (make(packed=b""), False),
        "more rows": (make(packed=zlib.compress(2 * rows)), True),
        "a gigabyte of rows": (make(packed=squeeze(rows + bytes(1 << 28))), True),
        "another checksum of its rows": (make(packed=packed[:-4] + b"abcd"), False),
        "cut off rows": (make(packed=packed[: len(packed) // 2]), False),
        "a filter that is none": (make(packed=zlib.compress(b"\x09" + rows[1:])), False),
        "not packed": (make(packed=rows), False),
        "pixels in two places": (make(halves, packed=packed[len(packed) // 2 :]), False),
        "a chunk that has to be known": (make(make_chunk(b"CgBI", bytes(4))), False),
        "two headers": (make(second), False),
        "frames of none": (make(make_chunk(b"acTL", bytes(8))), True),
        "frames twice": (make(*[make_chunk(b"acTL", struct.pack(">II", 2, 0))] * 2), True),
        "a frame of part of it": (
            make(make_chunk(b"acTL", struct.pack(">II", 2, 0)), make_chunk(b"fcTL", frame)), True,
        ),
        "a profile of nonsense": (make(make_chunk(b"iCCP", b"x\0\1abc")), True),
        "a broken EXIF": (make(make_chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff\xff")), True),
        "texts of 70 MB": (make(texts), True),
        "a color that is clear": (make(make_chunk(b"tRNS", color)), True),
        "bytes behind its end": (plain + bytes(1000), True),
        "many small chunks": (make(make_chunk(b"tEXt", b"a\0b") * 10_000), True),
    }  # fmt: skip


ODD_PNGS = make_odd_pngs()


@pytest.mark.parametrize("name", ODD_PNGS)
def test_an_odd_png_is_refused_or_has_the_pixels_of_tensorflow(name):
    data, is_decoded = ODD_PNGS[name]
    begun = time.process_time()
    found = decode(data)
    assert time.process_time() - begun < 3
    if is_decoded:
        np.testing.assert_array_equal(found, draw((8, 6), 3), strict=True)
        np.testing.assert_array_equal(found, ask_tensorflow(data), strict=True)
    else:
        assert isinstance(found, str)
        assert ask_tensorflow(data) is None


def test_a_black_png_is_not_taken_for_one_without_rows():
    for height, width in ((1, 1), (8, 6), (50, 900)):
        black = np.zeros((height, width, 3), np.uint8)
        np.testing.assert_array_equal(decode(make_png(black)), black, strict=True)
        rows = filter_rows(black, 0)
        packed = zlib.compress(rows)
        for broken in (zlib.compress(rows[:-1]), packed[:-4] + b"abcd", packed[:-4], packed[:-6]):
            found = decode(make_png(black, packed=broken))
            assert isinstance(found, str) or not found.any()
        fewer = zlib.compress(rows[: len(rows) // height * (height - 1)])
        assert isinstance(decode(make_png(black, packed=fewer)), str)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_levels_of_transparency_of_a_palette_do_not_warn(channels):
    image = make_image(1).quantize(7)
    data = encode_image(image, "PNG", transparency=bytes([0, 50, 100, 150, 200, 250, 255]))
    mode = {1: "grayscale", 3: "rgb", 4: "rgba"}[channels]
    found = decode(data, channels, mode)
    assert found.shape == (24, 32, channels)
    if channels > 1:
        np.testing.assert_array_equal(found, ask_tensorflow(data, channels), strict=True)


def test_an_interlaced_png_that_lacks_a_pass_is_refused():
    # Of 1x1 to 8x8 pixels, each with its own number of passes: whole, and without the last byte.
    for height in range(1, 9):
        for width in range(1, 9):
            rows = interlace(draw((height, width), 3))
            header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
            start = b"\x89PNG\r\n\x1a\n" + make_chunk(b"IHDR", header)
            end = make_chunk(b"IEND", b"")
            whole = start + make_chunk(b"IDAT", zlib.compress(b"".join(rows))) + end
            np.testing.assert_array_equal(decode(whole), draw((height, width), 3), strict=True)
            np.testing.assert_array_equal(decode(whole), ask_tensorflow(whole), strict=True)
            for count in range(len(rows)):
                packed = zlib.compress(b"".join(rows[:count]))
                assert isinstance(decode(start + make_chunk(b"IDAT", packed) + end), str)


def interlace(pixels: np.ndarray) -> list[bytes]:
    """The rows of all passes (W3C, 8.2)."""
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1)]  # fmt: skip
    passes = [pixels[top::down, left::right] for top, left, down, right in starts]
    return [b"\0" + row.tobytes() for part in passes if part.size for row in part]


# WebP


@pytest.mark.parametrize("options", [{"quality": 70}, {"lossless": True}], ids=str)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_of_a_webp_are_those_of_tensorflow_and_of_pillow(mode, options):
    for size in SIZES:
        data = encode_image(make_image(6, *size, mode), "WEBP", **options)
        found = decode(data)
        np.testing.assert_array_equal(found, ask_tensorflow(data), strict=True)
        np.testing.assert_array_equal(found, ask_pillow(data, "RGB"), strict=True)
        if "lossless" in options:
            np.testing.assert_array_equal(
                found, np.asarray(make_image(6, *size, mode).convert("RGB"))
            )


@pytest.mark.parametrize("options", [{"quality": 70}, {"lossless": True}], ids=str)
def test_a_webp_with_alpha_where_none_is_stored_is_refused_as_by_tensorflow(options):
    data = encode_image(make_image(6, 17, 21, "RGBA"), "WEBP", **options)
    assert decode(data) == "a WebP of mode RGBA, expected RGB"
    assert ask_tensorflow(data) is None
    assert decode(data, 4, "rgba").shape == (17, 21, 4)


@pytest.mark.parametrize("options", [{"quality": 70}, {"lossless": True}], ids=str)
@pytest.mark.parametrize("size", [(5, 7), (17, 21)])
def test_a_webp_of_any_prefix_or_flip_is_refused_or_has_the_pixels_of_tensorflow(size, options):
    data = encode_image(make_image(6, *size), "WEBP", **options)
    assert sweep(list_prefixes(data), 3) == (0, 0)
    taken, refused = sweep(list_flips(data), 3)
    assert taken > 0
    assert refused < taken / 20 + 2


# Files of others


def is_stored_so(data: bytes, channels: int) -> bool:
    """Whether a data set can hold an image: 8 bits of gray, color, or color with alpha."""
    if data.startswith(b"\x89PNG"):
        return (data[24], data[25]) == (8, {1: 0, 3: 2, 4: 6}[channels]) and b"tRNS" not in data
    with Image.open(io.BytesIO(data)) as image:
        return image.mode == MODES[channels] and not getattr(image, "is_animated", False)


def judge_files(files: Iterable[tuple[str, bytes]]) -> tuple[int, int]:
    """Decodes files to any number of channels; says how many could be, and are TensorFlow's."""
    decoded = alike = 0
    for name, data in files:
        for channels, mode in ((1, "grayscale"), (3, "rgb"), (4, "rgba")):
            found = decode(data, channels, mode, limit=1_000_000)
            if isinstance(found, str):
                continue
            assert found.shape == (*measure_image(memoryview(data)), channels), name
            decoded += 1
            if is_stored_so(data, channels):
                expected = ask_tensorflow(data, channels)
                np.testing.assert_array_equal(found, expected, err_msg=name, strict=True)
                alike += 1
    return decoded, alike


def test_images_of_every_odd_kind_are_refused_or_have_their_shape():
    decoded, alike = judge_files(make_images())
    assert decoded > 100
    assert alike > 30


@needs_hostile
def test_files_of_others_are_refused_or_have_their_shape():
    decoded, alike = judge_files(list_hostile())
    assert decoded > 400
    assert alike > 40


@needs_hostile
def test_files_of_others_take_neither_much_memory_nor_time():
    said, grown = run_apart(note_growth, decode_all, limit_s=60)
    assert said == "gives False"
    assert int(grown) <= MAX_GROWTH_MB


def decode_all() -> bool:
    """Decodes them; whether that has loaded TensorFlow."""
    for _, data in list_hostile():
        decode(data, limit=1_000_000)
    return "tensorflow" in sys.modules


# What stands around the pixels


STORED = [
    ("jpeg", 1), ("jpeg", 3), ("png", 1), ("png", 3), ("png", 4), ("webp", 3),
    ("raw", 1), ("raw", 3), ("raw", 4),
]  # fmt: skip


def encode_stored(image_format: str, channels: int, size: tuple[int, int] = (17, 21)) -> bytes:
    image = make_image(8, *size, MODES[channels])
    return image.tobytes() if image_format == "raw" else encode_image(image, image_format.upper())


def list_modes(image_format: str, channels: int) -> list[str]:
    """The color modes that take no computing."""
    grays = channels == 1 or image_format == "jpeg"
    return ["rgb", "rgba"] + ["grayscale"] * grays


@pytest.mark.parametrize(("image_format", "channels"), STORED)
def test_rows_of_any_layout_and_type_hold_the_same_values(image_format, channels):
    data = np.frombuffer(encode_stored(image_format, channels), np.uint8)
    for mode in list_modes(image_format, channels):
        decoder = make_decoder(plan([image_format], channels, mode))
        plain = np.zeros((17, 21, COLOR_CHANNELS[mode]), np.uint8)
        assert decoder([Task(data, (17, 21), 0, plain)]) == [None]
        assert len(np.unique(plain)) > 20
        for dtype in ("uint8", "float32"):
            for shape, is_first in ((plain.shape, False), ((plain.shape[2], 17, 21), True)):
                for step in (1, -1):
                    batch = np.full((3, *shape), 77, dtype)
                    row = np.moveaxis(batch[1], 0, -1) if is_first else batch[1]
                    assert decoder([Task(data, (17, 21), 0, row[:, ::step])]) == [None]
                    np.testing.assert_array_equal(row[:, ::step], plain)
                    assert (batch[[0, 2]] == 77).all(), "its neighbours are written to"


@pytest.mark.parametrize(("image_format", "channels"), STORED)
def test_channels_are_made_of_others_without_computing(image_format, channels):
    data = np.frombuffer(encode_stored(image_format, channels), np.uint8)
    found = {}
    for mode in list_modes(image_format, channels):
        found[mode] = np.full((17, 21, COLOR_CHANNELS[mode]), 77, np.uint8)
        decoder = make_decoder(plan([image_format], channels, mode))
        assert decoder([Task(data, (17, 21), 0, found[mode])]) == [None]
    stored = np.asarray(make_image(8, 17, 21, MODES[channels])).reshape(17, 21, channels)
    if image_format not in ("png", "raw"):
        stored = ask_pillow(data.tobytes(), MODES[channels])
    colors = np.repeat(stored, 3, axis=2) if channels == 1 else stored[..., :3]
    np.testing.assert_array_equal(found["rgb"], colors)
    np.testing.assert_array_equal(found["rgba"][..., :3], colors)
    np.testing.assert_array_equal(found["rgba"][..., 3], stored[..., 3] if channels == 4 else 255)
    if channels == 1:
        np.testing.assert_array_equal(found["grayscale"], stored)


@pytest.fixture(scope="module", params=["rgb", "grayscale", "rgba"])
def stored(request, tmp_path_factory):
    """Data sets of a color mode, by encoding."""
    root, mode = tmp_path_factory.mktemp(request.param), request.param
    for seed in range(5):
        write_image(root / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
        image = make_image(seed, mode={"rgb": "RGB", "grayscale": "L", "rgba": "RGBA"}[mode])
        (root / "images" / "ab"[seed % 2] / f"{seed}.png").write_bytes(encode_image(image, "PNG"))
    encodings = {"rgb": ["jpeg", "png", "webp", "raw"], "grayscale": ["jpeg", "png", "raw"]}
    folders = {}
    for encoding in encodings.get(mode, ["png", "raw"]):
        options = ConvertOptions(
            image_size=(16, 20), encoding=encoding, color_mode=mode, num_shards=1
        )
        convert_folder(root / "images", root / encoding, options)
        folders[encoding] = root / encoding
    return mode, folders


@pytest.mark.parametrize("asked", COLOR_CHANNELS)
def test_batches_have_the_pixels_of_load_dataset_or_say_what_takes_tensorflow(stored, asked):
    mode, folders = stored
    for encoding, folder in folders.items():
        shards, options = open_shards(folder), {"color_mode": asked, "shuffle": False}
        if asked == "grayscale" and mode != "grayscale" and encoding != "jpeg":
            with pytest.raises(UsageError, match=f"^color_mode 'grayscale' mixes .* {encoding}"):
                shards.batches("train", batch_size=5, **options)
            continue
        for more in ({}, {"dtype": "uint8"}, {"data_format": "channels_first"}):
            dataset = load_dataset(folder, batch_size=5, **options, **more)
            ((expected, _),) = dataset.as_numpy_iterator()
            ((found, _),) = shards.batches("train", batch_size=5, **options, **more)
            np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image_size": (8, 9)},
            r"^image_size \(8, 9\) resizes images, which only TensorFlow does to the same numbers: "
            r"use load_dataset, or convert to that size with --image-size$",
        ),
        (
            {"random_crop": (0.5, 1.0)},
            "^random_crop resizes images, which only TensorFlow does to the same numbers: use ",
        ),
        (
            {"color_mode": "grayscale"},
            "^color_mode 'grayscale' mixes the channels of png, webp, which only TensorFlow does "
            "to the same numbers: use load_dataset, or convert with --color-mode grayscale$",
        ),
    ],
    ids=str,
)
def test_what_takes_tensorflow_is_refused_with_a_way_out(changes, message):
    images = plan(["png", "webp"], 3, height=24, width=32, max_height=24, max_width=32)
    asked = ImagePlan(stored=images.stored, options=ReadOptions(**changes))
    with pytest.raises(UsageError, match=message):
        make_decoder(asked)


def test_what_takes_no_computing_is_not_refused():
    for image_format, channels in STORED:
        for mode in list_modes(image_format, channels):
            make_decoder(plan([image_format], channels, mode))
    make_decoder(plan(["jpeg", "png"], 3))
    same = {"height": 24, "width": 32, "max_height": 24, "max_width": 32}
    images = plan(["png"], 3, **same)
    make_decoder(ImagePlan(stored=images.stored, options=ReadOptions(image_size=(24, 32))))


def test_each_of_several_images_has_a_problem_of_its_own():
    good = np.frombuffer(encode_stored("png", 3), np.uint8)
    batch = np.zeros((4, 17, 21, 3), np.uint8)
    images = (good, good[:-20], good, good[::-1].copy())
    tasks = [Task(image, (17, 21), 0, row) for image, row in zip(images, batch, strict=True)]
    first, second, third, fourth = find_decoder(3, "rgb")(tasks)
    assert (first, third) == (None, None)
    assert second == "a PNG that ends within a chunk"
    assert fourth
    np.testing.assert_array_equal(batch[0], batch[2])


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp", "raw"])
def test_threads_do_not_mix_up_what_they_decode(image_format):
    decoder = make_decoder(plan([image_format], 3, "rgba"))
    images = [make_image(seed, 40, 40) for seed in range(8)]
    stored = [
        image.tobytes() if image_format == "raw" else encode_image(image, image_format.upper())
        for image in images
    ]

    def run(seed: int) -> np.ndarray:
        row = np.zeros((40, 40, 4), np.float32)
        data = np.frombuffer(stored[seed % 8], np.uint8)
        assert decoder([Task(data, (40, 40), 0, row)]) == [None]
        return row

    alone = [run(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as threads:
        for seed, row in enumerate(threads.map(run, range(400))):
            np.testing.assert_array_equal(row, alone[seed % 8])


@pytest.mark.parametrize("size", SIZES)
def test_a_mask_has_the_numbers_that_were_stored(size):
    decoder, numbers = make_mask_decoder(), draw(size, 1)
    data = np.frombuffer(make_png(numbers), np.uint8)
    rows = np.full((2, *size, 1), 77, np.uint8)
    tasks = [Task(data, size, 0, rows[0]), Task(data, size, 0, rows[1, :, ::-1])]
    assert decoder(tasks) == [None, None]
    np.testing.assert_array_equal(rows[0], numbers)
    np.testing.assert_array_equal(rows[1], numbers[:, ::-1])
    cut = Task(data[:-5], size, 0, rows[0])
    assert decoder([cut]) == ["a PNG that ends within a chunk"]
