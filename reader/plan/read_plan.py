"""What you ask for meets what there is: a manifest and options become a `ReadPlan`."""

from __future__ import annotations

import dataclasses
import functools
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from converter.errors import UsageError
from converter.format.manifest import ImageInfo, Manifest
from converter.sizes import format_bytes, format_count
from converter.storage.layout import Location
from reader.arrays import Numbers
from reader.examples.columns import FilePaths
from reader.examples.fields import RAW, Wanted
from reader.plan.access import arrange, arrange_shardwise
from reader.plan.columns import Values
from reader.plan.memory import STORE_BYTES, Buffers, Demand, divide_memory
from reader.plan.options import COLOR_CHANNELS, ReadOptions
from reader.plan.record_choice import Choice, choose_records
from reader.records.files import RecordFile, read_index
from reader.records.record_files import RecordFiles
from reader.remote.remote_file import MIXED_SHARDS, RemoteFile, list_remote
from reader.remote.shard_cache import check_room, open_cache
from reader.sampling.orders import Order
from reader.sampling.position import Position
from reader.sampling.selection import select_all, sort_selection
from reader.sampling.steps import Steps

LABEL_BYTES: Final = 5
"""Of a cached image besides its pixels: its label, and whether it is there."""

VALUE_BYTES: Final = {"uint8": 1, "float32": 4}

SINGLES: Final = 32
"""Single images of one size are read that many at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImagePlan:
    """From which images which others are made.

    Attributes:
        stored: what the stored images have in common.
        options: what is asked for.
    """

    stored: ImageInfo
    options: ReadOptions

    @property
    def height(self) -> int | None:
        """Of the images given, or None where they differ."""
        return self.options.image_size[0] if self.options.image_size else self.stored.height

    @property
    def width(self) -> int | None:
        """Of the images given, or None where they differ."""
        return self.options.image_size[1] if self.options.image_size else self.stored.width

    @property
    def channels(self) -> int:
        """Of the images given."""
        return COLOR_CHANNELS[self.options.color_mode]

    @property
    def is_raw(self) -> bool:
        """Whether images are stored without any encoding."""
        return RAW in self.stored.formats

    @property
    def is_resized(self) -> bool:
        """Whether an image is given in another size than it is stored in."""
        return self.height is not None and (
            (self.height, self.width) != (self.stored.height, self.stored.width)
            or self.options.random_crop is not None
        )

    @property
    def resizes_alike(self) -> bool:
        """Whether all images of a batch are resized in the same way."""
        uniform = None not in (self.stored.height, self.stored.width)
        return self.is_resized and uniform and self.options.random_crop is None

    @property
    def decoded_dtype(self) -> str:
        """Of an image when it is decoded and resized: only a resize makes fractions."""
        return self.options.dtype if self.is_resized else "uint8"

    @property
    def values(self) -> int:
        """Of one image as it is given, or of the largest."""
        height, width = self.height or self.stored.max_height, self.width or self.stored.max_width
        return height * width * self.channels

    def lay_out(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """The shape of an image in the data format asked for."""
        first = self.options.data_format == "channels_first"
        return (channels, height, width) if first else (height, width, channels)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReadPlan:
    """Everything that is decided before the first record is read.

    Attributes:
        options: what is asked for; its seed is the one in use.
        shuffle: `sequential`, `exact` or `buffer`.
        images: which images are made of which.
        choice: which records, with which labels and columns.
        files: that hold the records.
        order: in which order the chosen records come.
        steps: which of them are a step, on this host.
        buffers: sizes of the buffers.
        resizes_batches: whether whole batches are resized, and not each image.
    """

    options: ReadOptions
    shuffle: str
    images: ImagePlan
    choice: Choice
    files: RecordFiles
    order: Order
    steps: Steps
    buffers: Buffers
    resizes_batches: bool = False

    @property
    def given(self) -> Values:
        """What is given besides the images."""
        return self.choice.given

    @property
    def wanted(self) -> Wanted:
        """Which parts of records are looked for, and what they have to be."""
        return Wanted(
            image=self.images.stored,
            classes=self.choice.stored_classes,
            with_names=self.options.with_filename,
            labelled=self.given.labelled,
            masks=self.given.masks,
            columns=self.given.needed,
        )

    @property
    def is_direct(self) -> bool:
        """Whether the images are stored, raw, as they are asked for."""
        images, options = self.images, self.options
        return (
            images.is_raw
            and images.stored.height is not None
            and not images.is_resized
            and images.channels == images.stored.channels
            and not options.random_flip
            and self.given.labelled
            and not self.given.needed
            and not self.given.masks
        )

    @property
    def has_classes(self) -> bool:
        """Whether each record has one label, stored or given instead."""
        return self.given.labelled or self.choice.record_labels is not None

    @property
    def read_dtype(self) -> str:
        """Of images as they are read; whole batches are resized from what is stored."""
        return "uint8" if self.resizes_batches else self.options.dtype

    def shape_read(self, channels: int | None = None) -> tuple[int, int, int] | None:
        """The shape of one image, or of its mask, as it is read; None where images differ."""
        images, stored = self.images, self.images.stored
        channels = channels or images.channels
        if self.resizes_batches and stored.height and stored.width:
            return stored.height, stored.width, channels
        if images.height and images.width:
            return images.lay_out(images.height, images.width, channels)
        return None

    @property
    def file_paths(self) -> FilePaths:
        """Paths of the originals, in the order of an epoch that is not shuffled."""
        return FilePaths(self.files, self.choice.selection)

    @property
    def start(self) -> Position:
        """A new position at the step that is read first."""
        return Position(self.options.initial_epoch, self.options.initial_step)

    @property
    def calls(self) -> int:
        """How many batches are filled at the same time."""
        # What is only copied is copied by one thread: two waited for each other at every record,
        # and gave 6,800 to 9,200 images a second where one alone gave 12,000.
        return 1 if self.is_direct or self.options.cache else self.buffers.calls

    def find_chosen(self, epoch: int, steps: Sequence[int]) -> tuple[Numbers, Numbers]:
        """Which places of some steps' batches hold a record, and which of the chosen ones."""
        found = [np.zeros(0, np.int64), *map(self.steps.find_positions, steps)]
        positions = np.concatenate(found)
        slots = np.flatnonzero(positions >= 0)
        return slots, self.order.find_records(epoch, positions[slots])

    @property
    def block_steps(self) -> int:
        """How many steps are read at once: single images of one size are read as a block."""
        uniform = self.images.height is not None
        return SINGLES if self.options.batch_size is None and uniform else 1


