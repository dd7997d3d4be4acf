"""One image file's bytes become the bytes that are stored: decode, orient, resize, encode."""

from __future__ import annotations

import dataclasses
import io
import math
import warnings
from typing import Final

from PIL import Image, UnidentifiedImageError

# Registers these, so that `Image.open` does not import every plugin there is to find them.
from PIL import AvifImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401  # isort: skip

from converter.errors import ImageError
from converter.geometry import Geometry, Size, fit_image
from converter.options import MAX_SIDE_PIXELS, ConvertOptions

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""The only Pillow plugins that ever see a file; the content decides, not its name.

MPO, a JPEG with more pictures behind it, comes with JPEG.
"""

MAX_PIXELS: Final = 89_478_485
"""Larger images are refused by their header, unread. Pillow's own limit: 256 MiB as RGB."""

REJECT_CODES: Final = {
    "empty": "the file has no bytes",
    "vanished": "the file is gone since the images were listed",
    "changed": "the file changed since the images were listed, or while it was read",
    "unreadable": "the file cannot be read",
    "not_an_image": "the content is no image of a known format",
    "too_large": f"over {MAX_PIXELS:,} pixels, or a stored side of over {MAX_SIDE_PIXELS:,}",
    "unsupported_mode": "32-bit integer or float pixels, whose range nobody states",
    "decode_error": "the image is truncated or damaged",
}
"""Why an image is not in the data set, by the code in `rejects.jsonl`."""

BACKGROUND: Final = (255, 255, 255)
"""Shows through where an image is transparent."""

DRAFT_FACTOR: Final = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 if that still is this many times the size asked for.

On 192 camera photos to 256 pixels: 2 keeps 41 dB against a full decode at twice the speed; 1.5
is 2.6 times as fast, but falls to 37 dB.
"""

_PNG_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
"""Pillow looks at no checksum of the last chunk, and shows an image that ends before it."""

_COPIED: Final = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}

# What a decoder finds odd is no news in a conversion of a million files.
warnings.filterwarnings("ignore", module=r"PIL\.")


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

    Memory peaks at about 5 bytes a decoded pixel, 16 where the image is transparent (measured).

    Args:
        data: the file's content.
        options: size, resize mode, interpolation, encoding and quality.
        draft: decode large JPEGs at a fraction of their size where that is enough.

    Raises:
        ImageError: the image is refused; `code` is one of `REJECT_CODES`.
    """
    if not data:
        raise ImageError("empty", REJECT_CODES["empty"])
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.size)
            if image.format == "PNG":
                _verify(data)
            return _copy(image, data, options) or _transform(image, options, draft=draft)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError("not_an_image", f"begins with {data[:8]!r}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_large", str(error)) from None
    # On hostile files Pillow raises OSError, ValueError, SyntaxError, IndexError, TypeError and
    # struct.error, and no list of them stays complete.
    except Exception as error:
        raise ImageError("decode_error", f"{type(error).__name__}: {error}") from error


def decode_image(data: bytes, options: ConvertOptions, *, draft: bool = True) -> Image.Image:
    """Decodes and resizes one image without encoding it: what `convert_image` stores, as RGB."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return _resize(image, options, draft=draft)


def measure_upright(data: bytes) -> Size:
    """Height and width of an image that can be decoded, as a person sees it."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        return (width, height) if _read_orientation(image) >= 5 else (height, width)


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
            if decode and (height, width) == (image.height, image.width):
                if opened.format == "PNG":
                    _verify(image.data)
                opened.load()
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError("decode_error", f"{type(error).__name__}: {error}") from error
    if (height, width) != (image.height, image.width):
        stated = f"{image.height}x{image.width}"
        raise ImageError("decode_error", f"{height}x{width} pixels, stated are {stated}")


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError("too_large", f"{size[0]}x{size[1]} pixels, at most {MAX_PIXELS:,}")


