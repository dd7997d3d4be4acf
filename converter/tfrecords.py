"""TFRecord framing: how a payload becomes a record in a shard, and back.

A record is, little endian and without gaps,

    u64 length | u32 masked CRC-32C of the 8 length bytes | payload | u32 masked CRC-32C of payload

as TensorFlow's `core/lib/io/record_writer.h` defines it. A file of records has no header, no
footer and no count: one cut between two records looks complete, so counts are kept in the
manifest and offsets in the index (`converter.indexes`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

import google_crc32c

from converter.errors import RecordError

HEADER_BYTES: Final = 12
FOOTER_BYTES: Final = 4
FRAMING_BYTES: Final = HEADER_BYTES + FOOTER_BYTES

_HEADER: Final = struct.Struct("<QI")
_LENGTH: Final = struct.Struct("<Q")
_CRC: Final = struct.Struct("<I")


def compute_masked_crc(data: bytes) -> int:
    """The CRC-32C of `data`, rotated and offset.

    The mask keeps a CRC stored beside its data from being summed into a useless CRC of a CRC.
    """
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame_record(payload: bytes) -> bytes:
    """The record that holds `payload`: `len(payload) + FRAMING_BYTES` bytes."""
    length = _LENGTH.pack(len(payload))
    return b"".join(
        (
            length,
            _CRC.pack(compute_masked_crc(length)),
            payload,
            _CRC.pack(compute_masked_crc(payload)),
        )
    )


def unframe_record(record: bytes, *, shard: str, offset: int, number: int | None = None) -> bytes:
    """The payload of exactly one record.

    Args:
        record: the whole record, framing included.
        shard: the shard's name, for the error.
        offset: where the record begins, for the error.
        number: which record of the shard it is, for the error.

    Raises:
        RecordError: the length or a checksum does not fit.
    """
    if len(record) < FRAMING_BYTES:
        raise RecordError(shard, offset, f"only {len(record)} bytes", number)
    length = _read_length(record[:HEADER_BYTES], shard, offset, number)
    if length != len(record) - FRAMING_BYTES:
        raise RecordError(
            shard, offset, f"length {length}, expected {len(record) - FRAMING_BYTES}", number
        )
    payload = record[HEADER_BYTES:-FOOTER_BYTES]
    _check_payload(payload, record[-FOOTER_BYTES:], shard, offset, number)
    return payload


def read_records(file: BinaryIO, shard: str, file_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Reads a shard from its beginning, one record at a time.

    A length is believed only after its checksum and `file_bytes` agree with it: a hostile length
    must not decide how much memory is asked for.

    Args:
        file: the open shard, at its beginning.
        shard: its name, for errors.
        file_bytes: its size.

    Yields:
        (offset of the record in bytes, payload).

    Raises:
        RecordError: a record is cut off, or a checksum does not fit.
    """
    offset = number = 0
    while header := file.read(HEADER_BYTES):
        length = _read_length(header, shard, offset, number)
        if offset + length + FRAMING_BYTES > file_bytes:
            raise RecordError(
                shard, offset, f"length {length} goes past the end of the file", number
            )
        payload = file.read(length)
        _check_payload(payload, file.read(FOOTER_BYTES), shard, offset, number)
        yield offset, payload
        offset += length + FRAMING_BYTES
        number += 1


def _read_length(header: bytes, shard: str, offset: int, number: int | None) -> int:
    if len(header) < HEADER_BYTES:
        raise RecordError(shard, offset, f"header cut off after {len(header)} bytes", number)
    length, crc = _HEADER.unpack(header)
    if crc != compute_masked_crc(header[:8]):
        raise RecordError(shard, offset, "checksum of the length does not match", number)
    return int(length)


def _check_payload(
    payload: bytes, footer: bytes, shard: str, offset: int, number: int | None
) -> None:
    if len(footer) < FOOTER_BYTES:
        raise RecordError(shard, offset, "payload cut off", number)
    if _CRC.unpack(footer)[0] != compute_masked_crc(payload):
        raise RecordError(shard, offset, "checksum of the payload does not match", number)
