r"""Names of exported files: close to those of the originals, safe on every system, each taken once.

A data set may come from anyone, so what its records call their originals is not trusted:

- What some system refuses or obeys is spelt as `%` and two hexadecimal digits, byte by byte:
  control characters, bytes that are not UTF-8, `<>:"\|?*%`, a dot in front, a dot or blank at the
  end, the first letter of the names of devices.
- So no part is `..` or hidden, and no path is absolute.
- Long names lose their end, long paths their first folders.
- Where two names are equal, or differ only in case or composition, the later one ends in `~` and
  the number of its record.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

from converter.image_options import FORMATS, SUFFIXES
from converter.names import fold_name, to_bytes
from converter.sources.folders import is_clutter
from converter.sources.split_names import SPLIT_FOLDERS

TABLE: Final = "metadata.jsonl"

# Most systems allow 255 bytes for a name, of which suffixes and numbers take 40 at most, and stores
# 1,024 for a whole key.
_MAX_NAME: Final = 200
_MAX_PATH: Final = 700

_ODD: Final = frozenset('<>:"\\|?*%/')
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


class Namer:
    """Gives each file of a split a name of its own, in the order in which it is asked.

    Takes about 100 bytes of memory a name.
    """

    def __init__(self) -> None:
        self._taken: set[bytes] = set()

    def take(self, stem: str, endings: Sequence[str], number: int) -> str:
        """The stem, or one made from it and a number, with which no name is taken yet."""
        while True:
            names = [fold_name(stem + ending).encode("utf-8") for ending in endings]
            # 8 bytes of a hash: should two ever be equal, a name gets a number without need.
            marks = {hashlib.blake2b(name, digest_size=8).digest() for name in names}
            if self._taken.isdisjoint(marks):
                self._taken |= marks
                return stem
            stem = f"{stem}~{number}"


def split_path(source: str, split: str, label: str | None) -> tuple[list[str], str]:
    """The folders and the name of an original, without the folders of its split and its class.

    >>> split_path("training/cats/2024/one.jpg", "train", "cats")
    (['2024'], 'one.jpg')
    """
    *folders, name = [part for part in source.split("/") if part] or ["image"]
    known = [] if label is None else [label]
    if folders and SPLIT_FOLDERS.get(folders[0].lower()) == split:
        known = [folders[0], *known] if folders[1 : 1 + len(known)] == known else known
    return folders[len(known) :] if folders[: len(known)] == known else folders, name


def clean_folders(folders: Sequence[str]) -> str:
    """Folders as the beginning of a safe path, with a slash behind each."""
    cleaned = [_clean_folder(part) for part in folders]
    while len("/".join(cleaned).encode("utf-8")) > _MAX_PATH:
        del cleaned[0]
    return "".join(f"{part}/" for part in cleaned)


def split_suffix(name: str, form: str) -> tuple[str, str]:
    """The safe stem and the suffix of an image that is written in a format.

    >>> split_suffix("one.JPG", "jpeg"), split_suffix("one.tif", "png"), split_suffix("v1.2", "png")
    (('one', '.JPG'), ('one', '.png'), ('v1.2', '.png'))
    """
    stem, suffix = os.path.splitext(name)
    known = FORMATS[form].suffixes
    if suffix.lower() in known:
        return clean_name(stem), suffix
    return clean_name(stem if suffix.lower() in SUFFIXES else name), known[0]


def clean_name(name: str) -> str:
    r"""A name without what some system refuses, or obeys.

    >>> clean_name("..\\up"), clean_name("NUL.txt"), clean_name("a photo (2)")
    ('%2E.%5Cup', '%4EUL.txt', 'a photo (2)')
    """
    name = "".join(_spell(char) if _is_odd(char) else char for char in name)
    if len(data := name.encode("utf-8")) > _MAX_NAME:
        name = data[:_MAX_NAME].decode("utf-8", "ignore")
    if name[-1:] in (".", " "):
        name = name[:-1] + _spell(name[-1])
    # WebDataset skips what begins like `__this__/`.
    if name.startswith((".", "__")) or is_clutter(name) or _DEVICE.fullmatch(name):
        name = _spell(name[0]) + name[1:]
    return name


def name_folders(names: Iterable[str]) -> list[str]:
    """A folder for each class or split: called like it, where every system can have that name."""
    namer = Namer()
    return [namer.take(_clean_folder(name) or "%", [""], at) for at, name in enumerate(names)]


def _clean_folder(name: str) -> str:
    """A name for a folder, which no file can have."""
    cleaned = clean_name(name)
    stem, suffix = os.path.splitext(cleaned)
    if suffix.lower() in SUFFIXES or fold_name(cleaned) == TABLE:
        return f"{stem}%2E{suffix[1:]}"
    return cleaned


def _is_odd(char: str) -> bool:
    return char in _ODD or unicodedata.category(char) in ("Cc", "Cs")


def _spell(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in to_bytes(char))
