"""`tf.train.Example` without TensorFlow, and the features that a stored image has.

The messages are those of TensorFlow's `example.proto` and `feature.proto`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

from converter.names import from_bytes

T = TypeVar("T")

Value: TypeAlias = bytes | int | float | Sequence[bytes] | Sequence[int] | Sequence[float]
"""A scalar, or several values of one type."""

Features: TypeAlias = Mapping[str, Sequence[bytes] | Sequence[int] | Sequence[float]]

ENCODED: Final = "image/encoded"
FORMAT: Final = "image/format"
HEIGHT: Final = "image/height"
WIDTH: Final = "image/width"
CHANNELS: Final = "image/channels"
COLORSPACE: Final = "image/colorspace"
FILENAME: Final = "image/filename"
SOURCE_ID: Final = "image/source_id"
SHA256: Final = "image/key/sha256"
LABEL: Final = "image/class/label"
TEXT: Final = "image/class/text"
MASK_FORMAT: Final = "image/segmentation/class/format"
MASK_SHA256: Final = "image/segmentation/class/key/sha256"

_MAX_NAME_BYTES: Final = 4_096  # of a name that is read from a damaged record

# Tags of protobuf's wire format: the number of a field and its type, 2 for a length and a content.
_FIELD_1: Final = 1 << 3 | 2
_FIELD_2: Final = 2 << 3 | 2
_FIELD_3: Final = 3 << 3 | 2
_UNPACKED: Final = 1 << 3
_MORE: Final = 128
_MAX_SHIFT: Final = 63

# Built here, so that a worker does not import TensorFlow: 2.7 s and 500 MB, measured.
_SCHEMA: Final = """
name: "shardmill/example.proto" package: "tensorflow" syntax: "proto3"
message_type { name: "BytesList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "FloatList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT } }
message_type { name: "Int64List"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
message_type {
  name: "Feature" oneof_decl { name: "kind" }
  field { name: "bytes_list" number: 1 type_name: "BytesList" oneof_index: 0 }
  field { name: "float_list" number: 2 type_name: "FloatList" oneof_index: 0 }
  field { name: "int64_list" number: 3 type_name: "Int64List" oneof_index: 0 }
}
message_type {
  name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED type_name: "FeatureEntry" }
  nested_type {
    name: "FeatureEntry"
    options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING }
    field { name: "value" number: 2 type_name: "Feature" }
  }
}
message_type { name: "Example" field { name: "features" number: 1 type_name: "Features" } }
"""


# A pool of its own, because TensorFlow registers the same names in the default one.
_POOL: Final = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto()))
_Example: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("tensorflow.Example"))


def encode_example(features: Mapping[str, Value], types: Mapping[str, type] | None = None) -> bytes:
    """Serializes features as a `tf.train.Example`, the same bytes for the same features.

    Features without a value need their type in `types`. Raises a `TypeError` for a value that is
    not bytes, int, float or a sequence of one of them.
    """
    example = _Example()
    for name, value in features.items():
        values = [value] if isinstance(value, bytes | int | float) else list(value)
        kind = _choose_kind(name, values, (types or {}).get(name))
        field = getattr(example.features.feature[name], kind)
        field.SetInParent()  # keeps the type of a feature without a value
        field.value.extend(values)
    return _serialize(example)


def decode_example(data: bytes) -> dict[str, list[bytes] | list[int] | list[float]]:
    """The values of each feature of a `tf.train.Example`; a `ValueError` if `data` is none."""
    decoded = {}
    for name, feature in parse_example(data).features.feature.items():
        kind = feature.WhichOneof("kind")
        decoded[name] = list(getattr(feature, kind).value) if kind else []
    return decoded


def parse_example(data: bytes) -> Any:
    """The protobuf message of a `tf.train.Example`; a `ValueError` if `data` is none."""
    try:
        return _Example.FromString(data)
    except DecodeError as error:
        raise ValueError(f"not a tf.train.Example: {error}") from error


def read_value(features: Mapping[str, Sequence[Any]], name: str, kind: type[T]) -> T:
    """The only value of a feature; a `ValueError` if it has none, several, or another type."""
    values = features.get(name)
    if values is None:
        raise ValueError(f"{name} is missing")
    if len(values) != 1 or not isinstance(values[0], kind):
        raise ValueError(f"{name} is not one value of type {kind.__name__}")
    return values[0]


def strip_feature(data: memoryview, name: str) -> bytes:
    """A `tf.train.Example` without one of its features; a `ValueError` if `data` is none."""
    example = parse_example(bytes(data))
    if name in example.features.feature:
        del example.features.feature[name]
    return _serialize(example)


def find_values(
    data: memoryview, names: Collection[str], size: int | None = None
) -> dict[str, tuple[int, int]]:
    """Finds where the values of some scalar features lie in a serialized `tf.train.Example`.

    Args:
        data: the message, or only its beginning; nothing of it is copied.
        names: of features that hold one value.
        size: of the whole message, if `data` is only its beginning.

    Returns:
        by name, the first byte of the value and the one after it: of the bytes themselves, or of
        an integer's varint (`read_varint`). Missing features are left out.

    Raises:
        ValueError: `data` is not such a message, or ends before a feature that is asked for.
    """
    try:
        at, end = _enter(data, 0, size or len(data), _FIELD_1)  # Example.features
        return find_entries(data, names, at, end)
    except IndexError as error:
        raise ValueError("not a tf.train.Example: it ends too early") from error


def find_source(payload: memoryview) -> str | None:
    """Returns the path of the original in a payload, as far as damage lets it be read."""
    try:
        begin, end = find_values(payload, (SOURCE_ID,))[SOURCE_ID]
    except (ValueError, KeyError):
        return None
    return from_bytes(bytes(payload[begin : min(end, begin + _MAX_NAME_BYTES)]))


def find_entries(
    data: memoryview, names: Collection[str], at: int, end: int
) -> dict[str, tuple[int, int]]:
    """`find_values` among the features between two places of a message."""
    wanted = {name.encode(): name for name in names}
    found: dict[str, tuple[int, int]] = {}
    try:
        # Ours are sorted by name: up to the bytes of an image takes a quarter of a whole parse.
        while at < end and len(found) < len(wanted):
            entry, entry_end = _enter(data, at, end, _FIELD_1)  # Features.feature
            # Read without `_enter`, because half of the time goes into function calls; so the
            # length of a key must fit into one byte.
            key, key_end = entry + 2, entry + 2 + data[entry + 1]
            if data[entry] != _FIELD_1 or key_end - key >= _MORE or key_end > entry_end:
                raise ValueError("not a tf.train.Example as shardmill writes it")
            name = wanted.get(bytes(data[key:key_end]))
            if name is not None:
                found[name] = _find_value(data, key_end, entry_end)
            at = entry_end
    except IndexError as error:
        raise ValueError("not a tf.train.Example: it ends too early") from error
    return found


def read_varint(data: memoryview | bytes, at: int) -> tuple[int, int]:
    """The integer at a place of a message, and the place after it.

    Raises a `ValueError` if it has more than 64 bits, an `IndexError` if it is cut off.
    """
    value = shift = 0
    while (byte := data[at]) >= _MORE:
        value |= (byte - _MORE) << shift
        shift += 7
        at += 1
        if shift > _MAX_SHIFT:
            raise ValueError("not a tf.train.Example: a number of more than 64 bits")
    return value | byte << shift, at + 1


def _serialize(example: Any) -> bytes:
    # Maps have no order of their own; `deterministic` sorts them by key.
    data: bytes = example.SerializeToString(deterministic=True)
    return data


def _choose_kind(name: str, values: list[Any], expected: type | None) -> str:
    for kind, types in (("bytes_list", bytes), ("int64_list", int), ("float_list", float)):
        if expected in (None, types) and all(isinstance(value, types) for value in values):
            return kind
    raise TypeError(
        f"feature {name!r} holds {values[:3]!r}: bytes, ints or floats of one type only"
    )


def _find_value(data: memoryview, at: int, end: int) -> tuple[int, int]:
    feature, feature_end = _enter(data, at, end, _FIELD_2)  # FeatureEntry.value
    kind = data[feature]
    values, values_end = _enter(data, feature, feature_end, kind)
    if kind == _FIELD_3 and data[values] == _UNPACKED:
        return values + 1, values_end  # an unpacked integer, as older writers wrote it
    value, value_end = _enter(data, values, values_end, _FIELD_1)
    if value_end != values_end:
        raise ValueError("not a tf.train.Example with one value in each feature")
    return value, value_end


def _enter(data: memoryview, at: int, end: int, tag: int) -> tuple[int, int]:
    """The bounds of the content of the field that must begin at `at` and end by `end`."""
    if at >= end or data[at] != tag:
        raise ValueError("not a tf.train.Example as shardmill writes it")
    size, begin = data[at + 1], at + 2
    if size >= _MORE:
        size, begin = read_varint(data, at + 1)
    if begin + size > end:
        raise ValueError("not a tf.train.Example: a field goes past its end")
    return begin, begin + size
