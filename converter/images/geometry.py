"""Which part of an image lands where: crop, scale and pad, for its pixels and for its boxes.

Sizes are (height, width), as in NumPy and TensorFlow.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from PIL import Image

from converter.format.schema import BOXES, Column, is_of_boxes
from converter.images.pixels import turn_size
from converter.options import ConvertOptions

Size: TypeAlias = tuple[int, int]
Box: TypeAlias = tuple[float, float, float, float]  # top, left, bottom, right

_MAX_SIDE: Final = 1e300  # also refuses whole numbers that no float can hold
# The orientations in which rows or columns of the file are shown in the other direction. From 5 on,
# rows are then shown as columns.
_ROWS_BACKWARD: Final = (3, 4, 6, 7)
_COLUMNS_BACKWARD: Final = (2, 3, 7, 8)

_FRACTIONS: Final = ("yolo", "yxyx")  # boxes in fractions of the image's size, not in pixels


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """How one image becomes another."""

    crop: tuple[int, int, int, int]  # (top, left, height, width) of what is kept, in source pixels
    scaled: Size  # what this part is scaled to
    canvas: Size  # of the result; `scaled` is centred on it


def fit_image(size: Size, options: ConvertOptions) -> Geometry:
    """Computes the geometry of one upright image.

    `crop` cuts as `keras.utils.image_dataset_from_directory(crop_to_aspect_ratio=True)` does,
    to the pixel, and `pad` fills up as its `pad_to_aspect_ratio` does, to within one.
    """
    target, most = options.image_size, math.inf if options.enlarge else 1.0
    height, width = size
    whole = (0, 0, height, width)
    match options.resize:
        case "none":
            return Geometry(crop=whole, scaled=size, canvas=size)
        case "stretch":
            return Geometry(crop=whole, scaled=target, canvas=target)
        case "crop":
            return Geometry(crop=_center_crop(size, target), scaled=target, canvas=target)
        case "pad":
            factor = min(target[0] / height, target[1] / width, most)
            return Geometry(crop=whole, scaled=_multiply(size, factor), canvas=target)
    side = min(size) if options.resize == "shorter" else max(size)
    scaled = _multiply(size, min(target[0] / side, most))
    return Geometry(crop=whole, scaled=scaled, canvas=scaled)


def choose_interpolation(geometry: Geometry, options: ConvertOptions) -> Image.Resampling:
    """The filter for an image that shrinks, or for one that is enlarged."""
    _, _, height, width = geometry.crop
    enlarged = geometry.scaled[0] * geometry.scaled[1] > height * width
    name = (options.enlarge_interpolation if enlarged else None) or options.interpolation
    return Image.Resampling[name.upper()]


def scale(
    image: Image.Image, size: Size, geometry: Geometry, interpolation: Image.Resampling
) -> Image.Image:
    """Crops and scales an image of `size`, which may have been decoded at a fraction of it."""
    down, right = image.height / size[0], image.width / size[1]
    top, left, height, width = geometry.crop
    box = (left * right, top * down, (left + width) * right, (top + height) * down)
    if (down, right) == (1, 1) and (height, width) != size:
        # `resize` would let pixels beside a box bleed into its edge; Keras crops first, too.
        image, box = image.crop((left, top, left + width, top + height)), (0, 0, width, height)
    scaled = (geometry.scaled[1], geometry.scaled[0])
    return image if image.size == scaled else image.resize(scaled, interpolation, box=box)


def pad(image: Image.Image, size: Size, level: int = 0) -> Image.Image:
    """Centres an image on an opaque canvas, all of whose channels have one level."""
    canvas = (size[1], size[0])
    if image.size == canvas:
        return image
    color = (level, level, level, 255) if image.mode == "RGBA" else level
    padded = Image.new(image.mode, canvas, color)
    padded.paste(image, ((canvas[0] - image.width) // 2, (canvas[1] - image.height) // 2))
    return padded


def parse_box(box: Any, box_format: str) -> Box:
    """Four numbers in a format of `ConvertOptions.box_format`; a `ValueError` without an area."""
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"box {box!r:.60} is not a list of four numbers")
    # JSON may hold NaN and Infinity, and `True` is an int, too.
    if not all(type(side) in (int, float) and abs(side) <= _MAX_SIDE for side in box):
        raise ValueError(f"box {box!r:.60} does not hold four numbers")
    one, two, three, four = map(float, box)
    match box_format:
        case "xyxy":
            parsed = two, one, four, three
        case "xywh":
            parsed = two, one, two + four, one + three
        case "yolo":
            parsed = two - four / 2, one - three / 2, two + four / 2, one + three / 2
        case _:
            parsed = one, two, three, four
    top, left, bottom, right = parsed
    if top >= bottom or left >= right:
        raise ValueError(f"box {box!r:.60} has no area, read as {box_format}")
    return parsed


def fit_boxes(
    columns: Sequence[Column],
    values: list[Any],
    size: Size,
    options: ConvertOptions,
    orientation: int = 1,
) -> list[Any]:
    """Replaces the boxes among the values of a record by those in the stored image.

    Boxes are cut at its edges. A box that lies outside is left out, with all that belongs to it.
    The sides of all boxes come in one list.

    Args:
        columns: what the values are.
        values: of the columns, and where boxes are in pixels of the file, the (height, width) that
            is stated of it behind them, or (0, 0) if none is.
        size: of the upright original.
        options: of the conversion.
        orientation: of EXIF, which turned the original upright.
    """
    found = dict(zip((column.name for column in columns), values, strict=False))
    if BOXES not in found:
        return values
    geometry, in_fractions = fit_image(size, options), options.box_format in _FRACTIONS
    boxes = _turn_boxes(found[BOXES], values[len(columns) :], size, orientation)
    moved = [move_box(box, size, geometry, in_fractions=in_fractions) for box in boxes]
    for name in filter(is_of_boxes, found):
        pairs = zip(found[name], moved, strict=True)
        found[name] = [value for value, box in pairs if box is not None]
    found[BOXES] = [side for box in moved if box is not None for side in box]
    return [*found.values()]


def find_odd_boxes(
    columns: Sequence[Column],
    values: list[Any],
    size: Size,
    options: ConvertOptions,
    orientation: int = 1,
) -> dict[str, int]:
    """Counts what is odd about the boxes of an original, by code of `converter.inventory.NOTES`.

    The arguments are those of `fit_boxes`.
    """
    found = dict(zip((column.name for column in columns), values, strict=False))
    stated = values[len(columns) :]
    boxes = _turn_boxes(found.get(BOXES, []), stated, size, orientation)
    whole = Geometry(crop=(0, 0, *size), scaled=size, canvas=size)
    in_fractions = options.box_format in _FRACTIONS
    moved = [move_box(box, size, whole, in_fractions=in_fractions) for box in boxes]
    known = (size, turn_size(size, orientation), (0, 0))
    odd = {"box_outside": moved.count(None), "box_size": sum(tuple(s) not in known for s in stated)}
    return {code: count for code, count in odd.items() if count}


def _turn_boxes(
    boxes: Sequence[Box], stated: Sequence[Sequence[int]], size: Size, orientation: int
) -> Sequence[Box]:
    """Boxes in the upright original, from those that may be in pixels of its file.

    They are that if any size is stated, unless it is that of the upright image alone.
    """
    unturned = turn_size(size, orientation)
    if not stated or orientation == 1 or tuple(stated[0]) == size != unturned:
        return boxes
    return [_turn_box(box, unturned, orientation) for box in boxes]


def _turn_box(box: Box, size: Size, orientation: int) -> Box:
    """Turns a box in a file of that size as EXIF says that its image is turned."""
    (height, width), (top, left, bottom, right) = size, box
    if orientation in _ROWS_BACKWARD:
        top, bottom = height - bottom, height - top
    if orientation in _COLUMNS_BACKWARD:
        left, right = width - right, width - left
    return (left, top, right, bottom) if orientation >= 5 else (top, left, bottom, right)


def move_box(box: Box, size: Size, geometry: Geometry, *, in_fractions: bool) -> Box | None:
    """The box in fractions of the stored image; None if it lies outside.

    `box` is in fractions of the upright original, or in its pixels; `size` is the original's.
    """
    top, left, height, width = geometry.crop
    sides = []
    for axis, (begin, length) in enumerate(((top, height), (left, width))):
        unit = size[axis] if in_fractions else 1
        factor = geometry.scaled[axis] / length
        margin = (geometry.canvas[axis] - geometry.scaled[axis]) // 2  # as `pad` rounds it
        for side in (box[axis] * unit, box[axis + 2] * unit):
            inside = min(max(side - begin, 0), length)
            sides.append((inside * factor + margin) / geometry.canvas[axis])
    y_min, y_max, x_min, x_max = sides
    return (y_min, x_min, y_max, x_max) if y_min < y_max and x_min < x_max else None


def _center_crop(size: Size, target: Size) -> tuple[int, int, int, int]:
    height = max(1, min(size[0], int(size[1] * target[0] / target[1])))
    width = max(1, min(size[1], int(size[0] * target[1] / target[0])))
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def _multiply(size: Size, factor: float) -> Size:
    height, width = (max(1, round(side * factor)) for side in size)
    return height, width
