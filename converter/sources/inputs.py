"""Tells by its name what IMAGES is, and where its images and masks lie."""

import fnmatch
import functools
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from converter.errors import UsageError
from converter.options import COLUMN_OPTIONS, ConvertOptions
from converter.sources.rows import READERS
from converter.storage.locate import join, locate
from converter.storage.location import Location

COMPRESSED_SUFFIXES: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVE_SUFFIXES: Final = (".tar", ".zip", *COMPRESSED_SUFFIXES)

# Refused where they do nothing: that a column or a label is missing would go unnoticed.
_FOLDER_OPTIONS: Final = ("label_from", "split_folders")
_TABLE_OPTIONS: Final = (
    *COLUMN_OPTIONS, "labels_columns", "labels_separator", "box_columns", "keep_columns",
    "path_column", "path_format", "image_column", "table_root",
)  # fmt: skip
DEFAULTS: Final = ConvertOptions()

_PATTERN: Final = frozenset("*?[{")
_MAX_NAMES: Final = 100_000  # that the braces of a pattern may stand for
_MAX_SIZE: Final = 100 * _MAX_NAMES  # characters in all of them
# The innermost braces, with a comma or a range in them: the shell leaves others as they are, too.
_BRACES: Final = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})|([^{}]*,[^{}]*))\}", re.ASCII)


def is_table(path: Location) -> bool:
    """Whether a path is a table's, by its name."""
    return has_suffix(path, tuple(READERS))


def is_archive(path: Location) -> bool:
    """Whether a path is an archive's, by its name."""
    return has_suffix(path, ARCHIVE_SUFFIXES)


def is_compressed(path: Location) -> bool:
    """Whether a path is that of a tar that is compressed as a whole, and so is not seekable."""
    return has_suffix(path, COMPRESSED_SUFFIXES)


def is_zip(archive: Location) -> bool:
    """Whether an archive is a zip and not a tar."""
    return archive.name.lower().endswith(".zip")


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
    base = locate_base(pattern)
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


def has_suffix(path: Location, suffixes: tuple[str, ...]) -> bool:
    """Whether a path ends like that, and is no folder."""
    return path.name.lower().endswith(suffixes) and not is_folder(path)


def is_folder(path: Location) -> bool:
    """Whether a path is a folder's; a store is asked once."""
    return _is_prefix(path) if path.is_remote else path.is_dir()


@functools.lru_cache(maxsize=256)
def _is_prefix(path: Location) -> bool:
    # Asked for every image of an archive. A process does not outlive the answer.
    return path.is_dir()


def check_input_options(images: Location, options: ConvertOptions) -> None:
    """Refuses options for columns without any, and options for folders with columns."""
    if options.members:  # each has its own
        return
    folders = options.source in ("folders", "archive")
    refused = _TABLE_OPTIONS if folders else _FOLDER_OPTIONS
    if options.source != "table" and options.split_folders != "yes":  # others may state splits
        refused = tuple(name for name in refused if name != "split_folders")
    for name in refused:
        if getattr(options, name) != getattr(DEFAULTS, name):
            where = f"for folders alone, and {images} is a {options.source}: name columns instead"
            if folders:
                suffixes = ", ".join(READERS)
                where = f"for a table alone, and {images} is none: its name would end in {suffixes}"
            raise UsageError(f"{name.replace('_', ' ')}: {where}")
    if options.source == "table" and options.image_column is not None:
        raise UsageError(f"image column: {images} is a table of paths: give their path column")


def leave_given(implied: Mapping[str, Any], options: ConvertOptions) -> dict[str, Any]:
    """Those of the implied options that are still at their defaults."""
    unset = (name for name in implied if getattr(options, name) == getattr(DEFAULTS, name))
    return {name: implied[name] for name in unset}


def locate_base(images: Location) -> Location:
    """The folder that IMAGES is or lies in; of a pattern, the part before its first wildcard."""
    place = locate(images)
    if not is_pattern(place):
        return place if is_folder(place) else place.parent
    while is_pattern(place):
        place = place.parent
    return place


def locate_root(images: Location, options: ConvertOptions) -> Location:
    """The folder or archive that paths of images are relative to; of a table, it has to exist."""
    unlike_table = options.source == "auto" and not is_table(images)
    if options.members or unlike_table or options.source in ("folders", "archive"):
        return images
    root = join(locate_base(images), options.table_root)
    if not root.exists():
        raise UsageError(f"{root} does not exist: its images are those of the table {images}")
    return root


def locate_masks(root: Location, options: ConvertOptions) -> Location:
    """The folder or archive that the paths of masks are relative to; `root` is that of images."""
    return root if options.mask_dir is None else join(locate_mask_base(root), options.mask_dir)


def locate_mask_base(root: Location) -> Location:
    """The folder that `mask_dir` is relative to: that of the images, or of their archive."""
    return root.parent if is_archive(root) else root
