"""Plans reading: a split of one data set, a mixture of several, or with TensorFlow alone."""

import collections
import dataclasses
import functools
import math
import numbers
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import numpy as np

from converter.errors import UsageError
from converter.format.manifest import ImageInfo, Manifest, ShardInfo
from converter.storage.location import Location
from reader.plan.choices import (
    Choice,
    ImagePlan,
    check_images,
    choose_given,
    choose_records,
    map_classes,
)
from reader.plan.memory import divide_serializable, measure_demand, size_buffers
from reader.plan.read_options import ReadOptions
from reader.plan.read_plan import ReadPlan, choose_order, plan_steps, resolve_options
from reader.records.indexed_file import RecordFile
from reader.records.record_files import RecordFiles
from reader.remote.remote_shards import RemoteFile, check_room, open_cache
from reader.sampling import orders
from reader.sampling.draws import derive_key

# Of these records a fixed number comes from each data set: shares are rounded to hundredths.
BLOCK_RECORDS: Final = 100
# Key of the first data set's own seed; further ones count down. 0 and up are epochs, -2 draws a
# validation split.
FIRST_KEY: Final = -3
# Options that concern a single data set.
FIXED: Final = ("labels", "class_names", "validation_split", "order")

_USUAL: Final = "leave serializable out"
_SPLIT: Final = f"convert with --validation-split, or {_USUAL}"
_CHECKPOINT: Final = "keep an iterator with tf.train.Checkpoint instead"
_STORE: Final = "it is for object stores, leave it out"

LIMITS: Final[dict[str, tuple[tuple[object, ...], str]]] = {
    "labels": ((None,), f"convert with those labels, or {_USUAL}"),
    "validation_split": ((None,), _SPLIT),
    "subset": ((None,), _SPLIT),
    "order": (("stored",), f"leave it out, or {_USUAL}"),
    "shuffle": ((None, True, False, "buffer"), f"take True, which is 'buffer', or {_USUAL}"),
    "remainder": (("keep", "drop"), f"take 'keep' or 'drop', or {_USUAL}"),
    "initial_epoch": ((0,), _CHECKPOINT),
    "initial_step": ((0,), _CHECKPOINT),
    "on_damage": (("raise",), f"repair the data set with shardmill convert --update, or {_USUAL}"),
    "max_damaged": ((ReadOptions().max_damaged,), "nothing is skipped, leave it out"),
    "cache": ((False,), f"convert with --encoding raw, or {_USUAL}"),
    "cache_dir": ((None,), _STORE),
    "cache_bytes": ((None,), _STORE),
}
"""The values allowed for options that are limited, and the way out for others."""


def plan_reading(
    folder: Location,
    manifest: Manifest,
    split: str,
    options: ReadOptions,
    *,
    random_access: bool = False,
) -> ReadPlan:
    """Decides how a split is read; with `random_access`, for steps in any order."""
    files = RecordFiles(list_files(folder, manifest, split, options))
    options = resolve_options(options, split, remote=folder.is_remote and not random_access)
    choice = choose_records(files, manifest, split, options)
    if options.shuffle == "buffer":
        # Neighbours have to be neighbours on disk: in a drawn order, each read served one record.
        choice = dataclasses.replace(choice, selection=orders.sort_selection(choice.selection))
    records = choice.selection.count
    return _make_plan(files, choice, options, records, random_access=random_access)


def _make_plan(
    files: RecordFiles, choice: Choice, options: ReadOptions, records: int, *, random_access: bool
) -> ReadPlan:
    steps = plan_steps(records, options)
    images = ImagePlan(stored=choice.given.image, options=options)
    check_images(images, choice)
    buffers = size_buffers(files, images, choice)
    files, order = choose_order(
        files, buffers, options, choice.selection, random_access=random_access
    )
    return ReadPlan(
        images=images, choice=choice, files=files, order=order, steps=steps, buffers=buffers
    )


def list_files(
    folder: Location, manifest: Manifest, split: str, options: ReadOptions
) -> list[RecordFile]:
    """Lists the shards of a split that are not empty; objects go through the options' cache."""
    shards = [shard for shard in manifest.list_shards(split) if shard.records]
    if not folder.is_remote:
        return [RecordFile.of_shard(folder, shard) for shard in shards]
    cache = open_cache(options.cache_dir, options.cache_bytes)
    check_room(cache, shards)
    describe = functools.partial(RemoteFile.of_shard, folder, cache=cache)
    return [describe(shard, index_bytes=shard.index_bytes) for shard in shards]


