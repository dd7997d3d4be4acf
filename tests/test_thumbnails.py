"""Pictures of records: every stored format, boxes and masks drawn, and typed errors."""

import dataclasses
import io
import math
import zlib

import numpy as np
import pytest
from conftest import encode_image, limit_memory, make_image
from PIL import Image

from converter.errors import ImageError
from converter.format.schema import BOX_LABELS, BOXES
from pipelines.pages.texts import name_class
from pipelines.pages.thumbnails import (
    MAX_DRAWN,
    VOID,
    Drawing,
    choose_color,
    draw_mask,
    draw_record,
    list_boxes,
    list_mask_labels,
)
from reader import Record

WHOLE = Drawing(side_pixels=None, file_format="png")


def make_record(encoded=None, file_format="png", size=(24, 32), mode="RGB", **more) -> Record:
    height, width = size
    if encoded is None:
        image = make_image(3, height, width, mode)
        encoded = image.tobytes() if file_format == "raw" else encode_image(image, file_format)
    told = {"label": 0, "text": "", "source_id": "a.png", "sha256": ""}
    return Record(
        encoded=encoded, format=file_format, height=height, width=width, **told | more
    )  # fmt: skip


def make_mask(values: np.ndarray, mode="L") -> bytes:
    image = Image.fromarray(values.astype(np.uint8))
    if mode == "P":
        image.putpalette([7] * 768)
    return encode_image(image, "PNG")


def see(picture) -> np.ndarray:
    with Image.open(io.BytesIO(picture.data)) as image:
        assert (image.width, image.height) == (picture.width, picture.height)
        assert f"image/{image.format.lower()}" == picture.media_type
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("written", ["jpeg", "png", "webp"])
@pytest.mark.parametrize(
    ("stored", "mode"),
    [("jpeg", "RGB"), ("jpeg", "L"), ("png", "RGB"), ("png", "L"), ("png", "RGBA"),
     ("webp", "RGB"), ("webp", "RGBA"), ("raw", "L"), ("raw", "RGB"), ("raw", "RGBA")],
)  # fmt: skip
def test_every_stored_image_becomes_a_small_picture(stored, mode, written):
    record = make_record(file_format=stored, size=(90, 120), mode=mode)
    picture = draw_record(record, drawing=Drawing(side_pixels=40, file_format=written))
    assert (picture.height, picture.width) == (30, 40)
    assert np.ptp(see(picture)) > 50


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("stored", ["png", "raw"])
def test_at_full_size_the_pixels_are_those_stored(stored, mode):
    picture = draw_record(make_record(file_format=stored, mode=mode), drawing=WHOLE)
    with Image.open(io.BytesIO(picture.data)) as image:
        expected = make_image(3, mode=mode).convert("RGBA" if mode == "RGBA" else "RGB")
        assert image.tobytes() == expected.tobytes()


def test_a_small_image_is_not_enlarged():
    picture = draw_record(make_record(size=(3, 2)))
    assert (picture.height, picture.width) == (3, 2)


def test_transparent_pixels_are_white_in_a_jpeg_and_stay_in_a_webp():
    clear = encode_image(Image.new("RGBA", (32, 24)), "PNG")
    record = make_record(clear, mode="RGBA")
    assert see(draw_record(record)).min() == 255
    with Image.open(io.BytesIO(draw_record(record, drawing=WHOLE).data)) as image:
        assert image.getchannel("A").getextrema() == (0, 0)


def test_a_box_is_drawn_where_it_is_in_the_colour_of_its_class():
    values = {BOXES: [(0.25, 0.5, 0.75, 1.0)], BOX_LABELS: [5]}
    record = make_record(encode_image(Image.new("RGB", (81, 81)), "PNG"), size=(81, 81))
    picture = draw_record(make_record(record.encoded, size=(81, 81), values=values), drawing=WHOLE)
    rows, columns = np.nonzero((see(picture) == choose_color(5)).all(axis=2))
    assert (rows.min(), rows.max()) == (20, 60)
    assert (columns.min(), columns.max()) == (40, 80)
    plain = draw_record(
        make_record(record.encoded, size=(81, 81), values=values),
        drawing=Drawing(side_pixels=None, boxes=False),
    )
    assert see(plain).max() < 10


@pytest.mark.parametrize("name", ["cat", "قطة", "🐈", "<b>\n", "x" * 500, ""])
def test_names_of_boxes_are_drawn_in_large_pictures_whatever_they_are(name):
    values = {BOXES: [(0.1, 0.1, 0.9, 0.9)], BOX_LABELS: [0]}
    record = make_record(size=(300, 300), values=values)
    named = see(draw_record(record, [name], WHOLE))
    numbered = see(draw_record(record, (), WHOLE))
    assert named.shape == numbered.shape
    assert (named != numbered).any() == (name != "0")
    bare = see(draw_record(record, [name], dataclasses.replace(WHOLE, names=False)))
    assert (bare != named).any()


def test_boxes_that_make_no_sense_are_left_out_and_the_others_cut():
    boxes = [
        (math.nan, 0, 1, 1), (0, math.inf, 1, 1), (0.6, 0, 0.5, 1), (0, 0.6, 1, 0.5),
        (-1e30, -5, 1e30, 0.5),
    ]  # fmt: skip
    record = make_record(values={BOXES: boxes, BOX_LABELS: [0, 1, 2, 3, 4]})
    assert list_boxes(record) == [(0, 0, 1, 0.5, 4)]
    assert draw_record(record).width == 32
    assert list_boxes(make_record(values={BOXES: boxes[-1:]})) == [(0, 0, 1, 0.5, None)]


