"""The files of a data set: where each lies, and how it appears whole or not at all.

OUT/{split}-{i:05d}-of-{n:05d}.tfrecord   and .tfindex: a shard and its index
OUT/manifest.json                         last to appear: the data set is complete
OUT/run.jsonl, report.html                beside it, for people: no part of the data set
OUT/.shardmill/                           plan, receipts, temporary files and a lock until then
OUT/.shardmill/planning/                  what the steps of a planning leave for each other
.OUT.shardmill-new/                       beside it: replaces OUT once it is complete
.OUT.shardmill-old/                       beside it: was replaced and is being removed
.OUT.shardmill-reports-…/                 beside it: what workers elsewhere report on a check

In an object store the same names follow the prefix of OUT.

A file is built under a unique temporary name, flushed to the disk, read back and compared, and only
then renamed; then its folder is flushed too. So a final name always means a complete file, even
after a power loss, and two attempts at the same file cannot mix. An object is built in a temporary
file of this machine without a name, which cannot stay behind, and sent in one request.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Generic, TypeVar

import google_crc32c

from converter.errors import OutputError, UsageError
from converter.sizes import format_bytes
from converter.storage.location import Location

_L = TypeVar("_L", bound=Location)

SHARD_SUFFIX: Final = ".tfrecord"
INDEX_SUFFIX: Final = ".tfindex"
MANIFEST: Final = "manifest.json"
LABELS: Final = "labels.txt"
REJECTS: Final = "rejects.jsonl"
NOTES: Final = "notes.jsonl"
WORK_FOLDER: Final = ".shardmill"
RUN_LOG: Final = "run.jsonl"
REPORT: Final = "report.html"
COMPANIONS: Final = (RUN_LOG, REPORT)
"""Files about a data set that lie in its folder and are no part of it: they hold times."""

_SHARD_FILE: Final = re.compile(r"[a-z]+-\d{5}-of-\d{5}\.(tfrecord|tfindex)")
_SIZE: Final = re.compile(r"\d+x\d+")
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class Layout(Generic[_L]):
    """The paths of one data set, whose folder is `out`."""

    def __init__(self, out: _L) -> None:
        self.out = out
        self.manifest = out / MANIFEST
        self.work = out / WORK_FOLDER
        self.plan = self.work / "plan.json"
        self.entries = self.work / "entries.jsonl"
        self.left_out = self.work / "left_out.jsonl"
        self.notes = self.work / NOTES
        self.receipts = self.work / "receipts"
        self.costs = self.work / "costs"
        self.lock = self.work / "lock"
        self.replacing = self.work / "replacing"
        self.repair = self.work / "repair"
        self.planning = self.work / "planning"
        self.scratch = self.work / "tmp"

    # Not set above, because `with_name` fails for /, which has no name.
    @property
    def stage(self) -> _L:
        return self.out.with_name(f".{self.out.name}.shardmill-new")

    @property
    def retired(self) -> _L:
        return self.out.with_name(f".{self.out.name}.shardmill-old")

    @property
    def reports(self) -> str:
        """How the name of each folder for reports beside it begins."""
        return f".{self.out.name}.shardmill-reports-"

    def make_work_folders(self) -> None:
        """Makes the output and the folders in which it is prepared."""
        for folder in (self.receipts, self.costs, self.scratch):
            folder.make_folder()


def name_size(height: int, width: int) -> str:
    """Names the folder of a size, if there are several: `224x320`."""
    return f"{height}x{width}"


def find_sizes(out: Location, names: Iterable[str] | None = None) -> list[str]:
    """The names of the folders in `out` that hold a data set of one size, in order."""
    listed = out.list_names() if names is None else names
    sizes = (name for name in listed if _SIZE.fullmatch(name))
    return [name for name in sizes if Layout(out / name).manifest.is_file()]


def name_shard(split: str, index: int, count: int) -> str:
    """Names the file of a shard: `train-00003-of-00016.tfrecord`."""
    return f"{split}-{index:05d}-of-{count:05d}{SHARD_SUFFIX}"


def is_shard_file(name: str) -> bool:
    """Tells whether a name looks like that of a shard or its index."""
    return bool(_SHARD_FILE.fullmatch(name))


def name_index(shard: str) -> str:
    """Names the index file of a shard.

    >>> name_index("train-00000-of-00016.tfrecord")
    'train-00000-of-00016.tfindex'
    >>> name_index("mnist-train.tfrecord-00000-of-00001")
    'mnist-train.tfrecord-00000-of-00001.tfindex'
    """
    return shard.removesuffix(SHARD_SUFFIX) + INDEX_SUFFIX


class HashedFile:
    """A file that is being written, with the SHA-256 and the size of what was written.

    What is read back is compared by its CRC-32C, which takes a twentieth of the time: it has to
    find what a disk does, not what a person does.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._crc = self.size = 0
        # What a store that has the file says of its content, until that changes; else empty.
        self.tag = ""

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._crc = google_crc32c.extend(self._crc, data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def flush(self) -> None:
        """Flushes what was written to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def compare(self, pieces: Iterable[bytes], path: object) -> None:
        """Raises OutputError if what can be read back differs from what was written."""
        crc = size = 0
        for piece in pieces:
            crc, size = google_crc32c.extend(crc, piece), size + len(piece)
        if (crc, size) != (self._crc, self.size):
            raise OutputError(
                f"{path} reads back differently from what was written: check the disk"
            )


def write_file(path: Location, data: bytes, scratch: Location, *, exclusive: bool = False) -> str:
    """Writes a small file in one go, as `Location.create` does; returns its SHA-256."""
    with path.create(scratch, exclusive=exclusive) as file:
        file.write(data)
    return file.sha256


def write_named(path: Location, data: bytes) -> None:
    """Writes a small file of no data set, which a person has named; a link is written through.

    Raises a `UsageError` if there is no folder for it, or something else than a file in its place,
    and an `OutputError` if it cannot be written.
    """
    place = path.as_output()
    if not place.is_remote:
        if not place.parent.is_dir():
            raise UsageError(f"there is no folder {place.parent}: make it first")
        if place.is_dir():
            raise UsageError(f"{place} is a folder: give a file, such as one in it")
        if place.exists() and not place.is_file():
            raise UsageError(f"{place} is a device or a pipe: give a file")
    try:
        write_file(place, data, place.parent)
    except OutputError as error:
        if isinstance(cause := error.__cause__, OSError):  # without what it says of a conversion
            raise OutputError(f"{place} cannot be written: {cause.strerror}") from cause
        raise


def hash_bytes(data: bytes) -> str:
    """Returns the SHA-256 of some bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Location) -> str:
    """Returns the SHA-256 of a file in hexadecimal; holds one or two pieces in memory."""
    return _hash_pieces(path.read_pieces())