def _verify(data: bytes) -> None:
    """Checks the checksums of a PNG's chunks, which decoding alone does not do."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.verify()


def _check_sides(size: Size) -> None:
    if max(size) > MAX_SIDE_PIXELS:
        raise ImageError("too_large", f"{size[1]}x{size[0]}: a side is over {MAX_SIDE_PIXELS}")


def _copy(image: Image.Image, data: bytes, options: ConvertOptions) -> StoredImage | None:
    """The file itself, where `keep` asks for nothing that it is not already."""
    width, height = image.size
    unchanged = (
        options.encoding == "keep"
        and image.format in _COPIED
        and image.mode == "RGB"
        and "transparency" not in image.info
        and _read_orientation(image) == 1
        and getattr(image, "n_frames", 1) == 1
        and (image.format != "PNG" or data.endswith(_PNG_END))
        and fit_image((height, width), options.image_size, options.resize).canvas == (height, width)
    )
    if not unchanged:
        return None
    _check_sides((height, width))
    image.load()  # a truncated file must not be copied
    return StoredImage(data=data, format=_COPIED[str(image.format)], height=height, width=width)


def _transform(image: Image.Image, options: ConvertOptions, *, draft: bool) -> StoredImage:
    source_format = str(image.format)
    pixels = _resize(image, options, draft=draft)
    encoding = options.encoding
    if encoding == "keep":
        encoding = _COPIED.get(source_format, "jpeg" if source_format == "MPO" else "png")
    width, height = pixels.size
    data = _encode(pixels, encoding, options.quality)
    return StoredImage(data=data, format=encoding, height=height, width=width)


def _resize(image: Image.Image, options: ConvertOptions, *, draft: bool) -> Image.Image:
    orientation = _read_orientation(image)
    turned = orientation >= 5
    width, height = image.size
    size = (width, height) if turned else (height, width)
    geometry = fit_image(size, options.image_size, options.resize)
    _check_sides(geometry.canvas)
    # A fraction is an average of pixels, which `nearest` asks not to take.
    if draft and image.format in ("JPEG", "MPO") and options.interpolation != "nearest":
        _draft(image, size, geometry, turned=turned)
    upright = _flatten(_orient(image, orientation))
    return _apply(upright, size, geometry, Image.Resampling[options.interpolation.upper()])


def _draft(image: Image.Image, size: Size, geometry: Geometry, *, turned: bool) -> None:
    """Lets libjpeg decode at a fraction of the size, if `DRAFT_FACTOR` times the target is left."""
    _, _, height, width = geometry.crop
    rows = math.ceil(DRAFT_FACTOR * geometry.scaled[0] * size[0] / height)
    columns = math.ceil(DRAFT_FACTOR * geometry.scaled[1] * size[1] / width)
    image.draft(None, (rows, columns) if turned else (columns, rows))


def _read_orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none or none that makes sense."""
    if image.format == "TIFF":
        return 1  # Pillow turns a TIFF itself while it loads it, and swaps its size before
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001 (broken EXIF says nothing about the pixels)
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_TRANSPOSES: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orient(image: Image.Image, orientation: int) -> Image.Image:
    if orientation == 1:
        return image
    return image.transpose(_TRANSPOSES[orientation])


def _flatten(image: Image.Image) -> Image.Image:
    """RGB: transparency composited on `BACKGROUND`, 16-bit grey scaled instead of clipped."""
    if image.mode in ("I", "F"):
        raise ImageError(
            "unsupported_mode", f"mode {image.mode}: the range of its values is unknown"
        )
    if image.mode.startswith("I;16"):
        # `convert` would clip: of a 16-bit ramp, 254 of 256 levels would come out white.
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()  # no copy; and loading later would bring `info` back
        return image
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        canvas = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _apply(
    image: Image.Image, size: Size, geometry: Geometry, interpolation: Image.Resampling
) -> Image.Image:
    """Crops, scales and centres `image`, which a draft may have made smaller than `size`."""
    down, right = image.height / size[0], image.width / size[1]
    top, left, height, width = geometry.crop
    box = (left * right, top * down, (left + width) * right, (top + height) * down)
    if (down, right) == (1, 1) and (height, width) != size:
        # `resize` would let pixels beside a box bleed into its edge; Keras crops first, too.
        image, box = image.crop((left, top, left + width, top + height)), (0, 0, width, height)
    scaled = (geometry.scaled[1], geometry.scaled[0])
    if image.size != scaled:
        image = image.resize(scaled, interpolation, box=box)
    canvas = (geometry.canvas[1], geometry.canvas[0])
    if image.size == canvas:
        return image
    padded = Image.new("RGB", canvas)
    padded.paste(image, ((canvas[0] - scaled[0]) // 2, (canvas[1] - scaled[1]) // 2))
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
