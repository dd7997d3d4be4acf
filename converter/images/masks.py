"""Masks: images of class numbers, which move with their images and keep their numbers.

A mask has the size of its image, as its file has it or upright. It is turned, cropped, scaled and
padded like the image, but each pixel keeps the number of the nearest one, so that no new numbers
appear.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from converter.errors import ImageError
from converter.images import pixels
from converter.images.geometry import fit_image, pad, scale
from converter.images.opened_images import Origin
from converter.images.openers import check_opened, open_image, wrap_decoder_errors
from converter.options import ConvertOptions

MAX_NUMBER: Final = 255

_MODES: Final = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


def convert_mask(data: bytes, origin: Origin, sizes: Sequence[ConvertOptions]) -> list[bytes]:
    """Converts the mask of the image of that origin, for each size to a PNG of one channel.

    Raises an `ImageError` if it is not a mask, or not of this image.
    """
    options = sizes[0]
    with (
        wrap_mask_errors(),
        wrap_decoder_errors(),
        open_image(data, (*options.formats, "png")) as image,
    ):
        if sorted(image.size) != sorted(origin.size):
            raise _describe_size(image, origin)
        check_opened(image, data, options)
        factor = pixels.read_grey_factor(image)  # before its EXIF is read, which may load it
        turn = _find_turn(image, origin)
        mask = pixels.orient(Image.fromarray(_read_numbers(image) // factor), turn)
        return [_encode(mask, origin, size) for size in sizes]


@contextlib.contextmanager
def wrap_mask_errors() -> Iterator[None]:
    """Raises the `ImageError` of a mask's file with one of the codes for masks."""
    try:
        yield
    except ImageError as error:
        if error.code.startswith("mask"):
            raise
        code = "mask_missing" if error.code == "vanished" else "mask_unreadable"
        raise ImageError(code, f"{error.code}, {error.detail}") from error


def _read_numbers(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The numbers in a mask as Pillow gives them: uint8 (height, width)."""
    if image.mode not in _MODES:
        raise ImageError("mask_unreadable", f"mode {image.mode}: a mask has one channel of numbers")
    numbers = np.asarray(image)
    if pixels.is_inverted(image) and image.mode in ("1", "L"):
        numbers = ~numbers
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high > MAX_NUMBER:
        raise ImageError("mask_unreadable", f"numbers from {low} to {high}, not 0 to {MAX_NUMBER}")
    return numbers.astype(np.uint8)


def _find_turn(image: Image.Image, origin: Origin) -> int:
    """The orientation that turns a mask upright: its own, or that of its image."""
    size = image.height, image.width
    stated, turn = pixels.read_orientations(image)
    if stated == 1 and size == pixels.turn_size(origin.size, origin.orientation):
        turn = origin.orientation
    if pixels.turn_size(size, turn) != origin.size:
        raise _describe_size(image, origin)
    return turn


def _describe_size(image: Image.Image, origin: Origin) -> ImageError:
    shown = f"{image.height}x{image.width} pixels, its image has {origin.height}x{origin.width}"
    return ImageError("mask_size", shown)


def _encode(mask: Image.Image, origin: Origin, options: ConvertOptions) -> bytes:
    geometry = fit_image(origin.size, options)
    scaled = scale(mask, origin.size, geometry, Image.Resampling.NEAREST)
    file = io.BytesIO()
    pad(scaled, geometry.canvas, options.mask_padding).save(file, "PNG", compress_level=6)
    return file.getvalue()
