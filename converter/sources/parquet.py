"""Images in Parquet files, as the library `datasets` of Hugging Face writes them, and others.

An image is called FILE/NAME: FILE is where its file lies, without what follows the number of a
shard, and NAME is what the row says, or the number of the row from 0. If an earlier row of the
file has that name, the number stands before it. So an image keeps its name, and with it its split,
when rows are appended or files are added.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from converter.errors import UsageError
from converter.options import ConvertOptions
from converter.sizes import format_count
from converter.sources.column_notes import describe_columns, list_used
from converter.sources.data_files import (
    CARD,
    DataFile,
    find_folders,
    has_class_folders,
    list_data_files,
)
from converter.sources.folders import is_clutter
from converter.sources.inputs import is_folder, locate_root
from converter.sources.parquet_columns import (
    Columns,
    find_images,
    list_classes,
    read_columns,
    recognize_images,
)
from converter.sources.parquet_rows import ParquetRows
from converter.sources.patterns import is_pattern, list_pattern
from converter.sources.row_sources import RowSource
from converter.storage.location import Location, map_in_threads

SUFFIX: Final = ".parquet"

_LABEL_NAMES: Final = ("label", "labels")


def recognize(images: Location, names: Sequence[str], options: ConvertOptions) -> bool:
    """Whether IMAGES is, holds or stands for Parquet files with a column of images.

    If one is named, any will do: if it holds no images, that is to be said.
    """
    file = _find_first(images, names)
    is_named = options.image_column is not None
    try:
        return file is not None and (is_named or recognize_images(read_columns(file)))
    except UsageError:  # to be described by what takes it for something else
        return False


def imply_options(images: Location, options: ConvertOptions) -> Mapping[str, Any]:
    """The columns of images and of labels; raises UsageError if several fit."""
    root = locate_root(images, options)
    (first, *_), _ = list_data_files(images, root, SUFFIX)
    columns = read_columns(root.child(first.path))
    image = find_images(columns, options.image_column)
    return {"image_column": image, **_choose_labels(columns, image, options)}


def open_rows(images: Location, options: ConvertOptions) -> RowSource:
    """Opens the files that IMAGES is, holds or stands for."""
    root = locate_root(images, options)
    files, skipped = list_data_files(images, root, SUFFIX)
    places = [root.child(file.path) for file in files]
    columns = [found for _, found in map_in_threads(read_columns, places, root)]
    for found in columns:
        find_images(found, options.image_column)
        _check_used(found, options)
    classes = list_classes(columns, options)
    return RowSource(
        images=images,
        root=root,
        options=options,
        read_rows=ParquetRows(images, root, tuple(files), tuple(columns), options).read,
        classes=classes,
        # Digits in a column of text may be a name, such as 0012.
        kinds={name: "text" for name in columns[0].types if columns[0].is_text(name)},
        skipped=tuple(skipped),
        recognized=_describe(files, columns[0], options, classes),
    )


def _find_first(images: Location, names: Sequence[str]) -> Location | None:
    """The first Parquet file that IMAGES is, holds or stands for; not one among class folders."""
    if is_pattern(images):
        files = list_pattern(images)
        return files[0] if all(_is_parquet(file.name) for file in files) else None
    if is_folder(images):
        among_classes = CARD not in names and has_class_folders(images, names)
        return None if among_classes else _find_in(images, names)
    return images if _is_parquet(images.name) else None


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(SUFFIX)


def _find_in(folder: Location, names: Sequence[str], depth: int = 2) -> Location | None:
    """A Parquet file in a folder, or in one of its folders that may hold some."""
    for name in names:
        if _is_parquet(name) and not is_clutter(name):
            return folder / name
    for name in find_folders(names) if depth else ():
        if is_folder(folder / name):
            inner = folder / name
            if found := _find_in(inner, inner.list_names(), depth - 1):
                return found
    return None


def _choose_labels(columns: Columns, image: str, options: ConvertOptions) -> dict[str, str]:
    """The column of labels, if none is named: a usual name, or the only one of class names."""
    taken = (image, *list_used(options))
    if options.names_labels:
        return {}
    for name in _LABEL_NAMES:
        if name in columns.types and name not in taken:
            return {"labels_column" if columns.is_list(name) else "label_column": name}
    found = [name for name in columns.types if columns.is_single_class(name) and name not in taken]
    if len(found) > 1:
        raise UsageError(
            f"{columns.file}: the columns {', '.join(map(repr, found[:5]))} hold classes: name one "
            "with --label-column, or carry the others along with --keep-column"
        )
    return {"label_column": found[0]} if found else {}


def _check_used(columns: Columns, options: ConvertOptions) -> None:
    for name in list_used(options):
        if not columns.has_cells(name):
            raise UsageError(
                f"{columns.file} has no column {name!r}: there are {columns.describe()}"
            )
    mask = options.mask_column
    if mask and not columns.can_hold_images(mask):
        raise UsageError(f"{columns.file}: the masks in column {mask!r} are no images")


def _describe(
    files: Sequence[DataFile], columns: Columns, options: ConvertOptions, classes: Sequence[str]
) -> str:
    used = {options.image_column, *(name.partition(".")[0] for name in list_used(options))}
    unused = [name for name in columns.types if name not in used | {*list_used(options)}]
    count = f"{format_count(len(files), 'file')} of Parquet"
    names = f"{format_count(len(classes), 'class')} by name, " if classes else ""
    return f"{count}, {names}{describe_columns(options, options.image_column or '', unused)}"
