"""Walks a folder of images: every file is a path with its size, or a line that says why not.

Everything is ordered by the bytes of the names (`converter.names`), so neither the locale nor the
order of the directory shows in the result. In a store, the parts of keys count as folders, so an
empty folder is not seen; otherwise the result is that of the same files on a disk.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from converter.errors import UsageError
from converter.formats import SUFFIXES
from converter.inventory import SKIP_RULES, Entry, Skipped
from converter.names import from_system, to_bytes
from converter.storage.location import Location
from converter.storage.object_requests import list_objects
from converter.storage.objects import parse_address

_CLUTTER: Final = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir"))


def list_folder(
    root: Location, skipped: list[Skipped]
) -> tuple[Iterable[Entry], dict[str, list[str]]]:
    """The images of a folder without labels, and the folders in the root with those in each.

    Everything else is added to `skipped`, an empty list, while the images are read.
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
    entries = (Entry(path, 0, size) for path, size in _walk_folder(folder, skipped))
    folders = {top.name: _list_subfolders(Path(top.path)) for top in _list_subfolders(folder)}
    return entries, {
        from_system(top): [from_system(item.name) for item in inner]
        for top, inner in folders.items()
    }


def is_clutter(name: str) -> bool:
    """Whether a name is a dotfile's, or of something that operating systems leave behind."""
    return name.startswith(".") or name.lower() in _CLUTTER


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


def sort_folders(folders: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """Orders top folders, and those in each, by their bytes."""
    return {top: sorted(folders[top], key=to_bytes) for top in sorted(folders, key=to_bytes)}


def list_prefix(root: Location) -> Iterator[tuple[str, int]]:
    """The paths and sizes of all objects below a prefix of a store, in the order of their keys."""
    address = parse_address(str(root))
    return ((found.relative_to(address), size) for found, size in list_objects(address))


def _list_subfolders(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            plain = [i for i in items if i.is_dir(follow_symlinks=False) and not is_clutter(i.name)]
    except OSError:  # reported by the walk
        return []
    return sorted(plain, key=lambda item: os.fsencode(item.name))


def _walk_folder(root: Path, skipped: list[Skipped]) -> Iterator[tuple[str, int]]:
    """Paths and sizes of the images in a folder, ordered by the bytes of the paths."""
    pending = [_list_ordered(root, root, skipped)]
    while pending:
        item = next(pending[-1], None)
        if item is None:
            pending.pop()
        elif code := _find_skip_rule(item, root):
            skipped.append(_describe(item, root, code))
        elif item.is_dir(follow_symlinks=False):
            pending.append(_list_ordered(Path(item.path), root, skipped))
        else:
            try:
                yield _relate(item.path, root), item.stat().st_size
            except OSError as error:
                skipped.append(_describe(item, root, "unreadable", str(error.strerror)))


def _list_ordered(folder: Path, root: Path, skipped: list[Skipped]) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return iter(sorted(items, key=_order))
    except OSError as error:
        skipped.append(Skipped(_relate(str(folder), root) + "/", "unreadable", str(error.strerror)))
        return iter(())


def _order(item: os.DirEntry[str]) -> bytes:
    # As paths are ordered: those in `a-b/` come before those in `a/`.
    slash = b"/" if item.is_dir(follow_symlinks=False) else b""
    return os.fsencode(item.name) + slash


def _find_skip_rule(item: os.DirEntry[str], root: Path) -> str:
    if is_clutter(item.name):
        return "skipped_hidden"
    if item.is_symlink():
        if not stays_inside(Path(item.path), root):
            return "skipped_link"
    elif item.is_dir():
        return ""
    elif not item.is_file():
        return "skipped_special"
    return "" if has_image_suffix(item.name) else "skipped_extension"


def _describe(item: os.DirEntry[str], root: Path, code: str, detail: str = "") -> Skipped:
    slash = "/" if item.is_dir(follow_symlinks=False) else ""
    return Skipped(_relate(item.path, root) + slash, code, detail or SKIP_RULES[code])


def _relate(path: str, root: Path) -> str:
    return from_system(path[len(str(root)) :].lstrip("/"))


def _list_prefix(
    root: Location, skipped: list[Skipped]
) -> tuple[list[Entry], dict[str, list[str]]]:
    entries: list[Entry] = []
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
            entries.append(Entry(path, 0, size))
        elif name not in hidden:
            skipped.append(Skipped(name, code, SKIP_RULES[code]))
            if name.endswith("/"):
                hidden.add(name)
    if not (entries or skipped):
        raise UsageError(f"{root} does not exist: give the prefix that holds the class folders")
    return entries, sort_folders(folders)


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
