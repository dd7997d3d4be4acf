"""TFRecords that something else wrote, read by their indexes: `open_tfrecords`."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from converter.errors import DatasetError, UsageError
from converter.format import examples
from converter.names import show_name
from converter.sizes import format_count
from converter.storage.disk import DiskPath
from converter.storage.files import INDEX_SUFFIX
from converter.storage.locate import expand_home, is_address
from reader.plan.read_options import make_options
from reader.records.indexed_file import Place, RecordFile, load_index, measure_file
from reader.records.record_files import RecordFiles
from reader.shardset import explain_missing_packages
from reader.source import RecordSequence

if TYPE_CHECKING:
    import tensorflow as tf

Features: TypeAlias = dict[str, list[bytes] | list[int] | list[float]]

OPTIONS: Final = (
    "batch_size", "shuffle", "seed", "remainder", "shard_index", "shard_count", "initial_epoch",
    "initial_step", "on_damage", "max_damaged", "max_ram",
)  # fmt: skip
"""The `ReadOptions` that apply to any records."""


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
        raise DatasetError(f"{files} matches no file")
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
