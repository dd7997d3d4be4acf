"""Finds the images of a class-per-folder tree: `IMAGES/<class>/**/<image>`.

Every file is accounted for: it becomes an entry, or a line that says why not. Everything is ordered
by the bytes of the names (`converter.names`), so neither the locale nor the order of the directory
shows in the result.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from converter.errors import UsageError
from converter.formats import SUFFIXES
from converter.names import from_system, to_bytes

IMAGE_SUFFIXES: Final = SUFFIXES

SKIP_RULES: Final = {
    "skipped_hidden": "a dotfile, or one that an operating system leaves behind",
    "skipped_extension": "the name does not end like an image's",
    "skipped_no_class": "lies beside the class folders, not in one",
    "skipped_link": "a symbolic link that leaves the tree, leads nowhere or is a folder",
    "skipped_special": "neither a file nor a folder",
    "unreadable": "the folder or its file cannot be read",
}
"""Why a file is not looked at, by the code in `rejects.jsonl`."""

_SPLIT_NAMES: Final = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval")
)
_CLUTTER: Final = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir"))


class Entry(NamedTuple):
    """One image to convert.

    Attributes:
        path: relative to the root, with `/`, in the spelling of `converter.names`.
        label: index into the sorted class names.
        size_bytes: of the file.
    """

    path: str
    label: int
    size_bytes: int


class Skipped(NamedTuple):
    """One file or folder that is not looked at: its relative path, the rule, and a detail."""

    path: str
    code: str
    detail: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """What was found under a root.

    Attributes:
        classes: names of the class folders in label order; also those without an image.
        entries: the images, ordered by the bytes of their paths.
        skipped: everything else, in the same order.
    """

    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]

    @property
    def scanned(self) -> int:
        return len(self.entries) + len(self.skipped)


def scan_folder(root: Path) -> Scan:
    """Lists the images below the class folders of `root`.

    Memory grows with the number of files, by about 200 bytes each.

    Raises:
        UsageError: `root` is missing, not a folder, or holds no class folder or no image.
    """
    _check_root(root)
    root = root.absolute()
    skipped: list[Skipped] = []
    top = sorted(_list(root, root, skipped), key=lambda item: os.fsencode(item.name))
    folders = []
    for item in top:
        if code := _skip(item, root):
            skipped.append(_describe(item, root, code))
        elif item.is_dir(follow_symlinks=False):
            folders.append(item)
        else:
            skipped.append(_describe(item, root, "skipped_no_class"))
    if not folders:
        raise UsageError(
            f"{root} has no class folders: put the images of each class in a folder of its own, "
            f"such as {root}/cats and {root}/dogs"
        )
    classes = tuple(_check_class(from_system(item.name)) for item in folders)
    if {name.lower() for name in classes} <= _SPLIT_NAMES:
        raise UsageError(
            f"the folders of {root} look like splits, not classes ({', '.join(classes)}): convert "
            "each of them on its own"
        )
    labels = {item.name: label for label, item in enumerate(folders)}
    entries = tuple(
        Entry(path, labels[item.name], size)
        for item in sorted(folders, key=_order)
        for path, size in _walk(Path(item.path), root, skipped)
    )
    if not entries:
        raise UsageError(
            f"{root} has {len(classes)} class folders but no image: looked for names that end in "
            + ", ".join(sorted(IMAGE_SUFFIXES))
        )
    skipped.sort(key=lambda skip: to_bytes(skip.path))
    return Scan(classes=classes, entries=entries, skipped=tuple(skipped))


def _check_root(root: Path) -> None:
    if not root.exists():
        raise UsageError(f"{root} does not exist: give the folder that holds the class folders")
    if not root.is_dir():
        raise UsageError(f"{root} is a file: give the folder that holds the class folders")
    if not os.access(root, os.R_OK | os.X_OK):
        raise UsageError(f"{root} cannot be read: check its permissions")


def _check_class(name: str) -> str:
    if "\n" in name or "\r" in name:
        raise UsageError(
            f"class folder {name!r} has a line break in its name, which labels.txt cannot hold: "
            "rename it"
        )
    return name


def _walk(folder: Path, root: Path, skipped: list[Skipped]) -> Iterator[tuple[str, int]]:
    """Paths and sizes, ordered by the bytes of the paths without holding all of them for it."""
    pending = [_list_ordered(folder, root, skipped)]
    while pending:
        item = next(pending[-1], None)
        if item is None:
            pending.pop()
        elif code := _skip(item, root):
            skipped.append(_describe(item, root, code))
        elif item.is_dir(follow_symlinks=False):
            pending.append(_list_ordered(Path(item.path), root, skipped))
        elif os.path.splitext(item.name)[1].lower() not in IMAGE_SUFFIXES:
            skipped.append(_describe(item, root, "skipped_extension"))
        else:
            try:
                yield _relate(item.path, root), item.stat().st_size
            except OSError as error:
                skipped.append(_describe(item, root, "unreadable", error))


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
    if item.name.startswith(".") or item.name.lower() in _CLUTTER:
        return "skipped_hidden"
    if item.is_symlink():
        return None if _stays_inside(item, root) else "skipped_link"
    if not item.is_dir() and not item.is_file():
        return "skipped_special"
    return None


def _stays_inside(item: os.DirEntry[str], root: Path) -> bool:
    try:
        target = Path(item.path).resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return target.is_file() and target.is_relative_to(root.resolve())


def _describe(
    item: os.DirEntry[str], root: Path, code: str, error: OSError | None = None
) -> Skipped:
    slash = "/" if item.is_dir(follow_symlinks=False) else ""
    detail = str(error.strerror) if error else SKIP_RULES[code]
    return Skipped(_relate(item.path, root) + slash, code, detail)


def _relate(path: str, root: Path) -> str:
    return from_system(path[len(str(root)) :].lstrip("/"))
