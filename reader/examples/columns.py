"""Single features of all records: labels without the images between them, and names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from converter.errors import DatasetError, RecordError
from converter.format import examples
from converter.format.tfrecords import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES
from converter.names import from_bytes
from reader.arrays import Numbers
from reader.records.files import LARGE_BYTES, Place, check_large, open_file, read_at, read_into
from reader.records.record_files import RecordFiles, check_record, find_source
from reader.sampling.selection import Selection

HEAD_BYTES: Final = 512
"""Holds all that comes before an image's bytes, unless a class has a name of 400 letters."""

NO_LABEL: Final = -1
"""Stands where a record has no label."""

MAX_LABEL: Final = 2**31 - 1


class Head(NamedTuple):
    """The beginning of a record, up to the bytes of its image.

    Attributes:
        data: of the record.
        label: number of the class, or `NO_LABEL`.
        begin: where the image's bytes begin in the payload.
        end: where they end.
    """

    data: memoryview
    label: int
    begin: int
    end: int


def read_head(descriptor: int, place: Place) -> Head:
    """Reads a record up to its image; no checksum can be compared yet.

    Raises:
        RecordError: it does not begin like a record that shardmill wrote.
    """
    size = min(HEAD_BYTES, place.size - FOOTER_BYTES)
    data = memoryview(read_at(descriptor, place, place.offset, size))
    try:
        return _parse_head(data, place.size - FRAMING_BYTES)
    except ValueError:  # a name of hundreds of letters, or damage
        data = memoryview(read_at(descriptor, place, place.offset, place.size))
    payload = check_record(data, place)
    if isinstance(payload, RecordError):
        raise payload
    return _take_head(data, place)


def _take_head(record: memoryview, place: Place) -> Head:
    try:
        return _parse_head(record, place.size - FRAMING_BYTES)
    except ValueError as error:
        raise place.describe(str(error), find_source(record[HEADER_BYTES:])) from error


def _parse_head(data: memoryview, payload_bytes: int) -> Head:
    payload = data[HEADER_BYTES:]
    found = examples.find_values(payload, (examples.LABEL, examples.ENCODED), payload_bytes)
    try:
        begin, end = found[examples.ENCODED]
        label = NO_LABEL
        if examples.LABEL in found:
            label, _ = examples.read_varint(payload, found[examples.LABEL][0])
    except (KeyError, IndexError) as error:
        raise ValueError(f"no image with a label: {error}") from error
    if label > MAX_LABEL:
        raise ValueError(f"label {label} is out of range: up to {MAX_LABEL}")
    return Head(data, label, begin, end)


def read_labels(files: RecordFiles, counts: Sequence[int] | None = None) -> npt.NDArray[np.int32]:
    """The labels of all records: int32 (records,).

    Reads half a kilobyte of each, whose checksum then cannot be compared, if the labels add up to
    `counts`; or else every record, to find out which one is damaged.

    Args:
        files: that hold the records.
        counts: how many records there are of each label, if that is known.

    Raises:
        RecordError: a record is damaged.
        DatasetError: all are whole, and other records than were counted.
    """
    everything = np.arange(len(files))
    labels = np.empty(len(files), np.int32)
    if counts is not None:
        for index, descriptor, place in _visit(files, everything):
            labels[index] = _check_label(read_head(descriptor, place).label, place)
        if _add_up(labels, counts):
            return labels
    for index, place, record in _read_whole(files, everything):
        if isinstance(record, RecordError):
            raise record
        labels[index] = _check_label(_take_head(record, place).label, place)
    if counts is not None and not _add_up(labels, counts):
        raise DatasetError(
            "the labels of the records are not those that the manifest counts: run shardmill verify"
        )
    return labels


def _check_label(label: int, place: Place) -> int:
    if label == NO_LABEL:
        raise place.describe("no label")
    return label


def read_names(files: RecordFiles, numbers: Numbers) -> list[str | RecordError]:
    """Paths of the originals of some records, relative to the folder that was converted.

    Returns:
        in the order of `numbers`, a path, or the error of a record that is damaged.
    """
    names: list[str | RecordError] = [""] * len(numbers)
    for index, place, record in _read_whole(files, numbers):
        try:
            names[index] = record if isinstance(record, RecordError) else _take_name(record, place)
        except RecordError as error:  # noqa: PERF203 (each may be damaged)
            names[index] = error
    return names


def _take_name(record: memoryview, place: Place) -> str:
    head = _take_head(record, place)
    return find_name(head.data[HEADER_BYTES + head.end : -FOOTER_BYTES], place)


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
        names = []
        for name in self._read(np.atleast_1d(np.arange(len(self), dtype=np.int64)[index])):
            if isinstance(name, RecordError):
                raise name
            names.append(name)
        return names if isinstance(index, slice) else names[0]

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), HEAD_BYTES):
            yield from self[begin : begin + HEAD_BYTES]

    def look(self) -> Iterator[str | RecordError]:
        """All of them, with the error of each record that is damaged in its place."""
        for begin in range(0, len(self), HEAD_BYTES):
            yield from self._read(np.arange(begin, min(begin + HEAD_BYTES, len(self))))

    def _read(self, positions: Numbers) -> list[str | RecordError]:
        return read_names(self._files, self._selection.find_records(positions))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # like a list's


def _visit(files: RecordFiles, numbers: Numbers) -> Iterator[tuple[int, int, Place]]:
    for file, places in files.locate(numbers):
        with open_file(file) as descriptor:
            for index, place in places:
                yield index, descriptor, place


def _read_whole(
    files: RecordFiles, numbers: Numbers
) -> Iterator[tuple[int, Place, memoryview | RecordError]]:
    """Reads and checks records, one after another into the same memory.

    Yields:
        (index into `numbers`, place, record), or the error of a damaged record; the record is gone
        with the next one.
    """
    memory = bytearray()
    for index, descriptor, place in _visit(files, numbers):
        try:
            if place.size > len(memory):
                if place.size > LARGE_BYTES:
                    check_large(descriptor, place)
                memory = bytearray(place.size)
            record = memoryview(memory)[: place.size]
            read_into(descriptor, place, place.offset, [record])
            payload = check_record(record, place)
        except RecordError as error:
            payload = error
        yield index, place, payload if isinstance(payload, RecordError) else record


def _add_up(labels: npt.NDArray[np.int32], counts: Sequence[int]) -> bool:
    return int(labels.max(initial=-1)) < len(counts) and np.array_equal(
        np.bincount(labels, minlength=len(counts)), counts
    )
