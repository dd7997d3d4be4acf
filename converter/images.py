"""One image file's bytes become the bytes that are stored: decode, orient, resize, encode."""

from __future__ import annotations

import dataclasses
import io
import math
import warnings
from typing import Final

from PIL import Image

from converter.costs import enter
from converter.decoders import open_image
from converter.errors import ImageError, ShardmillError
from converter.geometry import Geometry, Size, fit_image
from converter.limits import check_header, is_animated, is_huffman
from converter.options import HELD_BY, MAX_SIDE_PIXELS, ConvertOptions
from converter.pixels import (
    MODES,
    find_transform,
    flatten,
    has_alpha,
    has_wide_samples,
    orient,
    read_orientation,
)
from converter.reasons import REJECT_CODES

DRAFT_FACTOR: Final = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 if that still is this many times the size asked for.

On 192 camera photos to 256 pixels: 2 keeps 41 dB against a full decode at twice the speed; 1.5
is 2.6 times as fast, but falls to 37 dB.
"""

_PNG_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
"""Pillow looks at no checksum of the last chunk, and shows an image that ends before it."""

_COPIED: Final = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}
_PLAIN_SEGMENTS: Final = frozenset(("APP0", "APP14"))
_PLAIN_INFO: Final = frozenset(
    ("aspect", "background", "chromaticity", "dpi", "duration", "gamma", "interlace", "loop",
     "srgb", "timestamp")
)  # fmt: skip
_PLAIN_BYTES: Final = 4096
"""Over its pixels, that a file without metadata may have to be copied."""

# What a decoder finds odd is no news in a conversion of a million files.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StoredImage:
    """An image as it goes into a record.

    Attributes:
        data: the encoded image, or for `raw` its uint8 pixels (height, width, channels).
        format: `jpeg`, `png`, `webp` or `raw`.
        height: in pixels.
        width: in pixels.
        channels: of every pixel.
    """

    data: bytes
    format: str
    height: int
    width: int
    channels: int = 3


def convert_image(data: bytes, options: ConvertOptions, *, draft: bool = True) -> StoredImage:
    """Converts one image file.

    Memory peaks at about 5 bytes a decoded pixel, 12 where the image is transparent or has samples
    of 16 bits or more, 16 for a WebP (measured).

    Args:
        data: the file's content.
        options: size, resize mode, interpolation, encoding and quality.
        draft: decode large JPEGs at a fraction of their size where that is enough.

    Raises:
        ImageError: the image is refused; `code` is one of `REJECT_CODES`.
    """
    enter("decode")
    if not data:
        raise ImageError("empty", REJECT_CODES["empty"])
    if len(data) > options.max_file_bytes:
        raise describe_large_file(len(data), options)
    _let_pass(options.max_pixels)
    try:
        with open_image(data, options.formats) as image:
            check_header(image, data, options)
            if image.format == "PNG":
                _verify(data)
            return _copy(image, data, options) or _transform(image, options, draft=draft)
    except (ShardmillError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_large", str(error)) from None
    # On hostile files Pillow raises OSError, ValueError, SyntaxError, IndexError, TypeError and
    # struct.error, and no list of them stays complete.
    except Exception as error:
        raise ImageError("decode_error", f"{type(error).__name__}: {error}") from error


def describe_large_file(size_bytes: int, options: ConvertOptions) -> ImageError:
    """What is wrong with a file of more bytes than asked for."""
    limit = options.max_file_bytes
    return ImageError("too_many_bytes", f"{size_bytes:,} bytes, at most {limit:,}")


def decode_image(data: bytes, options: ConvertOptions, *, draft: bool = True) -> Image.Image:
    """Decodes and resizes one image without encoding it: what `convert_image` stores."""
    with open_image(data, options.formats) as image:
        return _resize(image, options, draft=draft)


def measure_upright(data: bytes, options: ConvertOptions) -> Size:
    """Height and width of an image that can be decoded, as a person sees it."""
    with open_image(data, options.formats) as image:
        width, height = image.size
        return (width, height) if read_orientation(image) >= 5 else (height, width)


def check_image(image: StoredImage, *, decode: bool) -> None:
    """Makes sure that a stored image is one, of the size that is stated.

    Args:
        image: what a record holds.
        decode: decode all of it, and not its header alone.

    Raises:
        ImageError: it is not.
    """
    if image.format == "raw":
        size = image.height * image.width * image.channels
        if len(image.data) != size:
            raise ImageError("decode_error", f"{len(image.data)} raw bytes, expected {size}")
        return
    if image.format not in _COPIED.values():
        raise ImageError("not_an_image", f"stored as {image.format[:20]!r}, which nobody reads")
    try:
        with Image.open(io.BytesIO(image.data), formats=[image.format.upper()]) as opened:
            width, height = opened.size
            bands = len(opened.getbands())
            if decode and (height, width) == (image.height, image.width):
                if opened.format == "PNG":
                    _verify(image.data)
                opened.load()
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError("decode_error", f"{type(error).__name__}: {error}") from error
    if bands != image.channels:
        raise ImageError("decode_error", f"{bands} channels, stated are {image.channels}")
    if (height, width) != (image.height, image.width):
        stated = f"{image.height}x{image.width}"
        raise ImageError("decode_error", f"{height}x{width} pixels, stated are {stated}")


def _let_pass(max_pixels: int) -> None:
    """Raises Pillow's own limit to ours, which is checked as soon as a header is read."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and limit < max_pixels:
        Image.MAX_IMAGE_PIXELS = max_pixels


