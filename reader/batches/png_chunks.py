"""The chunks of a PNG: which make pixels, and whether they are complete; Pillow checks neither."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from typing import Final

_SIGNATURE_BYTES: Final = 8
_FRAMING_BYTES: Final = 12  # of a chunk: length, name and checksum
_PIXEL_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_ANCILLARY: Final = 0x20  # bit of a name's first letter: decoders may skip the chunk
_HEADER: Final = struct.Struct(">IIBBxxB")  # width, height, bit depth, color type, interlace method
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by color type

# Passes of an interlaced image: top and left of the first pixel, steps down and to the right.
_ADAM7: Final = (
    (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
    (1, 0, 2, 1),
)  # fmt: skip
_PIECE_BYTES: Final = 1 << 16


def reduce_png(png: memoryview) -> bytearray:
    """Keeps the chunks that make pixels: of others, Pillow warns, or takes memory to unpack them.

    Raises:
        ValueError: a chunk is damaged, missing, or not where it belongs.
    """
    kept = bytearray(png[:_SIGNATURE_BYTES])
    before, ended = b"", False
    for name, chunk in _list_chunks(png):
        ended |= before == b"IDAT" and name != before
        if name == b"IDAT" and ended:
            raise ValueError("a PNG whose IDAT chunks are not consecutive")
        if name in _PIXEL_CHUNKS:
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise ValueError(f"a PNG whose {name.decode()} has another checksum")
            kept += chunk
        elif not (name.isalpha() and name[0] & _ANCILLARY):
            raise ValueError(f"a PNG with an unknown critical chunk {name!r}")
        before = name
    return kept


def is_interlaced(png: memoryview) -> bool:
    """Whether the header of a whole PNG says so."""
    return bool(_HEADER.unpack_from(png, _SIGNATURE_BYTES + 8)[-1])


def lacks_rows(png: memoryview) -> bool:
    """Whether a PNG of whole chunks holds fewer bytes of pixels than its header says."""
    width, height, depth, color_type, interlaced = _HEADER.unpack_from(png, _SIGNATURE_BYTES + 8)
    missing = 0
    for top, left, down, right in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        rows, columns = -((top - height) // down), -((left - width) // right)
        if rows > 0 and columns > 0:
            missing += rows * (1 - -columns * depth * _SAMPLES[color_type] // 8)
    unpacker = zlib.decompressobj()
    with contextlib.suppress(zlib.error):
        for name, chunk in _list_chunks(png):
            packed = bytes(chunk[8:-4]) if name == b"IDAT" else b""
            while missing > 0 and (
                piece := unpacker.decompress(packed, min(missing, _PIECE_BYTES))
            ):
                missing -= len(piece)
                packed = unpacker.unconsumed_tail
    return missing > 0


def _list_chunks(png: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yields the name of each chunk, and all of it."""
    at, name = _SIGNATURE_BYTES, b""
    while name != b"IEND":
        name = bytes(png[at + 4 : at + 8])
        end = at + _FRAMING_BYTES + int.from_bytes(png[at : at + 4], "big")
        if end > len(png):
            raise ValueError("a PNG that ends within a chunk")
        yield name, png[at:end]
        at = end
