"""Google Cloud Storage: one request each."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, BinaryIO

from converter.errors import StoreError
from converter.storage.stores import (
    CHUNK_BYTES,
    CONNECT_S,
    PAGE_OBJECTS,
    Body,
    Found,
    Page,
    Stat,
    Transfer,
    TransientError,
    check_length,
    judge_answer,
    judge_failure,
    list_network_errors,
    load_package,
    open_body,
    read_parts,
    shorten,
)


class GcsStore:
    """Google Cloud Storage."""

    name = "Google Cloud Storage"

    def __init__(self, timeout_s: float) -> None:
        # The file system that `gcsfs` names asks every bucket over gRPC what kind it is: on what
        # does not answer that, 60 seconds each.
        core = load_package("gcsfs.core", "gs")
        aiohttp = load_package("aiohttp", "gs")
        emulated = os.environ.get("STORAGE_EMULATOR_HOST") not in (None, "", "default")
        self._files = core.GCSFileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            token="anon" if emulated else None,
        )
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=min(timeout_s, CONNECT_S), sock_read=timeout_s
        )
        self.loop: asyncio.AbstractEventLoop = self._files.loop

    async def get(self, bucket: str, key: str, transfer: Transfer) -> None:
        headers = {"Range": transfer.range} if transfer.range else {}
        query = {"alt": "media"}
        if transfer.version:
            query["generation"] = transfer.version
        async with self._ask("GET", bucket, key, query, headers=headers) as answer:
            transfer.version = answer.headers.get("X-Goog-Generation")
            end = transfer.place + (answer.content_length or 0)
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                transfer.take(chunk)
        check_length(transfer, end)

    async def stat(self, bucket: str, key: str) -> Stat:
        async with self._ask("GET", bucket, key) as answer:
            item = await answer.json()
        attempt = item.get("metadata", {}).get("attempt")
        return Stat(int(item["size"]), str(item["generation"]), attempt)

    async def list(self, bucket: str, prefix: str, *, nested: bool, token: str | None) -> Page:
        query = {
            "prefix": prefix,
            "maxResults": str(PAGE_OBJECTS),
            "fields": "items(name,size),prefixes,nextPageToken",
        }
        if not nested:
            query["delimiter"] = "/"
        if token is not None:
            query["pageToken"] = token
        async with self._ask("GET", bucket, "", query) as answer:
            page = await answer.json()
        return Page(
            [Found(item["name"], int(item["size"])) for item in page.get("items", ())],
            list(page.get("prefixes", ())),
            page.get("nextPageToken") or None,
        )

    async def put(self, bucket: str, key: str, data: Body, attempt: str | None) -> None:
        if isinstance(data, bytes):
            await self._put_described(bucket, key, data, attempt)
        else:
            await self._put_file(bucket, key, data)

    async def _put_file(self, bucket: str, key: str, data: BinaryIO) -> None:
        query = {"uploadType": "media", "name": key}
        headers = {"Content-Type": "application/octet-stream"}
        async with self._ask(
            "POST", bucket, "", query, headers=headers, data=open_body(data), upload=True
        ) as answer:
            item = await answer.json()
        _check_md5(data, item.get("md5Hash"))

    async def copy(self, bucket: str, key: str, target_bucket: str, target_key: str) -> None:
        place = f"{_quote(key)}/rewriteTo/b/{_quote(target_bucket)}/o/{_quote(target_key)}"
        query: dict[str, str] = {}
        while True:
            async with self._ask("POST", bucket, place, query, quoted=True) as answer:
                item = await answer.json()
            if item.get("done", True):
                return
            query = {"rewriteToken": item["rewriteToken"]}

    async def delete(self, bucket: str, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            async with self._ask("DELETE", bucket, key):
                pass

    async def _put_described(self, bucket: str, key: str, data: bytes, attempt: str | None) -> None:
        described: dict[str, Any] = {"name": key, "md5Hash": _hash_md5(data)}
        query = {"uploadType": "multipart"}
        if attempt is not None:
            described["metadata"] = {"attempt": attempt}
            query["ifGenerationMatch"] = "0"
        mark = f"shardmill-{uuid.uuid4().hex}"
        body = (
            f"--{mark}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps(described)}\r\n"
            f"--{mark}\r\nContent-Type: application/octet-stream\r\n\r\n"

).encode() + data + f"\r\n--{mark}--\r\n".encode()  # fmt: skip
        headers = {"Content-Type": f"multipart/related; boundary={mark}"}
        async with self._ask("POST", bucket, "", query, headers=headers, data=body, upload=True):
            pass

    @contextlib.asynccontextmanager
    async def _ask(
        self,
        method: str,
        bucket: str,
        key: str,
        query: dict[str, str] | None = None,
        *,
        headers: dict[str, str] | None = None,
        data: Any = None,
        upload: bool = False,
        quoted: bool = False,
    ) -> AsyncIterator[Any]:
        place = f"storage/v1/b/{_quote(bucket)}/o"
        if key:
            place += f"/{key if quoted else _quote(key)}"
        base = f"{self._files._location}/{'upload/' if upload else ''}{place}"  # noqa: SLF001
        url = f"{base}?{urllib.parse.urlencode(query)}" if query else base
        with _translate(bucket):
            yarl = load_package("yarl", "gs")
            session = await self._files._set_session()  # noqa: SLF001
            async with session.request(
                method,
                yarl.URL(url, encoded=True),
                headers=self._files._get_headers(headers),  # noqa: SLF001
                data=data,
                timeout=self._timeout,
            ) as answer:
                if answer.status >= 400:
                    text = (await answer.content.read(4096)).decode("utf-8", "replace")
                    raise judge_answer(answer.status, "", _find_message(text), bucket, key)
                yield answer


@contextlib.contextmanager
def _translate(bucket: str) -> Iterator[None]:
    from google.auth.exceptions import GoogleAuthError, TransportError  # noqa: PLC0415

    try:
        yield
    except TransportError as error:
        raise judge_failure(error, bucket) from error
    except GoogleAuthError as error:
        raise StoreError(
            f"{bucket}: no usable credentials for Google Cloud Storage ({shorten(error)}): run "
            "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS"
        ) from error
    except list_network_errors() as error:
        raise judge_failure(error, bucket) from error


def _find_message(text: str) -> str:
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        return shorten(json.loads(text)["error"]["message"])
    return shorten(text)


def _check_md5(data: Body, stored: str | None) -> None:
    if stored is not None and stored != _hash_md5(data):
        raise TransientError("the store received other bytes than were sent")


def _hash_md5(data: Body) -> str:
    digest = hashlib.md5(data if isinstance(data, bytes) else b"", usedforsecurity=False)
    if not isinstance(data, bytes):
        for part in read_parts(data, CHUNK_BYTES):
            digest.update(part)
    return base64.b64encode(digest.digest()).decode()


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="")
