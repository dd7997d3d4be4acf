"""Folders of images: every file is a path with its size, or a line that says why not.

Everything is ordered by the bytes of the names (`converter.names`), so neither the locale nor the
order of the directory shows in the result. In a store, the parts of keys count as folders, so an
empty folder is not seen; otherwise the result is that of the same files on a disk.

The path of an image says its split and its class:

    <class>/**/<image>             label_from top: the folder below the root, or below the split's
    **/<class>/<image>             label_from parent: the folder that the image lies in
    **/<image>                     label_from none: no labels
    train|valid|test/…             split folders before any of them
"""

import itertools
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from converter import progress
from converter.class_names import list_new_names, parse_renames
from converter.entries import Entries
from converter.errors import UsageError
from converter.image_options import SUFFIXES
from converter.inventory import Skipped, leave_out
from converter.names import from_bytes, from_system, to_bytes, to_system
from converter.options import ConvertOptions
from converter.sources.split_names import SPLIT_FOLDERS
from converter.storage.locate import parse_address
from converter.storage.location import Location
from converter.storage.object_requests import list_objects

# The class with label 0 where labels begin at 1, as in Inception and its followers.
BACKGROUND: Final = "background"

# Folders that lie beside each other in layouts of images with annotations; neither is a class.
_LAYOUTS: Final = (
    ("images", "labels"), ("images", "annotations"), ("images", "masks"),
    ("JPEGImages", "Annotations"),
)  # fmt: skip
LAYOUT_FOLDERS: Final = frozenset((*itertools.chain(*_LAYOUTS), "ImageSets"))

_CLUTTER: Final = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir"))


