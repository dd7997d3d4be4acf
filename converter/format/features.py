"""The features of a `tf.train.Example` from anyone, without reading its images.

Where `converter.format.examples` trusts the layout of our own records, this takes every order, tag
and length that protobuf allows, and bounds what it reads, keeps and decodes.
"""

from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple, TypeAlias

from converter.format.examples import parse_example, read_varint

Fetch: TypeAlias = Callable[[int, int], bytes]
"""Gives bytes of a message, by their first place and their number; fewer only at its end."""

MAX_FEATURES: Final = 4_096
MAX_LEFT_BYTES: Final = 1 << 20  # of a feature that is not skimmed over
MAX_BYTES: Final = 1 << 23  # of all of them together

_PIECE_BYTES: Final = 4_096
_ENTRY_BYTES: Final = 1_024  # in which the name of a feature that is held ends
_HEAD_BYTES: Final = 11  # a tag and the longest length

# Tags of protobuf's wire format: the number of a field, and 2 for a length and a content.
_FIRST, _SECOND = 1 << 3 | 2, 2 << 3 | 2
_NOT_EXAMPLE: Final = "not a tf.train.Example"


class Features(NamedTuple):
    """What `skim_features` found in a record."""

    message: Any  # the protobuf map of the features that were read
    # Features that were left where they are, by name: the first byte of the only value, and its
    # size. None if it is not one value of bytes.
    held: dict[str, tuple[int, int] | None]

    @property
    def names(self) -> list[str]:
        """All names, in order."""
        return sorted({*self.message, *self.held})

    def read(self, name: str) -> list[bytes] | list[int] | list[float]:
        """The values of a feature; a `ValueError` if it was too large to be read."""
        if name in self.held:
            raise ValueError(f"{name} has more than {MAX_LEFT_BYTES:,} bytes")
        if name not in self.message:
            return []
        feature = self.message[name]
        kind = feature.WhichOneof("kind")
        return list(getattr(feature, kind).value) if kind else []

    def locate(self, name: str) -> tuple[int, int]:
        """Where a feature that was left lies, as in `held`; a `ValueError` if it has no place."""
        if name not in self.held:
            raise ValueError(f"{name} is missing")
        if (place := self.held[name]) is None:
            raise ValueError(f"{name} is not one value of bytes")
        return place

    def describe(self) -> str:
        """Names and types of all features, for people."""
        types = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}
        found = dict.fromkeys(self.held, "bytes")
        found |= {
            name: types.get(feature.WhichOneof("kind"), "empty")
            for name, feature in self.message.items()
        }
        return ", ".join(f"{name} ({found[name]})" for name in sorted(found)) or "none"


def skim_features(fetch: Fetch, size: int, held: Collection[str] = ()) -> Features:
    """Reads the features of a message of that size, but leaves those in `held` where they are.

    Takes `MAX_BYTES` of memory, and three times that to parse. Raises a `ValueError` if it is not a
    `tf.train.Example`, or has more than `MAX_FEATURES`.
    """
    window = _Window(fetch, size)
    names = {name.encode("utf-8", "surrogateescape") for name in held}
    found: dict[str, tuple[int, int] | None] = {}
    count = 0
    at, end = _find_features(window)
    window.begin_run(at)
    while at < end:
        count += 1
        if count > MAX_FEATURES:
            raise ValueError(f"over {MAX_FEATURES:,} features")
        name, begin, entry_end = window.read_entry(at, end)
        if name in names or entry_end - at > MAX_LEFT_BYTES:
            window.end_run(at)
            found[name.decode("utf-8", "backslashreplace")] = window.find_value(begin, entry_end)
            window.begin_run(entry_end)
        at = entry_end
    window.end_run(end)
    return Features(parse_example(_frame(b"".join(window.kept))).features.feature, found)


def read_held(payload: bytes, name: str) -> bytes:
    """The only value of a feature of bytes; a `ValueError` if there is none."""
    features = skim_features(lambda at, size: payload[at : at + size], len(payload), [name])
    begin, size = features.locate(name)
    return payload[begin : begin + size]


def _frame(content: bytes) -> bytes:
    """The message whose first field has that content."""
    length, digits = len(content), bytearray()
    while length > 127:
        digits.append(length & 127 | 128)
        length >>= 7
    return bytes((_FIRST, *digits, length)) + content


