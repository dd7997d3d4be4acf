"""The frames of an animation, or the pages of a file, each as an image of its own.

They are decoded one after another, because each may be drawn over the ones before it; so a file is
gone through once, and no more than one of them is held.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from converter.errors import ImageError
from converter.images.conversion import (
    Converted,
    Opened,
    convert_opened,
    convert_sizes,
    name_errors,
    open_file,
)
from converter.images.copies import verify_png
from converter.images.limits import check_header, has_frames
from converter.options import ConvertOptions

DRAWN_OVER: Final = ("GIF", "PNG")
"""The formats, by Pillow's names, of which a frame shows what is left of those before it."""


class Frame(NamedTuple):
    """What becomes of one frame.

    Attributes:
        number: from 0; None of an image that is alone in its file.
        images: for each size the image, or why there is none.
    """

    number: int | None
    images: list[Converted]


def convert_frames(data: bytes, sizes: Sequence[ConvertOptions]) -> Iterator[Frame]:
    """Converts what is asked for of a file: its first frame, or all of them, in order.

    A frame that cannot be converted costs itself; and those behind it if nobody can get there, or
    they are drawn over it and it is damaged.
    Frames behind the first `max_frames` are left out together, as one.

    Args:
        data: the file's content.
        sizes: options that differ in nothing but the size.
    """
    try:
        images = None if sizes[0].frames == "all" else convert_sizes(data, sizes)
        if images is None:
            yield from _convert_all(data, sizes)
            return
    except ImageError as error:
        images = [error.strip()] * len(sizes)
    yield Frame(None, images)


def _convert_all(data: bytes, sizes: Sequence[ConvertOptions]) -> Iterator[Frame]:
    options = sizes[0]
    with name_errors():
        image = open_file(data, options)
        several = has_frames(image, data)
        if several and image.format == "PNG":
            check_header(image, data, options)
            verify_png(data)
    if not several:
        image.close()
        yield Frame(None, convert_sizes(data, sizes))
        return
    with image:
        for number in itertools.count():
            try:
                with name_errors():
                    if not _go_to(image, number, options.max_frames):
                        return
            except ImageError as error:
                yield Frame(number, [error.strip()] * len(sizes))
                return
            images, damaged = _convert(image, data, sizes)
            yield Frame(number, images)
            if damaged and image.format in DRAWN_OVER:
                return


def _go_to(image: Image.Image, number: int, limit: int) -> bool:
    """Goes on to a frame; False if there is none."""
    if isinstance(image, GifImageFile):
        image.disposal_method = 0  # of a frame that has none, Pillow takes that of one before
    try:
        image.seek(number)
    except EOFError:
        return False
    if number == limit:
        raise ImageError("filtered_frames", f"this one and all behind it: at most {limit}")
    return True


def _convert(
    image: Image.Image, data: bytes, sizes: Sequence[ConvertOptions]
) -> tuple[list[Converted], bool]:
    """What becomes of the frame that an image is at; and whether it is damaged."""
    try:
        with name_errors():
            check_header(image, data, sizes[0])
            opened = Opened(image, data, sizes[0], draft=False, alone=False)
            return convert_opened(opened, sizes), bool(opened.failure)
    except ImageError as error:
        return [error.strip()] * len(sizes), error.code == "decode_error"
