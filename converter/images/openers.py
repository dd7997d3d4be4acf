"""Opens images by their content, never by name: in the formats asked for, within the limits.

Pillow has more than forty readers, one of which starts Ghostscript. Only those of
`converter.image_options` can be reached, and of these only the formats asked for.
"""

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
from converter.image_options import FORMATS, ImageOptions, check_file_size
from converter.images.geometry import Size
from converter.images.pixels import has_wide_samples, read_grey_factor, read_tag
from converter.inventory import reject

# A decoder's warnings only make noise in a conversion of a million files.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

_NAMES: Final = {each.pillow: name for name, each in FORMATS.items()}

# How the files of each format begin: the place of the signature, and what it may be.
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

# A JPEG usually has up to ten scans. One of 17 bytes can go through the whole image.
_MAX_SCANS: Final = 100

_PNG_RATIO: Final = 1032  # one byte of deflate becomes this many bytes at most
_JPEG_RATIO: Final = 512  # one byte becomes this many pixels at most: a bit for each block of 8x8

_TILE_SIDES: Final = (322, 323)  # tags of a TIFF's header: the width and the height of its tiles
_PNG_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples of a pixel, by colour type

# Markers of a JPEG: frames with Huffman coding, those of them that are not progressive, a scan.
_HUFFMAN: Final = frozenset({0xC0, 0xC1, 0xC2})
_SEQUENTIAL: Final = (0xC0, 0xC1)
_SCAN: Final = 0xDA


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
    """`open_image` within the limits of the options, and with right checksums if it is a PNG."""
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
        raise reject("empty")
    check_file_size(len(data), options.max_file_bytes)
    # Pillow's own limit gives way to ours, which is checked as soon as the header is read.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, options.max_pixels)
    return open_image(data, options.formats)


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
    """Registers readers with Pillow, by its names; a `UsageError` if one is not installed."""
    # Otherwise `Image.open` would import every reader that Pillow has.
    for name in formats:
        try:
            module: Any = importlib.import_module(FORMATS[name].module)
        except ImportError as error:
            raise UsageError(
                f"format {name} cannot be read here: {error}; pip install pillow-heif, or leave "
                "it out of --formats"
            ) from error
        if name == "heif":
            module.register_heif_opener(thumbnails=False)
    # The reader of JPEGs opens MPOs.
    return sorted({"JPEG" if name == "mpo" else FORMATS[name].pillow for name in formats})


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
    check_filters((height, width), options)


def check_filters(size: Size, options: ImageOptions) -> None:
    """Raises an `ImageError` for an image of a size that the options leave out."""
    short, long = sorted(size)
    if short < options.min_side:
        raise ImageError("filtered_side", f"{short} pixels, at least {options.min_side}")
    if short * long < options.min_area:
        raise ImageError("filtered_area", f"{short * long:,} pixels, at least {options.min_area:,}")
    if options.max_aspect is not None and long > options.max_aspect * short:
        raise ImageError("filtered_aspect", f"{long}:{short}, at most {options.max_aspect:g} to 1")


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


def _is_animated(image: Image.Image) -> bool:
    return bool(getattr(image, "is_animated", False))


def _check_png(data: bytes) -> None:
    # Behind the signature of 8 bytes lies u32 length | "IHDR" | u32 width | u32 height
    # | u8 bits a sample | u8 colour type.
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    row = (width * data[24] * _PNG_CHANNELS.get(data[25], 1) + 7) // 8
    if row * height > _PNG_RATIO * len(data):
        raise ImageError("implausible", f"{width}x{height} pixels in {len(data):,} bytes of PNG")


def _check_jpeg(data: bytes, pixels: int) -> None:
    if pixels > _JPEG_RATIO * len(data) and is_huffman(data):
        raise ImageError("implausible", f"{pixels:,} pixels in {len(data):,} bytes of JPEG")
    if _has_one_scan(data):
        return
    # Within a scan, FF is never followed by DA.
    scans = data.count(b"\xff\xda")
    if scans > _MAX_SCANS:
        raise ImageError("too_slow", f"{scans:,} scans, at most {_MAX_SCANS}")


def _has_one_scan(data: bytes) -> bool:
    """Whether the first scan of a sequential JPEG has all components, and so is the last."""
    places = dict(_list_markers(data))
    frame = next((places[marker] for marker in _SEQUENTIAL if marker in places), None)
    scan = places.get(_SCAN)
    return frame is not None and scan is not None and data[frame + 9] == data[scan + 4]


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


def _check_tiles(image: Image.Image, options: ImageOptions) -> None:
    # A tile is decoded whole, however little of the image it holds.
    limit = options.max_pixels
    width, height = (read_tag(image, number, 0) for number in _TILE_SIDES)
    if width * height > limit:
        raise ImageError("too_large", f"tiles of {width}x{height} pixels, at most {limit:,}")


def _scale_transparent_color(image: Image.Image) -> None:
    # Pillow scales the pixels of a PNG to 8 bits, but not the transparent colour (12.3), which
    # then matches other pixels or none.
    key = image.info.get("transparency")
    if isinstance(key, tuple) and has_wide_samples(image):
        image.info["transparency"] = tuple(sample >> 8 for sample in key)
    elif isinstance(key, int) and image.mode == "L":
        image.info["transparency"] = key * read_grey_factor(image)


def is_image(head: bytes) -> bool:
    """Whether bytes begin like an image that no text begins like."""
    return _find_signature(head) not in ("", "bmp", "ppm", "ico")


def begins_like_image(data: bytes) -> bool:
    """Whether bytes begin like a file of a known format; text rarely does."""
    name = _find_signature(data)
    # Two bytes are the beginning of many a word.
    return name != "" and (name != "bmp" or data[6:10] == bytes(4))


def _find_signature(data: bytes) -> str:
    """The format of a file that begins like this; empty if it is none of those above."""
    found = (name for name, at, signatures in _SIGNATURES if data.startswith(signatures, at))
    return next(found, "")


def _describe_unidentified(data: bytes, formats: tuple[str, ...]) -> ImageError:
    name = _find_signature(data)
    if not name:
        return ImageError("not_an_image", f"begins with {data[:8]!r}")
    if name not in formats:
        return _describe_other_format(name)
    return ImageError("decode_error", f"this {name} is damaged, or of a kind that cannot be read")


def _describe_other_format(name: str) -> ImageError:
    return ImageError("other_format", f"{name}, which is not among the formats asked for")
