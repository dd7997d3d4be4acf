"""`tf.train.Example` without TensorFlow, and the features that a stored image has.

The messages are those of TensorFlow's `example.proto` and `feature.proto`, built here from
their descriptors so that a worker does not import TensorFlow (2.7 s and 500 MB, measured). They
live in a descriptor pool of their own, because TensorFlow registers the same names in the
default one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

T = TypeVar("T")

Value: TypeAlias = bytes | int | float | Sequence[bytes] | Sequence[int] | Sequence[float]
"""What a feature may hold: a scalar, or several values of one type."""

Features: TypeAlias = Mapping[str, Sequence[bytes] | Sequence[int] | Sequence[float]]
"""The values of each feature of a record."""

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

_PACKAGE: Final = "tensorflow"

# Tags of protobuf's wire format: the number of a field and its type, 2 for a length and a content.
_FIELD_1: Final = 1 << 3 | 2
_FIELD_2: Final = 2 << 3 | 2
_FIELD_3: Final = 3 << 3 | 2
_UNPACKED: Final = 1 << 3
_MORE: Final = 128
_MAX_SHIFT: Final = 63

_Field = descriptor_pb2.FieldDescriptorProto


def _message(
    name: str, *fields: tuple[str, int, Any, Any, str], map_entry: bool = False
) -> descriptor_pb2.DescriptorProto:
    message = descriptor_pb2.DescriptorProto(name=name)
    message.options.map_entry = map_entry
    for field, number, label, kind, type_name in fields:
        message.field.add(
            name=field,
            number=number,
            label=label,
            type=kind,
            type_name=f".{_PACKAGE}.{type_name}" if type_name else None,
        )
    return message


def _build_example_class() -> Any:
    one, many = _Field.LABEL_OPTIONAL, _Field.LABEL_REPEATED
    of = _Field.TYPE_MESSAGE
    feature = _message(
        "Feature",
        ("bytes_list", 1, one, of, "BytesList"),
        ("float_list", 2, one, of, "FloatList"),
        ("int64_list", 3, one, of, "Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = _message("Features", ("feature", 1, many, of, "Features.FeatureEntry"))
    entry = _message(
        "FeatureEntry",
        ("key", 1, one, _Field.TYPE_STRING, ""),
        ("value", 2, one, of, "Feature"),
        map_entry=True,
    )
    features.nested_type.append(entry)
    file = descriptor_pb2.FileDescriptorProto(
        name="shardmill/example.proto",
        package=_PACKAGE,
        syntax="proto3",
        message_type=[
            _message("BytesList", ("value", 1, many, _Field.TYPE_BYTES, "")),
            _message("FloatList", ("value", 1, many, _Field.TYPE_FLOAT, "")),
            _message("Int64List", ("value", 1, many, _Field.TYPE_INT64, "")),
            feature,
            features,
            _message("Example", ("features", 1, one, of, "Features")),
        ],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


_Example = _build_example_class()


def encode_example(features: Mapping[str, Value], types: Mapping[str, type] | None = None) -> bytes:
    """Serializes features as a `tf.train.Example`, the same bytes for the same features.

    Args:
        features: their values.
        types: of those that may have no value.

    Raises:
        TypeError: a value is not bytes, int, float or a sequence of one of them.
    """
    example = _Example()
    for name, value in features.items():
        values = [value] if isinstance(value, bytes | int | float) else list(value)
        kind = _choose_kind(name, values, (types or {}).get(name))
        field = getattr(example.features.feature[name], kind)
        field.SetInParent()  # it has its type also without a value
        field.value.extend(values)
    # Maps have no order of their own; `deterministic` sorts them by key.
    data: bytes = example.SerializeToString(deterministic=True)
    return data


def decode_example(data: bytes) -> dict[str, list[bytes] | list[int] | list[float]]:
    """Parses a serialized `tf.train.Example`.

    Returns:
        the values of each feature; an empty list where a feature has none.

    Raises:
        ValueError: `data` is not such a message.
    """
    try:
        example = _Example.FromString(data)
    except DecodeError as error:
        raise ValueError(f"not a tf.train.Example: {error}") from error
    decoded = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        decoded[name] = list(getattr(feature, kind).value) if kind else []
    return decoded


def read_value(features: Mapping[str, Sequence[Any]], name: str, kind: type[T]) -> T:
    """The only value of a feature.

    Raises:
        ValueError: it has none, or several, or one of another type.
    """
    values = features.get(name)
    if values is None:
        raise ValueError(f"{name} is missing")
    if len(values) != 1 or not isinstance(values[0], kind):
        raise ValueError(f"{name} is not one value of type {kind.__name__}")
    return values[0]


def _choose_kind(name: str, values: list[Any], expected: type | None) -> str:
    for kind, types in (("bytes_list", bytes), ("int64_list", int), ("float_list", float)):
        if expected in (None, types) and all(isinstance(value, types) for value in values):
            return kind
    raise TypeError(
        f"feature {name!r} holds {values[:3]!r}: bytes, ints or floats of one type only"
    )


def strip_feature(data: memoryview, name: str) -> bytes:
    """A serialized `tf.train.Example` without one of its features.

    Raises:
        ValueError: `data` is not such a message.
    """
    wanted = name.encode()
    try:
        begin, end = _enter(data, 0, len(data), _FIELD_1)
        at = begin
        while at < end:
            entry, entry_end = _enter(data, at, end, _FIELD_1)
            if bytes(data[entry + 2 : entry + 2 + data[entry + 1]]) == wanted:
                rest = bytes(data[begin:at]) + bytes(data[entry_end:end])
                return bytes([_FIELD_1]) + _write_varint(len(rest)) + rest
            at = entry_end
    except IndexError as error:
        raise ValueError("not a tf.train.Example: it ends too early") from error
    return bytes(data)


def _write_varint(value: int) -> bytes:
    data = bytearray()
    while value >= _MORE:
        data.append(value % _MORE + _MORE)
        value //= _MORE
    data.append(value)
    return bytes(data)


def find_values(
    data: memoryview, names: Collection[str], size: int | None = None
) -> dict[str, tuple[int, int]]:
    """Finds where the values of some scalar features lie in a serialized `tf.train.Example`.

    Nothing is copied and nothing behind the last feature that was asked for is looked at: ours are
    sorted by name, so an image's bytes are found in a quarter of the time of a whole parse.

    Args:
        data: the message, or only its beginning.
        names: of features that hold one value.
        size: of the whole message, if `data` is only its beginning.

    Returns:
        by name, from which byte to which the value lies: the bytes themselves, or an integer's
        varint (`read_varint`). A feature that is not there is left out.

    Raises:
        ValueError: `data` is not such a message, or ends before a feature that was asked for.
    """
    try:
        at, end = _enter(data, 0, size or len(data), _FIELD_1)  # Example.features
        return find_entries(data, names, at, end)
    except IndexError as error:
        raise ValueError("not a tf.train.Example: it ends too early") from error


def find_entries(
    data: memoryview, names: Collection[str], at: int, end: int
) -> dict[str, tuple[int, int]]:
    """Does what `find_values` does, from one feature of a message on and up to a place in it."""
    wanted = {name.encode(): name for name in names}
    found: dict[str, tuple[int, int]] = {}
    try:
        while at < end and len(found) < len(wanted):
            entry, entry_end = _enter(data, at, end, _FIELD_1)  # Features.feature
            # The key, whose length is one byte: half of the time goes into calls of functions.
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


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """The integer at a place of a message, and the place behind it.

    Raises:
        ValueError: it has more than 64 bits.
        IndexError: it is cut off.
    """
    value = shift = 0
    while (byte := data[at]) >= _MORE:
        value |= (byte - _MORE) << shift
        shift += 7
        at += 1
        if shift > _MAX_SHIFT:
            raise ValueError("not a tf.train.Example: a number of more than 64 bits")
    return value | byte << shift, at + 1


def _find_value(data: memoryview, at: int, end: int) -> tuple[int, int]:
    feature, feature_end = _enter(data, at, end, _FIELD_2)  # FeatureEntry.value
    kind = data[feature]
    values, values_end = _enter(data, feature, feature_end, kind)
    if kind == _FIELD_3 and data[values] == _UNPACKED:
        return values + 1, values_end  # one integer alone, as older writers wrote it
    value, value_end = _enter(data, values, values_end, _FIELD_1)
    if value_end != values_end:
        raise ValueError("not a tf.train.Example with one value in each feature")
    return value, value_end


def _enter(data: memoryview, at: int, end: int, tag: int) -> tuple[int, int]:
    """The content of the length-delimited field that has to begin at `at` and end by `end`."""
    if at >= end or data[at] != tag:
        raise ValueError("not a tf.train.Example as shardmill writes it")
    size, begin = data[at + 1], at + 2
    if size >= _MORE:
        size, begin = read_varint(data, at + 1)
    if begin + size > end:
        raise ValueError("not a tf.train.Example: a field goes past its end")
    return begin, begin + size
