"""Any record of a split by its number or its original's name; numpy alone, no TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from converter.errors import RecordError, UsageError
from converter.format import examples
from converter.format.schema import MASK, Column
from converter.names import from_bytes
from converter.sizes import format_count
from reader.arrays import Numbers
from reader.examples.columns import NO_LABEL, FilePaths, NameIndex, read_labels
from reader.records.indexed_file import Place
from reader.records.record_files import RecordFiles, find_source
from reader.sampling.selection import select_all

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One stored image and what is known of it.

    Attributes:
        encoded: the image as it is stored.
        format: `jpeg`, `png`, `webp` or `raw`.
        height: in pixels.
        width: in pixels.
        label: number of the class; -1 if there is none.
        text: name of the class, or nothing.
        source_id: path of the original, relative to the folder that was converted.
        sha256: of the original, in hexadecimal.
        values: of the columns of a table, by their names.
        mask: a PNG of one channel whose pixels are numbers of classes, if there is one.
    """

    encoded: bytes = dataclasses.field(repr=False)
    format: str
    height: int
    width: int
    label: int
    text: str
    source_id: str
    sha256: str
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mask: bytes | None = None


class RecordSequence(Sequence[T]):
    """Numbered records as a sequence: `records[7]`, `records[-1]`, slices, arrays of numbers.

    Reads exactly the bytes of the records asked for, checks them, and keeps the indexes of the
    files that were touched: 8 bytes a record. It holds no open file: share it between threads, use
    it after a fork, pickle it for worker processes; PyTorch's `DataLoader` and Grain take it as it
    is.

    Args:
        files: that hold the records.
        parse: makes of a record's place and payload what is given for it.

    Raises:
        IndexError: there is no record of that number.
        RecordError: it is damaged.
        DatasetError: its file or the file's index is missing or damaged.
    """

    def __init__(self, files: RecordFiles, parse: Callable[[Place, memoryview], T]) -> None:
        self._files = files
        self._parse = parse

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        records = format_count(len(self), "record")
        shards = format_count(len(self._files.files), "shard")
        return f"{type(self).__name__}({records} in {shards})"

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | npt.NDArray[Any]) -> list[T]: ...
    def __getitem__(self, index: int | slice | Sequence[int] | npt.NDArray[Any]) -> T | list[T]:
        if isinstance(index, slice):
            return self._read(np.arange(*index.indices(len(self)), dtype=np.int64))
        if isinstance(index, Sequence) or (isinstance(index, np.ndarray) and index.ndim):
            return self._read(self._check(np.asarray(index)))
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        return self._read(np.array([number % len(self)], np.int64))[0]

    def __getitems__(self, indices: Sequence[int]) -> list[T]:
        """The records of a batch, in 0.7 of the time of one by one; PyTorch asks for it."""
        return self[list(indices)]

    _getitems = __getitems__  # the name by which Grain asks

    def _check(self, numbers: npt.NDArray[Any]) -> Numbers:
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise IndexError(
                f"an array of {numbers.dtype} {numbers.shape} is no list of numbers of records"
            )
        wrong = numbers[(numbers < -len(self)) | (numbers >= len(self))]
        if wrong.size:
            raise IndexError(f"record {wrong[0]} of {len(self)}")
        return np.where(numbers < 0, numbers + len(self), numbers).astype(np.int64)

    def _read(self, numbers: Numbers) -> list[T]:
        records: list[Any] = [None] * len(numbers)
        for index, place, payload in self._files.read_many(numbers):
            if isinstance(payload, RecordError):
                raise payload
            records[index] = self._parse(place, payload)
        return records


class Source(RecordSequence[Record]):
    """The records of one split; see `RecordSequence` for all that it is good for.

    Args:
        files: of the split.
        label_counts: how many records it has of each label, if that is known.
        columns: what records hold besides an image and its label.
        labelled: whether they hold a label.
    """

    def __init__(
        self,
        files: RecordFiles,
        label_counts: Sequence[int] | None = None,
        columns: tuple[Column, ...] = (),
        labelled: bool = True,  # noqa: FBT001, FBT002 (pickled as it stands here)
    ) -> None:
        parse = functools.partial(parse_record, columns=columns, labelled=labelled)
        super().__init__(files, parse)
        self._arguments = (label_counts, columns, labelled)
        self._names: NameIndex | None = None

    def __reduce__(self) -> tuple[type[Source], tuple[object, ...]]:
        return Source, (self._files, *self._arguments)

    @property
    def file_paths(self) -> FilePaths:
        """Paths of the originals in record order, each read when it is asked for."""
        return FilePaths(self._files, select_all(len(self)))

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """The labels of all records, int32 (records,); reads half a kilobyte of each record."""
        label_counts, _, labelled = self._arguments
        if not labelled:
            raise UsageError("the records have no labels")
        return read_labels(self._files, label_counts)

    def by_id(self, source_id: str) -> Record:
        """The record made from the original of that path, relative to the folder it was in.

        The first call reads all records, to check what it takes their names from, and keeps 16
        bytes for each.

        Raises:
            KeyError: there is none.
            RecordError: there is none, but that of a damaged record is not known.
        """
        return self[self.find(source_id)]

    def find(self, source_id: str) -> int:
        """The number of that record; see `by_id`."""
        if self._names is None:
            self._names = NameIndex(self.file_paths)
        return self._names.find(source_id)


def parse_record(
    place: Place, payload: memoryview, columns: Sequence[Column] = (), *, labelled: bool = True
) -> Record:
    """What is stored of one image.

    Raises:
        RecordError: the payload is something else.
    """
    try:
        features = examples.decode_example(bytes(payload))
        return _make_record(features, columns, labelled=labelled)
    except (ValueError, TypeError) as error:
        raise place.describe(f"not an image: {error}", find_source(payload)) from error


def _make_record(
    features: Mapping[str, Sequence[Any]], columns: Sequence[Column], *, labelled: bool
) -> Record:
    get = functools.partial(examples.read_value, features)
    values = {column.name: column.read(features.get(column.name, ())) for column in columns}
    return Record(
        encoded=get(examples.ENCODED, bytes),
        format=get(examples.FORMAT, bytes).decode(),
        height=get(examples.HEIGHT, int),
        width=get(examples.WIDTH, int),
        label=get(examples.LABEL, int) if labelled else NO_LABEL,
        text=from_bytes(get(examples.TEXT, bytes)) if labelled else "",
        source_id=from_bytes(get(examples.SOURCE_ID, bytes)),
        sha256=get(examples.SHA256, bytes).decode(),
        values={name: value for name, value in values.items() if name != MASK},
        mask=values.get(MASK),
    )
