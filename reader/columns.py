"""Single features of all records: labels and names, read without the images between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from converter import examples
from converter.names import from_bytes
from converter.tfrecords import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES
from reader.orders import Numbers
from reader.records import Place, RecordFiles, open_file, read_at
from reader.selections import Selection

HEAD_BYTES: Final = 512
"""Holds all that comes before an image's bytes, unless a class has a name of 400 letters."""


class Head(NamedTuple):
    """The beginning of a record, up to the bytes of its image.

    Attributes:
        data: of the payload.
        label: number of the class.
        begin: where the image's bytes begin in the payload.
        end: where they end.
    """

    data: bytes
    label: int
    begin: int
    end: int


def read_head(descriptor: int, place: Place) -> Head:
    """Reads a record up to its image; no checksum can be compared yet.

    Raises:
        RecordError: it does not begin like a record that shardmill wrote.
    """
    payload_bytes = place.size - FRAMING_BYTES
    size = min(HEAD_BYTES, place.size - FOOTER_BYTES)
    while True:
        data = bytes(read_at(descriptor, place, place.offset, size))
        try:
            return _parse_head(data, payload_bytes)
        except ValueError as error:
            if size == place.size - FOOTER_BYTES:
                raise place.describe(str(error)) from error
        size = place.size - FOOTER_BYTES  # a name of hundreds of letters, or damage


def _parse_head(data: bytes, payload_bytes: int) -> Head:
    payload = memoryview(data)[HEADER_BYTES:]
    found = examples.find_values(payload, (examples.LABEL, examples.ENCODED), payload_bytes)
    try:
        begin, end = found[examples.ENCODED]
        label, _ = examples.read_varint(payload, found[examples.LABEL][0])
    except (KeyError, IndexError) as error:
        raise ValueError(f"no image with a label: {error}") from error
    return Head(data, label, begin, end)


def read_labels(files: RecordFiles) -> npt.NDArray[np.int32]:
    """The labels of all records: int32 (records,). Reads half a kilobyte of each."""
    labels = np.empty(len(files), np.int32)
    for index, descriptor, place in _visit(files, np.arange(len(files))):
        labels[index] = read_head(descriptor, place).label
    return labels


def read_names(files: RecordFiles, numbers: Numbers) -> list[str]:
    """Paths of the originals of some records, relative to the folder that was converted.

    Raises:
        RecordError: a record is damaged.
    """
    names = [""] * len(numbers)
    for index, descriptor, place in _visit(files, numbers):
        head = read_head(descriptor, place)
        rest = place.size - FRAMING_BYTES - head.end
        tail = read_at(descriptor, place, place.offset + HEADER_BYTES + head.end, rest)
        names[index] = find_name(memoryview(tail), place)
    return names


def find_name(tail: memoryview, place: Place) -> str:
    """The path of the original, in what comes behind an image's bytes in its record."""
    try:
        begin, end = examples.find_entries(tail, (examples.SOURCE_ID,), 0, len(tail))[
            examples.SOURCE_ID
        ]
    except (ValueError, KeyError) as error:
        raise place.describe(f"no name of an original: {error}") from error
    return from_bytes(bytes(tail[begin:end]))


class FilePaths(Sequence[str]):
    """Paths of the originals of some records, each read when it is asked for.

    Args:
        files: that hold the records.
        selection: which records, in order.
    """

    def __init__(self, files: RecordFiles, selection: Selection) -> None:
        self._files = files
        self._selection = selection

    def __len__(self) -> int:
        return self._selection.count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        positions = np.atleast_1d(np.arange(len(self), dtype=np.int64)[index])
        names = read_names(self._files, self._selection.find_records(positions))
        return names if isinstance(index, slice) else names[0]

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), HEAD_BYTES):
            yield from self[begin : begin + HEAD_BYTES]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # like a list's


def _visit(files: RecordFiles, numbers: Numbers) -> Iterator[tuple[int, int, Place]]:
    for file, places in files.locate(numbers):
        with open_file(file.path) as descriptor:
            for index, place in places:
                yield index, descriptor, place
