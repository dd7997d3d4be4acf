"""TFRecord files as sources: the features of each record, and the images that are among them.

A scan reads the beginning of each record and what stands behind its images, never the images. A
worker reads a record whole, in one request, and checks its checksum.
"""

import bisect
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import BinaryIO, Final, NamedTuple

from converter.errors import DatasetError, ImageError, RecordError
from converter.format.features import Features, read_held, skim_features
from converter.format.indexes import parse_index
from converter.format.tfrecords import FRAMING_BYTES, HEADER_BYTES, is_header, unframe_record
from converter.images.record_images import OWN_PARTS, RecordImage
from converter.inventory import Entry
from converter.storage.location import Location

_LENGTH_BYTES: Final = 8


class Found(NamedTuple):
    """A record of a file, and its features or why it has none."""

    number: int  # from 0 in its file
    place: int  # of its first byte
    span: int  # bytes with its framing; 0 if that is not known
    features: Features | ImageError  # which names the byte, but not the file


def scan_file(
    file: Location, held: Collection[str] = (), bounds: Sequence[int] | None = None
) -> Iterator[Found]:
    """The records of a file in their order, with all features but those in `held`.

    `bounds` are those of an index: where each record begins, and where the last one ends. Without
    them, a record with a damaged length stands for itself and all behind it. Memory is bounded by
    what `skim_features` takes. Raises OSError if the file cannot be read.
    """
    total, _ = file.read_version()
    with file.open_read() as stream:
        place = number = 0
        while place < total:
            length = _read_length(stream, place, total)
            if isinstance(length, str):
                end = _find_next(bounds or (), place)
                behind = "" if end else "; no record behind it can be found"
                error = ImageError("decode_error", f"byte {place}: {length}{behind}")
                yield Found(number, place, end - place if end else 0, error)
                place = end or total
            else:
                span = length + FRAMING_BYTES
                yield Found(number, place, span, _skim(stream, place, length, held))
                place += span
            number += 1


def _find_next(bounds: Sequence[int], place: int) -> int:
    """Where a next record could begin, as an index says that may be forged; 0 if it says none."""
    behind = bisect.bisect_right(bounds, place)
    return bounds[behind] if behind < len(bounds) else 0


def read_bounds(file: Location, index: Location) -> list[int] | None:
    """The bounds in the index of a file; None if it is not that of the file as it is now."""
    try:
        size, _ = file.read_version()
        bounds = parse_index(index.read_bytes(), index=index.name, shard_bytes=size)
        return [*map(int, bounds)]
    except DatasetError:
        return None


def start_record(file: Location, entry: Entry) -> Callable[[], bytes]:
    """Begins to read the image of a record; see `converter.sources.containers.start_part`."""
    read = file.start_read(entry.place, entry.span)

    def finish() -> bytes:
        try:
            payload = unframe_record(read(), shard=file.name, offset=entry.place)
            if entry.part in OWN_PARTS:
                return RecordImage.of_payload(payload, entry.part, entry.path)
            return read_held(payload, entry.part)
        except (RecordError, ValueError) as error:
            reason = error.detail if isinstance(error, RecordError) else str(error)
            where = f"{file.name}, record at byte {entry.place}"
            raise ImageError("decode_error", f"{where}: {reason}") from error

    return finish


def _read_length(stream: BinaryIO, place: int, total: int) -> int | str:
    """The length of a payload, or what is wrong with it."""
    stream.seek(place)
    header = stream.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return f"only {len(header)} bytes of a header"
    if not is_header(header):
        return "checksum of the length does not match"
    length = int.from_bytes(header[:_LENGTH_BYTES], "little")
    if place + length + FRAMING_BYTES > total:
        return f"length {length} goes past the end of the file"
    return length


def _skim(
    stream: BinaryIO, place: int, length: int, held: Collection[str]
) -> Features | ImageError:
    def fetch(at: int, size: int) -> bytes:
        stream.seek(place + HEADER_BYTES + at)
        return stream.read(size)

    try:
        return skim_features(fetch, length, held)
    except ValueError as error:
        return ImageError("decode_error", f"byte {place}: {error}")
