"""Opens images of the formats asked for: by content, and never by name.

Pillow has more than forty readers, one of which starts Ghostscript. Only those of
`converter.images.formats` can be reached, and of these only those that are asked for.
"""

from __future__ import annotations

import functools
import importlib
import io
from typing import Any, Final

from PIL import Image, UnidentifiedImageError

from converter.errors import ImageError, UsageError
from converter.images.formats import FORMATS

_NAMES: Final = {each.pillow: name for name, each in FORMATS.items()}

_KEY_FACTORS: Final = {"L;2": 85, "L;4": 17}

_SIGNATURES: Final = (
    ("jpeg", 0, (b"\xff\xd8\xff",)),
    ("png", 0, (b"\x89PNG\r\n\x1a\n",)),
    ("webp", 8, (b"WEBP",)),
    ("gif", 0, (b"GIF87a", b"GIF89a")),
    ("bmp", 0, (b"BM",)),
    ("tiff", 0, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("avif", 4, (b"ftypavif", b"ftypavis")),
    ("jpeg2000", 0, (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
    ("ppm", 0, (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"PF", b"Pf")),
    ("ico", 0, (b"\0\0\1\0",)),
    ("heif", 4, (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypmif1", b"ftypmsf1")),
)


def open_image(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    """Reads the header of an image that has one of these formats.

    Raises:
        ImageError: it has none of them: `other_format` if it is known, else `not_an_image`.
        UsageError: what reads one of the formats is not installed.
        Exception: whatever Pillow raises on a damaged header.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=register_formats(formats))
    except UnidentifiedImageError:
        raise _describe_other(data, formats) from None
    name = name_format(image)
    if name not in formats:  # what opens JPEGs also opens MPOs
        image.close()
        raise ImageError("other_format", f"{name}, which is not among the formats asked for")
    _mend_key(image)
    return image


def name_format(image: Image.Image) -> str:
    """The format of an opened image, by its name here."""
    return _NAMES[str(image.format)]


@functools.cache
def register_formats(formats: tuple[str, ...]) -> list[str]:
    """Makes Pillow know some formats, and gives its names of them.

    Without it, `Image.open` would import every reader there is to find them.

    Raises:
        UsageError: what reads one of them is not installed.
    """
    for name in formats:
        try:
            module: Any = importlib.import_module(FORMATS[name].module)
        except ImportError as error:
            raise UsageError(
                f"format {name} cannot be read here: {error}; install shardmill[{name}], or leave "
                "it out of --formats"
            ) from error
        if name == "heif":
            module.register_heif_opener(thumbnails=False)
    # An MPO is opened by what opens JPEGs.
    return sorted({"JPEG" if name == "mpo" else FORMATS[name].pillow for name in formats})


def _mend_key(image: Image.Image) -> None:
    """Brings the transparent colour of a PNG to the 8 bits that Pillow brings its pixels to.

    Pillow leaves it as it stands in the file (12.3); without this, it matches other pixels or
    none.
    """
    key = image.info.get("transparency")
    raw = {str(tile[3]) for tile in getattr(image, "tile", ())}
    if isinstance(key, tuple) and any("16" in mode for mode in raw):
        image.info["transparency"] = tuple(sample >> 8 for sample in key)
    elif isinstance(key, int) and image.mode == "L":
        for mode, factor in _KEY_FACTORS.items():
            if mode in raw:
                image.info["transparency"] = key * factor


def _describe_other(data: bytes, formats: tuple[str, ...]) -> ImageError:
    for name, at, signatures in _SIGNATURES:
        if data.startswith(signatures, at):
            if name in formats:
                detail = f"this {name} is damaged, or of a kind that nobody reads"
                return ImageError("decode_error", detail)
            return ImageError("other_format", f"{name}, which is not among the formats asked for")
    return ImageError("not_an_image", f"begins with {data[:8]!r}")
