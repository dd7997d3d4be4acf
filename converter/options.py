"""What a conversion is asked to do: `ConvertOptions`, and the spelling of sizes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final

from converter.errors import UsageError
from converter.image_options import INTERPOLATIONS, POLICIES, ImageOptions
from converter.image_options import check_choice as _check_choice
from converter.image_options import check_range as _check_range

RESIZES: Final = ("stretch", "crop", "pad", "shorter", "longer", "none")
ENCODINGS: Final = ("jpeg", "png", "webp", "raw", "keep")

HELD_BY: Final = {
    "rgb": ("jpeg", "png", "webp", "raw"),
    "grayscale": ("jpeg", "png", "raw"),
    "rgba": ("png", "raw"),
}
"""The encodings of each colour mode. WebP has no grey, and drops an alpha channel where it is
opaque everywhere, which TensorFlow then refuses to decode as the others."""

MAX_SIDE_PIXELS: Final = 16_383
"""The longest side that all of JPEG (65,535), PNG and WebP (16,383) can hold."""

MAX_SHARDS: Final = 99_999
"""What five digits in a file name can count."""

MIN_SHARD_BYTES: Final = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConvertOptions(ImageOptions):
    """Everything that decides the bytes of a data set, apart from the images themselves.

    The options of `ImageOptions` are among them, and some that decide what becomes of a
    conversion instead: `converter.image_options.POLICIES`.

    Attributes:
        image_size: (height, width) of the stored images in pixels. `shorter` and `longer` need
            both to be equal; `none` ignores it.
        resize: `stretch` ignores the aspect ratio; `crop` fills the size and cuts what sticks
            out, evenly on both sides; `pad` fits inside and fills up with black; `shorter` and
            `longer` bring that side to the size and keep the aspect ratio; `none` leaves every
            image as large as it is.
        interpolation: Pillow's filter of that name. All but `nearest` are antialiased.
        encoding: how pixels are stored. `raw` is uint8 (height, width, channels) without a
            header; `keep` is the source's own encoding. A file that has the size, the mode and
            the encoding asked for is stored as it is, byte for byte; if it holds metadata, such
            as the place where a photograph was taken, only by `keep`.
        quality: 1 to 100, for JPEG and lossy WebP that are encoded anew.
        shard_bytes: the size of a shard that is aimed at.
        num_shards: shards of the largest split; the others get as many records a shard.
            None lets `shard_bytes` decide.
        validation_split: fraction of all images, chosen by a hash of seed and file name, so that
            an image stays in its split when others are added.
        test_split: likewise.
        seed: decides the splits and the order of the records.

    Raises:
        UsageError: a value is out of its range, or two contradict each other.
    """

    image_size: tuple[int, int] = (256, 256)
    resize: str = "stretch"
    interpolation: str = "bilinear"
    encoding: str = "jpeg"
    quality: int = 95
    shard_bytes: int = 128_000_000
    num_shards: int | None = None
    validation_split: float = 0.0
    test_split: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        ImageOptions.__post_init__(self)
        _check_choice("resize", self.resize, RESIZES)
        _check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        _check_choice("encoding", self.encoding, ENCODINGS)
        size: object = self.image_size  # nobody checks types at run time but we
        if not isinstance(size, tuple) or len(size) != 2:
            raise UsageError(f"image size {size!r} is not a pair (height, width)")
        for side in size:
            _check_range("image size", side, 1, MAX_SIDE_PIXELS)
        _check_range("quality", self.quality, 1, 100)
        if type(self.shard_bytes) is not int:
            raise UsageError(f"shard size {self.shard_bytes!r} is not a whole number of bytes")
        if self.shard_bytes < MIN_SHARD_BYTES:
            raise UsageError(
                f"shard size {self.shard_bytes} bytes is too small: at least {MIN_SHARD_BYTES}"
            )
        if self.num_shards is not None:
            _check_range("num shards", self.num_shards, 1, MAX_SHARDS)
        if type(self.seed) is not int:
            raise UsageError(f"seed {self.seed!r} is not a whole number")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed {self.seed} is out of range: 0 to 2**63 - 1")
        self._check_splits()
        self._check_colors()
        if not self.enlarge and self.resize in ("stretch", "crop"):
            raise UsageError(
                f"resize {self.resize} gives every image the same size, so small ones have to be "
                "enlarged: choose pad, shorter, longer or none, or leave them out with min side"
            )
        height, width = self.image_size
        if self.resize in ("shorter", "longer") and height != width:
            raise UsageError(
                f"resize {self.resize} takes one number, not {height}x{width}: "
                "the other side follows from the image"
            )

    def _check_splits(self) -> None:
        for name in ("validation_split", "test_split"):
            fraction = getattr(self, name)
            if isinstance(fraction, bool) or not isinstance(fraction, int | float):
                raise UsageError(f"{name.replace('_', ' ')} {fraction!r} is not a number")
            if not 0 <= fraction < 1:
                raise UsageError(
                    f"{name.replace('_', ' ')} {fraction} is out of range: 0 or more, under 1"
                )
        if self.validation_split + self.test_split >= 1:
            raise UsageError(
                f"validation split {self.validation_split} and test split {self.test_split} "
                "leave nothing to train on: their sum has to stay under 1"
            )

    def _check_colors(self) -> None:
        held = HELD_BY[self.color_mode]
        if self.encoding not in (*held, "keep"):
            raise UsageError(
                f"encoding {self.encoding} cannot hold color mode {self.color_mode}: choose one of "
                f"{', '.join(held)}, keep"
            )

    @property
    def fixed_size(self) -> bool:
        """Whether every stored image has the same height and width."""
        return self.resize in ("stretch", "crop", "pad")

    def to_json(self) -> dict[str, Any]:
        """The options that decide bytes as JSON values, in the order in which they are declared."""
        values = dataclasses.asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if name not in POLICIES
        }

    def policies_to_json(self) -> dict[str, Any]:
        """The other options, likewise."""
        return {name: getattr(self, name) for name in POLICIES}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ConvertOptions:
        """The inverse of `to_json`; other options have their defaults where they are not given.

        Raises:
            UsageError: an option is unknown or has a value that makes no sense.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError(f"unknown option {unknown[0]!r}: known are {', '.join(sorted(known))}")
        tuples: dict[str, Any] = {
            name: tuple(value) for name, value in values.items() if isinstance(value, list)
        }
        return cls(**{**values, **tuples})


def parse_image_size(text: str) -> tuple[int, int]:
    """Reads an image size: one number for both sides, or `HEIGHTxWIDTH`.

    >>> parse_image_size("224x320")
    (224, 320)

    Raises:
        UsageError: `text` is neither.
    """
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text.strip())
    if match is None:
        raise UsageError(
            f"{text!r} is not an image size: write one number, such as 256, or 224x320 for "
            "height x width"
        )
    return int(match[1]), int(match[2] or match[1])
