"""Which images are made of those that are stored."""

from __future__ import annotations

import dataclasses

from converter.format.manifest import ImageInfo
from reader.examples.fields import RAW
from reader.plan.options import COLOR_CHANNELS, ReadOptions


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImagePlan:
    """From which images which others are made.

    Attributes:
        stored: what the stored images have in common.
        options: what is asked for.
    """

    stored: ImageInfo
    options: ReadOptions

    @property
    def height(self) -> int | None:
        """Of the images given, or None where they differ."""
        return self.options.image_size[0] if self.options.image_size else self.stored.height

    @property
    def width(self) -> int | None:
        """Of the images given, or None where they differ."""
        return self.options.image_size[1] if self.options.image_size else self.stored.width

    @property
    def channels(self) -> int:
        """Of the images given."""
        return COLOR_CHANNELS[self.options.color_mode]

    @property
    def is_raw(self) -> bool:
        """Whether images are stored without any encoding."""
        return RAW in self.stored.formats

    @property
    def is_resized(self) -> bool:
        """Whether an image is given in another size than it is stored in."""
        return self.height is not None and (
            (self.height, self.width) != (self.stored.height, self.stored.width)
            or self.options.random_crop is not None
        )

    @property
    def resizes_alike(self) -> bool:
        """Whether all images of a batch are resized in the same way."""
        uniform = None not in (self.stored.height, self.stored.width)
        return self.is_resized and uniform and self.options.random_crop is None

    @property
    def decoded_dtype(self) -> str:
        """Of an image when it is decoded and resized: only a resize makes fractions."""
        return self.options.dtype if self.is_resized else "uint8"

    @property
    def values(self) -> int:
        """Of one image as it is given, or of the largest."""
        height, width = self.height or self.stored.max_height, self.width or self.stored.max_width
        return height * width * self.channels

    def lay_out(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """The shape of an image in the data format asked for."""
        first = self.options.data_format == "channels_first"
        return (channels, height, width) if first else (height, width, channels)
