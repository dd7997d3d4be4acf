"""What a batch needs of its records: found in all at once as in each by itself."""

import numpy as np
import pytest
from conftest import encode_image, make_image

from converter.format.examples import encode_example
from converter.format.tfrecords import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES, frame_record
from reader.examples.fields import Wanted, find_fields, parse_payload
from reader.records.blocks import Block, check_records

GOOD = {
    "image/class/label": 2,
    "image/encoded": encode_image(make_image(1), "PNG"),
    "image/height": 24,
    "image/source_id": b"ant/1.png",
    "image/width": 32,
}


def lay_out(payloads: list[bytes]) -> Block:
    data = np.frombuffer(b"".join(map(frame_record, payloads)), np.uint8)
    stops = np.cumsum([len(payload) + FRAMING_BYTES for payload in payloads])
    starts = np.concatenate([[0], stops[:-1]])
    return Block(
        data=data,
        indexes=np.arange(len(payloads)),
        begins=starts + HEADER_BYTES,
        ends=stops - FOOTER_BYTES,
        sound=check_records(data, starts, stops),
    )


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("with_names", [False, True])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_both_ways_find_the_same(raw, with_names, file_format):
    payloads = [
        encode_example(
            GOOD
            | {
                "image/class/label": seed,
                "image/encoded": encode_image(make_image(seed, 24 + seed, 32), file_format),
                "image/height": 24 + seed,
            }
        )
        for seed in range(5)
    ]
    block = lay_out(payloads)
    found = find_fields(block, Wanted(raw=raw, with_names=with_names))
    assert found.sound.all()
    for number, payload in enumerate(payloads):
        field = parse_payload(memoryview(payload), Wanted(raw=raw, with_names=with_names))
        assert field.label == found.labels[number] == number
        assert field.size == tuple(found.sizes[number]) == (24 + number, 32)
        assert field.image == block.data[found.begins[number] : found.ends[number]].tobytes()
        if with_names:
            begin, end = found.names[:, number]
            assert field.name == block.data[begin:end].tobytes() == b"ant/1.png"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image/class/label": b"two"}, "not one number"),
        ({"image/encoded": b"\xff\xd8 cut"}, "not a JPEG"),
        ({"image/encoded": b"GIF89a"}, "not a JPEG, PNG or WebP"),
        ({"image/encoded": GOOD["image/encoded"][:20]}, "cut off"),
    ],
)
def test_what_is_wrong_with_a_record_is_left_to_the_careful_way_which_says_it(change, message):
    good, bad = encode_example(GOOD), encode_example(GOOD | change)
    found = find_fields(lay_out([good, bad, good]), Wanted(with_names=True))
    assert found.sound.tolist() == [True, False, True]
    with pytest.raises(ValueError, match=message):
        parse_payload(memoryview(bad), Wanted(with_names=True))


@pytest.mark.parametrize("missing", ["image/class/label", "image/encoded", "image/source_id"])
def test_a_feature_that_is_not_there_is_named(missing):
    payload = encode_example({name: value for name, value in GOOD.items() if name != missing})
    assert not find_fields(lay_out([payload]), Wanted(with_names=True)).sound.any()
    with pytest.raises(ValueError, match=f"feature '{missing}' is missing"):
        parse_payload(memoryview(payload), Wanted(with_names=True))