def test_no_more_boxes_are_drawn_than_a_person_can_see():
    record = make_record(values={BOXES: [(0, 0, 1, 1)] * (MAX_DRAWN + 5)})
    assert len(list_boxes(record)) == MAX_DRAWN


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_mask_is_painted_over_the_image(mode):
    numbers = np.zeros((24, 32))
    numbers[:, 16:] = 2
    black = encode_image(Image.new("RGB", (32, 24)), "PNG")
    record = make_record(black, mask=make_mask(numbers, mode))
    painted = see(draw_record(record, drawing=WHOLE))
    assert painted[:, :16].max() == 0
    hue = np.array(choose_color(2)) / 255
    assert np.abs(painted[:, 16:] / painted[:, 16:].max() - hue / hue.max()).max() < 0.02
    without = draw_record(record, drawing=Drawing(mask=False))
    assert see(without).max() < 10


def test_class_0_is_drawn_unless_it_is_the_background():
    numbers = np.zeros((24, 32))
    numbers[0, 0], numbers[0, 1] = VOID, 1
    record = make_record(mask=make_mask(numbers))
    assert list_mask_labels(record, ["sky", "road"]) == [0, 1, VOID]
    assert list_mask_labels(record, ["Background", "road"]) == [1, VOID]
    assert list_mask_labels(record) == [1, VOID]
    with Image.open(io.BytesIO(draw_mask(record).data)) as image:
        assert image.mode == "RGBA"
        assert image.getpixel((1, 0)) == (*choose_color(1), 255)
        assert image.getpixel((5, 5))[3] == 0


def test_a_mask_is_shrunk_without_new_numbers():
    numbers = np.indices((240, 320)).sum(axis=0) // 40 % 4
    record = make_record(size=(240, 320), mask=make_mask(numbers))
    with Image.open(io.BytesIO(draw_mask(record, side_pixels=32).data)) as image:
        colors = {color[:3] for _, color in image.getcolors() if color[3]}
    assert colors == {choose_color(label) for label in (1, 2, 3)}


def test_colours_of_neighbours_differ():
    colors = np.array([choose_color(label) for label in range(40)])
    steps = np.abs(np.diff(colors, axis=0)).sum(axis=1)
    assert steps.min() > 100
    assert len({choose_color(label) for label in range(255)}) > 240


def test_a_class_without_a_name_is_its_number():
    assert [name_class(label, ["ant", "bee"]) for label in (1, 2, -1)] == ["bee", "2", "-1"]


JPEG = encode_image(make_image(3), "JPEG")
PNG = encode_image(make_image(3), "PNG")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoded": JPEG[: len(JPEG) // 2], "file_format": "jpeg"}, "Truncated"),
        ({"encoded": PNG[:60]}, "decode_error"),
        ({"encoded": b""}, "not a JPEG"),
        ({"encoded": b"hello" * 100}, "not a JPEG"),
        ({"encoded": JPEG}, "decode_error"),
        ({"encoded": PNG, "size": (24, 33)}, "24x32 pixels"),
        ({"encoded": b"abc", "file_format": "raw"}, "3 raw bytes"),
        ({"encoded": b"", "file_format": "raw", "size": (0, 0)}, "0 raw bytes"),
        ({"encoded": b"GIF89a", "file_format": "gif"}, "unsupported"),
        ({"encoded": b"", "file_format": "<script>" * 9}, "unsupported"),
        ({"mask": b"none"}, "not a JPEG"),
        ({"mask": encode_image(make_image(1), "PNG")}, "mode RGB"),
        ({"mask": make_mask(np.zeros((3, 3)))}, "another size"),
    ],
)
def test_what_is_damaged_is_a_typed_error(changes, words):
    with pytest.raises(ImageError, match=words):
        draw_record(make_record(**changes))


def test_a_mask_that_is_not_there_is_a_typed_error():
    with pytest.raises(ImageError, match="no mask"):
        draw_mask(make_record())


def test_an_image_that_claims_too_many_pixels_is_not_decoded():
    header = bytearray(PNG)
    header[16:24] = (40_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with limit_memory(4 << 20), pytest.raises(ImageError, match="too_large"):
        draw_record(make_record(bytes(header), size=(40_000, 40_000)))


def test_a_large_jpeg_takes_little_memory_as_a_thumbnail():
    large = encode_image(Image.new("RGB", (4000, 3000), "red"), "JPEG")
    record = make_record(large, "jpeg", (3000, 4000))
    picture = draw_record(record)
    assert (picture.height, picture.width) == (120, 160)
    assert len(picture.data) < 10_000


def test_real_images_become_thumbnails(shared_images):
    paths = sorted((shared_images / "photos").rglob("*.jpg"))[:12]
    assert paths
    for path in paths:
        with Image.open(str(path)) as image:
            size = image.height, image.width
        record = make_record(path.read_bytes(), "jpeg", size)
        picture = draw_record(record, drawing=Drawing(file_format="webp"))
        assert max(picture.width, picture.height) == min(160, max(size))
        assert len(picture.data) < 20_000
