"""Notes what is odd about the content of an image that is converted all the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Final

from converter.image_options import FORMATS, SUFFIXES
from converter.images.conversion import OpenedImage, Origin
from converter.images.openers import open_checked, wrap_decoder_errors
from converter.inventory import NoteTally
from converter.names import find_file
from converter.options import ConvertOptions

_USUAL: Final = {name: each.suffixes for name, each in FORMATS.items()}
_USUAL["mpo"] += FORMATS["jpeg"].suffixes  # as cameras name them


def list_traits(path: str, origin: Origin, options: ConvertOptions) -> Iterator[str]:
    """The codes of `converter.inventory.NOTES` that apply to an image, or to a frame."""
    suffix = os.path.splitext(find_file(path, options.frames))[1].lower()
    if suffix in SUFFIXES and suffix not in _USUAL.get(origin.format, SUFFIXES):
        yield "wrong_extension"
    if origin.animated and options.frames == "first":
        yield "animated"
    if origin.profiled:
        yield "profile"


def note_traits(
    paths: Iterable[str], data: bytes, options: ConvertOptions, tally: NoteTally
) -> None:
    """Adds the traits of a file to a tally, under the path of the image or of each frame.

    Raises:
        ImageError: the file cannot be converted.
    """
    origin = examine_image(data, options)
    for path in paths:
        for code in list_traits(path, origin, options):
            tally.add(code, path)


def examine_image(data: bytes, options: ConvertOptions) -> Origin:
    """Reads the header of an original; raises an `ImageError` if it cannot be converted."""
    with wrap_decoder_errors(), open_checked(data, options) as image:
        return OpenedImage(image, data, options, draft=False, alone=True).origin
