"""Tars of samples: which files are such tars, what their labels are, and their rows."""

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from converter.errors import UsageError
from converter.inventory import MAX_NAMES, Note, Skipped, leave_out, reject
from converter.names import from_bytes, from_system, to_bytes
from converter.options import ConvertOptions
from converter.sources.archives import read_tar
from converter.sources.column_notes import list_used
from converter.sources.folders import SPLIT_FOLDERS, has_image_suffix, is_clutter, stays_inside
from converter.sources.inputs import (
    COMPRESSED_SUFFIXES,
    DEFAULTS,
    is_compressed,
    is_folder,
    is_pattern,
    list_pattern,
    locate_base,
)
from converter.sources.row_sources import RowSource
from converter.sources.rows import READERS, Row
from converter.sources.samples import (
    CAPTION,
    KEY,
    LABEL,
    TAR,
    VALUES,
    Member,
    RowMaker,
    Sample,
    are_torn,
    group_members,
)
from converter.sources.spool import Spool
from converter.storage.locate import locate
from converter.storage.location import Location

_SUFFIXES: Final = (".tar", *COMPRESSED_SUFFIXES)
_FIRST: Final = 100  # members that are looked at
_SHOWN: Final = 3  # members that a message names
_PARTNERS: Final = frozenset((LABEL, VALUES, CAPTION))

# Beside the tars, one class a line. The first name is that of OpenCLIP's data sets.
_LISTS: Final = ("classnames.txt", "classes.txt", "labels.txt")
_MAX_LIST_BYTES: Final = 1 << 24


class _Tars(NamedTuple):
    root: Location
    files: tuple[str, ...]  # relative to the root
    skipped: tuple[Skipped, ...]  # other files


def recognize(images: Location, names: Sequence[str]) -> bool:
    """Whether IMAGES is a tar, or several, whose first members are samples with partners.

    In a tar that is given alone, images in folders may have their classes from these, so that only
    a `.cls` makes them samples. Raises UsageError for several tars without samples.
    """
    if is_folder(images):
        has_table = any(name.lower().endswith(tuple(READERS)) for name in names)
        if not _holds_tars(images, names, must_have_samples=has_table):
            return False
    elif not is_pattern(images):
        return _is_tar(images.name) and any(map(_is_certain, _find_samples(_peek(images))))
    elif not any(_is_tar(file.name) for file in list_pattern(images)):
        return False
    first = _find_first(images, _find_tars(images), DEFAULTS)
    if _PARTNERS.isdisjoint(first.parts):
        raise UsageError(
            f"{images} has tars of images alone, as {first.key!r} has no .cls, .json or .txt: say "
            "--source webdataset to convert them without labels, or give one tar of class folders"
        )
    return True


def imply_options(images: Location, options: ConvertOptions) -> Mapping[str, Any]:
    """Labels are those of `.cls`, and captions those of `.txt`, unless others are named."""
    first = _find_first(images, _find_tars(images), options)
    used, implied = list_used(options), {}
    if not options.names_labels and LABEL not in used:
        implied["label_column"] = LABEL
    if options.caption_column is None and CAPTION not in used:
        implied["caption_column"] = CAPTION
    return {name: part for name, part in implied.items() if part in first.parts}


def open_samples(images: Location, options: ConvertOptions) -> RowSource:
    """Opens a tar of samples, a folder of such tars, or those that a pattern stands for."""
    for name in ("path_column", "path_format", "table_root"):
        if getattr(options, name) != getattr(DEFAULTS, name):
            raise UsageError(f"{name.replace('_', ' ')} is for tables, and {images} holds images")
    tars = _find_tars(images)
    first = _find_first(images, tars, options)
    if options.mask_column and any(map(is_compressed, map(tars.root.child, tars.files))):
        raise UsageError(
            f"{images} is compressed as a whole, so no mask can be read without everything before "
            "it: decompress the tars"
        )
    listed, names = _read_list(images, tars.root) if options.label_column else ("", ())
    if len({*names}) < len(names):
        names = ()
    made = RowMaker(options, options.class_names or names, complete=not options.class_names)
    scan = _Scan(tars, made, [file for file in tars.skipped if not names or file.path != listed])

    def check_columns(found: set[str]) -> None:
        if LABEL in found and LABEL not in list_used(options) and not options.names_labels:
            raise UsageError(
                f"{images}: .{LABEL} is not taken for labels, as the first sample has none: name "
                f"it with --label-column {LABEL}, or carry it along with --keep-column {LABEL}"
            )

    return RowSource(
        images=images,
        root=tars.root,
        options=options,
        read_rows=scan.read_rows,
        check_columns=check_columns,
        classes=() if options.class_names else names,
        skipped=scan.skipped,
        notes=scan.notes,
        recognized=_describe(tars, first, options, names and f"{len(names):,} names in {listed}"),
    )


