"""Patterns that stand for several files, as in a shell, here and in stores."""

import fnmatch
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from converter.errors import UsageError
from converter.storage.locate import locate
from converter.storage.location import Location

_PATTERN: Final = frozenset("*?[{")
_MAX_NAMES: Final = 100_000  # that the braces of a pattern may stand for
_MAX_SIZE: Final = 100 * _MAX_NAMES  # characters in all of them
# The innermost braces, with a comma or a range in them: the shell leaves others as they are, too.
_BRACES: Final = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})|([^{}]*,[^{}]*))\}", re.ASCII)


def is_pattern(path: Location) -> bool:
    """Whether a path stands for several files, as `data/train-*.tar` does."""
    if _PATTERN.isdisjoint(str(path)):
        return False
    try:
        return not path.exists()
    except OSError:  # longer than a name can be, as braces may be
        return True


def list_pattern(pattern: Location) -> list[Location]:
    """The files that a pattern stands for, by the bytes of their names.

    As in a shell, `*`, `?` and `[abc]` stand for characters of a name that does not begin with a
    dot, `{train,val}` for each of these texts and `{000..041}` for each number of so many digits.
    Unlike there, a name of braces that no file has is a UsageError, and so is a pattern that stands
    for nothing. What exists under its name is no pattern, also in a part of a path.
    """
    pattern = locate(pattern)
    base = find_base(pattern)
    names = _expand_braces(str(pattern)[len(str(base)) :].lstrip("/"), pattern)
    if any("**" in name for name in names):
        raise UsageError(f"{pattern} has ** in it, which is unknown: write each level, as in */*")
    found = list(_match_names(base, names))
    if not found:
        raise UsageError(f"{pattern} matches no file in {base}: check it, and quote it in a shell")
    if missing := sorted({*names} - {name for name, _ in found}, key=os.fsencode):
        first = ", ".join(map(repr, missing[:3]))
        raise UsageError(
            f"{pattern} matches no file for {len(missing):,} of {len(names):,} names, such as "
            f"{first}: give those that exist"
        )
    return sorted({file for _, file in found}, key=lambda file: os.fsencode(str(file)))


def find_base(pattern: Location) -> Location:
    """The folder before the first wildcard of a pattern."""
    base = pattern.parent
    while is_pattern(base):
        base = base.parent
    return base


def overlaps(pattern: Location, place: Location) -> bool:
    """Whether a pattern may stand for a place, or for something in it or above it; by name."""
    if pattern.scheme != place.scheme:
        return False
    parts = str(place).split("/")
    return any(
        all(_choose(part, [name]) for part, name in zip(text.split("/"), parts, strict=False))
        for text in _expand_braces(str(pattern), pattern)
    )


def _expand_braces(text: str, pattern: Location) -> set[str]:
    names = {text}
    while any(map(_BRACES.search, names)):
        expanded: set[str] = set()
        size = 0
        for name in itertools.chain.from_iterable(map(_replace_braces, names)):
            expanded.add(name)
            size += len(name)
            if len(expanded) > _MAX_NAMES or size > _MAX_SIZE:
                most = f"{_MAX_NAMES:,} names, or {_MAX_SIZE:,} characters in them"
                raise UsageError(f"{pattern} stands for over {most}: give fewer")
        names = expanded
    return names


def _replace_braces(name: str) -> Iterator[str]:
    """The name with the first innermost braces replaced by each of what they stand for."""
    found = _BRACES.search(name)
    if found is None:
        yield name
        return
    first, last, parts = found.groups()
    before, after = name[: found.start()], name[found.end() :]
    if parts is not None:
        yield from (f"{before}{part}{after}" for part in parts.split(","))
        return
    is_padded = any(len(number) > 1 and number[0] == "0" for number in (first, last))
    digits = max(len(first), len(last)) if is_padded else 1
    low, high = sorted((int(first), int(last)))
    yield from (f"{before}{number:0{digits}}{after}" for number in range(low, high + 1))


def _match_names(folder: Location, names: Iterable[str]) -> Iterator[tuple[str, Location]]:
    """Each name relative to a folder that stands for files in it, with each of these files."""
    if not (folder.is_remote or folder.is_dir()):
        return
    files: list[str] = []
    below: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        part, slash, rest = name.partition("/")
        if slash:
            below[part].append(rest)
        else:
            files.append(part)
    # Listed once: a store takes as long for each name that it is asked for.
    present = folder.list_sizes(_find_beginning(files)) if files else {}
    yield from ((part, folder / name) for part in files for name in _choose(part, present))
    folders = dict.fromkeys(folder.list_names(_find_beginning(below)) if below else ())
    for part, rests in below.items():
        for name in _choose(part, folders):
            for rest, file in _match_names(folder / name, rests):
                yield f"{part}/{rest}", file


def _find_beginning(parts: Iterable[str]) -> str:
    """What all names begin with that the parts of patterns stand for."""
    heads = [re.split(r"[*?[]", part)[0] for part in parts]
    return os.path.commonprefix(heads)  # noqa: RUF071 (of names, not of paths)


def _choose(part: str, names: Collection[str]) -> Collection[str]:
    """The names that a part of a pattern stands for."""
    if part in names:
        return [part]
    if _PATTERN.isdisjoint(part):
        return []
    fits = re.compile(fnmatch.translate(part)).match
    return [name for name in names if fits(name) and part.startswith(".") >= name.startswith(".")]
