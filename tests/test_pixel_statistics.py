"""Mean and standard deviation of the channels: exact, the same everywhere, in bounded memory."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import convert_folder, write_image

from converter.errors import DatasetError, RecordError, UsageError
from converter.options import ConvertOptions
from reader import load_dataset, open_shards
from reader.batches.pixel_statistics import PixelStatistics, sum_channels

RECORDS = 70
KINDS = {
    "jpeg": {},
    "png": {"encoding": "png"},
    "raw": {"encoding": "raw"},
    "gray": {"encoding": "raw", "color_mode": "grayscale"},
    "alpha": {"encoding": "png", "color_mode": "rgba"},
    "sizes": {"encoding": "png", "resize": "shorter", "image_size": 12},
    "raw sizes": {"encoding": "raw", "resize": "longer", "image_size": 12},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """70 images of two shapes in 3 classes."""
    root = tmp_path_factory.mktemp("images")
    for seed in range(RECORDS):
        write_image(root / "abc"[seed % 3] / f"{seed}.png", seed)
    return root


@pytest.fixture(scope="module")
def make_set(images, tmp_path_factory):
    """Gives the data set of a kind, made when it is first asked for."""
    root = tmp_path_factory.mktemp("sets")

    def make(kind: str) -> Path:
        if not (root / kind).exists():
            options = {"image_size": (16, 20), "num_shards": 3, "validation_split": 0.2}
            convert_folder(images, root / kind, ConvertOptions(**options | KINDS[kind]))
        return root / kind

    return make


@pytest.fixture
def damaged(make_set, tmp_path) -> Path:
    """A copy of a data set with one bit of its first record flipped."""
    folder = shutil.copytree(make_set("png"), tmp_path / "set")
    shard = min(folder.glob("train*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    return folder


def read_pixels(folder: Path, split: str = "train") -> np.ndarray:
    """All pixels of a split, (pixels, channels)."""
    mode = {1: "grayscale", 3: "rgb", 4: "rgba"}[open_shards(folder).manifest.image.channels]
    images = load_dataset(
        folder, split, batch_size=None, dtype="uint8", shuffle=False, color_mode=mode
    )
    arrays = [image.numpy() for image, *_ in images]
    return np.concatenate([array.reshape(-1, array.shape[-1]) for array in arrays])


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_those_of_all_pixels_that_load_dataset_gives(make_set, kind, split):
    folder = make_set(kind)
    found, pixels = open_shards(folder).statistics(split), read_pixels(folder, split)
    wide = pixels.astype(np.int64)
    assert found.sums == tuple(wide.sum(axis=0).tolist())
    assert found.square_sums == tuple((wide**2).sum(axis=0).tolist())
    assert (found.records, found.pixels) == (len(open_shards(folder).source(split)), len(pixels))
    np.testing.assert_allclose(found.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.variance, np.square(found.std), rtol=1e-12)


def test_keras_normalizes_with_them(make_set):
    folder = make_set("png")
    found, pixels = open_shards(folder).statistics(), read_pixels(folder)
    normalize = keras.layers.Normalization(mean=found.mean, variance=found.variance)
    normalized = np.asarray(normalize(pixels.astype(np.float32)[None]))[0]
    np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(normalized.std(axis=0), 1, atol=1e-4)


def test_memory_and_threads_do_not_change_them(make_set, monkeypatch):
    shards = open_shards(make_set("jpeg"))
    expected = shards.statistics()
    monkeypatch.setattr("reader.plan.memory.count_cores", lambda: 5)
    assert shards.statistics() == shards.statistics(max_ram=30_000_000) == expected


def test_a_sample_is_the_same_every_time_and_within_a_larger_one(make_set, monkeypatch):
    shards = open_shards(make_set("raw"))
    assert shards.statistics(sample=10) == shards.statistics(sample=10)
    assert shards.statistics(sample=10, seed=1) != shards.statistics(sample=10)
    assert shards.statistics(sample=10).records == 10
    assert shards.statistics(sample=1000) == shards.statistics()
    read = []
    monkeypatch.setattr(
        "reader.batches.pixel_statistics.BatchReader", lambda plan: read.append(plan) or 1 / 0
    )
    for count in (10, 30):
        with pytest.raises(ZeroDivisionError):
            shards.statistics(sample=count)
    few, many = (plan.choice.selection.chosen.tolist() for plan in read)
    assert few == sorted(few)
    assert set(few) < set(many)
    assert len(many) == 30


def test_a_damaged_record_is_an_error_or_left_out(damaged, make_set):
    with pytest.raises(RecordError, match=r"record 0"):
        open_shards(damaged).statistics()
    found, whole = open_shards(damaged).statistics(on_damage="skip"), open_shards(make_set("png"))
    assert (found.records, found.damaged) == (whole.statistics().records - 1, 1)
    assert found.pixels == found.records * 16 * 20
    with pytest.raises(DatasetError, match="max_damaged"):
        open_shards(damaged).statistics(on_damage="skip", max_damaged=0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sample": 0}, "sample 0"),
        ({"sample": 0.5}, r"sample 0\.5"),
        ({"sample": True}, "sample True"),
        ({"sample": 3, "seed": -1}, "seed -1"),
        ({"batch_size": 3}, "argument 'batch_size' is unknown"),
        ({"max_ram": "2MB"}, "max_ram"),
    ],
)
def test_what_makes_no_sense_is_refused(make_set, arguments, said):
    with pytest.raises(UsageError, match=said):
        open_shards(make_set("png")).statistics(**arguments)


def test_there_has_to_be_a_split_with_an_image(make_set, tmp_path):
    with pytest.raises(DatasetError, match="no split 'test'"):
        open_shards(make_set("png")).statistics("test")


def test_sums_do_not_overflow():
    """White columns as high as 65,536 rows and more fill 32 bits, but for the last ones."""
    images = np.full((2, 66_000, 1, 3), 255, np.uint8)
    total = 2 * 66_000
    assert sum_channels(images).tolist() == [[total * 255] * 3, [total * 255**2] * 3]
    assert sum_channels(np.zeros((1, 0, 0, 3), np.uint8)).tolist() == [[0] * 3] * 2


def test_a_billion_images_lose_no_digit():
    """The difference of two floats would be off by more than the variance."""
    pixels = 10**15
    found = PixelStatistics(
        records=10**9, pixels=pixels, sums=(pixels * 254 + 1,), square_sums=(pixels * 254**2 + 509,)
    )
    assert found.variance == pytest.approx((1e-15,))
    assert found.mean == (pytest.approx(254),)
