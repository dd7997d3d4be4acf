"""Where the parts of an image lie in the prepared one, and the way back: `Placement`."""

import dataclasses
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from converter.errors import UsageError

Points: TypeAlias = npt.NDArray[np.float64]
Pair: TypeAlias = tuple[float, float]  # for y and for x


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """How an original and its prepared image lie on each other: a scale and a shift for each side.

        prepared = original * scale + offset        for y, and for x

    All are (height, width) or (y, x) in pixels. Positions are those between pixels: the first pixel
    reaches from 0 to 1. The original is upright, as a person sees it: `orientation` says how EXIF
    turned the file, and `PIL.ImageOps.exif_transpose` turns it alike.

    Attributes:
        original: size of the upright original.
        prepared: size of the prepared image.
        scale: pixels of the prepared image for one of the original.
        offset: where the top left corner of the original lies in the prepared image.
        visible: top, left, bottom and right of the part of the original that can be seen there.
        orientation: of EXIF, 1 to 8; 1 if the file is upright.
    """

    original: tuple[int, int]
    prepared: tuple[int, int]
    scale: Pair
    offset: Pair
    visible: tuple[float, float, float, float]
    orientation: int = 1

    def points_to_original(self, points: Any) -> Points:
        """Points (…, 2) of y and x in pixels of the prepared image, in those of the original."""
        moved: Points = (_read(points, 2) - self.offset) / self.scale
        return moved

    def points_from_original(self, points: Any) -> Points:
        """The other way round."""
        moved: Points = _read(points, 2) * self.scale + self.offset
        return moved

    def boxes_to_original(self, boxes: Any) -> Points:
        """Boxes as a model of this data set gives them, in pixels of the original.

        Args:
            boxes: (…, 4): top, left, bottom, right as fractions of the prepared image, as
                `load_dataset(columns=("boxes",))` gives them.

        Returns:
            float64 (…, 4): top, left, bottom, right in pixels of the upright original, cut at the
            edges of what can be seen of it.
        """
        corners = _read(boxes, 4) * (self.prepared * 2)
        moved = (corners - self.offset * 2) / (self.scale * 2)
        return self.cut(moved)

    def boxes_from_original(self, boxes: Any) -> Points:
        """The other way round: what the data set stores of boxes (…, 4) in pixels.

        A box that lies outside becomes one without an area, which the data set leaves out.
        """
        moved = self.cut(_read(boxes, 4)) * (self.scale * 2) + self.offset * 2
        return moved / (self.prepared * 2)

    def mask_to_original(self, mask: Any, fill: int = 0) -> npt.NDArray[Any]:
        """A mask, or any map of the prepared image, in the size of the original.

        Args:
            mask: (height, width) or (height, width, channels) of the prepared image.
            fill: where the original cannot be seen, as it was cropped.

        Returns:
            The same dtype; each pixel has the value of the nearest one.
        """
        values = np.asarray(mask)
        if values.shape[:2] != self.prepared or values.ndim not in (2, 3):
            raise UsageError(
                f"a mask of {values.shape} is not of the prepared image, which is {self.prepared}"
            )
        rows, columns = (self._find_pixels(axis) for axis in (0, 1))
        moved: npt.NDArray[Any] = values[np.ix_(np.maximum(rows, 0), np.maximum(columns, 0))]
        moved[rows < 0], moved[:, columns < 0] = fill, fill
        return moved

    def cut(self, corners: Points) -> Points:
        """Boxes (…, 4) in pixels of the original, cut at the edges of what can be seen."""
        top, left, bottom, right = self.visible
        return np.clip(corners, (top, left, top, left), (bottom, right, bottom, right))

    def _find_pixels(self, axis: int) -> npt.NDArray[np.int64]:
        """The row or column in which each of the original's has its centre; -1 if it is cut off."""
        centers = np.arange(self.original[axis]) + 0.5
        found = np.floor(centers * self.scale[axis] + self.offset[axis]).astype(np.int64)
        seen = (centers > self.visible[axis]) & (centers < self.visible[axis + 2])
        return np.where(seen, np.clip(found, 0, self.prepared[axis] - 1), -1)


def join_placements(first: Placement, then: Placement) -> Placement:
    """The placement of an image that is prepared in one way and then in another."""
    if then.scale == (1, 1) and then.original == then.prepared:
        return first
    corners = first.points_to_original(np.reshape(then.visible, (2, 2))).reshape(4)
    top, left, bottom, right = first.cut(corners).tolist()
    (scale_y, scale_x), (offset_y, offset_x) = then.scale, then.offset
    return dataclasses.replace(
        first,
        prepared=then.prepared,
        scale=(first.scale[0] * scale_y, first.scale[1] * scale_x),
        offset=(first.offset[0] * scale_y + offset_y, first.offset[1] * scale_x + offset_x),
        visible=(top, left, bottom, right),
    )


def _read(values: Any, count: int) -> Points:
    """Numbers (…, `count`) as an array; a `UsageError` if they are not."""
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if numbers.ndim == 0 or numbers.shape[-1] != count:
        what = "points, (…, 2) of y and x" if count == 2 else "boxes, (…, 4) of their sides"
        raise UsageError(f"{values!r:.60} are no {what}")
    return numbers
