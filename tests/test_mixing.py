"""Several data sets as one: exact shares, one order, and what cannot be mixed."""

import collections
import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import convert_folder, write_image
from hypothesis import given
from hypothesis import strategies as st

from converter import ConvertOptions, UsageError
from converter.format.manifest import ImageInfo
from reader import ReadOptions, mix_datasets, open_shards
from reader.plan.planning import (
    BLOCK_RECORDS,
    join_images,
    plan_mixture,
    reduce_shares,
    share_block,
)

OPTIONS = ConvertOptions(image_size=(4, 5), encoding="png", num_shards=2)
READING = {"batch_size": 16, "dtype": "uint8", "with_filename": True, "seed": 5}
COUNTS = {"few": 130, "many": 310, "twin": 130, "tiny": 40}

WEIGHTS = st.floats(1e-300, 1e300) | st.integers(1, 1_000) | st.floats(0, 1.7e308, exclude_min=True)
JPEG = ImageInfo(
    height=4, width=5, max_height=4, max_width=5, channels=3, formats={"jpeg": 3, "png": 1}
)


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    """Data sets of the same two classes; every file name tells which one it is of."""
    root = tmp_path_factory.mktemp("sets")
    for offset, (name, count) in enumerate(COUNTS.items()):
        for seed in range(count):
            path = root / "images" / name / "xy"[seed % 2] / f"{name}-{seed}.png"
            write_image(path, seed + 1_000 * offset)
        convert_folder(root / "images" / name, root / name, OPTIONS)
    return {name: root / name for name in COUNTS}


@pytest.fixture
def mix(sets):
    """`mix_datasets`, with the names of the data sets."""

    def build(weights: dict[str, float], **options: object) -> tf.data.Dataset:
        return mix_datasets(
            {sets[name]: weight for name, weight in weights.items()}, **READING | options
        )

    return build


def list_names(*hosts: tf.data.Dataset) -> list[str]:
    """File names of the originals of one epoch, step by step."""
    batches = [batch for step in zip(*hosts, strict=True) for batch in step]
    return [Path(name.decode()).name for batch in batches for name in batch[-1].numpy() if name]


def list_batches(dataset: tf.data.Dataset) -> list[list[bytes]]:
    return [[np.asarray(column).tobytes() for column in batch[:-1]]
            + batch[-1].numpy().tolist() for batch in dataset]  # fmt: skip


def count_sets(names: list[str]) -> dict[str, int]:
    return dict(collections.Counter(name.split("-")[0] for name in names))


@given(st.lists(WEIGHTS, min_size=1, max_size=BLOCK_RECORDS))
def test_a_block_is_shared_out_completely_and_everyone_has_a_part(weights):
    shares = share_block(weights)
    assert sum(shares) == BLOCK_RECORDS
    assert min(shares) >= 1
    ordered = sorted(zip(weights, shares, strict=True))
    for (less, small), (more, large) in itertools.pairwise(ordered):
        # Equals may differ by the one that is left over.
        assert small <= large + (less == more)


@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=20))
def test_shares_are_rounded_to_hundredths_and_only_ratios_count(weights):
    shares = share_block(weights)
    exact = [weight * BLOCK_RECORDS / sum(weights) for weight in weights]
    if min(exact) >= 1:
        assert all(abs(share - part) < 1 for share, part in zip(shares, exact, strict=True))
    assert share_block([weight / 1_024 for weight in weights]) == shares


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([1], [100]),
        ([1, 1], [50, 50]),
        ([1, 1, 1], [34, 33, 33]),
        ([29, 71], [29, 71]),
        ([0.995, 0.005], [99, 1]),
        ([1e-9, 1, 1e-9], [1, 98, 1]),
        ([1] * 100, [1] * 100),
        ([1e308, 1e308], [50, 50]),
        ([5e-324, 5e-324], [50, 50]),
    ],
)
def test_shares_of_some_weights(weights, shares):
    assert share_block(weights) == shares


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([1, 1, 1], [1, 1, 1]),
        ([6, 4], [3, 2]),
        ([0.3, 0.7], [3, 7]),
        ([np.float32(0.5), 0.25], [2, 1]),
        ([1e308, 1e308], [1, 1]),
        ([1_000, 1], [99, 1]),
        ([5e-324, 5e-324], [50, 50]),
    ],
)
def test_the_smallest_block_has_the_same_proportions(weights, shares):
    assert reduce_shares(weights) == shares


@pytest.mark.parametrize(
    "weights", [[], [1, 0], [-1, 2], [float("nan"), 1], [float("inf"), 1], [1] * 101]
)
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(UsageError, match=f"^weights {re.escape(str(weights)[:60])}.* 1 to 100 "):
        share_block(weights)


