"""What is asked of each image, apart from its size: formats, colour, limits, and what may fail."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Final

from converter.errors import UsageError
from converter.images.formats import DEFAULT_FORMATS, FORMATS

INTERPOLATIONS: Final = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
COLOR_CHANNELS: Final = {"rgb": 3, "grayscale": 1, "rgba": 4}
COLOR_PROFILES: Final = ("srgb", "ignore")
FRAMES: Final = ("first", "all", "reject")
ON_ERRORS: Final = ("reject", "fail")

MAX_PIXELS: Final = 89_478_485
"""Larger images are refused by their header, unread. Pillow's own limit: 256 MiB as RGB."""

MAX_FILE_BYTES: Final = 256 << 20
MAX_SECONDS: Final = 60
MAX_FRAMES: Final = 1_000

POLICIES: Final = ("on_error", "max_rejects", "strict", "isolate", "max_seconds")
"""Options that decide what becomes of a conversion, and not what it writes: they may be others
when it goes on, and are not kept in the data set."""

_COUNTS: Final = (
    "max_frames", "min_side", "min_area", "max_pixels", "max_file_bytes", "max_seconds",
)  # fmt: skip
_COLORS: Final = {"white": "#ffffff", "black": "#000000", "gray": "#808080", "grey": "#808080"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImageOptions:
    """The part of `converter.options.ConvertOptions` that no geometry and no shard is in.

    Attributes:
        formats: what is read, by content: names of `converter.images.formats.FORMATS`.
        color_mode: `rgb`, `grayscale` (one channel) or `rgba`.
        color_profiles: `srgb` converts an image with another ICC profile to sRGB; `ignore` takes
            its numbers as they are.
        background: (red, green, blue) that shows through where an image is transparent.
        frames: of an animation or a file of several pages, take the `first` or `all` of them, each
            as an image of its own, or `reject` it.
        max_frames: so many of a file's frames or pages are taken; what is behind them is left out.
        enlarge: False leaves an image that is smaller than asked for as small as it is.
        enlarge_interpolation: the filter where an image is enlarged; None for `interpolation`.
        min_side: images with a shorter side are left out.
        min_area: images of fewer pixels are left out.
        max_aspect: images whose longer side is more than so many times the shorter one are
            left out; None for no limit.
        max_pixels: larger images are refused by their header. A worker takes up to 16 bytes for
            each of these.
        max_file_bytes: larger files are refused unread.
        on_error: `reject` notes an image that cannot be converted and goes on; `fail` ends the
            conversion there.
        max_rejects: a number of images, or a fraction of them below 1, that may be rejected;
            with more, the data set is complete, but the command ends with exit code 3.
        strict: end before anything is converted where names look alike, the same content lies in
            different classes or splits, masks belong to no image, or files cannot be read.
        isolate: decode in a child process, so that an image at which a decoder crashes or hangs
            is rejected, and costs no more.
        max_seconds: CPU time for one image, where it is isolated.

    Raises:
        UsageError: a value is out of its range.
    """

    formats: tuple[str, ...] = DEFAULT_FORMATS
    color_mode: str = "rgb"
    color_profiles: str = "srgb"
    background: tuple[int, int, int] = (255, 255, 255)
    frames: str = "first"
    max_frames: int = MAX_FRAMES
    enlarge: bool = True
    enlarge_interpolation: str | None = None
    min_side: int = 1
    min_area: int = 1
    max_aspect: float | None = None
    max_pixels: int = MAX_PIXELS
    max_file_bytes: int = MAX_FILE_BYTES
    on_error: str = "reject"
    max_rejects: int | float | None = None
    strict: bool = False
    isolate: bool = False
    max_seconds: int = MAX_SECONDS

    def __post_init__(self) -> None:
        check_formats(self.formats)
        check_choice("color mode", self.color_mode, tuple(COLOR_CHANNELS))
        check_choice("color profiles", self.color_profiles, COLOR_PROFILES)
        check_choice("frames", self.frames, FRAMES)
        check_choice("on error", self.on_error, ON_ERRORS)
        if self.enlarge_interpolation is not None:
            check_choice("enlarge interpolation", self.enlarge_interpolation, INTERPOLATIONS)
        background: object = self.background  # nobody checks types at run time but we
        if not isinstance(background, tuple) or len(background) != 3:
            raise UsageError(f"background {background!r} is not (red, green, blue)")
        for level in background:
            check_range("background", level, 0, 255)
        for name in ("enlarge", "strict", "isolate"):
            if type(getattr(self, name)) is not bool:
                raise UsageError(f"{name} {getattr(self, name)!r} is neither True nor False")
        for name in _COUNTS:
            check_range(name.replace("_", " "), getattr(self, name), 1, 2**31 - 1)
        _check_number("max aspect", self.max_aspect, 1)
        _check_number("max rejects", self.max_rejects, 0)
        if isinstance(self.max_rejects, float) and self.max_rejects > 1:
            raise UsageError(
                f"max rejects {self.max_rejects} is neither a whole number nor a fraction up to 1"
            )

    @property
    def channels(self) -> int:
        """Of every stored pixel."""
        return COLOR_CHANNELS[self.color_mode]


def parse_formats(text: str) -> tuple[str, ...]:
    """Reads `jpeg,png`, or what is to be added to the usual ones or taken away from them.

    >>> parse_formats("png,jpeg")
    ('jpeg', 'png')
    >>> parse_formats("+jpeg2000,-gif")
    ('jpeg', 'mpo', 'png', 'webp', 'bmp', 'tiff', 'avif', 'jpeg2000')

    Raises:
        UsageError: a format is unknown, or none is left.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    signed = [name for name in names if name[0] in "+-"]
    if signed and len(signed) < len(names):
        raise UsageError(f"formats {text!r} mix names with and without + and -: use one way")
    chosen = set(DEFAULT_FORMATS if signed else names)
    for name in signed:
        check_choice("format", name[1:], tuple(FORMATS))
        (chosen.add if name[0] == "+" else chosen.discard)(name[1:])
    for name in chosen:
        check_choice("format", name, tuple(FORMATS))
    return check_formats(tuple(name for name in FORMATS if name in chosen))


def parse_color(text: str) -> tuple[int, int, int]:
    """Reads a colour: `white`, `black`, `gray`, `#rrggbb` or `r,g,b`.

    >>> parse_color("#ff8000")
    (255, 128, 0)

    Raises:
        UsageError: `text` is none of these.
    """
    spelt = _COLORS.get(text.lower(), text)
    if match := re.fullmatch(r"#([0-9a-fA-F]{6})", spelt):
        red, green, blue = bytes.fromhex(match[1])
        return red, green, blue
    if match := re.fullmatch(r"(\d{1,3}),(\d{1,3}),(\d{1,3})", spelt):
        red, green, blue = (int(level) for level in match.groups())
        if max(red, green, blue) <= 255:
            return red, green, blue
    raise UsageError(f"{text!r} is not a colour: write white, black, gray, #rrggbb or r,g,b")


def parse_share(text: str) -> int | float:
    """Reads a number of images, or a share of them in percent.

    >>> parse_share("10"), parse_share("2.5%")
    (10, 0.025)

    Raises:
        UsageError: `text` is neither.
    """
    match = re.fullmatch(r"(\d{1,12})|(\d{1,3}(?:\.\d{1,6})?)%", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is neither a number of images, such as 10, nor a share: 2.5%")
    return int(match[1]) if match[1] else float(match[2]) / 100


def check_formats(names: Any) -> tuple[str, ...]:
    """Makes sure that something is a choice of formats, and gives it back.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(names, tuple) or not names:
        raise UsageError(f"formats {names!r} are not a tuple of one name or more")
    for name in names:
        check_choice("format", name, tuple(FORMATS))
    return names


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Makes sure that a value is one of some names.

    Raises:
        UsageError: it is not.
    """
    if value not in choices:
        raise UsageError(f"{name} {value!r} is unknown: choose one of {', '.join(choices)}")


def check_range(name: str, value: object, low: int, high: int) -> None:
    """Makes sure that a value is a whole number between two others, or one of them.

    Raises:
        UsageError: it is not.
    """
    if type(value) is not int:
        raise UsageError(f"{name} {value!r} is not a whole number")
    if not low <= value <= high:
        raise UsageError(f"{name} {value} is out of range: {low} to {high}")


def _check_number(name: str, value: object, low: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} {value!r} is not a number")
    if not low <= value < float("inf"):
        raise UsageError(f"{name} {value} is out of range: {low} or more")
