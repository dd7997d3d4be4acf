"""Converts the frames of an animation, or the pages of a file, each to images of its own.

They are decoded one after another, because each may be drawn over the ones before it. The file is
read once, and only one frame is held.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from converter.errors import ImageError
from converter.images.conversion import Converted, OpenedImage, convert_opened, convert_sizes
from converter.images.limits import check_header, has_several_frames
from converter.images.openers import check_opened, open_file, wrap_decoder_errors
from converter.options import ConvertOptions

DRAWN_OVER: Final = ("GIF", "PNG")
"""Pillow's names of the formats whose frames show what is left of those before them."""


class Frame(NamedTuple):
    """The outcomes of a frame, one for each size; an image alone in its file has no number."""

    number: int | None
    images: list[Converted]


def convert_frames(data: bytes, sizes: Sequence[ConvertOptions]) -> Iterator[Frame]:
    """Converts the first frame of a file, or all frames in order, as the options ask.

    A frame that cannot be converted costs only itself, unless the later frames cannot be reached
    or are drawn over a damaged one. Frames after the first `max_frames` are refused as one.

    Args:
        data: the file's content.
        sizes: options that differ only in their size.
    """
    try:
        if sizes[0].frames == "all":
            yield from _convert_all(data, sizes)
        else:
            yield Frame(None, convert_sizes(data, sizes))
    except ImageError as error:
        yield Frame(None, [error.strip()] * len(sizes))


def _convert_all(data: bytes, sizes: Sequence[ConvertOptions]) -> Iterator[Frame]:
    options = sizes[0]
    with wrap_decoder_errors():
        image = open_file(data, options)
        several = has_several_frames(image, data)
        if several and image.format == "PNG":
            check_opened(image, data, options)
    if not several:
        image.close()
        yield Frame(None, convert_sizes(data, sizes))
        return
    with image:
        for number in itertools.count():
            try:
                with wrap_decoder_errors():
                    if not _seek(image, number, options.max_frames):
                        return
            except ImageError as error:
                yield Frame(number, [error.strip()] * len(sizes))
                return
            images, damaged = _convert_current(image, data, sizes)
            yield Frame(number, images)
            if damaged and image.format in DRAWN_OVER:
                return


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
        with wrap_decoder_errors():
            check_header(image, data, sizes[0])
            # To ask whether there are several frames means to decode two of a GIF.
            opened = OpenedImage(image, data, sizes[0], draft=False, alone=False, animated=True)
            return convert_opened(opened, sizes), bool(opened.failure)
    except ImageError as error:
        return [error.strip()] * len(sizes), error.code == "decode_error"
