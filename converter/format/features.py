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
_KEY_BYTES: Final = 512  # in which the name of a feature, and all before its value, must end

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
    at, end = _find_features(window)
    names = {name.encode("utf-8", "surrogateescape") for name in held}
    found: dict[str, tuple[int, int] | None] = {}
    kept: list[bytes] = []
    count = kept_bytes = 0
    while at < end:
        begin, entry_end = window.enter(at, end, _FIRST)
        count += 1
        if count > MAX_FEATURES:
            raise ValueError(f"over {MAX_FEATURES:,} features")
        name = window.read_name(begin, entry_end)
        if name in names or entry_end - at > MAX_LEFT_BYTES:
            found[name.decode("utf-8", "backslashreplace")] = window.find_value(begin, entry_end)
        else:
            kept.append(window.take(at, entry_end))
            kept_bytes += entry_end - at
            if kept_bytes > MAX_BYTES:
                raise ValueError(f"features of more than {MAX_BYTES:,} bytes")
        at = entry_end
    content = b"".join(kept)
    return Features(parse_example(_frame(content)).features.feature, found)


def read_held(payload: bytes, name: str) -> bytes:
    """The only value of a feature of bytes; a `ValueError` if there is none."""
    features = skim_features(lambda at, size: payload[at : at + size], len(payload), [name])
    if name not in features.held:
        raise ValueError(f"{name} is missing")
    if (place := features.held[name]) is None:
        raise ValueError(f"{name} is not one value of bytes")
    return payload[place[0] : sum(place)]


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
    """A message of which only a piece is in memory."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        self.size = size
        self._fetch, self._begin, self._data = fetch, 0, fetch(0, min(size, _PIECE_BYTES))

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

    def take(self, at: int, end: int) -> bytes:
        """All bytes between two places."""
        return self.look(at, end - at)

    def enter(self, at: int, end: int, tag: int) -> tuple[int, int]:
        """The bounds of the content of the field at a place, which must have that tag."""
        head = self.look(at, min(11, end - at))
        try:
            if head[0] != tag:
                raise ValueError(_NOT_EXAMPLE)
            length, begin = read_varint(memoryview(head), 1)
        except IndexError:
            raise ValueError(f"{_NOT_EXAMPLE}: it ends too early") from None
        if at + begin + length > end:
            raise ValueError(f"{_NOT_EXAMPLE}: a field goes past its end")
        return at + begin, at + begin + length

    def read_name(self, at: int, end: int) -> bytes:
        """The name of a feature; empty if its entry does not begin with one."""
        head = self.look(at, min(_KEY_BYTES, end - at))
        if not head or head[0] != _FIRST:
            return b""
        begin, name_end = self.enter(at, end, _FIRST)
        return head[begin - at : name_end - at]

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
