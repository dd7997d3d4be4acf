"""Samples in tars, as the library WebDataset groups them, and the rows that they become.

    000001.jpg  000001.cls  000001.json  000001.seg.png      one sample with the key 000001

The key is the path up to the first dot of the name, and what follows is the extension of a part, in
lower case; the parts of a sample are neighbours: `base_plus_ext` and `group_by_keys` in
https://github.com/webdataset/webdataset/blob/main/src/webdataset/tariterators.py. The parts in
UTF-8 are columns, and so are the keys of a `.json`. Nothing is unpickled, and parts that no option
asks for are not read.
"""

import functools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from converter.errors import ImageError
from converter.inventory import NO_LABEL, Entry, Skipped, leave_out, reject
from converter.options import ConvertOptions
from converter.sources.column_notes import list_used
from converter.sources.folders import has_image_suffix, is_clutter
from converter.sources.row_sources import IMAGE
from converter.sources.rows import Row, is_blank, read_name

LABEL: Final = "cls"
CAPTION: Final = "txt"
VALUES: Final = "json"
# The columns that every sample has; WebDataset gives them these names.
KEY: Final = "__key__"
TAR: Final = "__url__"

MAX_TEXT_BYTES: Final = 1 << 20  # of a part that is a column
_MAX_NAMES: Final = 1_000  # of columns that messages may name
_CHOOSE: Final = "choose one with --image-column, and one as a mask with --mask-column"
_OTHERS: Final = "…"
_TEXTS: Final = ("txt", "text", "transcript")  # which are kept as they are, blanks included

Member: TypeAlias = tuple[Entry | Skipped, bytes | None]
"""A member of a tar, or why it cannot be read, and its content if that was asked for."""


class Sample(NamedTuple):
    """The parts of a tar with the same key that lie side by side."""

    key: str
    parts: dict[str, Entry | Skipped]  # by extension
    texts: dict[str, bytes]  # the content of those that were read
    twice: list[str]  # extensions of more than one part

    @property
    def images(self) -> list[str]:
        """The extensions of its images."""
        return [extension for extension in self.parts if is_image(extension)]


@functools.lru_cache(maxsize=1_024)
def is_image(extension: str) -> bool:
    """Whether a part is an image, by its extension."""
    return has_image_suffix(f"x.{extension}")


def split_name(path: str) -> tuple[str, str]:
    """The key and the extension of a member; both empty if it is no part of a sample."""
    folder, slash, name = path.rpartition("/")
    stem, _, extension = name.partition(".")
    if not (stem and extension):
        return "", ""
    return f"{folder}{slash}{stem}", extension.lower()


def group_members(members: Iterable[Member]) -> Iterator[Sample | Skipped]:
    """The samples of a tar in their order, and the members that are no part of one."""
    sample: Sample | None = None
    for member, content in members:
        if member.path.endswith("/"):
            continue
        if skipped := _judge(member):
            yield skipped
            continue
        key, extension = split_name(member.path)
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            sample = Sample(key, {}, {}, [])
        if extension in sample.parts:
            sample.twice.append(extension)
        sample.parts[extension] = member
        if content is not None:
            sample.texts[extension] = content
    if sample is not None:
        yield sample


def _judge(member: Entry | Skipped) -> Skipped | None:
    """Why a member is no part of a sample."""
    if isinstance(member, Skipped) and member.code == "skipped_outside":
        return member
    parents = member.path.split("/")
    if any(map(is_clutter, parents)):
        return leave_out(member.path, "skipped_hidden")
    if parents[0].startswith("__") and parents[0].endswith("__"):
        return leave_out(member.path, "skipped_extension", "what WebDataset keeps about a tar")
    return None if split_name(member.path)[0] else leave_out(member.path, "skipped_extension")


def are_torn(last: Sample, first: Sample) -> bool:
    """Whether the last sample of a tar goes on as the first one of the next tar."""
    alike = last.key == first.key and last.parts.keys().isdisjoint(first.parts)
    return alike and not (last.images and first.images)


