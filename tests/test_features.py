"""The features of anyone's records: every layout that protobuf allows, and nothing unbounded."""

import contextlib

import pytest
from conftest import limit_memory
from hypothesis import given
from hypothesis import strategies as st

from converter.format import features as limits
from converter.format.examples import decode_example, encode_example
from converter.format.features import MAX_FEATURES, MAX_LEFT_BYTES, read_held, skim_features

NAMES = st.text(max_size=200)
LISTS = st.one_of(
    st.lists(st.binary(max_size=5_000), max_size=4),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50),
    st.lists(st.floats(width=32, allow_nan=False), max_size=50),
)


def fetch_of(payload: bytes, asked: list | None = None):
    def fetch(at: int, size: int) -> bytes:
        if asked is not None:
            asked.append((at, size))
        return payload[at : at + size]

    return fetch


def skim(payload: bytes, held=()):
    return skim_features(fetch_of(payload), len(payload), held)


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def entry(name: bytes, value: bytes) -> bytes:
    return field(1, field(1, name) + field(2, value))


def image_entry(name: bytes, data: bytes) -> bytes:
    return entry(name, field(1, field(1, data)))


@given(st.dictionaries(NAMES, LISTS, max_size=6))
def test_all_features_are_those_that_protobuf_reads(found):
    payload = encode_example(found, {name: bytes for name, values in found.items() if not values})
    skimmed = skim(payload)
    assert {name: skimmed.read(name) for name in skimmed.message} == decode_example(payload)
    assert skimmed.names == sorted(found)


@given(st.dictionaries(NAMES, st.binary(max_size=9_000), min_size=1, max_size=6), st.data())
def test_held_features_stay_where_they_are(found, data):
    payload = encode_example(found)
    held = data.draw(st.sets(st.sampled_from(sorted(found))))
    skimmed = skim(payload, held)
    assert skimmed.held.keys() == held
    for name in held:
        begin, size = skimmed.held[name]
        assert payload[begin : begin + size] == found[name] == read_held(payload, name)
    for name in found.keys() - held:
        assert skimmed.read(name) == [found[name]]


@given(st.binary(max_size=400))
def test_any_bytes_are_features_or_a_value_error(payload):
    with contextlib.suppress(ValueError):
        skim(payload, ["image"])


@given(st.data())
def test_every_changed_byte_is_features_or_a_value_error(data):
    payload = bytearray(encode_example({"image": b"x" * 5_000, "label": 3, "name": b"n"}))
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        skim(bytes(payload), ["image"])


def test_an_image_is_not_read():
    payload = encode_example({"a": 1, "image": bytes(3_000_000), "z": b"end"})
    asked: list[tuple[int, int]] = []
    skimmed = skim_features(fetch_of(payload, asked), len(payload), ["image"])
    assert (skimmed.read("a"), skimmed.read("z")) == ([1], [b"end"])
    assert sum(size for _, size in asked) < 20_000


def test_a_large_feature_is_left_even_if_it_is_not_held():
    payload = encode_example({"image": bytes(MAX_LEFT_BYTES + 1), "label": 1})
    skimmed = skim(payload)
    assert skimmed.held["image"][1] == MAX_LEFT_BYTES + 1
    with pytest.raises(ValueError, match="more than 1,048,576"):
        skimmed.read("image")


@pytest.mark.parametrize(
    "value",
    [
        field(1, field(1, b"one") + field(1, b"two")),  # two values
        field(3, field(1, b"\x01\x02")),  # whole numbers
        field(1, b""),  # none
        b"",
    ],
)
def test_what_is_held_must_be_one_value_of_bytes(value):
    payload = field(1, entry(b"image", value))
    assert skim(payload, ["image"]).held == {"image": None}
    with pytest.raises(ValueError, match="value of bytes"):
        read_held(payload, "image")
    with pytest.raises(ValueError, match="other is missing"):
        read_held(payload, "other")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (field(1, image_entry(b"a", b"b")) + field(2, b"lists"), "SequenceExample"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "past its end"),  # 8 EB
        (b"\x0a" + b"\xff" * 10, "more than 64 bits"),
        (b"\x0a\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "past its end"),  # negative
        (b"\x0b", "not a tf.train.Example"),  # a group
        (b"hello, this is a letter", "not a tf.train.Example"),
        (b"\x0a", "too early"),
        (field(1, b"\x10\x01"), "not a tf.train.Example"),  # an unknown field
        (field(1, entry(b"\xff\xfe", field(1, field(1, b"x")))), "not a tf.train.Example"),
    ],
)
def test_what_is_no_example_is_said(payload, message):
    with pytest.raises(ValueError, match=message):
        skim(payload)


def test_a_million_features_are_refused_before_they_take_memory():
    payload = field(1, b"".join(image_entry(b"%07d" % n, b"") for n in range(100_000)))
    with limit_memory(8 << 20), pytest.raises(ValueError, match=f"{MAX_FEATURES:,} features"):
        skim(payload)


def test_many_large_features_are_refused(monkeypatch):
    monkeypatch.setattr(limits, "MAX_BYTES", 10_000)
    payload = field(1, b"".join(image_entry(b"%d" % n, bytes(3_000)) for n in range(4)))
    with pytest.raises(ValueError, match="more than 10,000"):
        skim(payload)


def test_nesting_and_unknown_fields_inside_a_feature_do_no_harm():
    deep = b""
    for _ in range(20_000):
        deep = field(4, deep)  # no field of a feature: skipped, however deep
    payload = field(1, entry(b"a", deep) + image_entry(b"b", b"c"))
    skimmed = skim(payload)
    assert (skimmed.read("a"), skimmed.read("b")) == ([], [b"c"])


def test_features_are_described_by_name_and_type():
    payload = encode_example({"image": b"x", "label": 1, "score": 0.5})
    described = "image (bytes), label (int64), score (float)"
    assert skim(payload, ["image"]).describe() == described
    assert skim(b"").describe() == "none"
