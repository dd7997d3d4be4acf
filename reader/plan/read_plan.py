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
from reader.plan.access import arrange
from reader.plan.element_spec import Given
from reader.plan.image_plan import ImagePlan
from reader.plan.memory import Buffers
from reader.plan.read_options import ReadOptions
from reader.plan.record_choice import Choice, choose_records
from reader.plan.sizing import SINGLES, size_buffers
from reader.records.indexed_file import RecordFile
from reader.records.record_files import RecordFiles
from reader.remote.remote_file import RemoteFile, list_remote
from reader.remote.shard_cache import check_room, open_cache
from reader.sampling.orders import Order
from reader.sampling.selection import sort_selection
from reader.sampling.steps import Steps


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReadPlan:
    """Everything that is decided before the first record is read.

    Attributes:
        images: which images are made of which; their options are settled.
        choice: which records, with which labels and columns.
        files: that hold the records.
        order: in which order the chosen records come.
        steps: which of them are a step, on this host.
        buffers: sizes of the buffers.
        resizes_batches: whether whole batches are resized, and not each image.
    """

    images: ImagePlan
    choice: Choice
    files: RecordFiles
    order: Order
    steps: Steps
    buffers: Buffers
    resizes_batches: bool = False

    @property
    def options(self) -> ReadOptions:
        """What is asked for, as `settle` gives it."""
        return self.images.options

    @property
    def given(self) -> Given:
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
    def calls(self) -> int:
        """How many batches are filled at the same time."""
        # What is only copied is copied by one thread: two waited for each other at every record,
        # and gave 6,800 to 9,200 images a second where one alone gave 12,000.
        return 1 if self.is_direct or self.options.cache else self.buffers.calls

    def find_chosen(
        self, epoch: int, steps: Sequence[int], stride: int = 1
    ) -> tuple[Numbers, Numbers]:
        """Finds the records of some steps, or every `stride`th of each, among the chosen ones.

        Returns:
            int64 (records,), the places in the steps' batches that hold one; int64 (records,), its
            number among the chosen ones.
        """
        positions = self.steps.join_positions(steps, stride)
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
    options = settle(options, split, remote=is_remote and not singly)
    choice = choose_records(files, manifest, split, options)
    selection = choice.selection
    if options.shuffle == "buffer":
        # Neighbours have to be neighbours on disk: in a drawn order, each read served one record.
        selection = sort_selection(selection)
        choice = dataclasses.replace(choice, selection=selection)
    steps = plan_steps(selection.count, options)
    images = ImagePlan(stored=manifest.image, options=options)
    buffers, resizes_batches = size_buffers(files, images, choice)
    files, order = arrange(files, buffers, options, selection, singly=singly)
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
    if not folder.is_remote:
        return [RecordFile.of_shard(folder, shard) for shard in shards]
    options = options or ReadOptions()
    cache = open_cache(options.cache_dir, options.cache_bytes)
    check_room(cache, shards)
    return [
        RemoteFile.of_shard(folder, shard, index_bytes=shard.index_bytes, cache=cache)
        for shard in shards
    ]


def plan_steps(records: int, options: ReadOptions) -> Steps:
    """Divides an epoch of so many records into steps.

    Raises:
        UsageError: there are too few records for all hosts, or no step where to begin.
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


def settle(options: ReadOptions, split: str, *, remote: bool) -> ReadOptions:
    """Decides which order is meant, and draws a seed if one is needed and none is given.

    Returns:
        the options, with `shuffle` as False, `exact` or `buffer`, and with a seed.

    Raises:
        UsageError: an order without a seed is to be continued, or shared with other hosts.
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
                "give the seed of the run that is to be continued"
            )
        if options.shard_count > 1:
            raise UsageError(
                f"shard_count {options.shard_count}: hosts that share an epoch need the same "
                "order, give all of them the same seed"
            )
        seed = secrets.randbits(63)
    # Where nothing is random, all runs and hosts are to be the same.
    return dataclasses.replace(options, shuffle=shuffle, seed=seed or 0)
