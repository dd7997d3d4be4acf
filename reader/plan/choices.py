"""What an epoch is made of: which records, and what is given of each: image, label, columns."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from converter.errors import UsageError
from converter.format import schema
from converter.format.manifest import ImageInfo, Manifest
from converter.format.schema import Column, find_column
from converter.sizes import format_count
from reader.arrays import Numbers
from reader.examples.columns import FilePaths, read_labels
from reader.examples.fields import Given
from reader.plan.read_options import COLOR_CHANNELS, ReadOptions
from reader.records.record_files import RecordFiles
from reader.sampling.orders import Selection, divide, select_all, select_chosen

ALIASES: Final = {
    "labels": schema.LABELS,
    "target": schema.TARGET,
    "caption": schema.CAPTION,
    "boxes": schema.BOXES,
    "box_labels": schema.BOX_LABELS,
    "original_rows": schema.ORIGINAL_ROWS,
    "decoded_rows": schema.DECODED_ROWS,
}
"""Short names of the columns with a meaning; a user's own column of that name comes first."""

MOVES: Final = ("random_crop", "random_flip", "crop_to_aspect_ratio", "pad_to_aspect_ratio")
"""Options that move what an image shows; stretching does not, in fractions of its size."""

# Limits for images that TensorFlow decodes in one call, which takes 0.1 ms, unless a single one is
# larger. Graphs for more images take long to build.
PART_IMAGES: Final = 16
PART_BYTES: Final = 16_000_000

