"""The decisions made before the first record is read: `ReadPlan`, and what epochs depend on."""

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from converter.errors import UsageError
from reader.arrays import Numbers
from reader.examples.columns import FilePaths
from reader.examples.fields import Given
from reader.plan.choices import Choice, ImagePlan
from reader.plan.memory import SINGLES, Buffers
from reader.plan.read_options import ReadOptions
from reader.records.record_files import RecordFiles, RunFiles
from reader.remote.remote_shards import RangeFiles, count_mixed, fits_cache, list_remote
from reader.sampling import orders

CHOICES: Final = (
    "subset", "validation_split", "color_mode", "dtype", "interpolation", "crop_to_aspect_ratio",
    "pad_to_aspect_ratio", "random_crop", "random_flip",
)  # fmt: skip
"""Options that decide which records come, or with which pixels."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReadPlan:
    """Everything that is decided before the first record is read."""

    images: ImagePlan  # which images are made of the stored ones; with the resolved options
    choice: Choice  # which records are read, with which labels and columns
    files: RecordFiles  # the files that hold them
    order: orders.Order  # in which order the chosen records come
    steps: orders.Steps  # which of them form a step, on this host
    buffers: Buffers  # sizes of the buffers

    @property
    def options(self) -> ReadOptions:
        return self.images.options

    @property
    def given(self) -> Given:
        return self.choice.given

    @property
    def is_direct(self) -> bool:
        """Whether the images are stored raw, exactly as they are asked for."""
        images, stored, given = self.images, self.images.stored, self.given
        alike = stored.height is not None and images.channels == stored.channels
        changed = images.is_resized or self.options.random_flip
        plain = given.labelled and not given.needed and not given.masks
        return stored.is_raw and alike and not changed and plain

    @property
    def has_classes(self) -> bool:
        """Whether each record has one label, stored or from the options."""
        return self.given.labelled or self.choice.record_labels is not None

    @property
    def read_dtype(self) -> str:
        """The dtype of images as read: batches that are resized later are read as stored."""
        return "uint8" if self.buffers.resizes_batches else self.options.dtype

    def shape_read(self, channels: int | None = None) -> tuple[int, int, int] | None:
        """The shape of an image, or of its mask, as read; None where images differ."""
        images, stored = self.images, self.images.stored
        channels = channels or images.channels
        if self.buffers.resizes_batches and stored.height and stored.width:
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
        """Finds places in the batches of some steps, and the chosen records that belong there."""
        positions = self.steps.join_positions(steps, stride)
        slots = np.flatnonzero(positions >= 0)
        return slots, self.order.find_records(epoch, positions[slots])


def resolve_options(options: ReadOptions, split: str, *, remote: bool) -> ReadOptions:
    """Resolves `shuffle` to False, `exact` or `buffer`, and draws a seed if none is given."""
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


def plan_steps(records: int, options: ReadOptions) -> orders.Steps:
    """Divides an epoch of `records` into steps."""
    steps = orders.Steps(
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
    selection: orders.Selection,
    *,
    random_access: bool = False,
) -> tuple[RecordFiles, orders.Order]:
    """Chooses the order of the selection (sorted, for `buffer`), and how files are read in it."""
    seed, is_remote = options.seed or 0, bool(list_remote(files.files))
    order: orders.Order = orders.SequentialOrder()
    if options.shuffle == "buffer" and buffers.window:
        run, window = buffers.run, buffers.window
        order = orders.WindowedOrder(records=selection.count, seed=seed, run=run, window=window)
        if is_remote:
            counts = orders.count_selected(selection, [file.records for file in files.files])
            # At both ends of a window, parts of runs are held for nothing.
            inner = max(run, window - run)
            order = orders.ShardwiseOrder(
                counts=counts, seed=seed, run=run, window=inner, shards=count_mixed(files.files)
            )
        files = RecordFiles(files.files, buffers.index_bytes)
        # The runs of the window being used up, and of the one being filled.
        return RunFiles(files, run, 2 * window // run, by_file=is_remote), order
    if options.shuffle == "exact":
        order = orders.ShuffledOrder(records=selection.count, seed=seed)
        # A cache that cannot hold all shards would fetch each of them again and again.
        random_access = random_access or not fits_cache(files.files)
    # Ranges fetch only the records needed.
    kind = RangeFiles if random_access and is_remote else RecordFiles
    return kind(files.files, buffers.index_bytes), order


def describe_plan(plan: ReadPlan) -> dict[str, Any]:
    """Describes, in JSON's types, everything that decides which values come when."""
    # Without memory, `on_damage` and `label_mode`: they may change in the middle of an epoch.
    order, labels, options = plan.order, plan.choice.record_labels, plan.options
    description = {
        **describe_order(plan.files, options, plan.buffers, plan.steps),
        "class_names": _digest(json.dumps(plan.choice.class_names).encode()),
        "labels": None if labels is None else _digest(labels.tobytes()),
        "image_size": [plan.images.height, plan.images.width],
        "mixture": None,
    }
    if isinstance(order, orders.MixedOrder):
        ends = [*order.begins[1:], plan.choice.selection.total]
        description["mixture"] = [*zip(ends, order.shares, strict=True)]
    if isinstance(order, orders.ShardwiseOrder):
        description["shards"] = order.shards
    if options.order == "path":
        description["by"] = "path"
    description |= {name: getattr(options, name) for name in CHOICES}
    described: dict[str, Any] = json.loads(json.dumps(description))  # with lists for tuples
    return described


def describe_order(
    files: RecordFiles, options: ReadOptions, buffers: Buffers, steps: orders.Steps
) -> dict[str, Any]:
    """Describes everything that decides which records come when; options are resolved."""
    return {
        "data": _digest("\n".join(file.digest for file in files.files).encode()),
        "seed": options.seed,
        "order": options.shuffle or "sequential",
        "window": buffers.window,
        "records": steps.records,
        "batch_size": options.batch_size,
        "remainder": steps.remainder,
        "shard_index": steps.shard_index,
        "shard_count": steps.shard_count,
    }


def find_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Names the first entry that differs."""
    names = (name for name in {**wanted, **found} if found.get(name) != wanted.get(name))
    return next(names, None)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
