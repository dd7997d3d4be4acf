"""Decodes in a child process, so that a decoder that crashes or hangs costs one image.

Each thread has its own child, `decoder_main`, which lives as long as the thread and is replaced
after it dies. A message in its pipes is a length of 8 bytes and that many bytes. First come the
options of all sizes as JSON, then requests: JSON and a file. An answer is JSON and the images that
it announces: one answer for each frame of an image and one at its end, or one answer for a mask.
"""

from __future__ import annotations

import contextlib
import json
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final

from converter.costs import credit, enter
from converter.errors import ImageError
from converter.images.conversion import Converted, Origin, StoredImage
from converter.images.frames import Frame
from converter.images.masks import wrap_mask_errors
from converter.inventory import REJECT_CODES
from converter.options import ConvertOptions

COMMAND: Final = (
    sys.executable,
    # Without -P the current folder comes first on sys.path.
    *(["-P"] if sys.version_info >= (3, 11) else []),
    "-m",
    "converter.images.decoder_main",
)

_LENGTH: Final = struct.Struct("<Q")

_local = threading.local()


def convert_isolated(data: bytes, sizes: Sequence[ConvertOptions]) -> Iterator[Frame]:
    """Runs `converter.images.frames.convert_frames` in a child process.

    A frame at which a decoder crashes, or takes too long, is refused, and so are those after it.

    Raises:
        MemoryError: the child was killed from outside, as by a system that is out of memory.
    """
    enter("other")  # the child reports what it spends meanwhile
    decoder, number, ended = _get_decoder(sizes), None, False
    try:
        decoder.ask({}, data)
        while "end" not in (answer := decoder.read_answer()):
            number = answer["number"]
            yield Frame(number, [_read_image(decoder, image) for image in answer["images"]])
            number = None if number is None else number + 1
        ended = True
    except (EOFError, BrokenPipeError):
        yield Frame(number, [_describe_death(decoder.end(), sizes[0])] * len(sizes))
    finally:
        if not ended:  # also if the caller does not take all frames
            decoder.end()
            _local.decoder = None


def convert_mask_isolated(
    data: bytes, origin: Origin, sizes: Sequence[ConvertOptions]
) -> list[bytes]:
    """Runs `converter.images.masks.convert_mask` in a child process.

    Raises:
        ImageError: the mask is refused, or the decoder crashed at it, or took too long.
        MemoryError: as in `convert_isolated`.
    """
    decoder = _get_decoder(sizes)
    with wrap_mask_errors():
        try:
            decoder.ask({"origin": origin}, data)
            answer = decoder.read_answer()
            if "code" in answer:
                raise ImageError(answer["code"], answer["detail"])
            return [receive(decoder.stdout) for _ in sizes]
        except (EOFError, BrokenPipeError):
            _local.decoder = None
            raise _describe_death(decoder.end(), sizes[0]) from None


def send(pipe: IO[bytes], data: bytes) -> None:
    """Writes one message."""
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)


def receive(pipe: IO[bytes]) -> bytes:
    """Reads one message; raises an `EOFError` if the other side is gone."""
    (size,) = _LENGTH.unpack(_read(pipe, _LENGTH.size))
    return _read(pipe, size)


def _read(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


class _Decoder:
    def __init__(self, sizes: tuple[ConvertOptions, ...]) -> None:
        self.sizes = sizes
        self.process = subprocess.Popen(  # noqa: S603 (this very interpreter)
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.stdin: IO[bytes] = self.process.stdin  # type: ignore[assignment]  # a pipe
        self.stdout: IO[bytes] = self.process.stdout  # type: ignore[assignment]  # a pipe
        values = [{**options.to_json(), **options.policies_to_json()} for options in sizes]
        send(self.stdin, json.dumps(values).encode())

    def ask(self, request: Mapping[str, Any], data: bytes) -> None:
        send(self.stdin, json.dumps(request).encode())
        send(self.stdin, data)
        self.stdin.flush()

    def read_answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(receive(self.stdout))
        credit(answer.pop("spent_ns"))
        return answer

    def end(self) -> int:
        """Lets the child end, and returns its exit code."""
        for pipe in (self.stdin, self.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return self.process.wait()

    def __del__(self) -> None:
        # Runs when the thread ends; no request is under way, so the child ends at once.
        if hasattr(self, "stdout"):
            self.end()


def _get_decoder(sizes: Sequence[ConvertOptions]) -> _Decoder:
    decoder: _Decoder | None = getattr(_local, "decoder", None)
    if decoder is None or decoder.sizes != tuple(sizes):
        _local.decoder = decoder = _Decoder(tuple(sizes))
    return decoder


def _read_image(decoder: _Decoder, image: dict[str, Any]) -> Converted:
    if "code" in image:
        return ImageError(image["code"], image["detail"])
    origin = Origin(*image.pop("origin"))
    return StoredImage(data=receive(decoder.stdout), origin=origin, **image)


def _describe_death(code: int, options: ConvertOptions) -> ImageError:
    if code == -signal.SIGPROF:
        return ImageError("timeout", f"more than {options.max_seconds} s of CPU time")
    if code == -signal.SIGKILL:
        raise MemoryError("a decoder was killed from outside (often: out of memory)")
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return ImageError("decoder_crash", f"{REJECT_CODES['decoder_crash']}: {how}")