def plan_mixture(
    parts: Sequence[tuple[Location, Manifest, float]], split: str, options: ReadOptions
) -> ReadPlan:
    """Decides how one split of several data sets (folder, manifest, weight) is read as one."""
    manifests = [manifest for _, manifest, _ in parts]
    _check_mixable(manifests, options)
    options = resolve_options(options, split, remote=False)  # True means `exact`
    if options.shuffle == "buffer":
        raise UsageError("shuffle 'buffer' reads one data set at a time: mix with 'exact'")
    groups = [RecordFiles(list_files(*part[:2], split, options)) for part in parts]
    counts = [len(files) for files in groups]
    weights = [weight for _, _, weight in parts]
    shares = share_block(weights)
    if any(count < share for count, share in zip(counts, shares, strict=True)):
        shares = reduce_shares(weights)
    # An epoch ends before the first data set would start over. Of the others it has then shown a
    # part, a different one in each epoch if it is shuffled.
    blocks = min(count // share for count, share in zip(counts, shares, strict=True))
    if not blocks:
        raise UsageError(
            f"data sets of {', '.join(map(str, counts))} records are too small to be mixed at "
            f"{':'.join(map(str, shares))}"
        )
    files = RecordFiles([file for group in groups for file in group.files])
    images = join_images([manifest.image for manifest in manifests])
    manifest = dataclasses.replace(manifests[0], image=images)
    shards = sum(len(one.shards) for one in manifests)
    choice = dataclasses.replace(choose_records(files, manifest, split, options), shards=shards)
    plan = _make_plan(files, choice, options, blocks * sum(shares), random_access=False)
    return dataclasses.replace(plan, order=_mix_orders(counts, shares, options))


def _mix_orders(counts: Sequence[int], shares: Sequence[int], options: ReadOptions) -> orders.Order:
    seed = options.seed or 0
    parts: list[orders.Order] = [orders.SequentialOrder()] * len(counts)
    if options.shuffle:
        # With one seed, data sets of one size would always come in the same order.
        for index, count in enumerate(counts):
            own = derive_key(seed, FIRST_KEY - index)
            parts[index] = orders.ShuffledOrder(records=count, seed=own)
    return orders.MixedOrder(
        orders=tuple(parts),
        begins=tuple(sum(counts[:index]) for index in range(len(counts))),
        shares=tuple(shares),
        seed=seed,
        is_fresh=options.shuffle is not False,
    )


def _check_mixable(manifests: Sequence[Manifest], options: ReadOptions) -> None:
    defaults = ReadOptions()
    for name in FIXED:
        if getattr(options, name) != getattr(defaults, name):
            raise UsageError(f"{name} cannot be given for a mixture: it is about one data set")
    if len({manifest.classes for manifest in manifests}) > 1:
        raise UsageError("data sets with different classes cannot be mixed: convert them alike")
    if len({(manifest.labelled, manifest.columns) for manifest in manifests}) > 1:
        raise UsageError("data sets with different columns cannot be mixed: convert them alike")


def share_block(weights: Sequence[float]) -> list[int]:
    """Divides a block of `BLOCK_RECORDS` records among data sets, at least one for each.

    >>> share_block([2, 1])
    [67, 33]
    """
    if not 1 <= len(weights) <= BLOCK_RECORDS or not all(
        isinstance(weight, numbers.Real) and 0 < weight < math.inf for weight in weights
    ):
        raise UsageError(
            f"weights {weights} are out of range: 1 to {BLOCK_RECORDS} numbers above 0"
        )
    fractions = [Fraction(float(weight)) for weight in weights]  # their sum is always finite
    total = sum(fractions)
    exact = [weight * BLOCK_RECORDS / total for weight in fractions]
    shares = [max(1, int(share)) for share in exact]
    # The one furthest from its exact share gives or takes a record, until the block is full.
    while sum(shares) != BLOCK_RECORDS:
        step = 1 if sum(shares) < BLOCK_RECORDS else -1
        gaps = [step * (share - given) for share, given in zip(exact, shares, strict=True)]
        able = [index for index, given in enumerate(shares) if given + step >= 1]
        shares[max(able, key=gaps.__getitem__)] += step
    return shares


def reduce_shares(weights: Sequence[float]) -> list[int]:
    """Divides the smallest block with exactly these proportions, at most one of `share_block`.

    >>> reduce_shares([1, 1, 1]), reduce_shares([0.5, 0.25])
    ([1, 1, 1], [2, 1])
    """
    fractions = [Fraction(float(weight)).limit_denominator(BLOCK_RECORDS) for weight in weights]
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    whole = [int(fraction * scale) for fraction in fractions]
    shares = [share // (math.gcd(*whole) or 1) for share in whole]
    return shares if all(shares) and sum(shares) <= BLOCK_RECORDS else share_block(weights)


def join_images(images: Sequence[ImageInfo]) -> ImageInfo:
    """Describes what the images of several data sets have in common."""
    counters = (collections.Counter(image.formats) for image in images)
    formats = sum(counters, collections.Counter())
    if len({image.channels for image in images}) > 1 or ("raw" in formats and len(formats) > 1):
        raise UsageError(
            "data sets of different channels, or raw and encoded ones, cannot be mixed: convert "
            "them alike"
        )
    sizes = {(image.height, image.width) for image in images}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    return dataclasses.replace(
        images[0],
        height=height,
        width=width,
        max_height=max(image.max_height for image in images),
        max_width=max(image.max_width for image in images),
        formats=dict(formats),
    )


def plan_serializable(
    folder: Location, manifest: Manifest, split: str, options: ReadOptions
) -> ReadPlan:
    """Decides how a split is read with TensorFlow's own operations alone.

    The plan is for this host as if it were the only one: for its shards, including empty ones, in
    the order in which they were written, and with as many records as every other host reads.
    """
    if folder.is_remote:
        raise UsageError(
            f"{folder} is an address, and serializable=True reads files: copy the data set to a "
            f"disk, or {_USUAL}"
        )
    for name, (allowed, way_out) in LIMITS.items():
        value = getattr(options, name)
        if value not in allowed:
            raise UsageError(f"{name} {value!r:.60} is not for serializable=True: {way_out}")
    # `remote`, because True means a window here as well.
    resolved = resolve_options(options, split, remote=True)
    shards, records = _share_shards(manifest.list_shards(split), options)
    choice = _choose_records(manifest, split, records, options)
    options = dataclasses.replace(resolved, shard_index=0, shard_count=1)
    files = RecordFiles(list_files(folder, manifest, split, options))
    images = ImagePlan(stored=manifest.image, options=options)
    check_images(images, choice)
    demand = measure_demand(files, images, choice, whole_batches=False)
    if choice.given.needed:
        # Columns are parsed after batching, so a batch holds its records until then.
        held = demand.image_bytes + demand.record_bytes
        demand = dataclasses.replace(demand, image_bytes=held)
    return ReadPlan(
        images=images,
        choice=choice,
        files=RecordFiles([RecordFile.of_shard(folder, shard) for shard in shards]),
        order=orders.SequentialOrder(),
        steps=plan_steps(choice.selection.count, options),
        buffers=divide_serializable(options.max_ram_bytes, demand),
    )


def _choose_records(manifest: Manifest, split: str, records: int, options: ReadOptions) -> Choice:
    given, labels = choose_given(manifest, options), None
    if options.class_names is not None:
        labels = map_classes(manifest.classes, options.class_names)
        if options.shard_count > 1 and labels.min() < 0:
            raise UsageError(
                "class_names leaves records out, and the manifest does not say how many of each "
                f"shard, which hosts have to know: take shard_count 1, or {_USUAL}"
            )
        records -= int(np.array(manifest.splits[split].labels)[labels < 0].sum())
    return Choice(
        class_names=list(options.class_names or manifest.classes),
        selection=orders.select_all(records),
        labels=labels,
        given=given,
        shards=len(manifest.shards),
    )


def _share_shards(shards: Sequence[ShardInfo], options: ReadOptions) -> tuple[list[ShardInfo], int]:
    """Returns this host's whole shards, and the number of records of the host with the fewest."""
    hosts, filled = options.shard_count, sum(shard.records > 0 for shard in shards)
    if hosts > max(filled, 1):
        raise UsageError(
            f"shard_count {hosts} is more than the {filled} shards of this split, which hosts take "
            f"as a whole: convert with --num-shards {hosts} or more, or {_USUAL}"
        )
    loads, owners = [0] * hosts, {}
    for shard in sorted(shards, key=lambda shard: -shard.records):
        owners[shard.name] = loads.index(min(loads))
        loads[owners[shard.name]] += shard.records
    return [shard for shard in shards if owners[shard.name] == options.shard_index], min(loads)
