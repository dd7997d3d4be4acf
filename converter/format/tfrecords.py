"""TFRecord framing: how a payload becomes a record in a shard, and back.

A record is, little endian and without gaps,

    u64 length | u32 masked CRC-32C of the 8 length bytes | payload | u32 masked CRC-32C of payload

as TensorFlow's `core/lib/io/record_writer.h` defines it. A file of records has no header, no
footer and no count: one cut between two records looks complete, so counts are kept in the
manifest and offsets in the index (`converter.format.indexes`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final, TypeAlias, TypeVar

import google_crc32c
import numpy as np
import numpy.typing as npt

from converter.errors import RecordError

Buffer: TypeAlias = bytes | memoryview | npt.NDArray[np.uint8]
Bytes = TypeVar("Bytes", bytes, memoryview)
Crcs = TypeVar("Crcs", int, npt.NDArray[np.int64])

LENGTH_BYTES: Final = 8
HEADER_BYTES: Final = 12
FOOTER_BYTES: Final = 4
FRAMING_BYTES: Final = HEADER_BYTES + FOOTER_BYTES

# Pieces of 1 MiB take three times as long: the system gives and takes the memory of each anew.
PIECE_BYTES: Final = 1 << 18

_HEADER: Final = struct.Struct("<QI")
_LENGTH: Final = struct.Struct("<Q")
_CRC: Final = struct.Struct("<I")


def compute_masked_crc(*pieces: Buffer) -> int:
    """The masked CRC-32C of some data, which may lie in several pieces."""
    crc = 0
    for piece in pieces:
        # google_crc32c takes bytes and arrays, but no memoryview.
        data = np.frombuffer(piece, np.uint8) if isinstance(piece, memoryview) else piece
        crc = google_crc32c.extend(crc, data)
    return mask_crc(crc)


def mask_crc(crc: Crcs) -> Crcs:
    """Rotates and offsets a CRC-32C, or an int64 array of them.

    So a CRC that is stored beside its data is not summed into a useless CRC of a CRC.
    """
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


def unframe_record(record: Bytes, *, shard: str, offset: int, number: int | None = None) -> Bytes:
    """The payload of exactly one record, not copied if `record` is a memoryview.

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
    payload = record[HEADER_BYTES:-FOOTER_BYTES]
    check_framing(
        record[:HEADER_BYTES],
        (payload,),
        record[-FOOTER_BYTES:],
        shard=shard,
        offset=offset,
        number=number,
    )
    return payload


def check_framing(
    header: bytes | memoryview,
    payload: Sequence[Buffer],
    footer: bytes | memoryview,
    *,
    shard: str,
    offset: int,
    number: int | None = None,
) -> None:
    """Checks a record that lies in pieces.

    Args:
        header: its first 12 bytes.
        payload: what comes next, in order.
        footer: its last 4 bytes.
        shard: the shard's name, for the error.
        offset: where the record begins, for the error.
        number: which record of the shard it is, for the error.

    Raises:
        RecordError: the length or a checksum does not fit.
    """
    length = _read_length(header, shard, offset, number)
    expected = sum(len(piece) if isinstance(piece, bytes) else piece.nbytes for piece in payload)
    if length != expected:
        raise RecordError(shard, offset, f"length {length}, expected {expected}", number)
    _check_payload(payload, footer, shard, offset, number)


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
        _check_end(length, file_bytes, shard, offset, number)
        payload = file.read(length)
        _check_payload((payload,), file.read(FOOTER_BYTES), shard, offset, number)
        yield offset, payload
        offset += length + FRAMING_BYTES
        number += 1


def scan_records(
    file: BinaryIO, shard: str, file_bytes: int, *, payloads: bool = True
) -> Iterator[int]:
    """Finds the records of a shard as `read_records` does, in 512 KiB however large they are.

    Args:
        file: the open shard, at its beginning.
        shard: its name, for errors.
        file_bytes: its size.
        payloads: whether to read payloads and to compare their checksums.

    Yields:
        the size of each record in bytes, framing included; their sum is `file_bytes`.

    Raises:
        RecordError: a record is cut off, or a checksum does not fit.
    """
    offset = number = 0
    while offset < file_bytes:
        length = _read_length(file.read(HEADER_BYTES), shard, offset, number)
        _check_end(length, file_bytes, shard, offset, number)
        if payloads:
            _scan_payload(file, length, shard, offset, number)
        else:
            file.seek(length + FOOTER_BYTES, os.SEEK_CUR)
        yield length + FRAMING_BYTES
        offset += length + FRAMING_BYTES
        number += 1


def is_header(data: bytes) -> bool:
    """Whether these bytes begin a record: a length with the checksum that belongs to it."""
    return len(data) == HEADER_BYTES and _HEADER.unpack(data)[1] == compute_masked_crc(data[:8])


def _scan_payload(file: BinaryIO, length: int, shard: str, offset: int, number: int) -> None:
    crc = 0
    while length and (piece := file.read(min(length, PIECE_BYTES))):
        crc = google_crc32c.extend(crc, piece)
        length -= len(piece)
    footer = file.read(FOOTER_BYTES)
    if length or len(footer) < FOOTER_BYTES:
        raise RecordError(shard, offset, "payload cut off", number)
    if _CRC.unpack(footer)[0] != mask_crc(crc):
        raise RecordError(shard, offset, "checksum of the payload does not match", number)


def _check_end(length: int, file_bytes: int, shard: str, offset: int, number: int) -> None:
    if offset + length + FRAMING_BYTES > file_bytes:
        raise RecordError(shard, offset, f"length {length} goes past the end of the file", number)


def _read_length(header: bytes | memoryview, shard: str, offset: int, number: int | None) -> int:
    if len(header) < HEADER_BYTES:
        raise RecordError(shard, offset, f"header cut off after {len(header)} bytes", number)
    length, crc = _HEADER.unpack(header)
    if crc != compute_masked_crc(header[:8]):
        raise RecordError(shard, offset, "checksum of the length does not match", number)
    return int(length)


def _check_payload(
    payload: Sequence[Buffer],
    footer: bytes | memoryview,
    shard: str,
    offset: int,
    number: int | None,
) -> None:
    if len(footer) < FOOTER_BYTES:
        raise RecordError(shard, offset, "payload cut off", number)
    if _CRC.unpack(footer)[0] != compute_masked_crc(*payload):
        raise RecordError(shard, offset, "checksum of the payload does not match", number)
