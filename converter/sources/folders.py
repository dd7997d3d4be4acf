"""Folders of images: every file is a path with its size, or a line that says why not.

Everything is ordered by the bytes of the names (`converter.names`), so neither the locale nor the
order of the directory shows in the result. In a store, the parts of keys count as folders, so an
empty folder is not seen; otherwise the result is that of the same files on a disk.
"""

import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from converter import progress
from converter.entries import Entries
from converter.errors import UsageError
from converter.image_options import SUFFIXES
from converter.inventory import Skipped, leave_out
from converter.names import from_bytes, from_system, to_bytes, to_system
from converter.storage.locate import parse_address
from converter.storage.location import Location
from converter.storage.object_requests import list_objects, list_versions

# Folders that lie beside each other in layouts of images with annotations; neither is a class.
_LAYOUTS: Final = (
    ("images", "labels"), ("images", "annotations"), ("images", "masks"),
    ("JPEGImages", "Annotations"),
)  # fmt: skip
LAYOUT_FOLDERS: Final = frozenset((*itertools.chain(*_LAYOUTS), "ImageSets"))

# What an item is listed with beside its size, which says whether it is still the same.
OnVersion: TypeAlias = Callable[[str], object]

_CLUTTER: Final = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir"))


class Keys(NamedTuple):
    """The paths behind `after` and up to `until`, by their bytes; that of a folder ends in /."""

    after: bytes = b""
    until: bytes | None = None  # None for the end

    def holds(self, key: bytes) -> bool:
        return self.after < key and (self.until is None or key <= self.until)

    def meets(self, folder: bytes) -> bool:
        """Whether any path that begins like this may be among them."""
        begins = self.after < folder or self.after.startswith(folder)
        return begins and (self.until is None or folder <= self.until)


ALL_KEYS: Final = Keys()


def list_folder(root: Location, skipped: list[Skipped]) -> tuple[Entries, dict[str, set[str]]]:
    """The images of a folder without labels, and the folders in the root with those in each.

    Everything else is added to `skipped`.
    """
    if root.is_remote:
        return _list_prefix(root, skipped)
    folder = check_folder(root)
    folders = {top: find_subfolders(folder / to_system(top)) for top in find_subfolders(folder)}
    return _walk_folder(folder, skipped), folders


def check_folder(root: Location) -> Path:
    """The absolute path of a folder on a disk; a UsageError if it cannot be listed."""
    folder = Path(str(root)).absolute()
    if not folder.exists():
        raise UsageError(f"{root} does not exist: give the folder that holds the class folders")
    if not folder.is_dir():
        raise UsageError(
            f"{root} is a file: give the folder that holds the class folders, an archive or a table"
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UsageError(f"{root} cannot be read: check its permissions")
    return folder


def list_keys(
    root: Location, keys: Keys, skipped: list[Skipped], on_version: OnVersion
) -> tuple[Entries, dict[str, set[str]]]:
    """What `list_folder` lists of these paths alone; its folders only in a store.

    Calls `on_version` with a text for each image, which is another one if the image is.
    """
    if not root.is_remote:
        return _walk_folder(check_folder(root), skipped, keys, on_version), {}
    address, after = parse_address(str(root)), from_bytes(keys.after)
    until = None if keys.until is None else from_bytes(keys.until)
    return _judge_keys(list_versions(address, after, until, on_version), skipped)


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


def find_subfolders(folder: Path) -> set[str]:
    """The names of the folders in one on a disk, without hidden ones."""
    try:
        with os.scandir(folder) as items:
            folders = [item.name for item in items if item.is_dir(follow_symlinks=False)]
    except OSError:  # reported by the walk
        return set()
    return {from_system(name) for name in folders if not is_clutter(name)}


def _walk_folder(
    root: Path,
    skipped: list[Skipped],
    keys: Keys = ALL_KEYS,
    on_version: OnVersion | None = None,
) -> Entries:
    entries, top = Entries(), os.fsencode(root) + b"/"
    # A stack of its own: folders may lie deeper in each other than Python's calls may.
    pending = [_list_ordered(root, b"", skipped, keys)]
    while pending:
        path, code = next(pending[-1], (b"", ""))
        if not path:
            pending.pop()
        elif code:
            # Of a folder, the paths in it may be wanted, but not its own.
            if keys.holds(path):
                skipped.append(leave_out(from_bytes(path), code))
        elif path.endswith(b"/"):
            pending.append(_list_ordered(root, path, skipped, keys))
        else:
            progress.advance()
            try:
                status = os.stat(top + path)  # noqa: PTH116 (`Path` takes no bytes)
                entries.add(path, status.st_size)
                if on_version:  # a file that is moved here keeps the first of its times
                    on_version(f"{status.st_mtime_ns} {status.st_ctime_ns}")
            except OSError as error:
                skipped.append(leave_out(from_bytes(path), "unreadable", str(error.strerror)))
    return entries


# Paths are bytes here, which are the same in every locale and need not be decoded.
def _list_ordered(
    root: Path, folder: bytes, skipped: list[Skipped], keys: Keys
) -> Iterator[tuple[bytes, str]]:
    """The paths in a folder, in order, each with the code of the rule that skips it, if any does.

    Those of folders end in a slash.
    """
    # Names alone: of a million files they take 150 MB less than what `scandir` gives.
    names: list[bytes] = []
    codes: dict[bytes, str] = {}
    try:
        with os.scandir(os.fsencode(root) + b"/" + folder[:-1]) as items:
            for item in items:
                # As paths are ordered: those in `a-b/` come before those in `a/`.
                is_folder = item.is_dir(follow_symlinks=False)
                name = item.name + b"/" if is_folder else item.name
                if (keys.meets if is_folder else keys.holds)(folder + name):
                    names.append(name)
                    if code := _find_skip_rule(item, root):
                        codes[name] = code
    except OSError as error:
        path = folder or b"/"
        if keys.holds(path):
            skipped.append(leave_out(from_bytes(path), "unreadable", str(error.strerror)))
        return iter(())
    names.sort()
    return ((folder + name, codes.get(name, "")) for name in names)


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


def _list_prefix(root: Location, skipped: list[Skipped]) -> tuple[Entries, dict[str, set[str]]]:
    entries, folders = _judge_keys(list_prefix(root), skipped)
    if not (entries or skipped):
        raise refuse_empty_prefix(root)
    return entries, folders


def refuse_empty_prefix(root: Location) -> UsageError:
    """The error about a prefix of a store without any object."""
    return UsageError(f"{root} does not exist: give the prefix that holds the class folders")


def _judge_keys(
    found: Iterable[tuple[str, int]], skipped: list[Skipped]
) -> tuple[Entries, dict[str, set[str]]]:
    entries = Entries()
    folders: defaultdict[str, set[str]] = defaultdict(set)
    hidden: set[str] = set()
    for path, size in found:
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
