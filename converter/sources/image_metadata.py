"""A folder of images with `metadata.csv`, `.jsonl` or `.parquet`, as in Hugging Face's ImageFolder.

    metadata.jsonl           {"file_name": "images/0001.png", "text": "a cat"}
    train/metadata.csv       or one for each split, with paths relative to its folder
    test/metadata.csv

The format: https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from converter.errors import ImageError, UsageError
from converter.inventory import Skipped, leave_out
from converter.options import ConvertOptions
from converter.sources import rows
from converter.sources.column_notes import list_used
from converter.sources.data_files import find_folders, has_class_folders, read_split_folder
from converter.sources.folders import is_clutter, list_folder
from converter.sources.inputs import DEFAULTS, find_given, is_folder, list_names
from converter.sources.row_sources import RowSource, normalize_path
from converter.sources.rows import Row
from converter.sources.tables import apply_usual_names, check_labels
from converter.storage.location import Location

FILES: Final = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

_PATH_COLUMN: Final = "file_name"
_DEPTH: Final = 2  # folders within each other, such as data and train
# What columns may be, by their names: nothing of that is taken without being asked for.
_PROPOSALS: Final = {
    "--caption-column": ("text", "caption", "description", "prompt"),
    "--boxes-column": ("objects", "bbox", "boxes"),
    "--labels-column": ("labels", "tags"),
}


class _Metadata(NamedTuple):
    """The files of metadata in a folder, by their paths in it."""

    root: Location
    files: tuple[str, ...]
    options: ConvertOptions
    skipped: list[Skipped]  # grows when all rows are read for the first time

    def read(self) -> Iterator[tuple[str, Row]]:
        """The rows, with paths relative to the root."""
        named: set[str] = set()
        columns = [name for name in (self.options.path_column, self.options.mask_column) if name]
        for place, row in self._read_rows(columns):
            if not self.skipped:
                named.update(_normalize(row.get(column)) for column in columns)
            yield place, row
        if not self.skipped:
            self.skipped.extend(self._list_others(named))

    def _read_rows(self, paths: Sequence[str]) -> Iterator[tuple[str, Row]]:
        options = self.options
        nested = [name for name in list_used(options) if "." in name]
        for file in self.files:
            folder = file.rpartition("/")[0]
            for number, row in rows.read_rows(self.root.child(file)):
                row |= {name: rows.find_cell(row, name) for name in nested}
                for name in paths if folder else ():
                    if isinstance(row.get(name), str) and row[name]:
                        row[name] = f"{folder}/{row[name]}"
                yield f"{file} row {number}", row

    def _list_others(self, named: set[str]) -> Iterator[Skipped]:
        """The images that no row names, and everything that is no image."""
        skipped: list[Skipped] = []
        found, _ = list_folder(self.root, skipped)
        for entry in found:
            if entry.path not in named:
                yield leave_out(entry.path, "skipped_unlisted", "the metadata has no row for it")
        yield from (file for file in skipped if file.path not in self.files)


def _normalize(cell: Any) -> str:
    try:
        return normalize_path(cell)
    except (ImageError, ValueError):  # rejected later
        return ""


def recognize(images: Location, names: Sequence[str], _options: ConvertOptions) -> bool:
    """Whether IMAGES is a folder with metadata about its images, and not one of class folders."""
    if not is_folder(images):
        return False
    for file in _find_files(images, names, _DEPTH):
        folder = images.child(file).parent
        if has_class_folders(folder, folder.list_names() if "/" in file else names):
            return False
        try:
            return bool(_list_path_columns(_read_first(images.child(file))))
        except UsageError:
            return False
    return False


def imply_options(_images: Location, _options: ConvertOptions) -> Mapping[str, str]:
    """Nothing: the usual names of columns are looked for in the first row."""
    return {}


def open_rows(images: Location, options: ConvertOptions) -> RowSource:
    """Opens the metadata of a folder, or of each split in it."""
    if name := find_given(("path_format", "table_root"), options):
        raise UsageError(f"{name} is for tables, and paths are relative to the metadata")
    names = list_names(images)
    files = tuple(_find_files(images, names, _DEPTH))
    if not files:
        raise UsageError(f"{images} has no {', '.join(FILES)}, also not in folders of splits")
    first = _read_first(images.child(files[0]))
    options = _choose_columns(images.child(files[0]), options, first)
    found = _Metadata(images, files, options, [])

    def check_columns(known: set[str]) -> None:
        check_labels(images, options, known)

    return RowSource(
        images=images,
        root=images,
        options=options,
        read_rows=found.read,
        check_columns=check_columns,
        skipped=found.skipped,
        recognized=_describe(files, options, first),
        find_split=read_split_folder,
    )


def _find_files(folder: Location, names: Sequence[str], depth: int) -> Iterator[str]:
    """The files of metadata in a folder, and those in its folders of data."""
    here = [name for name in FILES if name in names]
    if len(here) > 1:
        raise UsageError(f"{folder} has {' and '.join(here)}: leave one of them out")
    yield from here
    for name in find_folders(names) if depth else ():
        inner = folder / name
        if not is_clutter(name) and is_folder(inner):
            found = _find_files(inner, inner.list_names(), depth - 1)
            yield from (f"{name}/{file}" for file in found)


def _read_first(file: Location) -> Row:
    return next((row for _, row in itertools.islice(rows.read_rows(file), 1)), {})


def _list_path_columns(row: Row) -> list[str]:
    """The columns of paths: `file_name`, or those that are called like `image_file_name`."""
    if _PATH_COLUMN in row:
        return [_PATH_COLUMN]
    return [name for name in row if name.endswith(f"_{_PATH_COLUMN}")]


def _choose_columns(file: Location, options: ConvertOptions, row: Row) -> ConvertOptions:
    path = options.path_column
    if path == DEFAULTS.path_column and path not in row:
        found = _list_path_columns(row)
        likely = [name for name in found if name != options.mask_column]
        if len(likely) != 1:
            what = f"has several, {', '.join(map(repr, found[:5]))}" if found else "has none"
            raise UsageError(
                f"{file} has to have a column {_PATH_COLUMN!r}, or one that ends in "
                f"_{_PATH_COLUMN}, and {what}: name it with --path-column"
            )
        path = likely[0]
    return apply_usual_names(dataclasses.replace(options, path_column=path), row)


def _describe(files: Sequence[str], options: ConvertOptions, row: Row) -> str:
    used = [options.path_column, *list_used(options)]
    tops = {*used, *(name.partition(".")[0] for name in used)}
    unused = [name for name in row if name not in tops]
    text = f"{', '.join(files[:3])}{' and more' if len(files) > 3 else ''}: uses {', '.join(used)}"
    if unused:
        text += f"; leaves out {', '.join(map(_propose, unused))}"
    return text


def _propose(column: str) -> str:
    """A column that is not used, with the option that may take it."""
    flag = next((flag for flag, names in _PROPOSALS.items() if column.lower() in names), "")
    if not flag:
        return column
    return f"{column} ({flag} {column}{'.bbox' if column == 'objects' else ''}?)"
