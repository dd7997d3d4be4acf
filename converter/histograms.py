"""What the originals of a conversion are like: counted by format, size, shape and bytes.

Buckets begin at 1, 2 or 5 times a power of ten, sides at powers of two, and a shape goes to the
nearest ratio that has a name. So the counts of a million images take two kilobytes. Beside them
stand the names of the few smallest and largest.
"""

import bisect
import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, TypeVar

STEP_EDGES: Final = tuple(step * 10**power for power in range(13) for step in (1, 2, 5))
"""Where buckets of pixels and of bytes begin."""

SIDE_EDGES: Final = tuple(2**power for power in range(17))
"""Where buckets of shorter sides begin."""

RATIOS: Final = (
    "1:8", "1:4", "1:3", "1:2", "9:16", "2:3", "3:4", "4:5", "1:1",
    "5:4", "4:3", "3:2", "16:9", "2:1", "3:1", "4:1", "8:1",
)  # fmt: skip
"""Width to height; the first and the last stand also for all that is longer."""

# Between two ratios lies the mean of their logarithms.
_SHAPES: Final = [math.log(int(w) / int(h)) for w, _, h in (r.partition(":") for r in RATIOS)]
_SHAPE_EDGES: Final = [(low + high) / 2 for low, high in itertools.pairwise(_SHAPES)]

# Exact sizes: the commonest are kept, so that images that all differ cost no more memory.
_KEPT_SIZES: Final = 64
_HELD_SIZES: Final = 1_024

_MAX_OUTLIERS: Final = 3  # that are kept of each kind
_MAX_PATH: Final = 400  # letters: these names are kept in each line of a log
_FAR: Final = 10  # times the pixels of most originals

_T = TypeVar("_T", int, float)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SizedOriginal:
    """An original by its path, with its size in pixels, upright."""

    path: str
    height: int
    width: int

    @property
    def pixels(self) -> int:
        return self.height * self.width


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Histograms:
    """Counts of originals that were converted, by the lower edge of their bucket.

    Attributes:
        images: how many were counted.
        enlarged: how many of them have fewer rows or columns than what is stored.
        formats: by format.
        sizes: by `WIDTHxHEIGHT`, upright, in pixels: the commonest.
        sides: by the shorter side, in pixels.
        pixels: by width times height.
        ratios: by the nearest of `RATIOS`.
        bytes: by the size of the file.
        smallest: the originals of the fewest pixels; of several, the first by name.
        largest: likewise those of the most.
    """

    images: int = 0
    enlarged: int = 0
    formats: dict[str, int] = dataclasses.field(default_factory=dict)
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    sides: dict[str, int] = dataclasses.field(default_factory=dict)
    pixels: dict[str, int] = dataclasses.field(default_factory=dict)
    ratios: dict[str, int] = dataclasses.field(default_factory=dict)
    bytes: dict[str, int] = dataclasses.field(default_factory=dict)
    smallest: tuple[SizedOriginal, ...] = ()
    largest: tuple[SizedOriginal, ...] = ()

    def __add__(self, other: "Histograms") -> "Histograms":
        merged = {
            name: dict(Counter(getattr(self, name)) + Counter(getattr(other, name)))
            for name in COUNTED
        }
        merged["sizes"] = dict(Counter(merged["sizes"]).most_common(_KEPT_SIZES))
        images, enlarged = self.images + other.images, self.enlarged + other.enlarged
        smallest = sorted(self.smallest + other.smallest, key=_rank_small)[:_MAX_OUTLIERS]
        largest = sorted(self.largest + other.largest, key=_rank_large)[:_MAX_OUTLIERS]
        return Histograms(
            images=images,
            enlarged=enlarged,
            smallest=tuple(smallest),
            largest=tuple(largest),
            **merged,
        )

    @property
    def median_pixels(self) -> tuple[int, int]:
        """Half of the originals have at least the first, and half fewer than the second."""
        passed = 0
        for edge in STEP_EDGES:
            passed += self.pixels.get(str(edge), 0)
            if 2 * passed >= self.images:
                break
        return edge, next((high for high in STEP_EDGES if high > edge), 10 * edge)

    def list_outliers(self) -> tuple[list[SizedOriginal], list[SizedOriginal]]:
        """Of the smallest and of the largest, those of a tenth or ten times the usual pixels."""
        low, high = self.median_pixels
        small = [each for each in self.smallest if _FAR * each.pixels <= low]
        return small, [each for each in self.largest if each.pixels >= _FAR * high]


