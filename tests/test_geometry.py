"""Geometry: sizes and crops as Keras computes them, and boxes that move with their image."""

import numpy as np
import pytest
from conftest import encode_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from converter.format.schema import BOX_LABELS, BOXES, Column
from converter.images.conversion import convert_image
from converter.images.geometry import Geometry, Size, fit_boxes, fit_image, move_box, parse_box
from converter.options import MAX_SIDE_PIXELS, RESIZES, ConvertOptions

QUICK = settings(deadline=None, max_examples=100)

SIDES = st.sampled_from([1, 2, 3, 65_535]) | st.integers(1, 65_535)
TARGETS = st.sampled_from([1, 2, 256, MAX_SIDE_PIXELS]) | st.integers(1, MAX_SIDE_PIXELS)
ANY_SIZE = st.tuples(SIDES, SIDES)
ANY_TARGET = st.tuples(TARGETS, TARGETS)
# So small that Keras can really draw the images, and larger than any of them after scaling.
SMALL_SIZE = st.tuples(st.integers(1, 30), st.integers(1, 30))
LARGER_TARGET = st.tuples(st.integers(60, 200), st.integers(60, 200))


def fit(size: Size, target: Size, resize: str, *, enlarge: bool = True) -> Geometry:
    target = (target[0],) * 2 if resize in ("shorter", "longer") else target
    return fit_image(size, ConvertOptions(image_size=target, resize=resize, enlarge=enlarge))


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ("stretch", Geometry(crop=(0, 0, 30, 60), scaled=(20, 20), canvas=(20, 20))),
        ("crop", Geometry(crop=(0, 15, 30, 30), scaled=(20, 20), canvas=(20, 20))),
        ("pad", Geometry(crop=(0, 0, 30, 60), scaled=(10, 20), canvas=(20, 20))),
        ("shorter", Geometry(crop=(0, 0, 30, 60), scaled=(20, 40), canvas=(20, 40))),
        ("longer", Geometry(crop=(0, 0, 30, 60), scaled=(10, 20), canvas=(10, 20))),
        ("none", Geometry(crop=(0, 0, 30, 60), scaled=(30, 60), canvas=(30, 60))),
    ],
)
def test_each_mode_on_one_image(resize, expected):
    assert fit((30, 60), (20, 20), resize) == expected


@QUICK
@pytest.mark.parametrize("resize", RESIZES)
@given(size=ANY_SIZE, target=ANY_TARGET)
def test_everything_stays_within_bounds(resize, size, target):
    geometry = fit(size, target, resize)
    top, left, height, width = geometry.crop
    assert top >= 0
    assert left >= 0
    assert 1 <= height <= size[0] - top
    assert 1 <= width <= size[1] - left
    assert 1 <= geometry.scaled[0] <= geometry.canvas[0]
    assert 1 <= geometry.scaled[1] <= geometry.canvas[1]
    # What keeps its aspect ratio may get too long for an encoding; then the image is refused.
    if resize not in ("none", "shorter"):
        assert max(geometry.canvas) <= MAX_SIDE_PIXELS


@QUICK
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@given(size=ANY_SIZE, target=ANY_TARGET)
def test_these_modes_give_exactly_the_size_asked_for(resize, size, target):
    assert fit(size, target, resize).canvas == target


@QUICK
@pytest.mark.parametrize(("resize", "choose"), [("shorter", min), ("longer", max)])
@given(size=ANY_SIZE, side=TARGETS)
def test_the_side_that_the_mode_names_gets_the_size(resize, choose, size, side):
    assert choose(fit(size, (side, side), resize).canvas) == side


@QUICK
@pytest.mark.parametrize("resize", ["pad", "shorter", "longer"])
@given(size=ANY_SIZE, target=ANY_TARGET)
def test_the_aspect_ratio_is_kept_to_half_a_pixel(resize, size, target):
    scales = {
        "pad": min(target[0] / size[0], target[1] / size[1]),
        "shorter": target[0] / min(size),
        "longer": target[0] / max(size),
    }
    for side, scaled in zip(size, fit(size, target, resize).scaled, strict=True):
        exact = side * scales[resize]
        assert scaled == pytest.approx(max(exact, 1), abs=0.5 + 1e-6)


@QUICK
@given(size=ANY_SIZE, target=ANY_TARGET)
def test_a_crop_touches_two_opposite_edges_and_is_centred(size, target):
    top, left, height, width = fit(size, target, "crop").crop
    assert height == size[0] or width == size[1]
    assert 0 <= (size[0] - height) - 2 * top <= 1
    assert 0 <= (size[1] - width) - 2 * left <= 1


