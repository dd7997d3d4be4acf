"""Tells by its name what IMAGES is, and where its images and masks lie."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final

from converter.errors import UsageError
from converter.options import COLUMN_OPTIONS, IN_FILES, ConvertOptions
from converter.sources.patterns import find_base, is_pattern
from converter.sources.rows import READERS
from converter.storage.locate import join, locate
from converter.storage.location import Location

COMPRESSED_SUFFIXES: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVE_SUFFIXES: Final = (".tar", ".zip", *COMPRESSED_SUFFIXES)

# Refused where they do nothing: that a column or a label is missing would go unnoticed.
_FOLDER_OPTIONS: Final = ("label_from", "split_folders")
_PATH_OPTIONS: Final = ("path_column", "path_format", "table_root")
_TABLE_OPTIONS: Final = (
    *COLUMN_OPTIONS, "labels_columns", "labels_separator", "box_columns", "keep_columns",
    "image_column", *_PATH_OPTIONS,
)  # fmt: skip
DEFAULTS: Final = ConvertOptions()


def is_table(path: Location) -> bool:
    """Whether a path is a table's, by its name."""
    return has_suffix(path, tuple(READERS))


def is_archive(path: Location) -> bool:
    """Whether a path is an archive's, by its name."""
    return has_suffix(path, ARCHIVE_SUFFIXES)


def is_compressed(path: Location) -> bool:
    """Whether a path is that of a tar that is compressed as a whole, and so is not seekable."""
    return has_suffix(path, COMPRESSED_SUFFIXES)


def is_zip(archive: Location) -> bool:
    """Whether an archive is a zip and not a tar."""
    return archive.name.lower().endswith(".zip")


def has_suffix(path: Location, suffixes: tuple[str, ...]) -> bool:
    """Whether a path ends like that, and is no folder."""
    return path.name.lower().endswith(suffixes) and not is_folder(path)


def is_folder(path: Location) -> bool:
    """Whether a path is a folder's; a store is asked once."""
    return _is_prefix(path) if path.is_remote else path.is_dir()


def list_names(place: Location) -> list[str]:
    """The names in a folder; none if it is a file, or not there."""
    return place.list_names() if is_folder(place) else []


@functools.lru_cache(maxsize=256)
def _is_prefix(path: Location) -> bool:
    # Asked for every image of an archive. A process does not outlive the answer.
    return path.is_dir()


def check_input_options(images: Location, options: ConvertOptions) -> None:
    """Refuses options for columns without any, for folders with columns, for paths without any."""
    if options.members:  # each has its own
        return
    folders = options.source in ("folders", "archive")
    refused = _TABLE_OPTIONS if folders else _FOLDER_OPTIONS
    if options.source != "table":  # others may state splits
        refused = tuple(name for name in refused if name != "split_folders")
    if name := find_given(refused, options):
        where = f"for folders alone, and {images} is a {options.source}: name columns instead"
        if folders:
            suffixes = ", ".join(READERS)
            where = f"for a table alone, and {images} is none: its name would end in {suffixes}"
        raise UsageError(f"{name}: {where}")
    if options.source in IN_FILES and (name := find_given(_PATH_OPTIONS, options)):
        raise UsageError(f"{name} is for tables of paths, and {images} holds its images")
    if options.source == "table" and options.image_column is not None:
        raise UsageError(f"image column: {images} is a table of paths: give their path column")


def find_given(names: Iterable[str], options: ConvertOptions) -> str:
    """The first of these options that is not at its default, as messages say it; else empty."""
    given = (name for name in names if getattr(options, name) != getattr(DEFAULTS, name))
    return next(given, "").replace("_", " ")


def leave_given(implied: Mapping[str, Any], options: ConvertOptions) -> dict[str, Any]:
    """Those of the implied options that are still at their defaults."""
    unset = (name for name in implied if getattr(options, name) == getattr(DEFAULTS, name))
    return {name: implied[name] for name in unset}


def locate_base(images: Location) -> Location:
    """The folder that IMAGES is or lies in; of a pattern, the part before its first wildcard."""
    place = locate(images)
    if is_pattern(place):
        return find_base(place)
    return place if is_folder(place) else place.parent


def locate_root(images: Location, options: ConvertOptions) -> Location:
    """The folder or archive that paths of images are relative to; of a table, it has to exist."""
    unlike_table = options.source == "auto" and not is_table(images)
    if options.members or unlike_table or options.source in ("folders", "archive"):
        return images
    root = join(locate_base(images), options.table_root)
    if not root.exists():
        raise UsageError(f"{root} does not exist: its images are those of the table {images}")
    return root


def locate_masks(root: Location, options: ConvertOptions) -> Location:
    """The folder or archive that the paths of masks are relative to; `root` is that of images."""
    return root if options.mask_dir is None else join(locate_mask_base(root), options.mask_dir)


def locate_mask_base(root: Location) -> Location:
    """The folder that `mask_dir` is relative to: that of the images, or of their archive."""
    return root.parent if is_archive(root) else root
