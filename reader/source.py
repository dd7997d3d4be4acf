"""Random access to records: those of a split, and TFRecords that something else wrote."""

from __future__ import annotations

import dataclasses
import functools
import glob
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

from converter.errors import DatasetError, RecordError, UsageError
from converter.format import examples
from converter.format.schema import MASK, Column
from converter.names import from_bytes, show_name
from converter.sizes import format_count
from converter.storage.disk import DiskPath
from converter.storage.files import INDEX_SUFFIX
from converter.storage.locate import expand_home, is_address
from reader.arrays import Numbers
from reader.examples.columns import NO_LABEL, FilePaths, NameIndex, read_labels
from reader.packages import explain_missing_packages
from reader.plan.read_options import make_options
from reader.records.indexed_file import Place, RecordFile, load_index, measure_file
from reader.records.record_files import RecordFiles
from reader.sampling.orders import select_all

if TYPE_CHECKING:
    import tensorflow as tf

T = TypeVar("T")

Features: TypeAlias = dict[str, list[bytes] | list[int] | list[float]]

OPTIONS: Final = (
    "batch_size", "shuffle", "seed", "remainder", "shard_index", "shard_count", "initial_epoch",
    "initial_step", "on_damage", "max_damaged", "max_ram",
)  # fmt: skip
"""The `ReadOptions` that apply to any records."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One stored image and its metadata.

    Attributes:
        encoded: the image as stored.
        format: `jpeg`, `png`, `webp` or `raw`.
        height: in pixels.
        width: in pixels.
        label: number of the class; -1 if there is none.
        text: name of the class, or empty.
        source_id: path of the original, relative to the folder that was converted.
        sha256: of the original, in hexadecimal.
        values: of a table's columns, by name.
        mask: a PNG of one channel whose values are numbers of classes, if there is one.
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
    """Records as a sequence: `records[7]`, `records[-1]`, slices, arrays of numbers.

    Reads only the bytes of these records, checks them, and keeps the indexes of the files used, 4
    bytes a record, up to 512 MB. No file stays open, so you can share it between threads, use it
    after a fork, pickle it for worker processes, and pass it to PyTorch's `DataLoader` or to Grain.
    `parse` makes an item from a record's place and payload.

    Raises:
        IndexError: there is no record of that number.
        RecordError: it is damaged.
        DatasetError: its file or the file's index is missing or damaged.
    """

    def __init__(self, files: RecordFiles, parse: Callable[[Place, memoryview], T]) -> None:
        self._files, self._parse = files, parse

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
        is_list = isinstance(index, Sequence) and not isinstance(index, str | bytes)
        if is_list or (isinstance(index, np.ndarray) and index.ndim):
            return self._read(self._check(np.asarray(index)))
        try:
            number = operator.index(index)  # type: ignore[arg-type]  # refuses what is no number
        except TypeError:
            raise UsageError(
                f"record {index!r:.60} is not a number: give one below {len(self)}, a slice or a "
                "list of numbers; the `by_id` of a data set's source takes the original's path"
            ) from None
        if not -len(self) <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        return self._read(np.array([number % len(self)], np.int64))[0]

    def __getitems__(self, indices: Sequence[int]) -> list[T]:
        """Reads a batch for PyTorch, in 0.7 of the time of record by record."""
        return self[list(indices)]

    _getitems = __getitems__  # Grain's name for it

    def _check(self, numbers: npt.NDArray[Any]) -> Numbers:
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            shown = f"{numbers.dtype} {numbers.shape}"
            raise IndexError(f"an array of {shown} is no list of numbers of records")
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
    """The records of one split; `ShardSet.source` makes one."""

    def __init__(
        self,
        files: RecordFiles,
        label_counts: Sequence[int] | None = None,
        columns: tuple[Column, ...] = (),
        labelled: bool = True,  # noqa: FBT001, FBT002 (pickled by position)
    ) -> None:
        parse = functools.partial(_parse_record, columns=columns, labelled=labelled)
        super().__init__(files, parse)
        self._arguments = (label_counts, columns, labelled)
        self._names: NameIndex | None = None

    def __reduce__(self) -> tuple[type[Source], tuple[object, ...]]:
        return Source, (self._files, *self._arguments)

    @property
    def file_paths(self) -> FilePaths:
        """Paths of the originals in record order, each read on access."""
        return FilePaths(self._files, select_all(len(self)))

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """The labels, int32 (records,); takes half a kilobyte of reading for each record."""
        label_counts, _, labelled = self._arguments
        if not labelled:
            raise UsageError(
                "the records have no labels: this data set has none, or several for an image"
            )
        return read_labels(self._files, label_counts)

    def by_id(self, source_id: str) -> Record:
        """Returns the record made from the original with this relative path.

        The first call reads and checks all records for their names, and keeps 16 bytes for each.

        Raises:
            KeyError: there is none.
            RecordError: there is none, but the name of a damaged record is unknown.
        """
        return self[self.find(source_id)]

    def find(self, source_id: str) -> int:
        """Returns the number of that record, as `by_id` finds it."""
        if not isinstance(source_id, str):
            raise UsageError(f"source_id {source_id!r:.60} is not a path, as `file_paths` has them")
        if self._names is None:
            self._names = NameIndex(self.file_paths)
        return self._names.find(source_id)


def _parse_record(
    place: Place, payload: memoryview, columns: Sequence[Column], *, labelled: bool
) -> Record:
    try:
        features = examples.decode_example(bytes(payload))
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
            mask=values.pop(MASK, None),
            values=values,
        )
    except (ValueError, TypeError) as error:
        raise place.describe(f"not an image: {error}", examples.find_source(payload)) from error


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class TFRecordSet:
    """TFRecord files with indexes; `open_tfrecords` makes one."""

    files: RecordFiles
    features: Mapping[str, Any] | None = None  # of a record; None for arbitrary bytes

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        files, held = self.files.files, format_count(len(self), "record")
        if self.features is not None:
            held += f"; {format_count(len(self.features), 'feature')}"
        first = "".join(f"'{show_name(str(file.path))}'" for file in files[:1])
        more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
        return f"TFRecordSet({first}{more}: {held})"

    def source(self) -> RecordSequence[Features]:
        """Random access without TensorFlow; a record is a dict with a list for each feature."""
        return RecordSequence(self.files, _parse_features)

    def dataset(self, **options: Any) -> tf.data.Dataset:
        """The records as a `tf.data.Dataset`, in any order and from any step on.

        Args:
            **options: the `ReadOptions` in `OPTIONS`; `shuffle` is False by default.

        Returns:
            A dataset of dicts of tensors (batch, …) as `features` says, or of serialized records,
            strings (batch,); without `batch` if `batch_size` is None.

        Raises:
            UsageError: an option is unknown or out of range, or asks for padding.
            ShardmillError: TensorFlow is not installed.
        """
        with explain_missing_packages():
            from reader.tfdata.dataset import make_record_dataset  # noqa: PLC0415 (TensorFlow)
        asked = make_options({"shuffle": False} | options, OPTIONS)
        return make_record_dataset(self.files, self.features, asked)


def open_tfrecords(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    features: Mapping[str, Any] | None = None,
) -> TFRecordSet:
    """Opens TFRecord files that `shardmill index` has indexed.

    Args:
        files: a path, a pattern such as `data/train.tfrecord-*`, whose matches are sorted, or a
            list of paths, whose order is kept.
        features: of a record, as for `tf.io.parse_example`; used by `dataset`.

    Raises:
        DatasetError: no file matches, or an index is missing or does not fit its file.
        UsageError: the files are in an object store.
    """
    if not isinstance(features, Mapping | None):
        raise UsageError(f"features {features!r:.60} is not a dict, as for tf.io.parse_example")
    if isinstance(files, str | os.PathLike):
        if is_address(os.fspath(files)):
            raise UsageError(
                f"{os.fspath(files)} is an address: files without a manifest are read from folders "
                "alone, copy them, or mount the bucket"
            )
        matches = sorted(glob.glob(expand_home(files)))  # noqa: PTH207 (a whole pattern)
        paths = [DiskPath(match) for match in matches if not match.endswith(INDEX_SUFFIX)]
    else:
        try:
            paths = [DiskPath(expand_home(path)) for path in files]
        except TypeError:
            raise UsageError(f"files {files!r:.60} is not a path or a list of paths") from None
    if not paths:
        raise DatasetError(f"{files} matches no file: check the path, or the pattern")
    return TFRecordSet(RecordFiles([_describe_file(path.absolute()) for path in paths]), features)


def _parse_features(place: Place, payload: memoryview) -> Features:
    try:
        return examples.decode_example(bytes(payload))
    except ValueError as error:
        raise place.describe(str(error)) from error


def _describe_file(path: DiskPath) -> RecordFile:
    file = RecordFile(path=path, records=0, bytes=measure_file(path), max_record_bytes=0)
    offsets, sha256 = load_index(file)
    return dataclasses.replace(
        file,
        records=len(offsets) - 1,
        max_record_bytes=int(np.diff(offsets).max(initial=0)),
        # Of the index, so of all record sizes: the most one can tell without reading records.
        digest=sha256,
    )
