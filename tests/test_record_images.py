"""Images of our own records: pixels without a header as a TIFF, and what may be copied unseen."""

import dataclasses
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from converter.errors import ImageError
from converter.format import examples
from converter.format.schema import MASK
from converter.images.record_images import (
    KEPT,
    OF_MASK,
    PLAIN,
    UNKNOWN,
    OwnRecord,
    RecordImage,
    identify,
    may_copy,
    measure_wrapped,
    wrap_pixels,
)
from converter.options import ConvertOptions

SHA256 = hashlib.sha256(b"original").hexdigest()
SAME = ConvertOptions(image_size=(6, 8))


def make_features(**changes):
    names = {"format": b"jpeg", "height": 6, "width": 8, "channels": 3, "encoded": b"data",
             "source_id": b"a/1.jpg", "key/sha256": SHA256.encode(), **changes}  # fmt: skip
    return {f"image/{name}": value for name, value in names.items()}


def make_record(trust=PLAIN, **changes) -> OwnRecord:
    payload = examples.encode_example(make_features(**changes))
    return RecordImage.of_payload(payload, trust, "a/1.jpg").record


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (300, 2)])
def test_pillow_opens_wrapped_pixels_without_a_change(channels, mode, size):
    shape = (*size, channels)
    data = np.random.default_rng(0).integers(0, 256, shape, np.uint8).tobytes()
    wrapped = wrap_pixels(data, *shape)
    assert len(wrapped) == measure_wrapped(*shape)
    with Image.open(io.BytesIO(wrapped)) as image:
        assert (image.mode, image.size, image.format) == (mode, size[::-1], "TIFF")
        assert image.tobytes() == data


@pytest.mark.parametrize("shape", [(2, 2, 3), (3, 2, 2), (1, 0, 3), (2, 2, 5)])
def test_pixels_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="pixels"):
        wrap_pixels(bytes(11), *shape)


def test_an_image_is_known_by_its_first_original():
    payload = examples.encode_example(make_features())
    image = RecordImage.of_payload(payload, PLAIN, "a/1.jpg")
    assert (image, identify(image)) == (b"data", SHA256)
    assert identify(bytes(image)) == hashlib.sha256(b"data").hexdigest()
    of_mask = {MASK: b"png", examples.MASK_SHA256: b"0" * 64}
    payload = examples.encode_example(make_features() | of_mask)
    mask = RecordImage.of_payload(payload, OF_MASK, "b/a/1.jpg")
    assert (mask, identify(mask)) == (b"png", "0" * 64)


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 0}, {"width": -(2**63)}, {"channels": [3, 3]}, {"format": 7}, {"encoded": 7},
        {"key/sha256": b"F" * 64}, {"key/sha256": b"0" * 63}, {"source_id": [b"a", b"b"]},
        {"format": b"raw"}, {"format": b"raw", "height": 2**40},
    ],
)  # fmt: skip
def test_what_a_record_of_ours_never_says_is_refused(changes):
    with pytest.raises(ValueError, match=r"image/|raw bytes"):
        make_record(**changes)


def test_another_image_has_changed():
    with pytest.raises(ImageError) as caught:
        make_record(source_id=b"a/2.jpg")
    assert caught.value.code == "changed"


@pytest.mark.parametrize(
    ("changes", "copied"),
    [
        ({}, True),
        ({"encoding": "keep"}, True),
        ({"encoding": "png"}, False),
        ({"image_size": (8, 6)}, False),
        ({"image_size": (9, 9), "resize": "none"}, True),
        ({"image_size": (12, 16), "resize": "crop"}, False),
        ({"image_size": (8, 8), "resize": "longer"}, True),
        ({"color_mode": "grayscale"}, False),
        ({"min_side": 7}, False),
        ({"min_area": 49}, False),
        ({"max_aspect": 1.1}, False),
        ({"max_pixels": 47}, False),
        ({"formats": ("png",)}, False),
        ({"quality": 5}, True),
    ],
)
def test_only_what_is_asked_for_is_copied(changes, copied):
    assert may_copy(make_record(), dataclasses.replace(SAME, **changes)) == copied


@pytest.mark.parametrize(
    ("trust", "encoding", "copied"),
    [
        (PLAIN, "jpeg", True), (PLAIN, "keep", True),
        (KEPT, "jpeg", False), (KEPT, "keep", True),  # it may hold metadata
        (UNKNOWN, "jpeg", False), (UNKNOWN, "keep", False),  # or colours of another profile
    ],
)  # fmt: skip
def test_what_an_image_may_hold_decides(trust, encoding, copied):
    options = dataclasses.replace(SAME, encoding=encoding)
    assert may_copy(make_record(trust), options) == copied


def test_a_record_holds_its_own_features_alone():
    record, features = make_record(), make_features()
    assert record.holds(features)
    assert not record.holds(features | {"age": 1})
    assert not record.holds(features | {"image/height": 7})
    del features["image/width"]
    assert not record.holds(features)
    assert not make_record(age=float("nan")).holds(make_features(age=float("nan")))
