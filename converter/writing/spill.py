"""Keeps records in a file until the shard that they go into is assembled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from converter.errors import ImageError
from converter.images.conversion import Origin, StoredImage
from converter.inventory import Entry
from converter.writing.records import Outcome, Record


def pack_outcomes(outcomes: Iterable[tuple[Entry, Outcome]]) -> Iterator[bytes]:
    """The outcomes of one file in pieces: for each frame a line of JSON, then its record."""
    for entry, outcome in outcomes:
        if isinstance(outcome, ImageError):
            yield _dump([entry.path, 0, outcome.code, outcome.detail])
        else:
            image = outcome.image
            head = [image.format, image.height, image.width, image.channels, image.origin]
            yield _dump([entry.path, len(outcome.payload), *head])
            yield outcome.payload


def unpack_outcomes(file: BinaryIO, entry: Entry, size: int) -> Iterator[tuple[Entry, Outcome]]:
    """The inverse of `pack_outcomes`.

    Args:
        file: at their first byte.
        entry: of the file that they are from.
        size: of all of them, in bytes.
    """
    end = file.tell() + size
    while file.tell() < end:
        path, payload_bytes, *head = json.loads(file.readline())
        found = entry._replace(path=path)
        if not payload_bytes:
            yield found, ImageError(*head)
            continue
        kind, height, width, channels, origin = head
        image = StoredImage(
            data=b"",
            format=kind,
            height=height,
            width=width,
            channels=channels,
            origin=Origin(*origin),
        )
        yield found, Record(payload=file.read(payload_bytes), image=image)


def _dump(head: list[object]) -> bytes:
    return json.dumps(head).encode("ascii") + b"\n"
