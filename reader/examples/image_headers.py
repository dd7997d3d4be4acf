"""The size that an encoded image claims in its header, to be checked before it is decoded.

A PNG of 1.2 MB can claim 20,000 x 20,000 pixels, and TensorFlow's decoder then takes 1.2 GB for
them (measured).
"""

import contextlib
import functools
import struct
from typing import Final

import numpy as np

from reader.arrays import Bytes, Numbers

START_BYTES: Final = 256  # reach past a JPEG's frame header, unless a profile or preview is first
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8"
_SIDES: Final = struct.Struct(">HH")
_CANVAS: Final = struct.Struct("<HBHB")
# Markers in the range of frames that are none: Huffman tables, an extension, arithmetic coding.
_NO_FRAME: Final = frozenset({0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and the restarts
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6})
_SCAN: Final = b"\xff\xda"

MAX_MARKERS: Final = 1 << 16  # before the frame header, fill bytes included: 20 ms
MAX_SCANS: Final = 100
"""Of a progressive JPEG, which usually has ten. A scan of 17 bytes can cover a whole image: 345 kB
of them kept TensorFlow's decoder busy for 100 seconds at 4 megapixels (measured)."""


def measure_images(data: Bytes, begins: Numbers, ends: Numbers) -> Numbers:
    """Reads the sizes of images, int64 (images, 2): height and width, 0 where a header is wrong."""
    # The JPEGs of a data set begin alike, so for most of them a comparison of that is enough.
    sizes = np.zeros((len(begins), 2), np.int64)
    alike = np.zeros(len(begins), np.bool_)
    if len(begins) and (ends - begins).min() >= START_BYTES:
        starts = data[begins[:, None] + np.arange(START_BYTES)]
        known = _measure_start(starts[0].tobytes()) if starts[0, :2].tobytes() == _JPEG else None
        if known is not None:
            alike = (starts == starts[0]).all(axis=1)
            sizes[alike] = known
    for row in np.flatnonzero(~alike).tolist():
        with contextlib.suppress(ValueError):
            sizes[row] = measure_image(data[begins[row] : ends[row]].data)
    return sizes


def measure_image(data: memoryview) -> tuple[int, int]:
    """Returns the (height, width) that an image claims; a `ValueError` if its header is wrong."""
    try:
        start = bytes(data[:START_BYTES])
        if start.startswith(_JPEG):
            return _measure_start(start) or _measure_jpeg(data)
        if start.startswith(_PNG) and start[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", data, 16)
            return height, width
        if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
            return _measure_webp(data)
    except (struct.error, IndexError) as error:
        raise ValueError("its header is cut off") from error
    raise ValueError("not a JPEG, PNG or WebP image")


@functools.lru_cache(maxsize=16)  # the images of a data set have few beginnings, or only one
def _measure_start(start: bytes) -> tuple[int, int] | None:
    """Returns the size of a JPEG if its first bytes are enough to tell."""
    try:
        at = _find_frame(memoryview(start))
        return None if start[at + 1] in _PROGRESSIVE else _SIDES.unpack_from(start, at + 5)
    except (ValueError, IndexError, struct.error):
        return None


def _measure_jpeg(data: memoryview) -> tuple[int, int]:
    at = _find_frame(data)
    if data[at + 1] in _PROGRESSIVE:
        count = bytes(data).count(_SCAN)  # within a scan, 0xDA never follows 0xFF
        if count > MAX_SCANS:
            raise ValueError(f"a JPEG of {count:,} scans, expected no more than {MAX_SCANS}")
    return _SIDES.unpack_from(data, at + 5)


def _find_frame(data: memoryview) -> int:
    """Walks the markers up to that of the frame (ITU T.81, B.1.1)."""
    at = 2
    for _ in range(MAX_MARKERS):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0:
            # Decoders would search on, and might find another frame than we do.
            raise ValueError("not a JPEG: a marker is missing")
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            return at
        if marker == 0xFF:
            at += 1  # fill bytes may precede a marker
        else:
            at += 2 if marker in _WITHOUT_LENGTH else 2 + (data[at + 2] << 8 | data[at + 3])
    raise ValueError(f"not a JPEG: no frame after {MAX_MARKERS:,} markers")


def _measure_webp(data: memoryview) -> tuple[int, int]:
    """Reads the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    kind = bytes(data[12:16])
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = _CANVAS.unpack_from(data, 24)
        return (high_height << 16 | low_height) + 1, (high_width << 16 | low_width) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    raise ValueError("not a WebP image")
