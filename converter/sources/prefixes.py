"""Lists the images below a prefix of an object store by the rules for folders.

A store has no folders: the parts of keys are taken for them. A folder that is empty is therefore
not seen; all else gives what the same files in a folder here give, in the same order.
"""

from __future__ import annotations

from typing import NamedTuple

from converter.errors import UsageError
from converter.inventory import SKIP_RULES, Entry, Skipped
from converter.names import to_bytes
from converter.sources.folders import has_image_suffix, is_clutter
from converter.storage.objects import ObjectPath, list_objects


class Listing(NamedTuple):
    """What lies below a prefix.

    Attributes:
        entries: the images, ordered by the bytes of their paths; their labels mean nothing.
        folders: those in the root, and those in each of them.
    """

    entries: list[Entry]
    folders: dict[str, list[str]]


def list_prefix(root: ObjectPath, skipped: list[Skipped]) -> Listing:
    """Lists the images below a prefix, with their sizes.

    Args:
        root: the prefix.
        skipped: takes everything else.

    Raises:
        UsageError: there is nothing.
        StoreError: the store does not answer, or refuses.
    """
    entries: list[Entry] = []
    folders: dict[str, set[str]] = {}
    seen: set[str] = set()
    empty = True
    for info in list_objects(root):
        empty = False
        path = info.path.relative_to(root)
        hidden = _find_hidden(path)
        _note_folders((hidden or path).split("/")[:-1], folders)
        if code := _judge(path, hidden):
            name = hidden or path
            if name not in seen:
                skipped.append(Skipped(name, code, SKIP_RULES[code]))
            if name.endswith("/"):
                seen.add(name)
        else:
            entries.append(Entry(path, 0, info.size))
    if empty:
        raise UsageError(f"{root} does not exist: give the prefix that holds the class folders")
    return Listing(
        entries, {top: sorted(folders[top], key=to_bytes) for top in sorted(folders, key=to_bytes)}
    )


def _find_hidden(path: str) -> str:
    """The first part of a path that is left out by its name, with what stands before it."""
    parts = path.split("/")
    for number, part in enumerate(parts, start=1):
        if part and is_clutter(part):
            return "/".join(parts[:number]) + ("/" if number < len(parts) else "")
    return ""


def _judge(path: str, hidden: str) -> str:
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
