"""One image file's bytes become the bytes that are stored: decode, orient, resize, encode."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from PIL import Image

from converter.costs import enter
from converter.errors import ImageError, ShardmillError
from converter.images.copies import COPIED, is_copy, verify_png
from converter.images.geometry import Geometry, Size, fit_image
from converter.images.limits import check_header, has_frames
from converter.images.openers import name_format, open_image
from converter.images.pixels import (
    MODES,
    find_transform,
    flatten,
    has_alpha,
    has_wide_samples,
    orient,
    read_orientation,
    read_turn,
)
from converter.images.scaling import choose_interpolation, measure_draft, pad, scale
from converter.options import HELD_BY, MAX_SIDE_PIXELS, ConvertOptions
from converter.reasons import REJECT_CODES

# What a decoder finds odd is no news in a conversion of a million files.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class Origin(NamedTuple):
    """What is known of an original, or of one of its frames.

    Attributes:
        format: one of `converter.images.formats.FORMATS`.
        height: in pixels, as a person sees it.
        width: likewise.
        orientation: by which it is turned for that, as EXIF numbers them.
        animated: whether its file has more frames or pages than one.
        profiled: whether its colours are brought to sRGB from another ICC profile.
    """

    format: str = ""
    height: int = 0
    width: int = 0
    orientation: int = 1
    animated: bool = False
    profiled: bool = False

    @property
    def size(self) -> Size:
        return self.height, self.width


UNKNOWN: Final = Origin()


Converted: TypeAlias = "StoredImage | ImageError"
"""What becomes of an image."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StoredImage:
    """An image as it goes into a record.

    Attributes:
        data: the encoded image, or for `raw` its uint8 pixels (height, width, channels).
        format: `jpeg`, `png`, `webp` or `raw`.
        height: in pixels.
        width: in pixels.
        channels: of every pixel.
        origin: what it was made from, where that is known.
    """

    data: bytes
    format: str
    height: int
    width: int
    channels: int = 3
    origin: Origin = UNKNOWN


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
    (image,) = convert_sizes(data, [options], draft=draft)
    if isinstance(image, ImageError):
        raise image
    return image


def convert_sizes(
    data: bytes, sizes: Sequence[ConvertOptions], *, draft: bool = True
) -> list[Converted]:
    """Converts one image file to several sizes, and each to the very bytes of that size alone.

    It is decoded once; but a large JPEG once for each fraction of its size that they take.

    Args:
        data: the file's content.
        sizes: options that differ in nothing but the size.
        draft: as in `convert_image`.

    Returns:
        for each size the image, or why there is none.

    Raises:
        ImageError: there is none of any size.
    """
    with name_errors(), open_checked(data, sizes[0]) as image:
        opened = Opened(image, data, sizes[0], draft=draft, alone=len(sizes) == 1)
        return convert_opened(opened, sizes)


def convert_opened(opened: Opened, sizes: Sequence[ConvertOptions]) -> list[Converted]:
    """Does what `convert_sizes` does with an image that is opened and checked."""
    outcomes: list[Converted] = []
    for options in sizes:
        try:
            with name_errors():
                outcomes.append(_copy(opened, options) or _transform(opened, options))
        except ImageError as error:  # noqa: PERF203 (of each size by itself)
            outcomes.append(error.strip())
    return outcomes


@contextlib.contextmanager
def name_errors() -> Iterator[None]:
    """Makes an `ImageError` of whatever a decoder raises."""
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


def open_checked(data: bytes, options: ConvertOptions) -> Image.Image:
    """Opens an image that stays within all limits, by its header.

    Raises:
        ImageError: it does not.
        Exception: whatever Pillow raises on a damaged header.
    """
    image = open_file(data, options)
    check_header(image, data, options)
    if image.format == "PNG":
        verify_png(data)
    return image


def open_file(data: bytes, options: ConvertOptions) -> Image.Image:
    """Opens a file of images, whatever the first of them is; errors are those of `open_checked`."""
    enter("decode")
    if not data:
        raise ImageError("empty", REJECT_CODES["empty"])
    if len(data) > options.max_file_bytes:
        raise describe_large_file(len(data), options)
    _let_pass(options.max_pixels)
    return open_image(data, options.formats)


def describe_large_file(size_bytes: int, options: ConvertOptions) -> ImageError:
    """What is wrong with a file of more bytes than asked for."""
    limit = options.max_file_bytes
    return ImageError("too_many_bytes", f"{size_bytes:,} bytes, at most {limit:,}")


def decode_image(data: bytes, options: ConvertOptions, *, draft: bool = True) -> Image.Image:
    """Decodes and resizes one image without encoding it: what `convert_image` stores."""
    with open_image(data, options.formats) as image:
        return _resize(Opened(image, data, options, draft=draft, alone=True), options)


