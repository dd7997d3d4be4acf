"""Lists the files of a data set as Hugging Face lays them out, with the split of each.

    data/train-00000-of-00005.parquet    the text before the number is the split
    validation/0000.parquet              or a folder has its name
    my_test.parquet                      or the name of the file has it as a word of its own

The rules are those of `datasets/data_files.py`; `train`, `validation` and `test` are spelled as for
folders. In a folder with several configurations, each is a data set of its own.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from converter.errors import UsageError
from converter.inventory import Skipped, leave_out
from converter.names import to_bytes
from converter.sources.folders import (
    has_image_suffix,
    is_clutter,
    list_folder,
    spell_path,
)
from converter.sources.inputs import is_folder
from converter.sources.patterns import is_pattern, list_pattern
from converter.sources.split_names import SPLIT_FOLDERS
from converter.storage.location import Location

CARD: Final = "README.md"  # that the folder of a data set has, which says that it is one

_DATA_FOLDER: Final = "data"
_USUAL: Final = frozenset((*SPLIT_FOLDERS, _DATA_FOLDER, "default"))

_MAX_FOLDERS: Final = 20  # that are looked into, because a card may lie in any folder

_SHARD: Final = re.compile(r"(.+)-\d{5}-of-\d{5}[^/]*")
_KEYWORD: Final = re.compile(rf"(?:^|[-._ 0-9])({'|'.join(SPLIT_FOLDERS)})(?=[-._ 0-9]|$)")
_COUNT: Final = re.compile(r"(-\d{5})-of-\d{5}$")


class DataFile(NamedTuple):
    """A file of a data set."""

    path: str  # relative to the root
    split: str  # empty if no file has any
    name: str  # what paths of its images begin with: its path without the suffix, made short


def list_data_files(
    images: Location, root: Location, suffix: str
) -> tuple[list[DataFile], list[Skipped]]:
    """The files of IMAGES with that suffix, in the order of their names, and all others.

    IMAGES is one file, a pattern, or a folder, `root`. Raises UsageError if there is none, or if
    there are several configurations.
    """
    skipped: list[Skipped] = []
    if is_pattern(images):
        paths = [spell_path(file, root) for file in list_pattern(images)]
    elif is_folder(images):
        paths = sorted(_find_files(root, suffix, skipped), key=to_bytes)
    else:
        paths = [spell_path(images, root)]
    if not paths:
        check_links(images, skipped, (suffix,))
        raise UsageError(f"{images} has no file that ends in {suffix}")
    _check_configurations(images, paths)
    splits = find_splits(paths)
    skipped += (leave_out(path, "skipped_no_split") for path in paths if path not in splits)
    names = name_files([*splits], suffix)
    return [DataFile(path, splits[path], names[path]) for path in splits], skipped


def check_links(images: Location, skipped: Iterable[Skipped], suffixes: Sequence[str]) -> None:
    """Raises UsageError if a folder has files of its kind as links that lead out of it.

    As in Hugging Face's cache, where files are links to blobs beside the snapshots.
    """
    links = (file.path for file in skipped if file.code == "skipped_link")
    for link, suffix in itertools.product(links, suffixes):
        if link.lower().endswith(suffix):
            pattern = images.child(link).parent / f"*{link[-len(suffix) :]}"
            raise UsageError(
                f"{images} has {link} and others as links that lead out of it, which are followed "
                f"only if you name them: give the pattern '{pattern}'"
            )


def find_splits(paths: Sequence[str]) -> dict[str, str]:
    """The split of each file, empty if none has any; without those that alone have none."""
    for find in (_read_shard, read_split_folder, _read_name):
        found = {path: split for path in paths if (split := find(path))}
        if found:
            return found
    return dict.fromkeys(paths, "")


def name_files(paths: Sequence[str], suffix: str) -> dict[str, str]:
    """What the paths of images begin with, by the path of their file.

    Without the number of files, as long as that tells them apart: when one is added, all others
    get another number.
    """
    plain = {path: path.removesuffix(suffix) for path in paths}
    short = {path: _COUNT.sub(r"\1", name) for path, name in plain.items()}
    return short if len({*short.values()}) == len(short) else plain


def has_class_folders(folder: Location, names: Sequence[str]) -> bool:
    """Whether a folder with these names in it looks like one of class folders: two or more."""
    # A store would be asked about each of the other names.
    files = folder.list_sizes() if folder.is_remote else {}
    others = (name for name in names if name.lower() not in _USUAL and name not in files)
    shown = (name for name in others if not (is_clutter(name) or has_image_suffix(name)))
    found = (name for name in shown if is_folder(folder / name))
    return sum(1 for _ in itertools.islice(found, 2)) > 1


def find_folders(names: Sequence[str]) -> list[str]:
    """The folders, of the names in one, that files of a data set may lie in."""
    found = [name for name in names if "." not in name]
    if CARD in names and len(found) <= _MAX_FOLDERS:
        return found
    return [name for name in names if name.lower() in _USUAL]


def _read_shard(path: str) -> str:
    found = _SHARD.fullmatch(path.rpartition("/")[2])
    return SPLIT_FOLDERS.get(found[1].lower(), "") if found else ""


def read_split_folder(path: str) -> str:
    """The split that a folder in a path is called like; empty if there is none."""
    for part in path.split("/")[:-1]:
        if found := _KEYWORD.search(part.lower()):
            return SPLIT_FOLDERS[found[1]]
    return ""


def _read_name(path: str) -> str:
    found = _KEYWORD.search(path.rpartition("/")[2].lower())
    return SPLIT_FOLDERS[found[1]] if found else ""


def _check_configurations(images: Location, paths: Sequence[str]) -> None:
    known = {_DATA_FOLDER, *SPLIT_FOLDERS}
    folders = {
        "/".join(part for part in path.split("/")[:-1] if part.lower() not in known)
        for path in paths
    }
    if len(folders) > 1:
        names = sorted(folder or "." for folder in folders)
        raise UsageError(
            f"{images} holds several data sets, in {', '.join(map(repr, names[:5]))}: give one of "
            "these folders, or a pattern"
        )


def _find_files(root: Location, suffix: str, skipped: list[Skipped]) -> Iterator[str]:
    others: list[Skipped] = []
    images, _ = list_folder(root, others)
    skipped += (leave_out(image.path, "skipped_extension") for image in images)
    for file in others:
        if file.code == "skipped_extension" and file.path.lower().endswith(suffix):
            yield file.path
        else:
            skipped.append(file)
