"""A PNG's chunks: what of them makes pixels, and whether it is whole; Pillow looks at neither."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

_START: Final = 8
"""Of the first chunk, behind the signature."""

_FRAMING_BYTES: Final = 12
"""Of a chunk besides its content: length, name and checksum."""

_PIXEL_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_MAY_BE_LEFT_OUT: Final = 0x20
"""In the first letter of a chunk's name: whether a decoder that does not know it may skip it."""

_HEADER: Final = struct.Struct(">IIBBxxB")
"""Width, height, bits of a sample, kind of color, whether it is interlaced."""

_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a pixel, by its kind of color."""

_ADAM7: Final = (
    (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
    (1, 0, 2, 1),
)  # fmt: skip
"""Passes of an interlaced image: top and left of the first pixel, steps down and to the right."""

_PIECE_BYTES: Final = 1 << 16


def reduce_png(png: memoryview) -> bytearray:
    """The chunks that make pixels.

    Of the others, Pillow warns, or takes memory for what they unpack to.

    Raises:
        ValueError: one is damaged, or not where it belongs, or the last one is missing.
    """
    kept = bytearray(png[:_START])
    before, ended = b"", False
    for name, chunk in _list_chunks(png):
        ended |= before == b"IDAT" and name != before
        if name == b"IDAT" and ended:
            raise ValueError("a PNG whose pixels are not in one place")
        if name in _PIXEL_CHUNKS:
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise ValueError(f"a PNG with another checksum than that of its {name.decode()}")
            kept += chunk
        elif not (name.isalpha() and name[0] & _MAY_BE_LEFT_OUT):
            raise ValueError(f"a PNG with a chunk {name!r}, without which it cannot be shown")
        before = name
    return kept


def is_interlaced(png: memoryview) -> bool:
    """Whether the header of a whole PNG says so."""
    return bool(_HEADER.unpack_from(png, _START + 8)[-1])


def lacks_rows(png: memoryview) -> bool:
    """Whether less is packed in a whole PNG than its header says."""
    width, height, depth, kind, interlaced = _HEADER.unpack_from(png, _START + 8)
    missing = 0
    for top, left, down, right in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        rows, columns = -((top - height) // down), -((left - width) // right)
        if rows > 0 and columns > 0:
            missing += rows * (1 - -columns * depth * _SAMPLES[kind] // 8)
    unpacker = zlib.decompressobj()
    for name, chunk in _list_chunks(png):
        packed = bytes(chunk[8:-4]) if name == b"IDAT" else b""
        while missing > 0 and (piece := _unpack(unpacker, packed, missing)):
            missing -= len(piece)
            packed = unpacker.unconsumed_tail
    return missing > 0


def _unpack(unpacker: zlib._Decompress, packed: bytes, most: int) -> bytes:
    try:
        return unpacker.decompress(packed, min(most, _PIECE_BYTES))
    except zlib.error:
        return b""


def _list_chunks(png: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The name of each chunk, and all of it."""
    at, name = _START, b""
    while name != b"IEND":
        name = bytes(png[at + 4 : at + 8])
        end = at + _FRAMING_BYTES + int.from_bytes(png[at : at + 4], "big")
        if end > len(png):
            raise ValueError("a PNG that ends within a chunk")
        yield name, png[at:end]
        at = end
