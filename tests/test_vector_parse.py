"""Fields of many records at once: the very spans that one record after another gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.format.examples import encode_example, find_values, read_varint
from reader.examples.vector_parse import find_spans, read_numbers

NAMES = ("image/class/label", "image/encoded", "image/source_id")

QUICK = settings(deadline=None, max_examples=50)

scalars = st.one_of(st.binary(max_size=300), st.integers(0, 2**31 - 1))
others = st.dictionaries(st.text(min_size=1, max_size=30), scalars, max_size=4)


def lay_out(payloads: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends = np.cumsum([len(payload) for payload in payloads])
    begins = ends - [len(payload) for payload in payloads]
    return np.frombuffer(b"".join(payloads), np.uint8), begins, ends


def encode(label: int = 3, image: bytes = b"pixels", name: bytes = b"a/b.png", **more) -> bytes:
    return encode_example(dict(zip(NAMES, (label, image, name), strict=True)) | more)


@QUICK
@given(
    st.lists(st.tuples(st.integers(0, 2**31 - 1), st.binary(max_size=40_000)), min_size=1),
    others,
)
def test_spans_are_those_of_one_record_after_another(records, more):
    more = {name: value for name, value in more.items() if name not in NAMES}
    payloads = [encode(label, image, **more) for label, image in records]
    data, begins, ends = lay_out(payloads)
    starts, stops, valid = find_spans(data, begins, ends, NAMES)
    labels, single = read_numbers(data, starts[0], stops[0])
    assert valid.all()
    assert single.all()
    for number, (label, image) in enumerate(records):
        found = find_values(memoryview(payloads[number]), NAMES)
        for row, name in enumerate(NAMES):
            span = (int(starts[row, number]), int(stops[row, number]))
            assert found[name] == tuple(place - int(begins[number]) for place in span)
        assert data[starts[1, number] : stops[1, number]].tobytes() == image
        assert labels[number] == label


@QUICK
@given(st.data())
def test_what_is_changed_in_one_record_is_not_taken_for_something_else(data):
    """A span that is found in a damaged record is the one that the careful way finds too."""
    payloads = [encode(number, bytes([number]) * 50) for number in range(4)]
    victim = data.draw(st.integers(0, 3))
    spoiled = bytearray(payloads[victim])
    spoiled[data.draw(st.integers(0, len(spoiled) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    payloads[victim] = bytes(spoiled)
    block, begins, ends = lay_out(payloads)
    starts, stops, valid = find_spans(block, begins, ends, NAMES)
    for number in np.flatnonzero(valid).tolist():
        found = find_values(memoryview(payloads[number]), NAMES)
        for row, name in enumerate(NAMES):
            begin = int(begins[number])
            assert found[name] == (starts[row, number] - begin, stops[row, number] - begin)
    assert victim == 0 or valid[[number for number in range(4) if number != victim]].all()


@QUICK
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5))
def test_anything_at_all_is_looked_through_without_an_error(payloads):
    data, begins, ends = lay_out([*payloads, b"\n"])
    _, _, valid = find_spans(data, begins, ends, NAMES)
    assert not valid.any()


def test_a_record_laid_out_otherwise_than_the_first_is_left_to_the_careful_way():
    plain = encode()
    data, begins, ends = lay_out([plain, encode(**{"image/class/other": 1}), plain])
    assert find_spans(data, begins, ends, NAMES)[2].tolist() == [True, False, True]


@pytest.mark.parametrize("value", [[1, 2], [], b"not a number", 2.5])
def test_a_label_that_is_not_one_integer_is_not_read(value):
    payload = encode_example(dict(zip(NAMES, (value, b"pixels", b"name"), strict=True)))
    data, begins, ends = lay_out([payload, payload])
    starts, stops, valid = find_spans(data, begins, ends, NAMES)
    numbers, single = read_numbers(data, starts[0], stops[0])
    for taken, number in zip(valid & single, numbers, strict=True):
        assert not taken or number == read_varint(memoryview(data), int(starts[0, 0]))[0]


@pytest.mark.parametrize("value", [0, 127, 128, 300, 2**21, 2**28 - 1, 2**31 - 1])
def test_numbers_of_every_length_are_read(value):
    data, begins, ends = lay_out([encode(value), encode(5)])
    starts, stops, _ = find_spans(data, begins, ends, NAMES)
    numbers, single = read_numbers(data, starts[0], stops[0])
    assert single.all()
    assert numbers.tolist() == [value, 5]


def test_a_number_has_to_fill_its_span():
    data = np.array([1, 2, 3], np.uint8)
    begins, ends = np.array([0, 1]), np.array([1, 3])
    numbers, single = read_numbers(data, begins, ends)
    assert (numbers.tolist(), single.tolist()) == ([1, 2], [True, False])