class RowMaker:
    """Makes rows of samples, with the columns that options use.

    `names` are those of the classes, which numbers of labels may stand for; if they are `complete`,
    no other number makes sense.
    """

    def __init__(
        self, options: ConvertOptions, names: Sequence[str] = (), *, complete: bool = True
    ) -> None:
        self.options, self._names, self._complete = options, tuple(names), complete
        self._listed = frozenset(names)
        self._columns = {*list_used(options)} - {options.mask_column}
        self._reads_json = not self._columns <= {LABEL, CAPTION, KEY, TAR}
        self._known: set[str] = set()  # columns that a row has had, or will have next
        self._new: list[str] = []
        self.unused: Counter[str] = Counter()  # parts that nothing is done with, by extension

    def wants(self, member: Entry) -> bool:
        """Whether the content of a member is needed."""
        extension = split_name(member.path)[1]
        if is_image(extension) or member.size_bytes > MAX_TEXT_BYTES:
            return False
        return extension in self._columns or (extension == VALUES and self._reads_json)

    def make(self, tar: str, split: str, sample: Sample) -> Row:
        """The row of a sample in a tar, which may say why it has no image."""
        self._count_unused(sample)
        self._note_names(sample.parts)
        try:
            image = self._find_image(tar, sample)._replace(split=split)
            row = self._read_columns(sample)
        except ImageError as error:
            return self.refuse(tar, sample.key, error)
        return {**self._take_names(), **row, KEY: sample.key, TAR: tar, IMAGE: image}

    def refuse(self, tar: str, key: str, error: ImageError) -> Row:
        """The row of a sample without an image."""
        path = {self.options.path_column: f"{tar}/{key}"}
        return {**self._take_names(), **path, KEY: key, TAR: tar, IMAGE: error}

    def _find_image(self, tar: str, sample: Sample) -> Entry:
        if sample.twice:
            raise reject("bad_sample", f"{sample.twice[0]!r} stands twice in it")
        chosen, mask = self.options.image_column, self.options.mask_column
        images = [extension for extension in sample.images if extension != mask]
        if chosen is not None:
            images = [chosen] if chosen in sample.parts else []
        if len(images) > 1:
            listed = ", ".join(map(repr, images))
            raise reject("bad_sample", f"several images, {listed}: {_CHOOSE}")
        if not images:
            wanted = "image" if chosen is None else repr(chosen)
            listed = ", ".join(map(repr, sample.parts))
            raise reject("bad_sample", f"no {wanted} among its parts {listed}")
        entry = _locate(tar, sample.parts[images[0]])
        if mask is None:
            return entry
        if mask not in sample.parts:
            raise reject("mask_missing")
        return entry._replace(mask=_locate(tar, sample.parts[mask]))

    def _read_columns(self, sample: Sample) -> Row:
        values = self._read_json(sample) if self._reads_json and VALUES in sample.parts else {}
        self._note_names(values)
        row: Row = {name: values[name] for name in self._columns & values.keys()}
        for name in self._columns & sample.parts.keys():
            row[name] = _read_text(name, sample)
        if label := self.options.label_column:
            if is_blank(row.get(label)):
                raise reject("bad_row", f"it has no .{label}, and no {label!r} in a .json")
            row[label] = self._name_class(row[label]) if self._names else row[label]
        return row

    def _note_names(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._known and len(self._known) < _MAX_NAMES:
                self._known.add(name)
                self._new.append(name)

    def _take_names(self) -> Row:
        """Columns that no row has had, without their values: messages name them."""
        new, self._new = self._new, []
        return dict.fromkeys(new)

    def _count_unused(self, sample: Sample) -> None:
        options = self.options
        used = {*self._columns, options.mask_column, *({VALUES} if self._reads_json else ())}
        used |= {options.image_column} if options.image_column else {*sample.images}
        for name in sample.parts.keys() - used:
            self.unused[name if len(self.unused) < _MAX_NAMES else _OTHERS] += 1

    def _read_json(self, sample: Sample) -> dict[str, Any]:
        text = _read_text(VALUES, sample)
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise reject("bad_row", f"its .json cannot be read: {error}") from error
        if not isinstance(values, dict):
            raise reject("bad_row", "its .json is not an object with keys")
        return values

    def _name_class(self, cell: Any) -> str:
        """The class of a label, which may be a number of a line in the list of names."""
        try:
            label = read_name(cell)
        except ValueError as error:
            raise reject("bad_row", str(error)) from error
        number = label.strip()  # but a name of a class may end in a blank, as that of a folder may
        if label in self._listed or not (number.isascii() and number.isdecimal()):
            return label
        if len(number) < 10 and int(number) < len(self._names):
            return self._names[int(number)]
        if not self._complete:
            return label
        most = f"0 to {len(self._names) - 1:,}"
        raise reject("bad_row", f"label {number} is no line of the list of classes, {most}")


def _locate(tar: str, part: Entry | Skipped) -> Entry:
    """A part as an image of its own."""
    if isinstance(part, Skipped):
        raise reject("unreadable", f"{part.path!r:.100}: {part.detail}")
    path = f"{tar}/{part.path}"
    return Entry(path, NO_LABEL, part.size_bytes, place=part.place, file=tar)


def _read_text(extension: str, sample: Sample) -> str:
    part = sample.parts[extension]
    if isinstance(part, Skipped):
        raise reject("bad_row", f"its .{extension}: {part.detail}")
    if extension not in sample.texts:
        most = f"{part.size_bytes:,} bytes, at most {MAX_TEXT_BYTES:,}"
        raise reject("bad_row", f"its .{extension} is no short text: {most}")
    try:
        text = sample.texts[extension].decode("utf-8-sig")
    except UnicodeDecodeError:
        raise reject("bad_row", f"its .{extension} is not UTF-8") from None
    return text if extension.rpartition(".")[2] in _TEXTS else text.strip()
