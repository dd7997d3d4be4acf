"""What the reading of a data set is asked for: `ReadOptions`."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from converter.errors import UsageError
from converter.sizes import parse_bytes
from reader.records.damage import POLICIES
from reader.sampling.steps import REMAINDERS

COLOR_CHANNELS: Final = {"grayscale": 1, "rgb": 3, "rgba": 4}

ALLOWED: Final[dict[str, tuple[object, ...]]] = {
    "label_mode": ("int", "categorical", "binary", None),
    "color_mode": tuple(COLOR_CHANNELS),
    "dtype": ("float32", "uint8"),
    "data_format": ("channels_last", "channels_first"),
    "interpolation": (
        "bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian",
        "mitchellcubic",
    ),
    "shuffle": (None, True, False, "exact", "buffer"),
    "order": ("stored", "path"),
    "remainder": REMAINDERS,
    "subset": (None, "training", "validation"),
    "on_damage": POLICIES,
    "masks": (None, True, False, "with_labels"),
}  # fmt: skip
"""By option, the values that it may have."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How a split becomes batches.

    Attributes:
        batch_size: images a batch; None for single images.
        label_mode: `int` for int32 labels (batch,); `categorical` for float32 one-hot labels
            (batch, classes); `binary` for float32 labels (batch, 1), of two classes only; None
            for images alone.
        labels: labels to give instead of the stored ones: a dict from each original's path to its
            label, or, with `order="path"`, a list with one for each record of the split in that
            order; None for the stored ones.
        class_names: the classes to read, in the order of their new labels; None for all. Leaving
            some out reads every record's label.
        validation_split: share of the records to hold out, if the data set was converted without
            a split for validation.
        subset: `training` or `validation`: which part of that.
        color_mode: `rgb`, `grayscale` or `rgba`.
        dtype: of the images: float32, or uint8 at a quarter of the memory. Both are 0 to 255.
        data_format: `channels_last` or `channels_first`.
        image_size: (height, width) to resize to; None for the size they are stored in.
        interpolation: for that, one of `tf.image.resize`'s methods.
        crop_to_aspect_ratio: cut off what does not fit the shape of `image_size`, instead of
            stretching.
        pad_to_aspect_ratio: fill up with black instead.
        random_crop: (least, greatest) share of an image's area: each epoch shows a random part of
            each image, of a shape from 3:4 to 4:3 if there is room for it, in the size asked for.
            Of a JPEG, only that part is decoded.
        random_flip: mirror half of the images in each epoch.
        shuffle: `exact` gives a uniform order, fresh in each epoch; `buffer` shuffles within
            windows of long sequential reads, for storage on which single reads are slow. True
            is `buffer` for object stores and else `exact`; None is True for the split `train` and
            False for others.
        order: `stored`, the order in which records lie, or `path`, that of the originals' paths, as
            Keras has it; which one an epoch without shuffling and `file_paths` have. `path` reads
            every record first.
        seed: decides all orders and random changes; None for other ones in every run.
        remainder: of records that fill no batch: `keep` gives a smaller one, `drop` leaves them
            out, `pad` fills it up, and gives a float32 mask (batch,) behind the labels, which
            Keras takes as weights.
        shard_index: number of this host, if several share the records of an epoch.
        shard_count: of those hosts.
        initial_epoch: the epoch that is read first.
        initial_step: the step of that epoch that comes first. Where `batch_size * shard_count` is
            the same, any number of hosts may go on, but with `buffer` from an epoch's beginning
            alone. At the end of such an epoch `fit` wants more: see `ResumeTraining`.
        on_damage: `raise` an error at a damaged record, or `skip` it, noted in the log; of single
            images, there are then fewer than the length says.
        max_damaged: different records that may be skipped before it is an error after all.
        with_filename: give the path of each original too, as the last of the tensors.
        columns: of a table that was converted, to give as a dict behind all others: int64, float32
            or strings (batch,), or ragged (batch, None), of boxes (batch, None, 4) as top, left,
            bottom, right in fractions of the image. They do not move, so crops and flips are
            refused with boxes.
        masks: give each image's mask, uint8 (batch, height, width, 1), in place of its label, or
            `with_labels` for a pair (mask, label) there; it is cropped, resized and flipped as the
            image is, and keeps its numbers. None for True if there are masks and no labels in
            another form are asked for.
        cache: keep the decoded images in memory; refused if they do not fit into `max_ram`.
        max_ram: what the reader may hold in memory in all, in bytes or like "512MB".
        cache_dir: folder for what is fetched of a data set in an object store, shared by all that
            is read from there; None for `shardmill` in the user's cache folder.
        cache_bytes: what may be kept in there, in bytes or like "100GB"; None for 20 GB. What is
            used least goes. It decides how many shards `buffer` mixes, up to 8.

    Raises:
        UsageError: a value is out of its range, or contradicts another.
    """

    batch_size: int | None = 32
    label_mode: str | None = "int"
    labels: Mapping[str, int] | tuple[int, ...] | None = None
    class_names: tuple[str, ...] | None = None
    validation_split: float | None = None
    subset: str | None = None
    color_mode: str = "rgb"
    dtype: str = "float32"
    data_format: str = "channels_last"
    image_size: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    crop_to_aspect_ratio: bool = False
    pad_to_aspect_ratio: bool = False
    random_crop: tuple[float, float] | None = None
    random_flip: bool = False
    shuffle: bool | str | None = None
    order: str = "stored"
    seed: int | None = None
    remainder: str = "keep"
    shard_index: int = 0
    shard_count: int = 1
    initial_epoch: int = 0
    initial_step: int = 0
    on_damage: str = "raise"
    max_damaged: int = 100
    with_filename: bool = False
    columns: tuple[str, ...] = ()
    masks: bool | str | None = None
    cache: bool = False
    max_ram: int | str = 512_000_000
    cache_dir: str | os.PathLike[str] | None = None
    cache_bytes: int | str | None = None

    def __post_init__(self) -> None:
        for name, choices in ALLOWED.items():
            _check_choice(name, getattr(self, name), choices)
        self._check_numbers()
        self._check_sizes()
        self._check_combinations()

    @property
    def max_ram_bytes(self) -> int:
        """`max_ram` in bytes."""
        return parse_bytes(self.max_ram) if isinstance(self.max_ram, str) else self.max_ram

    def _check_numbers(self) -> None:
        if self.batch_size is not None:
            _check_range("batch_size", self.batch_size, 1, hint=", or None")
        if self.seed is not None:
            _check_range("seed", self.seed, 0, 2**63)
        _check_range("shard_count", self.shard_count, 1)
        _check_range("shard_index", self.shard_index, 0, self.shard_count)
        for name in ("initial_epoch", "initial_step", "max_damaged"):
            _check_range(name, getattr(self, name), 0)
        _check_range("max_ram", self.max_ram_bytes, 0)
        check_cache(self.cache_dir, self.cache_bytes)

    def _check_sizes(self) -> None:
        for name, check in (
            ("image_size", check_image_size),
            ("class_names", _check_names),
            ("columns", _check_columns),
            ("labels", _check_labels),
            ("random_crop", _check_shares),
        ):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check(getattr(self, name)))

    def _check_combinations(self) -> None:
        if self.crop_to_aspect_ratio and self.pad_to_aspect_ratio:
            raise UsageError("crop_to_aspect_ratio and pad_to_aspect_ratio exclude each other")
        if self.labels is not None and self.class_names is not None:
            raise UsageError("class_names names the stored labels, which `labels` replaces")
        if (self.validation_split is None) != (self.subset is None):
            raise UsageError("validation_split and subset take each other: give both or none")
        if self.validation_split is not None:
            if not _is_number(self.validation_split) or not 0 < self.validation_split < 1:
                raise UsageError(
                    f"validation_split {self.validation_split!r} is out of range: above 0, below 1"
                )
            if self.seed is None:
                raise UsageError(
                    "validation_split draws records with the seed: give the same one for training "
                    "and for validation, or they overlap"
                )
        if self.order == "path" and self.shuffle == "buffer":
            raise UsageError(
                "order 'path' reads records one by one, shuffle 'buffer' long runs of neighbours: "
                "leave one of the two out"
            )
        if self.random_crop and (self.crop_to_aspect_ratio or self.pad_to_aspect_ratio):
            raise UsageError(
                "random_crop leaves nothing for an aspect ratio to be cropped or padded to"
            )
        if self.cache and (self.random_crop or self.random_flip):
            raise UsageError("cache keeps decoded images, which random_crop and random_flip change")
        if self.on_damage == "skip" and self.remainder == "drop":
            raise UsageError(
                "on_damage 'skip' can make a batch smaller, remainder 'drop' makes all equal: use "
                "'pad', which gives a skipped record the weight 0, or 'keep'"
            )


def make_options(
    options: dict[str, Any], known: Sequence[str] = tuple(ReadOptions.__dataclass_fields__)
) -> ReadOptions:
    """Options by their names, some of which may not be known here.

    Raises:
        UsageError: one is not, or is out of its range.
    """
    for name in options:
        if name not in known:
            raise UsageError(f"argument {name!r} is unknown: there are {', '.join(known)}")
    return ReadOptions(**options)


def check_cache(cache_dir: object, cache_bytes: object) -> None:
    """Refuses what is not a path, or not a number of bytes.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(cache_dir, str | os.PathLike | None):
        raise UsageError(f"cache_dir {cache_dir!r} is not a path")
    if isinstance(cache_bytes, str):
        cache_bytes = parse_bytes(cache_bytes)
    if cache_bytes is not None:
        _check_range("cache_bytes", cache_bytes, 1)


