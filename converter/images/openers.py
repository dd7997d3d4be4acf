"""Opens images by their content, never by name: in the formats asked for, within the limits.

Pillow has more than forty readers, one of which starts Ghostscript. Only those of
`converter.image_options` can be reached, and of these only the formats asked for.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import warnings
from collections.abc import Iterator
from typing import Any, Final

from PIL import Image, UnidentifiedImageError

from converter.costs import enter
from converter.errors import ImageError, ShardmillError, UsageError
from converter.image_options import FORMATS, ImageOptions
from converter.images.limits import check_header
from converter.images.pixels import has_wide_samples, read_grey_factor
from converter.inventory import REJECT_CODES

# A decoder's warnings only make noise in a conversion of a million files.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

_NAMES: Final = {each.pillow: name for name, each in FORMATS.items()}

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


@contextlib.contextmanager
def wrap_decoder_errors() -> Iterator[None]:
    """Raises whatever a decoder raises as an `ImageError`; our own errors pass through."""
    try:
        yield
    except (ShardmillError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_large", str(error)) from None
    # On hostile files Pillow raises OSError, ValueError, SyntaxError, IndexError, TypeError and
    # struct.error, and no list of them stays complete.
    except Exception as error:
        raise ImageError("decode_error", f"{type(error).__name__}: {error}") from error


def open_checked(data: bytes, options: ImageOptions) -> Image.Image:
    """Opens an image within the limits of the options, and checks the checksums of a PNG.

    Raises an `ImageError`, or whatever Pillow raises on a damaged header.
    """
    image = open_file(data, options)
    check_opened(image, data, options)
    return image


def check_opened(image: Image.Image, data: bytes, options: ImageOptions) -> None:
    """Checks the header of an image that is not loaded yet and, of a PNG, the checksums."""
    check_header(image, data, options)
    if image.format == "PNG":
        verify_png(data)


def open_file(data: bytes, options: ImageOptions) -> Image.Image:
    """`open_checked` without a check of the header, which is that of the first frame."""
    enter("decode")
    if not data:
        raise ImageError("empty", REJECT_CODES["empty"])
    check_file_size(len(data), options)
    # Pillow's own limit gives way to ours, which is checked as soon as the header is read.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, options.max_pixels)
    return open_image(data, options.formats)


def check_file_size(size_bytes: int, options: ImageOptions) -> None:
    """Raises an `ImageError` for a file that is larger than `max_file_bytes`."""
    limit = options.max_file_bytes
    if size_bytes > limit:
        raise ImageError("too_many_bytes", f"{size_bytes:,} bytes, at most {limit:,}")


def open_image(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    """Reads the header of an image that has one of these formats.

    Raises an `ImageError` for another format, and whatever Pillow raises on a damaged header.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=register_formats(formats))
    except UnidentifiedImageError:
        raise _describe_unidentified(data, formats) from None
    name = name_format(image)
    if name not in formats:  # the reader of JPEGs also opens MPOs
        image.close()
        raise _describe_other_format(name)
    _scale_transparent_color(image)
    return image


def name_format(image: Image.Image) -> str:
    """The format of an opened image, as `FORMATS` names it."""
    return _NAMES[str(image.format)]


def verify_png(data: bytes) -> None:
    """Checks the checksums of a PNG's chunks, which decoding alone does not do."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.verify()


@functools.cache
def register_formats(formats: tuple[str, ...]) -> list[str]:
    """Registers the readers of some formats with Pillow, and returns Pillow's names for them.

    Without it, `Image.open` would import every reader that Pillow has.

    Raises:
        UsageError: the reader of one of them is not installed.
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
    # The reader of JPEGs opens MPOs.
    return sorted({"JPEG" if name == "mpo" else FORMATS[name].pillow for name in formats})


def _scale_transparent_color(image: Image.Image) -> None:
    # Pillow scales the pixels of a PNG to 8 bits, but not the transparent colour (12.3), which
    # then matches other pixels or none.
    key = image.info.get("transparency")
    if isinstance(key, tuple) and has_wide_samples(image):
        image.info["transparency"] = tuple(sample >> 8 for sample in key)
    elif isinstance(key, int) and image.mode == "L":
        image.info["transparency"] = key * read_grey_factor(image)


def _describe_unidentified(data: bytes, formats: tuple[str, ...]) -> ImageError:
    for name, at, signatures in _SIGNATURES:
        if data.startswith(signatures, at):
            if name not in formats:
                return _describe_other_format(name)
            detail = f"this {name} is damaged, or of a kind that nobody reads"
            return ImageError("decode_error", detail)
    return ImageError("not_an_image", f"begins with {data[:8]!r}")


def _describe_other_format(name: str) -> ImageError:
    return ImageError("other_format", f"{name}, which is not among the formats asked for")
