"""Which files are tars of samples, and which splits and lists of classes lie with them."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from converter.errors import UsageError
from converter.inventory import Skipped, leave_out
from converter.names import from_bytes, from_system, to_bytes
from converter.options import ConvertOptions
from converter.sources.folders import has_image_suffix, is_clutter, spell_path, stays_inside
from converter.sources.inputs import COMPRESSED_SUFFIXES, is_folder, locate_base
from converter.sources.patterns import is_pattern, list_pattern
from converter.sources.split_names import SPLIT_FOLDERS, find_split_word
from converter.storage.locate import locate, parse_address
from converter.storage.location import Location
from converter.storage.object_requests import list_level

TAR_SUFFIXES: Final = (".tar", *COMPRESSED_SUFFIXES)
_FIRST: Final = 1_000  # names in a store that are looked at
# Beside the tars, one class a line. The first name is that of OpenCLIP's data sets.
_LISTS: Final = ("classnames.txt", "classes.txt", "labels.txt")
_MAX_LIST_BYTES: Final = 1 << 24


class Tars(NamedTuple):
    """The tars of a source."""

    root: Location
    files: tuple[str, ...]  # relative to the root
    skipped: tuple[Skipped, ...]  # other files


def find_tars(images: Location) -> Tars:
    """Lists the tars that IMAGES is, holds or stands for, by the bytes of their names."""
    images, skipped = locate(images), list[Skipped]()
    root = locate_base(images)
    if is_folder(images):
        files = list(_walk(root, "", skipped))
    elif is_pattern(images):
        found = [spell_path(place, root) for place in list_pattern(images)]
        files = [file for file in found if is_tar(file)]
        skipped += [leave_out(file, "skipped_extension") for file in found if not is_tar(file)]
    else:
        files = [spell_path(images, root)]
    return Tars(root, tuple(sorted(files, key=to_bytes)), tuple(skipped))


def _walk(root: Location, folder: str, skipped: list[Skipped]) -> Iterator[str]:
    """The tars in a folder and in those right below it."""
    place = root.child(folder.rstrip("/")) if folder else root
    files = place.list_sizes()
    for name in place.list_names():
        path = f"{folder}{_spell(name, root)}"
        is_below = name not in files and (root.is_remote or (place / name).is_dir())
        code = _judge(place / name, root, is_file=name in files)
        if code:
            skipped.append(leave_out(f"{path}/" if is_below else path, code))
        elif not is_below:
            yield path
        elif folder:
            skipped.append(leave_out(f"{path}/", "skipped_extension", "a folder in one of tars"))
        else:
            yield from _walk(root, f"{path}/", skipped)


def _judge(place: Location, root: Location, *, is_file: bool) -> str:
    """Why something in a folder is neither a tar nor a folder."""
    if is_clutter(place.name):
        return "skipped_hidden"
    if not root.is_remote:
        here = Path(str(place))
        if here.is_symlink() and not stays_inside(here, Path(str(root))):
            return "skipped_link"
        if not (is_file or here.is_dir()):
            return "skipped_special"
    return "skipped_extension" if is_file and not is_tar(place.name) else ""


def is_tar(name: str) -> bool:
    """Whether a file is a tar, by its name."""
    return name.lower().endswith(TAR_SUFFIXES)


def _spell(name: str, root: Location) -> str:
    return name if root.is_remote else from_system(name)


def find_bare_tars(folder: Location, names: Sequence[str]) -> Tars | None:
    """The tars of a folder, and of those of splits in it; None if it has images or classes, too.

    Without a file, all tars are links that lead out of the folder, or hidden.
    """
    splits = [name for name in names if name.lower() in SPLIT_FOLDERS]
    inner = itertools.chain(*(_list_first(folder / name) for name in splits))
    if any(map(has_image_suffix, names)) or not any(map(is_tar, (*names, *inner))):
        return None
    others = {name for name in names if not is_clutter(name)} - {*splits, *folder.list_sizes()}
    if others:
        return None
    tars = find_tars(folder)
    deeper = (file.path for file in tars.skipped if "/" in file.path)
    is_mixed = any(path.endswith("/") or has_image_suffix(path) for path in deeper)
    return None if is_mixed else tars


def _list_first(folder: Location) -> list[str]:
    """The names in a folder; in a store, the first ones, as each thousand is a request."""
    if not folder.is_remote:
        return folder.list_names() if folder.is_dir() else []
    found = list_level(parse_address(str(folder)))
    return [name for name, _ in itertools.islice(found, _FIRST)]


def list_splits(files: Sequence[str], options: ConvertOptions) -> dict[str, str]:
    """The split of each tar, by its folder or its name, if all have one."""
    if options.split_folders == "no":
        return dict.fromkeys(files, "")
    splits = {file: _find_split(file) for file in files}
    named = [file for file, split in splits.items() if split]
    if len(named) < len(files):
        if len({splits[file] for file in named}) > 1:
            other = next(file for file, split in splits.items() if not split)
            raise UsageError(
                f"the names of {named[0]!r} and {named[-1]!r} look like splits, that of {other!r} "
                "does not: rename it, leave it out with a pattern, or say --split-folders no"
            )
        return dict.fromkeys(files, "")
    return splits


def _find_split(file: str) -> str:
    folder, _, name = file.rpartition("/")
    if split := SPLIT_FOLDERS.get(folder.partition("/")[0].lower()):
        return split
    return find_split_word(name)


def read_list(images: Location, root: Location) -> tuple[str, tuple[str, ...]]:
    """The names of the classes in a file beside several tars, and that of the file."""
    if is_folder(images) or is_pattern(images):
        for name in _LISTS:
            size = (root / name).measure()
            if size is not None and size <= _MAX_LIST_BYTES:
                lines = (root / name).read_bytes().splitlines()
                return name, tuple(from_bytes(line.strip()) for line in lines if line.strip())
    return "", ()