def _rank_small(original: SizedOriginal) -> tuple[int, str, int]:
    return original.pixels, original.path, original.height


def _rank_large(original: SizedOriginal) -> tuple[int, str, int]:
    return -original.pixels, original.path, original.height


COUNTED: Final = ("formats", "sizes", "sides", "pixels", "ratios", "bytes")


class OriginalTally:
    """Counts originals, one by one: 2 µs each."""

    def __init__(self) -> None:
        self._images = self._enlarged = 0
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in COUNTED}
        # Pixels, path and height: tuples, which are compared faster than objects.
        self._smallest: list[tuple[int, str, int]] = []
        self._largest: list[tuple[int, str, int]] = []

    def add(
        self,
        path: str,
        file_format: str,
        size: tuple[int, int],
        size_bytes: int,
        *,
        enlarged: bool,
    ) -> None:
        """Counts an original of that size (height, width), upright, in pixels."""
        height, width = size
        self._images += 1
        self._enlarged += enlarged
        counts = self._counts
        counts["formats"][file_format] += 1
        counts["sizes"][f"{width}x{height}"] += 1
        counts["sides"][str(find_edge(SIDE_EDGES, min(size)))] += 1
        counts["pixels"][str(find_edge(STEP_EDGES, height * width))] += 1
        counts["ratios"][name_ratio(height, width)] += 1
        counts["bytes"][str(find_edge(STEP_EDGES, size_bytes))] += 1
        if len(counts["sizes"]) > _HELD_SIZES:
            counts["sizes"] = Counter(dict(counts["sizes"].most_common(_KEPT_SIZES)))
        _keep(self._smallest, (height * width, path, height))
        _keep(self._largest, (-height * width, path, height))

    def describe(self) -> Histograms:
        counts = {name: dict(counted) for name, counted in self._counts.items()}
        counts["sizes"] = dict(self._counts["sizes"].most_common(_KEPT_SIZES))
        return Histograms(
            images=self._images,
            enlarged=self._enlarged,
            smallest=tuple(map(_name_original, self._smallest)),
            largest=tuple(map(_name_original, self._largest)),
            **counts,
        )


def _keep(kept: list[tuple[int, str, int]], found: tuple[int, str, int]) -> None:
    if len(kept) < _MAX_OUTLIERS or found < kept[-1]:
        bisect.insort(kept, found)
        del kept[_MAX_OUTLIERS:]


def _name_original(kept: tuple[int, str, int]) -> SizedOriginal:
    pixels, path, height = kept
    return SizedOriginal(path=path[:_MAX_PATH], height=height, width=abs(pixels) // max(1, height))


def name_ratio(height: int, width: int) -> str:
    """The ratio of width to height that a size is nearest to.

    >>> name_ratio(480, 640), name_ratio(1000, 1000)
    ('4:3', '1:1')
    """
    shape = math.log(max(1, width) / max(1, height))
    return RATIOS[bisect.bisect_right(_SHAPE_EDGES, shape)]


def find_edge(edges: Sequence[_T], value: float) -> _T:
    """The lower edge of the bucket of a value.

    >>> find_edge((0, 10, 20), 19), find_edge((0, 10, 20), -1)
    (10, 0)
    """
    return edges[max(0, bisect.bisect_right(edges, value) - 1)]