def check_image_size(size: object) -> tuple[int, int]:
    """A (height, width) from what a caller gave as one, or as the side of a square.

    Raises:
        UsageError: it is neither, or a side is not from 1 to 65,535.
    """
    sides = (size, size) if type(size) is int else size
    if (
        not isinstance(sides, tuple | list)
        or len(sides) != 2
        or any(type(side) is not int for side in sides)
    ):
        raise UsageError(f"image_size {size!r} is not a pair (height, width)")
    if not all(1 <= side <= 65_535 for side in sides):
        raise UsageError(f"image_size {size!r} is out of range: 1 to 65535 pixels")
    return sides[0], sides[1]


def _check_names(names: object, option: str = "class_names") -> tuple[str, ...]:
    # A string is a sequence of strings too.
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise UsageError(f"{option} {names!r} is not a list of names")
    return tuple(names)


def _check_columns(names: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_check_names(names, "columns")))


def _check_labels(labels: object) -> dict[str, int] | tuple[int, ...]:
    listed = list(labels.values()) if isinstance(labels, Mapping) else labels
    try:
        numbers = [operator.index(label) for label in listed]  # type: ignore[attr-defined]
    except TypeError:
        raise UsageError(
            f"labels {labels!r:.60} is not a list of whole numbers, nor a dict from paths to them"
        ) from None
    for number in numbers:
        _check_range("a label", number, -(2**31), 2**31)
    if isinstance(labels, Mapping):
        return dict(zip(labels, numbers, strict=True))
    return tuple(numbers)


def _check_shares(shares: object) -> tuple[float, float]:
    if (
        not isinstance(shares, tuple | list)
        or len(shares) != 2
        or not all(map(_is_number, shares))
        or not 0 < shares[0] <= shares[1] <= 1
    ):
        raise UsageError(
            f"random_crop {shares!r} is out of range: two shares of an image's area, "
            "above 0 and up to 1"
        )
    return shares[0], shares[1]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    # 1 == True, and is no choice.
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        known = ", ".join(repr(choice) for choice in choices)
        raise UsageError(f"{name} {value!r} is unknown: choose one of {known}")


def _check_range(
    name: str, value: object, least: int, end: int | None = None, hint: str = ""
) -> None:
    if type(value) is not int:
        raise UsageError(f"{name} {value!r} is not a whole number")
    if value < least or (end is not None and value >= end):
        limit = f"at least {least}" if end is None else f"{least} to {end - 1}"
        raise UsageError(f"{name} {value} is out of range: {limit}{hint}")
