"""Converts an image file, or each frame of an animation, to the bytes that are stored."""

import dataclasses
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import PIL
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

import converter
from converter.costs import enter
from converter.errors import ImageError
from converter.format.examples import ENCODED
from converter.images import openers
from converter.images.geometry import fit_image
from converter.images.opened_images import OpenedImage, Origin
from converter.images.pixels import MODES
from converter.images.record_images import OwnRecord, RecordImage, may_copy
from converter.options import HELD_BY, MAX_SIDE_PIXELS, ConvertOptions

# The formats that can be stored as they are: Pillow's name for each, and ours.
_COPIED: Final = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}

# Pillow's names of the formats whose frames show what is left of those before them.
_DRAWN_OVER: Final = ("GIF", "PNG")

# Pillow ignores the checksum of the last chunk, and shows an image that ends before it.
_PNG_END: Final = b"\0\0\0\0IEND\xaeB`\x82"

# The chunks of a PNG that hold no metadata.
_PLAIN_CHUNKS: Final = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"bKGD", b"cHRM", b"gAMA", b"pHYs", b"sBIT", b"sRGB")
)

# The segments of a JPEG that hold none: how they begin, and how long they are. Then what may hold
# some after the first scan, where Pillow does not look.
_PLAIN_SEGMENTS: Final = {"APP0": (b"JFIF", 14), "APP14": (b"Adobe", 12)}
_LATER_SEGMENT: Final = re.compile(rb"\xff[\xd8\xd9\xe0-\xef\xfe]")

_PLAIN_BYTES: Final = 4096  # a file without metadata is at most this much larger than its pixels

_UNKNOWN: Final = Origin()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StoredImage:
    """An image as it goes into a record."""

    data: bytes  # encoded; for the format `raw`, uint8 pixels (height, width, channels)
    format: str
    height: int
    width: int
    channels: int = 3
    origin: Origin = _UNKNOWN
    record: OwnRecord | None = None  # that it was copied from


Converted: TypeAlias = StoredImage | ImageError
"""An image, or the reason why there is none."""


class Frame(NamedTuple):
    """The outcomes of a frame, one for each size; an image alone in its file has no number."""

    number: int | None
    images: list[Converted]


def name_generator() -> str:
    """The versions that the bytes of a data set depend on."""
    return f"shardmill {converter.__version__}, Pillow {PIL.__version__}"


def convert_image(data: bytes, options: ConvertOptions) -> StoredImage:
    """Converts one image file; raises an `ImageError` if it is refused.

    Memory peaks at about 5 bytes a decoded pixel, 12 where the image is transparent or has samples
    of 16 bits or more, 16 for a WebP (measured).
    """
    (image,) = convert_sizes(data, [options])
    if isinstance(image, ImageError):
        raise image
    return image


def convert_sizes(data: bytes, sizes: Sequence[ConvertOptions]) -> list[Converted]:
    """`convert_image` for options that differ only in their size, each with the bytes as if alone.

    The file is decoded once, a large JPEG once for each fraction of its size that is needed. An
    `ImageError` is raised only if the file is refused for all sizes.
    """
    with openers.wrap_decoder_errors(), openers.open_checked(data, sizes[0]) as image:
        return _convert_opened(OpenedImage(image, data, sizes, framed=False))


def convert_frames(data: bytes, sizes: Sequence[ConvertOptions]) -> Iterator[Frame]:
    """Converts the first frame of a file, or all frames in order, as the options ask.

    A frame that cannot be converted costs only itself, unless the later frames cannot be reached
    or are drawn over a damaged one. Frames after the first `max_frames` are refused as one. Only
    one frame is held in memory. `sizes` are options that differ only in their size.
    """
    number = None
    try:
        if sizes[0].frames != "all":
            yield Frame(None, convert_sizes(data, sizes))
            return
        with openers.wrap_decoder_errors(), openers.open_file(data, sizes[0]) as image:
            if not openers.has_several_frames(image, data):
                yield Frame(None, convert_sizes(data, sizes))
                return
            if image.format == "PNG":
                openers.check_opened(image, data, sizes[0])
            for number in itertools.count():
                if not _seek(image, number, sizes[0].max_frames):
                    return
                images, damaged = _convert_current(image, data, sizes)
                yield Frame(number, images)
                if damaged and image.format in _DRAWN_OVER:
                    return
    except ImageError as error:
        yield Frame(number, [error.strip()] * len(sizes))


def copy_images(data: bytes, sizes: Sequence[ConvertOptions]) -> list[Converted] | None:
    """The image of a record of ours in each size, without opening it; None if that will not do."""
    record = data.record if isinstance(data, RecordImage) else None
    if record is None or not all(may_copy(record, options) for options in sizes):
        return None
    height, width, channels = record.shape
    origin = Origin(record.format, height, width, rows=height, decoded_rows=height)
    image = StoredImage(
        data=record.features[ENCODED][0],
        format=record.format,
        height=height,
        width=width,
        channels=channels,
        origin=origin,
        record=record,
    )
    return [image] * len(sizes)


