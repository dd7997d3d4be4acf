"""The size of an encoded image by its header, before a decoder believes it.

A PNG of 1.2 MB can claim 20,000 x 20,000 pixels, and TensorFlow's decoder then takes 1.2 GB for
them (measured). So what a header claims is compared with the manifest first.
"""

from __future__ import annotations

import struct
from typing import Final

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8"
_SIDES: Final = struct.Struct(">HH")
_NO_FRAME: Final = frozenset({0xC4, 0xC8, 0xCC})
"""Among the markers of frames, C0 to CF: Huffman tables, an extension, arithmetic coding."""

_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a length: TEM and the restarts."""


def measure_image(data: memoryview) -> tuple[int, int]:
    """The (height, width) that the header of a JPEG, PNG or WebP claims.

    Raises:
        ValueError: it is none of those, or its header is cut off.
    """
    try:
        start = bytes(data[:16])
        if start.startswith(_JPEG):
            return _measure_jpeg(data)
        if start.startswith(_PNG) and start.endswith(b"IHDR"):
            width, height = struct.unpack_from(">II", data, 16)
            return height, width
        if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
            return _measure_webp(data)
    except (struct.error, IndexError) as error:
        raise ValueError("its header is cut off") from error
    raise ValueError("not a JPEG, PNG or WebP image")


def _measure_jpeg(data: memoryview) -> tuple[int, int]:
    """Goes from marker to marker up to the frame's (ITU T.81, B.1.1)."""
    at = 2
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:
            at += 1  # a marker may be preceded by any number of these
        if data[at] != 0xFF:
            raise ValueError("not a JPEG: no marker where one has to be")
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = _SIDES.unpack_from(data, at + 5)
            return height, width
        at += 2 if marker in _ALONE else 2 + (data[at + 2] << 8 | data[at + 3])


def _measure_webp(data: memoryview) -> tuple[int, int]:
    """Reads the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    kind = bytes(data[12:16])
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        return height, width
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    raise ValueError("not a WebP image")