def _find_features(window: "_Window") -> tuple[int, int]:
    """The bounds of the first field of the message; nothing of what follows is needed."""
    if not window.size:
        return 0, 0
    at, end = window.enter(0, window.size, _FIRST)
    if end < window.size and window.look(end, 1)[0] == _SECOND:
        raise ValueError("a tf.train.SequenceExample")
    return at, end


class _Window:
    """A message of which only a piece is in memory, and runs of features that are kept of it."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        self.size, self.kept = size, list[bytes]()
        self._fetch, self._begin, self._data = fetch, 0, fetch(0, min(size, _PIECE_BYTES))
        self._run = self._kept_bytes = 0

    def begin_run(self, at: int) -> None:
        """Begins a run of features that are kept."""
        self._run = at

    def end_run(self, at: int) -> None:
        """Keeps all bytes from the beginning of the run on."""
        if at > self._run:
            self._kept_bytes += at - self._run
            if self._kept_bytes > MAX_BYTES:
                raise ValueError(f"features of more than {MAX_BYTES:,} bytes")
            self.kept.append(self.look(self._run, at - self._run))

    def read_entry(self, at: int, end: int) -> tuple[bytes, int, int]:
        """The name of the feature whose entry begins at a place, and the bounds of its content."""
        # Most of a scan's time is spent here, so nothing is called that need not be.
        data, place = self._data, at - self._begin
        if place < 0 or (place + _ENTRY_BYTES > len(data) and self._begin + len(data) < self.size):
            self._move(at)
            data, place = self._data, 0
        try:
            if data[place] != _FIRST:
                raise ValueError(_NOT_EXAMPLE)
            length, content = data[place + 1], place + 2
            if length > 127:
                length, content = read_varint(data, place + 1)
        except IndexError:
            raise ValueError(f"{_NOT_EXAMPLE}: it ends too early") from None
        begin = self._begin + content
        if begin + length > end:
            raise ValueError(f"{_NOT_EXAMPLE}: a field goes past its end")
        if length < 2 or data[content] != _FIRST:
            return b"", begin, begin + length  # it has no name, or not in front
        name_bytes, start = data[content + 1], content + 2
        if name_bytes > 127:
            name_bytes, start = read_varint(data[: content + _HEAD_BYTES], content + 1)
        return data[start : start + name_bytes], begin, begin + length

    def _move(self, at: int) -> None:
        """Goes on to the piece that begins at a place; what the run has so far is kept."""
        if self._begin <= self._run < at <= self._begin + len(self._data):
            self.end_run(at)
            self._run = at
        self._begin = at
        self._data = self._fetch(at, min(_PIECE_BYTES, self.size - at))

    def look(self, at: int, size: int) -> bytes:
        """Up to `size` bytes, which are fetched if they are not in memory; fewer at the end."""
        size = min(size, self.size - at)
        begin = at - self._begin
        if begin < 0 or begin + size > len(self._data):
            self._begin, begin = at, 0
            self._data = self._fetch(at, min(max(size, _PIECE_BYTES), self.size - at))
        found = self._data[begin : begin + size]
        if len(found) < size:
            raise ValueError(f"{_NOT_EXAMPLE}: it ends too early")
        return found

    def enter(self, at: int, end: int, tag: int) -> tuple[int, int]:
        """The bounds of the content of the field at a place, which must have that tag."""
        head = self.look(at, min(_HEAD_BYTES, end - at))
        try:
            if head[0] != tag:
                raise ValueError(_NOT_EXAMPLE)
            length, content = read_varint(head, 1)
        except IndexError:
            raise ValueError(f"{_NOT_EXAMPLE}: it ends too early") from None
        start = at + content
        if start + length > end:
            raise ValueError(f"{_NOT_EXAMPLE}: a field goes past its end")
        return start, start + length

    def find_value(self, at: int, end: int) -> tuple[int, int] | None:
        """Where the only value of a feature of bytes lies in its entry."""
        try:
            _, at = self.enter(at, end, _FIRST)  # FeatureEntry.key
            at, value_end = self.enter(at, end, _SECOND)  # FeatureEntry.value
            at, list_end = self.enter(at, value_end, _FIRST)  # Feature.bytes_list
            at, item_end = self.enter(at, list_end, _FIRST)  # BytesList.value
        except ValueError:
            return None
        whole = item_end == list_end == value_end == end
        return (at, item_end - at) if whole else None