def plan_reading(
    folder: Location,
    manifest: Manifest,
    split: str,
    options: ReadOptions,
    *,
    singly: bool = False,
) -> ReadPlan:
    """Decides how a split is read.

    Args:
        folder: of the data set.
        manifest: of the data set.
        split: which.
        options: how.
        singly: whether steps are read at random, so that of far-away shards only what is needed
            is fetched.

    Raises:
        DatasetError: there is no such split, or a file that has to be looked at is damaged.
        UsageError: the options do not fit the data set.
    """
    files = RecordFiles(list_files(folder, manifest, split, options))
    is_remote = bool(list_remote(files.files))
    shuffle, seed = settle_order(options, split, remote=is_remote and not singly)
    options = dataclasses.replace(options, seed=seed)
    choice = choose_records(files, manifest, split, options)
    selection = choice.selection
    if shuffle == "buffer":
        # Neighbours have to be neighbours on disk: in a drawn order, each read served one record.
        selection = sort_selection(selection)
        choice = dataclasses.replace(choice, selection=selection)
    steps = plan_steps(selection.count, shuffle, options)
    images = ImagePlan(stored=manifest.image, options=options)
    buffers, resizes_batches = size_buffers(files, images, choice, shuffle)
    if shuffle == "buffer" and buffers.window and is_remote:
        files, order = arrange_shardwise(files, buffers, selection, seed)
    else:
        files, order = arrange(files, buffers, shuffle, selection.count, seed, singly=singly)
    return ReadPlan(
        options=options,
        shuffle=shuffle,
        images=images,
        choice=choice,
        files=files,
        order=order,
        steps=steps,
        buffers=buffers,
        resizes_batches=resizes_batches,
    )


