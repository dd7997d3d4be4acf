"""Indexes TFRecord files from any writer, so that their records can be read at random."""

import concurrent.futures
import dataclasses
import glob
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from converter.errors import DatasetError, OutputError, RecordError, UsageError
from converter.format.indexes import format_line
from converter.format.tfrecords import HEADER_BYTES, PIECE_BYTES, is_header, scan_records
from converter.storage.files import INDEX_SUFFIX, SHARD_SUFFIX, name_index, write_file
from converter.storage.locate import expand_home, locate

# The header of gzip may hold a name and a comment before the data.
_HEAD_BYTES: Final = 4096
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS


@dataclasses.dataclass(frozen=True, slots=True)
class IndexedFile:
    """A TFRecord file with an index beside it, which was `written` now or was right already."""

    path: Path
    index: Path
    records: int
    bytes: int
    written: bool


Indexed: TypeAlias = IndexedFile | DatasetError | OutputError


def index_files(
    paths: Sequence[Path],
    *,
    payloads: bool = True,
    overwrite: bool = False,
    workers: int | None = None,
    on_file: Callable[[Path, Indexed], object] | None = None,
) -> list[Indexed]:
    """Runs `index_shard` on many files; one that fails does not stop the others.

    Reads `workers` files at once, one for each core if None, each in 1 MiB and the size of its
    index. Calls `on_file` with each file and its outcome, in the order in which they are returned.
    Raises UsageError if two files would have the same index, or `workers` is below 1.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"workers {workers} is out of range: at least 1")
    owners: dict[Path, Path] = {}
    for path in paths:
        owner = owners.setdefault(path.parent / name_index(path.name), path)
        if owner != path:
            raise UsageError(f"{owner} and {path} would have the same index: rename one of them")
    outcomes = []

    def work(path: Path) -> Indexed:
        try:
            return index_shard(path, payloads=payloads, overwrite=overwrite)
        except (DatasetError, OutputError) as error:
            return error

    # On two cores 1 GB of cached files, in records of 20 kB (2 MB), took one thread 0.52 s (0.23),
    # two 0.43 (0.17), two spawned processes 0.54 (0.55), two forked ones 0.27 (0.14). A checksum
    # keeps the lock of the interpreter, but most of the time goes into reading; and forking is not
    # safe beside other threads, such as TensorFlow's.
    with concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for path, outcome in zip(paths, pool.map(work, paths), strict=True):
            outcomes.append(outcome)
            if on_file is not None:
                on_file(path, outcome)
    return outcomes


def index_shard(path: Path, *, payloads: bool = True, overwrite: bool = False) -> IndexedFile:
    """Reads a TFRecord file from end to end, and writes its index beside it.

    The index appears whole or not at all, and an existing one that is right is left alone. Memory
    is bounded by 1 MiB and 30 bytes for each record, whatever the file says.

    Args:
        path: the file, not compressed. Its index is named by `converter.storage.files.name_index`.
        payloads: whether to compare the checksums of the payloads; those of the lengths always are.
        overwrite: whether to replace an existing index that does not fit.

    Raises RecordError if a record is damaged or cut off, DatasetError if the file cannot be read,
    is compressed, or changes meanwhile, and OutputError if the index cannot be written, or another
    is in the way.
    """
    index = path.parent / name_index(path.name)
    try:
        lines, size = _scan_file(path, payloads=payloads)
        # The size first: any file may have that name, however large.
        fits = index.exists() and index.stat().st_size == len(lines)
        written = not (fits and index.read_bytes() == lines)
        if written and not overwrite and os.path.lexists(index):
            raise OutputError(
                f"{index} exists already and does not fit {path.name}: move it away, or replace it "
                "with --overwrite (overwrite=True)"
            )
    except OSError as error:
        raise DatasetError(f"{error.filename or path} cannot be read: {error.strerror}") from error
    if written:
        write_file(locate(index), lines, locate(index.parent))
    return IndexedFile(path, index, lines.count(b"\n"), size, written)


def find_files(patterns: Iterable[str]) -> list[Path]:
    """Finds each TFRecord file that is named, those of a folder or pattern sorted by name.

    `patterns` are files, folders (the `*.tfrecord*` directly in them), and patterns of `glob`,
    where `**` means folders at any depth. Raises a `UsageError` if one of them means no file.
    """
    found: dict[Path, Path] = {}
    for pattern in map(expand_home, patterns):
        files = list(_expand(pattern))
        if not files:
            raise UsageError(_explain_nothing(pattern))
        for path in files:
            found.setdefault(path.absolute(), path)
    return list(found.values())


def refuse_compressed(file: BinaryIO, path: object) -> None:
    """Raises a `DatasetError` if a file of records is compressed."""
    file.seek(0)
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        begin = unpacker.decompress(file.read(_HEAD_BYTES), HEADER_BYTES)
    except zlib.error:
        return
    # A damaged file may happen to unpack, but then not to a record.
    if is_header(begin) or (unpacker.eof and not begin):
        raise DatasetError(
            f"{path} is compressed, and compressed TFRecords cannot be read at random: decompress "
            "it, or write it again without compression"
        ) from None


def _expand(pattern: str) -> Iterator[Path]:
    matches = [pattern] if os.path.lexists(pattern) else glob.glob(pattern, recursive=True)  # noqa: PTH207
    for match in map(Path, sorted(matches, key=os.fsencode)):
        for path in _list_folder(match) if match.is_dir() else [match]:
            if INDEX_SUFFIX not in path.name:  # also of a temporary index, which has a longer name
                yield path


def _list_folder(folder: Path) -> list[Path]:
    paths = [path for path in folder.iterdir() if SHARD_SUFFIX in path.name and not path.is_dir()]
    # Ending in .idx: the binary index that tfr-reader and others put beside a file.
    return sorted((path for path in paths if path.suffix != ".idx"), key=os.fsencode)


def _explain_nothing(pattern: str) -> str:
    path = Path(pattern)
    if path.is_dir():
        return f"{pattern} holds no file named *{SHARD_SUFFIX}*: name the files, or a pattern"
    if os.path.lexists(path):
        return f"{pattern} is an index: name the file of records that it belongs to"
    return f"{pattern} does not exist, and no file matches it as a pattern"


def _scan_file(path: Path, *, payloads: bool) -> tuple[bytes, int]:
    """The content of the index, and the size of the file."""
    if path.exists() and not path.is_file():
        raise DatasetError(f"{path} is not a file")
    lines, offset = bytearray(), 0
    with open(path, "rb", buffering=PIECE_BYTES) as file:
        file_bytes = os.fstat(file.fileno()).st_size
        try:
            for size in scan_records(file, str(path), file_bytes, payloads=payloads):
                lines += format_line(offset, size)
                offset += size
        except RecordError as error:
            if error.record == 0:
                refuse_compressed(file, path)
            raise
        if os.fstat(file.fileno()).st_size != file_bytes:
            raise DatasetError(f"{path} changed while it was read: run again when it is complete")
    return bytes(lines), file_bytes
