"""What a file or a folder can do, wherever it lies: the protocol of disks and object stores.

`locate` chooses the class once. All code behind it asks the location itself, and never what kind it
is. A location is a value: making one touches no disk and makes no request.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias

from converter.storage.hashing import HashedFile
from converter.storage.owners import Owner

if TYPE_CHECKING:
    from converter.storage.disk import DiskPath


class Reading(Protocol):
    """Bytes on their way, such as a `concurrent.futures.Future` of them."""

    def result(self) -> bytes: ...
    def cancel(self) -> bool: ...


class Location(Protocol):
    """A file or folder, or the place for one.

    Methods that read or write raise `OSError` where a disk fails, and `StoreError` where an object
    store does not answer or refuses. A file that does not exist is a `FileNotFoundError` in both.

    Attributes:
        scheme: `file` for this machine's disks, `s3` or `gs` for a store.
        is_remote: whether each access is a request that takes milliseconds.
        concurrency: how many files to read at the same time.
        temporary: a folder of this machine for temporary files that belong to what is written here.
    """

    @property
    def scheme(self) -> str: ...
    @property
    def is_remote(self) -> bool: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def temporary(self) -> Path: ...

    # Names: pure, as of `pathlib`.
    @property
    def name(self) -> str: ...
    @property
    def stem(self) -> str: ...
    @property
    def suffix(self) -> str: ...
    @property
    def parent(self) -> Location: ...
    def __truediv__(self, name: str, /) -> Location: ...
    def with_name(self, name: str) -> Location: ...
    def __hash__(self) -> int: ...

    def child(self, path: str) -> Location:
        """The file of a relative path in the spelling of `converter.names`."""

    def join(self, path: str) -> Location:
        """Where a relative path with `..` in it leads to from this folder.

        Raises:
            UsageError: it leads out of a bucket.
        """

    def relate(self, folder: Location) -> str:
        """The path that `join` of `folder` turns into this location, also after both moved."""

    def resolve(self) -> Location:
        """The same place with links followed."""

    def as_output(self) -> Location:
        """The place that may be replaced: of a link, the folder that it leads to.

        Raises:
            UsageError: it is a whole bucket, or a link that leads to itself.
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
        """The size, and what changes when the file is written."""

    def read_bytes(self) -> bytes: ...

    def read_range(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer only where the file ends."""

    def start_read(self, offset: int = 0, size: int | None = None) -> Reading:
        """Begins to read a range, or all that follows; from a disk, only once it is asked for."""

    def read_pieces(self) -> Iterator[bytes]:
        """The file from beginning to end, in pieces of 1 MiB, or of 4 from a store."""

    def open_read(self) -> BinaryIO:
        """Opens the file; of a store, what comes next is on its way."""

    def download(self, file: Path, on_bytes: Callable[[int], object] = ...) -> int:
        """Appends to `file` what it does not have yet of this one; returns the size of `file`.

        Args:
            file: on this machine; what is in it is taken for the beginning. It is not flushed.
            on_bytes: called with the number of bytes that came.
        """

    def create(
        self, scratch: Location, *, exclusive: bool = False
    ) -> AbstractContextManager[HashedFile]:
        """Opens a new file, which appears whole when the block ends, or not at all.

        Args:
            scratch: a folder beside it for the temporary file; a store needs none.
            exclusive: raise `FileExistsError` where there is a file of this name by then.

        Raises:
            OutputError: it cannot be written, or reads back differently from what was written.
        """

    def unlink(self, missing_ok: bool = ...) -> None:  # noqa: FBT001 (as of `Path`)
        """Removes the file."""

    # Folders. A store has none: a folder is there as long as something is in it.
    def make_folder(self) -> None:
        """Makes the folder, with those above it, if there is none."""

    def remove_empty(self) -> None:
        """Removes the folder if nothing is in it."""

    def sync(self) -> None:
        """Flushes the names in the folder to the disk."""

    def list_names(self, prefix: str = "") -> list[str]:
        """What is in the folder and begins with `prefix`, ordered by bytes; [] without a folder."""

    def list_sizes(self) -> dict[str, int]:
        """The files in the folder, with their sizes in bytes; {} without a folder."""

    def read_files(self, names: Iterable[str]) -> Iterator[bytes]:
        """The content of small files in the folder, in order; many requests at the same time."""

    def remove_files(self, names: Iterable[str]) -> None:
        """Removes files from the folder, as far as they exist."""

    def remove_tree(self, *, keep: Collection[str] = ()) -> None:
        """Removes all that is in the folder but names in `keep`."""

    def remove_folder(self) -> None:
        """Removes the folder, if there is one, with all that is in it."""

    def move_files(self, names: Iterable[str], target: Location) -> None:
        """Moves files into a folder of the same kind, over what is there."""

    def carry_files(self, names: Iterable[str], target: Location, scratch: Location) -> None:
        """Has files appear in `target` too; in a store they stay, and `replace_with` keeps them."""

    def bring_local(self, names: Iterable[str]) -> AbstractContextManager[DiskPath]:
        """A folder of this machine with those of these files that exist.

        Raises:
            OutputError: the folder that `TMPDIR` names has no room for them.
        """

    def measure_room(self) -> float:
        """How many bytes are free where the folder is, or will be; infinite in a store."""

    def check_replaceable(self) -> None:
        """Refuses a folder that cannot give way to another.

        Raises:
            UsageError: it is a mount point, or has one in it.
        """

    def replace_with_stage(self, old: Collection[str]) -> None:
        """Puts the complete data set in `Layout.stage` in the place of the one in this folder.

        Args:
            old: the names of files that go. In a store all others stay; on a disk they are in the
                stage afterwards.

        Raises:
            OutputError: the folder is in use as a mount point, or another manifest appeared.
        """

    def finish_replacement(self) -> bool:
        """Goes on with a replacement in a store that was interrupted; whether there was one."""

    def find_replacement(self) -> Location | None:
        """Where a data set may lie that was on its way from or to this folder when a run died."""

    # One writer at a time.
    def lock(
        self, *, break_lock: bool = False, moves_to: Location | None = None
    ) -> AbstractContextManager[None]:
        """Keeps every other writer out of a data set's folder; makes it if there is none.

        Args:
            break_lock: take the lock of an owner on another machine that may still run.
            moves_to: where the folder, and the lock with it, may be by the end of the block.

        Raises:
            LockedError: someone else is writing there, or may be.
            OutputError: the lock cannot be written.
        """

    def find_owner(self) -> Owner | None:
        """Who is writing to the data set in this folder, or may be; None if it is free."""


AnyPath: TypeAlias = str | os.PathLike[str] | Location
"""How a location is given."""
