"""Looks what IMAGES is, and completes the options with what follows from it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from converter.errors import UsageError
from converter.options import ConvertOptions
from converter.sources import (
    image_metadata,
    own_sets,
    parquet,
    tables,
    tfds_sets,
    tfrecord_files,
    webdataset,
)
from converter.sources.coco import imply_coco, open_coco, recognize_coco
from converter.sources.folders import check_layout
from converter.sources.inputs import (
    check_input_options,
    is_archive,
    is_folder,
    is_pattern,
    is_table,
    list_pattern,
)
from converter.sources.row_sources import RowSource
from converter.sources.voc import imply_voc, open_voc, recognize_voc
from converter.sources.yolo import imply_yolo, open_yolo, recognize_yolo
from converter.storage.locate import locate
from converter.storage.location import Location


class Format(NamedTuple):
    """A kind of source whose images come as rows.

    `recognizes` gets IMAGES and, if it is a folder, the names in it; it looks and opens no image.
    `open` reads what it needs of headers. It may be asked to open what it would not recognize, and
    then raises a UsageError that says what was looked for and what was found.
    """

    recognizes: Callable[[Location, Sequence[str]], bool]
    open: Callable[[Location, ConvertOptions], RowSource]
    # The options that follow from the data and that are not given, such as `box_format`.
    imply: Callable[[Location, ConvertOptions], Mapping[str, Any]] = lambda _images, _options: {}


# In the order in which they are tried.
FORMATS: Final[dict[str, Format]] = {
    "shardmill": Format(own_sets.is_own_set, own_sets.open_own_set, own_sets.imply_options),
    "webdataset": Format(webdataset.recognize, webdataset.open_samples, webdataset.imply_options),
    "parquet": Format(parquet.recognize, parquet.open_parquet, parquet.imply_options),
    "tfds": Format(tfds_sets.is_tfds_folder, tfds_sets.open_tfds_folder, tfds_sets.imply_features),
    "tfrecord": Format(
        tfrecord_files.recognize_records,
        tfrecord_files.open_records,
        tfrecord_files.imply_features,
    ),
    "metadata": Format(image_metadata.recognize, image_metadata.open_metadata),
    "table": Format(
        lambda images, _: is_table(images) and not is_pattern(images), tables.open_table
    ),
    "coco": Format(recognize_coco, open_coco, imply_coco),
    "voc": Format(recognize_voc, open_voc, imply_voc),
    "yolo": Format(recognize_yolo, open_yolo, imply_yolo),
}


def resolve_options(images: Location, options: ConvertOptions) -> ConvertOptions:
    """Completes options: `source` becomes what IMAGES is, others what follows from that.

    Raises UsageError if the options do not fit. Options that are complete stay as they are.
    """
    images = locate(images)
    if options.members:  # each of them has its own
        return options
    if options.source == "auto":
        options = dataclasses.replace(options, source=_recognize(images, options))
    check_input_options(images, options)
    if known := FORMATS.get(options.source):
        options = dataclasses.replace(options, **known.imply(images, options))
    return options


def open_rows(images: Location, options: ConvertOptions) -> RowSource | None:
    """Opens what gives rows; None for folders and archives of images."""
    known = FORMATS.get(options.source)
    return known.open(locate(images), options) if known else None


def _recognize(images: Location, options: ConvertOptions) -> str:
    names = images.list_names() if is_folder(images) else []
    if options.image_column and parquet.find_first(images, names):
        return "parquet"
    for source, known in FORMATS.items():
        if known.recognizes(images, names):
            return source
    if is_pattern(images):
        raise UsageError(
            f"{images} stands for {len(list_pattern(images)):,} files, and none of a kind that a "
            "pattern may stand for: give a folder, an archive or a table instead"
        )
    if is_archive(images):
        return "archive"
    check_layout(images, names)
    return "folders"