def list_files(
    folder: Location, manifest: Manifest, split: str, options: ReadOptions | None = None
) -> list[RecordFile]:
    """The shards of a split that hold anything.

    Args:
        folder: of the data set.
        manifest: of the data set.
        split: which.
        options: say where objects are kept.

    Raises:
        DatasetError: there is no such split.
        UsageError: the cache is too small for one of them.
    """
    shards = [shard for shard in manifest.list_shards(split) if shard.records]
    if isinstance(folder, Path):
        return [RecordFile.of_shard(folder, shard) for shard in shards]
    options = options or ReadOptions()
    cache = open_cache(options.cache_dir, options.cache_bytes)
    check_room(cache, shards)
    return [
        RemoteFile.of_shard(folder, shard, index_bytes=shard.index_bytes, cache=cache)
        for shard in shards
    ]


def plan_steps(records: int, shuffle: str, options: ReadOptions) -> Steps:
    """Divides an epoch of so many records, which is shuffled in that way, into steps.

    Raises:
        UsageError: there are too few records for all hosts, or no step where to begin.
    """
    steps = Steps(
        records=records,
        batch_size=options.batch_size or 1,
        remainder=options.remainder,
        shard_index=options.shard_index,
        shard_count=options.shard_count,
        contiguous=shuffle == "buffer",
    )
    if options.initial_step > steps.count:
        raise UsageError(
            f"initial_step {options.initial_step} is out of range: an epoch has {steps.count} steps"
        )
    return steps


def settle_order(options: ReadOptions, split: str, *, remote: bool) -> tuple[str, int]:
    """Decides which order is meant, and draws a seed if one is needed and none is given.

    Returns:
        `sequential`, `exact` or `buffer`; and the seed.

    Raises:
        UsageError: an order without a seed is to be continued, or shared with other hosts.
    """
    shuffle = options.shuffle
    if shuffle is None:
        shuffle = split == "train" if options.subset is None else options.subset == "training"
    if isinstance(shuffle, bool):
        scattered = not remote or options.order == "path"
        shuffle = ("exact" if scattered else "buffer") if shuffle else "sequential"
    order = str(shuffle)
    random = order != "sequential" or options.random_crop is not None or options.random_flip
    if options.seed is None and random:
        if options.initial_epoch or options.initial_step:
            raise UsageError(
                "initial_epoch and initial_step go on with an order that only its seed repeats: "
                "give the seed of the run that is to be continued"
            )
        if options.shard_count > 1:
            raise UsageError(
                f"shard_count {options.shard_count}: hosts that share an epoch need the same "
                "order, give all of them the same seed"
            )
    if options.seed is None:
        # Where nothing is random, all runs and hosts are to be the same.
        return order, secrets.randbits(63) if random else 0
    return order, options.seed


def size_buffers(
    files: RecordFiles, images: ImagePlan, choice: Choice, shuffle: str
) -> tuple[Buffers, bool]:
    """Divides `max_ram`; says whether there is room to resize whole batches.

    Raises:
        UsageError: the options do not fit the images, or `max_ram` is too small.
    """
    _check_options(images, choice)
    max_ram_bytes = images.options.max_ram_bytes
    measure = functools.partial(_measure_demand, files, images, choice, shuffle)
    if images.resizes_alike:
        try:
            return divide_memory(max_ram_bytes, measure(whole=True)), True
        except UsageError:
            pass  # each image by itself takes less, and more time
    demand = measure(whole=False)
    if demand.fixed_bytes > max_ram_bytes:
        raise UsageError(
            f"cache would keep {format_count(choice.selection.count, 'image')} of "
            f"{_cached_bytes(images, choice):,} bytes, {format_bytes(demand.fixed_bytes)} in all, "
            f"and max_ram is {format_bytes(max_ram_bytes)}: allow more, or leave it out"
        )
    try:
        return divide_memory(max_ram_bytes, demand), False
    except UsageError as error:
        if images.stored.height is not None:
            raise
        raise UsageError(f"{error}; {_describe_largest(files, images)}") from None


