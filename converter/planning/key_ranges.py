"""Cuts IMAGES into ranges of paths that are listed side by side, by a look at the top alone.

On a disk, ranges end at folders: those in the root and, as long as these are few, those in them.
In a store, they end at prefixes of keys, which are found letter by letter, wherever there are
slashes: each request asks for the first keys behind those that are known. Whole pages, a hundred or
two, tell whether there are many keys. Then a thousand requests for two keys divide them once more.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from converter.names import to_bytes, to_system
from converter.sources.folders import Keys, check_folder, find_subfolders
from converter.storage.locate import parse_address
from converter.storage.location import Location
from converter.storage.object_requests import probe_keys

Probe: TypeAlias = Callable[[str, str, int], tuple[list[str], bool]]
"""Some of the keys with a prefix from about a key on, in order, and whether more follow."""

RANGES: Final = 256
"""No more ranges than that: each step opens one file for each of them."""

# Prefixes of a store with more than a page of keys: enough to know that there are many. A page is
# 30 ms of CPU, as S3 sends it.
_FULL: Final = 100
_PAGE_KEYS: Final = 1_000
# Tells letters apart as well, in a millisecond. Of one key, Google's store repeats the last one.
_FEW_KEYS: Final = 2
_THREADS: Final = 16
_LAST_LETTER: Final = 0x10FFFF
# What follows instead of letters that no key has, and of those that XML may not hold: some stores
# repeat where a listing is to begin.
_INSTEAD: Final = {0xD800: 0xE000, 0xFFFE: 0x10000}


class Cut(NamedTuple):
    """Where ranges end, in order, and a number of keys of which there are at least as many."""

    bounds: list[str]
    known: int


def cut_images(images: Location) -> Cut:
    """Looks at the top of a folder, or of a prefix of a store; raises UsageError as a scan does."""
    if not images.is_remote:
        return _cut_folder(check_folder(images))
    address = parse_address(str(images))
    return cut_prefix(functools.partial(probe_keys, address))


def make_ranges(bounds: Sequence[str], most: int = RANGES) -> list[Keys]:
    """The ranges between bounds, some of them as one if there are too many."""
    step = -(-(len(bounds) + 1) // most)
    ends = [to_bytes(bound) for bound in bounds[step - 1 :: step]]
    return list(itertools.starmap(Keys, itertools.pairwise([b"", *ends, None])))


def _cut_folder(root: Path) -> Cut:
    bounds: list[str] = []
    level = [""]
    while level and len(bounds) < RANGES // 4:
        level = [
            f"{folder}{name}/"
            for folder in level
            for name in find_subfolders(root / to_system(folder))
        ]
        bounds += level
    return Cut(sorted(bounds, key=to_bytes), 0)


def cut_prefix(probe: Probe, full: int = _FULL) -> Cut:
    """Divides keys until `full` prefixes have more than a page of keys, or none has."""
    known, whole = [""], 0
    bounds: set[str] = set()
    with ThreadPoolExecutor(_THREADS) as pool:

        def divide(prefixes: Sequence[str], most: int) -> list[_Divided]:
            found = [*pool.map(lambda prefix: _divide(prefix, probe, most), prefixes)]
            bounds.update(itertools.chain.from_iterable(each.bounds for each in found))
            return found

        while known and len(known) < full:
            found = divide(known, _PAGE_KEYS)
            whole += sum(each.whole for each in found)
            known = [prefix for each in found for prefix in each.full]
        if len(known) < RANGES:
            divide(known, _FEW_KEYS)
    return Cut(sorted(bounds, key=to_bytes), whole + _PAGE_KEYS * len(known))


class _Divided(NamedTuple):
    bounds: list[str]
    full: list[str]  # longer prefixes with more than a page of keys each
    whole: int  # keys that were seen beside those


def _divide(prefix: str, probe: Probe, most: int) -> _Divided:
    bounds: list[str] = []
    full: list[str] = []
    before: list[str] = []  # the last page of several letters
    whole, after, more = 0, "", True
    while more:
        keys, more = probe(prefix, after, most)
        keys = [key for key in keys if not after or to_bytes(key) > to_bytes(after)]
        if not keys or not more:
            whole += len(keys)
            break
        longer = keys[0][: len(prefix) + 1]
        begins_full = longer != prefix and keys[-1].startswith(longer)
        following = _follow(longer) if begins_full else None
        if following is None:  # a page of several letters: it is small, or all that is known
            whole, after, before = whole + len(keys), keys[-1], keys
            bounds.append(after)
        else:
            whole -= sum(key.startswith(longer) for key in before)  # they are counted with it
            bounds += [longer, following]
            full.append(longer)
            after = following
    return _Divided(bounds, full, whole)


def _follow(prefix: str) -> str | None:
    """The first text behind all that begin like that, but for the last letter there is."""
    following = ord(prefix[-1]) + 1
    following = _INSTEAD.get(following, following)
    return None if following > _LAST_LETTER else prefix[:-1] + chr(following)
