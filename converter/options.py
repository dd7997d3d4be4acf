"""What a conversion is asked to do: `ConvertOptions`, and the spelling of sizes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final

from converter.errors import UsageError
from converter.image_options import (
    INTERPOLATIONS,
    POLICIES,
    ImageOptions,
    check_choice,
    check_range,
)

RESIZES: Final = ("stretch", "crop", "pad", "shorter", "longer", "none")
ENCODINGS: Final = ("jpeg", "png", "webp", "raw", "keep")
LABEL_SOURCES: Final = ("top", "parent", "none")
SPLIT_CHOICES: Final = ("auto", "yes", "no")
DEDUPES: Final = ("report", "drop", "off")
BOX_FORMATS: Final = ("xyxy", "xywh", "yolo", "yxyx")

COLUMN_OPTIONS: Final = (
    "label_column", "labels_column", "target_column", "caption_column", "boxes_column",
    "box_labels_column", "mask_column", "split_column", "group_column",
)  # fmt: skip
"""The options that name a column of a table which an image may have."""

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
        image_size: (height, width) of the stored images in pixels, or one number for both.
            `shorter` and `longer` need both to be equal; `none` ignores it.
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
        test_split: likewise. Where images have a split already, by folder or by table, the
            fractions are of those in `train`.
        stratify: draw the same fraction of every class, and not only of all images.
        group_by: a pattern in the paths of the images: what it matches is a group, such as a
            patient, that is never divided between splits. `folder` makes each folder one.
        dedupe: of images with the same content: `report` names them and keeps them in one split,
            `drop` converts the first one alone, `off` does not look for them.
        label_from: which folder is the class: `top`, the first below IMAGES or below a split's;
            `parent`, the one that the image lies in; `none`, images have no labels.
        split_folders: whether the folders in IMAGES are splits: `train`, `validation`, `test` and
            other usual names of theirs; `auto` takes them for splits if all have such names.
        class_names: the classes in label order; images of others are left out. None for all, in
            the order of the bytes of their names.
        label_offset: 1 leaves label 0 to an empty class `background`.
        path_column: of a table: paths of the images.
        label_column: name of a class. None for no labels, unless there is a column `label`.
        labels_column: names of any number of classes.
        target_column: a number to be predicted.
        caption_column: a text about the image.
        boxes_column: boxes around objects, four numbers for each.
        box_labels_column: names of classes, one for each box.
        box_format: `xyxy` for left, top, right, bottom and `xywh` for left, top, width, height in
            pixels of the image as a person sees it; `yolo` for centre x, centre y, width, height
            and `yxyx` for top, left, bottom, right in fractions of its size.
        mask_column: path of the image's mask, relative to what the path of the image is.
        split_column: names of splits, as folders have them.
        group_column: what is not to be divided between splits.
        keep_columns: what else is carried into the records.
        table_root: folder or archive that the paths of a table are relative to, itself relative to
            the table's folder.
        mask_dir: folder or archive with a mask for each image, of the same path but for its suffix;
            itself relative to the folder of images, or to that of an archive.
        mask_padding: the number in masks where the image is padded.
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
    stratify: bool = False
    group_by: str | None = None
    dedupe: str = "report"
    label_from: str = "top"
    split_folders: str = "auto"
    class_names: tuple[str, ...] | None = None
    label_offset: int = 0
    path_column: str = "path"
    label_column: str | None = None
    labels_column: str | None = None
    target_column: str | None = None
    caption_column: str | None = None
    boxes_column: str | None = None
    box_labels_column: str | None = None
    box_format: str = "xyxy"
    mask_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    keep_columns: tuple[str, ...] = ()
    table_root: str = "."
    mask_dir: str | None = None
    mask_padding: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        ImageOptions.__post_init__(self)
        check_choice("resize", self.resize, RESIZES)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        check_choice("encoding", self.encoding, ENCODINGS)
        size: object = self.image_size  # nobody checks types at run time but we
        if type(size) is int:
            size = (size, size)
            object.__setattr__(self, "image_size", size)
        if not isinstance(size, tuple) or len(size) != 2:
            raise UsageError(f"image size {size!r} is not a pair (height, width)")
        for side in size:
            check_range("image size", side, 1, MAX_SIDE_PIXELS)
        check_range("quality", self.quality, 1, 100)
        if type(self.shard_bytes) is not int:
            raise UsageError(f"shard size {self.shard_bytes!r} is not a whole number of bytes")
        if self.shard_bytes < MIN_SHARD_BYTES:
            raise UsageError(
                f"shard size {self.shard_bytes} bytes is too small: at least {MIN_SHARD_BYTES}"
            )
        if self.num_shards is not None:
            check_range("num shards", self.num_shards, 1, MAX_SHARDS)
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
        self._check_labels()
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
        if self.stratify and not self.validation_split and not self.test_split:
            raise UsageError("stratify draws splits class by class: ask for a validation_split")
        if self.group_by is not None:
            check_pattern(self.group_by)

    def _check_colors(self) -> None:
        held = HELD_BY[self.color_mode]
        if self.encoding not in (*held, "keep"):
            raise UsageError(
                f"encoding {self.encoding} cannot hold color mode {self.color_mode}: choose one of "
                f"{', '.join(held)}, keep"
            )

    def _check_labels(self) -> None:
        check_choice("dedupe", self.dedupe, DEDUPES)
        check_choice("label from", self.label_from, LABEL_SOURCES)
        check_choice("split folders", self.split_folders, SPLIT_CHOICES)
        check_choice("box format", self.box_format, BOX_FORMATS)
        check_range("label offset", self.label_offset, 0, 1)
        self._check_columns()
        if self.class_names is not None:
            check_names(self.class_names)
            if self.label_from == "none":
                raise UsageError("class names are given, and label from 'none' asks for no labels")
        if self.label_from == "none" and (self.stratify or self.label_offset):
            raise UsageError("without labels, there is nothing to stratify by or to offset")

    def _check_columns(self) -> None:
        for name in ("path_column", *COLUMN_OPTIONS, "table_root", "mask_dir"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise UsageError(f"{name.replace('_', ' ')} {value!r} is not a name")
        if self.label_column and self.labels_column:
            raise UsageError(
                "label column and labels column exclude each other: an image has one label, or any "
                "number of them"
            )
        if self.mask_dir and self.mask_column:
            raise UsageError("mask dir and mask column exclude each other: an image has one mask")
        if self.masked and self.frames == "all":
            raise UsageError("frames all makes several images of a file, and a mask is of one")
        check_range("mask padding", self.mask_padding, 0, 255)
        if self.box_labels_column and not self.boxes_column:
            raise UsageError("box labels column is given without a boxes column")
        keep: object = self.keep_columns  # nobody checks types at run time but we
        if not isinstance(keep, tuple) or not all(isinstance(name, str) for name in keep):
            raise UsageError(f"keep columns {keep!r:.60} are not a tuple of names")
        if len(set(keep)) != len(keep):
            raise UsageError("a column stands twice in keep columns")

    @property
    def held_out(self) -> dict[str, float]:
        """The share of the images that each split but `train` is to get."""
        return {"validation": self.validation_split, "test": self.test_split}

    @property
    def masked(self) -> bool:
        """Whether each image has a mask."""
        return self.mask_dir is not None or self.mask_column is not None

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


def check_pattern(pattern: str) -> None:
    """Makes sure that a text is a regular expression, and not an empty one.

    Raises:
        UsageError: it is not.
    """
    if not pattern:
        raise UsageError("group by is empty, and matches nothing: leave it out")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError, TypeError) as error:
        raise UsageError(f"group by {pattern!r} is not a regular expression: {error}") from None


def check_names(names: Any) -> None:
    """Makes sure that something is a list of classes.

    Raises:
        UsageError: it is not, or a class is named twice, or has no name.
    """
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"class names {names!r:.60} are not a tuple of names")
    if not names or not all(names):
        raise UsageError("class names are empty: give one name or more, each of a letter or more")
    if len(set(names)) != len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"class {double!r} stands twice in the class names")
