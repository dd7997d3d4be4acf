"""Objects in a store, named like paths: the `Location` of addresses."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import math
import os
import posixpath
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, ClassVar, Final, cast

from converter.errors import DatasetError, OutputError, UsageError
from converter.storage import object_requests
from converter.storage.disk import DiskPath
from converter.storage.files import MANIFEST, HashedFile, Layout, describe_errors, hash_file
from converter.storage.location import Location
from converter.storage.locks import Owner, lock_objects, parse_owner
from converter.storage.object_requests import PIECE_BYTES, ObjectFile
from converter.storage.requests import wait
from converter.storage.stores import read_parts

# Small files that are fetched, and held in memory, at the same time.
_BATCH_FILES: Final = 256
_BUFFER_BYTES: Final = 1 << 16
_COPY_BYTES: Final = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class ObjectPath:
    """The address of an object, or of all objects below it, as a `Location`.

    >>> ObjectPath("s3", "bucket", "flowers") / "labels.txt"
    ObjectPath('s3://bucket/flowers/labels.txt')
    """

    is_remote: ClassVar[bool] = True

    scheme: str  # `s3` or `gs`
    bucket: str
    key: str = ""  # the object's name in the bucket; empty for the bucket itself

    def __truediv__(self, name: str, /) -> ObjectPath:
        return dataclasses.replace(self, key=f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    @property
    def temporary(self) -> Path:
        return Path(tempfile.gettempdir())

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> ObjectPath:
        return dataclasses.replace(self, key=self.key.rpartition("/")[0])

    @property
    def prefix(self) -> str:
        """How the keys of all objects below it begin."""
        return f"{self.key}/" if self.key else ""

    def with_name(self, name: str) -> ObjectPath:
        return self.parent / name

    def child(self, path: str) -> ObjectPath:
        return self / path

    def join(self, path: str) -> ObjectPath:
        key = posixpath.normpath(posixpath.join(self.key, path))
        if key.split("/")[0] == "..":
            raise UsageError(f"{path!r} leads from {self} out of the bucket: give an address")
        return dataclasses.replace(self, key="" if key == "." else key)

    def relate(self, folder: Location) -> str:
        # A relative path does not lead into another bucket.
        here, other = dataclasses.replace(self, key=""), f"{folder}/"
        if not other.startswith(f"{here}/"):
            return str(self)
        return posixpath.relpath(f"/{self.key}", f"/{other[len(str(here)) + 1 :]}")

    def relative_to(self, folder: ObjectPath) -> str:
        """Returns the rest of its key after that of a folder above it; else raises ValueError."""
        if not (folder.contains(self) and self.key != folder.key):
            raise ValueError(f"{self} does not lie below {folder}")
        return self.key[len(folder.prefix) :]

    def resolve(self) -> ObjectPath:
        return self

    def as_output(self) -> ObjectPath:
        if not self.key:
            raise UsageError(
                f"{self} is a whole bucket: give a prefix in it, such as {self}/dataset"
            )
        return self

    def contains(self, place: Location) -> bool:
        # Compared as folders, because what follows a prefix may be the rest of a name.
        return f"{place}/".startswith(f"{self}/")

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return self.measure() is not None

    def is_dir(self) -> bool:
        return object_requests.has_objects(self)

    def measure(self) -> int | None:
        if not self.key:
            return None
        try:
            return object_requests.stat_object(self).size
        except FileNotFoundError:
            return None

    def read_version(self) -> tuple[int, str]:
        found = object_requests.stat_object(self)
        return found.size, found.version

    def read_bytes(self) -> bytes:
        return wait(object_requests.start_read(self))

    def read_range(self, offset: int, size: int) -> bytes:
        return wait(object_requests.start_read(self, offset, size))

    def start_read(self, offset: int = 0, size: int | None = None) -> Callable[[], bytes]:
        return object_requests.start_read(self, offset, size).result

    def read_pieces(self) -> Iterator[bytes]:
        # Why not `open_read`? It asks for the size first, and holds up to 36 MiB instead of 8.
        following = object_requests.start_read(self, 0, PIECE_BYTES)
        try:
            for place in itertools.count(PIECE_BYTES, PIECE_BYTES):
                piece = following.result()
                if len(piece) == PIECE_BYTES:
                    following = object_requests.start_read(self, place, PIECE_BYTES)
                yield piece
                if len(piece) < PIECE_BYTES:
                    return
        finally:
            following.cancel()

    def open_read(self) -> BinaryIO:
        return cast("BinaryIO", io.BufferedReader(ObjectFile(self), _BUFFER_BYTES))

    def download(self, file: Path, on_bytes: Callable[[int], object] = lambda _: None) -> int:
        return object_requests.download_object(self, file, on_bytes)

    @contextlib.contextmanager
    def create(self, scratch: Location, *, exclusive: bool = False) -> Iterator[HashedFile]:  # noqa: ARG002
        # Why not send it as it is written? When the block fails, s3fs stores the beginning.
        with describe_errors(self), tempfile.TemporaryFile(buffering=_COPY_BYTES) as temporary:
            stream = cast("BinaryIO", temporary)
            file = HashedFile(stream)
            yield file
            temporary.flush()  # not to the disk: a crash leaves nothing of it anyway
            file.compare(read_parts(stream, _COPY_BYTES), self)
            if exclusive:  # as bytes: a file may be sent in a way that takes no condition
                object_requests.create_object(self, b"".join(read_parts(stream, _COPY_BYTES)))
            else:
                file.tag = object_requests.put_object(self, stream)

    def write_new(self, data: bytes) -> None:
        with describe_errors(self):
            object_requests.put_object(self, data)

    def unlink(self, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 (as in `Path`)
        if not missing_ok:  # a store deletes without saying whether there was an object
            object_requests.stat_object(self)
        object_requests.delete_objects([self])

    def make_folder(self) -> None: ...
    def remove_empty(self) -> None: ...
    def sync(self) -> None: ...
    def flush_all(self) -> None: ...
    def check_replaceable(self) -> None: ...
    def carry_files(self, names: Iterable[str], target: Location, scratch: Location) -> None: ...

    def list_names(self, prefix: str = "") -> list[str]:
        names = {name for name, _ in object_requests.list_level(self, prefix)}
        return sorted(names, key=os.fsencode)

    def list_sizes(self, prefix: str = "") -> dict[str, int]:
        return {name: size for name, (size, _) in self.list_states(prefix).items()}

    def list_states(self, prefix: str = "") -> dict[str, tuple[int, str]]:
        found = object_requests.list_tagged(self, prefix)
        return {name: (size, tag) for name, size, tag in found if size is not None}

    def read_files(self, names: Iterable[str]) -> Iterator[bytes]:
        remaining = iter(names)
        while batch := list(itertools.islice(remaining, _BATCH_FILES)):
            for reading in [object_requests.start_read(self / name) for name in batch]:
                yield wait(reading)

    def remove_files(self, names: Iterable[str]) -> None:
        object_requests.delete_objects(self / name for name in names)

    def remove_tree(self, *, keep: Collection[str] = ()) -> None:
        paths = (path for path, _ in object_requests.list_objects(self))
        object_requests.delete_objects(path for path in paths if path.relative_to(self) not in keep)

    def remove_folder(self) -> None:
        self.remove_tree()

    def move_files(self, names: Iterable[str], target: Location) -> None:
        chosen = list(names)
        self.copy_files(chosen, cast("ObjectPath", target))
        self.remove_files(chosen)

    def copy_files(self, names: Iterable[str], target: ObjectPath) -> None:
        """Copies objects to another folder in the same kind of store."""
        object_requests.copy_objects((self / name, target / name) for name in names)

    @contextlib.contextmanager
    def bring_local(self, names: Iterable[str]) -> Iterator[DiskPath]:
        with tempfile.TemporaryDirectory(prefix="shardmill-") as here:
            for name in names:
                file = Path(here, name)
                try:
                    (self / name).download(file)
                except FileNotFoundError:
                    file.unlink(missing_ok=True)
                except OSError as error:
                    raise OutputError(
                        f"{tempfile.gettempdir()} cannot hold what has to be read from {self}: "
                        f"{error.strerror}: set TMPDIR to a folder with more room"
                    ) from error
            yield DiskPath(here)

    def measure_room(self) -> float:
        return math.inf

    # A store cannot rename. The new data set is made below `Layout.stage`, like any other; shards
    # that an update keeps stay where they are. When it is complete, a marker is written and the old
    # manifest deleted, and with it the old data set. The store copies the new objects, and the new
    # manifest comes last. In between there is no data set, but never half of one. After a kill:
    #
    #     no marker                             nothing has happened to this folder yet
    #     a marker, a manifest in the stage     objects are being copied, again if necessary
    #     a marker, none in the stage           the rest of the stage is being removed

    def replace_with_stage(self, old: Collection[str]) -> None:
        mark = {"old": sorted(old), "manifest": hash_file(self / MANIFEST)}
        object_requests.put_object(Layout(self).replacing, json.dumps(mark).encode("ascii"))
        self.finish_replacement()

    def finish_replacement(self) -> bool:
        marker, stage = Layout(self).replacing, Layout(self).stage
        try:
            mark = json.loads(marker.read_bytes())
            old, replaced = mark["old"], mark["manifest"]
        except FileNotFoundError:
            return False
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{marker}: cannot be read: {error}") from error
        here, new = self / MANIFEST, stage / MANIFEST
        found = hash_file(here) if here.is_file() else None
        # Another manifest than the replaced one is ours, and only the stage is left to remove; or
        # someone broke the lock, and theirs stays.
        if new.is_file() and found in (None, replaced):
            self._copy_stage(stage, old)
        stage.remove_tree()
        marker.unlink(missing_ok=True)
        return True

    def _copy_stage(self, stage: ObjectPath, old: Collection[str]) -> None:
        manifest = (stage / MANIFEST).read_bytes()
        self.remove_files([MANIFEST])
        names = stage.list_sizes().keys() - {MANIFEST}
        stage.copy_files(names, self)
        self.remove_files({*old} - names - {MANIFEST})
        here = self / MANIFEST
        try:
            object_requests.create_object(here, manifest)
        except FileExistsError:
            raise OutputError(f"{here} exists again: someone else wrote it, and it stays") from None
        stage.remove_files([MANIFEST])

    def find_replacement(self) -> Location | None:
        return Layout(self).stage if Layout(self).replacing.is_file() else None

    def lock(
        self,
        *,
        break_lock: bool = False,
        moves_to: Location | None = None,  # noqa: ARG002 (nothing is renamed in a store)
    ) -> contextlib.AbstractContextManager[None]:
        return lock_objects(self, break_lock=break_lock)

    def find_owner(self) -> Owner | None:
        try:
            owner = parse_owner(Layout(self).lock.read_bytes())
        except FileNotFoundError:
            return None
        return None if owner.is_gone(unheld=False) else owner
