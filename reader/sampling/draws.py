"""What TensorFlow draws from a seed, for many seeds at once and with numpy alone."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from reader.arrays import Flags, Numbers

Words: TypeAlias = npt.NDArray[np.uint64]

PHILOX_ROUNDS: Final = 10

# One column for each half of the state; words of 32 bits in 64, so that products do not overflow.
_FACTORS: Final = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_STEPS: Final = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint64)
_SCRAMBLING: Final = np.array([[0x3EC8F720], [0x02461E29]], np.uint64)
_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)

_ONE_HALF: Final = np.uint64(1 << 22)
"""The lowest 23 bits of a word become a float32 in [0, 1); this one stands for 0.5."""


def draw_flips(seeds: Numbers) -> Flags:
    """Which images `tf.image.stateless_random_flip_left_right(image, [seed, 1])` mirrors.

    The same decisions as on a CPU, bit for bit. The numbers come from Philox-4x32-10 (Salmon,
    Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011). TensorFlow
    scrambles the two seeds first: one block under a fixed key, with the seeds as its counter, gives
    the key and the counter of the block that it draws from.

    Args:
        seeds: int64 (n,).

    Returns:
        bool (n,): True for an image that is mirrored.
    """
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
    """One block of Philox-4x32-10 for each counter.

    Args:
        even: the words 0 and 2 of the counters, (2, n).
        odd: their words 1 and 3, (2, n).
        key: the two words of the keys, (2, n), or (2, 1) for one that all share.

    Returns:
        the words 0 and 2 of the blocks, and their words 1 and 3, (2, n) each.
    """
    for _ in range(PHILOX_ROUNDS):
        products = (even * _FACTORS)[::-1]
        even, odd = (products >> _HALF) ^ odd ^ key, products & _LOW
        key = (key + _STEPS) & _LOW
    return even, odd
