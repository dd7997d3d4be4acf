"""The options of a conversion: `ConvertOptions`."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final

from converter.choice_options import ChoiceOptions
from converter.errors import UsageError
from converter.image_options import INTERPOLATIONS, POLICIES, spell_format
from converter.names import parse_path_format
from converter.option_fields import (
    CHOICE,
    COLUMNS,
    LABELS,
    MASKS,
    OUTPUT,
    SOURCE,
    SPLIT,
    list_options,
    option,
)
from converter.sizes import parse_bytes

RESIZES: Final = ("stretch", "crop", "pad", "shorter", "longer", "none")
SOURCES: Final = (
    "folders", "archive", "table", "metadata", "coco", "voc", "yolo", "webdataset", "parquet",
    "shardmill", "tfds", "tfrecord",
)  # fmt: skip
IN_FILES: Final = ("parquet", "webdataset", "tfrecord", "tfds", "shardmill")  # not one file each
ENCODINGS: Final = ("jpeg", "png", "webp", "raw", "keep")

# The encodings of each colour mode. WebP has no grey, and drops an alpha channel that is opaque
# everywhere, which TensorFlow then refuses to decode like the others.
HELD_BY: Final = {
    "rgb": ("jpeg", "png", "webp", "raw"),
    "grayscale": ("jpeg", "png", "raw"),
    "rgba": ("png", "raw"),
}

MAX_SIDE_PIXELS: Final = 16_383  # what JPEG (65,535), PNG and WebP (16,383) can all hold
MAX_SHARDS: Final = 99_999  # what five digits in a file name can count


def parse_image_size(text: str) -> tuple[int, int]:
    """Parses an image size: one number for both sides, or `HEIGHTxWIDTH`.

    >>> parse_image_size("224x320")
    (224, 320)
    """
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text.strip())
    if match is None:
        raise UsageError(
            f"{text!r} is not an image size: write one number, such as 256, or 224x320 for "
            "height x width"
        )
    return int(match[1]), int(match[2] or match[1])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConvertOptions(ChoiceOptions):
    """Everything that decides the bytes of a data set, apart from the images themselves.

    Also holds the options of `ChoiceOptions` and `ImageOptions`, and with them
    `converter.image_options.POLICIES`, which decide how a conversion ends.

    Attributes:
        image_size: height and width of the stored images in pixels: `256`, or `224x320` for height
            x width; in Python one number or a pair. Given several times on the command line, it
            makes several data sets, OUT/256x256 and so on, from one reading.
        resize: `stretch` ignores the aspect ratio; `crop` fills the size and cuts off what sticks
            out, evenly on both sides; `pad` fits inside and fills up with black; `shorter` and
            `longer` bring that side to the size, one number, and keep the aspect ratio; `none`
            ignores the size and leaves every image as large as it is.
        interpolation: the Pillow filter of that name. All but `nearest` are antialiased.
        encoding: how pixels are stored. `raw` is uint8 (height, width, channels) without a
            header; `keep` is the source's own encoding. A file that already has the size, mode and
            encoding asked for is stored byte for byte; with metadata, such as the place where a
            photo was taken, only by `keep`.
        quality: of JPEG and lossy WebP that are encoded again.
        shard_bytes: the shard size to aim at.
        num_shards: shards of the largest split, instead of a size; the others get as many records
            a shard.
        validation_split: fraction of all images for this split, chosen by a hash of seed and file
            name, so that an image stays in its split when others are added.
        test_split: the same for this split. Where folders or a table give splits already, both
            fractions are of those in `train`.
        stratify: draw the same fraction of every class, not only of all images.
        group_by: a regular expression: images with the same match in their paths, such as a
            patient, are never divided between splits. `folder` makes each folder a group.
        dedupe: of images with the same content: `report` names them and keeps them in one split,
            `drop` converts only the first, `off` does not look for them.
        label_from: which folder is the class: `top`, the first below IMAGES or below a split;
            `parent`, the one that holds the image; `none`, images have no labels.
        split_folders: whether the source's splits are used. The folders in IMAGES are splits if
            they are called train, training; validation, valid, val, dev; test, testing, eval,
            evaluation; `auto` if all have such names. Other sources state their splits: `no`
            ignores them, for new ones.
        label_offset: 1 leaves label 0 to an empty class `background`.
        path_column: paths of the images.
        image_column: the column, feature or extension that holds the image, where several do.
        path_format: paths made of columns in braces, such as `train/{id}.png`. `{{` is a brace.
        label_column: the name of one class. By default `label` if there is such a column.
        labels_column: a list of class names, in JSON or with `labels_separator` between.
        labels_columns: a column of 0 and 1, or of -1 and 1, for each class; blank is 0.
        labels_separator: what is between the names of a list; a blank stands for any number of
            them.
        target_column: a number to predict.
        caption_column: a text about the image.
        boxes_column: a list of boxes, four numbers each.
        box_labels_column: a list of class names, one for each box.
        box_columns: other columns with a value for each box, such as `is_crowd`, which are stored
            as image/object/NAME and left out with their box.
        box_format: `xyxy` is left, top, right, bottom and `xywh` left, top, width, height in pixels
            of the image as a person sees it; `yolo` is centre x, centre y, width, height and `yxyx`
            top, left, bottom, right in fractions of its size.
        mask_column: the path of the image's mask, relative to the same folder as the image's; of a
            WebDataset, the extension of the mask, such as `seg.png`.
        split_column: names of splits, as for folders.
        group_column: images with the same value are never divided between splits.
        keep_columns: other columns to carry into the records.
        table_root: folder or archive that the paths in a table are relative to. In Python it is
            itself relative to the table's folder, on the command line to the current one.
        mask_dir: folder or archive with a mask of class numbers for each image, at the same path
            but for the suffix. In Python it is relative to the folder of images, or of their
            archive, on the command line to the current one.
        mask_padding: the class number where the image is padded.
        source: what IMAGES is: `folders` of images, an `archive` of them, a `table` that names
            them, or a folder with `metadata` of them; annotations of `coco`, `voc` or `yolo`; tars
            of a `webdataset`, or `parquet` or `tfrecord` files, that hold images; a folder of
            `tfds`, or a `shardmill` data set. `auto` looks.
        members: of several IMAGES, the kind and the place of each in the folder that holds them;
            filled in where they are given.
        seed: decides the splits and the order of the records.

    Raises:
        UsageError: a value is out of its range, or two contradict each other.
    """

    image_size: tuple[int, int] = option(
        (256, 256), OUTPUT, limits=(1, MAX_SIDE_PIXELS), parse=parse_image_size, metavar="SIZE",
        repeated=True, shown="256", misfit="is not a pair (height, width)",
    )  # fmt: skip
    resize: str = option("stretch", OUTPUT, choices=RESIZES)
    interpolation: str = option("bilinear", OUTPUT, choices=INTERPOLATIONS)
    encoding: str = option("jpeg", OUTPUT, choices=ENCODINGS, parse=spell_format)
    quality: int = option(95, OUTPUT, limits=(1, 100), metavar="1-100")
    shard_bytes: int = option(
        128_000_000, OUTPUT, limits=(1_000, None), parse=parse_bytes, metavar="BYTES",
        flag="--shard-size", shown="128MB",
    )  # fmt: skip
    num_shards: int | None = option(
        None, OUTPUT, limits=(1, MAX_SHARDS), parse=int, metavar="N", shown="by size"
    )
    validation_split: float = option(0.0, SPLIT, bounds=(0, 1), metavar="FRACTION", shown="none")
    test_split: float = option(0.0, SPLIT, bounds=(0, 1), metavar="FRACTION", shown="none")
    stratify: bool = option(False, SPLIT)
    group_by: str | None = option(None, SPLIT, metavar="PATTERN")
    dedupe: str = option("report", CHOICE, choices=("report", "drop", "off"))
    label_from: str = option("top", LABELS, choices=("top", "parent", "none"))
    split_folders: str = option("auto", LABELS, choices=("auto", "yes", "no"))
    label_offset: int = option(0, LABELS, limits=(0, 1), metavar="0|1")
    path_column: str = option("path", COLUMNS, metavar="NAME")
    image_column: str | None = option(None, COLUMNS, metavar="NAME", alias="--image-feature")
    path_format: str | None = option(None, COLUMNS, metavar="FORMAT")
    label_column: str | None = option(None, COLUMNS, metavar="NAME", alias="--label-feature")
    labels_column: str | None = option(None, COLUMNS, metavar="NAME")
    labels_columns: tuple[str, ...] = option(
        (), COLUMNS, parse=str, metavar="NAME", several=True, shown="none"
    )
    labels_separator: str = option("|", COLUMNS, metavar="TEXT")
    target_column: str | None = option(None, COLUMNS, metavar="NAME")
    caption_column: str | None = option(None, COLUMNS, metavar="NAME", alias="--text-feature")
    boxes_column: str | None = option(None, COLUMNS, metavar="NAME")
    box_labels_column: str | None = option(None, COLUMNS, metavar="NAME")
    box_columns: tuple[str, ...] = option(
        (), COLUMNS, parse=str, metavar="NAME", flag="--box-column", repeated=True, shown="none"
    )
    box_format: str = option("xyxy", COLUMNS, choices=("xyxy", "xywh", "yolo", "yxyx"))
    mask_column: str | None = option(None, COLUMNS, metavar="NAME")
    split_column: str | None = option(None, COLUMNS, metavar="NAME")
    group_column: str | None = option(None, COLUMNS, metavar="NAME")
    keep_columns: tuple[str, ...] = option(
        (), COLUMNS, parse=str, metavar="NAME", flag="--keep-column", repeated=True, shown="none"
    )
    table_root: str = option(".", COLUMNS, metavar="PATH", shown="the table's folder")
    mask_dir: str | None = option(None, MASKS, metavar="PATH")
    mask_padding: int = option(0, MASKS, limits=(0, 255), metavar="0-255")
    source: str = option("auto", SOURCE, choices=("auto", *SOURCES))
    members: tuple[str, ...] = option((), SOURCE, hidden=True)
    seed: int = option(0, SPLIT, limits=(0, 2**63 - 1), metavar="N")

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoding", spell_format(self.encoding))
        size: object = self.image_size
        if type(size) is int:
            object.__setattr__(self, "image_size", (size, size))
        ChoiceOptions.__post_init__(self)
        self._check_splits()
        self._check_appearance()
        self._check_labels()
        self._check_columns()
        if self.mask_dir and self.mask_column:
            raise UsageError("mask dir and mask column exclude each other: an image has one mask")
        if self.masked and self.frames == "all":
            raise UsageError("frames all makes several images of a file, and a mask is of one")

    def _check_splits(self) -> None:
        if self.validation_split + self.test_split >= 1:
            raise UsageError(
                f"validation split {self.validation_split} and test split {self.test_split} "
                "leave nothing to train on: their sum has to stay under 1"
            )
        if self.stratify and not self.validation_split and not self.test_split:
            raise UsageError("stratify draws splits class by class: ask for a validation_split")
        if self.group_by == "":
            raise UsageError("group by is empty, and matches nothing: leave it out")
        try:
            re.compile(self.group_by or "")
        except (re.error, RecursionError, OverflowError) as error:
            raise UsageError(
                f"group by {self.group_by!r} is not a regular expression: {error}"
            ) from None

    def _check_appearance(self) -> None:
        encodings = HELD_BY[self.color_mode]
        if self.encoding not in (*encodings, "keep"):
            raise UsageError(
                f"encoding {self.encoding} cannot hold color mode {self.color_mode}: choose one of "
                f"{', '.join(encodings)}, keep"
            )
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

    def _check_labels(self) -> None:
        if self.class_names is not None and self.label_from == "none":
            raise UsageError("class names are given, and label from 'none' asks for no labels")
        if self.label_from == "none" and (self.stratify or self.label_offset):
            raise UsageError(
                "label from 'none' gives no labels, which stratify and label offset need: leave "
                "them out"
            )

    def _check_columns(self) -> None:
        for name in ("path_column", "image_column", *COLUMN_OPTIONS, "table_root", "mask_dir"):
            if getattr(self, name) == "":
                raise UsageError(
                    f"{name.replace('_', ' ')} '' is not a name: give one, or leave it out"
                )
        if not self.labels_separator:
            raise UsageError("labels separator '' is empty: give what is between two names")
        if self.path_format is not None:
            self._check_path_format(self.path_format)
        names = ("label_column", "labels_column", "labels_columns")
        given = [name.replace("_", " ") for name in names if getattr(self, name)]
        if len(given) > 1:
            raise UsageError(
                f"{given[0]} and {given[1]} exclude each other: an image has one label, or any "
                "number of them from one place"
            )
        if (self.box_labels_column or self.box_columns) and not self.boxes_column:
            what = "box columns are" if self.box_columns else "box labels column is"
            raise UsageError(f"{what} given without a boxes column: name that, too")
        _check_unique("keep columns", self.keep_columns)
        _check_unique("box columns and keep columns", (*self.box_columns, *self.keep_columns))
        _check_unique("labels columns", self.labels_columns)

    def _check_path_format(self, text: str) -> None:
        if self.path_column != "path":
            raise UsageError("path column and path format exclude each other: one says it all")
        try:
            columns = [column for _, column in parse_path_format(text) if column]
        except ValueError as error:
            raise UsageError(f"path format {text!r} cannot be read: {error}") from None
        if not columns:
            raise UsageError(
                f"path format {text!r} names no column: put it in braces, as in 'images/{{id}}.png'"
            )

    @property
    def held_out(self) -> dict[str, float]:
        """The share of the images that each split other than `train` gets."""
        return {"validation": self.validation_split, "test": self.test_split}

    @property
    def names_labels(self) -> bool:
        """Whether a column of labels is named, or columns of them."""
        return bool(self.label_column or self.labels_column or self.labels_columns)

    @property
    def masked(self) -> bool:
        """Whether each image has a mask."""
        return self.mask_dir is not None or self.mask_column is not None

    @property
    def fixed_size(self) -> bool:
        """Whether every stored image has the same height and width."""
        return self.resize in ("stretch", "crop", "pad")

    def to_json(self) -> dict[str, Any]:
        """Returns the options that decide bytes as JSON values, in the order of declaration."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
            if name not in POLICIES
        }

    def policies_to_json(self) -> dict[str, Any]:
        """Returns `POLICIES` as JSON values."""
        return {name: getattr(self, name) for name in POLICIES}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ConvertOptions":
        """Restores options from JSON values; those not given have their defaults.

        Raises:
            UsageError: an option is unknown or has a value that makes no sense.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError(f"unknown option {unknown[0]!r}: known are {', '.join(sorted(known))}")
        restored: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**restored)


# The options that name a column of values, not of images.
COLUMN_OPTIONS: Final = tuple(
    name
    for name, default, _ in list_options(ConvertOptions)
    if name.endswith("_column") and default is None and name != "image_column"
)


def _check_unique(what: str, names: tuple[str, ...]) -> None:
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{double!r} is given twice in the {what}")
