"""What is asked for meets what there is: a manifest and options become a `ReadPlan`."""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path
from typing import Final

from converter.errors import UsageError
from converter.format.manifest import ImageInfo, Manifest
from converter.sizes import format_bytes, format_count
from converter.storage.layout import Location
from reader.batches.batch_reader import RAW, BatchReader
from reader.examples.columns import FilePaths
from reader.plan.access import arrange, arrange_shardwise
from reader.plan.columns import NO_VALUES, Values
from reader.plan.memory import STORE_BYTES, Buffers, Demand, divide_memory
from reader.plan.options import COLOR_CHANNELS, ReadOptions
from reader.plan.record_choice import Choice, choose_records
from reader.records.damage import DamageLog
from reader.records.files import RecordFile
from reader.records.record_files import RecordFiles
from reader.remote.prefetch import Outlook
from reader.remote.range_reads import RangeFiles
from reader.remote.remote_file import MIXED_SHARDS, RemoteFile, list_remote
from reader.remote.shard_cache import check_room, open_cache
from reader.sampling.orders import Order, SequentialOrder
from reader.sampling.position import Position
from reader.sampling.selection import sort_selection
from reader.sampling.steps import Steps

LABEL_BYTES: Final = 5
"""Of a cached image besides its pixels: its label, and whether it is there."""

VALUE_BYTES: Final = {"uint8": 1, "float32": 4}

