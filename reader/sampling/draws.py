"""Random keys, permutations and flips: the same on every machine, with NumPy alone."""

import functools
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from reader.arrays import Flags, Numbers

Words: TypeAlias = npt.NDArray[np.uint64]

Key = TypeVar("Key", int, Words)  # one of 64 bits, or an array of them

# Of swap-or-not: over 2 to 6 elements all permutations came out equally often (chi-squared).
ROUNDS: Final = 72
# Positions permuted at once: batch by batch, numpy's overhead would be 1 ms each.
BLOCK: Final = 4_096
KEPT_BLOCKS: Final = 32  # 1 MB
PHILOX_ROUNDS: Final = 10

_GOLDEN: Final = 0x9E3779B97F4A7C15
_MASK: Final = 0xFFFFFFFFFFFFFFFF
# A column for each half of the state; 32-bit words in 64 bits, so that products do not overflow.
_FACTORS: Final = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_STEPS: Final = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint64)
_SCRAMBLING: Final = np.array([[0x3EC8F720], [0x02461E29]], np.uint64)
_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)
# The lowest 23 bits of a word become a float32 in [0, 1); this one stands for 0.5.
_ONE_HALF: Final = np.uint64(1 << 22)


def derive_key(key: int, number: Key) -> Key:
    """Derives another key of 64 bits for each number: a step of SplitMix64 from each."""
    mixed = _mix((key + _GOLDEN) & _MASK)
    derived: Key = _mix((mixed ^ (number * _GOLDEN)) & _MASK)
    return derived


def _mix(values: Any) -> Any:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014), which spreads every bit."""
    # An array wraps around by itself, Python's integers need the mask.
    values = ((values ^ (values >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    values = ((values ^ (values >> 27)) * 0x94D049BB133111EB) & _MASK
    return values ^ (values >> 31)


def permute(positions: Numbers, count: int, key: int) -> Numbers:
    """Applies one of the permutations of 0 … `count` - 1 to some positions, in memory of these."""
    # The swap-or-not shuffle of Hoang, Morris and Rogaway ("An Enciphering Scheme Based on a Card
    # Shuffle", 2012), for a domain of any size: in each round a random reflection pairs the
    # positions, and a coin for each pair swaps it or not.
    here, size = positions.astype(np.uint64), np.uint64(count)
    for salt in derive_key(key, np.arange(ROUNDS, dtype=np.uint64)):
        axis = salt % size
        there = np.where(here <= axis, axis - here, axis + size - here)
        coin = _mix(np.maximum(here, there) ^ salt) >> np.uint64(63)
        here = np.where(coin.astype(bool), there, here)
    return here.astype(np.int64)


def permute_blockwise(positions: Numbers, count: int, key: int) -> Numbers:
    """Does the same as `permute`, faster for small batches of neighbouring positions."""
    permuted = np.empty_like(positions)
    blocks = positions // BLOCK
    touched = np.unique(blocks).tolist()
    if count > KEPT_BLOCKS // 2 * BLOCK and 4 * positions.size < (len(touched) - 2) * BLOCK:
        return permute(positions, count, key)  # scattered: each would cost a block of its own
    for block in touched:
        chosen = blocks == block
        permuted[chosen] = permute_block(block, count, key)[positions[chosen] - block * BLOCK]
    return permuted


@functools.lru_cache(maxsize=KEPT_BLOCKS)  # steps go through a block one after another
def permute_block(block: int, count: int, key: int) -> Numbers:
    """Permutes the positions of one block."""
    begin = block * BLOCK
    return permute(np.arange(begin, min(begin + BLOCK, count), dtype=np.int64), count, key)


def draw_flips(seeds: Numbers) -> Flags:
    """Says which images `tf.image.stateless_random_flip_left_right(image, [seed, 1])` mirrors."""
    # The same as on a CPU, bit for bit. TensorFlow scrambles the two seeds first: one block under a
    # fixed key, with the seeds as its counter, gives the key and the counter of the block that it
    # draws from.
    words = seeds.astype(np.uint64)
    zeros = np.zeros_like(words)
    even, odd = np.stack([words & _LOW, np.ones_like(words)]), np.stack([words >> _HALF, zeros])
    even, odd = draw_blocks(even, odd, _SCRAMBLING)
    drawn, _ = draw_blocks(
        np.stack([zeros, even[1]]), np.stack([zeros, odd[1]]), np.stack([even[0], odd[0]])
    )
    mirrored: Flags = (drawn[0] & _ONE_HALF) == 0
    return mirrored


def draw_blocks(even: Words, odd: Words, key: Words) -> tuple[Words, Words]:
    """One block of Philox-4x32-10 for each counter: words 0 and 2, words 1 and 3, (2, n) each."""
    # Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
    # Counters come as the same words; all may share one key, (2, 1).
    for _ in range(PHILOX_ROUNDS):
        products = (even * _FACTORS)[::-1]
        even, odd = (products >> _HALF) ^ odd ^ key, products & _LOW
        key = (key + _STEPS) & _LOW
    return even, odd
