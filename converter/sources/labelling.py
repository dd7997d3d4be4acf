"""What the folders of an image say of it: its split and its class, from its path alone.

<class>/**/<image>             label_from top: the folder below the root, or below the split's
**/<class>/<image>             label_from parent: the folder that the image lies in
**/<image>                     label_from none: no labels
train|valid|test/…             split folders before any of them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from converter.errors import UsageError
from converter.names import to_bytes
from converter.options import ConvertOptions

SPLIT_FOLDERS: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The split that a folder of that name is, in any case; the spellings of Hugging Face."""

BACKGROUND: Final = "background"
"""The class that has label 0 where labels begin at 1, as Inception and its followers count."""


class Assignment(NamedTuple):
    """What folders say of the images in them.

    Attributes:
        split: or nothing.
        name: of the class, or nothing.
        code: of the rule by which the images are left out, or nothing.
    """

    split: str = ""
    name: str = ""
    code: str = ""


class Labeller:
    """Reads splits and classes off paths.

    Args:
        folders: those in the root, and those in each of them.
        options: what folders are asked to mean.

    Attributes:
        has_splits: whether the folders in the root are splits.

    Raises:
        UsageError: nobody can tell whether the folders in the root are splits or classes.
    """

    def __init__(self, folders: Mapping[str, Sequence[str]], options: ConvertOptions) -> None:
        self._from = options.label_from
        self.has_splits = _has_splits(folders, options.split_folders)
        self._folders = folders
        self._last = ("", self._read_folder([]))

    def find_classes(self) -> set[str]:
        """The classes that have a folder, with or without an image in it."""
        if self._from != "top":
            return set()
        if not self.has_splits:
            return set(self._folders)
        return {
            name
            for top, inner in self._folders.items()
            if top.lower() in SPLIT_FOLDERS
            for name in inner
        }

    def read(self, path: str) -> Assignment:
        """What the folders of an image say; images of one folder are best asked for in a row."""
        folder = path.rpartition("/")[0]
        if folder != self._last[0]:
            self._last = (folder, self._read_folder(folder.split("/") if folder else []))
        return self._last[1]

    def _read_folder(self, names: list[str]) -> Assignment:
        split = ""
        if self.has_splits:
            split = SPLIT_FOLDERS.get(names[0].lower(), "") if names else ""
            names = names[1:]
            if not split:
                return Assignment(code="skipped_no_split")
        if self._from == "none":
            return Assignment(split)
        if not names:
            return Assignment(split, code="skipped_no_class")
        return Assignment(split, names[0] if self._from == "top" else names[-1])


def order_classes(
    found: set[str], options: ConvertOptions, key: Callable[[str], Any] = to_bytes
) -> tuple[str, ...]:
    """The classes in label order: as they are pinned, or else by their bytes.

    Args:
        found: those that there are.
        options: the pinned ones.
        key: orders them in another way.

    Raises:
        UsageError: a name cannot be a line of labels.txt, or is taken.
    """
    names = options.class_names or tuple(sorted(found, key=key))
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


def _has_splits(folders: Mapping[str, Sequence[str]], asked: str) -> bool:
    named = [name for name in folders if name.lower() in SPLIT_FOLDERS]
    if asked != "auto":
        if asked == "yes" and not named:
            raise UsageError(
                "none of the folders is a split: they would be called "
                + ", ".join(sorted(SPLIT_FOLDERS))
            )
        return asked == "yes"
    if len(named) == len(folders):
        return bool(named)
    if len({SPLIT_FOLDERS[name.lower()] for name in named}) > 1:
        other = next(name for name in folders if name not in named)
        raise UsageError(
            f"the folders {', '.join(named)} look like splits, {other!r} beside them does not: "
            "say with --split-folders yes or no what they are"
        )
    return False
