r"""The index of a shard: where each record lies, one line a record.

A line is `"{offset} {size}\n"` in decimal: the record's first byte in the shard, and its size
with the framing. NVIDIA DALI's and vahidk/tfrecord's `tfrecord2idx` write the same, and both
read ours. The index of `x.tfrecord` is `x.tfindex`: `x.tfrecord.idx` would collide with the
binary index of tfr-reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from converter.errors import DatasetError
from converter.tfrecords import FRAMING_BYTES

SHARD_SUFFIX: Final = ".tfrecord"
INDEX_SUFFIX: Final = ".tfindex"

_LINE: Final = re.compile(rb"(0|[1-9]\d{0,17}) ([1-9]\d{0,17})")


def name_index(shard: str) -> str:
    """The index file's name for the shard of that name.

    >>> name_index("train-00000-of-00016.tfrecord")
    'train-00000-of-00016.tfindex'
    """
    return shard.removesuffix(SHARD_SUFFIX) + INDEX_SUFFIX


def format_line(offset: int, size: int) -> bytes:
    """The index line of one record; `size` includes the framing."""
    return b"%d %d\n" % (offset, size)


def parse_index(data: bytes, *, index: str, shard_bytes: int) -> list[tuple[int, int]]:
    """Reads an index, and checks that it describes a shard of that size without gaps.

    Args:
        data: the whole index file.
        index: its name, for errors.
        shard_bytes: the size of the shard it belongs to.

    Returns:
        (offset, size with framing) of each record.

    Raises:
        DatasetError: a line is malformed, or the records do not cover the shard exactly.
    """
    if data and not data.endswith(b"\n"):
        raise DatasetError(f"{index}: the last line is cut off")
    spans = [_parse_line(line, index) for line in data.split(b"\n")[:-1]]
    _check_cover(spans, index, shard_bytes)
    return spans


def _parse_line(line: bytes, index: str) -> tuple[int, int]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise DatasetError(f"{index}: {line[:40]!r} is not a line of an index")
    return int(match[1]), int(match[2])


def _check_cover(spans: Iterable[tuple[int, int]], index: str, shard_bytes: int) -> None:
    end = 0
    for number, (offset, size) in enumerate(spans):
        if offset != end or size < FRAMING_BYTES:
            raise DatasetError(
                f"{index}: record {number} is at {offset} with {size} bytes, expected at {end}"
            )
        end = offset + size
    if end != shard_bytes:
        raise DatasetError(f"{index}: ends at byte {end} of a shard of {shard_bytes} bytes")
