"""Which part of an image lands where: the six resize modes as arithmetic on sizes.

Pure numbers, no pixels; sizes are (height, width), as in NumPy and TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """How one image becomes another.

    Attributes:
        crop: (top, left, height, width) of the part that is kept, in source pixels.
        scaled: (height, width) that this part is scaled to.
        canvas: (height, width) of the result; `scaled` is centred on it.
    """

    crop: tuple[int, int, int, int]
    scaled: Size
    canvas: Size


def fit_image(size: Size, target: Size, resize: str, *, enlarge: bool = True) -> Geometry:
    """Computes the geometry of one image.

    `crop` cuts as `keras.utils.image_dataset_from_directory(crop_to_aspect_ratio=True)` does,
    to the pixel, and `pad` fills up as its `pad_to_aspect_ratio` does, to within one.

    Args:
        size: of the image as a person sees it.
        target: the size asked for; of `shorter` and `longer` only its first number counts.
        resize: one of `converter.options.RESIZES`.
        enlarge: whether `pad`, `shorter` and `longer` may make an image larger than it is.
    """
    most = math.inf if enlarge else 1.0
    height, width = size
    whole = (0, 0, height, width)
    match resize:
        case "none":
            return Geometry(crop=whole, scaled=size, canvas=size)
        case "stretch":
            return Geometry(crop=whole, scaled=target, canvas=target)
        case "crop":
            return Geometry(crop=_center_crop(size, target), scaled=target, canvas=target)
        case "pad":
            scale = min(target[0] / height, target[1] / width, most)
            return Geometry(crop=whole, scaled=_scale(size, scale), canvas=target)
    side = min(size) if resize == "shorter" else max(size)
    scaled = _scale(size, min(target[0] / side, most))
    return Geometry(crop=whole, scaled=scaled, canvas=scaled)


def _center_crop(size: Size, target: Size) -> tuple[int, int, int, int]:
    height = max(1, min(size[0], int(size[1] * target[0] / target[1])))
    width = max(1, min(size[1], int(size[0] * target[1] / target[0])))
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def _scale(size: Size, scale: float) -> Size:
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width