def list_folder(root: Location, skipped: list[Skipped]) -> tuple[Entries, dict[str, set[str]]]:
    """The images of a folder without labels, and the folders in the root with those in each.

    Everything else is added to `skipped`.
    """
    if root.is_remote:
        return _list_prefix(root, skipped)
    folder = Path(str(root)).absolute()
    if not folder.exists():
        raise UsageError(f"{root} does not exist: give the folder that holds the class folders")
    if not folder.is_dir():
        raise UsageError(
            f"{root} is a file: give the folder that holds the class folders, an archive or a table"
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UsageError(f"{root} cannot be read: check its permissions")
    folders = {top: _find_subfolders(folder / to_system(top)) for top in _find_subfolders(folder)}
    return _walk_folder(folder, skipped), folders


def check_layout(images: Location, names: Collection[str]) -> None:
    """Raises UsageError if folders of these names would be taken for classes, and are none."""
    for pair in _LAYOUTS:
        if {*pair} <= {*names}:
            known = "nothing in them is as COCO, VOC or YOLO have it"
            raise UsageError(
                f"{images} has the folders {' and '.join(pair)}, which look like images with "
                f"annotations, and {known}: name what it is with --source, folders if these are "
                "classes; masks are named with --mask-dir"
            )


def clean_name(name: str) -> tuple[str, bool]:
    """The path of a member or a row without empty parts and dots, and whether it leads out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts), name.startswith("/") or ".." in parts or "\0" in name


def is_clutter(name: str) -> bool:
    """Whether a name is a dotfile's, or of something that operating systems leave behind."""
    return name.startswith(".") or name.lower() in _CLUTTER


def spell_path(file: Location, root: Location) -> str:
    """The path of a file in a folder, in the spelling of `converter.names`."""
    path = file.relate(root)
    return path if file.is_remote else from_system(path)


def leave_other(path: str, detail: str = "") -> Skipped:
    """What lies beside the files of a data set; the detail is what its code means by default."""
    is_hidden = is_clutter(path.rpartition("/")[2])
    return leave_out(path, "skipped_hidden" if is_hidden else "skipped_extension", detail)


def has_image_suffix(name: str) -> bool:
    """Whether a name ends like an image's."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def stays_inside(path: Path, root: Path) -> bool:
    """Whether a path, after all links, is a file below `root`."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return target.is_file() and target.is_relative_to(root.resolve())


def list_prefix(root: Location) -> Iterator[tuple[str, int]]:
    """The paths and sizes of all objects below a prefix of a store, in the order of their keys."""
    address = parse_address(str(root))
    return ((found.relative_to(address), size) for found, size in list_objects(address))


def _find_subfolders(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as items:
            folders = [item.name for item in items if item.is_dir(follow_symlinks=False)]
    except OSError:  # reported by the walk
        return set()
    return {from_system(name) for name in folders if not is_clutter(name)}


def _walk_folder(root: Path, skipped: list[Skipped]) -> Entries:
    entries, cut = Entries(), len(os.fsencode(root))
    # A stack of its own: folders may lie deeper in each other than Python's calls may.
    pending = [_list_ordered(os.fsencode(root), cut, skipped)]
    while pending:
        item = next(pending[-1], None)
        if item is None:
            pending.pop()
        elif code := _find_skip_rule(item, root):
            skipped.append(_describe(item, cut, code))
        elif item.is_dir(follow_symlinks=False):
            pending.append(_list_ordered(item.path, cut, skipped))
        else:
            progress.advance()
            try:
                entries.add(item.path[cut:].lstrip(b"/"), item.stat().st_size)
            except OSError as error:
                skipped.append(_describe(item, cut, "unreadable", str(error.strerror)))
    return entries


# Names are bytes here, which are the same in every locale and need not be decoded.
def _list_ordered(folder: bytes, cut: int, skipped: list[Skipped]) -> Iterator[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as items:
            return iter(sorted(items, key=_order))
    except OSError as error:
        path = f"{from_bytes(folder[cut:]).lstrip('/')}/"
        skipped.append(leave_out(path, "unreadable", str(error.strerror)))
        return iter(())


def _order(item: os.DirEntry[bytes]) -> bytes:
    # As paths are ordered: those in `a-b/` come before those in `a/`.
    return item.name + b"/" if item.is_dir(follow_symlinks=False) else item.name


def _find_skip_rule(item: os.DirEntry[bytes], root: Path) -> str:
    name = from_bytes(item.name)
    if is_clutter(name):
        return "skipped_hidden"
    if item.is_symlink():
        if not stays_inside(Path(os.fsdecode(item.path)), root):
            return "skipped_link"
    elif item.is_dir():
        return ""
    elif not item.is_file():
        return "skipped_special"
    return "" if has_image_suffix(name) else "skipped_extension"


def _describe(item: os.DirEntry[bytes], cut: int, code: str, detail: str = "") -> Skipped:
    slash = "/" if item.is_dir(follow_symlinks=False) else ""
    return leave_out(from_bytes(item.path[cut:]).lstrip("/") + slash, code, detail)


def _list_prefix(root: Location, skipped: list[Skipped]) -> tuple[Entries, dict[str, set[str]]]:
    entries = Entries()
    folders: defaultdict[str, set[str]] = defaultdict(set)
    hidden: set[str] = set()
    for path, size in list_prefix(root):
        name, code = _judge_key(path)
        parts = name.split("/")[:-1]
        if not all(parts) or any(map(is_clutter, parts)):
            parts = [part for part in parts[:1] if part and not is_clutter(part)]
        if parts:
            folders[parts[0]].update(parts[1:2])
        if not code:
            progress.advance()
            entries.add(to_bytes(path), size)
        elif name not in hidden:
            skipped.append(leave_out(name, code))
            if name.endswith("/"):
                hidden.add(name)
    if not (entries or skipped):
        raise UsageError(f"{root} does not exist: give the prefix that holds the class folders")
    return entries, folders


def _judge_key(path: str) -> tuple[str, str]:
    """The path to list, which ends at a hidden folder, and the code of the rule that skips it."""
    parts = path.split("/")
    for number, part in enumerate(parts, start=1):
        if part and is_clutter(part):
            slash = "/" if number < len(parts) else ""
            return "/".join(parts[:number]) + slash, "skipped_hidden"
    if "" in parts:
        return path, "skipped_special"
    return path, "" if has_image_suffix(path) else "skipped_extension"


class Assignment(NamedTuple):
    """The split and class of the images in a folder, or the code of the rule that skips them."""

    split: str = ""
    class_name: str = ""
    code: str = ""


class Labeller:
    """Assigns images to splits and classes, given the folders in the root and those in each."""

    def __init__(self, folders: Mapping[str, set[str]], options: ConvertOptions) -> None:
        self._from = options.label_from
        self._has_splits = _are_splits(folders, options.split_folders)
        self._folders = folders
        self._last = ("", self._assign_folder([]))

    def list_classes(self) -> set[str]:
        """The classes that have a folder, also of those without an image."""
        if self._from != "top":
            return set()
        if not self._has_splits:
            return set(self._folders)
        inner = [self._folders[top] for top in self._folders if top.lower() in SPLIT_FOLDERS]
        return set().union(*inner)

    def assign(self, path: str) -> Assignment:
        """The assignment of an image; fastest if images of one folder follow each other."""
        folder = path.rpartition("/")[0]
        if folder != self._last[0]:
            self._last = (folder, self._assign_folder(folder.split("/") if folder else []))
        return self._last[1]

    def _assign_folder(self, names: list[str]) -> Assignment:
        split = ""
        if self._has_splits:
            split = SPLIT_FOLDERS.get(names[0].lower(), "") if names else ""
            names = names[1:]
            if not split:
                return Assignment(code="skipped_no_split")
        if self._from == "none":
            return Assignment(split)
        if not names:
            return Assignment(split, code="skipped_no_class")
        return Assignment(split, names[0] if self._from == "top" else names[-1])


def order_classes(found: Iterable[str], options: ConvertOptions) -> tuple[str, ...]:
    """The classes in label order: those of `class_names`, or else `found` in its order."""
    given = options.class_names
    names = list_new_names(given) if given else tuple(found)
    if not names:
        return ()
    for name in names:
        if "\n" in name or "\r" in name:
            raise UsageError(
                f"class {name!r} has a line break in its name, which labels.txt cannot hold: "
                "rename it"
            )
    if not options.label_offset:
        return names
    if BACKGROUND in names:
        raise UsageError(
            f"label offset 1 leaves label 0 to a class {BACKGROUND!r}, and there is one of that "
            "name: rename it, or leave the offset out"
        )
    return (BACKGROUND, *names)


def number_names(classes: tuple[str, ...], options: ConvertOptions) -> dict[str, int]:
    """The label of each class by its name in the source; those left out are not among them."""
    labels = {name: label for label, name in enumerate(classes)}
    if options.class_names is None:
        return labels
    return {old: labels[new] for old, new in parse_renames(options.class_names).items()}


def _are_splits(folders: Mapping[str, set[str]], asked: str) -> bool:
    # In order, because messages name them.
    named = sorted((name for name in folders if name.lower() in SPLIT_FOLDERS), key=to_bytes)
    if asked == "yes" and not named:
        names = ", ".join(sorted(SPLIT_FOLDERS))
        raise UsageError(f"none of the folders is a split: they would be called {names}")
    if asked != "auto":
        return asked == "yes"
    if len(named) == len(folders):
        return bool(named)
    if len({SPLIT_FOLDERS[name.lower()] for name in named}) > 1:
        other = min(folders.keys() - {*named}, key=to_bytes)
        raise UsageError(
            f"the folders {', '.join(named)} look like splits, {other!r} beside them does not: "
            "say with --split-folders yes or no what they are"
        )
    return False
