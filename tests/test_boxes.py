"""Boxes move with their image: numbers for every resize mode, and as pictures show it."""

import numpy as np
import pytest
from conftest import encode_image
from PIL import Image

from converter.format.schema import BOX_LABELS, BOXES, Column
from converter.images.boxes import fit_boxes, move_box, parse_boxes
from converter.images.conversion import convert_image, decode_image
from converter.images.geometry import fit_image
from converter.options import RESIZES, ConvertOptions

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
    (box,) = parse_boxes([numbers], box_format)
    geometry = fit_image((50, 100), (10, 10), "stretch")
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
    options = ConvertOptions(image_size=side, resize=resize, box_format="xyxy", encoding="png")
    top, left, bottom, right = upright[orientation]
    size = convert_image(data, options).origin.size
    boxes, labels = fit_boxes(COLUMNS, [[(top, left, bottom, right)], [7]], size, options)
    shown = np.asarray(decode_image(data, options))[..., 0] > 127
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
