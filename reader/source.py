"""Any record of a split by its number, read where the index says it lies; no TensorFlow."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

from converter import examples
from converter.errors import DatasetError, RecordError
from converter.indexes import name_index, parse_index
from converter.manifest import ShardInfo
from converter.names import from_bytes
from converter.tfrecords import unframe_record

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One stored image and what is known of it.

    Attributes:
        encoded: the image as it is stored.
        format: `jpeg`, `png`, `webp` or `raw`.
        height: in pixels.
        width: in pixels.
        label: number of the class.
        text: name of the class.
        source_id: path of the original, relative to the folder that was converted.
        sha256: of the original, in hexadecimal.
    """

    encoded: bytes
    format: str
    height: int
    width: int
    label: int
    text: str
    source_id: str
    sha256: str


class Source(Sequence[Record]):
    """The records of one split as a sequence: `len(source)`, `source[7]`, `source[-1]`, slices.

    Reads exactly the bytes of the records asked for, and keeps the indexes of the shards that
    were touched: 16 bytes a record. Safe to share between threads.

    Args:
        folder: the data set.
        shards: of one split, in order.

    Raises:
        IndexError: there is no record of that number.
        RecordError: it is damaged.
        DatasetError: its shard or the shard's index is missing or damaged.
    """

    def __init__(self, folder: Path, shards: Sequence[ShardInfo]) -> None:
        self._folder = folder
        self._shards = shards
        self._ends = list(itertools.accumulate(shard.records for shard in shards))
        self._spans: dict[int, npt.NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self._read(number) for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return self._read(index % len(self))

    def _read(self, index: int) -> Record:
        number = bisect.bisect_right(self._ends, index)
        shard = self._shards[number]
        place = index - (self._ends[number] - shard.records)
        offset, size = (int(value) for value in self._find_spans(number)[place])
        path = self._folder / shard.name
        try:
            with open(path, "rb") as file:
                record = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
        payload = unframe_record(record, shard=shard.name, offset=offset, number=place)
        try:
            return _make_record(examples.decode_example(payload))
        except (ValueError, TypeError) as error:
            raise RecordError(shard.name, offset, f"not an image: {error}", place) from error

    def _find_spans(self, number: int) -> npt.NDArray[np.int64]:
        # Two threads may read the same index at once; both read the same.
        if number not in self._spans:
            self._spans[number] = self._read_index(number)
        return self._spans[number]

    def _read_index(self, number: int) -> npt.NDArray[np.int64]:
        shard = self._shards[number]
        index = name_index(shard.name)
        path = self._folder / index
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
        spans = parse_index(data, index=index, shard_bytes=shard.bytes)
        if len(spans) != shard.records:
            raise DatasetError(f"{index}: lists {len(spans)} records, expected {shard.records}")
        return np.asarray(spans, np.int64).reshape(-1, 2)


def _make_record(features: Mapping[str, Sequence[object]]) -> Record:
    def get(name: str, kind: type[T]) -> T:
        values = features.get(name, ())
        if len(values) != 1 or not isinstance(values[0], kind):
            raise TypeError(f"feature {name!r} is not one {kind.__name__}")
        return values[0]

    return Record(
        encoded=get(examples.ENCODED, bytes),
        format=get(examples.FORMAT, bytes).decode(),
        height=get(examples.HEIGHT, int),
        width=get(examples.WIDTH, int),
        label=get(examples.LABEL, int),
        text=from_bytes(get(examples.TEXT, bytes)),
        source_id=from_bytes(get(examples.SOURCE_ID, bytes)),
        sha256=get(examples.SHA256, bytes).decode(),
    )