def _verify(data: bytes) -> None:
    """Checks the checksums of a PNG's chunks, which decoding alone does not do."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.verify()


def _check_sides(size: Size) -> None:
    if max(size) > MAX_SIDE_PIXELS:
        raise ImageError("too_large", f"{size[1]}x{size[0]}: a side is over {MAX_SIDE_PIXELS}")


def _copy(image: Image.Image, data: bytes, options: ConvertOptions) -> StoredImage | None:
    """The file itself, where nothing is asked for that it is not already."""
    width, height = image.size
    stored = _COPIED.get(str(image.format))
    unchanged = (
        stored is not None
        and stored in HELD_BY[options.color_mode]
        and options.encoding in (stored, "keep")
        and image.mode == MODES[options.color_mode]
        and fit_upright((height, width), options).canvas == (height, width)
        and "transparency" not in image.info
        and not has_wide_samples(image)  # before EXIF is read, which may load it
        and read_orientation(image) == 1
        and not is_animated(image)
        and find_transform(image, options) is None
        and (image.format != "PNG" or data.endswith(_PNG_END))
        and (image.format != "JPEG" or is_huffman(data))
    )
    if stored is None or not unchanged:
        return None
    _check_sides((height, width))
    if options.encoding != "keep" and not _is_plain(image, data):
        return None
    image.load()  # a truncated file must not be copied
    return StoredImage(
        data=data, format=stored, height=height, width=width, channels=options.channels
    )


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """Whether a file holds pixels and no metadata, which may say where and by whom."""
    pixels = image.width * image.height * len(image.getbands())
    if len(data) > pixels + _PLAIN_BYTES:
        return False
    if image.format == "JPEG":
        segments = {name for name, _ in getattr(image, "applist", ())}
        return segments <= _PLAIN_SEGMENTS and data.endswith(b"\xff\xd9")
    if image.format == "WEBP":
        return data[12:15] == b"VP8" and data[15:16] in b" L"
    image.load()  # chunks may also lie behind the pixels
    chunks = getattr(image, "private_chunks", ())
    return not chunks and not getattr(image, "text", ()) and set(image.info) <= _PLAIN_INFO


def _transform(image: Image.Image, options: ConvertOptions, *, draft: bool) -> StoredImage:
    encoding = options.encoding
    if encoding == "keep":
        encoding = _choose_encoding(str(image.format), options)
    pixels = _resize(image, options, draft=draft)
    width, height = pixels.size
    enter("encode")
    data = _encode(pixels, encoding, options.quality)
    return StoredImage(
        data=data, format=encoding, height=height, width=width, channels=options.channels
    )


def _choose_encoding(source_format: str, options: ConvertOptions) -> str:
    """The image's own, or the nearest one that holds the colour mode."""
    encoding = _COPIED.get(source_format, "jpeg" if source_format == "MPO" else "png")
    return encoding if encoding in HELD_BY[options.color_mode] else "png"


