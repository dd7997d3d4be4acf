"""Amazon S3, and other stores with its protocol: one request each."""

import asyncio
import atexit
import contextlib
import functools
import re
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

from converter.errors import StoreError
from converter.storage import stores
from converter.storage.stores import Body, Page, Stat, Transfer

_SAID: Final = re.compile(r"<(Code|Message)>([^<]*)</")
_CLOSE_S: Final = 1.0


class S3Store:
    """The `Store` of `s3://` addresses."""

    # What one request can write or copy; more goes in parts, and appears with the last one.
    max_put_bytes = 5 << 30
    part_bytes = 256 << 20

    def __init__(self, timeout_s: float) -> None:
        s3fs = stores.load_package("s3fs", "s3")
        self._timeout_s, self._connect_s = timeout_s, min(timeout_s, stores.CONNECT_S)
        self.modeled: set[str] = set()  # buckets whose objects only botocore can get
        self._files = s3fs.S3FileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            config_kwargs={
                # `requests` repeats instead, and knows how long it has taken.
                "retries": {"mode": "standard", "total_max_attempts": 1},
                "connect_timeout": self._connect_s,
                "read_timeout": timeout_s,
                "max_pool_connections": stores.CONNECTIONS,
                "signature_version": "s3v4",
            },
        )
        self.loop: asyncio.AbstractEventLoop = self._files.loop
        self.gate = asyncio.Semaphore(stores.CONNECTIONS)

    async def get(self, bucket: str, key: str, transfer: Transfer) -> None:
        if bucket in self.modeled or not await self._get_signed(bucket, key, transfer):
            self.modeled.add(bucket)
            await self._get_modeled(bucket, key, transfer)

    async def _get_signed(self, bucket: str, key: str, transfer: Transfer) -> bool:
        """Gets an object by a signed address; False if the bucket is in another region."""
        # Why not always botocore? An answer takes it 2.7 ms of a core, and this 1.0 (measured); a
        # small image is converted in 5.
        aiohttp = stores.load_package("aiohttp", "s3")
        headers = stores.drop_empty({"Range": transfer.range, "If-Match": transfer.version})
        async with self._open(bucket, key) as client:
            where = {"Bucket": bucket, "Key": key}
            url = await client.generate_presigned_url("get_object", Params=where, ExpiresIn=900)
            address = stores.load_package("yarl", "s3").URL(url, encoded=True)
            with contextlib.suppress(aiohttp.ClientSSLError):  # botocore knows more certificates
                async with self._session.get(
                    address,
                    headers=headers,
                    allow_redirects=False,
                    proxy=find_proxy(address.scheme, address.authority),
                ) as answer:
                    # Another region redirects, or finds the signature malformed: 400.
                    if 300 <= answer.status <= 400:
                        return False
                    if answer.status > 400:
                        said = dict(_SAID.findall(await answer.text()))
                        code, message = said.get("Code", ""), said.get("Message", "")
                        raise stores.judge_answer(answer.status, code, message, bucket, key)
                    transfer.version = answer.headers["ETag"]
                    chunks = answer.content.iter_chunked(stores.CHUNK_BYTES)
                    await transfer.receive(chunks, answer.content_length or 0)
                    return True
        return False

    # Not opened with the store: a session belongs to the loop that it is opened in.
    @functools.cached_property
    def _session(self) -> Any:
        aiohttp = stores.load_package("aiohttp", "s3")
        session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._connect_s, sock_read=self._timeout_s
            ),
            connector=aiohttp.TCPConnector(limit=stores.CONNECTIONS),
            auto_decompress=False,  # an object may be stored with Content-Encoding: gzip
        )
        atexit.register(_close, session, self.loop)
        return session

    async def _get_modeled(self, bucket: str, key: str, transfer: Transfer) -> None:
        wanted = stores.drop_empty({"Range": transfer.range, "IfMatch": transfer.version})
        async with self._open(bucket, key) as client:
            answer = await client.get_object(Bucket=bucket, Key=key, **wanted)
            transfer.version = answer["ETag"]
            async with answer["Body"] as body:
                await transfer.receive(
                    body.iter_chunks(stores.CHUNK_BYTES), answer["ContentLength"]
                )

    async def stat(self, bucket: str, key: str) -> Stat:
        async with self._open(bucket, key) as client:
            answer = await client.head_object(Bucket=bucket, Key=key)
        return Stat(answer["ContentLength"], answer["ETag"], answer["Metadata"].get("attempt"))

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
        wanted = {"ContinuationToken": token, "Delimiter": None if nested else "/"}
        if token is None:
            wanted["StartAfter"] = after
        async with self._open(bucket) as client:
            answer = await client.list_objects_v2(
                Bucket=bucket,
                Prefix=prefix,
                MaxKeys=most or stores.PAGE_OBJECTS,
                **stores.drop_empty(wanted),
            )
        objects = answer.get("Contents", ())
        return Page(
            {item["Key"]: item["Size"] for item in objects},
            {item["Key"]: _read_tag(item) for item in objects},
            [item["Prefix"] for item in answer.get("CommonPrefixes", ())],
            answer.get("NextContinuationToken"),
            {item["Key"]: item.get("ETag", "") for item in objects},
        )

    async def put(self, bucket: str, key: str, data: Body, attempt: str | None = None) -> str:
        if not isinstance(data, bytes) and stores.measure_file(data) > self.max_put_bytes:
            async with self._open_upload(bucket, key) as (client, where, tags):
                for number, part in enumerate(stores.read_parts(data, self.part_bytes), start=1):
                    answer = await client.upload_part(**where, PartNumber=number, Body=part)
                    tags.append(answer["ETag"])
            return str(tags[-1])  # that of the whole object
        condition: dict[str, Any] = {}
        if attempt is not None:
            condition = {"IfNoneMatch": "*", "Metadata": {"attempt": attempt}}
        async with self._open(bucket, key) as client:
            answer = await client.put_object(
                Bucket=bucket, Key=key, Body=stores.open_body(data), **condition
            )
        return _read_tag(answer)

    async def copy(self, bucket: str, key: str, target_bucket: str, target_key: str) -> None:
        source = {"Bucket": bucket, "Key": key}
        size = (await self.stat(bucket, key)).size
        if size <= self.max_put_bytes:
            async with self._open(target_bucket, key) as client:
                await client.copy_object(CopySource=source, Bucket=target_bucket, Key=target_key)
            return
        async with self._open_upload(target_bucket, target_key) as (client, where, tags):
            for number, begin in enumerate(range(0, size, self.part_bytes), start=1):
                end = min(begin + self.part_bytes, size) - 1
                answer = await client.upload_part_copy(
                    **where,
                    PartNumber=number,
                    CopySource=source,
                    CopySourceRange=f"bytes={begin}-{end}",
                )
                tags.append(answer["CopyPartResult"]["ETag"])

    @contextlib.asynccontextmanager
    async def _open_upload(self, bucket: str, key: str) -> AsyncIterator[tuple[Any, Any, Any]]:
        """Yields a client, the arguments that name an upload in parts, and a list for their tags.

        At the end that of the whole object is the last of them.
        """
        async with self._open(bucket, key) as client:
            where = {"Bucket": bucket, "Key": key}
            upload = await client.create_multipart_upload(**where)
            where["UploadId"] = upload["UploadId"]
            tags: list[str] = []
            try:
                yield client, where, tags
                parts = [{"ETag": tag, "PartNumber": n} for n, tag in enumerate(tags, start=1)]
                answer = await client.complete_multipart_upload(
                    **where, MultipartUpload={"Parts": parts}
                )
                tags.append(_read_tag(answer))
            except BaseException:
                with contextlib.suppress(Exception):
                    await client.abort_multipart_upload(**where)
                raise

    async def delete(self, bucket: str, key: str) -> None:
        async with self._open(bucket, key) as client:
            await client.delete_object(Bucket=bucket, Key=key)

    @contextlib.asynccontextmanager
    async def _open(self, bucket: str, key: str = "") -> AsyncIterator[Any]:
        with _translate(bucket, key):
            await self._files.set_session()
            yield await self._files.get_s3(bucket)


