"""Images that are stored raw, read straight into the batch they belong to.

The bytes are copied once, by the system, from its cache to their place in the batch; the checksum
is computed there, while they are still in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator

from converter.errors import RecordError
from converter.names import to_bytes
from converter.tfrecords import FOOTER_BYTES, HEADER_BYTES, check_framing
from reader.buffers import Array
from reader.columns import find_name, read_head
from reader.damage import DamageLog
from reader.files import LARGE_BYTES, Place, check_large, open_file, read_into
from reader.orders import Numbers
from reader.records import RecordFiles


def read_pixels(
    files: RecordFiles,
    numbers: Numbers,
    rows: Array,
    slots: Numbers,
    damage: DamageLog,
    *,
    classes: int,
    with_names: bool,
) -> Iterator[tuple[int, int, bytes]]:
    """Reads raw images of one size.

    Args:
        files: that hold them.
        numbers: int64 (n,), of the records, in any order.
        rows: uint8 (batch, height, width, channels); row `slots[i]` becomes record `numbers[i]`.
        slots: int64 (n,).
        damage: is told of damaged records, which are then left out.
        classes: how many labels there are.
        with_names: give the paths of the originals too.

    Yields:
        (index into `numbers`, label, path of the original or b"").

    Raises:
        RecordError: a record is damaged, and that is the policy.
        DatasetError: a file or index is missing, or is not what it should be.
    """
    for file, places in files.locate(numbers):
        with open_file(file.path) as descriptor:
            for index, place in places:
                try:
                    label, tail = _read_row(descriptor, place, rows[slots[index]])
                    if label >= classes:
                        raise place.describe(
                            f"label {label}, expected less than {classes}", _guess_name(tail, place)
                        )
                    name = to_bytes(find_name(tail, place)) if with_names else b""
                except RecordError as error:  # noqa: PERF203 (each may be damaged)
                    damage.report(error)
                else:
                    yield index, label, name


def _read_row(descriptor: int, place: Place, row: Array) -> tuple[int, memoryview]:
    head = read_head(descriptor, place)
    if head.end - head.begin != row.nbytes:
        raise place.describe(f"an image of {head.end - head.begin} bytes, expected {row.nbytes}")
    begin = HEADER_BYTES + head.begin
    tail_bytes = place.size - begin - row.nbytes
    if tail_bytes > LARGE_BYTES:
        check_large(descriptor, place)
    tail = bytearray(tail_bytes)
    read_into(descriptor, place, place.offset + begin, [row.data, tail])
    rest = memoryview(tail).toreadonly()
    try:
        check_framing(
            head.data[:HEADER_BYTES],
            (head.data[HEADER_BYTES:begin], row, rest[:-FOOTER_BYTES]),
            rest[-FOOTER_BYTES:],
            shard=place.file.path.name,
            offset=place.offset,
        )
    except RecordError as error:
        raise place.describe(error.detail, _guess_name(rest[:-FOOTER_BYTES], place)) from error
    return head.label, rest[:-FOOTER_BYTES]


def _guess_name(tail: memoryview, place: Place) -> str | None:
    try:
        return find_name(tail, place)
    except RecordError:
        return None
