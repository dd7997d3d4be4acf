"""Converts the bytes of one image file to the bytes that are stored."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from PIL import Image

from converter.costs import enter
from converter.errors import ImageError
from converter.images.copies import COPIED, can_copy
from converter.images.geometry import (
    Size,
    choose_interpolation,
    fit_upright,
    measure_draft,
    pad,
    scale,
)
from converter.images.limits import has_several_frames
from converter.images.openers import (
    name_format,
    open_checked,
    open_image,
    verify_png,
    wrap_decoder_errors,
)
from converter.images.pixels import (
    MODES,
    find_transform,
    flatten,
    has_alpha,
    has_wide_samples,
    orient,
    read_orientation,
    read_pending_orientation,
    turn_size,
)
from converter.options import HELD_BY, MAX_SIDE_PIXELS, ConvertOptions


class Origin(NamedTuple):
    """What is known of an original, or of one of its frames.

    `height` and `width` are those of the upright image, in pixels, and `orientation` is the EXIF
    orientation that was applied. `animated` says that the file has several frames or pages,
    `profiled` that its colours are converted to sRGB from another ICC profile.
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
"""An image, or the reason why there is none."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StoredImage:
    """An image as it goes into a record.

    `data` is the encoded image, or for the format `raw` its uint8 pixels (height, width, channels).
    """

    data: bytes
    format: str
    height: int
    width: int
    channels: int = 3
    origin: Origin = UNKNOWN


def convert_image(data: bytes, options: ConvertOptions) -> StoredImage:
    """Converts one image file.

    Memory peaks at about 5 bytes a decoded pixel, 12 where the image is transparent or has samples
    of 16 bits or more, 16 for a WebP (measured).

    Args:
        data: the file's content.
        options: size, resize mode, interpolation, encoding and quality.

    Raises:
        ImageError: the image is refused; `code` is one of `REJECT_CODES`.
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
    with wrap_decoder_errors(), open_checked(data, sizes[0]) as image:
        opened = OpenedImage(image, data, sizes[0], draft=True, alone=len(sizes) == 1)
        return convert_opened(opened, sizes)


def convert_opened(opened: OpenedImage, sizes: Sequence[ConvertOptions]) -> list[Converted]:
    """`convert_sizes` for an image that is opened and checked already."""
    outcomes: list[Converted] = []
    for options in sizes:
        try:
            with wrap_decoder_errors():
                outcomes.append(_copy(opened, options) or _transform(opened, options))
        except ImageError as error:  # noqa: PERF203 (sizes fail separately)
            outcomes.append(error.strip())
    return outcomes


def decode_image(data: bytes, options: ConvertOptions, *, draft: bool = True) -> Image.Image:
    """Decodes and resizes one image without encoding it, with `draft` as `convert_image` does."""
    with open_image(data, options.formats) as image:
        return _resize(OpenedImage(image, data, options, draft=draft, alone=True), options)


