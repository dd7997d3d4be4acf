"""Single features of all records: labels, read without the images behind them, and names."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt

from converter.errors import DatasetError, RecordError
from converter.format import examples
from converter.format.tfrecords import FOOTER_BYTES, HEADER_BYTES
from converter.names import from_bytes, to_bytes
from reader.arrays import Bytes, Flags, Numbers
from reader.examples.fields import find_spans, read_numbers
from reader.records.blocks import check_lengths
from reader.records.indexed_file import Group, Place, open_file
from reader.records.record_files import RecordFiles
from reader.sampling.orders import Selection

T = TypeVar("T")

NO_LABEL: Final = -1
MAX_LABEL: Final = 2**31 - 1
PART_RECORDS: Final = 512  # read together
# Holds all that comes before an image's bytes, unless a class has a name of 400 letters.
HEAD_BYTES: Final = 512


def read_labels(files: RecordFiles, counts: Sequence[int] | None = None) -> npt.NDArray[np.int32]:
    """Reads the labels of all records: int32 (records,).

    If the labels add up to `counts`, how many records there are of each, half a kilobyte of each
    record is enough, and payload checksums are not compared. Otherwise every record is read: a
    `RecordError` names the one that is damaged, or a `DatasetError` says that none is.
    """
    labels = np.empty(len(files), np.int32)
    if counts is not None and _read_heads(files, labels) and _match_counts(labels, counts):
        return labels
    for part in _split_range(len(files)):
        for index, place, payload in files.read_many(part):
            label = _parse_value(place, payload, examples.LABEL, int, "no label")
            if not 0 <= label <= MAX_LABEL:
                raise place.describe(f"label {label!r:.40} is out of range: up to {MAX_LABEL}")
            labels[part[index]] = label
    if counts is not None and not _match_counts(labels, counts):
        raise DatasetError(
            "the labels of the records are not those that the manifest counts: run shardmill verify"
        )
    return labels


class Heads(NamedTuple):
    """Records up to the bytes of their images, in their order on disk."""

    data: Bytes  # (records, HEAD_BYTES)
    labels: Numbers  # (records,)
    begins: Numbers  # (records,): where each image begins in its record
    image_bytes: Numbers  # (records,)
    sizes: Numbers  # (records,): of whole records
    valid: Flags  # (records,): whether all is right but for checksums of payloads


def read_heads(groups: Sequence[Group]) -> Heads:
    """Reads the heads of some records, at least one."""
    sizes = np.concatenate([group.ends - group.begins for group in groups])
    data = np.zeros((len(sizes), HEAD_BYTES), np.uint8)
    number = 0
    for group in groups:
        with open_file(group.file) as descriptor:
            for offset in group.begins.tolist():
                with contextlib.suppress(OSError):
                    os.preadv(descriptor, (data[number],), offset)
                number += 1
    flat, starts = data.reshape(-1), np.arange(len(sizes)) * HEAD_BYTES
    payloads, stops = starts + HEADER_BYTES, starts + sizes - FOOTER_BYTES
    begins, ends, valid = find_spans(flat, payloads, stops, (examples.LABEL, examples.ENCODED))
    labels, single = read_numbers(flat, begins[0], ends[0])
    valid &= single & (np.maximum(ends[0], begins[1]) <= starts + HEAD_BYTES)
    valid &= check_lengths(flat, starts, sizes)
    return Heads(data, labels, begins[1] - starts, ends[1] - begins[1], sizes, valid)


class FilePaths(Sequence[str]):
    """Paths of the originals, relative to the folder that was converted; read when asked for."""

    def __init__(self, files: RecordFiles, selection: Selection) -> None:
        self._files, self._selection = files, selection

    def __len__(self) -> int:
        return self._selection.count

    def __repr__(self) -> str:
        return f"<{len(self):,} paths of originals: list(…) reads them>"

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        positions = np.array(range(len(self))[index], np.int64, ndmin=1)
        names = [_raise_error(name) for name in self._read(positions)]
        return names if isinstance(index, slice) else names[0]

    def __iter__(self) -> Iterator[str]:
        return map(_raise_error, self.read_all())

    def read_all(self) -> Iterator[str | RecordError]:
        """Reads all paths, with the error of each damaged record in place of its path."""
        for part in _split_range(len(self)):
            yield from self._read(part)

    def _read(self, positions: Numbers) -> list[str | RecordError]:
        numbers = self._selection.find_records(positions)
        names: list[str | RecordError | None] = [None] * len(numbers)
        for block in self._files.read_blocks(numbers) if len(numbers) else ():
            data, features = block.data, (examples.SOURCE_ID,)
            begins, ends, valid = find_spans(data, block.begins, block.ends, features)
            for row in np.flatnonzero(valid & block.valid).tolist():
                name = from_bytes(data[begins[0, row] : ends[0, row]].tobytes())
                names[int(block.indexes[row])] = name
        rest = np.array([index for index, name in enumerate(names) if name is None], np.int64)
        lack = "no name of an original"
        for row, place, payload in self._files.read_many(numbers[rest]):
            try:
                found = _parse_value(place, payload, examples.SOURCE_ID, bytes, lack)
                names[int(rest[row])] = from_bytes(found)
            except RecordError as error:  # noqa: PERF203 (each may be damaged)
                names[int(rest[row])] = error
        return [name for name in names if name is not None]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # like a list's


class NameIndex:
    """Finds records by the names of their originals: hashes of all, 16 bytes a record."""

    def __init__(self, paths: FilePaths) -> None:
        self._paths = paths
        self._error: RecordError | None = None
        hashes = np.fromiter(map(self._note, paths.read_all()), np.uint64)
        self._numbers = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._numbers]

    def find(self, name: str) -> int:
        wanted = np.uint64(_hash(name))
        first = np.searchsorted(self._hashes, wanted, side="left")
        last = np.searchsorted(self._hashes, wanted, side="right")
        # Two names may have one hash, so those found are read again to compare.
        for number in self._numbers[first:last].tolist():
            if self._paths[number] == name:
                return int(number)
        raise self._error or KeyError(name)

    def _note(self, name: str | RecordError) -> int:
        if isinstance(name, str):
            return _hash(name)
        self._error = self._error or name
        return 0


def _raise_error(name: str | RecordError) -> str:
    if isinstance(name, RecordError):
        raise name
    return name


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(to_bytes(name), digest_size=8).digest(), "little")


def _split_range(count: int) -> Iterator[Numbers]:
    for begin in range(0, count, PART_RECORDS):
        yield np.arange(begin, min(begin + PART_RECORDS, count), dtype=np.int64)


def _read_heads(files: RecordFiles, labels: npt.NDArray[np.int32]) -> bool:
    """Fills in the labels from the heads of records; returns whether all heads are right."""
    for part in _split_range(len(files)):
        groups = files.prefetch(part)
        heads = read_heads(groups)
        if not (heads.valid & (heads.labels <= MAX_LABEL)).all():
            return False
        labels[part[np.concatenate([group.indexes for group in groups])]] = heads.labels
    return True


def _match_counts(labels: npt.NDArray[np.int32], counts: Sequence[int]) -> bool:
    return int(labels.max(initial=-1)) < len(counts) and np.array_equal(
        np.bincount(labels, minlength=len(counts)), counts
    )


def _parse_value(
    place: Place, payload: memoryview | RecordError, name: str, kind: type[T], lack: str
) -> T:
    if isinstance(payload, RecordError):
        raise payload
    try:
        value: T = examples.read_value(examples.decode_example(bytes(payload)), name, kind)
    except ValueError as error:
        raise place.describe(f"{lack}: {error}", examples.find_source(payload)) from error
    return value
