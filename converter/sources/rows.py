"""Rows of a table: CSV, TSV, JSON lines or Parquet, one after another as dicts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from converter.errors import UsageError
from converter.names import from_bytes
from converter.reasons import REJECT_CODES
from converter.storage.location import Location

Row: TypeAlias = dict[str, Any]

MAX_LINE_BYTES: Final = 1 << 24
"""Of a row."""

_BATCH_ROWS: Final = 4_096


class RowError(Exception):
    """A row has no image; `code` is one of `converter.reasons.REJECT_CODES`."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail or REJECT_CODES[code]


def read_rows(table: Location) -> Iterator[tuple[int, Row]]:
    """The rows of a table, numbered from 1; memory is bounded by a few thousand rows.

    Raises:
        UsageError: it cannot be read as the table that its name says it is.
    """
    if not table.is_file():
        raise UsageError(f"{table} does not exist, or is not a file: give a table of images")
    try:
        yield from enumerate(READERS[table.suffix.lower()](table), 1)
    except OSError as error:
        raise UsageError(f"{table} cannot be read: {error.strerror or error}") from error


def _read_csv(table: Location, delimiter: str = ",") -> Iterator[Row]:
    limit = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        # Bytes that are not UTF-8 may be part of a file's name.
        with io.TextIOWrapper(
            table.open_read(), encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as file:
            rows = csv.DictReader(file, delimiter=delimiter, strict=True)
            _check_header(table, rows.fieldnames or ())
            for row in rows:
                if None in row or None in row.values():
                    number = len(rows.fieldnames or ())
                    raise UsageError(
                        f"{table}: the row that ends in line {rows.line_num} has more or fewer "
                        f"than the {number} fields of the first one"
                    )
                yield row
    except csv.Error as error:
        raise UsageError(f"{table} cannot be read as a table: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _read_tsv(table: Location) -> Iterator[Row]:
    return _read_csv(table, "\t")


def _read_json_lines(table: Location) -> Iterator[Row]:
    with table.open_read() as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig", "surrogateescape"))
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{table}: line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UsageError(f"{table}: line {number} is not a JSON object")
            yield row


def _read_parquet(table: Location) -> Iterator[Row]:
    try:
        import pyarrow as pa  # noqa: PLC0415 (half a second, for one format alone)
        from pyarrow import parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UsageError(f"{table}: reading Parquet takes pyarrow: pip install pyarrow") from error
    try:
        with table.open_read() as file, parquet.ParquetFile(file) as rows:
            schema = rows.schema_arrow
            _check_header(table, schema.names)
            # Some writers store text as binary columns.
            binary = [field.name for field in schema if pa.types.is_binary(field.type)]
            for batch in rows.iter_batches(_BATCH_ROWS):
                for row in batch.to_pylist():
                    texts = {
                        name: from_bytes(row[name]) for name in binary if row[name] is not None
                    }
                    yield row | texts if texts else row
    except (pa.ArrowException, ValueError) as error:
        line = str(error).partition("\n")[0]
        raise UsageError(f"{table} cannot be read as Parquet: {line}") from error


def _check_header(table: Location, names: Sequence[str]) -> None:
    if not names:
        raise UsageError(f"{table} is empty: its first line has to name the columns")
    if len(set(names)) != len(names):
        double = next(name for name in names if list(names).count(name) > 1)
        raise UsageError(f"{table}: column {double!r} stands twice in the first line")


READERS: Final[dict[str, Callable[[Location], Iterator[Row]]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
"""By how the name of a table ends."""
