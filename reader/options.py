"""What the reading of a data set is asked for: `ReadOptions`."""

from __future__ import annotations

import dataclasses
from typing import Final

from converter.errors import UsageError

LABEL_MODES: Final = ("int", "categorical", "binary", None)
DTYPES: Final = ("float32", "uint8")
INTERPOLATIONS: Final = (
    "bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How a split becomes a `tf.data.Dataset`.

    Attributes:
        batch_size: images a batch; None for single images.
        label_mode: `int` for int32 labels (batch,); `categorical` for float32 one-hot labels
            (batch, classes); `binary` for float32 labels (batch, 1), of two classes only; None
            for images alone.
        dtype: of the images: float32, or uint8 at a quarter of the memory. Both are 0 to 255.
        image_size: (height, width) to resize to; None for the size they are stored in.
        interpolation: for that, one of `tf.image.resize`'s methods.
        shuffle: a new order in every epoch. None shuffles the split `train` and no other.
        seed: makes the orders repeatable; None for other ones in every run.
        drop_remainder: leave out the last, smaller batch, for a static batch dimension.
        max_ram_bytes: what all buffers together may hold.

    Raises:
        UsageError: a value is out of its range.
    """

    batch_size: int | None = 32
    label_mode: str | None = "int"
    dtype: str = "float32"
    image_size: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    shuffle: bool | None = None
    seed: int | None = None
    drop_remainder: bool = False
    max_ram_bytes: int = 512_000_000

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("label_mode", self.label_mode, LABEL_MODES),
            ("dtype", self.dtype, DTYPES),
            ("interpolation", self.interpolation, INTERPOLATIONS),
        ):
            if value not in choices:
                known = ", ".join(repr(choice) for choice in choices)
                raise UsageError(f"{name} {value!r} is unknown: choose one of {known}")
        if self.batch_size is not None and _whole("batch_size", self.batch_size) < 1:
            raise UsageError(f"batch_size {self.batch_size} is out of range: at least 1, or None")
        _whole("max_ram_bytes", self.max_ram_bytes)
        if self.image_size is not None:
            object.__setattr__(self, "image_size", check_image_size(self.image_size))
        if self.seed is not None and not 0 <= _whole("seed", self.seed) < 2**63:
            raise UsageError(f"seed {self.seed} is out of range: 0 to 2**63 - 1")


def check_image_size(size: object) -> tuple[int, int]:
    """A (height, width) from what a caller gave as one.

    Raises:
        UsageError: it is no pair of whole numbers from 1 to 65,535.
    """
    sides = tuple(size) if isinstance(size, tuple | list) else ()
    if len(sides) != 2 or any(type(side) is not int for side in sides):
        raise UsageError(f"image_size {size!r} is not a pair (height, width)")
    if not all(1 <= side <= 65_535 for side in sides):
        raise UsageError(f"image_size {size!r} is out of range: 1 to 65535 pixels")
    return sides[0], sides[1]


def _whole(name: str, value: object) -> int:
    if type(value) is not int:
        raise UsageError(f"{name} {value!r} is not a whole number")
    return value
