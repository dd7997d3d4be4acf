"""Turns a manifest and options into a `ReadPlan`."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence

import numpy as np

from converter.errors import UsageError
from converter.format.manifest import Manifest
from converter.storage.location import Location
from reader.arrays import Numbers
from reader.examples.columns import FilePaths
from reader.examples.fields import Wanted
from reader.plan.image_plan import ImagePlan
from reader.plan.memory import Buffers
from reader.plan.read_options import ReadOptions
from reader.plan.record_choice import Choice, Given, choose_records
from reader.plan.sizing import SINGLES, size_buffers
from reader.records.indexed_file import RecordFile
from reader.records.record_files import RecordFiles, RunFiles
from reader.remote.range_reads import RangeFiles
from reader.remote.remote_shards import RemoteFile, count_mixed, fits_cache, list_remote
from reader.remote.shard_cache import check_room, open_cache
from reader.sampling.orders import (
    Order,
    Selection,
    SequentialOrder,
    ShardwiseOrder,
    ShuffledOrder,
    WindowedOrder,
    count_selected,
    sort_selection,
)
from reader.sampling.steps import Steps


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReadPlan:
    """Everything that is decided before the first record is read."""

    images: ImagePlan  # which images are made of the stored ones; with the resolved options
    choice: Choice  # which records are read, with which labels and columns
    files: RecordFiles  # the files that hold them
    order: Order  # in which order the chosen records come
    steps: Steps  # which of them form a step, on this host
    buffers: Buffers  # sizes of the buffers
    resizes_batches: bool = False  # whether whole batches are resized, instead of each image

    @property
    def options(self) -> ReadOptions:
        """The resolved options."""
        return self.images.options

    @property
    def given(self) -> Given:
        """What is given besides the images."""
        return self.choice.given

    @property
    def wanted(self) -> Wanted:
        """Which parts of records to parse, and what they have to be."""
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
        """Whether the images are stored raw, exactly as they are asked for."""
        images, options = self.images, self.options
        return (
            images.stored.is_raw
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
        """Whether each record has one label, stored or from the options."""
        return self.given.labelled or self.choice.record_labels is not None

    @property
    def read_dtype(self) -> str:
        """The dtype of images as read: batches that are resized later are read as stored."""
        return "uint8" if self.resizes_batches else self.options.dtype

    def shape_read(self, channels: int | None = None) -> tuple[int, int, int] | None:
        """The shape of an image, or of its mask, as read; None where images differ."""
        images, stored = self.images, self.images.stored
        channels = channels or images.channels
        if self.resizes_batches and stored.height and stored.width:
            return stored.height, stored.width, channels
        if images.height and images.width:
            return images.lay_out(images.height, images.width, channels)
        return None

    @property
    def file_paths(self) -> FilePaths:
        """Paths of the originals, in the order of an epoch without shuffling."""
        return FilePaths(self.files, self.choice.selection)

    @property
    def calls(self) -> int:
        """How many batches are filled in parallel."""
        # Copying alone takes one thread: two waited for each other at every record, and gave
        # 6,800 to 9,200 images a second where one alone gave 12,000.
        return 1 if self.is_direct or self.options.cache else self.buffers.calls

    @property
    def block_steps(self) -> int:
        """How many steps are read at once: single images of one size are read in blocks."""
        uniform = self.images.height is not None
        return SINGLES if self.options.batch_size is None and uniform else 1

    def find_chosen(
        self, epoch: int, steps: Sequence[int], stride: int = 1
    ) -> tuple[Numbers, Numbers]:
        """Finds the records of some steps, or every `stride`th of each.

        Returns:
            int64 (records,), their places in the steps' batches; int64 (records,), their numbers
            among the chosen records.
        """
        positions = self.steps.join_positions(steps, stride)
        slots = np.flatnonzero(positions >= 0)
        return slots, self.order.find_records(epoch, positions[slots])


def plan_reading(
    folder: Location,
    manifest: Manifest,
    split: str,
    options: ReadOptions,
    *,
    random_access: bool = False,
) -> ReadPlan:
    """Decides how a split of a data set is read.

    With `random_access` steps are read in any order, so only the records needed are fetched from a
    store.

    Raises:
        DatasetError: there is no such split, or a file that has to be read is damaged.
        UsageError: the options do not fit the data set.
    """
    files = RecordFiles(list_files(folder, manifest, split, options))
    is_remote = bool(list_remote(files.files))
    options = resolve_options(options, split, remote=is_remote and not random_access)
    choice = choose_records(files, manifest, split, options)
    if options.shuffle == "buffer":
        # Neighbours have to be neighbours on disk: in a drawn order, each read served one record.
        choice = dataclasses.replace(choice, selection=sort_selection(choice.selection))
    steps = plan_steps(choice.selection.count, options)
    images = ImagePlan(stored=manifest.image, options=options)
    buffers, resizes_batches = size_buffers(files, images, choice)
    files, order = choose_order(
        files, buffers, options, choice.selection, random_access=random_access
    )
    return ReadPlan(
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
    """Lists the shards of a split that are not empty; objects go through the options' cache.

    Raises:
        DatasetError: there is no such split.
        UsageError: the cache is too small for a shard.
    """
    shards = [shard for shard in manifest.list_shards(split) if shard.records]
    if not folder.is_remote:
        return [RecordFile.of_shard(folder, shard) for shard in shards]
    options = options or ReadOptions()
    cache = open_cache(options.cache_dir, options.cache_bytes)
    check_room(cache, shards)
    return [
        RemoteFile.of_shard(folder, shard, index_bytes=shard.index_bytes, cache=cache)
        for shard in shards
    ]


def resolve_options(options: ReadOptions, split: str, *, remote: bool) -> ReadOptions:
    """Resolves `shuffle` to False, `exact` or `buffer`, and draws a seed if none is given.

    Raises:
        UsageError: an order without a seed would have to be continued, or shared with other hosts.
    """
    shuffle, seed = options.shuffle, options.seed
    if shuffle is None:
        shuffle = split == "train" if options.subset is None else options.subset == "training"
    if shuffle is True:
        shuffle = "buffer" if remote and options.order != "path" else "exact"
    if seed is None and (shuffle or options.random_crop is not None or options.random_flip):
        if options.initial_epoch or options.initial_step:
            raise UsageError(
                "initial_epoch and initial_step go on with an order that only its seed repeats: "
                "give the seed of the run to continue"
            )
        if options.shard_count > 1:
            raise UsageError(
                f"shard_count {options.shard_count}: hosts that share an epoch need the same "
                "order, give all of them the same seed"
            )
        seed = secrets.randbits(63)
    # Where nothing is random, all runs and hosts get the same seed.
    return dataclasses.replace(options, shuffle=shuffle, seed=seed or 0)


def plan_steps(records: int, options: ReadOptions) -> Steps:
    """Divides an epoch of `records` into steps.

    Raises:
        UsageError: there are too few records for all hosts, or for `initial_step`.
    """
    steps = Steps(
        records=records,
        batch_size=options.batch_size or 1,
        remainder=options.remainder,
        shard_index=options.shard_index,
        shard_count=options.shard_count,
        contiguous=options.shuffle == "buffer",
    )
    if options.initial_step > steps.count:
        raise UsageError(
            f"initial_step {options.initial_step} is out of range: an epoch has {steps.count} steps"
        )
    return steps


def choose_order(
    files: RecordFiles,
    buffers: Buffers,
    options: ReadOptions,
    selection: Selection,
    *,
    random_access: bool = False,
) -> tuple[RecordFiles, Order]:
    """Chooses the order of the selected records, and how files are read in it.

    The options are resolved, and the selection is sorted for `buffer`.
    """
    records, seed, is_remote = selection.count, options.seed or 0, bool(list_remote(files.files))
    if options.shuffle == "buffer" and buffers.window:
        order: Order = WindowedOrder(
            records=records, seed=seed, run=buffers.run, window=buffers.window
        )
        if is_remote:
            order = ShardwiseOrder(
                counts=count_selected(selection, [file.records for file in files.files]),
                seed=seed,
                run=buffers.run,
                # At both ends of a window, parts of runs are held for nothing.
                window=max(buffers.run, buffers.window - buffers.run),
                shards=count_mixed(files.files),
            )
        files = RecordFiles(files.files, buffers.index_bytes)
        keep = 2 * buffers.window // buffers.run
        return RunFiles(files, buffers.run, keep, by_file=is_remote), order
    is_shuffled = options.shuffle == "exact"
    is_scattered = random_access or (is_shuffled and not fits_cache(files.files))
    kind = RangeFiles if is_scattered and is_remote else RecordFiles
    plain = ShuffledOrder(records=records, seed=seed) if is_shuffled else SequentialOrder()
    return kind(files.files, buffers.index_bytes), plain