class Opened:
    """An opened image, decoded once for all sizes that take the same fraction of it.

    Args:
        image: opened, not loaded.
        data: its file.
        options: of all sizes, in which they do not differ.
        draft: whether JPEGs may be decoded at a fraction of their size.
        alone: whether there is one size only.

    Attributes:
        failure: what Pillow said when it was decoded, or nothing.
    """

    def __init__(
        self, image: Image.Image, data: bytes, options: ConvertOptions, *, draft: bool, alone: bool
    ) -> None:
        self.image, self.data, self.options, self.alone = image, data, options, alone
        self.may_draft = draft and image.format in ("JPEG", "MPO")
        self.is_wide = has_wide_samples(image)  # before EXIF is read, which may load it
        self.orientation = read_orientation(image)
        width, height = image.size
        self.origin = Origin(
            format=name_format(image),
            height=width if self.orientation >= 5 else height,
            width=height if self.orientation >= 5 else width,
            orientation=read_turn(image) if image.format == "TIFF" else self.orientation,
            animated=has_frames(image, data),
            profiled=find_transform(image, options) is not None,
        )
        self.failure = ""
        self._upright: dict[Size, tuple[Image.Image, bool]] = {}

    def load(self) -> None:
        """Decodes all of it. Pillow says only once what is wrong, and then shows what it has.

        Raises:
            ImageError: it went wrong before.
            Exception: whatever Pillow raises.
        """
        if self.failure:
            raise ImageError("decode_error", self.failure)
        try:
            self.image.load()
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"
            raise

    def decode(self, least: Size | None) -> tuple[Image.Image, bool]:
        """The image upright; and whether its colours are still to be flattened.

        That is left to be done if it is a profile alone, which costs less on fewer pixels. Whatever
        else is to be done, resizing needs it done.

        Args:
            least: (height, width) that a fraction has to have; None for all of it.
        """
        image = self._draft(least) if least else self.image
        if image.size not in self._upright:
            enter("decode")
            (self if image is self.image else image).load()
            enter("convert")
            upright = orient(image, self.orientation)
            plain = upright.mode == MODES[self.options.color_mode] and not has_alpha(upright)
            upright = upright if plain else flatten(upright, self.options)
            self._upright[image.size] = upright, plain
        return self._upright[image.size]

    def _draft(self, least: Size) -> Image.Image:
        """The image as libjpeg is to decode it: at half its size, or at less, if that will do."""
        rows, columns = least if self.orientation < 5 else least[::-1]
        if min(self.image.width // columns, self.image.height // rows) < 2:
            return self.image
        image = self.image if self.alone else open_image(self.data, self.options.formats)
        image.draft(None, (columns, rows))
        return image


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
    if image.format not in COPIED.values():
        raise ImageError("not_an_image", f"stored as {image.format[:20]!r}, which nobody reads")
    try:
        with Image.open(io.BytesIO(image.data), formats=[image.format.upper()]) as opened:
            width, height = opened.size
            bands = len(opened.getbands())
            if decode and (height, width) == (image.height, image.width):
                if opened.format == "PNG":
                    verify_png(image.data)
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


def _check_sides(size: Size) -> None:
    if max(size) > MAX_SIDE_PIXELS:
        raise ImageError("too_large", f"{size[1]}x{size[0]}: a side is over {MAX_SIDE_PIXELS}")


def _copy(opened: Opened, options: ConvertOptions) -> StoredImage | None:
    """The file itself, where nothing is asked for that it is not already."""
    size, origin = opened.origin.size, opened.origin
    upright = opened.orientation == 1 and not opened.is_wide and not origin.animated
    if not upright or origin.profiled or fit_upright(size, options).canvas != size:
        return None
    _check_sides(size)
    if not is_copy(opened.image, opened.data, options):
        return None
    opened.load()  # a truncated file must not be copied
    return StoredImage(
        data=opened.data,
        format=COPIED[str(opened.image.format)],
        height=size[0],
        width=size[1],
        channels=options.channels,
        origin=origin,
    )


def _transform(opened: Opened, options: ConvertOptions) -> StoredImage:
    encoding = options.encoding
    if encoding == "keep":
        encoding = _choose_encoding(str(opened.image.format), options)
    pixels = _resize(opened, options)
    width, height = pixels.size
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


def _choose_encoding(source_format: str, options: ConvertOptions) -> str:
    """The image's own, or the nearest one that holds the colour mode."""
    encoding = COPIED.get(source_format, "jpeg" if source_format == "MPO" else "png")
    return encoding if encoding in HELD_BY[options.color_mode] else "png"


def fit_upright(size: Size, options: ConvertOptions) -> Geometry:
    """How an image of that size, as a person sees it, becomes the one that is stored."""
    return fit_image(size, options.image_size, options.resize, enlarge=options.enlarge)


def _resize(opened: Opened, options: ConvertOptions) -> Image.Image:
    size = opened.origin.size
    geometry = fit_upright(size, options)
    _check_sides(geometry.canvas)
    interpolation = choose_interpolation(geometry, options)
    # A fraction is an average of pixels, which `nearest` asks not to take.
    draft = opened.may_draft and interpolation != "nearest"
    upright, plain = opened.decode(measure_draft(geometry, size) if draft else None)
    enter("convert")
    scaled = scale(upright, size, geometry, Image.Resampling[interpolation.upper()])
    return pad(flatten(scaled, options) if plain else scaled, geometry.canvas)


def _encode(image: Image.Image, encoding: str, quality: int) -> bytes:
    if encoding == "raw":
        return image.tobytes()
    file = io.BytesIO()
    if image.info:
        # Pillow would write comments and colour profiles of the source from here.
        image = image.copy()  # others may be made from it
        image.info = {}
    if encoding == "png":
        image.save(file, "PNG", compress_level=6)
    else:
        image.save(file, encoding.upper(), quality=quality)
    return file.getvalue()
