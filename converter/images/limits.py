"""Limits that are checked by an image's header, before anything is decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

from PIL import Image

from converter.errors import ImageError
from converter.image_options import ImageOptions
from converter.images.geometry import Size
from converter.images.pixels import read_tag

MAX_SCANS: Final = 100
"""A JPEG usually has up to ten. A scan of 17 bytes can go through the whole image."""

PNG_RATIO: Final = 1032
"""One byte of deflate becomes this many bytes at most."""

JPEG_RATIO: Final = 512
"""One byte of a JPEG becomes this many pixels at most: a bit for each block of 8x8."""

# Tags of a TIFF's header: the width and the height of its tiles.
_TILE_SIDES: Final = (322, 323)

_PNG_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_HUFFMAN: Final = frozenset({0xC0, 0xC1, 0xC2})
_SEQUENTIAL: Final = (0xC0, 0xC1)
_SCAN: Final = 0xDA


def check_header(image: Image.Image, data: bytes, options: ImageOptions) -> None:
    """Raises an `ImageError` for an image that is too large, implausible, or filtered out."""
    width, height = image.size
    if width * height > options.max_pixels:
        raise ImageError("too_large", f"{width}x{height} pixels, at most {options.max_pixels:,}")
    if image.format == "PNG":
        _check_png(data)
    elif image.format in ("JPEG", "MPO"):
        _check_jpeg(data, width * height)
    elif image.format == "TIFF":
        _check_tiles(image, options)
    if options.frames == "reject" and _is_animated(image):
        raise ImageError("animated", f"{getattr(image, 'n_frames', 2)} frames or pages")
    _check_filters((height, width), options)


def _is_animated(image: Image.Image) -> bool:
    return bool(getattr(image, "is_animated", False))


def has_several_frames(image: Image.Image, data: bytes) -> bool:
    """Whether a file has several frames or pages, even damaged ones; does not change `image`."""
    if image.format != "GIF":
        return _is_animated(image)
    try:
        # To find out, Pillow seeks to the second frame, and back if it can.
        with Image.open(io.BytesIO(data), formats=["GIF"]) as probe:
            return _is_animated(probe)
    except Exception:  # noqa: BLE001 (whatever Pillow raises on a damaged frame)
        return True


def is_huffman(data: bytes) -> bool:
    """Whether a JPEG has the coding that every decoder supports: Huffman, not arithmetic."""
    return any(marker in _HUFFMAN for marker, _ in _list_markers(data))


def _list_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """The markers of a JPEG with their places, up to the first scan."""
    # Between segments decoders search for a marker. What they may find there is ignored here.
    at, marker = 2, 0
    while at + 9 < len(data) and data[at] == 0xFF and marker != _SCAN:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        yield marker, at
        at += 2 + (data[at + 2] << 8 | data[at + 3])


def _has_one_scan(data: bytes) -> bool:
    """Whether the first scan of a sequential JPEG has all components, and so is the last."""
    places = dict(_list_markers(data))
    frame = next((places[marker] for marker in _SEQUENTIAL if marker in places), None)
    scan = places.get(_SCAN)
    return frame is not None and scan is not None and data[frame + 9] == data[scan + 4]


def _check_png(data: bytes) -> None:
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    row = (width * data[24] * _PNG_CHANNELS.get(data[25], 1) + 7) // 8
    if row * height > PNG_RATIO * len(data):
        raise ImageError("implausible", f"{width}x{height} pixels in {len(data):,} bytes of PNG")


def _check_jpeg(data: bytes, pixels: int) -> None:
    if pixels > JPEG_RATIO * len(data) and is_huffman(data):
        raise ImageError("implausible", f"{pixels:,} pixels in {len(data):,} bytes of JPEG")
    if _has_one_scan(data):
        return
    # Within a scan, FF is never followed by DA.
    scans = data.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise ImageError("too_slow", f"{scans:,} scans, at most {MAX_SCANS}")


def _check_tiles(image: Image.Image, options: ImageOptions) -> None:
    # A tile is decoded whole, however little of the image it holds.
    width, height = (read_tag(image, number, 0) for number in _TILE_SIDES)
    if width * height > options.max_pixels:
        detail = f"tiles of {width}x{height} pixels, at most {options.max_pixels:,}"
        raise ImageError("too_large", detail)


def _check_filters(size: Size, options: ImageOptions) -> None:
    short, long = sorted(size)
    if short < options.min_side:
        raise ImageError("filtered_side", f"{short} pixels, at least {options.min_side}")
    if short * long < options.min_area:
        raise ImageError("filtered_area", f"{short * long:,} pixels, at least {options.min_area:,}")
    if options.max_aspect is not None and long > options.max_aspect * short:
        raise ImageError("filtered_aspect", f"{long}:{short}, at most {options.max_aspect:g} to 1")
