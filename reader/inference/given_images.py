"""The bytes of an image as someone gives it: by path, as a file, a picture or an array."""

import io
import os
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from converter.errors import ImageError, UsageError
from converter.image_options import check_file_size
from converter.images.openers import wrap_decoder_errors
from converter.images.record_images import wrap_pixels
from converter.storage.locate import expand_home, locate

Given: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | npt.NDArray[Any]
)

FORMATS: Final = ("png", "tiff")
"""Those of the bytes that stand for what was no file."""

_PNG_MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
# Modes that no file holds as they are, and the one with the same pixels.
_ALIKE: Final = {
    "YCbCr": "RGB",
    "HSV": "RGB",
    "RGBX": "RGB",
    "RGBa": "RGBA",
    "PA": "RGBA",
    "La": "LA",
}
_KINDS: Final = "a path, the bytes of a file, a picture of Pillow, or a NumPy array"


def read_given(image: Any, max_file_bytes: int) -> tuple[bytes, bool]:
    """The bytes of an image file, and whether it is one that was given as a file.

    Raises an `ImageError` if it cannot be read, and a `UsageError` if it is nothing of the kind.
    """
    if isinstance(image, str | os.PathLike):
        return _read_file(image, max_file_bytes), True
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image), True
    if isinstance(image, Image.Image):
        return _save_picture(image), False
    if isinstance(image, np.ndarray):
        return _wrap_array(image), False
    raise UsageError(f"{image!r:.60} is no image: give {_KINDS}, or a list of them")


def name_given(image: Any) -> str:
    """What an error says of an image: its path, or nothing."""
    return os.fsdecode(image) if isinstance(image, str | os.PathLike) else ""


def _read_file(path: str | os.PathLike[str], max_file_bytes: int) -> bytes:
    place = locate(expand_home(path))
    try:
        size = place.measure()
        if size is None:
            kind = "a folder: give the files in it" if place.is_dir() else "no such file"
            raise ImageError("missing", f"there is {kind}")
        check_file_size(size, max_file_bytes)
        return place.read_range(0, size) if size else b""
    except FileNotFoundError:
        raise ImageError("missing", "there is no such file") from None
    except (OSError, ValueError) as error:  # a name with a null character is a ValueError
        raise ImageError("unreadable", str(getattr(error, "strerror", None) or error)) from None


def _save_picture(image: Image.Image) -> bytes:
    """A file without loss of the pixels that Pillow has decoded, with their profile and EXIF."""
    file = io.BytesIO()
    with wrap_decoder_errors():
        if image.mode in _ALIKE:
            image = image.convert(_ALIKE[image.mode])
        if image.mode in _PNG_MODES:
            image.save(file, "PNG", compress_level=1, exif=image.getexif())
        else:
            image.save(file, "TIFF", exif=image.getexif())
    return file.getvalue()


def _wrap_array(pixels: npt.NDArray[Any]) -> bytes:
    shape = pixels.shape if pixels.ndim != 2 else (*pixels.shape, 1)
    if pixels.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3, 4) or not pixels.size:
        raise UsageError(
            f"an array of {pixels.dtype} {pixels.shape} is no image: give uint8 (height, width, "
            "channels) of 0 to 255, with 1, 3 or 4 channels"
        )
    height, width, channels = shape
    return wrap_pixels(pixels.tobytes(), height, width, channels)
