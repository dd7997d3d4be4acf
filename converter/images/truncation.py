"""JPEGs that end early: which of their rows are real, and what stands in for the others.

With the marker of an end behind what is left, libjpeg decodes such a file, and shows grey where
data is missing. ITU-T T.81, annex B, has the markers.
"""

import hashlib
import itertools
import re
from typing import Final, NamedTuple

from PIL import Image, ImageChops

from converter.errors import ImageError
from converter.image_options import ImageOptions
from converter.images import openers

_FRAMES: Final = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC)))
_PROGRESSIVE: Final = (0xC2, 0xCA)  # with Huffman or arithmetic coding
_SCAN: Final = 0xDA
_END: Final = 0xD9
_ALONE: Final = (0x00, 0x01, *range(0xD0, 0xDA))  # markers without a length, and what is none
_FREQUENCIES: Final = 64

# Within a scan, FF is followed by the number of a restart, by 0, or by FF. All else is its end.
_AFTER_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_RESTART: Final = re.compile(rb"\xff([\xd0-\xd7])")

# What no encoder wrote, and first the opposite of the zeros that libjpeg goes on with.
_NOISE: Final = b"\xfe" + hashlib.shake_128(b"").digest(1023).replace(b"\xff", b"\xfe")


class Filled(NamedTuple):
    """A JPEG that ended early, made whole."""

    data: bytes
    rows: int  # that are real, from the top, as the file stores them
    doubts: tuple[str, ...]  # codes of `converter.inventory.NOTES`


class _Scan(NamedTuple):
    components: bytes
    frequencies: range
    is_first: bool  # of its components: with the mean colour of each block
    is_last: bool  # of these frequencies: with their lowest bits
    data: bytes


class _Layout(NamedTuple):
    """What there is of a JPEG that ends early."""

    components: bytes
    is_progressive: bool
    scans: list[_Scan]
    end: int  # of the last segment that is whole, or of the data of the scan behind it
    is_cut: bool  # nothing says where the last scan ends


def fill_jpeg(image: Image.Image, data: bytes, options: ImageOptions) -> Filled | None:
    """Makes a JPEG whole that ends early, if enough of its rows are real.

    A row is real if no data that might follow can change it, apart from the detail that later scans
    of a progressive JPEG add. To find out, the file is decoded with two continuations: memory peaks
    at 12 bytes a pixel, 15 if it is progressive (measured). Returns None for a whole file, another
    format, or too few rows.
    """
    if options.truncated == "reject" or image.format not in ("JPEG", "MPO"):
        return None
    try:
        with openers.wrap_decoder_errors():
            layout = _read_layout(data)
            filled = None if layout is None else _fill(layout, image.height, data, options)
    except ImageError:  # what else is wrong is found again when the image is decoded
        return None
    enough = max(1, options.min_decoded * image.height)
    return filled if filled and filled.rows >= enough else None


def _fill(layout: _Layout, height: int, data: bytes, options: ImageOptions) -> Filled:
    filled = data[: layout.end] + bytes([0xFF, _END])
    same = _count_same_rows(filled, data[: layout.end] + _go_on(layout), options)
    rows = same if layout.is_cut and layout.scans[-1].is_first else height
    coarse = layout.is_progressive and not _is_fine(layout, whole=same == height)
    # Until a scan of each component has begun, no row has its colours.
    begun = {each for scan in layout.scans if scan.is_first for each in scan.components}
    rows = rows if layout.components and begun.issuperset(layout.components) else 0
    doubts = {"truncated": rows < height, "coarse": coarse}
    return Filled(filled, rows, tuple(code for code, applies in doubts.items() if applies))


def _read_layout(data: bytes) -> _Layout | None:
    """The parts of a JPEG; None if it does not end early."""
    components, progressive, scans, at, cut = b"", False, [], 2, False
    while not cut and (segment := _read_segment(data, at)):
        marker, content, at = segment
        if marker == _END:
            return None
        if marker in _FRAMES:
            components, progressive = content[6::3], marker in _PROGRESSIVE
        if marker == _SCAN:
            following = _AFTER_SCAN.search(data, at)
            cut = following is None
            # A download that was given its room beforehand ends with zeros; FF is half a marker.
            end = following.start() if following else max(at, len(data.rstrip(b"\0\xff")))
            scans.append(_describe_scan(content, data[at:end]))
            at = end
    return _Layout(components, progressive, scans, at, cut)


def _read_segment(data: bytes, at: int) -> tuple[int, bytes, int] | None:
    """The marker, the content and the end of the next segment; None if it is not whole."""
    at = data.find(b"\xff", at)
    while 0 <= at < len(data) - 1 and data[at + 1] == 0xFF:
        at += 1
    head = data[at : at + 4] if at >= 0 else b""
    if len(head) >= 2 and head[1] in _ALONE:
        return head[1], b"", at + 2
    end = at + 2 + int.from_bytes(head[2:], "big")
    return (head[1], data[at + 4 : end], end) if len(head) == 4 and end <= len(data) else None


def _describe_scan(content: bytes, data: bytes) -> _Scan:
    # u8 number of components | for each its name and its tables, u8 each | u8 first frequency
    # | u8 last frequency | u4 lowest bit of the scan before | u4 lowest bit of this one.
    components, (first, last, bits) = content[1:-3:2], content[-3:]
    is_first = first == 0 and bits >> 4 == 0
    return _Scan(components, range(first, last + 1), is_first, bits & 15 == 0, data)


def _go_on(layout: _Layout) -> bytes:
    """What might follow, and differs from what libjpeg shows where nothing does."""
    found = _RESTART.findall(layout.scans[-1].data) if layout.scans else []
    number = found[-1][0] + 1 if found else 0xD0
    # Behind the last restart that the file has, decoders skip all but the next one.
    restarts = (bytes([0xFF, 0xD0 | (number + each) % 8]) for each in range(8))
    return _NOISE + b"".join(mark + _NOISE for mark in restarts) + bytes([0xFF, _END])


def _count_same_rows(one: bytes, other: bytes, options: ImageOptions) -> int:
    with (
        openers.open_image(one, options.formats) as first,
        openers.open_image(other, options.formats) as second,
    ):
        different = ImageChops.difference(first, second).getbbox()
        return different[1] if different else first.height


def _is_fine(layout: _Layout, *, whole: bool) -> bool:
    """Whether all bits of all frequencies have come; `whole` says that of the last scan's data."""
    done = layout.scans if whole or not layout.is_cut else layout.scans[:-1]
    fine = {
        (each, frequency)
        for scan in done
        if scan.is_last
        for each in scan.components
        for frequency in scan.frequencies
    }
    return fine.issuperset(itertools.product(layout.components, range(_FREQUENCIES)))
