"""Google Cloud Storage: one request each."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

from converter.errors import StoreError
from converter.storage import stores
from converter.storage.stores import Body, Page, Stat, Transfer


class GcsStore:
    """The `Store` of `gs://` addresses."""

    def __init__(self, timeout_s: float) -> None:
        # Why not `gcsfs.GCSFileSystem`? It asks over gRPC of what kind each bucket is: 60 seconds
        # for each where that gets no answer.
        core = stores.load_package("gcsfs.core", "gs")
        aiohttp = stores.load_package("aiohttp", "gs")
        emulated = os.environ.get("STORAGE_EMULATOR_HOST") not in (None, "", "default")
        self._files = core.GCSFileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            token="anon" if emulated else None,
        )
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=min(timeout_s, stores.CONNECT_S), sock_read=timeout_s
        )
        self.loop: asyncio.AbstractEventLoop = self._files.loop
        self.gate = asyncio.Semaphore(stores.CONNECTIONS)

    async def get(self, bucket: str, key: str, transfer: Transfer) -> None:
        headers = stores.drop_empty({"Range": transfer.range})
        query = {"alt": "media", "generation": transfer.version}
        async with self._ask("GET", bucket, _quote(key), query, headers=headers) as answer:
            transfer.version = answer.headers.get("X-Goog-Generation")
            chunks = answer.content.iter_chunked(stores.CHUNK_BYTES)
            await transfer.receive(chunks, answer.content_length or 0)

    async def stat(self, bucket: str, key: str) -> Stat:
        async with self._ask("GET", bucket, _quote(key)) as answer:
            item = await answer.json()
        attempt = item.get("metadata", {}).get("attempt")
        return Stat(int(item["size"]), str(item["generation"]), attempt)

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
        query = {
            "prefix": prefix,
            "maxResults": str(most or stores.PAGE_OBJECTS),
            "fields": "items(name,size,md5Hash,generation),prefixes,nextPageToken",
            "delimiter": None if nested else "/",
            "pageToken": token,
            "startOffset": after,
        }
        async with self._ask("GET", bucket, "", query) as answer:
            page = await answer.json()
        items = page.get("items", ())
        return Page(
            {item["name"]: int(item["size"]) for item in items},
            {item["name"]: _read_tag(item) for item in items},
            list(page.get("prefixes", ())),
            page.get("nextPageToken") or None,
            {item["name"]: str(item.get("generation", "")) for item in items},
        )

    async def put(self, bucket: str, key: str, data: Body, attempt: str | None = None) -> str:
        if isinstance(data, bytes):
            return await self._put_bytes(bucket, key, data, attempt)
        query = {"uploadType": "media", "name": key}
        headers = {"Content-Type": "application/octet-stream"}
        async with self._ask(
            "POST", bucket, "", query, headers=headers, data=stores.open_body(data)
        ) as answer:
            item = await answer.json()
        # A media upload has no metadata, with which the store would get the hash to compare.
        sent = _hash_md5(stores.read_parts(data, stores.CHUNK_BYTES))
        if (_read_tag(item) or sent) != sent:
            raise stores.TransientError("the store received other bytes than were sent")
        return _read_tag(item)

    async def _put_bytes(self, bucket: str, key: str, data: bytes, attempt: str | None) -> str:
        # The store refuses bytes with another hash.
        described: dict[str, Any] = {"name": key, "md5Hash": _hash_md5([data])}
        query = {"uploadType": "multipart"}
        if attempt is not None:
            described["metadata"] = {"attempt": attempt}
            query["ifGenerationMatch"] = "0"  # no object has this one
        mark = f"shardmill-{uuid.uuid4().hex}"
        head = (
            f"--{mark}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps(described)}\r\n"
            f"--{mark}\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + data + f"\r\n--{mark}--\r\n".encode()
        headers = {"Content-Type": f"multipart/related; boundary={mark}"}
        async with self._ask("POST", bucket, "", query, headers=headers, data=body) as answer:
            return _read_tag(await answer.json())

    async def copy(self, bucket: str, key: str, target_bucket: str, target_key: str) -> None:
        place = f"{_quote(key)}/rewriteTo/b/{_quote(target_bucket)}/o/{_quote(target_key)}"
        query: dict[str, str] = {}
        # Large objects take several requests.
        while True:
            async with self._ask("POST", bucket, place, query) as answer:
                item = await answer.json()
            if item.get("done", True):
                return
            query = {"rewriteToken": item["rewriteToken"]}

    async def delete(self, bucket: str, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            async with self._ask("DELETE", bucket, _quote(key)):
                pass

    @contextlib.asynccontextmanager
    async def _ask(
        self,
        method: str,
        bucket: str,
        place: str = "",
        query: Mapping[str, str | None] | None = None,
        *,
        headers: dict[str, str] | None = None,
        data: Any = None,
    ) -> AsyncIterator[Any]:
        """Makes a request about a bucket, or a quoted place in it; with `data`, an upload."""
        # Why not `GCSFileSystem._call`? It repeats requests itself, and reads answers whole.
        base = f"{self._files._location}/{'' if data is None else 'upload/'}storage/v1"  # noqa: SLF001
        url = f"{base}/b/{_quote(bucket)}/o" + (f"/{place}" if place else "")
        if query:
            url += f"?{urllib.parse.urlencode(stores.drop_empty(query))}"
        with _translate(bucket):
            yarl = stores.load_package("yarl", "gs")
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
                    raise stores.judge_answer(answer.status, "", _find_message(text), bucket, place)
                yield answer


@contextlib.contextmanager
def _translate(bucket: str) -> Iterator[None]:
    from google.auth.exceptions import GoogleAuthError, TransportError  # noqa: PLC0415

    try:
        yield
    except TransportError as error:
        raise stores.judge_failure(error, bucket) from error
    except GoogleAuthError as error:
        raise StoreError(
            f"{bucket}: no usable credentials for Google Cloud Storage ({stores.shorten(error)}): "
            "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS"
        ) from error
    except stores.list_network_errors() as error:
        raise stores.judge_failure(error, bucket) from error


def _find_message(text: str) -> str:
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        return stores.shorten(json.loads(text)["error"]["message"])
    return stores.shorten(text)


def _read_tag(item: Mapping[str, Any]) -> str:
    return str(item.get("md5Hash") or "")


def _hash_md5(parts: Iterable[bytes]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for part in parts:
        digest.update(part)
    return base64.b64encode(digest.digest()).decode()


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="")
