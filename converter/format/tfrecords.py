"""TFRecord framing: how a payload becomes a record in a shard, and back.

A record is, little endian and without gaps,

    u64 length | u32 masked CRC-32C of the 8 length bytes | payload | u32 masked CRC-32C of payload

as TensorFlow's `core/lib/io/record_writer.h` defines it. A file of records has no header, footer or
count: one cut between two records looks complete. So the manifest keeps the counts, and the index
(`converter.format.indexes`) the offsets.
"""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple, TypeVar

import google_crc32c
import numpy as np
import numpy.typing as npt

from converter.errors import RecordError

Bytes = TypeVar("Bytes", bytes, memoryview)
Crcs = TypeVar("Crcs", int, npt.NDArray[np.int64])

LENGTH_BYTES: Final = 8
HEADER_BYTES: Final = 12
FOOTER_BYTES: Final = 4
FRAMING_BYTES: Final = HEADER_BYTES + FOOTER_BYTES

# Pieces of 1 MiB take three times as long: the system maps and unmaps the memory of each.
PIECE_BYTES: Final = 1 << 18

_HEADER: Final = struct.Struct("<QI")
_LENGTH: Final = struct.Struct("<Q")
_CRC: Final = struct.Struct("<I")


class _Place(NamedTuple):
    shard: str
    offset: int
    number: int | None

    def error(self, detail: str) -> RecordError:
        return RecordError(self.shard, self.offset, detail, self.number)


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

    Raises a `RecordError` with `shard`, `offset` and `number` if a checksum does not match.
    """
    place = _Place(shard, offset, number)
    if len(record) < FRAMING_BYTES:
        raise place.error(f"only {len(record)} bytes")
    payload = record[HEADER_BYTES:-FOOTER_BYTES]
    length = _read_length(record[:HEADER_BYTES], place)
    if length != len(payload):
        raise place.error(f"length {length}, expected {len(payload)}")
    _check_payload(compute_masked_crc(payload), record[-FOOTER_BYTES:], place)
    return payload


def read_records(file: BinaryIO, shard: str, file_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Reads an open shard from its beginning, one record at a time; `shard` names it in errors.

    Yields (offset of the record in bytes, payload). Raises a `RecordError` if one is cut off, or a
    checksum does not match.
    """
    for place, length in _read_lengths(file, shard, file_bytes):
        payload = file.read(length)
        _check_payload(compute_masked_crc(payload), file.read(FOOTER_BYTES), place)
        yield place.offset, payload


def scan_records(
    file: BinaryIO, shard: str, file_bytes: int, *, payloads: bool = True
) -> Iterator[int]:
    """`read_records` without the payloads, in 512 KiB however large they are.

    Yields the size of each record in bytes, framing included; their sum is `file_bytes`.
    """
    for place, length in _read_lengths(file, shard, file_bytes):
        if not payloads:  # then only the checksums of the lengths are compared
            file.seek(length + FOOTER_BYTES, os.SEEK_CUR)
        else:
            crc, rest = 0, length
            while rest and (piece := file.read(min(rest, PIECE_BYTES))):
                crc = google_crc32c.extend(crc, piece)
                rest -= len(piece)
            _check_payload(mask_crc(crc), b"" if rest else file.read(FOOTER_BYTES), place)
        yield length + FRAMING_BYTES


def is_header(data: bytes) -> bool:
    """Whether these bytes begin a record: a length with its right checksum."""
    return len(data) == HEADER_BYTES and _HEADER.unpack(data)[1] == compute_masked_crc(data[:8])


def _read_lengths(file: BinaryIO, shard: str, file_bytes: int) -> Iterator[tuple[_Place, int]]:
    """The records of a shard and the length of their payloads, each of which the caller reads."""
    offset = number = 0
    while offset < file_bytes:
        place = _Place(shard, offset, number)
        length = _read_length(file.read(HEADER_BYTES), place)
        # It decides how much memory is allocated, so it is trusted only if it fits into the file.
        if offset + length + FRAMING_BYTES > file_bytes:
            raise place.error(f"length {length} goes past the end of the file")
        yield place, length
        offset += length + FRAMING_BYTES
        number += 1


def _read_length(header: bytes | memoryview, place: _Place) -> int:
    if len(header) < HEADER_BYTES:
        raise place.error(f"header cut off after {len(header)} bytes")
    length, crc = _HEADER.unpack(header)
    if crc != compute_masked_crc(header[:8]):
        raise place.error("checksum of the length does not match")
    return int(length)


def _check_payload(crc: int, footer: bytes | memoryview, place: _Place) -> None:
    if len(footer) < FOOTER_BYTES:
        raise place.error("payload cut off")
    if _CRC.unpack(footer)[0] != crc:
        raise place.error("checksum of the payload does not match")
