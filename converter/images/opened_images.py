"""An opened image: what its header tells, and its pixels, decoded once for all sizes."""

import math
import os
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from PIL import Image

from converter.costs import enter
from converter.errors import ImageError
from converter.image_options import FORMATS, SUFFIXES
from converter.images import corrections, openers, pixels, truncation
from converter.images.geometry import Geometry, Size, choose_interpolation, pad, scale
from converter.names import find_file
from converter.options import ConvertOptions

# A JPEG is decoded at 1/2, 1/4 or 1/8 if that is still this many times the target size. On 192
# camera photos to 256 pixels, 2 keeps 41 dB against a full decode, at twice the speed; 1.5 is 2.6
# times as fast, but falls to 37 dB.
DRAFT_FACTOR: Final = 2

# Cameras name an MPO like a JPEG.
_USUAL: Final = {name: each.suffixes for name, each in FORMATS.items()}
_USUAL["mpo"] += FORMATS["jpeg"].suffixes


class Origin(NamedTuple):
    """What is known of an original, or of one of its frames."""

    format: str = ""
    height: int = 0  # of the upright image, in pixels
    width: int = 0
    orientation: int = 1  # of EXIF, which was applied
    animated: bool = False  # the file has several frames or pages
    profiled: bool = False  # colours are converted to sRGB from another ICC profile
    doubts: str = ""  # the codes of notes about its samples, with spaces between them
    rows: int = 0  # of the file, before the image is turned upright
    decoded_rows: int = 0  # of these, the ones whose data is not missing

    @property
    def size(self) -> Size:
        return self.height, self.width


class OpenedImage:
    """An opened image or frame, decoded once for all sizes that need the same fraction of it."""

    def __init__(
        self, image: Image.Image, data: bytes, sizes: Sequence[ConvertOptions], *, framed: bool
    ) -> None:
        filled = None if framed else truncation.fill_jpeg(image, data, sizes[0])
        self.is_filled = filled is not None
        if filled:
            data = filled.data
            image = openers.open_image(data, sizes[0].formats)
        self.image, self.data, self.sizes, self.options = image, data, sizes, sizes[0]
        self.failure = ""  # what Pillow said when decoding failed
        self._doubts: list[str] | None = None  # until the image is loaded
        self.is_wide = pixels.has_wide_samples(image)  # before EXIF is read, which may load it
        doubts = corrections.prepare(image, data)
        stated, self.orientation = pixels.read_orientations(image)
        height, width = pixels.turn_size((image.height, image.width), self.orientation)
        rows, _ = pixels.turn_size((height, width), stated)
        self.origin = Origin(
            format=openers.name_format(image),
            height=height,
            width=width,
            orientation=stated,
            # To ask means to decode two frames of a GIF.
            animated=framed or openers.has_several_frames(image, data),
            profiled=pixels.find_transform(image, self.options) is not None,
            doubts=" ".join([*(filled.doubts if filled else ()), *doubts, *self._find_doubts()]),
            rows=rows,
            decoded_rows=filled.rows if filled else rows,
        )
        # A draft may open the file again, at its first frame.
        self._may_draft = not framed and image.format in ("JPEG", "MPO")
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
        if self._doubts is None:
            self._doubts = corrections.correct(self.image, self.data, is_wide=self.is_wide)

    def _find_doubts(self) -> list[str]:
        if corrections.needs_pixels(self.image, is_wide=self.is_wide):
            self.load()
        return self._doubts or []

    def resize(self, geometry: Geometry, options: ConvertOptions) -> Image.Image:
        """The pixels as they are stored in one of the sizes."""
        size, interpolation = self.origin.size, choose_interpolation(geometry, options)
        # A fraction of a JPEG averages pixels, which `nearest` must not do.
        draft = self._may_draft and interpolation != Image.Resampling.NEAREST
        upright, plain = self._decode(self._draft(geometry) if draft else self.image)
        enter("convert")
        scaled = scale(upright, size, geometry, interpolation)
        return pad(pixels.flatten(scaled, options) if plain else scaled, geometry.canvas)

    def _draft(self, geometry: Geometry) -> Image.Image:
        """The image, set up for libjpeg to decode it at half its size or less if that will do."""
        _, _, height, width = geometry.crop
        rows = math.ceil(DRAFT_FACTOR * geometry.scaled[0] * self.origin.height / height)
        columns = math.ceil(DRAFT_FACTOR * geometry.scaled[1] * self.origin.width / width)
        rows, columns = pixels.turn_size((rows, columns), self.orientation)
        if min(self.image.width // columns, self.image.height // rows) < 2:
            return self.image
        alone = len(self.sizes) == 1  # otherwise the next one may need all pixels
        image = self.image if alone else openers.open_image(self.data, self.options.formats)
        image.draft(None, (columns, rows))
        return image

    def _decode(self, image: Image.Image) -> tuple[Image.Image, bool]:
        """An image upright, and whether it is still to be flattened."""
        if image.size not in self._upright:
            enter("decode")
            (self if image is self.image else image).load()
            enter("convert")
            upright = pixels.orient(image, self.orientation)
            # A colour profile alone is left for later, because it costs less on fewer pixels. All
            # else that flattening does has to come before resizing.
            target = pixels.MODES[self.options.color_mode]
            plain = upright.mode == target and not pixels.has_alpha(upright)
            upright = upright if plain else pixels.flatten(upright, self.options)
            self._upright[image.size] = upright, plain
        return self._upright[image.size]


def examine_image(data: bytes, options: ConvertOptions) -> Origin:
    """Reads the header of an original; raises an `ImageError` if it cannot be converted."""
    with openers.wrap_decoder_errors(), openers.open_checked(data, options) as image:
        return OpenedImage(image, data, [options], framed=False).origin


def list_traits(path: str, origin: Origin, options: ConvertOptions) -> Iterator[str]:
    """The codes of `converter.inventory.NOTES` that apply to an image, or to a frame."""
    suffix = os.path.splitext(find_file(path, options.frames))[1].lower()
    # Of an image from a data set, the path is that of its first original.
    is_named = options.source != "shardmill" and suffix in SUFFIXES
    if is_named and suffix not in _USUAL.get(origin.format, SUFFIXES):
        yield "wrong_extension"
    if origin.animated and options.frames == "first":
        yield "animated"
    if origin.profiled:
        yield "profile"
    yield from origin.doubts.split()
