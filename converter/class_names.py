"""Which classes to take, in which order and under which names: a line for each.

    cats              takes the class
    kitten -> cats    takes it under another name; several lines to one name merge

The order of the new names is that of the labels, and classes that no line names are left out. All
lines apply at once: `a -> b` and `b -> a` swap two names.
"""

import codecs
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from converter.errors import UsageError
from converter.names import from_bytes

ARROW: Final = "->"


def read_class_names(path: str) -> tuple[str, ...]:
    """Reads a file of such lines in the spelling of `converter.names`, without its empty lines.

    Raises UsageError if it cannot be read, or with the number of the line that makes no sense.
    """
    try:
        data = Path(os.path.expanduser(path)).read_bytes()  # noqa: PTH111
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    lines = map(from_bytes, data.removeprefix(codecs.BOM_UTF8).splitlines())
    numbered = {number: line for number, line in enumerate(lines, 1) if line.strip()}
    _parse(numbered, path)
    return tuple(numbered.values())


@functools.lru_cache(maxsize=16)
def parse_renames(names: tuple[str, ...]) -> Mapping[str, str]:
    """The new name of each class by its old one, in the order of the lines.

    >>> dict(parse_renames(("dogs", "kitten -> cats", "cats")))
    {'dogs': 'dogs', 'kitten': 'cats', 'cats': 'cats'}

    Raises UsageError if a line has no name, two arrows, or an old name of another line.
    """
    return MappingProxyType(_parse(dict(enumerate(names, 1)), "class names"))


def list_new_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The new names in the order of their first lines, which is that of the labels."""
    return tuple(dict.fromkeys(parse_renames(names).values()))


def is_renamed(names: tuple[str, ...]) -> bool:
    """Whether any line has an arrow."""
    return any(ARROW in name for name in names)


def _parse(lines: Mapping[int, str], where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in lines.items():
        # Blanks around a name alone are part of it.
        old, *new = (name.strip() for name in line.split(ARROW)) if ARROW in line else (line,)
        if len(new) > 1:
            raise UsageError(
                f"{where}, line {number}: {line!r} has more than one {ARROW}: write 'old -> new'"
            )
        if not (old and all(new)):
            raise UsageError(
                f"{where}, line {number}: {line!r} lacks a name: write 'old -> new', or the name "
                "of a class; leave the line out to drop the class"
            )
        if old in found:
            raise UsageError(
                f"{where}, line {number}: {old!r} is given twice in the class names: a class goes "
                "to one name"
            )
        found[old] = new[0] if new else old
    return found
