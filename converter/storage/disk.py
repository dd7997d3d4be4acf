"""Files and folders on the disks of this machine."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PosixPath
from typing import BinaryIO, ClassVar, Final

from converter.errors import OutputError, UsageError
from converter.names import to_system
from converter.storage.files import HashedFile, Layout, describe_errors, link_file
from converter.storage.location import Location
from converter.storage.locks import Owner, find_disk_owner, lock_disk

_PIECE_BYTES: Final = 1 << 20
# From linux/fcntl.h and linux/fs.h, for `renameat2`, which Python does not have.
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_NO_EXCHANGE: Final = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


class DiskPath(PosixPath):
    """A `pathlib.Path` that is a `Location`."""

    __slots__ = ()

    scheme: ClassVar[str] = "file"
    is_remote: ClassVar[bool] = False

    @property
    def temporary(self) -> Path:
        return self

    def child(self, path: str) -> DiskPath:
        return self / to_system(path)

    def join(self, path: str) -> DiskPath:
        return DiskPath(os.path.normpath(self / path))

    def relate(self, folder: Location) -> str:
        return str(self) if folder.is_remote else os.path.relpath(self, str(folder))

    def resolve(self, strict: bool = False) -> DiskPath:  # noqa: FBT001, FBT002 (as in pathlib)
        # Why not pathlib's? Before Python 3.13 it raises RuntimeError for a loop of links.
        return DiskPath(os.path.realpath(self, strict=strict))

    def as_output(self) -> DiskPath:
        try:
            self.stat()
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UsageError(f"{self} is a loop of links: choose a folder") from None
        return self.resolve() if self.is_symlink() or ".." in self.parts else self

    def contains(self, place: Location) -> bool:
        return not place.is_remote and Path(str(place)).is_relative_to(self)

    def measure(self) -> int | None:
        return self.stat().st_size if self.is_file() else None

    def read_version(self) -> tuple[int, str]:
        status = self.stat()
        return status.st_size, str(status.st_mtime_ns)

    def read_range(self, offset: int, size: int) -> bytes:
        return self.start_read(offset, size)()

    def start_read(self, offset: int = 0, size: int | None = None) -> Callable[[], bytes]:
        def read() -> bytes:
            # Buffered, because Linux ends a single read at 2 GiB.
            with open(self, "rb") as file:
                file.seek(offset)
                return file.read(-1 if size is None else size)

        return read

    def read_pieces(self) -> Iterator[bytes]:
        with open(self, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    def open_read(self) -> BinaryIO:
        return open(self, "rb")

    def download(self, file: Path, on_bytes: Callable[[int], object] = lambda _: None) -> int:
        with open(file, "ab") as target, open(self, "rb") as source:
            source.seek(target.tell())
            while piece := source.read(_PIECE_BYTES):
                target.write(piece)
                on_bytes(len(piece))
            return target.tell()

    @contextlib.contextmanager
    def create(self, scratch: Location, *, exclusive: bool = False) -> Iterator[HashedFile]:
        temporary = DiskPath(str(scratch), f"{self.name}.{uuid.uuid4().hex}")
        with describe_errors(self):
            try:
                with open(temporary, "xb", buffering=_PIECE_BYTES) as stream:
                    file = HashedFile(stream)
                    yield file
                    file.flush()
                file.compare(temporary.read_pieces(), self)
                publish(temporary, self, exclusive=exclusive)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)

    def write_new(self, data: bytes) -> None:
        with describe_errors(self):
            try:
                file = open(self, "xb")  # noqa: SIM115 (closed below)
            except FileNotFoundError:
                self.parent.make_folder()
                file = open(self, "xb")  # noqa: SIM115
            with file:
                file.write(data)

    def flush_all(self) -> None:
        os.sync()  # `fsync` for each of a million files would take hours

    def make_folder(self) -> None:
        self.mkdir(parents=True, exist_ok=True)

    def remove_empty(self) -> None:
        with contextlib.suppress(OSError):
            self.rmdir()

    def sync(self) -> None:
        # A folder has names of its own to flush: without this a power loss can undo a rename.
        descriptor = os.open(self, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def list_names(self, prefix: str = "") -> list[str]:
        names = [path.name for path in self.iterdir()] if self.exists() else []
        return sorted((name for name in names if name.startswith(prefix)), key=os.fsencode)

    def list_sizes(self, prefix: str = "") -> dict[str, int]:
        try:
            with os.scandir(self) as items:
                files = (item for item in items if item.name.startswith(prefix) and item.is_file())
                return {item.name: item.stat().st_size for item in files}
        except FileNotFoundError:
            return {}

    def list_states(self, prefix: str = "") -> dict[str, tuple[int, str]]:
        return {name: (size, "") for name, size in self.list_sizes(prefix).items()}

    def read_files(self, names: Iterable[str]) -> Iterator[bytes]:
        return ((self / name).read_bytes() for name in names)

    def remove_files(self, names: Iterable[str]) -> None:
        for name in names:
            (self / name).unlink(missing_ok=True)

    def remove_tree(self, *, keep: Collection[str] = ()) -> None:
        for path in self.iterdir():
            if path.name not in keep:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def remove_folder(self) -> None:
        if self.exists():
            shutil.rmtree(self)

    def move_files(self, names: Iterable[str], target: Location) -> None:
        for name in names:
            (self / name).replace(str(target / name))
        target.sync()

    def carry_files(self, names: Iterable[str], target: Location, scratch: Location) -> None:
        for name in names:
            source, path = self / name, DiskPath(str(target / name))
            if path.exists() and path.samefile(source):
                continue
            path.unlink(missing_ok=True)
            # A second name, or a copy where the file system has no links.
            if not link_file(source, path):
                with path.create(scratch) as file:
                    for piece in source.read_pieces():
                        file.write(piece)
        target.sync()

    @contextlib.contextmanager
    def bring_local(self, names: Iterable[str]) -> Iterator[DiskPath]:  # noqa: ARG002 (all are local)
        yield self

    def measure_room(self) -> float:
        existing = next(path for path in (self, *self.parents) if path.exists())
        return shutil.disk_usage(existing).free

    def check_replaceable(self) -> None:
        if os.path.ismount(self):
            raise UsageError(
                f"{self} is a mount point, which cannot make way for a new folder: convert to a "
                "folder inside it"
            )
        if mounted := next(filter(os.path.ismount, self.iterdir()), None):
            raise UsageError(
                f"{mounted} is a mount point and does not belong to the data set, but it cannot "
                "move to a new folder: unmount it first"
            )

    def replace_with_stage(self, old: Collection[str]) -> None:  # noqa: ARG002 (all of it goes)
        stage, retired = Layout(self).stage, Layout(self).retired
        stage.chmod(stat.S_IMODE(self.stat().st_mode))
        try:
            if not exchange_names(stage, self):
                # Two renames, with no data set in between: NFS and macOS cannot exchange names.
                self.rename(retired)
                stage.rename(self)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise OutputError(
                f"{self} is in use as a mount point and cannot be replaced: the new data set is "
                f"complete in {stage}"
            ) from error
        self.parent.sync()

    def finish_replacement(self) -> bool:
        return False  # names show where it was interrupted

    def find_replacement(self) -> Location | None:
        return Layout(self).retired

    def lock(
        self, *, break_lock: bool = False, moves_to: Location | None = None
    ) -> contextlib.AbstractContextManager[None]:
        return lock_disk(self, break_lock=break_lock, moves_to=DiskPath(str(moves_to or self)))

    def find_owner(self) -> Owner | None:
        return find_disk_owner(self)


def publish(temporary: DiskPath, path: DiskPath, *, exclusive: bool) -> None:
    """Gives a complete file its final name; `exclusive` raises FileExistsError if it is taken."""
    # A rename replaces what has the name; a link fails instead, in the same step.
    if not (exclusive and link_file(temporary, path)):
        temporary.replace(path)
    path.parent.sync()


def exchange_names(one: Path, other: Path) -> bool:
    """Exchanges the names of two folders in one step; False if the system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    names = os.fsencode(one), os.fsencode(other)
    if not library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))
