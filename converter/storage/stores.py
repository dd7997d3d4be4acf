"""What an object store has to answer, one request each: nothing is retried here."""

import asyncio
import dataclasses
import importlib
import io
import os
import re
from collections.abc import AsyncIterable, Callable, Iterator, Mapping
from typing import Any, BinaryIO, Final, NamedTuple, Protocol, TypeAlias

from converter.errors import StoreError, UsageError

# Why not the files of fsspec? Their retries, caches and translations hide what a store said and how
# long it took. So they provide only the session, its connections and the credentials.
# Why not obstore (Rust)? Tried with 0.12: one odd key (a tab, or `//`) fails a whole listing, it
# hangs after a fork, no emulator proves it for GCS, and it would save only 347 lines net.

# Requests that one process has in flight.
CONNECTIONS: Final = 64
# Objects that one answer lists, at most.
PAGE_OBJECTS: Final = 1000
CHUNK_BYTES: Final = 1 << 18
CONNECT_S: Final = 10.0
_BUFFER_BYTES: Final = 1 << 20
_BUSY: Final = (408, 429)
_DENIED: Final = (401, 403)
_BUSY_CODES: Final = frozenset(
    ("ConditionalRequestConflict", "InternalError", "OperationAborted", "RequestTimeout",
     "RequestTimeTooSkewed", "SlowDown", "Throttling", "ThrottlingException")
)  # fmt: skip
_QUERY: Final = re.compile(r"\?\S*=\S*")
_EXPECTED: Final = {404: FileNotFoundError, 412: FileExistsError, 416: EOFError}

Body: TypeAlias = bytes | BinaryIO


class TransientError(Exception):
    """A request failed in a way that may succeed the next time."""


class Page(NamedTuple):
    """One answer to a listing."""

    objects: dict[str, int]  # sizes in bytes by key, in the order of keys
    tags: dict[str, str]  # by key, of those that have one; see `Store.put`
    prefixes: list[str]  # of the keys that the delimiter cuts off, in order
    token: str | None  # asks for the next page; None on the last one
    versions: Mapping[str, str] = {}  # of objects by key: another text if their content is


class Stat(NamedTuple):
    """What a store knows about an object."""

    size: int
    version: str  # changes whenever the object is written
    attempt: str | None  # the mark of the `put` that created it, if there was one


@dataclasses.dataclass(kw_only=True)
class Transfer:
    """The download of an object or a range of it, over as many requests as it takes."""

    write: Callable[[bytes], object]  # takes the bytes as they come
    place: int = 0  # offset of the next byte in the object
    stop: int | None = None  # where the range ends; None for the end of the object
    version: str | None = None  # once known: bytes of two versions are never mixed

    @property
    def range(self) -> str | None:
        if self.stop is None:
            return f"bytes={self.place}-" if self.place else None
        return f"bytes={self.place}-{self.stop - 1}"

    async def receive(self, chunks: AsyncIterable[bytes], size: int) -> None:
        """Takes the body of an answer; raises TransientError if it ends before `size` bytes."""
        # What has arrived stays: the next request asks for the rest.
        end = self.place + size
        async for chunk in chunks:
            self.write(chunk)
            self.place += len(chunk)
        if self.place < end:
            raise TransientError(f"the answer ends {end - self.place} bytes early")


