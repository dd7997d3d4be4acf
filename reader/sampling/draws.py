"""Draws the same random decisions as TensorFlow, for many seeds at once, with NumPy alone."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from reader.arrays import Flags, Numbers

Words: TypeAlias = npt.NDArray[np.uint64]

PHILOX_ROUNDS: Final = 10

# A column for each half of the state; 32-bit words in 64 bits, so that products do not overflow.
_FACTORS: Final = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_STEPS: Final = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint64)
_SCRAMBLING: Final = np.array([[0x3EC8F720], [0x02461E29]], np.uint64)
_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)

_ONE_HALF: Final = np.uint64(1 << 22)
"""The lowest 23 bits of a word become a float32 in [0, 1); this one stands for 0.5."""


def draw_flips(seeds: Numbers) -> Flags:
    """Decides which images `tf.image.stateless_random_flip_left_right(image, [seed, 1])` mirrors.

    The decisions, bool (n,) for seeds int64 (n,), are those on a CPU, bit for bit.
    """
    # TensorFlow scrambles the two seeds first: one block under a fixed key, with the seeds as its
    # counter, gives the key and the counter of the block that it draws from.
    words = seeds.astype(np.uint64)
    zeros = np.zeros_like(words)
    even, odd = _draw_blocks(
        np.stack([words & _LOW, zeros + np.uint64(1)]),
        np.stack([words >> _HALF, zeros]),
        _SCRAMBLING,
    )
    drawn, _ = _draw_blocks(
        np.stack([zeros, even[1]]), np.stack([zeros, odd[1]]), np.stack([even[0], odd[0]])
    )
    mirrored: Flags = (drawn[0] & _ONE_HALF) == 0
    return mirrored


def _draw_blocks(even: Words, odd: Words, key: Words) -> tuple[Words, Words]:
    """One block of Philox-4x32-10 for each counter: words 0 and 2, words 1 and 3, (2, n) each.

    Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. Counters
    come as the same words; all may share one key, (2, 1).
    """
    for _ in range(PHILOX_ROUNDS):
        products = (even * _FACTORS)[::-1]
        even, odd = (products >> _HALF) ^ odd ^ key, products & _LOW
        key = (key + _STEPS) & _LOW
    return even, odd