def _describe(tars: _Tars, first: Sample, options: ConvertOptions, names: object) -> str:
    image = options.image_column or next(iter(first.images), "")
    label = f"label {options.label_column!r}" if options.label_column else "no label"
    caption = options.caption_column and f"caption {options.caption_column!r}"
    count = len(tars.files)
    found = (f"{count:,} tar{'s' * (count != 1)}", f"image {image!r}", label, names, caption)
    return ", ".join(str(part) for part in found if part)


class _Scan:
    """Reads all tars once, from beginning to end, and keeps the rows in a temporary file."""

    def __init__(self, tars: _Tars, maker: RowMaker, skipped: list[Skipped]) -> None:
        self._tars, self._maker = tars, maker
        self.skipped, self.notes = skipped, list[Note]()
        # Samples that lie in several places: all of their rows are one reject.
        self._torn: set[tuple[str, str]] = set()
        self._spool: Spool | None = None

    def read_rows(self) -> Iterator[tuple[str, Row]]:
        if self._spool is None:
            self._spool = Spool(self._read_tars())
            if unused := self._maker.unused:
                names = tuple(f".{name}" for name in sorted(unused)[:MAX_NAMES])
                self.notes.append(Note("unused_part", names, unused.total()))
        told: set[tuple[str, str]] = set()
        for place, row in self._spool():
            sample = row[TAR], row[KEY]
            if sample not in self._torn:
                yield place, row
            elif sample not in told:
                told.add(sample)
                detail = "its parts lie in several places: write them one after another"
                yield place, self._maker.refuse(*sample, reject("bad_sample", detail))

    def _read_tars(self) -> Iterator[tuple[str, Row]]:
        splits = _list_splits(self._tars.files, self._maker.options)
        last: tuple[str, Sample] | None = None
        for tar in self._tars.files:
            seen: set[str] = set()
            for sample in self._read_samples(tar):
                if sample.key in seen:
                    self._torn.add((tar, sample.key))
                if last and not seen and are_torn(last[1], sample):
                    self._torn |= {(last[0], sample.key), (tar, sample.key)}
                seen.add(sample.key)
                last = tar, sample
                yield f"sample {sample.key}", self._maker.make(tar, splits[tar], sample)

    def _read_samples(self, tar: str) -> Iterator[Sample]:
        members = read_tar(self._tars.root.child(tar), self._maker.wants)
        for found in group_members(members):
            if isinstance(found, Sample):
                yield found
            else:
                self.skipped.append(found._replace(path=f"{tar}/{found.path}"))


def _list_splits(files: Sequence[str], options: ConvertOptions) -> dict[str, str]:
    """The split of each tar, by its folder or its name, if all have one."""
    if options.split_folders == "no":
        return dict.fromkeys(files, "")
    splits = {file: _find_split(file) for file in files}
    named = [file for file, split in splits.items() if split]
    if len(named) < len(files):
        if len({splits[file] for file in named}) > 1:
            other = next(file for file, split in splits.items() if not split)
            raise UsageError(
                f"the names of {named[0]!r} and {named[-1]!r} look like splits, that of {other!r} "
                "does not: rename it, leave it out with a pattern, or say --split-folders no"
            )
        return dict.fromkeys(files, "")
    return splits


def _find_split(file: str) -> str:
    folder, _, name = file.rpartition("/")
    if split := SPLIT_FOLDERS.get(folder.partition("/")[0].lower()):
        return split
    words = re.split("[^a-z]+", name.lower())
    splits = {SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS}
    return splits.pop() if len(splits) == 1 else ""


def _read_list(images: Location, root: Location) -> tuple[str, tuple[str, ...]]:
    """The names of the classes in a file beside several tars, and that of the file."""
    if is_folder(images) or is_pattern(images):
        for name in _LISTS:
            size = (root / name).measure()
            if size is not None and size <= _MAX_LIST_BYTES:
                lines = (root / name).read_bytes().splitlines()
                return name, tuple(from_bytes(line.strip()) for line in lines if line.strip())
    return "", ()


