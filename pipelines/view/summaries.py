"""Names, labels and captions of records, read without the images that stand between them.

The features of a record stand in the order of their names: a class, the image, a name. A window
at its beginning and one behind its image hold all of these, a kilobyte each. What they do not hold
is read with the whole record, which also finds out what is damaged.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from converter.errors import RecordError, ShardmillError
from converter.format import examples
from converter.format.schema import BOX_LABELS, CAPTION, LABELS, MASK, Column
from converter.format.tfrecords import FOOTER_BYTES, HEADER_BYTES
from converter.names import from_bytes
from reader.arrays import Bytes, Flags, Numbers
from reader.examples.fields import find_spans, read_numbers
from reader.records.blocks import check_lengths
from reader.records.indexed_file import Group, open_file
from reader.records.record_files import RecordFiles

_WINDOW_BYTES: Final = 1 << 10
_WIDE_BYTES: Final = 1 << 12  # where captions and boxes stand beside the image
_LISTS: Final = (LABELS, BOX_LABELS, CAPTION)

_TAG: Final = 0x0A  # of the first field of a message: the only one that is entered here


class Summary(NamedTuple):
    """What a list shows of a record.

    Attributes:
        name: path of the original; empty if it cannot be read.
        labels: numbers of its classes: one, several, those of its boxes, or none.
        caption: its caption, or empty.
        error: what is wrong with the record, or with its file; else empty.
    """

    name: str
    labels: tuple[int, ...] = ()
    caption: str = ""
    error: str = ""


class Shape(NamedTuple):
    """Which features the records of a data set have."""

    labelled: bool
    masked: bool
    lists: tuple[str, ...]  # of `_LISTS`

    @classmethod
    def of_columns(cls, columns: Sequence[Column], *, labelled: bool) -> "Shape":
        names = [column.name for column in columns]
        return cls(labelled, MASK in names, tuple(name for name in _LISTS if name in names))

    @property
    def has_classes(self) -> bool:
        """Whether records can be told apart by classes."""
        return self.labelled or any(name != CAPTION for name in self.lists)

    @property
    def window_bytes(self) -> int:
        return _WIDE_BYTES if self.lists else _WINDOW_BYTES


class _Window(NamedTuple):
    """A part of each record: where it begins, and where the record would end, in flat data."""

    data: Bytes
    begins: Numbers
    ends: Numbers
    stops: Numbers  # where the part ends

    @classmethod
    def read(cls, group: Group, offsets: Numbers, size: int) -> "_Window":
        """Reads a part of each record from an offset in its file on."""
        data = np.zeros((len(offsets), size), np.uint8)
        with open_file(group.file) as descriptor:
            for row, offset in enumerate(offsets.tolist()):
                with contextlib.suppress(OSError):  # the record is then read as a whole
                    os.preadv(descriptor, (data[row],), offset)
        begins = np.arange(len(offsets), dtype=np.int64) * size
        return cls(data.reshape(-1), begins, begins + (group.ends - offsets), begins + size)

    def cut(self, row: int, begin: int) -> bytes:
        """The bytes of one record from a place on."""
        return self.data[begin : min(int(self.ends[row]), int(self.stops[row]))].tobytes()


def read_summaries(files: RecordFiles, numbers: Numbers, shape: Shape) -> list[Summary]:
    """Reads the summaries of some records, in the order of `numbers`; a fault becomes an error."""
    found: list[Summary | None] = [None] * len(numbers)
    ends = np.cumsum([file.records for file in files.files], dtype=np.int64)
    which = np.searchsorted(ends, numbers, side="right")
    # File by file: one that is missing must not hide the others.
    for file in dict.fromkeys(which.tolist()):
        rows = np.flatnonzero(which == file)
        try:
            summaries = _read_file(files, numbers[rows], shape)
        except (ShardmillError, OSError) as error:
            summaries = [Summary("", error=str(error))] * len(rows)
        for row, summary in zip(rows.tolist(), summaries, strict=True):
            found[row] = summary
    return [summary for summary in found if summary is not None]


def _read_file(files: RecordFiles, numbers: Numbers, shape: Shape) -> list[Summary]:
    summaries: list[Summary | None] = [None] * len(numbers)
    for group in files.prefetch(numbers):
        for index, summary in zip(group.indexes.tolist(), _read_group(group, shape), strict=True):
            summaries[index] = summary
    rest = [index for index, summary in enumerate(summaries) if summary is None]
    for row, _, payload in files.read_many(numbers[rest]) if rest else ():
        summaries[rest[row]] = _parse_record(payload, shape)
    return [summary for summary in summaries if summary is not None]


def _read_group(group: Group, shape: Shape) -> list[Summary | None]:
    """The summaries of records of one file; None for those that the windows do not hold."""
    head = _Window.read(group, group.begins, shape.window_bytes)
    valid = check_lengths(head.data, head.begins, group.sizes)
    begins, ends = head.begins + HEADER_BYTES, head.ends - FOOTER_BYTES
    names = (*(examples.LABEL,) * shape.labelled, examples.ENCODED)
    starts, stops, found = find_spans(head.data, begins, ends, names)
    valid &= found & (starts[-1] <= head.stops)
    labels = np.full(len(valid), -1, np.int64)
    if shape.labelled:
        labels, single = read_numbers(head.data, starts[0], stops[0])
        valid &= single & (stops[0] <= head.stops)
    after = np.where(valid, group.begins + stops[-1] - head.begins, group.begins)
    tail = _Window.read(group, after, shape.window_bytes)
    last, valid = _skip_mask(group, tail, valid) if shape.masked else (tail, valid)
    places, name_stops, found = find_spans(
        last.data, last.begins, last.ends - FOOTER_BYTES, (examples.SOURCE_ID,), within=True
    )
    valid &= found & (name_stops[0] <= last.stops)
    summaries: list[Summary | None] = [None] * len(valid)
    for row in np.flatnonzero(valid).tolist():
        name = from_bytes(last.data[places[0, row] : name_stops[0, row]].tobytes())
        label = (int(labels[row]),) if shape.labelled else ()
        summaries[row] = Summary(name, label)
        if shape.lists:
            summaries[row] = _add_lists(Summary(name, label), head, tail, row, shape)
    return summaries


def _skip_mask(group: Group, tail: _Window, valid: Flags) -> tuple[_Window, Flags]:
    """The window behind the mask, which stands between the image and the name."""
    spans = find_spans(tail.data, tail.begins, tail.ends - FOOTER_BYTES, (MASK,), within=True)
    (stops,), found = spans[1], spans[2]
    valid = valid & found
    offsets = group.ends - (tail.ends - stops)
    return _Window.read(group, np.where(valid, offsets, group.begins), _WINDOW_BYTES), valid


def _add_lists(
    summary: Summary, head: _Window, tail: _Window, row: int, shape: Shape
) -> Summary | None:
    """Adds what features of several values say; None if the windows do not hold all of them."""
    at = int(head.begins[row]) + HEADER_BYTES
    before = head.cut(row, at)
    try:
        _, entries = examples.read_varint(before, 1)  # `Example.features`
        features = dict(_walk_entries(before[entries:], shape.lists))
        features |= _walk_entries(tail.cut(row, int(tail.begins[row])), shape.lists)
    except (ValueError, IndexError):
        return None
    if len(features) < len(shape.lists):
        return None
    return _complete(summary, features)


def _walk_entries(data: bytes, names: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """The values of some features among those that `data` begins with and holds in full."""
    wanted, at = {name.encode(): name for name in names}, 0
    while at + 2 < len(data) and data[at] == _TAG:
        size, begin = examples.read_varint(data, at + 1)
        at, key = begin + size, data[begin + 2 : begin + 2 + data[begin + 1]]
        if at <= len(data) and key in wanted:
            entry = data[begin:at]
            message = _wrap(_wrap(entry))
            yield wanted[key], list(examples.decode_example(message)[wanted[key]])


def _wrap(content: bytes) -> bytes:
    """A message whose first field holds this."""
    size, digits = len(content), bytearray([_TAG])
    while size > 0x7F:
        digits.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*digits, size]) + content


def _parse_record(payload: memoryview | RecordError, shape: Shape) -> Summary:
    if isinstance(payload, RecordError):
        return Summary(payload.source or "", error=str(payload))
    try:
        features = examples.decode_example(bytes(payload))
        name = from_bytes(examples.read_value(features, examples.SOURCE_ID, bytes))
        label = (examples.read_value(features, examples.LABEL, int),) if shape.labelled else ()
        return _complete(Summary(name, label), features)
    except ValueError as error:
        return Summary(examples.find_source(payload) or "", error=f"not an image: {error}")


def _complete(summary: Summary, features: examples.Features) -> Summary:
    several = (*features.get(LABELS, ()), *features.get(BOX_LABELS, ()))
    labels = dict.fromkeys((*summary.labels, *(n for n in several if isinstance(n, int))))
    captions = [text for text in features.get(CAPTION, ()) if isinstance(text, bytes)]
    return summary._replace(labels=tuple(labels), caption=from_bytes(b" ".join(captions)))
