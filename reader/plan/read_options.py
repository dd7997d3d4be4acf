"""The options of a reader: `ReadOptions`."""

import dataclasses
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from converter.errors import UsageError
from converter.sizes import parse_bytes
from reader.records.damage import POLICIES
from reader.sampling.orders import REMAINDERS

COLOR_CHANNELS: Final = {"grayscale": 1, "rgb": 3, "rgba": 4}

FLAG: Final = (False, True)
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
    "crop_to_aspect_ratio": FLAG,
    "pad_to_aspect_ratio": FLAG,
    "random_flip": FLAG,
    "with_filename": FLAG,
    "cache": FLAG,
}  # fmt: skip
"""The values of each option that has a fixed set of them."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How a split becomes batches.

    Attributes:
        batch_size: images per batch; None for single images.
        label_mode: `int` for int32 labels (batch,); `categorical` for float32 one-hot labels
            (batch, classes); `binary` for float32 labels (batch, 1), with two classes only; None
            for images without labels.
        labels: replace the stored labels: a dict from each original's path to its label or, with
            `order="path"`, a list with a label for each record in that order.
        class_names: the classes to read, in the order of their new labels; None for all. For a
            part of them, every record's label is read first.
        validation_split: fraction of the records to hold out, of a data set without such a split.
        subset: the part of that division to read: `training` or `validation`.
        color_mode: `rgb`, `grayscale` or `rgba`.
        dtype: of the images: float32, or uint8 at a quarter of the memory; 0 to 255 in both.
        data_format: `channels_last` or `channels_first`.
        image_size: (height, width) to resize to; None for the stored size.
        interpolation: how to resize, a method of `tf.image.resize`.
        crop_to_aspect_ratio: crop to the shape of `image_size` instead of stretching.
        pad_to_aspect_ratio: pad with black instead of stretching.
        random_crop: (least, greatest) fraction of an image's area: every epoch shows a random part
            of each image, of 3:4 to 4:3 if that fits, resized. Of a JPEG, only that is decoded.
        random_flip: mirror half of the images in each epoch.
        shuffle: `exact` for a uniform order, fresh in each epoch; `buffer` shuffles within windows
            of long sequential reads, for storage with slow random access. True means `buffer` for
            object stores and `exact` elsewhere; None means True for the split `train` and False
            for others.
        order: of `file_paths` and of epochs without shuffling: `stored`, as the records lie in the
            shards, or `path`, sorted by the originals' paths as Keras does; it reads all first.
        seed: of all orders and random changes; None for a different one in every run.
        remainder: what to do with records that do not fill a batch: `keep` gives a smaller batch,
            `drop` leaves them out, `pad` fills the batch and gives a float32 mask (batch,) after
            the labels, which Keras takes as sample weights.
        shard_index: number of this host, if several share the records of an epoch.
        shard_count: number of those hosts.
        initial_epoch: the first epoch to read.
        initial_step: the first step of that epoch. Any number of hosts may continue as long as
            `batch_size * shard_count` stays the same; with `buffer`, only from the beginning of an
            epoch. `fit` needs more at the end of an epoch that starts midway: see `ResumeTraining`.
        on_damage: `raise` an error at a damaged record, or `skip` and log it; single images are
            then fewer than the data set's length says.
        max_damaged: how many different records may be skipped before it is an error after all.
        with_filename: add the path of each original.
        columns: of a converted table, to add as a dict after everything else: int64, float32 or
            strings (batch,), or ragged (batch, None). Boxes are (batch, None, 4): top, left,
            bottom, right as fractions of the image. Crops and flips are refused with them.
        masks: give each image's mask, uint8 (batch, height, width, 1), instead of its label;
            `with_labels` gives a pair (mask, label) there. A mask moves with its image, and keeps
            its values. None means True if there are masks and label options have their defaults.
        cache: keep the decoded images in memory; refused if they do not fit into `max_ram`.
        max_ram: all the memory that the reader may use, in bytes or like "512MB".
        cache_dir: local folder for data fetched from object stores, shared by all readers; None for
            `shardmill` in the user's cache folder.
        cache_bytes: its limit, in bytes or like "100GB"; None for 20 GB. The least recently used
            files go first. It also limits how many shards `buffer` mixes, at most 8.

    Raises:
        UsageError: a value is out of range or contradicts another.
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
        for name in self.__dataclass_fields__:
            # Scripts made for Keras give NumPy's numbers and arrays, and 0 or 1 for a flag.
            value, choices = getattr(self, name), ALLOWED.get(name, ())
            if isinstance(value, np.generic | np.ndarray):
                value = value.tolist()
            if type(value) is int and choices == FLAG and value in {0, 1}:
                value = bool(value)
            object.__setattr__(self, name, value)
            if choices:
                check_choice(name, value, choices)
        self._check_numbers()
        columns = dict.fromkeys(_list_names(self.columns, "columns"))
        object.__setattr__(self, "columns", tuple(columns))
        for name, normalize in (
            ("image_size", _pair_sides),
            ("class_names", _list_names),
            ("labels", _list_labels),
            ("random_crop", _pair_fractions),
        ):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, normalize(getattr(self, name)))
        self._check_combinations()

    @property
    def max_ram_bytes(self) -> int:
        return parse_bytes(self.max_ram) if isinstance(self.max_ram, str) else self.max_ram

    def _check_numbers(self) -> None:
        _check_range("batch_size", self.batch_size, 1, optional=True)
        _check_range("seed", self.seed, 0, 2**63, optional=True)
        _check_range("shard_count", self.shard_count, 1)
        _check_range("shard_index", self.shard_index, 0, self.shard_count)
        for name in ("initial_epoch", "initial_step", "max_damaged"):
            _check_range(name, getattr(self, name), 0)
        _check_range("max_ram", self.max_ram_bytes, 0)
        check_cache(self.cache_dir, self.cache_bytes)

    def _check_combinations(self) -> None:
        if self.crop_to_aspect_ratio and self.pad_to_aspect_ratio:
            raise UsageError(
                "crop_to_aspect_ratio and pad_to_aspect_ratio exclude each other: leave one out"
            )
        if self.labels is not None and self.class_names is not None:
            raise UsageError("class_names names the stored labels, which `labels` replaces")
        if (self.validation_split is None) != (self.subset is None):
            raise UsageError("validation_split and subset go together: give both, or neither")
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
                "random_crop chooses the part of an image itself: leave out crop_to_aspect_ratio "
                "and pad_to_aspect_ratio"
            )
        if self.cache and (self.random_crop or self.random_flip):
            raise UsageError(
                "cache keeps decoded images, which random_crop and random_flip change: leave out "
                "one of the two"
            )
        if self.on_damage == "skip" and self.remainder == "drop":
            raise UsageError(
                "on_damage 'skip' can make a batch smaller, remainder 'drop' makes all equal: use "
                "'pad', which gives a skipped record the weight 0, or 'keep'"
            )


def make_options(
    options: dict[str, Any], known: Sequence[str] = tuple(ReadOptions.__dataclass_fields__)
) -> ReadOptions:
    """Makes `ReadOptions` from keyword arguments, of which only those in `known` are taken."""
    for name in options:
        if name not in known:
            raise UsageError(f"argument {name!r} is unknown: there are {', '.join(known)}")
    return ReadOptions(**options)


def check_cache(cache_dir: object, cache_bytes: object) -> None:
    """Refuses another type or range of these two options."""
    if not isinstance(cache_dir, str | os.PathLike | None):
        raise UsageError(f"cache_dir {cache_dir!r:.60} is not a path")
    if isinstance(cache_bytes, str):
        cache_bytes = parse_bytes(cache_bytes)
    _check_range("cache_bytes", cache_bytes, 1, optional=True)


def _pair_sides(size: Any) -> tuple[int, int]:
    sides = (size, size) if type(size) is int else size
    is_pair = isinstance(sides, tuple | list) and len(sides) == 2
    if not is_pair or any(type(side) is not int for side in sides):
        raise UsageError(f"image_size {size!r:.60} is not a pair (height, width)")
    if not all(1 <= side <= 65_535 for side in sides):
        raise UsageError(f"image_size {size!r} is out of range: 1 to 65535 pixels")
    return sides[0], sides[1]


def _list_names(names: Any, option: str = "class_names") -> tuple[str, ...]:
    # A string is a sequence of strings too.
    listed = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else None
    if listed is None or not all(isinstance(name, str) for name in listed):
        raise UsageError(f"{option} {names!r:.60} is not a list of names")
    return listed


def _list_labels(labels: Any) -> dict[str, int] | tuple[int, ...]:
    listed = list(labels.values()) if isinstance(labels, Mapping) else labels
    try:
        numbers = [operator.index(label) for label in listed]
    except TypeError:
        raise UsageError(
            f"labels {labels!r:.60} is not a list of whole numbers, nor a dict from paths to them"
        ) from None
    for number in (min(numbers, default=0), max(numbers, default=0)):
        _check_range("a label", number, -(2**31), 2**31)
    if isinstance(labels, Mapping):
        return dict(zip(labels, numbers, strict=True))
    return tuple(numbers)


def _pair_fractions(shares: Any) -> tuple[float, float]:
    is_pair = isinstance(shares, tuple | list) and len(shares) == 2
    if not is_pair or not all(map(_is_number, shares)) or not 0 < shares[0] <= shares[1] <= 1:
        raise UsageError(
            f"random_crop {shares!r:.60} is out of range: two shares of an image's area, "
            "above 0 and up to 1"
        )
    return shares[0], shares[1]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuses a value that is none of the choices."""
    # Compare types too, and first: 1 == True, and an array compares as an array.
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        known = ", ".join(repr(choice) for choice in choices)
        raise UsageError(f"{name} {value!r:.60} is unknown: choose one of {known}")


def _check_range(
    name: str, value: object, least: int, end: int | None = None, *, optional: bool = False
) -> None:
    limit = f"at least {least}" if end is None else f"{least} to {end - 1}"
    limit += ", or None" * optional
    if type(value) is not int:  # True is an instance of int
        if value is not None or not optional:
            raise UsageError(f"{name} {value!r:.60} is not a whole number: {limit}")
    elif value < least or (end is not None and value >= end):
        raise UsageError(f"{name} {value} is out of range: {limit}")
