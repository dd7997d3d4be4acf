"""What a batch needs of its records: found in all at once as in each by itself."""

import dataclasses

import numpy as np
import pytest
from conftest import encode_image, make_image
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.format.examples import encode_example, find_values, read_varint
from converter.format.manifest import ImageInfo
from converter.format.schema import BOXES, MASK, Column
from converter.format.tfrecords import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES, frame_record
from reader.examples.fields import Given, find_fields, find_spans, parse_payload, read_numbers
from reader.records.blocks import Block, check_records

GOOD = {
    "image/class/label": 2,
    "image/encoded": encode_image(make_image(1), "PNG"),
    "image/height": 24,
    "image/source_id": b"ant/1.png",
    "image/width": 32,
}


def want(image_format: str = "png", **changes: object) -> Given:
    image = ImageInfo(
        height=None, width=None, max_height=30, max_width=32, channels=3, formats={image_format: 1}
    )
    return dataclasses.replace(Given(image=image, classes=5), **changes)


def of_one_size(wanted: Given, height: int, width: int) -> Given:
    sizes = {"height": height, "width": width, "max_height": height, "max_width": width}
    return dataclasses.replace(wanted, image=dataclasses.replace(wanted.image, **sizes))


def lay_out(payloads: list[bytes]) -> Block:
    data = np.frombuffer(b"".join(map(frame_record, payloads)), np.uint8)
    stops = np.cumsum([len(payload) + FRAMING_BYTES for payload in payloads])
    starts = np.concatenate([[0], stops[:-1]])
    return Block(
        data=data,
        indexes=np.arange(len(payloads)),
        begins=starts + HEADER_BYTES,
        ends=stops - FOOTER_BYTES,
        valid=check_records(data, starts, stops),
    )


def cut(block: Block, spans: np.ndarray, row: int) -> bytes:
    return block.data[spans[0, row] : spans[1, row]].tobytes()


def encode_stored(seed: int, image_format: str) -> bytes:
    image = make_image(seed, 24 + seed, 32)
    return image.tobytes() if image_format == "raw" else encode_image(image, image_format.upper())


@pytest.mark.parametrize("with_names", [False, True])
@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp", "raw"])
def test_both_ways_find_the_same(image_format, with_names):
    payloads = [
        encode_example(
            GOOD
            | {
                "image/class/label": seed,
                "image/encoded": encode_stored(seed, image_format),
                "image/height": 24 + seed,
            }
        )
        for seed in range(5)
    ]
    block, wanted = lay_out(payloads), want(image_format, with_names=with_names)
    found = find_fields(block, wanted)
    assert found.valid.all()
    for number, payload in enumerate(payloads):
        field = parse_payload(memoryview(payload), wanted)
        assert field.label == found.labels[number] == number
        assert field.size == tuple(found.sizes[number]) == (24 + number, 32)
        assert field.image == cut(block, found.images, number)
        if with_names:
            assert field.name == cut(block, found.names, number) == b"ant/1.png"


COLUMNS = (Column(name="weight", kind="float"), Column(name=BOXES, kind="boxes"))


@pytest.mark.parametrize("labelled", [False, True])
def test_both_ways_find_the_same_masks_and_values(labelled):
    mask = encode_image(make_image(2, mode="L"), "PNG")
    payloads = [
        encode_example(GOOD | {MASK: mask, "weight": [seed / 2], BOXES: [0.0, 0.25, 0.5, 1.0]})
        for seed in range(3)
    ]
    block = lay_out(payloads)
    wanted = want(
        masks=True,
        columns={column.name: column for column in COLUMNS},
        labelled=labelled,
        with_names=True,
    )
    found = find_fields(block, wanted)
    assert found.valid.all()
    for number, payload in enumerate(payloads):
        field = parse_payload(memoryview(payload), wanted)
        assert field.label == found.labels[number] == (2 if labelled else 0)
        assert field.mask == cut(block, found.masks, number) == mask
        assert field.image == cut(block, found.images, number) == GOOD["image/encoded"]
        assert field.name == cut(block, found.names, number)
        assert field.values == found.values[number]
        assert [list(value) for value in field.values] == [[number / 2], [0.0, 0.25, 0.5, 1.0]]


def refuse(change: dict[str, object], message: str, wanted: Given) -> None:
    """Makes sure that both ways refuse a record, and neither its neighbours."""
    good, bad = encode_example(GOOD), encode_example(GOOD | change)
    found = find_fields(lay_out([good, bad, good]), wanted)
    assert found.valid.tolist() == [True, False, True]
    assert not find_fields(lay_out([bad]), wanted).valid.any()
    with pytest.raises(ValueError, match=message):
        parse_payload(memoryview(bad), wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image/class/label": b"two"}, "not one value of type int"),
        ({"image/class/label": 5}, "^label 5, expected less than 5$"),
        ({"image/class/label": -1}, "^label -1, expected less than 5$"),
        ({"image/class/label": 2**40}, "^label 1099511627776, expected less than 5$"),
        ({"image/encoded": b"\xff\xd8 cut"}, "not a JPEG"),
        ({"image/encoded": b"GIF89a"}, "not a JPEG, PNG or WebP"),
        ({"image/encoded": GOOD["image/encoded"][:20]}, "cut off"),
        ({"image/encoded": encode_image(make_image(1, 31, 32), "PNG")}, "of 31x32 in .* 30x32$"),
        ({"image/encoded": encode_image(make_image(1, 2, 33), "JPEG")}, "of 2x33 in .* 30x32$"),
    ],
)
def test_what_is_wrong_with_a_record_is_left_to_the_careful_way_which_says_it(change, message):
    refuse(change, message, want(with_names=True))


