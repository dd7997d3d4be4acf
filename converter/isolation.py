"""Decodes in a child process, so that a decoder that crashes or hangs costs one image.

Each thread has a child of its own, `converter.decoder_main`, which lives as long as the thread and
is replaced when it has died. What goes through its pipes is a length of 8 bytes and so many bytes:
first the options, then an image and its answer, again and again.
"""

from __future__ import annotations

import contextlib
import json
import signal
import struct
import subprocess
import sys
import threading
from typing import IO, Any, Final

from converter.costs import credit, enter
from converter.errors import ImageError
from converter.images import StoredImage
from converter.options import ConvertOptions
from converter.reasons import REJECT_CODES

COMMAND: Final = (
    sys.executable,
    # Without -P the current folder comes first on sys.path.
    *(["-P"] if sys.version_info >= (3, 11) else []),
    "-m",
    "converter.decoder_main",
)

SIZE: Final = struct.Struct("<Q")

_local = threading.local()


def convert_isolated(data: bytes, options: ConvertOptions) -> StoredImage:
    """Does what `converter.images.convert_image` does, in a child process.

    Raises:
        ImageError: the image is refused, or the decoder crashed at it, or took too long.
        MemoryError: the child was killed from outside, as a system does that is out of memory.
    """
    enter("other")  # the child says what it did in the meantime
    decoder = getattr(_local, "decoder", None)
    if decoder is None or decoder.options != options:
        _local.decoder = decoder = _Decoder(options)
    try:
        return _read_answer(decoder, data)
    except (EOFError, BrokenPipeError):
        code = decoder.end()
        _local.decoder = None
        raise _describe_death(code, options) from None


def send(pipe: IO[bytes], data: bytes) -> None:
    """Writes one message."""
    pipe.write(SIZE.pack(len(data)))
    pipe.write(data)


def receive(pipe: IO[bytes]) -> bytes:
    """Reads one message.

    Raises:
        EOFError: the other side is gone.
    """
    head = pipe.read(SIZE.size)
    if len(head) < SIZE.size:
        raise EOFError
    (size,) = SIZE.unpack(head)
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


class _Decoder:
    def __init__(self, options: ConvertOptions) -> None:
        self.options = options
        self.process = subprocess.Popen(  # noqa: S603 (this very interpreter)
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.stdin: IO[bytes] = self.process.stdin  # type: ignore[assignment]
        self.stdout: IO[bytes] = self.process.stdout  # type: ignore[assignment]
        values = {**options.to_json(), **options.policies_to_json()}
        send(self.stdin, json.dumps(values).encode())

    def end(self) -> int:
        """Lets the child end, if it has not; its exit code."""
        for pipe in (self.stdin, self.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return self.process.wait()

    def __del__(self) -> None:
        # With the thread that it belongs to: nothing is under way, so it ends at once.
        if hasattr(self, "stdout"):
            self.end()


def _read_answer(decoder: _Decoder, data: bytes) -> StoredImage:
    send(decoder.stdin, data)
    decoder.stdin.flush()
    answer: dict[str, Any] = json.loads(receive(decoder.stdout))
    credit(answer.pop("spent_ns"))
    if "code" in answer:
        raise ImageError(answer["code"], answer["detail"])
    return StoredImage(data=receive(decoder.stdout), **answer)


def _describe_death(code: int, options: ConvertOptions) -> Exception:
    if code == -signal.SIGPROF:
        return ImageError("timeout", f"more than {options.max_seconds} s of CPU time")
    if code == -signal.SIGKILL:
        return MemoryError("a decoder was killed from outside (often: out of memory)")
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return ImageError("decoder_crash", f"{REJECT_CODES['decoder_crash']}: {how}")
