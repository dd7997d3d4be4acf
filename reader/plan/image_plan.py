"""How the images a reader gives are made of the stored ones."""

from __future__ import annotations

import dataclasses
from typing import Final

from converter.format.manifest import ImageInfo
from reader.plan.read_options import COLOR_CHANNELS, ReadOptions

# Limits for images that TensorFlow decodes in one call, which takes 0.1 ms, unless a single one is
# larger. Graphs for more images take long to build.
PART_IMAGES: Final = 16
PART_BYTES: Final = 16_000_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImagePlan:
    """The images to give: their size, channels and form, from the stored ones and the options."""

    stored: ImageInfo
    options: ReadOptions

    @property
    def height(self) -> int | None:
        """Height of all images; None where they differ."""
        return self.options.image_size[0] if self.options.image_size else self.stored.height

    @property
    def width(self) -> int | None:
        """Width of all images; None where they differ."""
        return self.options.image_size[1] if self.options.image_size else self.stored.width

    @property
    def channels(self) -> int:
        return COLOR_CHANNELS[self.options.color_mode]

    @property
    def is_resized(self) -> bool:
        """Whether the size may differ from the stored one."""
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
        """The dtype after decoding and resizing: only a resize makes fractions."""
        return self.options.dtype if self.is_resized else "uint8"

    @property
    def values(self) -> int:
        """Values in one image, or in the largest."""
        height, width = self.height or self.stored.max_height, self.width or self.stored.max_width
        return height * width * self.channels

    @property
    def is_quick(self) -> bool:
        """Whether the engine decodes to the same numbers as TensorFlow, and as fast."""
        formats = tuple(self.stored.formats)
        grays = self.channels == 1 and self.stored.channels > 1
        quick = formats == ("jpeg",) or (self.stored.is_raw and not grays)
        return quick and self.options.random_crop is None

    @property
    def part_images(self) -> int:
        """How many images TensorFlow decodes in one call: a power of 2, as most batch sizes are."""
        pixels = self.stored.max_height * self.stored.max_width * self.channels
        fitting = PART_BYTES // (pixels + 4 * self.values * self.is_resized)
        return 1 << max(1, min(PART_IMAGES, fitting)).bit_length() - 1

    def lay_out(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """The shape of an image in the data format asked for."""
        first = self.options.data_format == "channels_first"
        return (channels, height, width) if first else (height, width, channels)