@pytest.mark.parametrize("size", [(24, 31), (23, 32), (25, 32), (24, 33)])
def test_of_images_of_one_size_each_has_that_size(size):
    image = encode_image(make_image(1, *size), "PNG")
    message = f"^an image of {size[0]}x{size[1]} in {len(image)} bytes, expected up to 24x32$"
    refuse({"image/encoded": image}, message, of_one_size(want(), 24, 32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image/encoded": bytes(24 * 32 * 3 - 1)}, "of 24x32 in 2303 bytes"),
        ({"image/encoded": bytes(24 * 32 * 3 + 1)}, "of 24x32 in 2305 bytes"),
        ({"image/height": 32, "image/width": 24}, "of 32x24 in 2304 bytes"),
        ({"image/height": 0, "image/encoded": b""}, "of 0x32 in 0 bytes"),
        ({"image/height": -24, "image/width": -32}, "of -24x-32 in 2304 bytes"),
        ({"image/height": 2**62, "image/width": 2**62}, "of 4611686018427387904x46116860184"),
    ],
    ids=str,
)
def test_raw_images_have_the_bytes_of_their_size(change, message):
    wanted = want("raw")
    good = GOOD | {"image/encoded": bytes(24 * 32 * 3)}
    payload = encode_example(good | change)
    found = find_fields(lay_out([encode_example(good), payload]), wanted)
    assert found.valid.tolist() == [True, False]
    with pytest.raises(ValueError, match=message):
        parse_payload(memoryview(payload), wanted)


@pytest.mark.parametrize(
    "mask",
    [b"", b"GIF89a", b"\x89PNG", encode_image(make_image(1, 24, 31), "PNG"),
     encode_image(make_image(1), "JPEG")],
    ids=["nothing", "gif", "cut off", "of another size", "jpeg"],
)  # fmt: skip
def test_a_mask_is_a_png_of_the_size_of_its_image(mask):
    good = GOOD | {MASK: encode_image(make_image(2, mode="L"), "PNG")}
    payloads = [encode_example(good), encode_example(good | {MASK: mask})]
    wanted = want(masks=True)
    assert find_fields(lay_out(payloads), wanted).valid.tolist() == [True, False]
    with pytest.raises(ValueError, match="not a PNG of 24x32"):
        parse_payload(memoryview(payloads[1]), wanted)


def test_a_value_that_its_column_does_not_allow_is_an_error():
    good = encode_example(GOOD | {"weight": [0.5]})
    bad = encode_example(GOOD | {"weight": [0.5, 1.5]})
    wanted = want(columns={"weight": COLUMNS[0]})
    assert find_fields(lay_out([good, bad]), wanted).valid.tolist() == [True, False]
    with pytest.raises(ValueError, match="weight"):
        parse_payload(memoryview(bad), wanted)


@pytest.mark.parametrize("missing", ["image/class/label", "image/encoded", "image/source_id"])
def test_a_feature_that_is_not_there_is_named(missing):
    payload = encode_example({name: value for name, value in GOOD.items() if name != missing})
    wanted = want(with_names=True)
    assert not find_fields(lay_out([payload]), wanted).valid.any()
    with pytest.raises(ValueError, match=f"^{missing} is missing$"):
        parse_payload(memoryview(payload), wanted)


NAMES = ("image/class/label", "image/encoded", "image/source_id")

QUICK = settings(deadline=None, max_examples=50)

scalars = st.one_of(st.binary(max_size=300), st.integers(0, 2**31 - 1))
others = st.dictionaries(st.text(min_size=1, max_size=30), scalars, max_size=4)


def join_payloads(payloads: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    data, begins, ends = join_payloads(payloads)
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
    block, begins, ends = join_payloads(payloads)
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
    data, begins, ends = join_payloads([*payloads, b"\n"])
    _, _, valid = find_spans(data, begins, ends, NAMES)
    assert not valid.any()


def test_a_record_laid_out_otherwise_than_the_first_is_left_to_the_careful_way():
    plain = encode()
    data, begins, ends = join_payloads([plain, encode(**{"image/class/other": 1}), plain])
    assert find_spans(data, begins, ends, NAMES)[2].tolist() == [True, False, True]


@pytest.mark.parametrize("value", [[1, 2], [], b"not a number", 2.5])
def test_a_label_that_is_not_one_integer_is_not_read(value):
    payload = encode_example(dict(zip(NAMES, (value, b"pixels", b"name"), strict=True)))
    data, begins, ends = join_payloads([payload, payload])
    starts, stops, valid = find_spans(data, begins, ends, NAMES)
    numbers, single = read_numbers(data, starts[0], stops[0])
    for taken, number in zip(valid & single, numbers, strict=True):
        assert not taken or number == read_varint(memoryview(data), int(starts[0, 0]))[0]


@pytest.mark.parametrize("value", [0, 127, 128, 300, 2**21, 2**28 - 1, 2**31 - 1])
def test_numbers_of_every_length_are_read(value):
    data, begins, ends = join_payloads([encode(value), encode(5)])
    starts, stops, _ = find_spans(data, begins, ends, NAMES)
    numbers, single = read_numbers(data, starts[0], stops[0])
    assert single.all()
    assert numbers.tolist() == [value, 5]


def test_a_number_has_to_fill_its_span():
    data = np.array([1, 2, 3], np.uint8)
    begins, ends = np.array([0, 1]), np.array([1, 3])
    numbers, single = read_numbers(data, begins, ends)
    assert (numbers.tolist(), single.tolist()) == ([1, 2], [True, False])