class Store(Protocol):
    """One kind of store.

    A missing object is a `FileNotFoundError`, one that exists already a `FileExistsError`, a range
    behind the end an `EOFError`, a failure that may pass a `TransientError`, and all else a
    `StoreError`. `loop` runs the requests, and `gate` admits `CONNECTIONS` of them at a time.
    """

    loop: asyncio.AbstractEventLoop
    gate: asyncio.Semaphore

    async def get(self, bucket: str, key: str, transfer: Transfer) -> None: ...
    async def stat(self, bucket: str, key: str) -> Stat: ...

    async def list(
        self,
        bucket: str,
        prefix: str,
        *,
        nested: bool,
        token: str | None,
        after: str = "",
        most: int | None = None,
    ) -> Page:
        """Lists a page of the keys that begin with `prefix`, from about `after` on.

        A page has `PAGE_OBJECTS` keys at most, or `most`.
        """

    async def put(self, bucket: str, key: str, data: Body, attempt: str | None = None) -> str:
        """Writes an object; with `attempt`, only if there is none, and marks it as ours.

        Returns its tag: what a listing says of its content as long as that is the same. It may be
        empty, and the same content may get another one.
        """

    async def copy(self, bucket: str, key: str, target_bucket: str, target_key: str) -> None: ...
    async def delete(self, bucket: str, key: str) -> None: ...


_CLIENTS: Final = {"s3": "s3fs", "gs": "gcsfs"}  # which bring all that is needed


def load_package(module: str, extra: str) -> Any:
    """Imports a module that only users of object stores need, or tells them to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{extra}:// needs the package {module.partition('.')[0]}, which is not installed: "
            f"pip install {_CLIENTS[extra]}"
        ) from error


def drop_empty(arguments: Mapping[str, str | None]) -> dict[str, str]:
    """Drops the arguments of a request that are not set."""
    return {name: value for name, value in arguments.items() if value}


def list_network_errors() -> tuple[type[Exception], ...]:
    """Lists what a failing connection raises."""
    import aiohttp  # noqa: PLC0415

    return (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError, TimeoutError)


def judge_answer(status: int, code: str, message: str, bucket: str, key: str) -> Exception:
    """Turns an answer other than success into an error."""
    # XML of S3 has a code; JSON of Google has none.
    said = " ".join(part for part in (str(status or ""), code, message) if part)
    bucketless = code == "NoSuchBucket" or "bucket does not exist" in message or not key
    if status >= 500 or status in _BUSY or code in _BUSY_CODES:
        return TransientError(said)
    if status in _EXPECTED and not (status == 404 and bucketless):
        return _EXPECTED[status](said)
    if status == 404:
        return StoreError(f"there is no bucket {bucket} ({said}): check its name")
    if status in _DENIED:
        return StoreError(f"access to {bucket} is denied ({said}): check credentials and rights")
    return StoreError(f"{bucket}: the store refuses ({said}): check the address")


def judge_failure(error: Exception, bucket: str) -> Exception:
    """Turns the failure of a connection into an error."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreError(
            f"{bucket}: the store's certificate is not trusted ({shorten(error)}): name its "
            "authority's certificate in AWS_CA_BUNDLE or SSL_CERT_FILE"
        )
    return TransientError(shorten(error))


def shorten(text: object) -> str:
    """Fits a library's message on one line, without query strings, which may be signed."""
    words = _QUERY.sub("?…", " ".join(str(text).split())) or type(text).__name__
    return words if len(words) <= 200 else f"{words[:199]}…"


class SeekableFile(io.RawIOBase):
    """A read-only file of a known size; subclasses implement `readinto`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_CUR: self._place, os.SEEK_END: self._size}.get(whence, 0)
        return self._place


class _Section(SeekableFile):
    # Why not the file itself? aiohttp closes what it has sent, and a repeated request starts over.

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(measure_file(file))
        self._descriptor = file.fileno()

    def fileno(self) -> int:
        return self._descriptor

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._descriptor, [buffer], self._place)
        self._place += count
        return count


def measure_file(file: BinaryIO) -> int:
    """Returns the size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def open_body(data: Body) -> Any:
    """Opens what is sent at its beginning, without moving the place of an open file."""
    return data if isinstance(data, bytes) else io.BufferedReader(_Section(data), _BUFFER_BYTES)


def read_parts(file: BinaryIO, part_bytes: int) -> Iterator[bytes]:
    """Reads an open file in pieces, from its beginning."""
    with open_body(file) as stream:
        while part := stream.read(part_bytes):
            yield part
