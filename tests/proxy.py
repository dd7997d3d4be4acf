"""A proxy before an object store that makes what networks and stores make: delay and faults.

    python tests/proxy.py PORT TARGET_PORT

What it does is set while it runs: a GET of /-/set?faults=0.3&latency=0.05&seed=7 answers with the
counts since the last one, of requests by method and of bytes of answers. Faults are drawn request
by request, of those named in `kinds`:

    refuse   503, the request is not passed on
    reset    the connection is reset, the request is not passed on
    cut      the answer breaks off in the middle of its body, with a reset
    short    the answer ends early, as if it were whole but for its length
    lose     the request is passed on and done, and the connection reset before the answer
    hang     nothing is answered
    slow     the answer dribbles in over half a second
    deny     403, the request is not passed on; only if it is named
    move     301 without saying where to; only if it is named

The emulator of Google Cloud Storage knows no conditions: `ifGenerationMatch=0` is kept here, for it
and for S3, one such request after the other.
"""

import asyncio
import contextlib
import json
import random
import socket
import struct
import sys
import urllib.parse
from collections import Counter

KINDS = ("refuse", "reset", "cut", "short", "lose", "hang", "slow")
HANG_S = 60.0
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class Proxy:
    def __init__(self, target: int) -> None:
        self.target = target
        self.counts: Counter[str] = Counter()
        self.conditional = asyncio.Lock()
        # The emulator serves one connection at a time, and lets five wait.
        self.gate = asyncio.Semaphore(5)
        self.answers: dict[bytes, bytes] = {}
        self.configure({})

    def configure(self, settings: dict[str, str]) -> None:
        self.faults = float(settings.get("faults", 0))
        self.latency = float(settings.get("latency", 0))
        self.kinds = settings.get("kinds", ",".join(KINDS)).split(",")
        self.only = settings.get("only", "")
        self.remember = settings.get("remember") == "1"
        self.random = random.Random(int(settings.get("seed", 1)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while request := await read_request(reader, writer):
                if not await self.answer(*request, writer):
                    break
        with contextlib.suppress(Exception):
            writer.close()

    async def answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; whether the connection may be used again."""
        method, url = head.split(b" ", 2)[:2]
        if url.startswith(b"/-/set"):
            counts, self.counts = self.counts, Counter()
            query = urllib.parse.urlsplit(url.decode()).query
            self.configure(dict(urllib.parse.parse_qsl(query)))
            writer.write(frame(json.dumps(counts).encode()))
            return True
        self.counts[method.decode()] += 1
        self.counts["ranged"] += bool(find_header(head, b"range"))
        if self.latency:
            await asyncio.sleep(self.latency)
        faulty = self.random.random() < self.faults and self.only.encode() in url
        kind = self.random.choice(self.kinds) if faulty else ""
        if kind:
            self.counts[kind] += 1
        if kind == "refuse":
            writer.write(frame(b"try again", b"503 Slow Down"))
            return True
        if kind == "deny":
            writer.write(frame(DENIED, b"403 Forbidden"))
            return True
        if kind == "move":
            writer.write(frame(b"", b"301 Moved Permanently"))
            return True
        if kind == "reset":
            return reset(writer)
        if kind == "hang":
            await asyncio.sleep(HANG_S)
            return reset(writer)
        answer = await self.ask(method, url, head, body)
        self.counts["bytes"] += len(answer)
        return await send(answer, kind, writer)

    async def ask(self, method: bytes, url: bytes, head: bytes, body: bytes) -> bytes:
        media = b"alt=media" in url if b"/storage/v1/" in url else b"list-type" not in url
        known = b""
        if method == b"GET" and media and self.remember:
            known = url.partition(b"?")[0] + b" " + find_header(head, b"range")
        if known and known in self.answers:
            return self.answers[known]
        if b"ifGenerationMatch=0" in url or find_header(head, b"if-none-match"):
            async with self.conditional:
                if b"ifGenerationMatch=0" in url and await self.is_there(url, body):
                    return frame(b'{"error": {"message": "conditionNotMet"}}', b"412 Failed")
                return await self.forward(head, body)
        answer = await self.forward(head, body)
        if known and answer.startswith((b"HTTP/1.1 20", b"HTTP/1.0 20")):
            self.answers[known] = answer
        return answer

    async def is_there(self, url: bytes, body: bytes) -> bool:
        name = json.loads(body[body.index(b"{") : body.index(b"}\r\n--", 1) + 1])["name"]
        path = urllib.parse.urlsplit(url.decode()).path.replace("/upload/", "/")
        asked = f"GET {path}/{urllib.parse.quote(name, safe='')} HTTP/1.1\r\nHost: x\r\n\r\n"
        return (await self.forward(asked.encode(), b"")).split(b" ", 2)[1] == b"200"

    async def forward(self, head: bytes, body: bytes) -> bytes:
        """Passes a request on, over a connection of its own; the whole answer."""
        lines = [
            line
            for line in head.split(b"\r\n")
            if line and not line.lower().startswith((b"connection:", b"expect:", b"transfer-enc"))
        ]
        if body and not find_header(head, b"content-length"):
            lines.append(b"Content-Length: %d" % len(body))
        head = b"\r\n".join([*lines, b"Connection: close", b"", b""])
        async with self.gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                writer.write(head + body)
                await writer.drain()
                return await read_answer(reader, has_body=not head.startswith(b"HEAD "))
            finally:
                writer.close()


async def read_answer(reader: asyncio.StreamReader, *, has_body: bool) -> bytes:
    """An answer up to its end, which moto's server takes 16 ms to show by closing the line."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = find_header(head, b"content-length")
    if not has_body:
        return head
    return head + await (reader.readexactly(int(size)) if size else reader.read())


async def read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[bytes, bytes] | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = await reader.readline()
        if not line:
            return None
        head += line
    if find_header(head, b"expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if find_header(head, b"transfer-encoding"):
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        while (await reader.readline()).strip():
            pass
        return head, body
    return head, await reader.readexactly(int(find_header(head, b"content-length") or 0))


async def send(answer: bytes, kind: str, writer: asyncio.StreamWriter) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    keeps = find_header(head, b"content-length")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    lines[0] = b"HTTP/1.1" + lines[0][8:]
    if not keeps:
        lines.append(b"Connection: close")
    head = b"\r\n".join([*lines, b"", b""])
    if kind == "lose":
        return reset(writer)
    if kind in ("cut", "short"):
        writer.write(head + body[: len(body) // 2])
        await writer.drain()
        if kind == "cut" or not body:
            return reset(writer)
        return False
    if kind == "slow":
        writer.write(head)
        step = len(body) // 10 + 1
        for start in range(0, len(body), step):
            writer.write(body[start : start + step])
            await writer.drain()
            await asyncio.sleep(0.05)
        return bool(keeps)
    writer.write(head + body)
    await writer.drain()
    return bool(keeps)


def reset(writer: asyncio.StreamWriter) -> bool:
    """Ends a connection without a goodbye."""
    line = writer.get_extra_info("socket")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def find_header(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return b""


def frame(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


async def main(port: int, target: int) -> None:
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port, backlog=500, limit=1 << 20)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
