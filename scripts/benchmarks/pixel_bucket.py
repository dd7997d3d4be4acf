"""A stand-in for a bucket of very many images in one prefix, with no folders among them.

It answers as S3 does when objects are listed and read, and draws pages and images as they are asked
for. A real store of ten million objects does not fit on a machine that also converts them.
"""

import contextlib
import os
import re
import subprocess
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

from benchmarks.corpora import draw_pixel

BUCKET: Final = "pixels"
ADDRESS: Final = f"s3://{BUCKET}/images"
PAGE: Final = 1_000


class Handler(BaseHTTPRequestHandler):
    """Answers for `count` images."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    count = 0

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if number := re.fullmatch(rf"/{BUCKET}/images/img-(\d+)\.png", address.path):
            self.send_image(int(number[1]))
        else:
            page = draw_page(dict(parse_qsl(address.query)), self.count)
            self.send(200, page.encode(), {"Content-Type": "application/xml"})

    def send_image(self, number: int) -> None:
        data = draw_pixel(number)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
        begin = int(asked[1]) if asked else 0
        stop = int(asked[2]) + 1 if asked and asked[2] else len(data)
        span = f"bytes {begin}-{min(stop, len(data)) - 1}/{len(data)}"
        self.send(206, data[begin:stop], {"Content-Range": span, "ETag": f'"{number}"'})

    def send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """Says nothing when a client goes."""

    def handle_error(self, *_: object) -> None:
        pass


def draw_page(query: Mapping[str, str], count: int) -> str:
    """What S3 answers to ListObjectsV2: up to a thousand keys in order."""
    after = query.get("continuation-token") or query.get("start-after", "")
    prefix, numbers = query.get("prefix", ""), range(count)
    begin = max(
        bisect_right(numbers, after, key=name_object),
        bisect_left(numbers, prefix, key=name_object),
    )
    stop = bisect_right(numbers, f"{prefix}\U0010ffff", key=name_object)
    end = min(begin + int(query.get("max-keys", PAGE)), stop)
    objects = "".join(map(describe_object, range(begin, end)))
    token = ""
    if end < stop:
        token = f"<NextContinuationToken>{name_object(end - 1)}</NextContinuationToken>"
    return (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<IsTruncated>{str(end < stop).lower()}</IsTruncated>{token}{objects}</ListBucketResult>"
    )


def describe_object(number: int) -> str:
    return (
        f"<Contents><Key>{name_object(number)}</Key><Size>{len(draw_pixel(number))}</Size>"
        f"<ETag>&quot;{number}&quot;</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


def name_object(number: int) -> str:
    return f"images/img-{number:08d}.png"


@contextlib.contextmanager
def run_bucket(count: int) -> Iterator[str]:
    """Runs a bucket of so many images; leads this process there, and those that it starts."""
    command = [sys.executable, "-m", "benchmarks.pixel_bucket", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            leads = {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
            }
            with mock.patch.dict(os.environ, leads):
                yield ADDRESS
        finally:
            process.kill()


def main() -> None:
    Handler.count = int(sys.argv[1])
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