def _hash_pieces(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def describe_errors(path: Location) -> Iterator[None]:
    """Turns what goes wrong with a file, or its temporary file, into an OutputError."""
    try:
        yield
    except FileExistsError as error:
        if not path.is_remote and path.is_dir():
            taken = IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            raise describe_error(taken, path) from error
        raise OutputError(f"{path} exists already: someone else finished this data set") from None
    except OSError as error:
        raise describe_error(error, path) from error


def describe_error(error: OSError, path: Location) -> OutputError:
    """Says what went wrong with a file that could not be written, and the way out."""
    free = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        folder = path.temporary if path.is_remote else path.parent
        with contextlib.suppress(OSError):
            free = f" ({format_bytes(shutil.disk_usage(str(folder)).free)} free)"
        if path.is_remote:
            free += f" in {folder}, where it is built: set TMPDIR"
    # A renaming has two names. What stands in its way is the second, not the temporary file.
    filename = error.filename2 or error.filename or path
    move = "move it away and " if error.errno == errno.EISDIR else ""
    return OutputError(
        f"{filename} cannot be written or read: {error.strerror}{free}; finished shards are kept, "
        f"{move}run the same command again to go on"
    )


def link_file(file: Path, path: Path) -> bool:
    """Gives a file one more name, or raises FileExistsError; False if there are no links here."""
    try:
        os.link(file, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Two callers at the same instant may both find the name free.
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        return False
    return True
