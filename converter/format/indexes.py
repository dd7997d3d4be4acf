r"""The index of a shard: where each record lies, one line a record.

A line is `"{offset} {size}\n"` in decimal: the record's first byte in the shard, and its size
with the framing. NVIDIA DALI's and vahidk/tfrecord's `tfrecord2idx` write the same, and both
read ours.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from converter.errors import DatasetError
from converter.format.tfrecords import FRAMING_BYTES

_LINE: Final = re.compile(rb"(0|[1-9]\d{0,17}) ([1-9]\d{0,17})")
_MAX_DIGITS: Final = 18  # the end of a record, the sum of two such numbers, fits into 63 bits

MAX_LINE_BYTES: Final = 2 * _MAX_DIGITS + 2

# Parsed at once, so that the intermediate arrays stay in the processor's cache.
PIECE_BYTES: Final = 1 << 18

_Bytes = npt.NDArray[np.uint8]
_Numbers = npt.NDArray[np.int64]

# Put before the text, so that 8 bytes precede every digit of the first number.
_PADDING: Final = bytes(24)

# The mask for 8 characters of which the last 0 to 8 are digits: leaves their values.
_DIGITS: Final = np.array(
    [0x0F0F0F0F0F0F0F0F >> 8 * (8 - n) << 8 * (8 - n) for n in range(9)], np.uint64
)

# Joins neighbours three times: 8 digits, 4 pairs, 2 fours, 1 eight.
_JOINS: Final = (
    (np.uint64(10 * 2**8 + 1), np.uint64(8), np.uint64(0x00FF00FF00FF00FF)),
    (np.uint64(100 * 2**16 + 1), np.uint64(16), np.uint64(0x0000FFFF0000FFFF)),
    (np.uint64(10_000 * 2**32 + 1), np.uint64(32), np.uint64(0x00000000FFFFFFFF)),
)


def format_line(offset: int, size: int) -> bytes:
    """The index line of one record; `size` includes the framing."""
    return b"%d %d\n" % (offset, size)


def parse_index(data: bytes, *, index: str, shard_bytes: int) -> npt.NDArray[np.int64]:
    """Reads a whole index, and checks that it describes a shard of that size without gaps.

    Returns int64[records + 1], in bytes: where each record begins, and where the last one ends.
    Raises a `DatasetError` that names `index` for a malformed line or a gap.
    """
    if data and not data.endswith(b"\n"):
        raise DatasetError(f"{index}: the last line is cut off")
    pieces = (data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES))
    return parse_pieces(pieces, index=index, shard_bytes=shard_bytes)


def parse_pieces(pieces: Iterable[bytes], *, index: str, shard_bytes: int) -> _Numbers:
    """`parse_index` for an index that is read piece by piece, in 16 bytes of memory a record."""
    ends: list[_Numbers] = [np.zeros(1, np.int64)]
    records = end = 0
    for lines in _cut_lines(pieces, index):
        ends.append(_parse_lines(lines, index, records, end))
        records, end = records + len(ends[-1]), int(ends[-1][-1])
        if end > shard_bytes:
            break  # a file may claim to hold more than any memory
    if end != shard_bytes:
        raise DatasetError(f"{index}: ends at byte {end} of a shard of {shard_bytes} bytes")
    return np.concatenate(ends)


def parse_offsets(pieces: Iterable[bytes], *, index: str, shard_bytes: int) -> _Numbers:
    """`parse_pieces` in a third of its time, for an index that is verified by its checksum.

    Reads only the offsets. Even those of a forged index lie within the shard.
    """
    parts = [_parse_offsets(lines, index) for lines in _cut_lines(pieces, index)]
    bounds = np.concatenate([*parts, np.array([shard_bytes], np.int64)])
    if bounds[0] or np.any(bounds[1:] < bounds[:-1] + FRAMING_BYTES):
        raise DatasetError(
            f"{index} does not belong to a shard of {shard_bytes} bytes: run shardmill verify"
        )
    return bounds


def _cut_lines(pieces: Iterable[bytes], index: str) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        lines, newline, rest = (rest + piece).rpartition(b"\n")
        if newline:
            yield lines + newline
        if len(rest) > MAX_LINE_BYTES:
            raise _describe_line(rest, index)
    if rest:
        raise DatasetError(f"{index}: the last line is cut off")


def _parse_offsets(data: bytes, index: str) -> _Numbers:
    """Where the records of some whole lines begin."""
    text, stops, lengths = _split(data)
    lengths = lengths[::2]  # those of the offsets
    if len(stops) % 2 or int(lengths.max()) > _MAX_DIGITS:
        raise _describe_line(data, index)
    return _read_numbers(text, stops[::2], lengths)


def _parse_lines(data: bytes, index: str, first: int, begin: int) -> _Numbers:
    """Where the records of some whole lines end; the record `first` must begin at `begin`."""
    text, stops, lengths = _split(data)
    if not _is_well_formed(text, stops, lengths):
        raise _describe_line(
            next(line for line in data.split(b"\n") if not _LINE.fullmatch(line)), index
        )
    offsets = _read_numbers(text, stops[::2], lengths[::2])
    sizes = _read_numbers(text, stops[1::2], lengths[1::2])
    bounds = np.empty(len(offsets) + 1, np.int64)
    bounds[0] = begin
    np.add(offsets, sizes, out=bounds[1:])
    wrong = np.flatnonzero((offsets != bounds[:-1]) | (sizes < FRAMING_BYTES))
    if wrong.size:
        number = int(wrong[0])
        raise DatasetError(
            f"{index}: record {first + number} is at {offsets[number]} with {sizes[number]} bytes, "
            f"expected at {bounds[number]}"
        )
    return bounds[1:]


def _split(data: bytes) -> tuple[_Bytes, _Numbers, _Numbers]:
    """The padded text, the places of its bytes below a digit, and the length before each."""
    text = np.frombuffer(_PADDING + data, np.uint8)
    stops = np.flatnonzero(text < ord("0"))[len(_PADDING) :]
    lengths = stops - len(_PADDING)
    lengths[1:] -= stops[:-1] - (len(_PADDING) - 1)  # np.diff would take as long as the rest
    return text, stops, lengths


def _describe_line(line: bytes, index: str) -> DatasetError:
    return DatasetError(f"{index}: {line[:40]!r} is not a line of an index")


def _is_well_formed(text: _Bytes, stops: _Numbers, lengths: _Numbers) -> bool:
    """Whether all lines match `_LINE`, tested at once."""
    zeros = text[stops - lengths] == ord("0")
    found = text[stops]
    return (
        len(stops) % 2 == 0
        and int(text.max()) <= ord("9")
        and bool(np.all(found[::2] == ord(" ")) and np.all(found[1::2] == ord("\n")))
        and bool(np.all(lengths >= 1) and np.all(lengths <= _MAX_DIGITS))
        and bool(np.all(lengths[zeros] == 1) and not np.any(zeros[1::2]))
    )


def _read_numbers(text: _Bytes, stops: _Numbers, lengths: _Numbers) -> _Numbers:
    """The decimal numbers of up to 18 digits that end before `stops`."""
    numbers = _read_eight(text, stops, lengths)
    for place in range(8, int(lengths.max(initial=0)), 8):
        numbers += _read_eight(text, stops - place, lengths - place) * 10**place
    return numbers


def _read_eight(text: _Bytes, stops: _Numbers, lengths: _Numbers) -> _Numbers:
    """The last 8 digits of each number; fewer if it is shorter, 0 if it has none."""
    # 8 digits are one word of 64 bits: digit by digit it would take three times as long.
    windows: npt.NDArray[np.uint64] = np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))
    words = windows[stops - 8]
    words &= _DIGITS.take(lengths, mode="clip")
    for factor, shift, mask in _JOINS:
        words *= factor
        words >>= shift
        words &= mask
    return words.view(np.int64)