@settings(deadline=None, max_examples=30)
@given(size=SMALL_SIZE, target=LARGER_TARGET)
def test_a_crop_is_the_one_of_keras(size, target):
    keras = pytest.importorskip("keras")
    rows, columns = np.indices(size, dtype=np.float32)
    # Each pixel holds its own place; enlarged without blending, every place that is kept shows.
    kept = keras.preprocessing.image.smart_resize(
        np.stack([rows, columns], axis=-1), target, interpolation="nearest"
    )
    top, left = kept.min(axis=(0, 1))
    bottom, right = kept.max(axis=(0, 1))
    crop = fit(size, target, "crop").crop
    assert crop == (top, left, bottom - top + 1, right - left + 1)


@settings(deadline=None, max_examples=30)
@given(size=SMALL_SIZE, target=LARGER_TARGET)
def test_padding_is_that_of_keras_to_one_pixel(size, target):
    tf = pytest.importorskip("tensorflow")
    # What `keras.utils.image_dataset_from_directory(pad_to_aspect_ratio=True)` calls.
    padded = tf.image.resize_with_pad(np.ones((*size, 1), np.float32), *target, method="nearest")
    rows, columns = np.nonzero(padded.numpy()[:, :, 0])
    scaled = fit(size, target, "pad").scaled
    theirs = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    top, left = (target[0] - scaled[0]) // 2, (target[1] - scaled[1]) // 2
    ours = (top, left, top + scaled[0], left + scaled[1])
    assert np.abs(np.subtract(ours, theirs)).max() <= 1


@pytest.mark.parametrize(
    ("size", "resize", "scaled", "canvas"),
    [
        ((10, 20), "pad", (10, 20), (64, 64)),
        ((10, 20), "shorter", (10, 20), (10, 20)),
        ((10, 20), "longer", (10, 20), (10, 20)),
        ((128, 20), "pad", (64, 10), (64, 64)),
        ((128, 20), "shorter", (128, 20), (128, 20)),
        ((128, 20), "longer", (64, 10), (64, 10)),
    ],
)
def test_without_enlarging_a_small_image_stays_as_it_is(size, resize, scaled, canvas):
    geometry = fit(size, (64, 64), resize, enlarge=False)
    assert (geometry.scaled, geometry.canvas) == (scaled, canvas)


COLUMNS = (Column(BOXES, "boxes"), Column(BOX_LABELS, "labels"))


@pytest.mark.parametrize(
    ("box_format", "numbers"),
    [
        ("xyxy", [20, 10, 60, 30]),
        ("xywh", [20, 10, 40, 20]),
        ("yolo", [0.4, 0.4, 0.4, 0.4]),
        ("yxyx", [0.2, 0.2, 0.6, 0.6]),
    ],
)
def test_all_formats_say_the_same(box_format, numbers):
    box = parse_box(numbers, box_format)
    geometry = fit((50, 100), (10, 10), "stretch")
    moved = move_box(box, (50, 100), geometry, in_fractions=box_format in ("yolo", "yxyx"))
    assert moved == pytest.approx((0.2, 0.2, 0.6, 0.6))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("resize", RESIZES)
def test_a_box_stays_around_what_it_shows(resize, orientation):
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[15:45, 40:60] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode_image(Image.fromarray(pixels), "PNG", exif=exif)
    upright = {1: (15, 40, 45, 60), 3: (15, 40, 45, 60), 6: (40, 15, 60, 45), 8: (40, 15, 60, 45)}
    side = (40, 40) if resize in ("shorter", "longer") else (40, 48)
    options = ConvertOptions(image_size=side, resize=resize, box_format="xyxy", encoding="raw")
    top, left, bottom, right = upright[orientation]
    image = convert_image(data, options)
    boxes, labels = fit_boxes(
        COLUMNS, [[(top, left, bottom, right)], [7]], image.origin.size, options
    )
    shown = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)[..., 0] > 127
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    found = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    height, width = shown.shape
    expected = np.array(boxes) * (height, width, height, width)
    np.testing.assert_allclose(found, expected, atol=1)
    assert labels == [7]


def test_what_is_cut_off_loses_its_box_and_its_label():
    options = ConvertOptions(image_size=(10, 10), resize="crop")
    boxes = [(0.0, 0.0, 10.0, 20.0), (10.0, 20.0, 30.0, 35.0), (10.0, 30.0, 30.0, 50.0)]
    moved, labels = fit_boxes(COLUMNS, [boxes, [1, 2, 3]], (50, 100), options)
    assert labels == [2, 3]
    assert moved == pytest.approx([0.2, 0, 0.6, 0.2, 0.2, 0.1, 0.6, 0.5])
