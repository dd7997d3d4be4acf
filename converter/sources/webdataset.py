"""Tars of samples as a source: recognized by their first members, read once from end to end."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from converter.class_names import ARROW
from converter.errors import UsageError
from converter.inventory import MAX_NAMES, Note, Skipped, reject
from converter.options import ConvertOptions
from converter.sources.archives import read_tar
from converter.sources.column_notes import list_used
from converter.sources.data_files import check_links
from converter.sources.inputs import is_compressed, is_folder
from converter.sources.patterns import is_pattern
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
from converter.sources.tar_files import (
    TAR_SUFFIXES,
    Tars,
    find_bare_tars,
    find_tars,
    is_tar,
    list_splits,
    read_list,
)
from converter.storage.location import Location

_FIRST: Final = 100  # members that are looked at
_SHOWN: Final = 3  # members that a message names
_PARTNERS: Final = frozenset((LABEL, VALUES, CAPTION))


def recognize(images: Location, names: Sequence[str], options: ConvertOptions) -> bool:
    """Whether IMAGES is a tar, or several, whose first members are samples with partners.

    In a tar that is given alone, images in folders may have their classes from these, so that only
    a `.cls` makes them samples. Raises UsageError for several tars without samples.
    """
    if is_folder(images):
        tars = find_bare_tars(images, names)
    elif is_pattern(images):
        tars = find_tars(images)
    else:
        return is_tar(images.name) and any(map(_is_certain, _find_samples(_peek(images))))
    has_table = any(name.lower().endswith(tuple(READERS)) for name in names)
    if not (tars and tars.files) or (has_table and not _holds_samples(tars)):
        return False
    first = _find_first(images, tars, options)
    if _PARTNERS.isdisjoint(first.parts):
        raise UsageError(
            f"{images} has tars of images alone, as {first.key!r} has no .cls, .json or .txt: say "
            "--source webdataset to convert them without labels, or give one tar of class folders"
        )
    return True


def imply_options(images: Location, options: ConvertOptions) -> Mapping[str, Any]:
    """Labels are those of `.cls`, and captions those of `.txt`, unless others are named."""
    first = _find_first(images, find_tars(images), options)
    used, implied = list_used(options), {}
    if not options.names_labels and LABEL not in used:
        implied["label_column"] = LABEL
    if options.caption_column is None and CAPTION not in used:
        implied["caption_column"] = CAPTION
    return {name: part for name, part in implied.items() if part in first.parts}


def open_rows(images: Location, options: ConvertOptions) -> RowSource:
    """Opens a tar of samples, a folder of such tars, or those that a pattern stands for."""
    tars = find_tars(images)
    first = _find_first(images, tars, options)
    if options.mask_column and any(map(is_compressed, map(tars.root.child, tars.files))):
        raise UsageError(
            f"{images} is compressed as a whole, so no mask can be read without everything before "
            "it: decompress the tars"
        )
    listed, names = read_list(images, tars.root) if options.label_column else ("", ())
    if len({*names}) < len(names):
        names = ()
    # Without a list, numbers count the classes asked for, unless a line says one, or renames it.
    asked = options.class_names or ()
    if any(ARROW in name or name.isdecimal() for name in asked):
        asked = ()
    made = RowMaker(options, names or asked, complete=bool(names))
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
        classes=names,
        skipped=scan.skipped,
        notes=scan.notes,
        recognized=_describe(tars, first, options, names and f"{len(names):,} names in {listed}"),
    )


def _describe(tars: Tars, first: Sample, options: ConvertOptions, names: object) -> str:
    image = options.image_column or next(iter(first.images), "")
    label = f"label {options.label_column!r}" if options.label_column else "no label"
    caption = options.caption_column and f"caption {options.caption_column!r}"
    count = len(tars.files)
    found = (f"{count:,} tar{'s' * (count != 1)}", f"image {image!r}", label, names, caption)
    return ", ".join(str(part) for part in found if part)


class _Scan:
    """Reads all tars once, from beginning to end, and keeps the rows in a temporary file."""

    def __init__(self, tars: Tars, maker: RowMaker, skipped: list[Skipped]) -> None:
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
        splits = list_splits(self._tars.files, self._maker.options)
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


def _holds_samples(tars: Tars) -> bool:
    peeked = (_peek(tars.root.child(file)) for file in tars.files)
    return any(_is_certain(found) for members in peeked for found in _find_samples(members))


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


def _find_first(images: Location, tars: Tars, options: ConvertOptions) -> Sample:
    """The first sample with an image."""
    seen: list[str] = []
    for file in tars.files:
        members = _peek(tars.root.child(file))
        for sample in _find_samples(members):
            if sample.images or options.image_column in sample.parts:
                return sample
        seen += [f"{member.path!r:.60}" for member, _ in members[:_SHOWN]]
    if not tars.files:
        check_links(images, tars.skipped, TAR_SUFFIXES)
        raise UsageError(f"{images} has no tars: looked for names that end in .tar or .tar.gz")
    raise UsageError(
        f"{images} has no samples: looked for images with partners, as in 000001.jpg and "
        f"000001.cls, .json or .txt; the first members are {', '.join(seen[:_SHOWN]) or 'missing'}"
    )
