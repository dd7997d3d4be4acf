"""`tf.train.Example` without TensorFlow, and the features that a stored image has.

The messages are those of TensorFlow's `example.proto` and `feature.proto`, built here from
their descriptors so that a worker does not import TensorFlow (2.7 s and 500 MB, measured). They
live in a descriptor pool of their own, because TensorFlow registers the same names in the
default one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

Value: TypeAlias = bytes | int | float | Sequence[bytes] | Sequence[int] | Sequence[float]
"""What a feature may hold: a scalar, or several values of one type."""

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

_PACKAGE: Final = "tensorflow"
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


def encode_example(features: Mapping[str, Value]) -> bytes:
    """Serializes features as a `tf.train.Example`, the same bytes for the same features.

    Raises:
        TypeError: a value is not bytes, int, float or a sequence of one of them.
    """
    example = _Example()
    for name, value in features.items():
        values = [value] if isinstance(value, bytes | int | float) else list(value)
        kind = _choose_kind(name, values)
        getattr(example.features.feature[name], kind).value.extend(values)
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


def _choose_kind(name: str, values: list[Any]) -> str:
    for kind, types in (("bytes_list", bytes), ("int64_list", int), ("float_list", float)):
        if all(isinstance(value, types) for value in values):
            return kind
    raise TypeError(
        f"feature {name!r} holds {values[:3]!r}: bytes, ints or floats of one type only"
    )
