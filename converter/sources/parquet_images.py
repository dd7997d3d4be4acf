"""Images in Parquet files: their sizes and digests in one pass, and their bytes in order.

A row is not found without those before it in its row group. So a worker reads images in the order
of their rows, and skips row groups without any that it wants.
"""

import concurrent.futures
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from converter.errors import ImageError, UsageError
from converter.inventory import Entry, reject
from converter.sources.parquet_files import ParquetError, read_batches, read_metadata
from converter.storage.location import Location

NO_IMAGE: Final = -1  # in place of the size of an image that is null
DAMAGED: Final = -2  # or cannot be read

DIGEST_BYTES: Final = 32

BATCH_BYTES: Final = 4 << 20
_MAX_LOST: Final = 1_000_000  # rows of a damaged row group, which are rejected one by one
_TASK_BYTES: Final = 32 << 20  # of a thread at once, so that small row groups cost little
_THREADS: Final = 4  # that read from a store, each of which holds up to 36 MiB that are sent ahead


class Measures(NamedTuple):
    """What one pass over a column of images tells: 12 bytes for each row, and 32 if hashed."""

    version: tuple[int, str]  # of the file
    sizes: npt.NDArray[np.int64]  # (rows,), in bytes, or `NO_IMAGE` or `DAMAGED`
    ranks: npt.NDArray[np.int32]  # (rows,), how many images there are up to each row
    digests: bytes  # the SHA-256 of each image, one after another; empty if they were not asked for


