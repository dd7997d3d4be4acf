"""Looks what IMAGES is, and completes the options with what follows from it."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from converter.errors import UsageError
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.sources import (
    coco,
    image_metadata,
    own_sets,
    parquet,
    tables,
    tfds_sets,
    tfrecord_sets,
    voc,
    webdataset,
    yolo,
)
from converter.sources.data_files import check_links
from converter.sources.folders import check_layout
from converter.sources.inputs import check_input_options, is_archive, is_folder, list_names
from converter.sources.patterns import is_pattern, list_pattern
from converter.sources.row_sources import RowSource
from converter.sources.tar_files import TAR_SUFFIXES, find_bare_tars
from converter.storage.locate import locate, parse_address
from converter.storage.location import Location
from converter.storage.object_requests import list_level

_MAX_NAMES: Final = 1_000_000  # 150 MB, and a thousand answers of a store, one after another


class Format(Protocol):
    """What the module of a source has whose images come as rows."""

    def recognize(self, images: Location, names: Sequence[str], options: ConvertOptions, /) -> bool:
        """Whether IMAGES is of that kind; `names` are those in it, if it is a folder.

        Looks, and opens no image.
        """
        ...

    def imply_options(self, images: Location, options: ConvertOptions, /) -> Mapping[str, Any]:
        """The options that follow from the data and are not given, such as `box_format`."""
        ...

    def open_rows(self, images: Location, options: ConvertOptions, /) -> RowSource:
        """Opens IMAGES, and reads what it needs of headers.

        May be asked to open what it would not recognize: then it raises a UsageError that says what
        was looked for and what was found.
        """
        ...


# In the order in which they are tried.
FORMATS: Final[dict[str, Format]] = {
    "shardmill": own_sets,
    "webdataset": webdataset,
    "parquet": parquet,
    "tfds": tfds_sets,
    "tfrecord": tfrecord_sets,
    "metadata": image_metadata,
    "table": tables,
    "coco": coco,
    "voc": voc,
    "yolo": yolo,
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
        options = dataclasses.replace(options, **known.imply_options(images, options))
    return options


def open_source(images: Location, options: ConvertOptions) -> RowSource | None:
    """Opens what gives rows; None for folders and archives of images."""
    known = FORMATS.get(options.source)
    return known.open_rows(locate(images), options) if known else None


def _recognize(images: Location, options: ConvertOptions) -> str:
    names = _list_top(images)
    for source, known in FORMATS.items():
        if known.recognize(images, names, options):
            return source
    if is_pattern(images):
        raise UsageError(
            f"{images} stands for {len(list_pattern(images)):,} files, and none of a kind that a "
            "pattern may stand for: give a folder, an archive or a table instead"
        )
    if is_archive(images):
        return "archive"
    if tars := find_bare_tars(images, names):
        check_links(images, tars.skipped, TAR_SUFFIXES)
    check_layout(images, names)
    return "folders"


def _list_top(images: Location) -> list[str]:
    """The names at the top of IMAGES, or a UsageError for too many in a store."""
    if not images.is_remote or not is_folder(images):
        return list_names(images)
    listed = itertools.islice(list_level(parse_address(str(images))), _MAX_NAMES + 1)
    names = sorted({name for name, _ in listed}, key=to_bytes)
    if len(names) > _MAX_NAMES:
        raise UsageError(
            f"{images} has over {_MAX_NAMES:,} names side by side, too many to see what it is: "
            "name it with --source, folders if these are images"
        )
    return names
