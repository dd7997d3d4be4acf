"""Reads from records which originals they were made from, and finds out what changed.

The fields read here stand before and after the image of a record. So a data set is read in a
fraction of its bytes.
"""

from __future__ import annotations

import concurrent.futures
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import BinaryIO, Final, NamedTuple

from converter.errors import DatasetError, ImageError, RecordError
from converter.format import examples
from converter.format.indexes import parse_index
from converter.format.manifest import Manifest, ShardInfo
from converter.format.tfrecords import FOOTER_BYTES, HEADER_BYTES
from converter.inventory import NO_LABEL, REJECT_CODES
from converter.names import from_bytes
from converter.sources.archives import digest_members
from converter.sources.inputs import is_compressed
from converter.sources.originals import read_source
from converter.storage.files import hash_bytes, hash_file, name_index
from converter.storage.location import Location, choose_threads

_HEAD_BYTES: Final = 1024
_BEFORE: Final = (examples.LABEL, examples.ENCODED)
_AFTER: Final = (
    examples.FORMAT,
    examples.HEIGHT,
    examples.SHA256,
    examples.SOURCE_ID,
    examples.WIDTH,
)


class Source(NamedTuple):
    """What a record says about its original, by path and SHA-256, and about the stored image.

    `label` is an index into the class names, or `NO_LABEL`. `details` is the record without its
    image, if requested.
    """

    path: str
    sha256: str
    label: int
    format: str
    height: int
    width: int
    details: bytes = b""


class SourceCounts(NamedTuple):
    """Counts over the records of a shard; see `converter.writing.shard_writer.Receipt`."""

    labels: list[tuple[int, int]]
    formats: dict[str, int]
    max_image_size: tuple[int, int]


def count_sources(sources: Sequence[Source]) -> SourceCounts:
    """Counts the records of a shard, ordered by label and by format."""
    height = max((source.height for source in sources), default=0)
    width = max((source.width for source in sources), default=0)
    return SourceCounts(
        labels=sorted(Counter(source.label for source in sources).items()),
        formats=dict(sorted(Counter(source.format for source in sources).items())),
        max_image_size=(height, width),
    )


def read_sources(
    folder: Location, shard: ShardInfo, *, labelled: bool = True, detailed: bool = False
) -> list[Source]:
    """Reads what the records of a shard were made from, in record order; compares no checksum.

    With `detailed`, records are read whole to fill in `Source.details`.

    Raises:
        DatasetError: the shard or its index is missing or has another size than the manifest
            states, or a record cannot be read.
    """
    index = name_index(shard.name)
    with folder.bring_local((shard.name, index)) as here:
        try:
            data = (here / index).read_bytes()
            bounds = parse_index(data, index=index, shard_bytes=shard.bytes).tolist()
            size = (here / shard.name).stat().st_size
            if len(bounds) != shard.records + 1 or size != shard.bytes:
                raise DatasetError(f"{shard.name} is not as large as the manifest states")
            with open(here / shard.name, "rb", buffering=0) as file:
                return [
                    _read_source(file, shard.name, span, labelled=labelled, detailed=detailed)
                    for span in pairwise(bounds)
                ]
        except OSError as error:
            raise DatasetError(f"{error.filename or shard.name}: {error.strerror}") from error


def read_all_sources(
    folder: Location, manifest: Manifest, shards: Sequence[ShardInfo] | None = None
) -> Iterator[tuple[ShardInfo, list[Source]]]:
    """Yields shards, all if not given, with what `read_sources` reads of several at a time."""
    chosen = manifest.shards if shards is None else shards
    with concurrent.futures.ThreadPoolExecutor(choose_threads(folder)) as pool:
        found = pool.map(lambda s: read_sources(folder, s, labelled=manifest.labelled), chosen)
        yield from zip(chosen, found, strict=True)


def is_stated(folder: Location, shard: ShardInfo) -> bool:
    """Whether a shard and its index are, byte for byte, what the manifest states."""
    return (
        hash_file(folder / shard.name) == shard.sha256
        and hash_file(folder / name_index(shard.name)) == shard.index_sha256
    )


def describe_change(path: str, sha256: str, images: Location, max_bytes: int) -> str | None:
    """Says how an original has changed since its record was made; None if it has not.

    A file of more than `max_bytes` cannot be the original and is not read.
    """
    try:
        now = hash_original(path, images, max_bytes)
    except ImageError as error:
        return "is gone" if error.code == "vanished" else f"cannot be read: {error.detail}"
    return None if now == sha256 else "has other content"


def hash_original(path: str, images: Location, max_bytes: int) -> str:
    """The SHA-256 of an original in hexadecimal; raises what `read_source` raises."""
    if not is_compressed(images):
        return hash_bytes(read_source(path, images, max_bytes))
    if (digest := digest_members(images).get(path)) is None:
        raise ImageError("vanished", REJECT_CODES["vanished"])
    return digest


def _read_source(
    file: BinaryIO, shard: str, span: tuple[int, int], *, labelled: bool, detailed: bool
) -> Source:
    wanted = _BEFORE if labelled else _BEFORE[1:]
    begin, end = span[0] + HEADER_BYTES, span[1] - FOOTER_BYTES
    try:
        head = _read(file, begin, min(begin + _HEAD_BYTES, end))
        try:
            before = examples.find_values(head, wanted, end - begin)
        except ValueError:
            # A class with a very long name stands before the image.
            head = _read(file, begin, end)
            before = examples.find_values(head, wanted, end - begin)
        label = examples.read_varint(head, before[examples.LABEL][0])[0] if labelled else NO_LABEL
        tail = _read(file, begin + before[examples.ENCODED][1], end)
        after = examples.find_entries(tail, _AFTER, 0, len(tail))
        path, sha256, form = (
            from_bytes(bytes(tail[slice(*after[name])]))
            for name in (examples.SOURCE_ID, examples.SHA256, examples.FORMAT)
        )
        height, width = (
            examples.read_varint(tail, after[name][0])[0]
            for name in (examples.HEIGHT, examples.WIDTH)
        )
        details = b""
        if detailed:
            details = examples.strip_feature(_read(file, begin, end), examples.ENCODED)
        return Source(path, sha256, label, form, height, width, details)
    except (ValueError, KeyError, IndexError) as error:
        raise RecordError(shard, span[0], f"its source cannot be read: {error}") from error


def _read(file: BinaryIO, begin: int, end: int) -> memoryview:
    return memoryview(os.pread(file.fileno(), end - begin, begin))
