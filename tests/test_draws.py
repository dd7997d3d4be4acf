"""Draws: what TensorFlow decides, without TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf

from reader.sampling.draws import PHILOX_ROUNDS, draw_blocks, draw_flips

EXTREMES = np.array(
    [0, 1, -1, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 2**63 - 1, -(2**63)], np.int64
)


def make_seeds(count: int) -> np.ndarray:
    """The extremes, and random ones of both signs and of all magnitudes."""
    rng = np.random.default_rng(7)
    spread = rng.integers(-(2**63), 2**63, count - len(EXTREMES), dtype=np.int64)
    return np.concatenate([EXTREMES, spread >> rng.integers(0, 64, len(spread))])


@tf.function
def draw_uniform(seeds: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(
        lambda seed: tf.random.stateless_uniform([], seed=tf.stack([seed, 1])),
        seeds,
        fn_output_signature=tf.float32,
    )


def test_flips_are_those_of_tensorflows_uniform_numbers():
    seeds = make_seeds(20_000)
    flips = draw_flips(seeds)
    assert flips.dtype == np.bool_
    np.testing.assert_array_equal(flips, draw_uniform(seeds).numpy() < 0.5)
    assert 0.49 < draw_flips(np.arange(20_000)).mean() < 0.51


def test_flips_are_those_of_the_operation_on_images():
    image = tf.constant([[[1], [2]]], tf.uint8)

    def is_mirrored(seed: tf.Tensor) -> tf.Tensor:
        flipped = tf.image.stateless_random_flip_left_right(image, tf.stack([seed, 1]))
        return flipped[0, 0, 0] == 2

    seeds = make_seeds(500)
    # As the pipeline runs it.
    given = tf.data.Dataset.from_tensor_slices(seeds).map(is_mirrored, num_parallel_calls=2)
    assert draw_flips(seeds).tolist() == [bool(mirrored) for mirrored in given]
    assert draw_flips(seeds[:20]).tolist() == [bool(is_mirrored(seed)) for seed in seeds[:20]]


def test_a_flip_depends_on_its_own_seed_alone():
    seeds = make_seeds(200)
    flips = draw_flips(seeds)
    assert [draw_flips(seeds[[number]])[0] for number in range(200)] == flips.tolist()
    assert draw_flips(seeds[::-3]).tolist() == flips[::-3].tolist()
    assert draw_flips(np.array([], np.int64)).shape == (0,)


@pytest.mark.parametrize(
    ("counter", "key", "block"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (
            [0xFFFFFFFF] * 4,
            [0xFFFFFFFF] * 2,
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_blocks_are_those_that_the_authors_of_philox_publish(counter, key, block):
    assert PHILOX_ROUNDS == 10
    words = np.array(counter, np.uint64).reshape(2, 2).T[..., np.newaxis]
    even, odd = draw_blocks(*words, np.array(key, np.uint64)[:, np.newaxis])
    assert np.stack([even, odd], axis=1).ravel().tolist() == block
