"""Which originals a data set was made from, read back from its records, and what became of them.

A record holds its image in the middle. What is needed here stands before and behind it, so that a
data set is read in a fraction of its bytes.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import BinaryIO, Final, NamedTuple

from converter.errors import DatasetError, ImageError, RecordError
from converter.format import examples
from converter.format.indexes import parse_index
from converter.format.manifest import ShardInfo
from converter.format.tfrecords import FOOTER_BYTES, HEADER_BYTES
from converter.image_options import MAX_FILE_BYTES
from converter.inventory import NO_LABEL
from converter.names import from_bytes
from converter.sources.archives import digest_members
from converter.sources.originals import read_source
from converter.sources.streams import is_compressed
from converter.storage.disk import DiskPath
from converter.storage.hashing import hash_bytes, hash_file
from converter.storage.layout import name_index
from converter.storage.location import Location

_HEAD_BYTES: Final = 1024
_BEFORE: Final = (examples.LABEL, examples.ENCODED)
_BEHIND: Final = (
    examples.FORMAT,
    examples.HEIGHT,
    examples.SHA256,
    examples.SOURCE_ID,
    examples.WIDTH,
)


class Source(NamedTuple):
    """What a record says about its image, apart from the pixels.

    Attributes:
        path: of the original, relative to the folder of images.
        sha256: of the original, in hexadecimal.
        label: index into the class names, or `NO_LABEL`.
        format: how the image is stored.
        height: of the stored image, in pixels.
        width: likewise.
        details: all of the record but its image, if that was asked for.
    """

    path: str
    sha256: str
    label: int
    format: str
    height: int
    width: int
    details: bytes = b""


def read_sources(
    folder: Location, shard: ShardInfo, *, labelled: bool = True, detailed: bool = False
) -> list[Source]:
    """What the records of a shard were made from, in record order; no checksum is compared.

    Args:
        folder: the data set. From a store, the shard comes whole.
        shard: which.
        labelled: whether its records hold a label.
        detailed: keep all else that they hold; then they are read whole.

    Raises:
        DatasetError: shard or index are not there as the manifest states, or a record cannot be
            read.
    """
    with folder.bring_local((shard.name, name_index(shard.name))) as here:
        return _read_sources(here, shard, labelled=labelled, detailed=detailed)


def _read_sources(
    folder: DiskPath, shard: ShardInfo, *, labelled: bool, detailed: bool
) -> list[Source]:
    index = name_index(shard.name)
    try:
        bounds = parse_index(
            (folder / index).read_bytes(), index=index, shard_bytes=shard.bytes
        ).tolist()
        if len(bounds) != shard.records + 1 or (folder / shard.name).stat().st_size != shard.bytes:
            raise DatasetError(f"{shard.name} is not as large as the manifest states")
        with open(folder / shard.name, "rb", buffering=0) as file:
            return [
                _read_source(
                    file, shard.name, start, end - start, labelled=labelled, detailed=detailed
                )
                for start, end in pairwise(bounds)
            ]
    except OSError as error:
        raise DatasetError(f"{error.filename or shard.name}: {error.strerror}") from error


def is_stated(folder: Location, shard: ShardInfo) -> bool:
    """Whether a shard and its index are, byte for byte, what the manifest states.

    Raises:
        OSError: one of them cannot be read.
    """
    return (
        hash_file(folder / shard.name) == shard.sha256
        and hash_file(folder / name_index(shard.name)) == shard.index_sha256
    )


def describe_change(
    path: str, sha256: str, images: Location, max_bytes: int = MAX_FILE_BYTES
) -> str | None:
    """What became of an original since its record was made; None if it is what it was.

    Args:
        path: as in `Source.path`.
        sha256: of what it was.
        images: the folder that it is relative to.
        max_bytes: what is larger cannot be what it was.
    """
    if is_compressed(images):
        now = digest_members(images).get(path)
        return "is gone" if now is None else None if now == sha256 else "has other content"
    try:
        data = read_source(path, images, max_bytes)
    except ImageError as error:
        return "is gone" if error.code == "vanished" else f"cannot be read: {error.detail}"
    return None if hash_bytes(data) == sha256 else "has other content"


def _read_source(
    file: BinaryIO, shard: str, offset: int, size: int, *, labelled: bool, detailed: bool
) -> Source:
    wanted = _BEFORE if labelled else _BEFORE[1:]
    begin, size = offset + HEADER_BYTES, size - HEADER_BYTES - FOOTER_BYTES
    try:
        head = _read(file, begin, min(size, _HEAD_BYTES))
        try:
            found = examples.find_values(head, wanted, size)
        except ValueError:
            # A class of a very long name stands before the image; and what is small is read whole.
            head = _read(file, begin, size)
            found = examples.find_values(head, wanted, size)
        label = NO_LABEL
        if labelled:
            label, _ = examples.read_varint(head, found[examples.LABEL][0])
        rest = found[examples.ENCODED][1]
        tail = _read(file, begin + rest, size - rest)
        payload = _read(file, begin, size) if detailed else memoryview(b"")
        details = examples.strip_feature(payload, examples.ENCODED) if detailed else b""
        return _parse_tail(tail, label)._replace(details=details)
    except (ValueError, KeyError, IndexError) as error:
        raise RecordError(shard, offset, f"its source cannot be read: {error}") from error


def _parse_tail(tail: memoryview, label: int) -> Source:
    found = examples.find_entries(tail, _BEHIND, 0, len(tail))

    def read_text(name: str) -> str:
        start, end = found[name]
        return from_bytes(bytes(tail[start:end]))

    return Source(
        path=read_text(examples.SOURCE_ID),
        sha256=read_text(examples.SHA256),
        label=label,
        format=read_text(examples.FORMAT),
        height=examples.read_varint(tail, found[examples.HEIGHT][0])[0],
        width=examples.read_varint(tail, found[examples.WIDTH][0])[0],
    )


def _read(file: BinaryIO, offset: int, size: int) -> memoryview:
    return memoryview(os.pread(file.fileno(), size, offset))
