"""Checks the headers of a Parquet file before Arrow reads them, which believes what they say.

With Arrow 25, columns nested 10,000 deep end the process, and so does asking for the size of a
column that is encrypted; a footer with a million columns takes 4 GB, and a page of 60 KB that holds
nothing but zeros takes 6 GB.

The headers are structures of `parquet.thrift` (https://github.com/apache/parquet-format) in the
compact protocol of Thrift; of each, no more is read than what is checked.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

TAIL_BYTES: Final = 8  # the size of the footer, and the mark of the format
MARK: Final = b"PAR1"

MAX_FOOTER_BYTES: Final = 16 << 20
_ENCRYPTED_MARK: Final = b"PARE"
_ENCRYPTED: Final = "it is encrypted, and no key can be given: decrypt it first"
_MAX_COLUMNS: Final = 50_000  # with those that hold others
_MAX_DEPTH: Final = 100

# What a column or a page takes in memory: images do not get smaller, and few texts by this factor.
_MAX_RATIO: Final = 200
_FREE_BYTES: Final = 64 << 20

# Fields of `FileMetaData`, `SchemaElement` and `PageHeader`.
_SCHEMA, _ENCRYPTION = 2, 8
_CHILDREN: Final = 5
_TYPE, _PLAIN_BYTES, _PACKED_BYTES = 1, 2, 3
_DICTIONARY: Final = 2  # of `PageType`

# Kinds of values in the compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12

# Of a page's header, which may have an image in its statistics: tried one after the other.
_HEADER_BYTES: Final = (1 << 10, 1 << 24)


class Page(NamedTuple):
    """What the header of a page says."""

    is_dictionary: bool  # of values that the other pages repeat
    plain_bytes: int  # in memory
    end: int  # where the next one begins


def find_footer(tail: bytes, file_bytes: int) -> int:
    """The size of the footer, from the last 8 bytes; ValueError if there cannot be one."""
    if tail[4:] == _ENCRYPTED_MARK:
        raise ValueError(_ENCRYPTED)
    if tail[4:] != MARK:
        raise ValueError("it does not end as Parquet does: cut off, or something else")
    size = int.from_bytes(tail[:4], "little")
    if size > file_bytes - TAIL_BYTES - len(MARK):
        raise ValueError(f"its footer claims {size:,} bytes, more than there are")
    if size > MAX_FOOTER_BYTES:
        raise ValueError(
            f"its footer has {size:,} bytes, at most {MAX_FOOTER_BYTES:,}: write fewer columns, "
            "larger row groups or more files"
        )
    return size


def check_footer(footer: bytes) -> None:
    """Raises ValueError if columns are too many, nested too deep, encrypted, or damaged."""
    count = 0
    open_groups: list[int] = []  # how many children of each group are still to come
    try:
        for children in _list_children(_Thrift(footer)):
            count += 1
            while open_groups and not open_groups[-1]:
                open_groups.pop()
            if open_groups:
                open_groups[-1] -= 1
            if children > 0:
                open_groups.append(children)
            if count > _MAX_COLUMNS + 1 or len(open_groups) > _MAX_DEPTH + 1:
                raise ValueError(
                    f"it has over {_MAX_COLUMNS:,} columns, or nests them over {_MAX_DEPTH} deep"
                )
    except (IndexError, RecursionError) as error:
        raise ValueError("its footer is damaged") from error


def check_sizes(plain_bytes: int, packed_bytes: int) -> None:
    """Raises ValueError for a column or page that is far larger in memory than in the file."""
    if plain_bytes > _FREE_BYTES + _MAX_RATIO * max(0, packed_bytes):
        raise ValueError(f"{packed_bytes:,} bytes claim to be {plain_bytes:,}: damaged, or a bomb")


def check_pages(read: Callable[[int, int], bytes], begin: int, end: int) -> None:
    """Looks at the header of each page between two offsets; `read` takes an offset and a size.

    Raises ValueError for a page that is far larger in memory than in the file.
    """
    while begin < end:
        begin = read_page(read, begin, end).end


def read_page(read: Callable[[int, int], bytes], begin: int, end: int) -> Page:
    """The header of the page at an offset in a column that ends at another; ValueError as above."""
    thrift, numbers = _Thrift(b""), {_TYPE: 0, _PLAIN_BYTES: 0, _PACKED_BYTES: 0}
    for size in _HEADER_BYTES:
        thrift = _Thrift(read(begin, min(size, end - begin)))
        with contextlib.suppress(IndexError, RecursionError):
            for field, kind in thrift.read_fields():
                if field in numbers:
                    numbers[field] = thrift.read_int()
                else:
                    thrift.skip(kind)
            break
    else:
        raise ValueError(f"there is no header of a page at byte {begin:,}")
    kind, plain_bytes, packed_bytes = numbers.values()
    check_sizes(plain_bytes, packed_bytes)
    if packed_bytes < 0:
        raise ValueError(f"the page at byte {begin:,} claims {packed_bytes:,} bytes")
    return Page(kind == _DICTIONARY, plain_bytes, begin + thrift.at + packed_bytes)


def _list_children(thrift: "_Thrift") -> Iterator[int]:
    """The number of children of each column, in the order of the schema, from its root on."""
    for field, kind in thrift.read_fields():
        if field == _ENCRYPTION:
            raise ValueError(_ENCRYPTED)
        if field != _SCHEMA:
            thrift.skip(kind)
            continue
        for _ in range(thrift.read_head()[1]):
            children = 0
            for inner, inner_kind in thrift.read_fields():
                if inner == _CHILDREN:
                    children = thrift.read_int()
                else:
                    thrift.skip(inner_kind)
            yield children


class _Thrift:
    """Bytes in the compact protocol; IndexError where they end too early."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def read_byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def read_varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.read_byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise IndexError

    def read_int(self) -> int:
        value = self.read_varint()
        return (value >> 1) ^ -(value & 1)

    def read_fields(self) -> Iterator[tuple[int, int]]:
        """The number and the kind of each field, whose value is to be read before the next one."""
        field = 0
        while head := self.read_byte():
            field = field + (head >> 4) if head >> 4 else self.read_int()
            yield field, head & 15

    def read_head(self) -> tuple[int, int]:
        """The kind and the number of the values of a list."""
        head = self.read_byte()
        return head & 15, self.read_varint() if head >> 4 == 15 else head >> 4

    def skip(self, kind: int, *, listed: bool = False) -> None:
        """Goes past a value; truth is a byte only in a list."""
        if kind in (_TRUE, _FALSE, _BYTE):
            self.at += listed or kind == _BYTE
        elif kind == _DOUBLE:
            self.at += 8
        elif kind == _BINARY:
            size = self.read_varint()
            self.at += size
        elif kind in (_LIST, _SET):
            inner, count = self.read_head()
            self._skip_all(inner, count)
        elif kind == _MAP:
            if count := self.read_varint():
                kinds = self.read_byte()
                for _ in range(count):
                    self._skip_all(kinds >> 4, 1)
                    self._skip_all(kinds & 15, 1)
        elif kind == _STRUCT:
            for _, inner in self.read_fields():
                self.skip(inner)
        else:
            self.read_varint()

    def _skip_all(self, kind: int, count: int) -> None:
        for _ in range(count):
            self.skip(kind, listed=True)
            if self.at > len(self.data):
                raise IndexError
