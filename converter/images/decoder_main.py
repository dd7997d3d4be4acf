"""The child process of `converter.images.isolation`: converts images until its input ends."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from converter.costs import start_cost, take_spent
from converter.errors import ImageError
from converter.images.conversion import Converted, Origin, StoredImage
from converter.images.frames import Frame, convert_frames
from converter.images.isolation import receive, send
from converter.images.masks import convert_mask
from converter.inventory import REJECT_CODES
from converter.options import ConvertOptions

# A decoder may take this much memory, and this much for each pixel that an image may have.
BASE_BYTES: Final = 512 << 20
PIXEL_BYTES: Final = 24

Convert: TypeAlias = Callable[[bytes, Sequence[ConvertOptions]], Iterator[Frame]]
Answer: TypeAlias = tuple[dict[str, object], list[bytes]]


def main(convert: Convert = convert_frames) -> None:
    """Answers requests, one after another."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a native decoder prints must not get among the answers
    requests = sys.stdin.buffer
    sizes = [ConvertOptions.from_json(values) for values in json.loads(receive(requests))]
    limit = BASE_BYTES + PIXEL_BYTES * sizes[0].max_pixels
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    while True:
        try:
            request, data = json.loads(receive(requests)), receive(requests)
        except EOFError:
            return
        if "origin" in request:
            found = _convert_mask(data, Origin(*request["origin"]), sizes)
        else:
            found = _convert_image(convert, data, sizes)
        for answer, images in _limit_time(found, sizes[0].max_seconds):
            send(answers, json.dumps(answer).encode())
            for image in images:
                send(answers, image)
            answers.flush()


def _limit_time(answers: Iterator[Answer], seconds: int) -> Iterator[Answer]:
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


def _convert_image(
    convert: Convert, data: bytes, sizes: Sequence[ConvertOptions]
) -> Iterator[Answer]:
    try:
        for number, images in convert(data, sizes):
            stored = [image.data for image in images if isinstance(image, StoredImage)]
            yield {"number": number, "images": [_describe(image) for image in images]}, stored
    except MemoryError:
        yield {"number": None, "images": [_describe(_lack_memory())] * len(sizes)}, []
    yield {"end": True}, []


def _convert_mask(data: bytes, origin: Origin, sizes: Sequence[ConvertOptions]) -> Iterator[Answer]:
    try:
        yield {}, convert_mask(data, origin, sizes)
    except MemoryError:
        yield _describe(_lack_memory()), []
    except ImageError as error:
        yield _describe(error), []


def _lack_memory() -> ImageError:
    return ImageError("too_much_memory", REJECT_CODES["too_much_memory"])


def _describe(image: Converted) -> dict[str, object]:
    if isinstance(image, ImageError):
        return {"code": image.code, "detail": image.detail}
    names = [field.name for field in dataclasses.fields(image)]
    return {name: getattr(image, name) for name in names if name != "data"}


if __name__ == "__main__":
    main()
