"""What object stores are asked, one request each: nothing is tried twice here.

fsspec's file systems give what is theirs, the session with its connections and the credentials of
the environment; the requests are made below them, because what they retry, cache and translate by
themselves hides what a store said, and how long it took.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final, NamedTuple, Protocol, TypeAlias

from converter.errors import StoreError, UsageError

CONNECTIONS: Final = 64
"""Requests that one process has in flight."""

PAGE_OBJECTS: Final = 1000
"""Objects that one answer lists, at most."""

_BUFFER_BYTES: Final = 1 << 20
CHUNK_BYTES: Final = 1 << 18
CONNECT_S: Final = 10.0
_BUSY: Final = (408, 429)
_DENIED: Final = (401, 403)
_BUSY_CODES: Final = frozenset(
    ("ConditionalRequestConflict", "InternalError", "OperationAborted", "RequestTimeout",
     "RequestTimeTooSkewed", "SlowDown", "Throttling", "ThrottlingException")
)  # fmt: skip
_QUERY: Final = re.compile(r"\?\S*=\S*")
_EXPECTED: Final = {404: FileNotFoundError, 412: FileExistsError, 416: EOFError}


Body: TypeAlias = bytes | BinaryIO
"""What is sent: bytes, or a file that is open."""


class TransientError(Exception):
    """A request failed as it may not fail the next time."""


class Found(NamedTuple):
    """An object of a listing.

    Attributes:
        key: its name in the bucket.
        size: in bytes.
    """

    key: str
    size: int


class Page(NamedTuple):
    """One answer to a listing.

    Attributes:
        objects: in the order of their keys.
        prefixes: of the keys that a delimiter cuts off, in order.
        token: asks for what comes after; None for nothing.
    """

    objects: list[Found]
    prefixes: list[str]
    token: str | None


class Stat(NamedTuple):
    """What a store tells about an object.

    Attributes:
        size: in bytes.
        version: changes whenever the object is written.
        attempt: by whose request it was written, if that was told.
    """

    size: int
    version: str
    attempt: str | None


@dataclasses.dataclass(kw_only=True)
class Transfer:
    """Bytes of an object on their way, over as many requests as it takes.

    Attributes:
        write: takes them as they come.
        place: of the next byte in the object.
        stop: where the range ends; None for where the object does.
        version: of the object, once it is known: one object is not made of two versions.
    """

    write: Callable[[bytes], object]
    place: int = 0
    stop: int | None = None
    version: str | None = None

    @property
    def range(self) -> str | None:
        if self.stop is None:
            return f"bytes={self.place}-" if self.place else None
        return f"bytes={self.place}-{self.stop - 1}"

    def take(self, chunk: bytes) -> None:
        self.write(chunk)
        self.place += len(chunk)


class Store(Protocol):
    """One kind of store.

    What is not there is a `FileNotFoundError`, what is there already a `FileExistsError`, what
    may go well the next time a `TransientError`, and the rest a `StoreError`.
    """

    name: str
    loop: asyncio.AbstractEventLoop

    async def get(self, bucket: str, key: str, transfer: Transfer) -> None: ...
    async def stat(self, bucket: str, key: str) -> Stat: ...
    async def list(self, bucket: str, prefix: str, *, nested: bool, token: str | None) -> Page: ...
    async def put(self, bucket: str, key: str, data: Body, attempt: str | None) -> None: ...
    async def copy(self, bucket: str, key: str, target_bucket: str, target_key: str) -> None: ...
    async def delete(self, bucket: str, key: str) -> None: ...


def load_package(module: str, extra: str) -> Any:
    """A module that only whoever gives an address has to have.

    Raises:
        UsageError: it is not installed.
    """
    import importlib  # noqa: PLC0415

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{extra}:// needs the package {module.partition('.')[0]}, which is not installed: "
            f'pip install "shardmill[{extra}]"'
        ) from error


def list_network_errors() -> tuple[type[Exception], ...]:
    """What a connection that fails raises."""
    import aiohttp  # noqa: PLC0415

    return (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError, TimeoutError)


def judge_answer(status: int, code: str, message: str, bucket: str, key: str) -> Exception:
    """The error that an answer other than success is."""
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
    """The error that a connection's failure is."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreError(
            f"{bucket}: the store's certificate is not trusted ({shorten(error)}): name the "
            "authority's with AWS_CA_BUNDLE or SSL_CERT_FILE"
        )
    return TransientError(shorten(error))


def shorten(text: object) -> str:
    """What a library says on one line, without the queries of addresses, which may be signed."""
    words = _QUERY.sub("?…", " ".join(str(text).split())) or type(text).__name__
    return words if len(words) <= 200 else f"{words[:199]}…"


def check_length(transfer: Transfer, end: int) -> None:
    """Makes sure that an answer did not end early.

    Raises:
        TransientError: it did.
    """
    if transfer.place < end:
        raise TransientError(f"the answer ends {end - transfer.place} bytes early")


class Section(io.RawIOBase):
    """A file that is open elsewhere, read from its beginning; that one's place does not move."""

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = file.fileno()
        self._size = measure_file(file)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_CUR: self._place, os.SEEK_END: self._size}.get(whence, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._descriptor, [buffer], self._place)
        self._place += count
        return count


def measure_file(file: BinaryIO) -> int:
    """The size of an open file, in bytes."""
    return os.fstat(file.fileno()).st_size


def open_body(data: Body) -> Any:
    """What is sent, from its beginning: a request that is made again begins anew."""
    return data if isinstance(data, bytes) else io.BufferedReader(Section(data), _BUFFER_BYTES)


def read_parts(file: BinaryIO, part_bytes: int) -> Iterator[bytes]:
    """A file in pieces, from its beginning."""
    with open_body(file) as stream:
        while part := stream.read(part_bytes):
            yield part
