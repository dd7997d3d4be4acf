"""`tf.train.Example` without TensorFlow: the same bytes as TensorFlow's own."""

import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.format.examples import decode_example, encode_example, strip_feature

QUICK = settings(deadline=None, max_examples=50)

INTS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(width=32, allow_nan=False)
# An empty list has no type, so it reads back the same whatever it was meant to hold.
VALUES = st.lists(st.binary()) | st.lists(INTS) | st.lists(FLOATS)
FEATURES = st.dictionaries(st.text(max_size=20), VALUES, max_size=5)

SAMPLE = {
    "image/encoded": b"\x00\xff pixels",
    "image/height": 24,
    "label": -1,
    "weights": [0.5, -2.0],
    "words": [b"a", b""],
    "ids": [2**63 - 1, -(2**63)],
    "größe": 1.5,
}


def to_tensorflow(tf, features):
    """The same features as TensorFlow's own message."""
    example = tf.train.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
        feature = getattr(example.features.feature[name], kinds[type(values[0])])
        feature.value.extend(values)
    return example


@QUICK
@given(FEATURES)
def test_features_read_back(features):
    assert decode_example(encode_example(features)) == features


def test_a_scalar_is_a_list_of_one():
    assert decode_example(encode_example({"a": 1, "b": b"x", "c": 0.5})) == {
        "a": [1],
        "b": [b"x"],
        "c": [0.5],
    }


@QUICK
@given(FEATURES)
def test_the_order_of_the_features_does_not_show(features):
    turned = dict(reversed(features.items()))
    assert encode_example(turned) == encode_example(features)


def test_the_bytes_are_those_of_tensorflow():
    tf = pytest.importorskip("tensorflow")
    expected = to_tensorflow(tf, SAMPLE).SerializeToString(deterministic=True)
    assert encode_example(SAMPLE) == expected


def test_tensorflow_reads_what_is_encoded_here():
    tf = pytest.importorskip("tensorflow")
    assert tf.train.Example.FromString(encode_example(SAMPLE)) == to_tensorflow(tf, SAMPLE)


def test_what_tensorflow_encodes_is_read_here():
    tf = pytest.importorskip("tensorflow")
    example = to_tensorflow(tf, SAMPLE)
    example.features.feature["empty"].SetInParent()
    assert decode_example(example.SerializeToString()) == {
        "empty": [],
        **{name: value if isinstance(value, list) else [value] for name, value in SAMPLE.items()},
    }


@pytest.mark.parametrize("value", ["text", [1, 2.5], [b"x", 1], [None], [[1]]])
def test_other_types_are_refused(value):
    with pytest.raises(TypeError, match=re.escape(f"feature 'f' holds {list(value)[:3]!r}")):
        encode_example({"f": value})


def test_what_is_no_example_is_refused():
    with pytest.raises(ValueError, match=r"^not a tf\.train\.Example: "):
        decode_example(b"\x0a\xff")


def test_a_cut_example_is_never_read_as_a_whole_one():
    data = encode_example(SAMPLE)
    whole = decode_example(data)
    for size in range(len(data)):
        with contextlib.suppress(ValueError):
            assert decode_example(data[:size]) != whole


def test_a_feature_without_a_value_has_its_type():
    one, other = (encode_example({"a": []}, {"a": kind}) for kind in (int, float))
    assert one != other
    assert decode_example(one) == decode_example(other) == {"a": []}


def test_a_feature_can_be_stripped():
    features = {"a": b"x" * 300, "image/encoded": b"y" * 70_000, "z": [1, 2]}
    data = memoryview(encode_example(features))
    stripped = strip_feature(data, "image/encoded")
    assert decode_example(stripped) == {"a": [b"x" * 300], "z": [1, 2]}
    assert stripped == encode_example({"a": b"x" * 300, "z": [1, 2]})
    assert strip_feature(data, "b") == bytes(data)
    with pytest.raises(ValueError, match=r"not a tf\.train\.Example"):
        strip_feature(data[:100], "z")
