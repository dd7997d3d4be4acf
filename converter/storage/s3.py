"""Amazon S3, and what speaks its language: one request each."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import re
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, BinaryIO, Final

from converter.errors import StoreError
from converter.storage.stores import (
    CHUNK_BYTES,
    CONNECT_S,
    CONNECTIONS,
    PAGE_OBJECTS,
    Body,
    Found,
    Page,
    Stat,
    Transfer,
    check_length,
    judge_answer,
    judge_failure,
    list_network_errors,
    load_package,
    measure_file,
    open_body,
    read_parts,
    shorten,
)

_SAID: Final = re.compile(r"<(Code|Message)>([^<]*)</")
_CLOSE_S: Final = 1.0
_PART_BYTES: Final = 256 << 20


class S3Store:
    """Amazon S3, and what speaks its language."""

    name = "S3"
    max_put_bytes = 5 << 30
    """What one request can write or copy; more goes in parts, and appears with the last one."""

    def __init__(self, timeout_s: float) -> None:
        s3fs = load_package("s3fs", "s3")
        self._timeout_s, self._connect_s = timeout_s, min(timeout_s, CONNECT_S)
        self._session: Any = None
        self._modeled: set[str] = set()
        """Buckets whose objects botocore has to get."""
        self._files = s3fs.S3FileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            config_kwargs={
                "retries": {"mode": "standard", "total_max_attempts": 1},
                "connect_timeout": self._connect_s,
                "read_timeout": timeout_s,
                "max_pool_connections": CONNECTIONS,
                "signature_version": "s3v4",
            },
        )
        self.loop: asyncio.AbstractEventLoop = self._files.loop

    async def get(self, bucket: str, key: str, transfer: Transfer) -> None:
        if bucket in self._modeled or not await self._get_plainly(bucket, key, transfer):
            self._modeled.add(bucket)
            await self._get_modeled(bucket, key, transfer)

    async def _get_plainly(self, bucket: str, key: str, transfer: Transfer) -> bool:
        """Gets an object by an address that is signed, and nothing else.

        botocore takes 2.7 ms of a core for an answer, this 1.0 (measured); a small image is
        converted in 5.

        Returns:
            whether that is possible: not where the bucket lies in another region.
        """
        aiohttp = load_package("aiohttp", "s3")
        wanted = {"Range": transfer.range, "If-Match": transfer.version}
        headers = {name: value for name, value in wanted.items() if value}
        with _translate(bucket, key):
            client = await self._open(bucket)
            where = {"Bucket": bucket, "Key": key}
            url = await client.generate_presigned_url("get_object", Params=where, ExpiresIn=900)
            address = load_package("yarl", "s3").URL(url, encoded=True)
            with contextlib.suppress(aiohttp.ClientSSLError):  # botocore knows more certificates
                session = self._find_session()
                async with session.get(
                    address,
                    headers=headers,
                    allow_redirects=False,
                    proxy=find_proxy(address.scheme, address.authority),
                ) as answer:
                    if 300 <= answer.status <= 400:
                        return False
                    if answer.status > 400:
                        raise _judge_plain(answer.status, await answer.text(), bucket, key)
                    transfer.version = answer.headers["ETag"]
                    end = transfer.place + (answer.content_length or 0)
                    async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                        transfer.take(chunk)
                check_length(transfer, end)
                return True
        return False

    def _find_session(self) -> Any:
        if self._session is None:
            aiohttp = load_package("aiohttp", "s3")
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._connect_s, sock_read=self._timeout_s
                ),
                connector=aiohttp.TCPConnector(limit=CONNECTIONS),
                auto_decompress=False,
            )
            atexit.register(_close, self._session, self.loop)
        return self._session

    async def _get_modeled(self, bucket: str, key: str, transfer: Transfer) -> None:
        wanted = {"Range": transfer.range, "IfMatch": transfer.version}
        with _translate(bucket, key):
            client = await self._open(bucket)
            answer = await client.get_object(
                Bucket=bucket, Key=key, **{name: value for name, value in wanted.items() if value}
            )
            transfer.version = answer["ETag"]
            async with answer["Body"] as body:
                end = transfer.place + answer["ContentLength"]
                async for chunk in body.iter_chunks(CHUNK_BYTES):
                    transfer.take(chunk)
        check_length(transfer, end)

    async def stat(self, bucket: str, key: str) -> Stat:
        with _translate(bucket, key):
            client = await self._open(bucket)
            answer = await client.head_object(Bucket=bucket, Key=key)
        return Stat(answer["ContentLength"], answer["ETag"], answer["Metadata"].get("attempt"))

    async def list(self, bucket: str, prefix: str, *, nested: bool, token: str | None) -> Page:
        wanted = {"ContinuationToken": token, "Delimiter": None if nested else "/"}
        with _translate(bucket, ""):
            client = await self._open(bucket)
            answer = await client.list_objects_v2(
                Bucket=bucket,
                Prefix=prefix,
                MaxKeys=PAGE_OBJECTS,
                **{name: value for name, value in wanted.items() if value},
            )
        return Page(
            [Found(item["Key"], item["Size"]) for item in answer.get("Contents", ())],
            [item["Prefix"] for item in answer.get("CommonPrefixes", ())],
            answer.get("NextContinuationToken"),
        )

    async def put(self, bucket: str, key: str, data: Body, attempt: str | None) -> None:
        if not isinstance(data, bytes) and measure_file(data) > self.max_put_bytes:
            await self._put_parts(bucket, key, data)
            return
        condition: dict[str, Any] = {}
        if attempt is not None:
            condition = {"IfNoneMatch": "*", "Metadata": {"attempt": attempt}}
        with _translate(bucket, key):
            client = await self._open(bucket)
            await client.put_object(Bucket=bucket, Key=key, Body=open_body(data), **condition)

    async def _put_parts(self, bucket: str, key: str, file: BinaryIO) -> None:
        async with self._open_upload(bucket, key) as (client, where, tags):
            for number, part in enumerate(read_parts(file, _PART_BYTES), start=1):
                answer = await client.upload_part(**where, PartNumber=number, Body=part)
                tags.append(answer["ETag"])

    @contextlib.asynccontextmanager
    async def _open_upload(self, bucket: str, key: str) -> AsyncIterator[tuple[Any, Any, Any]]:
        """An object that goes in parts, and appears at the end of the block.

        Yields:
            the client, what names the upload in each request, and a list for the parts' tags.
        """
        with _translate(bucket, key):
            client = await self._open(bucket)
            where = {"Bucket": bucket, "Key": key}
            upload = await client.create_multipart_upload(**where)
            where["UploadId"] = upload["UploadId"]
            tags: list[str] = []
            try:
                yield client, where, tags
                parts = [{"ETag": tag, "PartNumber": n} for n, tag in enumerate(tags, start=1)]
                await client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
            except BaseException:
                with contextlib.suppress(Exception):
                    await client.abort_multipart_upload(**where)
                raise

    async def copy(self, bucket: str, key: str, target_bucket: str, target_key: str) -> None:
        source = {"Bucket": bucket, "Key": key}
        size = (await self.stat(bucket, key)).size
        if size > self.max_put_bytes:
            await self._copy_parts(source, size, target_bucket, target_key)
            return
        with _translate(bucket, key):
            client = await self._open(target_bucket)
            await client.copy_object(CopySource=source, Bucket=target_bucket, Key=target_key)

    async def _copy_parts(
        self, source: Mapping[str, str], size: int, target_bucket: str, target_key: str
    ) -> None:
        async with self._open_upload(target_bucket, target_key) as (client, where, tags):
            for number, begin in enumerate(range(0, size, _PART_BYTES), start=1):
                end = min(begin + _PART_BYTES, size) - 1
                answer = await client.upload_part_copy(
                    **where,
                    PartNumber=number,
                    CopySource=source,
                    CopySourceRange=f"bytes={begin}-{end}",
                )
                tags.append(answer["CopyPartResult"]["ETag"])

    async def delete(self, bucket: str, key: str) -> None:
        with _translate(bucket, key):
            client = await self._open(bucket)
            await client.delete_object(Bucket=bucket, Key=key)

    async def _open(self, bucket: str) -> Any:
        await self._files.set_session()
        return await self._files.get_s3(bucket)


@functools.cache
def find_proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for a host and its port, as it was first asked for.

    With `trust_env`, aiohttp looks for it at each request, and for a netrc in another thread: two
    fifths of what a request costs (measured).
    """
    proxy = urllib.request.getproxies().get(scheme)
    if proxy is None or urllib.request.proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _judge_plain(status: int, text: str, bucket: str, key: str) -> Exception:
    said = dict(_SAID.findall(text))
    return judge_answer(status, said.get("Code", ""), said.get("Message", ""), bucket, key)


def _close(session: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Says goodbye to a store when the process ends."""
    if loop.is_running():
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(session.close(), loop).result(_CLOSE_S)


@contextlib.contextmanager
def _translate(bucket: str, key: str) -> Iterator[None]:
    from botocore import exceptions  # noqa: PLC0415

    try:
        yield
    except exceptions.ClientError as error:
        answer = error.response
        code = str(answer.get("Error", {}).get("Code", ""))
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        message = str(answer.get("Error", {}).get("Message", ""))
        raise judge_answer(status, code, message, bucket, key) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise StoreError(
            f"{bucket}: no credentials for S3 are found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true for a public bucket"
        ) from error
    except exceptions.BotoCoreError as error:
        if isinstance(error, _s3_faults()):
            raise judge_failure(error, bucket) from error
        raise StoreError(f"{bucket}: {shorten(error)}") from error
    except list_network_errors() as error:
        raise judge_failure(error, bucket) from error


def _s3_faults() -> tuple[type[Exception], ...]:
    from botocore import exceptions  # noqa: PLC0415

    return (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.ResponseStreamingError,
    )