def test_images_of_several_sets_are_joined():
    wide = dataclasses.replace(JPEG, width=9, max_width=9, formats={"jpeg": 2})
    various = dataclasses.replace(JPEG, height=None, width=None, max_height=8, formats={"webp": 1})
    assert join_images([JPEG]) == JPEG
    joined = join_images([JPEG, wide, various])
    assert joined == ImageInfo(
        height=None,
        width=None,
        max_height=8,
        max_width=9,
        channels=3,
        formats={"jpeg": 5, "png": 1, "webp": 1},
    )
    assert (JPEG.formats, wide.formats) == ({"jpeg": 3, "png": 1}, {"jpeg": 2})
    assert join_images([JPEG, JPEG]) == dataclasses.replace(JPEG, formats={"jpeg": 6, "png": 2})


@pytest.mark.parametrize("changes", [{"channels": 1}, {"formats": {"raw": 4}}])
def test_pixels_that_have_nothing_in_common_are_not_joined(changes):
    with pytest.raises(UsageError, match="different channels"):
        join_images([JPEG, dataclasses.replace(JPEG, **changes)])


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("weights", "shares", "blocks"),
    [
        ({"few": 1, "many": 1}, {"few": 50, "many": 50}, 2),
        ({"few": 1, "many": 3}, {"few": 25, "many": 75}, 4),
        ({"many": 2, "few": 1, "tiny": 0.3}, {"many": 61, "few": 30, "tiny": 9}, 4),
        ({"many": 1}, {"many": 100}, 3),
        ({"few": 2, "tiny": 1}, {"few": 67, "tiny": 33}, 1),
        ({"few": 1, "tiny": 1}, {"few": 1, "tiny": 1}, 40),
    ],
)
def test_every_hundred_records_have_the_same_shares(mix, weights, shares, blocks, shuffle):
    size = sum(shares.values())
    dataset = mix(weights, shuffle=shuffle)
    assert len(dataset) == -(-blocks * size // 16)
    for _ in range(2):
        names = list_names(dataset)
        assert len(set(names)) == len(names) == blocks * size
        for begin in range(0, len(names), size):
            assert count_sets(names[begin : begin + size]) == shares


def test_images_and_labels_are_those_of_the_names(mix, sets):
    stored = {
        Path(record.source_id).name: (tf.io.decode_png(record.encoded).numpy(), record.label)
        for name in ("few", "many")
        for record in open_shards(sets[name]).source("train")
    }
    for images, labels, names in mix({"few": 1, "many": 1}):
        for image, label, name in zip(images.numpy(), labels.numpy(), names.numpy(), strict=True):
            expected = stored[Path(name.decode()).name]
            np.testing.assert_array_equal(image, expected[0], strict=True)
            assert label == expected[1]


def test_every_epoch_has_other_records_in_another_order(mix):
    dataset = mix({"few": 1, "many": 1})
    first, second = list_names(dataset), list_names(dataset)
    assert set(first) != set(second)
    assert list_names(mix({"few": 1, "many": 1}, initial_epoch=1)) == second
    assert list_names(mix({"few": 1, "many": 1}, seed=6)) != first


def test_without_shuffle_all_epochs_runs_and_hosts_are_the_same(mix):
    whole = list_names(mix({"few": 1, "many": 1}, shuffle=False, seed=None))
    dataset = mix({"few": 1, "many": 1}, shuffle=False, seed=None)
    assert list_names(dataset) == list_names(dataset) == whole
    hosts = [
        mix({"few": 1, "many": 1}, shuffle=False, seed=None, shard_index=host, shard_count=3)
        for host in range(3)
    ]
    assert list_names(*hosts) == whole


def test_sets_of_one_size_are_shuffled_by_themselves(sets):
    parts = [(sets[name], open_shards(sets[name]).manifest, 1.0) for name in ("few", "twin")]
    order = plan_mixture(parts, "train", ReadOptions(seed=5)).order
    numbers = order.find_records(0, np.arange(BLOCK_RECORDS))
    few, twin = (set(numbers[numbers < 130]), set(numbers[numbers >= 130] - 130))
    assert len(few) == len(twin) == 50
    # 19 by chance; with one order for both, the same 50.
    assert len(few & twin) < 35


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_mixture_goes_on_at_any_step(mix, shuffle):
    weights = {"few": 1, "many": 2}
    whole = mix(weights, shuffle=shuffle)
    epochs = [list_batches(whole) for _ in range(3)]
    end = len(epochs[0])
    for epoch, step in itertools.product((0, 1), (0, 1, end // 2, end - 1, end)):
        dataset = mix(weights, shuffle=shuffle, initial_epoch=epoch, initial_step=step)
        assert list_batches(dataset) == epochs[epoch][step:]
        assert list_batches(dataset) == epochs[epoch + 1]


@pytest.mark.parametrize("remainder", ["keep", "pad", "drop"])
def test_hosts_share_a_mixture(mix, remainder):
    weights = {"few": 1, "many": 2}
    whole = list_names(mix(weights))
    hosts = [
        mix(weights, remainder=remainder, shard_index=host, shard_count=3) for host in range(3)
    ]
    assert len({len(host) for host in hosts}) == 1
    names = list_names(*hosts)
    assert names == (whole[: len(whole) // 48 * 48] if remainder == "drop" else whole)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_mixture_can_be_cached(mix, shuffle):
    weights = {"few": 3, "many": 1}
    plain, cached = mix(weights, shuffle=shuffle), mix(weights, shuffle=shuffle, cache=True)
    for _ in range(3):
        assert list_batches(cached) == list_batches(plain)


def test_a_cache_has_to_hold_all_records_of_all_sets(mix):
    with pytest.raises(UsageError, match=r"^cache .* 440 images of 65 bytes, 28.6 kB"):
        mix({"few": 1, "many": 1}, cache=True, max_ram=10_000)


def test_all_paths_of_all_sets_are_known(mix, sets):
    paths = [
        record.source_id
        for name in ("many", "few")
        for record in open_shards(sets[name]).source("train")
    ]
    assert list(mix({"many": 1, "few": 1}).file_paths) == paths


def test_another_mixture_is_not_taken_for_the_same(mix):
    prints = [
        mix(weights).epoch_fingerprint
        for weights in (
            {"few": 1, "many": 1},
            {"many": 1, "few": 1},
            {"few": 51, "many": 49},
            {"few": 1, "twin": 1},
        )
    ]
    assert all(prints.count(one) == 1 for one in prints)
    assert mix({"few": 2, "many": 2}).epoch_fingerprint == prints[0]


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ({}, {}, "weights [] are out of range: 1 to 100 numbers above 0"),
        ({"few": "half"}, {}, "weights ['half'] are out of range: 1 to 100 numbers above 0"),
        ({"few": 1, "many": 0}, {}, "weights [1, 0] are out of range: 1 to 100 numbers above 0"),
        (
            {"few": 1, "tiny": 99},
            {},
            "data sets of 130, 40 records are too small to be mixed at 1:99",
        ),
        (
            {"few": 1},
            {"labels": (0,) * 130},
            "labels cannot be given for a mixture: it is about one data set",
        ),
        (
            {"few": 1},
            {"class_names": ("x",)},
            "class_names cannot be given for a mixture: it is about one data set",
        ),
        (
            {"few": 1},
            {"validation_split": 0.2, "subset": "training"},
            "validation_split cannot be given for a mixture: it is about one data set",
        ),
        (
            {"few": 1},
            {"shuffle": "buffer"},
            "shuffle 'buffer' reads one data set at a time: mix with 'exact'",
        ),
        (
            {"few": 1, "many": 1},
            {"initial_step": 14},
            "initial_step 14 is out of range: an epoch has 13 steps",
        ),
        (
            {"few": 1, "many": 1},
            {"seed": None, "shard_count": 2},
            "shard_count 2: hosts that share an epoch need the same order, give all of them the "
            "same seed",
        ),
    ],
)
def test_what_cannot_be_mixed_is_refused(mix, weights, options, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        mix(weights, **options)


def test_other_classes_and_other_pixels_are_refused(sets, converted, tmp_path):
    with pytest.raises(UsageError, match="different classes"):
        mix_datasets({sets["few"]: 1, converted: 1})
    raw = dataclasses.replace(OPTIONS, encoding="raw")
    images = sets["few"].parent / "images" / "few"
    convert_folder(images, tmp_path / "raw", raw)
    with pytest.raises(UsageError, match="different channels"):
        mix_datasets({sets["few"]: 1, tmp_path / "raw": 1})


def test_raw_images_are_mixed_as_encoded_ones(mix, sets, tmp_path):
    raw = dataclasses.replace(OPTIONS, encoding="raw")
    for name in ("few", "many"):
        convert_folder(sets["few"].parent / "images" / name, tmp_path / name, raw)
    mixed = mix_datasets({tmp_path / "few": 1, tmp_path / "many": 1}, **READING)
    assert list_batches(mixed) == list_batches(mix({"few": 1, "many": 1}))


def test_sets_of_other_sizes_are_mixed_where_they_are_resized(mix, sets, tmp_path):
    larger = dataclasses.replace(OPTIONS, image_size=(8, 8))
    convert_folder(sets["few"].parent / "images" / "few", tmp_path / "set", larger)
    both = {tmp_path / "set": 1, sets["many"]: 1}
    with pytest.raises(UsageError, match="images differ in size"):
        mix_datasets(both, **READING)
    resized = mix_datasets(both, image_size=(6, 6), **READING)
    assert resized.element_spec[0].shape == (None, 6, 6, 3)
    assert list_names(resized) == list_names(mix({"few": 1, "many": 1}))
