"""Boxes around the objects of an image: read from a table, and moved as the image is resized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from converter.format.schema import BOX_LABELS, BOXES, Column
from converter.images.geometry import Geometry, Size, fit_upright
from converter.options import ConvertOptions

Box: TypeAlias = tuple[float, float, float, float]
"""Top, left, bottom, right."""

FRACTIONS: Final = ("yolo", "yxyx")
"""The formats whose numbers are fractions of the image's size, not pixels."""


def parse_boxes(value: Any, box_format: str) -> list[Box]:
    """Reads a list of boxes of four numbers, in one of `converter.options.BOX_FORMATS`.

    Raises:
        ValueError: `value` is something else, or a box has no area.
    """
    if not isinstance(value, list):
        message = f"boxes {value!r:.60} are not a list of lists of four numbers"
        raise ValueError(message)  # noqa: TRY004 (the value of a cell, not of an argument)
    return [_parse_box(box, box_format) for box in value]


def fit_boxes(
    columns: Sequence[Column], values: list[Any], size: Size, options: ConvertOptions
) -> list[Any]:
    """Replaces the boxes among the values of a record by those in the stored image.

    Boxes are cut at its edges. A box that lies outside is left out, together with its label.

    Args:
        columns: what the values are.
        values: one for each column.
        size: (height, width) of the upright original.
        options: how it is resized.

    Returns:
        the values, with the sides of all boxes in one list.
    """
    places = {column.name: place for place, column in enumerate(columns)}
    if BOXES not in places:
        return values
    geometry = fit_upright(size, options)
    moved = [
        move_box(box, size, geometry, in_fractions=options.box_format in FRACTIONS)
        for box in values[places[BOXES]]
    ]
    values = [*values]
    values[places[BOXES]] = [side for box in moved if box is not None for side in box]
    if BOX_LABELS in places:
        labels = zip(values[places[BOX_LABELS]], moved, strict=True)
        values[places[BOX_LABELS]] = [label for label, box in labels if box is not None]
    return values


def move_box(box: Box, size: Size, geometry: Geometry, *, in_fractions: bool) -> Box | None:
    """The box in fractions of the stored image; None if it lies outside.

    `box` is in fractions of the upright original, or in its pixels; `size` is the original's.
    """
    top, left, height, width = geometry.crop
    sides = []
    for axis, (begin, length) in enumerate(((top, height), (left, width))):
        unit = size[axis] if in_fractions else 1
        scale = geometry.scaled[axis] / length
        pad = (geometry.canvas[axis] - geometry.scaled[axis]) // 2
        for side in (box[axis] * unit, box[axis + 2] * unit):
            inside = min(max(side - begin, 0), length)
            sides.append((inside * scale + pad) / geometry.canvas[axis])
    y_min, y_max, x_min, x_max = sides
    return (y_min, x_min, y_max, x_max) if y_min < y_max and x_min < x_max else None


def _parse_box(box: Any, box_format: str) -> Box:
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"box {box!r:.60} is not a list of four numbers")
    if not all(type(side) in (int, float) and math.isfinite(side) for side in box):
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