def _holds_tars(folder: Location, names: Sequence[str], *, must_have_samples: bool) -> bool:
    """Whether a folder, or those of splits in it, have tars, and neither images nor classes."""
    splits = [name for name in names if name.lower() in SPLIT_FOLDERS]
    if not (splits or any(map(_is_tar, names))) or any(map(has_image_suffix, names)):
        return False
    others = {name for name in names if not is_clutter(name)} - {*splits, *folder.list_sizes()}
    if others:
        return False
    tars = _find_tars(folder)
    deeper = (file.path for file in tars.skipped if file.path.count("/") > 0)
    if not tars.files or any(path.endswith("/") or has_image_suffix(path) for path in deeper):
        return False
    samples = (
        found for file in tars.files for found in _find_samples(_peek(tars.root.child(file)))
    )
    return not must_have_samples or any(map(_is_certain, samples))


def _find_tars(images: Location) -> _Tars:
    images, skipped = locate(images), list[Skipped]()
    root = locate_base(images)
    if is_folder(images):
        files = list(_walk(root, "", skipped))
    else:
        places = list_pattern(images) if is_pattern(images) else [images]
        start = len(str(root).rstrip("/")) + 1
        found = [_spell(str(place)[start:], root) for place in places]
        files = [file for file in found if _is_tar(file) or not is_pattern(images)]
        skipped += [leave_out(file, "skipped_extension") for file in found if file not in files]
    return _Tars(root, tuple(sorted(files, key=to_bytes)), tuple(skipped))


def _walk(root: Location, folder: str, skipped: list[Skipped]) -> Iterator[str]:
    """The tars in a folder and in those right below it."""
    place = root.child(folder.rstrip("/")) if folder else root
    files = place.list_sizes()
    for name in place.list_names():
        path = f"{folder}{_spell(name, root)}"
        is_below = name not in files and (root.is_remote or (place / name).is_dir())
        code = _judge(place / name, root, is_file=name in files)
        if code:
            skipped.append(leave_out(f"{path}/" if is_below else path, code))
        elif not is_below:
            yield path
        elif folder:
            skipped.append(leave_out(f"{path}/", "skipped_extension", "a folder in one of tars"))
        else:
            yield from _walk(root, f"{path}/", skipped)


def _judge(place: Location, root: Location, *, is_file: bool) -> str:
    """Why something in a folder is neither a tar nor a folder."""
    if is_clutter(place.name):
        return "skipped_hidden"
    if not root.is_remote:
        here = Path(str(place))
        if here.is_symlink() and not stays_inside(here, Path(str(root))):
            return "skipped_link"
        if not (is_file or here.is_dir()):
            return "skipped_special"
    return "skipped_extension" if is_file and not _is_tar(place.name) else ""


def _is_tar(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES)


def _spell(name: str, root: Location) -> str:
    return name if root.is_remote else from_system(name)


def _is_certain(sample: Sample) -> bool:
    is_flat = "/" not in sample.key
    partners = _PARTNERS if is_flat else {LABEL}
    return bool(sample.images) and not partners.isdisjoint(sample.parts)


def _peek(tar: Location) -> list[Member]:
    """The first members of a tar."""
    with contextlib.closing(read_tar(tar, lambda _: False)) as members:
        return list(itertools.islice(members, _FIRST))


def _find_samples(members: Iterable[Member]) -> Iterator[Sample]:
    return (found for found in group_members(members) if isinstance(found, Sample))


def _find_first(images: Location, tars: _Tars, options: ConvertOptions) -> Sample:
    """The first sample with an image."""
    seen: list[str] = []
    for file in tars.files:
        members = _peek(tars.root.child(file))
        for sample in _find_samples(members):
            if sample.images or options.image_column in sample.parts:
                return sample
        seen += [f"{member.path!r:.60}" for member, _ in members[:_SHOWN]]
    if not tars.files:
        raise UsageError(f"{images} has no tars: looked for names that end in .tar or .tar.gz")
    raise UsageError(
        f"{images} has no samples: looked for images with partners, as in 000001.jpg and "
        f"000001.cls, .json or .txt; the first members are {', '.join(seen[:_SHOWN]) or 'missing'}"
    )
