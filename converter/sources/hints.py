"""What to give where a table does not say as expected where its images are, for messages."""

import contextlib
import itertools
import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from converter.errors import ShardmillError
from converter.sources import rows
from converter.sources.archives import index_archive
from converter.sources.column_notes import rank_columns
from converter.sources.folders import clean_name, has_image_suffix, is_clutter
from converter.sources.inputs import is_archive
from converter.storage.location import Location

# What is in the names of columns that tell images, the likeliest first.
_PATH_WORDS: Final = (
    "path", "filename", "file", "image", "img", "filepath", "photo", "picture", "id", "uuid",
    "name",
)  # fmt: skip

# How far and wide files are looked for, from the table's folder on.
_MAX_DEPTH: Final = 2
_MAX_FOLDERS: Final = 32


def propose_path_option(root: Location, first: Sequence[rows.Row]) -> str:
    """The option to give if there is no column of paths, judged by the first rows; maybe none."""
    columns = rank_columns(first[0], _PATH_WORDS) if first else []
    for column in columns:
        if found := find_path_format(root, column, first):
            if found == f"{{{column}}}":
                return f"{column!r} holds paths: give --path-column {shlex.quote(column)}"
            return f"{column!r} names the files: give --path-format {shlex.quote(found)}"
    if not columns:
        return ""
    column = columns[0]
    option = f"--path-column {shlex.quote(column)}"
    if not has_image_suffix(str(first[0][column])):
        option = f"--path-format {shlex.quote(f'{{{column}}}.jpg')}, or another suffix"
    return f"{column!r} looks like it: give {option}, and their folder with --table-root"


def find_path_format(root: Location, column: str, first: Sequence[rows.Row]) -> str:
    """The format by which a column names images that are there; empty if there is none."""
    cells = list(_read_paths(column, first))
    if not cells or any(letter in column for letter in "{}:!"):
        return ""
    # A folder that cannot be read is no reason to say less about the table.
    with contextlib.suppress(OSError, ShardmillError):
        return _find_format(root, column, cells)
    return ""


def _find_format(root: Location, column: str, cells: Sequence[str]) -> str:
    for before, after in _list_alike(root, cells[0]):
        there = sum(_is_there(root, f"{before}{cell}{after}") for cell in cells)
        if 2 * there > len(cells):  # some may be missing
            return f"{_escape(before)}{{{column}}}{_escape(after)}"
    return ""


def _read_paths(column: str, first: Sequence[rows.Row]) -> Iterator[str]:
    for row in first:
        try:
            path, is_outside = clean_name(rows.read_name(row.get(column)))
        except ValueError:
            continue
        if path and not is_outside:
            yield path


def _list_alike(root: Location, path: str) -> Iterator[tuple[str, str]]:
    """What stands before and after a path in those of the images that are called like it."""
    for name in index_archive(root) if is_archive(root) else _list_beside(root, path):
        stem, suffix = os.path.splitext(name)
        for whole, after in ((name, ""), (stem, suffix)):
            if has_image_suffix(name) and f"/{whole}".endswith(f"/{path}"):
                yield whole.removesuffix(path), after


def _list_beside(root: Location, path: str) -> Iterator[str]:
    """What begins like a path in a folder, and in those below it."""
    above, _, name = path.rpartition("/")
    for folder in _list_folders(root):
        place = "/".join(filter(None, (folder, above)))
        found = _enter(root, place).list_names(name)
        yield from (f"{place}/{each}".lstrip("/") for each in found)


def _list_folders(root: Location) -> Iterator[str]:
    level = [""]
    for _ in range(_MAX_DEPTH):
        yield from level
        below = (
            f"{above}/{name}".lstrip("/") for above in level for name in _list_names(root, above)
        )
        level = list(
            itertools.islice(filter(lambda f: root.child(f).is_dir(), below), _MAX_FOLDERS)
        )
    yield from level


def _list_names(root: Location, folder: str) -> Iterator[str]:
    names = _enter(root, folder).list_names()
    return (name for name in names if not (has_image_suffix(name) or is_clutter(name)))


def _enter(root: Location, folder: str) -> Location:
    return root.child(folder) if folder else root


def _is_there(root: Location, path: str) -> bool:
    return path in index_archive(root) if is_archive(root) else root.child(path).is_file()


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
