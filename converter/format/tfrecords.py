"""TFRecord framing: how a payload becomes a record in a shard, and back.

A record is, little endian and without gaps,

    u64 length | u32 masked CRC-32C of the 8 length bytes | payload | u32 masked CRC-32C of payload

as TensorFlow's `core/lib/io/record_writer.h` defines it. A file of records has no header, footer or
count: one cut between two records looks complete. So the manifest keeps the counts, and the index
(`converter.format.indexes`) the offsets.
"""

import functools
import os
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, TypeAlias, TypeVar

import google_crc32c
import numpy as np
import numpy.typing as npt

from converter.errors import RecordError

Bytes = TypeVar("Bytes", bytes, memoryview)
Crcs = TypeVar("Crcs", int, npt.NDArray[np.int64])

# Makes the error of one record from what is wrong with it.
_Describe: TypeAlias = Callable[[str], RecordError]

LENGTH_BYTES: Final = 8
HEADER_BYTES: Final = 12
FOOTER_BYTES: Final = 4
FRAMING_BYTES: Final = HEADER_BYTES + FOOTER_BYTES

# Pieces of 1 MiB take three times as long: the system maps and unmaps the memory of each.
PIECE_BYTES: Final = 1 << 18

_HEADER: Final = struct.Struct("<QI")
_LENGTH: Final = struct.Struct("<Q")
_CRC: Final = struct.Struct("<I")


def compute_masked_crc(data: bytes | memoryview) -> int:
    """The masked CRC-32C of some data."""
    # google_crc32c takes bytes and arrays, but no memoryview.
    array = np.frombuffer(data, np.uint8) if isinstance(data, memoryview) else data
    crc: int = google_crc32c.value(array)
    return mask_crc(crc)


def mask_crc(crc: Crcs) -> Crcs:
    """Rotates and offsets a CRC-32C, or an int64 array of them."""
    # A plain CRC stored beside its data would make a CRC over both useless.
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame_record(payload: bytes) -> bytes:
    """The record that holds `payload`: `len(payload) + FRAMING_BYTES` bytes."""
    length = _LENGTH.pack(len(payload))
    length_crc, payload_crc = (_CRC.pack(compute_masked_crc(data)) for data in (length, payload))
    return b"".join((length, length_crc, payload, payload_crc))


def unframe_record(record: Bytes, *, shard: str, offset: int, number: int | None = None) -> Bytes:
    """The payload of exactly one record, not copied if `record` is a memoryview.

    Raises a `RecordError` with `shard`, `offset` and `number` if length or checksum do not match.
    """
    describe = functools.partial(RecordError, shard, offset, record=number)
    if len(record) < FRAMING_BYTES:
        raise describe(f"only {len(record)} bytes")
    payload = record[HEADER_BYTES:-FOOTER_BYTES]
    length = _read_length(record[:HEADER_BYTES], describe)
    if length != len(payload):
        raise describe(f"length {length}, expected {len(payload)}")
    _check_payload(compute_masked_crc(payload), record[-FOOTER_BYTES:], describe)
    return payload


def read_records(file: BinaryIO, shard: str, file_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Reads an open shard from its beginning, one record at a time; `shard` names it in errors.

    Yields (offset of the record in bytes, payload). Raises a `RecordError` if one is cut off, or a
    checksum does not match.
    """
    for offset, length, describe in _read_lengths(file, shard, file_bytes):
        payload = file.read(length)
        _check_payload(compute_masked_crc(payload), file.read(FOOTER_BYTES), describe)
        yield offset, payload


def scan_records(
    file: BinaryIO, shard: str, file_bytes: int, *, payloads: bool = True
) -> Iterator[int]:
    """`read_records` without the payloads, in 512 KiB however large they are.

    Yields the size of each record in bytes, framing included; their sum is `file_bytes`.
    """
    for _, length, describe in _read_lengths(file, shard, file_bytes):
        if not payloads:  # then only the checksums of the lengths are compared
            file.seek(length + FOOTER_BYTES, os.SEEK_CUR)
        else:
            crc, rest = 0, length
            while rest and (piece := file.read(min(rest, PIECE_BYTES))):
                crc = google_crc32c.extend(crc, piece)
                rest -= len(piece)
            _check_payload(mask_crc(crc), b"" if rest else file.read(FOOTER_BYTES), describe)
        yield length + FRAMING_BYTES


def is_header(data: bytes) -> bool:
    """Whether these bytes begin a record: a length with its right checksum."""
    return len(data) == HEADER_BYTES and _HEADER.unpack(data)[1] == compute_masked_crc(data[:8])


def _read_lengths(
    file: BinaryIO, shard: str, file_bytes: int
) -> Iterator[tuple[int, int, _Describe]]:
    """The offset of each record, and the length of its payload, which the caller reads."""
    offset = number = 0
    while offset < file_bytes:
        describe = functools.partial(RecordError, shard, offset, record=number)
        length = _read_length(file.read(HEADER_BYTES), describe)
        # It decides how much memory is allocated, so it is trusted only if it fits into the file.
        if offset + length + FRAMING_BYTES > file_bytes:
            raise describe(f"length {length} goes past the end of the file")
        yield offset, length, describe
        offset += length + FRAMING_BYTES
        number += 1


def _read_length(header: bytes | memoryview, describe: _Describe) -> int:
    if len(header) < HEADER_BYTES:
        raise describe(f"header cut off after {len(header)} bytes")
    length, crc = _HEADER.unpack(header)
    if crc != compute_masked_crc(header[:8]):
        raise describe("checksum of the length does not match")
    return int(length)


def _check_payload(crc: int, footer: bytes | memoryview, describe: _Describe) -> None:
    if len(footer) < FOOTER_BYTES:
        raise describe("payload cut off")
    if _CRC.unpack(footer)[0] != crc:
        raise describe("checksum of the payload does not match")
