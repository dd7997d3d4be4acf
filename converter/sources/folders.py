"""Walks a folder of images: every file is a path with its size, or a line that says why not.

Everything is ordered by the bytes of the names (`converter.names`), so neither the locale nor the
order of the directory shows in the result. A store has no folders: the parts of keys are taken for
them, so an empty folder is not seen; all else gives what the same files on a disk give.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
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
    """Lists the images of a folder, with their sizes.

    Args:
        root: the folder.
        skipped: takes everything else; complete when the images have been read to their end.

    Returns:
        the images, ordered by the bytes of their paths, with labels that mean nothing yet; and the
        folders in the root with those in each of them.

    Raises:
        UsageError: it does not exist, or cannot be read.
        StoreError: the store does not answer, or refuses.
    """
    if root.is_remote:
        return _list_prefix(root, skipped)
    _check_folder(Path(str(root)))
    folder = Path(str(root)).absolute()
    found = (Entry(path, 0, size) for path, size in _walk_folder(folder, skipped))
    return found, _list_folders(folder)


def _check_folder(root: Path) -> None:
    """Makes sure that a folder is there and can be read."""
    if not root.exists():
        raise UsageError(f"{root} does not exist: give the folder that holds the class folders")
    if not root.is_dir():
        raise UsageError(
            f"{root} is a file: give the folder that holds the class folders, an archive or a table"
        )
    if not os.access(root, os.R_OK | os.X_OK):
        raise UsageError(f"{root} cannot be read: check its permissions")


def _list_folders(root: Path) -> dict[str, list[str]]:
    """The folders in a root, and those in each of them, ordered by their bytes."""
    unread: list[Skipped] = []
    return {
        from_system(top.name): [
            from_system(item.name) for item in _list_plain(Path(top.path), root, unread)
        ]
        for top in _list_plain(root, root, unread)
    }


def _walk_folder(root: Path, skipped: list[Skipped]) -> Iterator[tuple[str, int]]:
    """Paths and sizes of the images in a folder, ordered by the bytes of the paths."""
    pending = [_list_ordered(root, root, skipped)]
    while pending:
        item = next(pending[-1], None)
        if item is None:
            pending.pop()
        elif code := _skip(item, root):
            skipped.append(_describe(item, root, code))
        elif item.is_dir(follow_symlinks=False):
            pending.append(_list_ordered(Path(item.path), root, skipped))
        elif not has_image_suffix(item.name):
            skipped.append(_describe(item, root, "skipped_extension"))
        else:
            try:
                yield _relate(item.path, root), item.stat().st_size
            except OSError as error:
                skipped.append(_describe(item, root, "unreadable", error))


def is_clutter(name: str) -> bool:
    """Whether a name is a dotfile's, or one of what an operating system leaves behind."""
    return name.startswith(".") or name.lower() in _CLUTTER


def has_image_suffix(name: str) -> bool:
    """Whether a name ends like an image's."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def is_named(path: Location, suffixes: tuple[str, ...]) -> bool:
    """Whether a path ends like this, in any case, and is not that of a folder."""
    return path.name.lower().endswith(suffixes) and not _is_folder(path)


def stays_inside(path: Path, root: Path) -> bool:
    """Whether a path, whatever links it goes through, leads to a file below a root."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return target.is_file() and target.is_relative_to(root.resolve())


def _is_folder(path: Location) -> bool:
    return _is_prefix(path) if path.is_remote else path.is_dir()


@functools.lru_cache(maxsize=256)
def _is_prefix(path: Location) -> bool:
    # Every image of an archive asks for it, and a process does not outlive the answer.
    return path.is_dir()


def _list_plain(folder: Path, root: Path, unread: list[Skipped]) -> list[os.DirEntry[str]]:
    items = sorted(_list(folder, root, unread), key=lambda item: os.fsencode(item.name))
    return [
        item for item in items if item.is_dir(follow_symlinks=False) and not is_clutter(item.name)
    ]


def _list_ordered(folder: Path, root: Path, skipped: list[Skipped]) -> Iterator[os.DirEntry[str]]:
    return iter(sorted(_list(folder, root, skipped), key=_order))


def _order(item: os.DirEntry[str]) -> bytes:
    """What comes first among paths: those in `a-b/` before those in `a/`."""
    slash = b"/" if item.is_dir(follow_symlinks=False) else b""
    return os.fsencode(item.name) + slash


def _list(folder: Path, root: Path, skipped: list[Skipped]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return list(items)
    except OSError as error:
        skipped.append(Skipped(_relate(str(folder), root) + "/", "unreadable", str(error.strerror)))
        return []


def _skip(item: os.DirEntry[str], root: Path) -> str | None:
    if is_clutter(item.name):
        return "skipped_hidden"
    if item.is_symlink():
        return None if stays_inside(Path(item.path), root) else "skipped_link"
    if not item.is_dir() and not item.is_file():
        return "skipped_special"
    return None


def _describe(
    item: os.DirEntry[str], root: Path, code: str, error: OSError | None = None
) -> Skipped:
    slash = "/" if item.is_dir(follow_symlinks=False) else ""
    detail = str(error.strerror) if error else SKIP_RULES[code]
    return Skipped(_relate(item.path, root) + slash, code, detail)


def _relate(path: str, root: Path) -> str:
    return from_system(path[len(str(root)) :].lstrip("/"))


def _list_prefix(
    root: Location, skipped: list[Skipped]
) -> tuple[list[Entry], dict[str, list[str]]]:
    address = parse_address(str(root))
    entries: list[Entry] = []
    folders: dict[str, set[str]] = {}
    seen: set[str] = set()
    empty = True
    for found, size in list_objects(address):
        empty = False
        path = found.relative_to(address)
        hidden = _find_hidden(path)
        _note_folders((hidden or path).split("/")[:-1], folders)
        if code := _judge_key(path, hidden):
            name = hidden or path
            if name not in seen:
                skipped.append(Skipped(name, code, SKIP_RULES[code]))
            if name.endswith("/"):
                seen.add(name)
        else:
            entries.append(Entry(path, 0, size))
    if empty:
        raise UsageError(f"{root} does not exist: give the prefix that holds the class folders")
    return (
        entries,
        {top: sorted(folders[top], key=to_bytes) for top in sorted(folders, key=to_bytes)},
    )


def _find_hidden(path: str) -> str:
    """The first part of a path that is left out by its name, with what stands before it."""
    parts = path.split("/")
    for number, part in enumerate(parts, start=1):
        if part and is_clutter(part):
            return "/".join(parts[:number]) + ("/" if number < len(parts) else "")
    return ""


def _judge_key(path: str, hidden: str) -> str:
    if hidden:
        return "skipped_hidden"
    if "" in path.split("/"):
        return "skipped_special"
    return "" if has_image_suffix(path) else "skipped_extension"


def _note_folders(parts: list[str], folders: dict[str, set[str]]) -> None:
    if not all(parts) or any(map(is_clutter, parts)):
        parts = [part for part in parts[:1] if part and not is_clutter(part)]
    if parts:
        folders.setdefault(parts[0], set()).update(parts[1:2])
