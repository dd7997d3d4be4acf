"""Files that break the rule by which Pillow scales or colours their samples: mended, or noted.

The reference for TIFF is libtiff's `tif_getimage.c`, for the others what browsers and systems show.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImagePalette

from converter.errors import ImageError
from converter.images import pixels

# Tags of a TIFF's header, and values of them.
_BITS, _COMPRESSION, _PHOTOMETRIC, _COLOR_MAP, _INK_SET = 258, 259, 262, 320, 332
_UNCOMPRESSED: Final = 1
_YCBCR: Final = 6
_FAX: Final = (2, 3, 4, 32_771)  # compressions whose 0 is white unless the file says otherwise
_CMYK_INKS: Final = 1

# Of a TGA's header: the byte whose lower half says how many bits of a pixel are alpha.
_TGA_FLAGS: Final = 17

# How the codestream of a JPEG 2000 begins, and how far from there it says how many bits a sample of
# its first channel has: behind the sizes of image and tiles, and the number of channels.
_J2K_BEGIN: Final = b"\xff\x4f\xff\x51"
_J2K_DEPTH: Final = 42

# Systems and browsers show a picture of these formats whose alpha is 0 everywhere.
_OPAQUE: Final = ("BMP", "ICO", "TGA")

_DARK: Final = 4  # samples below this part of their range have probably fewer bits than they claim


def prepare(image: Image.Image, data: bytes) -> list[str]:
    """Corrects what Pillow made of the header of an image that is not loaded yet.

    Returns the codes of `converter.inventory.NOTES` for what stays doubtful. Raises an `ImageError`
    for samples that Pillow would show wrongly.
    """
    if image.format == "TIFF":
        _widen_palette(image)
        _refuse_ycbcr(image)
    elif _is_plain_j2k(image):
        depth = _read_depth(data)
        if depth > 8:  # white wraps around to black (12.3)
            raise ImageError("unsupported_mode", f"{depth} bits a colour in JPEG 2000, at most 8")
    return ["inks"] if image.mode == "CMYK" and _are_inks_unknown(image) else []


def needs_pixels(image: Image.Image, *, is_wide: bool) -> bool:
    """Whether only the loaded image tells what is doubtful about it."""
    signed = image.format == "TIFF" and pixels.is_signed(image)
    wide = is_wide or signed or _holds_wide(image)
    return wide or image.mode == "P" or pixels.has_alpha(image)


def correct(image: Image.Image, data: bytes, *, is_wide: bool) -> list[str]:
    """Corrects the pixels of an image that has just been loaded; returns what `prepare` does."""
    doubts = [*_list_doubts(image, is_wide=is_wide)]
    if image.format == "TIFF":
        _correct_tiff(image)
    elif _is_plain_j2k(image):
        _fill_levels(image, _read_depth(data))
    elif image.format in _OPAQUE and image.mode in ("RGBA", "LA"):
        unused = image.format == "TGA" and data[_TGA_FLAGS] & 15 == 0
        if unused or "transparent" in doubts:
            image.putalpha(255)
    return doubts


def _list_doubts(image: Image.Image, *, is_wide: bool) -> Iterator[str]:
    if image.mode in ("P", "PA") and _leaves_palette(image):
        yield "palette"
    if _leaves_range(image, is_wide=is_wide):
        yield "range"
    if _is_transparent(image):
        yield "transparent"


def _widen_palette(image: Image.Image) -> None:
    levels = getattr(image, "tag_v2", {}).get(_COLOR_MAP)
    # Old writers have levels of 8 bits, not 16. libtiff, too, takes a map for one of these if none
    # is above 255 (`checkcmap`).
    if image.mode in ("P", "PA") and isinstance(levels, tuple) and max(levels) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(levels))


def _refuse_ycbcr(image: Image.Image) -> None:
    # Pillow reads uncompressed YCbCr as RGB with a fourth channel (12.3), and stops at its end only
    # if nothing follows. What is compressed it leaves to libtiff, which shows it rightly.
    tags = (pixels.read_tag(image, tag, _UNCOMPRESSED) for tag in (_PHOTOMETRIC, _COMPRESSION))
    if tuple(tags) == (_YCBCR, _UNCOMPRESSED):
        raise ImageError("decode_error", "a TIFF of uncompressed YCbCr: write it as RGB")


def _correct_tiff(image: Image.Image) -> None:
    header = getattr(image, "tag_v2", {})
    fax = pixels.read_tag(image, _COMPRESSION, _UNCOMPRESSED) in _FAX
    if image.mode in ("1", "L") and _PHOTOMETRIC not in header and not fax:
        image.paste(ImageChops.invert(image))  # Pillow takes 0 for white
    if image.mode == "L" and pixels.is_signed(image):
        values = _view_signed(image)
        low, high = int(values.min()), int(values.max())
        if low < 0:
            image.paste(Image.fromarray(pixels.stretch(values, low, high)))


def _fill_levels(image: Image.Image, depth: int) -> None:
    # Pillow shifts samples of few bits to the top, so that white is 128 where it has one bit.
    if depth < 8:
        most = 2**depth - 1
        levels = [(level >> 8 - depth) * 255 // most for level in range(256)]
        image.paste(image.point(levels * len(image.getbands())))


def _is_plain_j2k(image: Image.Image) -> bool:
    return image.format == "JPEG2000" and image.mode not in ("I;16", "P", "PA")


def _read_depth(data: bytes) -> int:
    """The bits of a sample in a JPEG 2000; 8 if it does not say."""
    at = data.find(_J2K_BEGIN) + _J2K_DEPTH
    return (data[at] & 127) + 1 if _J2K_DEPTH <= at < len(data) else 8


def _are_inks_unknown(image: Image.Image) -> bool:
    if image.format == "TIFF":
        return pixels.read_tag(image, _INK_SET, _CMYK_INKS) != _CMYK_INKS
    # Adobe's programs store inks inverted, and mark the file. Pillow inverts without a mark, too.
    return image.format in ("JPEG", "MPO") and "adobe" not in image.info


def _leaves_palette(image: Image.Image) -> bool:
    palette = image.palette
    highest = int(np.asarray(image.getchannel(0) if image.mode == "PA" else image).max())
    return palette is not None and highest >= len(palette.palette) // len(palette.mode)


def _leaves_range(image: Image.Image, *, is_wide: bool) -> bool:
    """Whether samples of over 8 bits fill a small part of their range, or go beyond it."""
    if _holds_wide(image):
        values = np.asarray(image)
        whole = 2 ** pixels.read_tag(image, _BITS, 16) - 1 if "16" in image.mode else 65_535
        low, high = float(values.min()), float(values.max())
        most = 1.0 if image.mode == "F" else whole
        return not (low >= 0 and most / _DARK < high <= most)
    if image.mode == "L" and image.format == "TIFF" and pixels.is_signed(image):
        return int(_view_signed(image).min()) < 0
    if not is_wide:  # most images: they are not looked at
        return False
    channels = zip(image.getbands(), np.atleast_2d(image.getextrema()), strict=True)
    return all(high <= 255 / _DARK for band, (_, high) in channels if band != "A")


def _holds_wide(image: Image.Image) -> bool:
    """Whether Pillow holds samples of over 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _is_transparent(image: Image.Image) -> bool:
    if not pixels.has_alpha(image):
        return False
    shown = image if "A" in image.getbands() else image.convert("RGBA")
    return bool(shown.getchannel("A").getextrema()[1] == 0)


def _view_signed(image: Image.Image) -> npt.NDArray[np.int8]:
    return np.asarray(image).view(np.int8)
