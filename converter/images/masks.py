"""Masks: images whose pixels are numbers of classes, which move with their images, unchanged.

A mask has the size of its image, as its file has it or as a person sees it. It is turned, cropped,
scaled and padded as the image is, but without a number that was not there before: each is that of
the nearest pixel.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from converter.errors import ImageError
from converter.images.conversion import Origin, fit_upright, name_errors
from converter.images.copies import verify_png
from converter.images.limits import check_header
from converter.images.openers import open_image
from converter.images.pixels import is_negative, orient, read_turn
from converter.images.scaling import pad, scale
from converter.options import ConvertOptions

MAX_NUMBER: Final = 255

_MODES: Final = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
_FACTORS: Final = {"L;2": 85, "L;4": 17}
"""By which Pillow multiplies grey samples of less than 8 bits."""


def convert_mask(data: bytes, origin: Origin, sizes: Sequence[ConvertOptions]) -> list[bytes]:
    """Converts the mask of an image, for each size to a PNG of one channel.

    Args:
        data: the mask's file.
        origin: what is known of the image.
        sizes: as in `converter.images.conversion.convert_sizes`.

    Raises:
        ImageError: it is no mask, or not of this image.
    """
    options = sizes[0]
    try:
        with name_errors(), open_image(data, (*options.formats, "png")) as image:
            if sorted(image.size) != sorted(origin.size):
                raise _describe_size(image, origin)
            check_header(image, data, options)
            if image.format == "PNG":
                verify_png(data)
            factor = _find_factor(image)  # known only until it is loaded, as it may be for its EXIF
            turn = _find_turn(image, origin)
            mask = orient(Image.fromarray(_read_numbers(image) // factor), turn)
            return [_encode(mask, origin, size) for size in sizes]
    except ImageError as error:
        if error.code.startswith("mask"):
            raise
        raise ImageError("mask_unreadable", f"{error.code}, {error.detail}") from error


def _find_factor(image: Image.Image) -> np.uint8:
    raw = {str(tile[3]).rstrip("IR") for tile in getattr(image, "tile", ())}
    return next((np.uint8(factor) for mode, factor in _FACTORS.items() if mode in raw), np.uint8(1))


def _read_numbers(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The numbers in a mask as Pillow gives them: uint8 (height, width).

    Raises:
        ImageError: it has several channels, or larger numbers.
    """
    if image.mode not in _MODES:
        raise ImageError("mask_unreadable", f"mode {image.mode}: a mask has one channel of numbers")
    numbers = np.asarray(image)
    if is_negative(image) and image.mode in ("1", "L"):
        numbers = ~numbers  # Pillow has turned them round, to show 0 as white
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high > MAX_NUMBER:
        raise ImageError("mask_unreadable", f"numbers from {low} to {high}, not 0 to {MAX_NUMBER}")
    return numbers.astype(np.uint8)


def _find_turn(image: Image.Image, origin: Origin) -> int:
    """By which orientation a mask is turned upright: its own one, or that of its image.

    Raises:
        ImageError: it has another size than its image then.
    """
    size = image.height, image.width
    turn = read_turn(image)
    if turn == 1:
        raw = origin.size[::-1] if origin.orientation >= 5 else origin.size
        turn = origin.orientation if size == raw else 1
    elif image.format == "TIFF":
        turn = 1  # it is upright: Pillow has turned it
    if (size[::-1] if turn >= 5 else size) != origin.size:
        raise _describe_size(image, origin)
    return turn


def _describe_size(image: Image.Image, origin: Origin) -> ImageError:
    shown = f"{image.height}x{image.width} pixels, its image has {origin.height}x{origin.width}"
    return ImageError("mask_size", shown)


def _encode(mask: Image.Image, origin: Origin, options: ConvertOptions) -> bytes:
    geometry = fit_upright(origin.size, options)
    scaled = scale(mask, origin.size, geometry, Image.Resampling.NEAREST)
    file = io.BytesIO()
    pad(scaled, geometry.canvas, options.mask_padding).save(file, "PNG", compress_level=6)
    return file.getvalue()
