"""What one step of planning as a job leaves for the next ones: facts, and pieces of bytes.

    4 bytes, little-endian                the size of the head
    {"facts": {…}, "sizes": […]}          the head: a few facts, and the size of each piece
    piece, piece, …                       of which a step reads only those that it needs

Behind each of these are four bytes, the CRC-32C of the file's name and of it, which its size has in
it: a later run keeps such a file, and a flipped bit in it would give another plan.

A file is written once, whole: whatever a second worker finds for the same part is dropped, so all
that follows goes by the same one.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import google_crc32c
import numpy as np
import numpy.typing as npt

from converter.entries import Entries
from converter.entry_columns import Numbers, Texts
from converter.errors import OutputError
from converter.storage.location import Location

Records: TypeAlias = npt.NDArray[np.void]
"""Numbers of some images, of one structured dtype: (images,)."""
Bucket: TypeAlias = tuple[Records, Texts]
"""The records of one bucket, and the text of each."""

_SIZE_BYTES: Final = 4
_SUM_BYTES: Final = 4
_START_BYTES: Final = _SIZE_BYTES + _SUM_BYTES
_FIRST_BYTES: Final = 1 << 16  # read at once, so that most heads take one request
_AHEAD: Final = 64  # files of which pieces are requested before they are needed


def write_part(
    path: Location, scratch: Location, facts: Mapping[str, Any], pieces: Sequence[bytes] = ()
) -> None:
    """Writes a file, unless there is one already."""
    sizes = [len(piece) + _SUM_BYTES for piece in pieces]
    head = json.dumps({"facts": facts, "sizes": sizes}).encode("ascii")
    size = (len(head) + _SUM_BYTES).to_bytes(_SIZE_BYTES, "little")
    try:
        with path.create(scratch, exclusive=True) as file:
            for piece in (size, head, *pieces):
                file.write(piece)
                file.write(_sum_up(piece, path))
    except OutputError:
        if not path.exists():
            raise


def read_facts(paths: Iterable[Location]) -> Iterator[dict[str, Any]]:
    """The facts in some files, of which a store sends many at a time."""
    for head, _ in _read_heads(paths):
        yield head["facts"]


def read_pieces(
    paths: Iterable[Location], first: int, stop: int | None = None, *, ahead: int = _AHEAD
) -> Iterator[list[bytes]]:
    """For each file, its pieces from `first` up to `stop`, or to the end.

    Holds the pieces of `ahead` files in memory, if they lie in a store.
    """

    def request(path: Location, head: dict[str, Any], offset: int) -> Callable[[], list[bytes]]:
        sizes = head["sizes"]
        begin, wanted = offset + sum(sizes[:first]), sizes[first:stop]
        read = path.start_read(begin, sum(wanted))
        return lambda: [_unseal(piece, path) for piece in _cut(read(), wanted)]

    listed = list(paths)
    for some in _batch(listed, ahead):
        found = _read_heads(some)
        for read in [request(path, *one) for path, one in zip(some, found, strict=True)]:
            yield read()


def _read_heads(paths: Iterable[Location]) -> Iterator[tuple[dict[str, Any], int]]:
    """Each head, and the offset of what follows it."""
    for some in _batch(list(paths)):
        for path, read in [(path, path.start_read(0, _FIRST_BYTES)) for path in some]:
            data = read()
            end = _START_BYTES + int.from_bytes(_unseal(data[:_START_BYTES], path), "little")
            if end > len(data):
                data += path.read_range(len(data), end - len(data))
            yield json.loads(_unseal(data[_START_BYTES:end], path)), end


def _sum_up(piece: bytes, path: Location) -> bytes:
    name = f"{path.parent.name}/{path.name}".encode("ascii")
    crc: int = google_crc32c.extend(google_crc32c.value(name), piece)
    return crc.to_bytes(_SUM_BYTES, "little")


def _unseal(data: bytes, path: Location) -> bytes:
    """A piece without its sum; removes a file that is damaged, and raises OutputError."""
    piece = data[:-_SUM_BYTES]
    if _sum_up(piece, path) != data[-_SUM_BYTES:]:
        path.unlink(missing_ok=True)
        raise OutputError(
            f"{path} was damaged, and is removed: run the same command again, and check the disk"
        )
    return piece


def _batch(paths: Sequence[Location], size: int = _AHEAD) -> Iterator[Sequence[Location]]:
    for begin in range(0, len(paths), size):
        yield paths[begin : begin + size]


def _cut(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    ends = itertools.accumulate(sizes, initial=0)
    return (data[begin:end] for begin, end in itertools.pairwise(ends))


def pack_entries(entries: Entries) -> list[bytes]:
    """Paths, sizes, labels and given splits of images, as five pieces."""
    columns = entries.paths.ends, entries.sizes, entries.labels, entries.splits
    return [bytes(entries.paths.data), *(column.tobytes() for column in columns)]


def unpack_entries(pieces: Sequence[bytes]) -> Entries:
    """The images that `pack_entries` packed."""
    paths, ends, sizes, labels, splits = pieces
    return Entries.of_columns(
        Texts.of_buffer(paths, to_numbers(ends)),
        to_numbers(sizes),
        np.frombuffer(labels, np.int32),
        np.frombuffer(splits, np.int8),
    )


def pack_buckets(
    buckets: npt.NDArray[np.integer[Any]],
    count: int,
    kind: np.dtype[np.void],
    columns: Mapping[str, npt.NDArray[Any]],
    texts: Texts,
) -> list[bytes]:
    """Deals images out to buckets, in order: two pieces for each, as `unpack_bucket` takes them.

    Args:
        buckets: the number of the bucket of each image, below `count`.
        count: of the buckets.
        kind: fields of a record: those of `columns`, others that are zero, and `length`, that of
            its text in bytes.
        columns: of all images: (images,) or (images, n).
        texts: one for each image.
    """
    order = np.argsort(buckets, kind="stable")
    bounds = np.searchsorted(buckets, np.arange(count + 1), sorter=order)
    records = np.zeros(len(order), kind)
    for name, values in {**columns, "length": np.diff(texts.ends)}.items():
        records[name] = values[order]
    pieces = []
    for begin, end in itertools.pairwise(bounds.tolist()):
        pieces += [records[begin:end].tobytes(), bytes(texts.take(order[begin:end]).data)]
    return pieces


def read_bucket(
    paths: Iterable[Location], number: int, kind: np.dtype[np.void], *, before: int = 0
) -> Bucket:
    """The bucket of that number of all files, in order, behind so many other pieces in each."""
    first = before + 2 * number
    return unpack_bucket([*read_pieces(paths, first, first + 2)], kind)


def unpack_bucket(pairs: Sequence[Sequence[bytes]], kind: np.dtype[np.void]) -> Bucket:
    """The records and texts of one bucket, from the two pieces that each file has of it."""
    records = np.frombuffer(b"".join(columns for columns, _ in pairs), kind)
    ends = np.concatenate(([0], np.cumsum(records["length"], dtype=np.int64)))
    return records, Texts.of_buffer(b"".join(texts for _, texts in pairs), ends)


def to_numbers(data: bytes) -> Numbers:
    """A piece of whole numbers: int64 (numbers,)."""
    return np.frombuffer(data, np.int64)
