"""Objects in a store, named like paths.

s3://bucket/prefix/name      Amazon S3, and what speaks its language
gs://bucket/prefix/name      Google Cloud Storage
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import math
import os
import posixpath
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, cast

from converter.errors import OutputError, UsageError
from converter.storage.disk import DiskPath
from converter.storage.hashing import HashedFile
from converter.storage.listings import has_any, list_level
from converter.storage.location import Location, Reading
from converter.storage.object_files import ObjectFile, read_pieces
from converter.storage.object_locks import find_object_owner, lock_objects
from converter.storage.object_replacement import (
    find_replacement,
    finish_replacement,
    replace_objects,
)
from converter.storage.object_requests import (
    copy_objects,
    create_object,
    delete_object,
    delete_objects,
    download_object,
    find_object,
    list_objects,
    put_file,
    start_read,
    stat_object,
)
from converter.storage.owners import Owner
from converter.storage.requests import describe_missing, wait
from converter.storage.stores import Found, read_parts

SCHEMES: Final = ("s3", "gs")

_CONCURRENCY: Final = 16
_BATCH_FILES: Final = 256
_BUFFER_BYTES: Final = 1 << 16
_PIECE_BYTES: Final = 1 << 20

_ADDRESS: Final = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class ObjectPath:
    """The address of an object, or of all objects below it, as a `Location`.

    Attributes:
        scheme: the kind of store, `s3` or `gs`.
        bucket: in which it lies.
        key: its name there; empty for the bucket itself.

    >>> ObjectPath("s3", "bucket", "flowers") / "labels.txt"
    ObjectPath('s3://bucket/flowers/labels.txt')
    """

    scheme: str
    bucket: str
    key: str = ""

    def __truediv__(self, name: str, /) -> ObjectPath:
        return dataclasses.replace(self, key=f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    @property
    def is_remote(self) -> bool:
        return True

    @property
    def concurrency(self) -> int:
        return _CONCURRENCY

    @property
    def temporary(self) -> Path:
        return Path(tempfile.gettempdir())

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> ObjectPath:
        return dataclasses.replace(self, key=self.key.rpartition("/")[0])

    @property
    def prefix(self) -> str:
        """What the keys of all objects below it begin with."""
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
        here, other = dataclasses.replace(self, key=""), f"{folder}/"
        if not other.startswith(f"{here}/"):
            return str(self)
        return posixpath.relpath(f"/{self.key}", f"/{other[len(str(here)) + 1 :]}")

    def relative_to(self, folder: ObjectPath) -> str:
        """The rest of its key behind that of a folder above it.

        Raises:
            ValueError: it does not lie there.
        """
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
        # What follows a prefix may be the rest of a name: the two are compared as folders.
        return f"{place}/".startswith(f"{self}/")

    def exists(self) -> bool:
        """Whether there is an object of this name, or one below it."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return self.measure() is not None

    def is_dir(self) -> bool:
        """Whether there are objects below this name."""
        return has_any(self.scheme, self.bucket, self.prefix)

    def measure(self) -> int | None:
        return find_object(self) if self.key else None

    def read_version(self) -> tuple[int, str]:
        found = stat_object(self)
        return found.size, found.version

    def read_bytes(self) -> bytes:
        return wait(start_read(self))

    def read_range(self, offset: int, size: int) -> bytes:
        return wait(start_read(self, offset, size))

    def start_read(self, offset: int = 0, size: int | None = None) -> Reading:
        return start_read(self, offset, size)

    def read_pieces(self) -> Iterator[bytes]:
        return read_pieces(self)

    def open_read(self) -> BinaryIO:
        return cast("BinaryIO", io.BufferedReader(ObjectFile(self), _BUFFER_BYTES))

    def download(self, file: Path, on_bytes: Callable[[int], object] = bool) -> int:
        return download_object(self, file, on_bytes=on_bytes)

    @contextlib.contextmanager
    def create(self, scratch: Location, *, exclusive: bool = False) -> Iterator[HashedFile]:  # noqa: ARG002
        with tempfile.TemporaryFile(buffering=_PIECE_BYTES) as temporary:
            stream = cast("BinaryIO", temporary)
            file = HashedFile(stream)
            yield file
            file.flush(to_disk=False)
            file.compare(read_parts(stream, _PIECE_BYTES), self)
            if exclusive:
                create_object(self, b"".join(read_parts(stream, _PIECE_BYTES)))
            else:
                put_file(self, stream)

    def unlink(self, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 (as that of `Path`)
        """Deletes the object of this name."""
        if not missing_ok and not self.is_file():
            raise describe_missing(self)
        delete_object(self)

    def make_folder(self) -> None: ...

    def remove_empty(self) -> None: ...

    def sync(self) -> None: ...

    def list_names(self, prefix: str = "") -> list[str]:
        found = {
            prefix + item if isinstance(item, str) else item.key[len(self.prefix) :]
            for item in list_level(self.scheme, self.bucket, self.prefix + prefix)
        }
        return sorted(found, key=os.fsencode)

    def list_sizes(self) -> dict[str, int]:
        return {
            item.key[len(self.prefix) :]: item.size
            for item in list_level(self.scheme, self.bucket, self.prefix)
            if isinstance(item, Found)
        }

    def read_files(self, names: Iterable[str]) -> Iterator[bytes]:
        remaining = iter(names)
        while batch := list(itertools.islice(remaining, _BATCH_FILES)):
            for reading in [start_read(self / name) for name in batch]:
                yield wait(reading)

    def remove_files(self, names: Iterable[str]) -> None:
        delete_objects(self / name for name in names)

    def remove_tree(self, *, keep: Collection[str] = ()) -> None:
        paths = (path for path, _ in list_objects(self))
        delete_objects(path for path in paths if path.relative_to(self) not in keep)

    def remove_folder(self) -> None:
        self.remove_tree()

    def move_files(self, names: Iterable[str], target: Location) -> None:
        chosen = list(names)
        self.copy_files(chosen, target)
        self.remove_files(chosen)

    def copy_files(self, names: Iterable[str], target: Location) -> None:
        """Copies objects to another folder of the same kind of store."""
        other = parse_address(str(target))
        copy_objects((self / name, other / name) for name in names)

    def carry_files(self, names: Iterable[str], target: Location, scratch: Location) -> None: ...

    @contextlib.contextmanager
    def bring_local(self, names: Iterable[str]) -> Iterator[DiskPath]:
        with tempfile.TemporaryDirectory(prefix="shardmill-") as here:
            for name in names:
                if (self / name).is_file():
                    _bring(self / name, Path(here, name))
            yield DiskPath(here)

    def measure_room(self) -> float:
        return math.inf

    def replace_with_stage(self, old: Collection[str]) -> None:
        replace_objects(self, old)

    def finish_replacement(self) -> bool:
        return finish_replacement(self)

    def find_replacement(self) -> Location | None:
        return find_replacement(self)

    def check_replaceable(self) -> None: ...

    def lock(
        self,
        *,
        break_lock: bool = False,
        moves_to: Location | None = None,  # noqa: ARG002 (nothing is renamed in a store)
    ) -> contextlib.AbstractContextManager[None]:
        return lock_objects(self, break_lock=break_lock)

    def find_owner(self) -> Owner | None:
        return find_object_owner(self)


def is_address(text: str) -> bool:
    """Whether a text is the address of something, and not the path of a file here.

    >>> is_address("s3://bucket/flowers"), is_address("flowers")
    (True, False)
    """
    return _ADDRESS.fullmatch(text) is not None


def parse_address(text: str) -> ObjectPath:
    """The address of an object, or of all objects below it.

    Raises:
        UsageError: it is no address, or one of a kind of store that is not known.
    """
    match = _ADDRESS.fullmatch(text)
    scheme, rest = (match[1].lower(), match[2]) if match else ("", "")
    if scheme not in SCHEMES:
        raise UsageError(f"{scheme}:// is no address that is known: give s3://… or gs://…")
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):  # it may hold credentials, which are not shown
        raise UsageError(
            f"{scheme}:// is followed by no name of a bucket: give {scheme}://bucket/prefix, and "
            "credentials in the environment"
        )
    key = key.strip("/")
    if any(part in ("", ".", "..") for part in key.split("/") if key):
        raise UsageError(f"{text} has an empty part, or one of dots alone: leave that out")
    return ObjectPath(scheme, bucket, key)


def _bring(path: ObjectPath, here: Path) -> None:
    try:
        path.download(here)
    except FileNotFoundError:
        here.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{tempfile.gettempdir()} cannot take what has to be read of {path.parent}: "
            f"{error.strerror}: set TMPDIR to a folder with more room"
        ) from error
