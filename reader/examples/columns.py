"""Single features of all records: labels without the images between them, and names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar, overload

import numpy as np
import numpy.typing as npt

from converter.errors import DatasetError, RecordError
from converter.format import examples
from converter.names import from_bytes
from reader.arrays import Numbers
from reader.examples.heads import read_heads
from reader.examples.vector_parse import find_spans
from reader.records.indexed_file import Place
from reader.records.record_files import RecordFiles, find_source
from reader.sampling.selection import Selection

T = TypeVar("T")

NO_LABEL: Final = -1
"""Stands where a record has no label."""

MAX_LABEL: Final = 2**31 - 1

PART_RECORDS: Final = 512
"""That are looked at together."""


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
    labels = np.empty(len(files), np.int32)
    if counts is not None and _read_heads(files, labels) and _add_up(labels, counts):
        return labels
    for part in _divide(len(files)):
        for index, place, payload in files.read_many(part):
            labels[part[index]] = _parse_label(place, payload)
    if counts is not None and not _add_up(labels, counts):
        raise DatasetError(
            "the labels of the records are not those that the manifest counts: run shardmill verify"
        )
    return labels


def read_names(files: RecordFiles, numbers: Numbers) -> list[str | RecordError]:
    """Paths of the originals of some records, relative to the folder that was converted.

    Returns:
        in the order of `numbers`, a path, or the error of a record that is damaged.
    """
    names: list[str | RecordError | None] = [None] * len(numbers)
    for block in files.read_blocks(numbers) if len(numbers) else ():
        begins, ends, valid = find_spans(
            block.data, block.begins, block.ends, (examples.SOURCE_ID,)
        )
        for row in np.flatnonzero(valid & block.valid).tolist():
            name = block.data[begins[0, row] : ends[0, row]].tobytes()
            names[int(block.indexes[row])] = from_bytes(name)
    rest = np.array([index for index, name in enumerate(names) if name is None], np.int64)
    for row, place, payload in files.read_many(numbers[rest]):
        names[int(rest[row])] = _parse_name(place, payload)
    return [name for name in names if name is not None]


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
        for name in self._read(np.array(range(len(self))[index], np.int64, ndmin=1)):
            if isinstance(name, RecordError):
                raise name
            names.append(name)
        return names if isinstance(index, slice) else names[0]

    def __iter__(self) -> Iterator[str]:
        for part in _divide(len(self)):
            yield from self[part[0] : part[-1] + 1]

    def look(self) -> Iterator[str | RecordError]:
        """All of them, with the error of each record that is damaged in its place."""
        for part in _divide(len(self)):
            yield from self._read(part)

    def _read(self, positions: Numbers) -> list[str | RecordError]:
        return read_names(self._files, self._selection.find_records(positions))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # like a list's


def _divide(count: int) -> Iterator[Numbers]:
    for begin in range(0, count, PART_RECORDS):
        yield np.arange(begin, min(begin + PART_RECORDS, count), dtype=np.int64)


def _read_heads(files: RecordFiles, labels: npt.NDArray[np.int32]) -> bool:
    """Fills in the labels from the beginnings of records; whether all are as they should be."""
    for part in _divide(len(files)):
        groups = files.gather(part)
        heads = read_heads(groups)
        if not (heads.valid & (heads.labels <= MAX_LABEL)).all():
            return False
        labels[part[np.concatenate([group.indexes for group in groups])]] = heads.labels
    return True


def _parse_label(place: Place, payload: memoryview | RecordError) -> int:
    label = _parse_value(place, payload, examples.LABEL, int, "no label")
    if not 0 <= label <= MAX_LABEL:
        raise place.describe(f"label {label!r:.40} is out of range: up to {MAX_LABEL}")
    return label


def _parse_name(place: Place, payload: memoryview | RecordError) -> str | RecordError:
    lack = "no name of an original"
    try:
        return from_bytes(_parse_value(place, payload, examples.SOURCE_ID, bytes, lack))
    except RecordError as error:
        return error


def _parse_value(
    place: Place, payload: memoryview | RecordError, name: str, kind: type[T], lack: str
) -> T:
    if isinstance(payload, RecordError):
        raise payload
    try:
        value: T = examples.read_value(examples.decode_example(bytes(payload)), name, kind)
    except ValueError as error:
        raise place.describe(f"{lack}: {error}", find_source(payload)) from error
    return value


def _add_up(labels: npt.NDArray[np.int32], counts: Sequence[int]) -> bool:
    return int(labels.max(initial=-1)) < len(counts) and np.array_equal(
        np.bincount(labels, minlength=len(counts)), counts
    )
