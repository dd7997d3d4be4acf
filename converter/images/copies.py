"""Files that already are what is asked for, and can be stored byte for byte."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from PIL import Image

from converter.images.limits import is_huffman
from converter.images.pixels import MODES
from converter.options import HELD_BY, ConvertOptions

COPIED: Final = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}
"""The formats that can be stored as they are: Pillow's name for each, and ours."""

# Pillow ignores the checksum of the last chunk, and shows an image that ends before it.
_PNG_END: Final = b"\0\0\0\0IEND\xaeB`\x82"

# The segments of a JPEG that hold no metadata: how they begin, and how long they are.
_PLAIN_SEGMENTS: Final = {"APP0": (b"JFIF", 14), "APP14": (b"Adobe", 12)}

# What may hold metadata after the first scan, where Pillow does not look.
_LATER_SEGMENT: Final = re.compile(rb"\xff[\xd8\xd9\xe0-\xef\xfe]")

_PLAIN_CHUNKS: Final = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"bKGD", b"cHRM", b"gAMA", b"pHYs", b"sBIT", b"sRGB")
)

# A file without metadata is at most this much larger than its pixels.
_PLAIN_BYTES: Final = 4096


def can_copy(image: Image.Image, data: bytes, options: ConvertOptions) -> bool:
    """Whether an upright single image of the target size needs no other change either."""
    stored = COPIED.get(str(image.format))
    unchanged = (
        stored is not None
        and stored in HELD_BY[options.color_mode]
        and options.encoding in (stored, "keep")
        and image.mode == MODES[options.color_mode]
        and "transparency" not in image.info
        and (image.format != "PNG" or data.endswith(_PNG_END))
        and (image.format != "JPEG" or is_huffman(data))
    )
    return unchanged and (options.encoding == "keep" or _is_plain(image, data))


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """Whether a file holds no metadata, which may say where and by whom it was made."""
    pixels = image.width * image.height * len(image.getbands())
    if len(data) > pixels + _PLAIN_BYTES:
        return False
    if image.format == "JPEG":
        return _is_plain_jpeg(image, data)
    if image.format == "WEBP":
        size = int.from_bytes(data[16:20], "little")
        return data[12:16] in (b"VP8 ", b"VP8L") and len(data) == 20 + size + size % 2
    return _PLAIN_CHUNKS.issuperset(_list_chunks(data))


def _is_plain_jpeg(image: Image.Image, data: bytes) -> bool:
    for name, segment in getattr(image, "applist", ()):
        begin, size = _PLAIN_SEGMENTS.get(name, (b"", -1))
        if not segment.startswith(begin) or len(segment) != size:
            return False
    later = _LATER_SEGMENT.search(data, data.index(b"\xff\xda"))
    return later is not None and later.start() == len(data) - 2 and data.endswith(b"\xff\xd9")


def _list_chunks(data: bytes) -> Iterator[bytes]:
    """The names of all chunks of a PNG, also of those behind its end."""
    at = 8
    while at < len(data):
        yield data[at + 4 : at + 8]
        at += 12 + int.from_bytes(data[at : at + 4], "big")