def _check_options(images: ImagePlan, choice: Choice) -> None:
    options = images.options
    if options.label_mode == "binary" and len(choice.class_names) != 2:
        raise UsageError(
            f"label_mode 'binary' takes 2 classes, this data set has {len(choice.class_names)}: "
            "use 'int' or 'categorical'"
        )
    if images.height is None:
        if options.batch_size is not None or options.cache:
            raise UsageError(
                "the stored images differ in size and cannot be batched as they are: "
                "give image_size=(height, width) to resize them, or batch_size=None for single ones"
            )
        if options.random_crop is not None:
            raise UsageError(
                "the stored images differ in size: give the image_size that random_crop is to have"
            )
    if options.cache and options.batch_size is None:
        raise UsageError("cache keeps batches ready: give a batch_size")


def _measure_demand(
    files: RecordFiles, images: ImagePlan, choice: Choice, shuffle: str, *, whole: bool
) -> Demand:
    options, stored, shards = images.options, images.stored, files.files
    records = sum(file.records for file in shards)
    largest = max((file.max_record_bytes for file in shards), default=1)
    pixels = stored.max_height * stored.max_width
    mask_bytes = _mask_bytes(images, choice)
    resized = images.values * 4 * images.is_resized  # `tf.image.resize` gives float32
    # Pillow unpacks to 4 bytes a pixel, and then copies them; a mask is one value a pixel.
    decoded = pixels * (images.channels + 4) + (5 * pixels + mask_bytes) * choice.given.masks
    staged = pixels * images.channels + resized + pixels * choice.given.masks if whole else 0
    return Demand(
        records=records,
        # Where every image was rejected there is nothing at all.
        shard_records=max((file.records for file in shards), default=0),
        record_bytes=largest,
        mean_record_bytes=max(1, sum(file.bytes for file in shards) // max(1, records)),
        batch_size=options.batch_size or (SINGLES if images.height is not None else 1),
        image_bytes=images.values * VALUE_BYTES[options.dtype] + mask_bytes,
        decoded_bytes=decoded + (0 if whole else resized),
        # Of a record whose columns are given, next to nothing may be the image.
        staged_bytes=staged + (largest if choice.given.needed else 0),
        fixed_bytes=choice.selection.count * _cached_bytes(images, choice) if options.cache else 0,
        selection_bytes=sum(
            held.nbytes
            for held in (choice.selection.chosen, choice.record_labels)
            if held is not None
        ),
        store_bytes=STORE_BYTES if list_remote(shards) else 0,
        open_shards=2 * MIXED_SHARDS if list_remote(shards) else 4,
        shuffle=shuffle,
        cores=count_cores(),
    )


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _mask_bytes(images: ImagePlan, choice: Choice) -> int:
    """Of the mask of one image as it is given, or of the largest; 0 if it is not."""
    return images.values // images.channels * choice.given.masks


def _cached_bytes(images: ImagePlan, choice: Choice) -> int:
    return (
        images.values * VALUE_BYTES[images.decoded_dtype]
        + _mask_bytes(images, choice)
        + LABEL_BYTES
    )


def _describe_largest(files: RecordFiles, images: ImagePlan) -> str:
    """Names the record that takes the most memory, and the most pixels that an image has."""
    file = max(files.files, key=lambda file: file.max_record_bytes)
    record = int(np.diff(read_index(file)).argmax())
    before = sum(other.records for other in files.files[: files.files.index(file)])
    (name,) = FilePaths(files, select_all(len(files)))[before + record : before + record + 1]
    return (
        f"the largest record, {format_bytes(file.max_record_bytes)}, is that of {name!r:.122}, "
        f"and images have up to {images.stored.max_height}x{images.stored.max_width} pixels"
    )
