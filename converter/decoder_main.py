"""What a child of `converter.isolation` runs: it converts images until its input ends."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Final

from converter.costs import start_cost, take_spent
from converter.errors import ImageError
from converter.images import StoredImage, convert_image
from converter.isolation import receive, send
from converter.options import ConvertOptions
from converter.reasons import REJECT_CODES

BASE_BYTES: Final = 512 << 20
PIXEL_BYTES: Final = 24
"""What a decoder may take: so much, and so much for each pixel that an image may have."""


def main(convert: Callable[[bytes, ConvertOptions], StoredImage] = convert_image) -> None:
    """Answers one message after the other."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a native decoder prints must not get among the answers
    requests = sys.stdin.buffer
    options = ConvertOptions.from_json(json.loads(receive(requests)))
    limit = BASE_BYTES + PIXEL_BYTES * options.max_pixels
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this one
    while True:
        try:
            data = receive(requests)
        except EOFError:
            return
        # The kernel ends this process when the time is up, whatever native code it is in.
        signal.setitimer(signal.ITIMER_PROF, options.max_seconds)
        start_cost()
        answer, pixels = _convert(convert, data, options)
        answer["spent_ns"] = take_spent()
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(answers, json.dumps(answer).encode())
        if pixels is not None:
            send(answers, pixels)
        answers.flush()


def _convert(
    convert: Callable[[bytes, ConvertOptions], StoredImage], data: bytes, options: ConvertOptions
) -> tuple[dict[str, object], bytes | None]:
    try:
        image = convert(data, options)
    except ImageError as error:
        return {"code": error.code, "detail": error.detail}, None
    except MemoryError:
        return {"code": "too_much_memory", "detail": REJECT_CODES["too_much_memory"]}, None
    answer = {
        field.name: getattr(image, field.name)
        for field in dataclasses.fields(image)
        if field.name != "data"
    }
    return answer, image.data


if __name__ == "__main__":
    main()
