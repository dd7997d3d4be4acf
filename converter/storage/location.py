"""What a file or a folder can do, wherever it lies: the protocol of disks and object stores.

`locate` chooses the class once. All other code asks the location itself, and never what kind it is.
A location is a value: making one touches no disk and makes no request.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

    from converter.storage.disk import DiskPath
    from converter.storage.files import HashedFile
    from converter.storage.locks import Owner

Item = TypeVar("Item")
Found = TypeVar("Found")


class Location(Protocol):
    """A file or folder, or the place for one.

    Methods that read or write raise `OSError` if a disk fails, and `StoreError` if an object store
    refuses or does not answer. A file that does not exist is a `FileNotFoundError` in both.
    """

    @property
    def scheme(self) -> str: ...  # `file` for this machine's disks, `s3` or `gs` for a store
    @property
    def is_remote(self) -> bool: ...  # whether each access is a request that takes milliseconds
    @property
    def temporary(self) -> Path: ...  # on this machine, for temporary files of what is written here

    # Names: pure, as in `pathlib`.
    @property
    def name(self) -> str: ...
    @property
    def suffix(self) -> str: ...
    @property
    def parent(self) -> Location: ...
    def __truediv__(self, name: str, /) -> Self: ...
    def with_name(self, name: str) -> Self: ...
    def __hash__(self) -> int: ...

    def child(self, path: str) -> Location:
        """The file of a relative path in the spelling of `converter.names`."""

    def join(self, path: str) -> Location:
        """Where a relative path, maybe with `..`, leads; raises UsageError if out of a bucket."""

    def relate(self, folder: Location) -> str:
        """The path that `folder.join` turns into this location, also after both have moved."""

    def resolve(self) -> Location:
        """The same place with links followed."""

    def as_output(self) -> Location:
        """The place that may be replaced: for a link, the folder that it leads to.

        Raises a UsageError for a whole bucket, and for a link that leads to itself.
        """

    def contains(self, place: Location) -> bool:
        """Whether a place is this folder, or lies in it; by name alone."""

    # Files.
    def exists(self) -> bool: ...
    def is_file(self) -> bool: ...
    def is_dir(self) -> bool: ...

    def measure(self) -> int | None:
        """The size in bytes; None if there is no file of this name."""

    def read_version(self) -> tuple[int, str]:
        """The size, and a text that changes when the file is written."""

    def read_bytes(self) -> bytes: ...

    def read_range(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer only where the file ends."""

    def start_read(self, offset: int = 0, size: int | None = None) -> Callable[[], bytes]:
        """Returns what gives a range, or all that follows; a store begins to send it at once."""

    def read_pieces(self) -> Iterator[bytes]:
        """The file from beginning to end, in pieces of 1 MiB, or of 4 from a store."""

    def open_read(self) -> BinaryIO:
        """Opens the file for reading; a store sends ahead what comes next."""

    def download(self, file: Path, on_bytes: Callable[[int], object] = ...) -> int:
        """Appends to `file` what it does not have yet of this one; returns the size of `file`.

        Its content is taken for the beginning, so compare a checksum afterwards. It is not flushed
        to the disk. Calls `on_bytes` with the number of bytes that were added, as they arrive.
        """

    def create(
        self, scratch: Location, *, exclusive: bool = False
    ) -> AbstractContextManager[HashedFile]:
        """Opens a new file, which appears whole when the block ends, or not at all.

        The temporary file is in `scratch`, a folder on the same file system; a store needs none.
        `exclusive` refuses to replace a file of this name, even one that appears meanwhile. Raises
        OutputError if it cannot be written, or reads back differently from what was written.
        """

    def write_new(self, data: bytes) -> None:
        """Writes a file of a name that is free, and makes the folders above it.

        For files that count only once `flush_all` is done: it flushes and compares nothing. Raises
        what `create` raises.
        """

    def flush_all(self) -> None:
        """Flushes all files of all processes to the disks; a store has nothing to flush."""

    def unlink(self, missing_ok: bool = ...) -> None: ...  # noqa: FBT001 (as in `Path`)

    # Folders. A store has none: a folder exists as long as something is in it.
    def make_folder(self) -> None:
        """Makes the folder, and those above it, if it does not exist."""

    def remove_empty(self) -> None:
        """Removes the folder if nothing is in it."""

    def sync(self) -> None:
        """Flushes a file, or the names in a folder, to the disk."""

    def list_names(self, prefix: str = "") -> list[str]:
        """The names in the folder that begin with `prefix`, by bytes; [] without a folder."""

    def list_sizes(self, prefix: str = "") -> dict[str, int]:
        """The files of `list_names`, with their sizes in bytes; {} without a folder."""

    def list_states(self, prefix: str = "") -> dict[str, tuple[int, str]]:
        """The files of `list_sizes`, with their sizes and tags; see `HashedFile.tag`."""

    def read_files(self, names: Iterable[str]) -> Iterator[bytes]:
        """The content of small files in the folder, in order; a store fetches many at a time."""

    def remove_files(self, names: Iterable[str]) -> None:
        """Removes files from the folder, as far as they exist."""

    def remove_tree(self, *, keep: Collection[str] = ()) -> None:
        """Removes everything in the folder except the names in `keep`."""

    def remove_folder(self) -> None:
        """Removes the folder, if it exists, with everything in it."""

    def move_files(self, names: Iterable[str], target: Location) -> None:
        """Moves files into a folder of the same kind, and replaces those that it has."""

    def carry_files(self, names: Iterable[str], target: Location, scratch: Location) -> None:
        """Lets files appear in `target` too; in a store they stay, and a replacement keeps them."""

    def bring_local(self, names: Iterable[str]) -> AbstractContextManager[DiskPath]:
        """A folder on this machine with those of these files that exist.

        Raises an OutputError if the folder that `TMPDIR` names has no room for them.
        """

    def measure_room(self) -> float:
        """How many bytes are free where the folder is, or will be; infinite in a store."""

    def check_replaceable(self) -> None:
        """Raises a UsageError for a mount point, and a folder that has one in it."""

    def replace_with_stage(self, old: Collection[str]) -> None:
        """Puts the complete data set in `Layout.stage` in the place of the one in this folder.

        A store removes the `old` files, by name, and keeps all others. On a disk all of them are in
        the stage afterwards. Raises OutputError if the folder is in use as a mount point, or
        another manifest appeared.
        """

    def finish_replacement(self) -> bool:
        """Resumes an interrupted replacement in a store, under its lock; False if there was none.

        Raises DatasetError if its marker is damaged, and OutputError if another manifest appeared.
        """

    def find_replacement(self) -> Location | None:
        """Where a data set may lie that was being moved to or from this folder when a run died."""

    # One writer at a time.
    def lock(
        self, *, break_lock: bool = False, moves_to: Location | None = None
    ) -> AbstractContextManager[None]:
        """Keeps every other writer out of a data set's folder; makes it if it does not exist.

        `break_lock` treats a lock held by another machine as stale; the folder, and the lock with
        it, may be at `moves_to` by the end of the block. Raises LockedError if someone else is
        writing to it, or may be, and OutputError if the lock cannot be written.
        """

    def find_owner(self) -> Owner | None:
        """Who is writing to the data set in this folder, or may be; None if it is free."""