SINGLES: Final = 32
"""Single images are read that many at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadPlan:
    """Everything that is decided before the first record is read.

    Attributes:
        options: what is asked for; its seed is the one in use.
        order: `sequential`, `exact` or `buffer`.
        image: what the stored images have in common.
        class_names: in label order.
        height: of the images given, or None where they differ.
        width: likewise.
        reader: reads the records of any step.
        buffers: sizes of the buffers.
        position: where the next iterator begins.
        given: what is given besides the images.
    """

    options: ReadOptions
    order: str
    image: ImageInfo
    class_names: list[str]
    height: int | None
    width: int | None
    reader: BatchReader
    buffers: Buffers
    position: Position
    given: Values = NO_VALUES

    @property
    def is_direct(self) -> bool:
        """Whether the images are stored, raw, as they are asked for."""
        options, image = self.options, self.image
        return (
            options.batch_size is not None
            and tuple(image.formats) == (RAW,)
            and image.height is not None
            and (self.height, self.width) == (image.height, image.width)
            and COLOR_CHANNELS[options.color_mode] == image.channels
            and options.random_crop is None
            and not options.random_flip
            and self.reader.labelled
            and not self.reader.columns
            and not self.given.masks
        )

    @property
    def has_classes(self) -> bool:
        """Whether each record has one label, stored or given instead."""
        return self.given.labelled or self.reader.record_labels is not None

    @property
    def is_resized(self) -> bool:
        """Whether an image is given in another size than it is stored in."""
        return self.height is not None and (
            (self.height, self.width) != (self.image.height, self.image.width)
            or self.options.random_crop is not None
        )

    @property
    def decoded_dtype(self) -> str:
        """Of an image when it is decoded and resized: only a resize makes fractions."""
        return self.options.dtype if self.is_resized else "uint8"

    @property
    def values(self) -> int:
        """Of one image as it is given, or of the largest."""
        height, width = self.height or self.image.max_height, self.width or self.image.max_width
        return height * width * COLOR_CHANNELS[self.options.color_mode]

    @property
    def mask_bytes(self) -> int:
        """Of the mask of one image as it is given, or of the largest; 0 if it is not."""
        return self.values // COLOR_CHANNELS[self.options.color_mode] * self.given.masks

    @property
    def file_paths(self) -> FilePaths:
        """Paths of the originals, in the order of an epoch that is not shuffled."""
        return FilePaths(self.reader.files, self.reader.selection)


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
    order, seed = settle_order(options, split, remote=bool(list_remote(files.files)) and not singly)
    options = dataclasses.replace(options, seed=seed)
    choice = choose_records(files, manifest, split, options)
    if order == "buffer":
        # Neighbours have to be neighbours on disk: in a drawn order, each read served one record.
        choice = dataclasses.replace(choice, selection=sort_selection(choice.selection))
    records = choice.selection.count
    plan = plan_records(files, manifest.image, choice, order, options, records=records)
    if order == "buffer" and plan.buffers.window and list_remote(files.files):
        files, arranged = arrange_shardwise(files, plan.buffers, choice.selection, seed)
    else:
        files, arranged = arrange(files, plan.buffers, order, records, seed, singly=singly)
    return place_reader(plan, files, arranged)


def place_reader(plan: ReadPlan, files: RecordFiles, order: Order) -> ReadPlan:
    """Lets a plan read these files in this order."""
    steps = plan.reader.steps
    is_ahead = list_remote(files.files) and not isinstance(files, RangeFiles)
    outlook = Outlook(files.files, steps) if is_ahead and steps.count else None
    reader = dataclasses.replace(plan.reader, files=files, order=order, outlook=outlook)
    return dataclasses.replace(plan, reader=reader)


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


def plan_records(
    files: RecordFiles,
    image: ImageInfo,
    choice: Choice,
    order: str,
    options: ReadOptions,
    *,
    records: int,
) -> ReadPlan:
    """Decides all but the order, which is left as the records are stored.

    Args:
        files: that hold the records.
        image: what the stored images have in common.
        choice: which records may come, with which labels.
        order: `sequential`, `exact` or `buffer`.
        options: what is asked for; its seed is the one in use.
        records: of an epoch.

    Raises:
        UsageError: the options do not fit the records.
    """
    _check_options(image, options, choice)
    steps = plan_steps(records, order, options)
    height, width = options.image_size or (image.height, image.width)
    reader = BatchReader(
        files=files,
        image=image,
        classes=choice.stored_classes,
        selection=choice.selection,
        order=SequentialOrder(),
        steps=steps,
        damage=DamageLog(options.on_damage, options.max_damaged),
        seed=options.seed or 0,
        labels=choice.labels,
        record_labels=choice.record_labels,
        with_names=options.with_filename,
        labelled=choice.given.labelled,
        columns=choice.given.needed,
        with_masks=choice.given.masks,
    )
    plan = ReadPlan(
        options=options,
        order=order,
        image=image,
        class_names=choice.class_names,
        height=height,
        width=width,
        reader=reader,
        buffers=Buffers(calls=1, prefetch_batches=1, index_bytes=0),
        position=Position(options.initial_epoch, options.initial_step),
        given=choice.given,
    )
    return dataclasses.replace(plan, buffers=_size_buffers(plan))


def plan_steps(records: int, order: str, options: ReadOptions) -> Steps:
    """Divides an epoch of so many records, which is read in an order of that name, into steps.

    Raises:
        UsageError: there are too few records for all hosts, or no step where to begin.
    """
    steps = Steps(
        records=records,
        batch_size=options.batch_size or 1,
        remainder=options.remainder,
        shard_index=options.shard_index,
        shard_count=options.shard_count,
        contiguous=order == "buffer",
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
        shuffle = ("buffer" if remote else "exact") if shuffle else "sequential"
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


def _check_options(image: ImageInfo, options: ReadOptions, choice: Choice) -> None:
    if options.label_mode == "binary" and len(choice.class_names) != 2:
        raise UsageError(
            f"label_mode 'binary' takes 2 classes, this data set has {len(choice.class_names)}: "
            "use 'int' or 'categorical'"
        )
    if image.height is None and options.image_size is None:
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


def _size_buffers(plan: ReadPlan) -> Buffers:
    demand, max_ram_bytes = _measure_demand(plan), plan.options.max_ram_bytes
    if demand.fixed_bytes > max_ram_bytes:
        raise UsageError(
            f"cache would keep {format_count(plan.reader.selection.count, 'image')} of "
            f"{_cached_bytes(plan):,} bytes, {format_bytes(demand.fixed_bytes)} in all, and "
            f"max_ram is {format_bytes(max_ram_bytes)}: allow more, or leave it out"
        )
    return divide_memory(max_ram_bytes, demand)


def _measure_demand(plan: ReadPlan) -> Demand:
    options, image, files = plan.options, plan.image, plan.reader.files.files
    records = sum(file.records for file in files)
    largest = max((file.max_record_bytes for file in files), default=1)
    stored = image.max_height * image.max_width * COLOR_CHANNELS[options.color_mode]
    return Demand(
        records=records,
        # Where every image was rejected there is nothing at all.
        shard_records=max((file.records for file in files), default=0),
        record_bytes=largest,
        mean_record_bytes=max(1, sum(file.bytes for file in files) // max(1, records)),
        batch_size=options.batch_size or SINGLES,
        image_bytes=plan.values * VALUE_BYTES[options.dtype] + plan.mask_bytes,
        # `tf.image.resize` gives float32, whatever is asked for.
        decoded_bytes=(0 if plan.is_direct else stored + plan.values * 4 * plan.is_resized)
        + (image.max_height * image.max_width + plan.mask_bytes) * plan.given.masks
        # Of a record whose columns are given, next to nothing may be the image.
        + (largest if plan.reader.columns else 0),
        fixed_bytes=plan.reader.selection.count * _cached_bytes(plan) if options.cache else 0,
        selection_bytes=sum(
            held.nbytes
            for held in (plan.reader.selection.chosen, plan.reader.record_labels)
            if held is not None
        ),
        store_bytes=STORE_BYTES if list_remote(files) else 0,
        open_shards=2 * MIXED_SHARDS if list_remote(files) else 4,
        order=plan.order,
    )


def _cached_bytes(plan: ReadPlan) -> int:
    return plan.values * VALUE_BYTES[plan.decoded_dtype] + plan.mask_bytes + LABEL_BYTES