MAX_MASK_VALUE: Final = 255


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
        grays = self.channels == 1 and self.stored.channels > 1
        quick = [*self.stored.formats] == ["jpeg"] or (self.stored.is_raw and not grays)
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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The records to read, and their labels."""

    class_names: list[str]  # in the order of the labels given
    selection: Selection  # the records
    given: Given  # what is given of them
    shards: int  # in the manifests, of all splits
    # The label to give for each stored one, int32 (classes,); -1 for classes left out.
    labels: npt.NDArray[np.int32] | None = None
    # Labels instead of the stored ones, int32 (records,).
    record_labels: npt.NDArray[np.int32] | None = None


def choose_records(
    files: RecordFiles, manifest: Manifest, split: str, options: ReadOptions
) -> Choice:
    """Decides which records are read, and their labels; reads records only if it has to."""
    given, selection = choose_given(manifest, options), select_all(len(files))
    class_names, labels, record_labels = list(manifest.classes), None, None
    paths: list[str] = []
    if options.order == "path" or isinstance(options.labels, Mapping):
        paths = list(FilePaths(files, selection))  # reads every record
    by_path = None
    if options.order == "path":
        # Folder by folder, as `os.walk` lists them: the order of `image_dataset_from_directory`.
        ordered = sorted(range(len(paths)), key=lambda number: os.path.split(paths[number]))
        by_path = np.array(ordered, np.int64)
    if options.labels is not None:
        record_labels = _label_records(options.labels, paths, by_path)
        class_names = [str(label) for label in np.unique(record_labels).tolist()]
    elif options.class_names is not None:
        class_names = list(options.class_names)
        labels = map_classes(manifest.classes, class_names)
        if labels.min() < 0:
            stored = read_labels(files, manifest.splits[split].labels)
            selection = select_chosen(np.flatnonzero((labels >= 0)[stored]))
    if options.validation_split is not None and options.subset is not None:
        if len(manifest.splits) > 1:
            raise UsageError(
                f"this data set was converted with splits, {', '.join(manifest.splits)}: read "
                "those instead of drawing a validation_split"
            )
        selection = divide(selection, options.validation_split, options.seed or 0)[options.subset]
    if by_path is not None:
        wanted = selection.find_records(np.arange(selection.count))
        selection = select_chosen(by_path[np.isin(by_path, wanted)])
    return Choice(
        class_names=class_names,
        selection=selection,
        given=given,
        shards=len(manifest.shards),
        labels=labels,
        record_labels=record_labels,
    )


def check_images(images: ImagePlan, choice: Choice) -> None:
    """Refuses images and labels in a form in which they cannot be given."""
    options = images.options
    if options.label_mode == "binary" and len(choice.class_names) != 2:
        raise UsageError(
            f"label_mode 'binary' takes 2 classes, this data set has {len(choice.class_names)}: "
            "use 'int' or 'categorical'"
        )
    if images.height is None and (options.batch_size is not None or options.cache):
        raise UsageError(
            "the stored images differ in size and cannot be batched as they are: "
            "give image_size=(height, width) to resize them, or batch_size=None for single ones"
        )
    if images.height is None and options.random_crop is not None:
        raise UsageError("the stored images differ in size: give the image_size for random_crop")
    if options.cache and options.batch_size is None:
        raise UsageError("cache keeps batches ready: give a batch_size")


def map_classes(stored: Sequence[str], wanted: Sequence[str]) -> npt.NDArray[np.int32]:
    """Gives the new label of each stored one, int32 (stored,); -1 for classes left out."""
    unknown = [name for name in wanted if name not in stored]
    if unknown or len(set(wanted)) != len(wanted) or not wanted:
        problem = "a class is named twice" if wanted else "no class is named"
        problem = f"{unknown[0]!r} is none of the classes" if unknown else problem
        raise UsageError(f"class_names: {problem}: there are {', '.join(stored)}")
    table = np.full(len(stored), -1, np.int32)
    table[[stored.index(name) for name in wanted]] = np.arange(len(wanted))
    return table


def choose_given(manifest: Manifest, options: ReadOptions) -> Given:
    """Decides what is given as label, and finds the columns asked for."""
    columns = {name: _find_column(manifest, name) for name in options.columns}
    moves = [name for name in MOVES if getattr(options, name)]
    boxes = [name for name, column in columns.items() if column.kind == "boxes"]
    if moves and boxes:
        raise UsageError(
            f"column {boxes[0]!r} holds boxes, which {moves[0]} would not move: leave one of the "
            "two out"
        )
    label = None
    if not manifest.labelled and options.labels is None:
        label = find_column(manifest.columns, schema.LABELS)
        label = label or find_column(manifest.columns, schema.TARGET)
        _check_label_options(label, options)
    padding = manifest.options.get("mask_padding", 0)
    return Given(
        image=manifest.image,
        classes=len(manifest.classes),
        labelled=manifest.labelled,
        with_names=options.with_filename,
        masks=_choose_masks(manifest, options),
        with_labels=options.masks == "with_labels",
        mask_padding=padding if type(padding) is int and 0 <= padding <= MAX_MASK_VALUE else 0,
        label=None if options.label_mode is None else label,
        columns=columns,
    )


def _label_records(
    labels: Mapping[str, int] | Sequence[int], paths: Sequence[str], by_path: Numbers | None
) -> npt.NDArray[np.int32]:
    """The label of each record, int32 (records,), from those that the caller gives."""
    records = len(paths)
    by_record = np.empty(records, np.int32)
    if isinstance(labels, Mapping):
        missing = [path for path in paths if path not in labels]
        if missing:
            raise UsageError(
                f"labels has no label for {missing[0]!r:.122} and {len(missing) - 1:,} others of "
                f"{format_count(records, 'record')}: give one for each path of file_paths"
            )
        by_record[:] = [labels[path] for path in paths]
    elif by_path is None:
        raise UsageError(
            "labels is a list, and records do not lie in the order of their paths: give "
            "order='path' too, which file_paths then has as well, or a dict from path to label"
        )
    elif len(labels) != records:
        raise UsageError(
            f"labels has {len(labels)} entries for {format_count(records, 'record')}: give one "
            "for each, in the order of the originals' paths"
        )
    else:
        by_record[by_path] = labels
    return by_record


def _find_column(manifest: Manifest, name: str) -> Column:
    column = find_column(manifest.columns, name)
    for alias in (ALIASES.get(name, name), f"{schema.OBJECTS}{name}"):
        column = column or find_column(manifest.columns, alias)
    if column is None:
        known = ", ".join(other.name for other in manifest.columns) or "none"
        raise UsageError(f"column {name!r} is none of the data set: there are {known}")
    return column


def _choose_masks(manifest: Manifest, options: ReadOptions) -> bool:
    has_masks = find_column(manifest.columns, schema.MASK) is not None
    if options.masks is None:
        return has_masks and options.label_mode == "int" and options.labels is None
    if options.masks and not has_masks:
        raise UsageError(
            "masks are asked for, and this data set was converted without any: leave masks out, or "
            "convert with --mask-dir"
        )
    return bool(options.masks)


def _check_label_options(label: Column | None, options: ReadOptions) -> None:
    what = "no labels" if label is None else f"{label.name} for labels"
    modes = ("int", "categorical", None) if label and label.kind == "labels" else ("int", None)
    if options.label_mode not in modes:
        raise UsageError(
            f"label_mode {options.label_mode!r} needs one class for each image, this data set has "
            f"{what}: leave label_mode out"
        )
    if options.class_names is not None:
        raise UsageError(f"class_names chooses records by their label, this data set has {what}")
