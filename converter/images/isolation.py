"""Decodes in a child process, so that a decoder that crashes or hangs costs one image.

Each thread has its own child, which runs this module, lives as long as the thread, and is replaced
after it dies. A message in its pipes is a line of JSON with the lengths of the files behind it.
First come the options of all sizes, then requests: a file to convert. Answers are one message for
each frame of an image, or one for a mask, and one at the end.
"""

import contextlib
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Final, TypeAlias

from converter.costs import credit, enter, start_cost, take_spent
from converter.errors import ImageError
from converter.images.conversion import Converted, Frame, StoredImage, convert_frames
from converter.images.masks import convert_mask, wrap_mask_errors
from converter.images.opened_images import Origin
from converter.inventory import REJECT_CODES, reject
from converter.options import ConvertOptions

Convert: TypeAlias = Callable[[bytes, Sequence[ConvertOptions]], Iterator[Frame]]
Message: TypeAlias = tuple[dict[str, Any], list[bytes]]

# Without -P the current folder comes first on sys.path.
_FLAGS: Final = ("-P",) if sys.version_info >= (3, 11) else ()
COMMAND: Final = (sys.executable, *_FLAGS, "-m", "converter.images.isolation")

# A child may take this much memory, and this much for each pixel that an image may have.
BASE_BYTES: Final = 512 << 20
PIXEL_BYTES: Final = 24

# When Python ends, it clears names with an underscore first: `__del__` still needs the others.
_running = threading.local()


def convert_isolated(data: bytes, sizes: Sequence[ConvertOptions]) -> Iterator[Frame]:
    """Runs `converter.images.conversion.convert_frames` in a child process.

    A frame at which a decoder crashes, or takes too long, is refused, and so are those after it.
    Raises a `MemoryError` if the child was killed from outside.
    """
    enter("other")  # the child reports what it spends meanwhile
    decoder, number, ended = _get_decoder(sizes), None, False
    try:
        for answer, files in decoder.ask({}, data):
            number, contents = answer["number"], iter(files)
            yield Frame(number, [_read_image(image, contents) for image in answer["images"]])
            number = None if number is None else number + 1
        ended = True
    except (EOFError, BrokenPipeError):
        yield Frame(number, [_describe_death(decoder.end(), sizes[0])] * len(sizes))
    finally:
        if not ended:  # also if the caller does not take all frames
            decoder.end()
            _running.decoder = None


def convert_mask_isolated(
    data: bytes, origin: Origin, sizes: Sequence[ConvertOptions]
) -> list[bytes]:
    """Runs `converter.images.masks.convert_mask` as `convert_isolated` runs `convert_frames`."""
    decoder = _get_decoder(sizes)
    with wrap_mask_errors():
        try:
            ((answer, masks),) = decoder.ask({"origin": origin}, data)
        except (EOFError, BrokenPipeError):
            _running.decoder = None
            raise _describe_death(decoder.end(), sizes[0]) from None
        if answer["images"]:
            raise ImageError(**answer["images"][0])
        return masks


def main(convert: Convert = convert_frames) -> None:
    """Runs in the child: answers requests, one after another, until its input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a native decoder prints must not get among the answers
    requests = sys.stdin.buffer
    sizes = [ConvertOptions.from_json(values) for values in _receive(requests)[0]["options"]]
    limit = BASE_BYTES + PIXEL_BYTES * sizes[0].max_pixels
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    while True:
        try:
            request, (data,) = _receive(requests)
        except EOFError:
            return
        found = _answer(convert, request, data, sizes)
        for answer, files in _limit_time(found, sizes[0].max_seconds):
            _send(answers, answer, files)
            answers.flush()


class _Decoder:
    """The parent's side of a child, and the options that it converts with."""

    def __init__(self, sizes: tuple[ConvertOptions, ...]) -> None:
        pipe, self.sizes = subprocess.PIPE, sizes
        # In a session of its own: Ctrl-C is for the parent, whose end ends it.
        self.process = subprocess.Popen(  # noqa: S603 (ourselves)
            COMMAND, stdin=pipe, stdout=pipe, start_new_session=True
        )
        self.stdin: IO[bytes] = self.process.stdin  # type: ignore[assignment]  # a pipe
        self.stdout: IO[bytes] = self.process.stdout  # type: ignore[assignment]  # a pipe
        values = [{**options.to_json(), **options.policies_to_json()} for options in sizes]
        _send(self.stdin, {"options": values})

    def ask(self, request: Mapping[str, Any], data: bytes) -> Iterator[Message]:
        """The answers to a request; raises an `EOFError` or a `BrokenPipeError` if it dies."""
        _send(self.stdin, request, [data])
        self.stdin.flush()
        while True:
            answer, files = _receive(self.stdout)
            credit(answer.pop("spent_ns"))
            if "end" in answer:
                return
            yield answer, files

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
    decoder: _Decoder | None = getattr(_running, "decoder", None)
    if decoder is None or decoder.sizes != tuple(sizes):
        _running.decoder = decoder = _Decoder(tuple(sizes))
    return decoder


def _describe_death(code: int, options: ConvertOptions) -> ImageError:
    if code == -signal.SIGPROF:
        return ImageError("timeout", f"more than {options.max_seconds} s of CPU time")
    if code == -signal.SIGKILL:
        raise MemoryError("a decoder was killed from outside (often: out of memory)")
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return ImageError("decoder_crash", f"{REJECT_CODES['decoder_crash']}: {how}")


def _send(pipe: IO[bytes], content: Mapping[str, Any], files: Sequence[bytes] = ()) -> None:
    head = json.dumps({**content, "lengths": [*map(len, files)]})
    pipe.writelines([head.encode("ascii"), b"\n", *files])


def _receive(pipe: IO[bytes]) -> Message:
    """Reads one message; raises an `EOFError` if the other side is gone."""
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    content = json.loads(line)
    lengths = content.pop("lengths")
    files = [pipe.read(length) for length in lengths]
    if [*map(len, files)] != lengths:
        raise EOFError
    return content, files


def _answer(
    convert: Convert, request: Mapping[str, Any], data: bytes, sizes: Sequence[ConvertOptions]
) -> Iterator[Message]:
    try:
        if "origin" in request:
            yield {"images": []}, convert_mask(data, Origin(*request["origin"]), sizes)
        else:
            for number, images in convert(data, sizes):
                stored = [image.data for image in images if isinstance(image, StoredImage)]
                yield {"number": number, "images": [*map(_describe, images)]}, stored
    except (ImageError, MemoryError) as error:
        if isinstance(error, MemoryError):
            error = reject("too_much_memory")
        yield {"number": None, "images": [_describe(error)] * len(sizes)}, []
    yield {"end": True}, []


def _limit_time(answers: Iterator[Message], seconds: int) -> Iterator[Message]:
    """Ends this process at an answer that takes longer; adds to each what was spent on it."""
    while True:
        # The kernel ends the process whatever code it is in, also in a native decoder.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        start_cost()
        answer = next(answers, None)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if answer is None:
            return
        yield {**answer[0], "spent_ns": take_spent()}, answer[1]


def _describe(image: Converted) -> dict[str, Any]:
    if isinstance(image, ImageError):
        return {"code": image.code, "detail": image.detail}
    names = [field.name for field in dataclasses.fields(image)]
    return {name: getattr(image, name) for name in names if name != "data"}


def _read_image(image: dict[str, Any], files: Iterator[bytes]) -> Converted:
    if "code" in image:
        return ImageError(**image)
    origin = Origin(*image.pop("origin"))
    return StoredImage(data=next(files), origin=origin, **image)


if __name__ == "__main__":
    main()
