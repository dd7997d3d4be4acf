"""Reads Parquet files with Arrow, here and in stores: no more of them than is needed.

Memory is bounded by a page, in the file and unpacked, and a batch of rows; row groups may have any
size. Arrow writes pages of up to 1,024 values: 77 MB of photos of 75 kB.
"""

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from converter.errors import UsageError
from converter.sources.parquet_headers import (
    MARK,
    TAIL_BYTES,
    check_footer,
    check_pages,
    check_sizes,
    find_footer,
    read_page,
)
from converter.storage.location import Location

_BATCH_ROWS: Final = 4_096
_MAX_ROWS: Final = 20_000_000  # nulls take no space, and each row some memory
_NUMBER_BYTES: Final = 16
_BUFFER_BYTES: Final = 1 << 20  # without it, Arrow reads the column of a row group at once

# Of these, no page gets larger than 22 times its size in the file. Headers of others are looked at.
_BOUNDED: Final = ("UNCOMPRESSED", "SNAPPY")


class ParquetError(ValueError):
    """A part of a Parquet file that cannot be read."""


def read_metadata(file: Location) -> Any:
    """The footer of a Parquet file, as Arrow's `FileMetaData`; raises UsageError."""
    try:
        if not (file.is_remote or file.is_file()):  # a pipe would be waited for
            raise UsageError(f"{file} does not exist, or is not a file: give one in Parquet")
        with _describe_damage():
            return _read_footer(file, file.read_version())
    except ParquetError as error:
        raise UsageError(f"{file} cannot be read as Parquet: {error}") from error
    except FileNotFoundError:
        raise UsageError(f"{file} does not exist: give a file in Parquet") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error


@functools.lru_cache(maxsize=16)
def _read_footer(file: Location, version: tuple[int, str]) -> Any:
    pa, parquet = _import_arrow(file)
    file_bytes, _ = version
    if file_bytes < TAIL_BYTES + len(MARK):
        raise ParquetError(f"it has {file_bytes} bytes")
    tail = file.read_range(file_bytes - TAIL_BYTES, TAIL_BYTES)
    size = find_footer(tail, file_bytes)
    footer = file.read_range(file_bytes - TAIL_BYTES - size, size)
    check_footer(footer)
    metadata = parquet.read_metadata(pa.BufferReader(MARK + footer + tail))
    groups = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    if (rows := sum(map(abs, groups))) > _MAX_ROWS:
        raise ParquetError(f"it claims {rows:,} rows, at most {_MAX_ROWS:,}: write several files")
    return metadata


def read_batches(
    file: Location, columns: Sequence[str], groups: Iterable[int], batch_bytes: int = 16 << 20
) -> Iterator[Any]:
    """The rows of some row groups in their order, as batches of Arrow with these columns.

    A batch has at most 4,096 rows, and as many as take so many bytes on average. A column is named
    by its path, such as `image.bytes`. Raises ParquetError where the file is damaged, or lies about
    itself, and what reading a `Location` raises.
    """
    metadata = read_metadata(file)
    _, parquet = _import_arrow(file)
    with _describe_damage(), contextlib.ExitStack() as stack:
        opened = parquet.ParquetFile(
            stack.enter_context(_open_file(file)),
            metadata=metadata,
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
        )
        leaves = _find_leaves(metadata, columns)
        for group in groups:
            described = metadata.row_group(group)
            value_bytes = sum(_measure_cell(file, described, leaf) for leaf in leaves)
            rows = int(min(_BATCH_ROWS, max(1, batch_bytes // max(1, value_bytes))))
            yield from opened.iter_batches(
                rows, row_groups=[group], columns=[*columns], use_threads=False
            )


def _import_arrow(file: Location) -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415 (half a second, for one format alone)
        from pyarrow import parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UsageError(f"{file}: reading Parquet takes pyarrow: pip install pyarrow") from error
    return pa, parquet


@contextlib.contextmanager
def _describe_damage() -> Iterator[None]:
    """Raises what Arrow, and the checks before it, say about a file as a `ParquetError`."""
    try:
        yield
    except ParquetError:
        raise
    except (ValueError, LookupError, NotImplementedError, TypeError, MemoryError) as error:
        raise ParquetError(_cut(error)) from error
    except OSError as error:
        # What Arrow raises about content, too; but what a disk says has a number.
        if type(error) is not OSError or error.errno is not None:
            raise
        raise ParquetError(_cut(error)) from error


def _cut(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _open_file(file: Location) -> Any:
    if file.is_remote:
        return file.open_read()
    import pyarrow as pa  # noqa: PLC0415

    # Arrow's own file, because Python's would take the interpreter for each read.
    return pa.OSFile(os.fsencode(str(file)))


def _find_leaves(metadata: Any, columns: Sequence[str]) -> list[int]:
    """The numbers of the columns that a row group has of these, which may be nested."""
    paths = (metadata.schema.column(number).path for number in range(metadata.num_columns))
    return [
        number
        for number, path in enumerate(paths)
        if any(path == name or path.startswith(f"{name}.") for name in columns)
    ]


def _measure_cell(file: Location, group: Any, leaf: int) -> float:
    """About how many bytes a row takes of a column of a row group, at most if values repeat."""
    chunk = group.column(leaf)
    plain_bytes, packed_bytes = chunk.total_uncompressed_size, chunk.total_compressed_size
    check_sizes(plain_bytes, packed_bytes)
    cell_values = chunk.num_values / max(1, group.num_rows)
    if cell_values > 1:  # of lists, which repeat a value in no space at all
        check_sizes(chunk.num_values * _NUMBER_BYTES, packed_bytes)
    if chunk.physical_type != "BYTE_ARRAY":
        return float(cell_values * _NUMBER_BYTES)
    offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
    begin = min(offset for offset in offsets if offset)
    end = begin + packed_bytes
    if chunk.compression not in _BOUNDED:
        check_pages(file.read_range, begin, end)
    # A row may stand for any value of a dictionary.
    first = read_page(file.read_range, begin, end) if packed_bytes > 0 else None
    largest = first.plain_bytes if first and first.is_dictionary else 0
    return float(cell_values * max(plain_bytes / max(1, chunk.num_values), largest))