def _read_tag(answer: Mapping[str, Any]) -> str:
    # The MD5 of the object, or something else that changes with it: of parts, or if the store
    # encrypts it with a key of its customer. A weak one may not change.
    tag = str(answer.get("ETag", ""))
    return "" if tag.startswith("W/") else tag.strip('"')


@functools.cache
def find_proxy(scheme: str, host: str) -> str | None:
    """Returns the proxy for a host and its port, as the environment names it at the first call."""
    # Why not aiohttp's `trust_env`? At each request it looks for the proxy, and for a netrc in
    # another thread: two fifths of what a request costs (measured).
    proxy = urllib.request.getproxies().get(scheme)
    if proxy is None or urllib.request.proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _close(session: Any, loop: asyncio.AbstractEventLoop) -> None:
    # At the end of the process: aiohttp would warn of connections that are left open.
    if loop.is_running():
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(session.close(), loop).result(_CLOSE_S)


@contextlib.contextmanager
def _translate(bucket: str, key: str) -> Iterator[None]:
    from botocore import exceptions  # noqa: PLC0415

    network_errors = (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.ResponseStreamingError,
        *stores.list_network_errors(),
    )
    try:
        yield
    except exceptions.ClientError as error:
        said, metadata = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        status = int(metadata.get("HTTPStatusCode", 0))
        code, message = str(said.get("Code", "")), str(said.get("Message", ""))
        raise stores.judge_answer(status, code, message, bucket, key) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise StoreError(
            f"{bucket}: no credentials for S3 are found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true for a public bucket"
        ) from error
    except network_errors as error:
        raise stores.judge_failure(error, bucket) from error
    except exceptions.BotoCoreError as error:
        raise StoreError(f"{bucket}: {stores.shorten(error)}") from error