_REQUESTS: Final = 16
_STARTED: Final = 4  # items for each thread, so that one that takes long stops no other at once

AnyPath: TypeAlias = str | os.PathLike[str] | Location


def map_in_threads(
    work: Callable[[Item], Found],
    items: Iterable[Item],
    *places: Location | None,
    on_item: Callable[[Item], object] | None = None,
) -> Iterator[tuple[Item, Found]]:
    """Yields each item, in order, with the result of work on it in these places.

    Works on one item a core at a time, on more if any place is in a store; calls `on_item` with
    each that is done.
    """
    cores = os.cpu_count() or 1
    threads = max(_REQUESTS if place.is_remote else cores for place in places if place is not None)
    remaining, running = iter(items), deque[tuple[Item, Future[Found]]]()
    # Threads are enough to use all cores: hashing, reading and decoding release the interpreter.
    with ThreadPoolExecutor(threads) as pool:

        def start(count: int) -> None:
            items = itertools.islice(remaining, count)
            running.extend((item, pool.submit(work, item)) for item in items)

        # Not `pool.map`: it would hold a future, and maybe an outcome, of each of 100,000 shards.
        start(_STARTED * threads)
        try:
            while running:
                item, future = running.popleft()
                yield item, future.result()
                start(1)
                if on_item is not None:
                    on_item(item)
        finally:
            for _, future in running:
                future.cancel()