class MeasuredFiles:
    """What was measured of the files of the last scan, as digests are asked for one by one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._known: dict[tuple[Location, str], Measures] = {}

    def forget_others(self, files: Sequence[Location]) -> None:
        """Forgets all files but these."""
        kept = {*files}
        with self._lock:
            self._known = {key: found for key, found in self._known.items() if key[0] in kept}

    def measure(self, file: Location, column: str, *, hashed: bool) -> Measures:
        """Measures the images in a column as it is now, if that is not known; raises UsageError."""
        with self._lock:
            known, version = self._known.get((file, column)), file.read_version()
            if known is None or known.version != version or (hashed and not known.digests):
                known = self._known[file, column] = _measure(file, column, version, hashed=hashed)
            return known

    def digest(self, file: Location, entry: Entry) -> bytes:
        """The SHA-256 of an image; empty if it cannot be read."""
        # To ask a store for the version takes a request, too long for each image.
        known = self._known.get((file, entry.part)) if file.is_remote else None
        if known is None or not known.digests:
            try:
                known = self.measure(file, entry.part, hashed=True)
            except (ImageError, OSError, ValueError):
                return b""
        if entry.place >= len(known.sizes) or known.sizes[entry.place] < 0:
            return b""
        end = int(known.ranks[entry.place]) * DIGEST_BYTES
        return known.digests[end - DIGEST_BYTES : end]


MEASURED: Final = MeasuredFiles()


def _measure(file: Location, column: str, version: tuple[int, str], *, hashed: bool) -> Measures:
    metadata = read_metadata(file)
    # Arrow and the hash release the interpreter.
    threads = _THREADS if file.is_remote else os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = list(
            pool.map(
                lambda groups: _measure_groups(file, column, groups, hashed=hashed),
                _deal_groups(metadata),
            )
        )
    sizes = np.concatenate([np.empty(0, np.int64), *(sizes for sizes, _ in found)])
    ranks = np.cumsum(sizes >= 0, dtype=np.int32)
    return Measures(version, sizes, ranks, b"".join(digests for _, digests in found))


def _deal_groups(metadata: Any) -> Iterator[list[int]]:
    """Row groups that follow each other, in tasks for a thread."""
    task: list[int] = []
    task_bytes = 0
    for group in range(metadata.num_row_groups):
        task.append(group)
        task_bytes += metadata.row_group(group).total_byte_size
        if task_bytes >= _TASK_BYTES:
            yield task
            task, task_bytes = [], 0
    if task:
        yield task


def _measure_groups(
    file: Location, column: str, groups: Sequence[int], *, hashed: bool
) -> tuple[npt.NDArray[np.int64], bytes]:
    metadata = read_metadata(file)
    leaf = find_leaf(metadata, column)
    sizes: list[npt.NDArray[np.int64]] = []
    digests: list[bytes] = []
    for group in groups:
        missing = metadata.row_group(group).num_rows
        try:
            for batch in read_batches(file, [leaf], [group], BATCH_BYTES):
                values = take_values(batch, column)[:missing]
                sizes.append(_measure_values(values))
                missing -= len(values)
                if hashed:
                    digests.extend(map(_hash, values.drop_null()))
        except ParquetError as error:
            if missing > _MAX_LOST:
                raise UsageError(
                    f"{file}: row group {group} is damaged, and {missing:,} rows of it are lost: "
                    f"{error}"
                ) from error
        # Of a damaged page, its batch is lost, and all that comes after it in its row group.
        sizes.append(np.full(missing, DAMAGED, np.int64))
    return np.concatenate(sizes), b"".join(digests)


def _measure_values(values: Any) -> npt.NDArray[np.int64]:
    import pyarrow.compute as pc  # noqa: PLC0415

    lengths = pc.fill_null(pc.binary_length(values), NO_IMAGE)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)


def _hash(value: Any) -> bytes:
    return hashlib.sha256(value.as_buffer()).digest()  # without a copy


def find_leaf(metadata: Any, column: str) -> str:
    """The path of the bytes in a column of images, as `read_batches` takes it."""
    kind = metadata.schema.to_arrow_schema().field(column).type
    return f"{column}.bytes" if kind.num_fields else column


def take_values(batch: Any, column: str) -> Any:
    """The bytes in a column of images, as an array of Arrow."""
    values = batch.column(batch.schema.get_field_index(column))
    # Flattened, a structure hands down to its parts that it is null itself.
    return values.flatten()[0] if values.type.num_fields else values


class RowCursor:
    """An open column of images; reading backward starts its row group again."""

    def __init__(self, file: Location, column: str) -> None:
        self._file, self._column = file, column
        metadata = read_metadata(file)
        self._leaf = find_leaf(metadata, column)
        groups = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        self._ends = np.cumsum(np.fromiter(groups, np.int64))  # of row groups, in rows
        self._batches: Iterator[Any] = iter(())
        self._group = -1
        self._begin = self._end = 0  # the rows of `_values`
        self._values: Any = None

    def read(self, row: int) -> bytes:
        """The image in a row, counted from 0; raises `ImageError`."""
        group = int(np.searchsorted(self._ends, row, "right"))
        if group == len(self._ends):
            raise reject("changed")
        try:
            if group != self._group or row < self._begin:
                self._group, self._values = group, None
                self._begin = self._end = int(self._ends[group - 1]) if group else 0
                self._batches = read_batches(self._file, [self._leaf], [group], BATCH_BYTES)
            while row >= self._end:
                self._values = take_values(next(self._batches), self._column)
                self._begin, self._end = self._end, self._end + len(self._values)
        except (ParquetError, StopIteration) as error:
            self._group = -1
            raise reject("decode_error", f"damaged in the Parquet file: {error}") from error
        content: bytes | None = self._values[row - self._begin].as_py()
        if content is None:
            raise reject("changed")
        return content


class Cursors(threading.local):
    """The open columns of one Parquet file, for a thread: images, and masks beside them."""

    def __init__(self) -> None:
        self._opened: tuple[Location, tuple[int, str] | None] | None = None
        self._columns: dict[str, RowCursor] = {}

    def read(self, file: Location, column: str, row: int) -> bytes:
        """The image in a row of a column; raises `ImageError` and `OSError`."""
        # Of an object, no other version than the one that was opened can be read.
        asked = file, None if file.is_remote else file.read_version()
        if self._opened != asked:
            self._columns, self._opened = {}, asked
        if column not in self._columns:
            try:
                self._columns[column] = RowCursor(file, column)
            except (UsageError, LookupError) as error:  # it was readable when it was listed
                raise reject("changed", str(error)) from error
        return self._columns[column].read(row)


# A thread reads rows in their order, so it hardly goes back.
CURSORS: Final = Cursors()


def read_image(file: Location, entry: Entry) -> bytes:
    """The image of an entry whose `place` is its row; raises `ImageError` and `OSError`."""
    return CURSORS.read(file, entry.part, entry.place)
