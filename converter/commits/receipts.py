"""Receipts of finished shards: a file each as workers leave them, and then a thousand in a file.

.shardmill/receipts/train-00003-of-00016.json    as its worker wrote it
.shardmill/receipts/5f1c….jsonl                  merged: a receipt a line, in any order

The launcher merges them while it follows a conversion. So each look at the folder is a short
listing, and the commit of 100,000 shards reads a hundred files. A merged file is complete before
the files of its receipts are removed. After a kill in between, a shard has two receipts, as it has
if it was written once more: then its own file counts.
"""

import contextlib
import tempfile
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import IO, Final

from converter.errors import DatasetError, OutputError, StoreError
from converter.planning.plan import Shard
from converter.storage.files import Layout, describe_errors, hash_bytes, write_file
from converter.storage.location import Location
from converter.writing.shard_writer import Receipt, parse_receipt, receipt_path

MERGED_RECEIPTS: Final = 1000
# Those of shards with many rejects are long.
MERGED_BYTES: Final = 8 << 20
_OWN, _MERGED = ".json", ".jsonl"
_FILES_AHEAD: Final = 8
_SPOOL_BYTES: Final = 16 << 20


class Receipts:
    """The receipts of a conversion by shard, as they were when it was made."""

    # In a file, because those of 100,000 shards may take any memory, and come in any order.

    def __init__(self, layout: Layout[Location], file: IO[bytes]) -> None:
        self._layout, self._file, self._lock = layout, file, threading.Lock()
        self._spans: dict[str, tuple[int, int]] = {}
        for stem, line in read_lines(layout.receipts, layout.receipts.list_sizes()):
            # Own files come first. One that cannot be read may have been merged meanwhile.
            if line and stem not in self._spans:
                self._spans[stem] = (file.tell(), len(line))
                file.write(line)

    def __len__(self) -> int:
        return len(self._spans)

    def __contains__(self, shard: Shard) -> bool:
        return _find_stem(shard.name) in self._spans

    def __getitem__(self, shard: Shard) -> Receipt:
        """Reads the receipt of a shard; raises DatasetError if there is none, or a damaged one."""
        if shard not in self:
            raise DatasetError(
                f"{shard.name} has no receipt: it was not finished; run the same command again"
            )
        begin, size = self._spans[_find_stem(shard.name)]
        with self._lock:
            self._file.seek(begin)
            data = self._file.read(size)
        return parse_receipt(data, receipt_path(self._layout, shard))


@contextlib.contextmanager
def open_receipts(layout: Layout[Location]) -> Iterator[Receipts]:
    """Reads all receipts, into a temporary file if there are many; raises OutputError if full."""
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as file:
        with describe_errors(layout.receipts):
            receipts = Receipts(layout, file)
        yield receipts


class ReceiptReader:
    """Reads the receipts of some shards as they appear, each once, and merges them."""

    def __init__(self, layout: Layout[Location], shards: Iterable[Shard]) -> None:
        self._layout = layout
        self._unread = {_find_stem(shard.name) for shard in shards}
        self._merged: set[str] = set()  # files that have been read, or written here
        self._lines: dict[str, bytes] = {}  # of own files that are not merged yet
        self._size = 0

    def read_new(self) -> Iterator[Receipt]:
        """Reads those that have appeared since the last time."""
        present = self._layout.receipts.list_names()
        own = {name for name in present if name.removesuffix(_OWN) in self._unread}
        merged = {name for name in present if name.endswith(_MERGED)} - self._merged
        self._merged |= merged
        for stem, line in read_lines(self._layout.receipts, own | merged):
            if stem not in self._unread:
                continue
            try:
                receipt = parse_receipt(line, self._layout.receipts / f"{stem}{_OWN}")
            except DatasetError:
                continue  # half written by a file system that does not rename in one step
            if _find_stem(receipt.name) != stem:
                continue  # the commit refuses it
            self._unread.remove(stem)
            if f"{stem}{_OWN}" in own:
                self._lines[stem] = line
                self._size += len(line)
                if len(self._lines) >= MERGED_RECEIPTS or self._size >= MERGED_BYTES:
                    self._merge()
            yield receipt

    def merge_new(self) -> None:
        """Merges those that have appeared since the last time, once they are enough."""
        for _ in self.read_new():
            pass

    def _merge(self) -> None:
        # Where none can be written, or none removed, each receipt keeps its own file.
        with contextlib.suppress(OutputError, StoreError, OSError):
            self._merged.add(_write_merged(self._layout, self._lines.values()))
            self._layout.receipts.remove_files(f"{stem}{_OWN}" for stem in self._lines)
        self._lines, self._size = {}, 0


def remove_receipts(layout: Layout[Location], shards: Iterable[Shard]) -> None:
    """Removes the receipts of some shards, as far as there are any."""
    folder, stems = layout.receipts, {_find_stem(shard.name) for shard in shards}
    present = folder.list_sizes() if stems else {}
    for name in sorted(name for name in present if name.endswith(_MERGED)):
        lines = [*read_lines(folder, [name])]
        kept = [line for stem, line in lines if stem not in stems]
        if len(kept) < len(lines):
            if kept:
                _write_merged(layout, kept)
            folder.remove_files([name])
    folder.remove_files(name for name in (f"{stem}{_OWN}" for stem in stems) if name in present)


def read_lines(folder: Location, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yields the receipts in these files, own ones first, each with the stem of its shard."""
    own = sorted(name for name in names if name.endswith(_OWN))
    for name, data in _read_files(folder, own):
        yield name.removesuffix(_OWN), data
    merged = sorted(name for name in names if name.endswith(_MERGED))
    for first in range(0, len(merged), _FILES_AHEAD):
        for _, data in _read_files(folder, merged[first : first + _FILES_AHEAD]):
            for line in data.splitlines():
                # {"name": "train-00003-of-00016.tfrecord", …
                shard = line.partition(b': "')[2].partition(b'"')[0]
                yield _find_stem(shard.decode("ascii", "replace")), line


def _read_files(folder: Location, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yields the content of files; that of one that cannot be read is empty."""
    done = 0
    while done < len(names):
        with contextlib.suppress(OSError):
            for data in folder.read_files(names[done:]):
                yield names[done], data
                done += 1
        if done < len(names):
            yield names[done], b""
            done += 1


def _write_merged(layout: Layout[Location], lines: Iterable[bytes]) -> str:
    data = b"".join(line + b"\n" for line in lines)
    name = f"{hash_bytes(data)[:32]}{_MERGED}"
    write_file(layout.receipts / name, data, layout.scratch)
    return name


def _find_stem(name: str) -> str:
    return PurePath(name).stem
