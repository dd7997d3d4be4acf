"""What the path of an image says of its split and its class.

<class>/**/<image>             label_from top: the folder below the root, or below the split's
**/<class>/<image>             label_from parent: the folder that the image lies in
**/<image>                     label_from none: no labels
train|valid|test/…             split folders before any of them
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from converter.class_names import list_new_names, parse_renames
from converter.errors import UsageError
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.sources.split_names import SPLIT_FOLDERS

# The class with label 0 where labels begin at 1, as in Inception and its followers.
BACKGROUND: Final = "background"


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