def check_image(image: StoredImage, *, decode: bool) -> None:
    """Raises an `ImageError` unless a stored image has the size that is stated and can be read.

    Without `decode`, only its header is read.
    """
    stated = image.height, image.width
    if image.format == "raw":
        size = image.height * image.width * image.channels
        if len(image.data) != size:
            raise ImageError("decode_error", f"{len(image.data)} raw bytes, expected {size}")
        return  # there is no header
    if image.format not in _COPIED.values():
        raise ImageError("not_an_image", f"stored as {image.format[:20]!r}, which is unsupported")
    with (
        openers.wrap_decoder_errors(),
        Image.open(io.BytesIO(image.data), formats=[image.format.upper()]) as opened,
    ):
        found, bands = (opened.height, opened.width), len(opened.getbands())
        if decode and found == stated:
            if opened.format == "PNG":
                openers.verify_png(image.data)
            opened.load()
    if bands != image.channels:
        raise ImageError("decode_error", f"{bands} channels, stated are {image.channels}")
    if found != stated:
        pixels, expected = ("{}x{}".format(*size) for size in (found, stated))
        raise ImageError("decode_error", f"{pixels} pixels, stated are {expected}")


def _seek(image: Image.Image, number: int, limit: int) -> bool:
    """Moves on to a frame; False if there is none."""
    if isinstance(image, GifImageFile):
        image.disposal_method = 0  # a frame without one would get that of an earlier frame
    try:
        image.seek(number)
    except EOFError:
        return False
    if number == limit:
        raise ImageError("filtered_frames", f"this one and all behind it: at most {limit}")
    return True


def _convert_current(
    image: Image.Image, data: bytes, sizes: Sequence[ConvertOptions]
) -> tuple[list[Converted], bool]:
    """The outcome of the current frame, and whether it is damaged."""
    try:
        with openers.wrap_decoder_errors():
            openers.check_header(image, data, sizes[0])
            opened = OpenedImage(image, data, sizes, framed=True)
            return _convert_opened(opened), bool(opened.failure)
    except ImageError as error:
        return [error.strip()] * len(sizes), error.code == "decode_error"


def _convert_opened(opened: OpenedImage) -> list[Converted]:
    outcomes: list[Converted] = []
    for options in opened.sizes:
        try:
            with openers.wrap_decoder_errors():
                outcomes.append(_convert(opened, options))
        except ImageError as error:  # noqa: PERF203 (sizes fail separately)
            outcomes.append(error.strip())
    return outcomes


def _convert(opened: OpenedImage, options: ConvertOptions) -> StoredImage:
    geometry = fit_image(opened.origin.size, options)
    height, width = geometry.canvas
    if max(height, width) > MAX_SIDE_PIXELS:
        raise ImageError("too_large", f"{width}x{height}: a side is over {MAX_SIDE_PIXELS}")
    encoding, source = options.encoding, str(opened.image.format)
    if encoding == "keep":
        encoding = _COPIED.get(source, "jpeg" if source == "MPO" else "png")
        if encoding not in HELD_BY[options.color_mode]:
            encoding = "png"  # which holds every mode
    if geometry.canvas == opened.origin.size and _can_copy(opened, encoding, options):
        opened.load()  # a truncated file must not be copied
        data = opened.data
    else:
        pixels = opened.resize(geometry, options)
        enter("encode")
        data = _encode(pixels, encoding, options.quality)
    return StoredImage(
        data=data,
        format=encoding,
        height=height,
        width=width,
        channels=options.channels,
        origin=opened.origin,
    )


def _encode(image: Image.Image, encoding: str, quality: int) -> bytes:
    if encoding == "raw":
        return image.tobytes()
    file = io.BytesIO()
    if image.info:
        # From here Pillow would write the comments and colour profiles of the source.
        image = image.copy()  # other sizes may be made from it
        image.info = {}
    settings = {"compress_level": 6} if encoding == "png" else {"quality": quality}
    image.save(file, encoding.upper(), **settings)
    return file.getvalue()


def _can_copy(opened: OpenedImage, encoding: str, options: ConvertOptions) -> bool:
    """Whether a file of the right size is what is asked for, and can be stored byte for byte."""
    image, origin = opened.image, opened.origin
    unchanged = (
        opened.orientation == 1
        and not (opened.is_filled or opened.is_wide or origin.animated or origin.profiled)
        and encoding == _COPIED.get(str(image.format))
        and image.mode == MODES[options.color_mode]
        and "transparency" not in image.info
        and (image.format != "PNG" or opened.data.endswith(_PNG_END))
        and (image.format != "JPEG" or openers.is_huffman(opened.data))
    )
    return unchanged and (options.encoding == "keep" or _is_plain(image, opened.data))


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """Whether a file holds no metadata, which may say where and by whom it was made."""
    pixels = image.width * image.height * len(image.getbands())
    if len(data) > pixels + _PLAIN_BYTES:
        return False
    if image.format == "JPEG":
        return _is_plain_jpeg(image, data)
    if image.format == "WEBP":
        # "RIFF" | u32 size | "WEBP" | the only chunk: its name | u32 size | content, padded.
        size = int.from_bytes(data[16:20], "little")
        return data[12:16] in (b"VP8 ", b"VP8L") and len(data) == 20 + size + size % 2
    return _PLAIN_CHUNKS.issuperset(_list_chunks(data))


def _is_plain_jpeg(image: Image.Image, data: bytes) -> bool:
    for name, segment in getattr(image, "applist", ()):
        begin, size = _PLAIN_SEGMENTS.get(name, (b"", -1))
        if not segment.startswith(begin) or len(segment) != size:
            return False
    later = _LATER_SEGMENT.search(data, data.index(b"\xff\xda"))
    return later is not None and later.start() == len(data) - 2 and data.endswith(b"\xff\xd9")


def _list_chunks(data: bytes) -> Iterator[bytes]:
    """The names of all chunks of a PNG, also of those behind its end."""
    # A chunk is u32 length | 4 letters | content | u32 checksum, behind a signature of 8 bytes.
    at = 8
    while at < len(data):
        yield data[at + 4 : at + 8]
        at += 12 + int.from_bytes(data[at : at + 4], "big")
