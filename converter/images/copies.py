"""Files that already are what is asked for, so that they can be stored byte for byte."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from converter.images.limits import is_huffman
from converter.images.pixels import MODES
from converter.options import HELD_BY, ConvertOptions

COPIED: Final = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}
"""What can be stored as it is: by Pillow's name of a format, ours."""

_PNG_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
"""Pillow looks at no checksum of the last chunk, and shows an image that ends before it."""

_PLAIN_SEGMENTS: Final = frozenset(("APP0", "APP14"))
_PLAIN_INFO: Final = frozenset(
    ("aspect", "background", "chromaticity", "dpi", "duration", "gamma", "interlace", "loop",
     "srgb", "timestamp")
)  # fmt: skip
_PLAIN_BYTES: Final = 4096
"""Over its pixels, that a file without metadata may have to be copied."""


def is_copy(image: Image.Image, data: bytes, options: ConvertOptions) -> bool:
    """Whether a single upright image of the size asked for is so in every other way, too.

    Args:
        image: opened, not loaded.
        data: its file.
        options: what is asked for.
    """
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


def verify_png(data: bytes) -> None:
    """Checks the checksums of a PNG's chunks, which decoding alone does not do."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.verify()


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """Whether a file holds pixels and no metadata, which may say where and by whom."""
    pixels = image.width * image.height * len(image.getbands())
    if len(data) > pixels + _PLAIN_BYTES:
        return False
    if image.format == "JPEG":
        segments = {name for name, _ in getattr(image, "applist", ())}
        return segments <= _PLAIN_SEGMENTS and data.endswith(b"\xff\xd9")
    if image.format == "WEBP":
        return data[12:15] == b"VP8" and data[15:16] in b" L"
    image.load()  # chunks may also lie behind the pixels
    chunks = getattr(image, "private_chunks", ())
    return not chunks and not getattr(image, "text", ()) and set(image.info) <= _PLAIN_INFO
