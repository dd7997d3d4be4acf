"""Pixels as a person sees them: upright, on a background, scaled to 8 bits, in sRGB."""

import contextlib
import functools
import io
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageCms

from converter.errors import ImageError
from converter.image_options import ImageOptions

_Transform: TypeAlias = Callable[[Image.Image], Image.Image]  # converts pixels to sRGB

# Pillow's name of each colour mode.
MODES: Final = {"rgb": "RGB", "grayscale": "L", "rgba": "RGBA"}

MAX_PROFILE_BYTES: Final = 8 << 20  # larger ones are ignored; those of printing presses have 2 MB
_SRGB_LEVELS: Final = 2  # a profile that moves no colour of a grid by more counts as sRGB

# The mode of the pixels that a profile is for, by its colour space.
_PROFILED: Final = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}

_WITH_ALPHA: Final = ("LA", "PA", "La", "RGBA", "RGBa")
_GREY_FACTORS: Final = {"L;2": 85, "L;4": 17}  # they bring 2 and 4 bits to 255: 3 * 85, 15 * 17

# How Pillow names layouts of 16 bits a sample; its `BGR;16` has 16 bits a pixel.
_WIDE: Final = re.compile(r"(?<!BGR);16")

# Tags of a TIFF's header, and a value of the last one. The first is that of EXIF, too.
_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 0x0112, 258, 262, 339
_SIGNED: Final = 2

_TRANSPOSES: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_orientations(image: Image.Image) -> tuple[int, int]:
    """The EXIF orientation that a file states, 1 to 8, and the one that is still to be applied."""
    stated: object = None
    if image.format == "TIFF":
        stated = getattr(image, "tag_v2", {}).get(_ORIENTATION)
    else:
        if image.format == "PNG":
            # Pillow loads a PNG to look for EXIF. It reports damage only once, which is here.
            image.load()
        with contextlib.suppress(Exception):  # broken EXIF says nothing about the pixels
            stated = image.getexif().get(_ORIENTATION)
    valid = stated if isinstance(stated, int) and 1 <= stated <= 8 else 1
    # Pillow turns a TIFF itself while it loads it, and swaps its size before.
    return valid, 1 if image.format == "TIFF" else valid


def turn_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """The (height, width) of an image once it is upright; also the other way round."""
    return size[::-1] if orientation >= 5 else size


def orient(image: Image.Image, orientation: int) -> Image.Image:
    """Turns an image upright."""
    return image if orientation == 1 else image.transpose(_TRANSPOSES[orientation])


def has_alpha(image: Image.Image) -> bool:
    """Whether parts of an image may be transparent."""
    return image.mode in _WITH_ALPHA or "transparency" in image.info


def find_transform(image: Image.Image, options: ImageOptions) -> _Transform | None:
    """What converts the colours of an image to sRGB; None if they count as sRGB already."""
    profile = image.info.get("icc_profile")
    if options.color_profiles == "ignore" or not isinstance(profile, bytes) or not profile:
        return None
    return _build_transform(profile, image.mode) if len(profile) <= MAX_PROFILE_BYTES else None


def flatten(image: Image.Image, options: ImageOptions) -> Image.Image:
    """Converts an image of any mode to the colour mode asked for, or raises an `ImageError`."""
    transform = find_transform(image, options)
    target = MODES[options.color_mode]
    if transform is None and image.mode == target and "transparency" not in image.info:
        image.load()  # no copy; and loading later would bring `info` back
        return image
    image = _reduce(image)
    if has_alpha(image):
        image = _convert_alpha(image, transform)
        if target == "RGBA":
            return image
        canvas = Image.new("RGB", image.size, options.background)
        canvas.paste(image, mask=image)
        image = canvas
    elif transform is not None:
        image = transform(image)
    return image if image.mode == target else image.convert(target)


def _reduce(image: Image.Image) -> Image.Image:
    """Scales samples of more than 8 bits, which `convert` would clip, with the transparent one."""
    key = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        wide = image.convert("I")
        step = 255 / (2 ** read_tag(image, _BITS, 16) - 1)
        grey = wide.point(lambda value: value * step).convert("L")
        if is_negative(image):
            grey = ImageChops.invert(grey)
        if not isinstance(key, int):
            return grey
        grey.info.pop("transparency", None)
        mask = Image.fromarray(np.where(np.asarray(wide) == key, 0, 255).astype(np.uint8))
        return Image.merge("LA", (grey, mask))
    if image.mode in ("I", "F"):
        return _scale_range(image)
    if image.mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        return _convert_to_srgb(lab, "LAB")(image)
    return image