class OpenedImage:
    """An opened image, decoded once for all sizes that need the same fraction of it.

    `draft` lets JPEGs be decoded at a fraction of their size, and `alone` says that there is only
    one size. `animated` says whether there are several frames, where that is known. `failure` is
    what Pillow said when decoding failed, or empty.
    """

    def __init__(
        self,
        image: Image.Image,
        data: bytes,
        options: ConvertOptions,
        *,
        draft: bool,
        alone: bool,
        animated: bool | None = None,
    ) -> None:
        self.image, self.data, self.options, self.alone = image, data, options, alone
        self.may_draft = draft and image.format in ("JPEG", "MPO")
        self.is_wide = has_wide_samples(image)  # before EXIF is read, which may load it
        self.orientation = read_pending_orientation(image)
        height, width = turn_size((image.height, image.width), self.orientation)
        self.origin = Origin(
            format=name_format(image),
            height=height,
            width=width,
            orientation=read_orientation(image) if image.format == "TIFF" else self.orientation,
            animated=has_several_frames(image, data) if animated is None else animated,
            profiled=find_transform(image, options) is not None,
        )
        self.failure = ""
        self._upright: dict[Size, tuple[Image.Image, bool]] = {}

    def load(self) -> None:
        """Decodes the whole image; raises whatever Pillow raises, every time."""
        if self.failure:  # Pillow reports damage once, and then shows what it has
            raise ImageError("decode_error", self.failure)
        try:
            self.image.load()
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"
            raise

    def decode(self, least: Size | None) -> tuple[Image.Image, bool]:
        """The upright image, of the `least` size or larger, and whether it is to be flattened.

        A colour profile alone is left for later, because it costs less on fewer pixels. All else
        that flattening does has to come before resizing.
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
        """The image, set up for libjpeg to decode it at half its size or less if that will do."""
        rows, columns = turn_size(least, self.orientation)
        if min(self.image.width // columns, self.image.height // rows) < 2:
            return self.image
        image = self.image if self.alone else open_image(self.data, self.options.formats)
        image.draft(None, (columns, rows))
        return image


def check_image(image: StoredImage, *, decode: bool) -> None:
    """Checks that a stored image can be read, and has the size that is stated.

    Args:
        image: what a record holds.
        decode: decode the whole image, not just its header.

    Raises:
        ImageError: it cannot, or has another size.
    """
    stated = image.height, image.width
    if image.format == "raw":
        size = image.height * image.width * image.channels
        if len(image.data) != size:
            raise ImageError("decode_error", f"{len(image.data)} raw bytes, expected {size}")
        return
    if image.format not in COPIED.values():
        raise ImageError("not_an_image", f"stored as {image.format[:20]!r}, which is unsupported")
    with (
        wrap_decoder_errors(),
        Image.open(io.BytesIO(image.data), formats=[image.format.upper()]) as opened,
    ):
        found, bands = (opened.height, opened.width), len(opened.getbands())
        if decode and found == stated:
            if opened.format == "PNG":
                verify_png(image.data)
            opened.load()
    if bands != image.channels:
        raise ImageError("decode_error", f"{bands} channels, stated are {image.channels}")
    if found != stated:
        pixels, expected = ("{}x{}".format(*size) for size in (found, stated))
        raise ImageError("decode_error", f"{pixels} pixels, stated are {expected}")


def _check_sides(size: Size) -> None:
    if max(size) > MAX_SIDE_PIXELS:
        raise ImageError("too_large", f"{size[1]}x{size[0]}: a side is over {MAX_SIDE_PIXELS}")


def _copy(opened: OpenedImage, options: ConvertOptions) -> StoredImage | None:
    """The file itself, if it is what is asked for."""
    origin, size = opened.origin, opened.origin.size
    upright = opened.orientation == 1 and not opened.is_wide and not origin.animated
    if not upright or origin.profiled or fit_upright(size, options).canvas != size:
        return None
    _check_sides(size)
    if not can_copy(opened.image, opened.data, options):
        return None
    opened.load()  # a truncated file must not be copied
    return _store(opened, options, opened.data, COPIED[str(opened.image.format)], size)


def _transform(opened: OpenedImage, options: ConvertOptions) -> StoredImage:
    encoding = options.encoding
    if encoding == "keep":
        encoding = _choose_encoding(str(opened.image.format), options)
    pixels = _resize(opened, options)
    enter("encode")
    data = _encode(pixels, encoding, options.quality)
    return _store(opened, options, data, encoding, (pixels.height, pixels.width))


def _store(
    opened: OpenedImage, options: ConvertOptions, data: bytes, encoding: str, size: Size
) -> StoredImage:
    return StoredImage(
        data=data,
        format=encoding,
        height=size[0],
        width=size[1],
        channels=options.channels,
        origin=opened.origin,
    )


def _choose_encoding(source_format: str, options: ConvertOptions) -> str:
    """The encoding of the source, or the nearest one that holds the colour mode."""
    encoding = COPIED.get(source_format, "jpeg" if source_format == "MPO" else "png")
    return encoding if encoding in HELD_BY[options.color_mode] else "png"


def _resize(opened: OpenedImage, options: ConvertOptions) -> Image.Image:
    size = opened.origin.size
    geometry = fit_upright(size, options)
    _check_sides(geometry.canvas)
    interpolation = choose_interpolation(geometry, options)
    # A fraction of a JPEG averages pixels, which `nearest` must not do.
    draft = opened.may_draft and interpolation != Image.Resampling.NEAREST
    upright, plain = opened.decode(measure_draft(geometry, size) if draft else None)
    enter("convert")
    scaled = scale(upright, size, geometry, interpolation)
    return pad(flatten(scaled, options) if plain else scaled, geometry.canvas)


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