def fit_upright(size: Size, options: ConvertOptions) -> Geometry:
    """How an image of that size, as a person sees it, becomes the one that is stored."""
    return fit_image(size, options.image_size, options.resize, enlarge=options.enlarge)


def _resize(image: Image.Image, options: ConvertOptions, *, draft: bool) -> Image.Image:
    orientation = read_orientation(image)
    turned = orientation >= 5
    width, height = image.size
    size = (width, height) if turned else (height, width)
    geometry = fit_upright(size, options)
    _check_sides(geometry.canvas)
    interpolation = _choose_interpolation(geometry, options)
    # A fraction is an average of pixels, which `nearest` asks not to take.
    if draft and image.format in ("JPEG", "MPO") and interpolation != "nearest":
        _draft(image, size, geometry, turned=turned)
    image.load()
    enter("convert")
    upright = orient(image, orientation)
    # A profile costs less on fewer pixels; whatever else is to be done, resizing needs it done.
    profile_alone = upright.mode == MODES[options.color_mode] and not has_alpha(upright)
    if not profile_alone:
        upright = flatten(upright, options)
    scaled = _scale(upright, size, geometry, Image.Resampling[interpolation.upper()])
    return _pad(flatten(scaled, options) if profile_alone else scaled, geometry.canvas)


def _choose_interpolation(geometry: Geometry, options: ConvertOptions) -> str:
    _, _, height, width = geometry.crop
    enlarged = geometry.scaled[0] * geometry.scaled[1] > height * width
    return (options.enlarge_interpolation if enlarged else None) or options.interpolation


def _draft(image: Image.Image, size: Size, geometry: Geometry, *, turned: bool) -> None:
    """Lets libjpeg decode at a fraction of the size, if `DRAFT_FACTOR` times the target is left."""
    _, _, height, width = geometry.crop
    rows = math.ceil(DRAFT_FACTOR * geometry.scaled[0] * size[0] / height)
    columns = math.ceil(DRAFT_FACTOR * geometry.scaled[1] * size[1] / width)
    image.draft(None, (rows, columns) if turned else (columns, rows))


def _scale(
    image: Image.Image, size: Size, geometry: Geometry, interpolation: Image.Resampling
) -> Image.Image:
    """Crops and scales `image`, which a draft may have made smaller than `size`."""
    down, right = image.height / size[0], image.width / size[1]
    top, left, height, width = geometry.crop
    box = (left * right, top * down, (left + width) * right, (top + height) * down)
    if (down, right) == (1, 1) and (height, width) != size:
        # `resize` would let pixels beside a box bleed into its edge; Keras crops first, too.
        image, box = image.crop((left, top, left + width, top + height)), (0, 0, width, height)
    scaled = (geometry.scaled[1], geometry.scaled[0])
    if image.size != scaled:
        image = image.resize(scaled, interpolation, box=box)
    return image


def _pad(image: Image.Image, size: Size) -> Image.Image:
    canvas = (size[1], size[0])
    if image.size == canvas:
        return image
    padded = Image.new(image.mode, canvas, (0, 0, 0, 255) if image.mode == "RGBA" else 0)
    padded.paste(image, ((canvas[0] - image.width) // 2, (canvas[1] - image.height) // 2))
    return padded


def _encode(image: Image.Image, encoding: str, quality: int) -> bytes:
    if encoding == "raw":
        return image.tobytes()
    file = io.BytesIO()
    # Pillow would write comments and colour profiles of the source from here.
    image.info = {}
    if encoding == "png":
        image.save(file, "PNG", compress_level=6)
    else:
        image.save(file, encoding.upper(), quality=quality)
    return file.getvalue()
