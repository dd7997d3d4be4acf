"""Where the parts of an image land: exactly where the data set puts its boxes and its masks."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import convert_folder, encode_image, make_image
from PIL import Image

from converter.errors import ImageError, UsageError
from converter.options import ConvertOptions
from reader import load_dataset, open_shards

SIZES = [(30, 40), (40, 30), (61, 17), (8, 90), (300, 401)]  # height and width of the files
BOXES = [[2, 3, 7, 8], [0, 0, 17, 8], [5, 1, 16.5, 7.25], [-3, 2, 100, 100]]  # xyxy

SETS = {
    "stretch": {"image_size": (50, 64)},
    "crop": {"resize": "crop", "image_size": (37, 20)},
    "pad": {"resize": "pad", "image_size": (51, 37)},
    "pad the small": {"resize": "pad", "enlarge": False, "image_size": (101, 90)},
    "shorter": {"resize": "shorter", "image_size": 33},
    "longer": {"resize": "longer", "image_size": 33},
    "none": {"resize": "none"},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Images of several shapes, each turned as EXIF can, with boxes and a mask of row numbers."""
    root = tmp_path_factory.mktemp("boxes")
    rows = []
    for number, (height, width) in enumerate(SIZES * 2):
        exif = Image.Exif()
        exif[0x0112] = 1 if number < len(SIZES) else 6
        name = f"{number}.jpeg"
        (root / name).write_bytes(encode_image(make_image(number, height, width), exif=exif))
        upright = (height, width) if number < len(SIZES) else (width, height)
        mask = np.add.outer(np.arange(upright[0]) // 2, np.arange(upright[1]) // 2 * 3) % 200
        Image.fromarray(mask.astype(np.uint8)).save(root / f"{number}.png")
        rows.append({"path": name, "boxes": BOXES, "mask": f"{number}.png"})
    (root / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture(scope="module")
def make_set(table, tmp_path_factory):
    """Gives the data set of some options, made when it is first asked for."""
    root = tmp_path_factory.mktemp("sets")

    def make(name: str) -> Path:
        if not (root / name).exists():
            options = ConvertOptions(
                boxes_column="boxes", mask_column="mask", encoding="png", mask_padding=255,
                **SETS[name],
            )  # fmt: skip
            convert_folder(table / "t.jsonl", root / name, options)
        return root / name

    return make


def read_all(out: Path, **options: object):
    """Mask, path and boxes of each record."""
    dataset = load_dataset(
        out, dtype="uint8", batch_size=None, shuffle=False, masks=True, with_filename=True,
        columns=("boxes",), **options,
    )  # fmt: skip
    for image, mask, name, columns in dataset.as_numpy_iterator():
        yield image, mask[..., 0], name.decode(), np.asarray(columns["boxes"])


@pytest.mark.parametrize("name", SETS)
def test_boxes_of_an_original_are_those_that_are_stored(table, make_set, name):
    shards = open_shards(make_set(name))
    found = 0
    for image, _, path, stored in read_all(shards.folder):
        placement = shards.preprocessing().place(table / path)
        assert placement.prepared == image.shape[:2]
        xyxy = np.array(BOXES, float)
        expected = placement.boxes_from_original(xyxy[:, [1, 0, 3, 2]])
        seen = (expected[:, 0] < expected[:, 2]) & (expected[:, 1] < expected[:, 3])
        np.testing.assert_allclose(expected[seen], stored, atol=1e-6, err_msg=path)
        found += len(stored)
    assert found > 15


@pytest.mark.parametrize("name", SETS)
def test_boxes_that_are_stored_lie_in_the_original_where_they_were(table, make_set, name):
    shards = open_shards(make_set(name))
    for _, _, path, stored in read_all(shards.folder):
        placement = shards.preprocessing().place(table / path)
        top, left, bottom, right = placement.visible
        wanted = [
            [max(y, top), max(x, left), min(down, bottom), min(over, right)]
            for x, y, over, down in BOXES
        ]
        wanted = [box for box in wanted if box[0] < box[2] and box[1] < box[3]]
        found = placement.boxes_to_original(stored)
        np.testing.assert_allclose(found, np.reshape(wanted, (-1, 4)), atol=2e-4)


@pytest.mark.parametrize("name", SETS)
def test_a_mask_comes_back_to_the_size_of_its_original(table, make_set, name):
    shards = open_shards(make_set(name))
    for _, mask, path, _ in read_all(shards.folder):
        placement = shards.preprocessing().place(table / path)
        original = np.asarray(Image.open(table / f"{Path(path).stem}.png"))
        assert original.shape == placement.original
        back = placement.mask_to_original(mask, fill=254)
        assert (back.shape, back.dtype) == (original.shape, np.uint8)
        top, left, bottom, right = placement.visible
        assert (back[int(top) : int(bottom), int(left) : int(right)] != 254).all()
        assert (back == 254).sum() == original.size - (bottom - top) * (right - left)
        assert not (back == 255).any()  # nothing of the padding
        if min(placement.scale) >= 1:
            np.testing.assert_array_equal(back[back != 254], original[back != 254])


def test_a_map_of_several_channels_comes_back_as_well(make_set, table):
    placement = open_shards(make_set("pad")).preprocessing().place(table / "0.jpeg")
    scores = np.random.default_rng(1).random((*placement.prepared, 5), np.float32)
    back = placement.mask_to_original(scores)
    assert back.shape == (30, 40, 5)
    np.testing.assert_array_equal(back[..., 2], placement.mask_to_original(scores[..., 2]))


@pytest.mark.parametrize("name", SETS)
def test_points_go_there_and_back(make_set, table, name):
    placement = open_shards(make_set(name)).preprocessing().place(table / "7.jpeg")
    points = np.random.default_rng(2).random((4, 3, 2)) * 50
    there = placement.points_from_original(points)
    np.testing.assert_allclose(placement.points_to_original(there), points, atol=1e-9)
    corners = np.reshape(placement.visible, (2, 2))
    moved = placement.points_from_original(corners)
    assert (moved > -1e-9).all()
    assert (moved < np.array(placement.prepared) + 1e-9).all()


def test_the_turn_of_exif_is_that_of_an_upright_image(make_set, table):
    preprocessing = open_shards(make_set("stretch")).preprocessing()
    assert preprocessing.place(table / "0.jpeg").orientation == 1
    turned = preprocessing.place(table / "5.jpeg")
    assert (turned.orientation, turned.original) == (6, (40, 30))


RESIZED = [
    {"image_size": (24, 31)},
    {"image_size": (24, 31), "crop_to_aspect_ratio": True},
    {"image_size": (24, 31), "pad_to_aspect_ratio": True},
    {"image_size": (91, 31), "pad_to_aspect_ratio": True},
]


@pytest.mark.parametrize("options", RESIZED)
@pytest.mark.parametrize("name", ["stretch", "crop", "pad", "longer"])
def test_a_size_for_reading_moves_what_it_moves_in_load_dataset(table, make_set, name, options):
    """A bright square, where it lies in the array, and where its corners are said to lie."""
    preprocessing = open_shards(make_set(name)).preprocessing(**options)
    pixels = np.zeros((120, 90, 3), np.uint8)
    pixels[40:80, 30:60] = 255
    found, placement = preprocessing.preprocess(pixels), preprocessing.place(pixels)
    assert placement.prepared == found.shape[:2] == options["image_size"]
    (top, left), (bottom, right) = placement.points_from_original([[40, 30], [80, 60]])
    bright = found[..., 0] / 255
    rows, columns = bright.max(axis=1).sum(), bright.max(axis=0).sum()
    assert rows == pytest.approx(bottom - top, abs=1)
    assert columns == pytest.approx(right - left, abs=1)
    y, x = (np.average(np.arange(n) + 0.5, weights=bright.sum(axis=1 - axis))
            for axis, n in enumerate(found.shape[:2]))  # fmt: skip
    assert (y, x) == (pytest.approx((top + bottom) / 2, abs=0.5),
                      pytest.approx((left + right) / 2, abs=0.5))  # fmt: skip


def test_of_a_data_set_made_from_another_both_ways_count(table, tmp_path):
    options = {"boxes_column": "boxes", "encoding": "png"}
    first = ConvertOptions(resize="crop", image_size=(50, 40), **options)
    convert_folder(table / "t.jsonl", tmp_path / "old", first)
    then = ConvertOptions(resize="pad", image_size=(30, 60), encoding="png")
    convert_folder(tmp_path / "old", tmp_path / "new", then)
    preprocessing = open_shards(tmp_path / "new").preprocessing(made_from=tmp_path / "old")
    dataset = load_dataset(
        tmp_path / "new", batch_size=None, shuffle=False, label_mode=None, with_filename=True,
        columns=("boxes",),
    )  # fmt: skip
    for _, name, columns in dataset.as_numpy_iterator():
        placement, stored = preprocessing.place(table / name.decode()), columns["boxes"]
        expected = placement.boxes_from_original(np.array(BOXES, float)[:, [1, 0, 3, 2]])
        seen = (expected[:, 0] < expected[:, 2]) & (expected[:, 1] < expected[:, 3])
        np.testing.assert_allclose(expected[seen], stored, atol=1e-6)


def test_what_is_none_of_these_is_refused(make_set, table):
    placement = open_shards(make_set("pad")).preprocessing().place(table / "0.jpeg")
    for boxes in ([1, 2, 3], "box", [["a"] * 4], None, 5):
        with pytest.raises(UsageError, match="are no boxes"):
            placement.boxes_to_original(boxes)
    with pytest.raises(UsageError, match="are no points"):
        placement.points_to_original([1, 2, 3])
    with pytest.raises(UsageError, match="of the prepared image"):
        placement.mask_to_original(np.zeros((3, 3)))
    assert placement.boxes_to_original(np.zeros((0, 4))).shape == (0, 4)
    with pytest.raises(ImageError, match=r"missing: .*none\.jpeg"):
        open_shards(make_set("pad")).preprocessing().place(table / "none.jpeg")
