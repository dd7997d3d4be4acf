"""The options of single images, apart from size: formats, colours, limits, and what may fail."""

import dataclasses
import math
import re
from typing import Any, Final, NamedTuple

from converter.errors import ImageError, UsageError
from converter.option_fields import FAILURES, IMAGES, check_choice, check_values, option
from converter.sizes import parse_bytes


class Format(NamedTuple):
    """A format: Pillow's name for it, the module that registers its reader, and its suffixes."""

    pillow: str
    module: str
    suffixes: tuple[str, ...]


FORMATS: Final = {
    "jpeg": Format("JPEG", "PIL.JpegImagePlugin", (".jpg", ".jpeg", ".jpe", ".jfif")),
    "mpo": Format("MPO", "PIL.MpoImagePlugin", (".mpo",)),
    "png": Format("PNG", "PIL.PngImagePlugin", (".png", ".apng")),
    "webp": Format("WEBP", "PIL.WebPImagePlugin", (".webp",)),
    "gif": Format("GIF", "PIL.GifImagePlugin", (".gif",)),
    "bmp": Format("BMP", "PIL.BmpImagePlugin", (".bmp", ".dib")),
    "tiff": Format("TIFF", "PIL.TiffImagePlugin", (".tif", ".tiff")),
    "avif": Format("AVIF", "PIL.AvifImagePlugin", (".avif",)),
    "jpeg2000": Format("JPEG2000", "PIL.Jpeg2KImagePlugin", (".jp2", ".j2k", ".jpf", ".jpx")),
    "ppm": Format("PPM", "PIL.PpmImagePlugin", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm")),
    "tga": Format("TGA", "PIL.TgaImagePlugin", (".tga",)),
    "ico": Format("ICO", "PIL.IcoImagePlugin", (".ico",)),
    "heif": Format("HEIF", "pillow_heif", (".heic", ".heif", ".hif")),
}
"""By the name that `--formats` takes. An MPO is a JPEG with more pictures behind it."""

DEFAULT_FORMATS: Final = ("jpeg", "mpo", "png", "webp", "gif", "bmp", "tiff", "avif")

# Only files with one of these suffixes are opened. Their content decides on the format; one that is
# not asked for is rejected as `other_format`.
SUFFIXES: Final = frozenset(suffix for each in FORMATS.values() for suffix in each.suffixes)

INTERPOLATIONS: Final = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
COLOR_CHANNELS: Final = {"rgb": 3, "grayscale": 1, "rgba": 4}

MAX_PIXELS: Final = 89_478_485  # Pillow's own limit: 256 MiB as RGB
MAX_FILE_BYTES: Final = 256 << 20

POLICIES: Final = ("on_error", "max_rejects", "strict", "isolate", "max_seconds")
"""Options that decide how a conversion ends, not what it writes. They may change when it is
resumed, and are not stored in the data set."""

_COUNT: Final = (1, 2**31 - 1)
_COLORS: Final = {"white": "#ffffff", "black": "#000000", "gray": "#808080", "grey": "#808080"}


def parse_formats(text: str) -> tuple[str, ...]:
    """Parses a list of formats, or what to add to the default ones and take away from them.

    >>> parse_formats("png,jpg")
    ('jpeg', 'png')
    >>> parse_formats("+jpeg2000,-gif")
    ('jpeg', 'mpo', 'png', 'webp', 'bmp', 'tiff', 'avif', 'jpeg2000')
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    signed = [word[0] in "+-" for word in words]
    if any(signed) and not all(signed):
        raise UsageError(
            f"formats {text!r} mix names with and without + and -: list all, as in png,jpeg, or "
            "change the default, as in +tga,-gif"
        )
    chosen = set(DEFAULT_FORMATS if any(signed) else ())
    for word in words:
        name = spell_format(word[1:] if any(signed) else word)
        check_choice("format", name, tuple(FORMATS))
        (chosen.discard if word[0] == "-" else chosen.add)(name)
    return _check_formats(tuple(name for name in FORMATS if name in chosen))


def parse_color(text: str) -> tuple[int, int, int]:
    """Parses a colour: `white`, `black`, `gray`, `#rrggbb` or `r,g,b`.

    >>> parse_color("#ff8000")
    (255, 128, 0)
    """
    spelled = _COLORS.get(text.lower(), text)
    if match := re.fullmatch(r"#([0-9a-fA-F]{6})", spelled):
        red, green, blue = bytes.fromhex(match[1])
        return red, green, blue
    if match := re.fullmatch(r"(\d{1,3}),(\d{1,3}),(\d{1,3})", spelled):
        red, green, blue = (int(level) for level in match.groups())
        if max(red, green, blue) <= 255:
            return red, green, blue
    raise UsageError(f"{text!r} is not a colour: write white, black, gray, #rrggbb or r,g,b")


def parse_share(text: str) -> int | float:
    """Parses a number of images, or a share of them in percent.

    >>> parse_share("10"), parse_share("2.5%")
    (10, 0.025)
    """
    match = re.fullmatch(r"(\d{1,12})|(\d{1,3}(?:\.\d{1,6})?)%", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is neither a number of images, such as 10, nor a share: 2.5%")
    return int(match[1]) if match[1] else float(match[2]) / 100


def check_file_size(size_bytes: int, max_bytes: int) -> None:
    """Raises an `ImageError` for a file that is larger than `max_file_bytes` allows."""
    if size_bytes > max_bytes:
        raise ImageError("too_many_bytes", f"{size_bytes:,} bytes, at most {max_bytes:,}")


def spell_format(name: Any) -> Any:
    """The name of a format or an encoding as it is stored: `jpeg` for `jpg`."""
    return "jpeg" if isinstance(name, str) and name == "jpg" else name


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImageOptions:
    """The part of `converter.options.ConvertOptions` that is not about geometry or shards.

    Attributes:
        formats: the formats to read, recognised by content: `jpeg,png` for these alone,
            `+jpeg2000,-gif` to add and take away; in Python a tuple of names. Also available are
            ppm, tga, ico and heif.
        color_mode: `rgb`, `grayscale` (one channel) or `rgba`.
        color_profiles: `srgb` converts other ICC profiles to sRGB; `ignore` takes the numbers as
            they are.
        background: what shows through transparent images: white, black, gray, #rrggbb or r,g,b;
            in Python (red, green, blue).
        frames: of an animation or a file of several pages, take the `first` or `all` of them, each
            as an image of its own, or `reject` the file.
        max_frames: how many frames of a file `all` takes; the others are left out.
        truncated: `reject` a JPEG that ends early, or `fill` its missing rows with grey; records
            then say how many rows their files have, and how many of them are real. Other formats
            are always rejected.
        min_decoded: the share of real rows from which on such a JPEG is filled.
        enlarge: False leaves smaller images as small as they are; not with stretch and crop.
        enlarge_interpolation: the filter where an image is enlarged.
        min_side: leave out images with a shorter side, in pixels.
        min_area: leave out images of fewer pixels.
        max_aspect: leave out images whose longer side is more than this many times the shorter.
        max_pixels: reject larger images by their header. A worker takes up to 16 bytes for each
            pixel.
        max_file_bytes: reject larger files unread.
        on_error: `reject` notes an image that cannot be converted in rejects.jsonl and goes on;
            `fail` ends the conversion there.
        max_rejects: how many images, or which share of them, may be rejected; in Python a share is
            a fraction below 1. With more, the data set is complete, but the exit code is 3.
        strict: end before anything is converted if names look alike, the same content lies in
            different classes or splits, masks have no image, or files cannot be read.
        isolate: decode in child processes, so that an image that crashes or hangs a decoder is
            rejected and does no other harm.
        max_seconds: CPU time for an image that is decoded with isolate.

    Raises:
        UsageError: a value is out of its range.
    """

    formats: tuple[str, ...] = option(
        DEFAULT_FORMATS, IMAGES, parse=parse_formats, metavar="LIST",
        shown=",".join(DEFAULT_FORMATS),
    )  # fmt: skip
    color_mode: str = option("rgb", IMAGES, choices=tuple(COLOR_CHANNELS))
    color_profiles: str = option("srgb", IMAGES, choices=("srgb", "ignore"))
    background: tuple[int, int, int] = option(
        (255, 255, 255), IMAGES, limits=(0, 255), parse=parse_color, metavar="COLOR", shown="white",
        misfit="is not (red, green, blue)",
    )  # fmt: skip
    frames: str = option("first", IMAGES, choices=("first", "all", "reject"))
    max_frames: int = option(1_000, IMAGES, limits=_COUNT, metavar="N")
    truncated: str = option("reject", IMAGES, choices=("reject", "fill"))
    min_decoded: float = option(0.5, IMAGES, bounds=(0, 1), metavar="FRACTION")
    enlarge: bool = option(True, IMAGES)
    enlarge_interpolation: str | None = option(
        None, IMAGES, choices=INTERPOLATIONS, shown="the same"
    )
    min_side: int = option(1, IMAGES, limits=_COUNT, metavar="PIXELS")
    min_area: int = option(1, IMAGES, limits=_COUNT, metavar="PIXELS")
    max_aspect: float | None = option(
        None, IMAGES, bounds=(1, math.inf), parse=float, metavar="RATIO", shown="no limit"
    )
    max_pixels: int = option(MAX_PIXELS, IMAGES, limits=_COUNT, metavar="N")
    max_file_bytes: int = option(
        MAX_FILE_BYTES, IMAGES, limits=_COUNT, parse=parse_bytes, metavar="BYTES", shown="256MiB"
    )
    on_error: str = option("reject", FAILURES, choices=("reject", "fail"))
    max_rejects: int | float | None = option(
        None, FAILURES, bounds=(0, math.inf), parse=parse_share, metavar="N|P%", shown="no limit"
    )
    strict: bool = option(False, FAILURES)
    isolate: bool = option(False, FAILURES)
    max_seconds: int = option(60, FAILURES, limits=_COUNT, metavar="S")

    def __post_init__(self) -> None:
        check_values(self)
        formats = tuple(map(spell_format, self.formats))
        object.__setattr__(self, "formats", _check_formats(formats))
        if isinstance(self.max_rejects, float) and self.max_rejects > 1:
            raise UsageError(
                f"max rejects {self.max_rejects} is neither a whole number nor a fraction up to 1: "
                "give 10, or 2.5%, which is 0.025 in Python"
            )

    @property
    def channels(self) -> int:
        """The number of channels of every stored pixel."""
        return COLOR_CHANNELS[self.color_mode]


def _check_formats(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise UsageError(f"formats are empty: name one or more of {', '.join(FORMATS)}")
    for name in names:
        check_choice("format", name, tuple(FORMATS))
    return names
