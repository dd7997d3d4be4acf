"""Sizes by header: those that decoders find, or an error; never another size."""

import io
import struct
import time

import pytest
from conftest import encode_image, make_image
from PIL import Image

from reader.examples.image_headers import MAX_SCANS, measure_image

JPEG = encode_image(make_image(1), "JPEG")
PROGRESSIVE = encode_image(make_image(1), "JPEG", progressive=True)
FRAME = struct.pack(">2sHBHHB", b"\xff\xc0", 17, 8, 24, 32, 3) + b"\1\x22\0\2\x11\1\3\x11\1"

IMAGES = {
    "jpeg": JPEG,
    "progressive": PROGRESSIVE,
    "restart markers": encode_image(make_image(1), "JPEG", restart_marker_blocks=1),
    "fill bytes": JPEG[:2] + b"\xff" * 9 + JPEG[2:20] + b"\xff" * 5 + JPEG[20:],
    "grey jpeg": encode_image(make_image(1, mode="L"), "JPEG"),
    "exif": encode_image(make_image(1), "JPEG", exif=b"Exif\0\0" + JPEG),
    "png": encode_image(make_image(1), "PNG"),
    "grey png": encode_image(make_image(1, mode="L"), "PNG"),
    "webp": encode_image(make_image(1), "WEBP"),
    "lossless webp": encode_image(make_image(1), "WEBP", lossless=True),
    "webp with alpha": encode_image(make_image(1, mode="RGBA"), "WEBP"),
}


def measure(data: bytes) -> tuple[int, int]:
    return measure_image(memoryview(data))


@pytest.mark.parametrize("name", IMAGES)
def test_the_size_is_that_which_a_decoder_finds(name):
    width, height = Image.open(io.BytesIO(IMAGES[name])).size
    assert measure(IMAGES[name]) == (height, width) == (24, 32)


@pytest.mark.parametrize("name", IMAGES)
def test_a_header_that_is_cut_off_is_an_error_at_every_length(name):
    data = IMAGES[name]
    sizes = []
    for length in range(len(data)):
        try:
            sizes.append(measure(data[:length]))
        except ValueError:  # noqa: PERF203 (each may be one)
            assert not sizes, "what was whole at a shorter length"
    assert set(sizes) == {(24, 32)}


@pytest.mark.parametrize("name", IMAGES)
def test_any_byte_may_be_anything_without_another_kind_of_error(name):
    data = IMAGES[name][:700]
    for place in range(len(data)):
        for value in (0x00, 0x01, 0x7F, 0xC0, 0xC2, 0xD0, 0xD8, 0xFF):
            try:
                height, width = measure(data[:place] + bytes([value]) + data[place + 1 :])
            except ValueError:
                continue
            assert height >= 0
            assert width >= 0


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"GIF89a" + bytes(20), b"BM" + bytes(60)])
def test_what_is_no_image_that_is_stored_is_an_error(data):
    with pytest.raises(ValueError, match=r"not a JPEG, |its header"):
        measure(data)


def test_a_frame_that_only_a_decoder_would_find_is_not_missed():
    hidden = encode_image(make_image(1, 240, 320), "JPEG")[2:]
    # Decoders take FF 00 for no marker and search on: they find the large frame.
    data = b"\xff\xd8\xff\x00" + struct.pack(">H", len(hidden) + 2) + hidden + FRAME + b"\xff\xd9"
    tf = pytest.importorskip("tensorflow")
    assert tf.io.decode_jpeg(data, 3).shape == (240, 320, 3)
    with pytest.raises(ValueError, match=": a marker"):
        measure(data)


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\xd0", b"\xff\x01", b"\xff\xe0\0\2"])
def test_millions_of_markers_do_not_keep_it_busy(filling):
    data = b"\xff\xd8" + filling * 5_000_000 + JPEG[2:]
    begun = time.process_time()
    with pytest.raises(ValueError, match="no frame after 65,536 markers"):
        measure(data)
    assert time.process_time() - begun < 1


def test_a_jpeg_of_very_many_scans_is_refused():
    begin = PROGRESSIVE.index(b"\xff\xda")
    end = PROGRESSIVE.index(b"\xff", begin + 2)
    while PROGRESSIVE[end + 1] == 0:
        end = PROGRESSIVE.index(b"\xff", end + 2)
    scan = PROGRESSIVE[begin:end]
    usual = PROGRESSIVE.count(b"\xff\xda")
    most = PROGRESSIVE[:begin] + scan * (MAX_SCANS - usual) + PROGRESSIVE[begin:]
    assert measure(most) == (24, 32)
    with pytest.raises(ValueError, match=f"^a JPEG of {MAX_SCANS + 1} scans, .* {MAX_SCANS}$"):
        measure(most[:begin] + scan + most[begin:])