def is_negative(image: Image.Image) -> bool:
    """Whether 0 is white, as it may be in a TIFF. Pillow inverts up to 8 bits a sample itself."""
    return read_tag(image, _PHOTOMETRIC, 1) == 0


def is_inverted(image: Image.Image) -> bool:
    """Whether Pillow inverts grey samples of up to 8 bits: also if a TIFF does not say."""
    return image.format == "TIFF" and read_tag(image, _PHOTOMETRIC, 0) == 0


def is_signed(image: Image.Image) -> bool:
    """Whether a TIFF says that its samples are signed; Pillow shows all of 32 bits as signed."""
    return read_tag(image, _SAMPLE_FORMAT, 1) == _SIGNED


def read_tag(image: Image.Image, number: int, default: int) -> int:
    """A number in the header of a TIFF, or the first of several."""
    value = getattr(image, "tag_v2", {}).get(number, default)
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else default


def has_wide_samples(image: Image.Image) -> bool:
    """Whether the file has up to 16 bits a sample, of which Pillow may keep only the upper 8."""
    for codec, _, _, arguments in getattr(image, "tile", ()):
        if codec in ("ppm", "ppm_plain") and arguments[-1] > 255:  # the highest level
            return True
    return any(_WIDE.search(mode) for mode in _list_raw_modes(image))


def read_grey_factor(image: Image.Image) -> int:
    """The number by which Pillow multiplies grey samples of less than 8 bits."""
    modes = {mode.rstrip("IR") for mode in _list_raw_modes(image)}
    return next((factor for mode, factor in _GREY_FACTORS.items() if mode in modes), 1)


def _list_raw_modes(image: Image.Image) -> set[str]:
    """Pillow's names of the layouts of an image's samples; known only until it is loaded."""
    found = (tile[3] for tile in getattr(image, "tile", ()))
    return {str(each[0] if isinstance(each, tuple) and each else each) for each in found}


def _scale_range(image: Image.Image) -> Image.Image:
    """Scales integers from 0 to 65,535 and fractions from 0 to 1, other values by their range."""
    values = np.asarray(image)
    if image.mode == "I" and not is_signed(image):
        values = values.view(np.uint32)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise ImageError("unsupported_mode", f"mode {image.mode}: not all values are numbers")
    usual = 1.0 if image.mode == "F" else 65_535.0
    if 0 <= low <= high <= usual:
        low, high = 0.0, usual
    scaled = stretch(values, low, high)
    return Image.fromarray(255 - scaled if is_negative(image) and low < high else scaled)


def stretch(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Scales numbers (height, width) from `low` to `high` to 0 to 255; all to 0 without a range."""
    scaled = np.empty(values.shape, np.uint8)
    scale = 255 / (high - low) if low < high else 0.0
    for row, line in zip(scaled, values, strict=True):  # in float64, a row at a time
        np.rint((line.astype(np.float64) - low) * scale, out=row, casting="unsafe")
    return scaled


def _convert_alpha(image: Image.Image, transform: _Transform | None) -> Image.Image:
    converted = image.convert("RGBA")
    converted.info.pop("transparency", None)
    if transform is not None:
        alpha = converted.getchannel("A")
        grey = image.mode in ("LA", "La")
        converted = transform(converted.convert("L" if grey else "RGB"))
        converted.putalpha(alpha)
    return converted


@functools.lru_cache(maxsize=16)  # most images of a data set share a profile
def _build_transform(profile: bytes, mode: str) -> _Transform | None:
    """What converts pixels to sRGB; None if the profile is broken, sRGB, or for other modes."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        wanted = _PROFILED.get(opened.profile.xcolor_space)
        if wanted is None or (wanted == "CMYK") != (mode == "CMYK"):
            return None
        grey = mode in ("1", "L", "LA", "La") or mode.startswith("I;16")
        if wanted == "L" and not grey:
            return None
        convert = _convert_to_srgb(opened, wanted)
        return None if wanted == "RGB" and _keeps_colors(convert) else convert
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, SyntaxError):
        return None


def _convert_to_srgb(profile: ImageCms.ImageCmsProfile, mode: str) -> _Transform:
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")

    def convert(image: Image.Image) -> Image.Image:
        return transform.apply(image if image.mode == mode else image.convert(mode))

    return convert


def _keeps_colors(convert: _Transform) -> bool:
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    difference = np.asarray(convert(Image.fromarray(grid))).astype(int) - grid
    return bool(np.abs(difference).max() <= _SRGB_LEVELS)
